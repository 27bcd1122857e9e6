//! `purser simulate`: Purser's decisions beside published ones, on real traces. Needs no cluster and no network.

mod catalogue;
mod packing;
mod pods;
mod training;

use super::{CliError, Exit};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Choose a fleet for many pods, and say how far from the mathematical bound it is.
    Packing(packing::Args),
    /// Play jobs with deadlines on measured spot markets under each policy, beside the exact optimum.
    Training(training::Args),
}

pub fn run(args: &Args) -> Result<Exit, CliError> {
    match &args.command {
        Command::Packing(args) => packing::run(args),
        Command::Training(args) => training::run(args),
    }
}
