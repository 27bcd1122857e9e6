//! `purser job`: what somebody who trains models asks every day.

mod cancel;
mod describe;
mod list;
mod logs;
mod submit;

use clap::Subcommand;
use kube::{Api, Client};

use super::cluster_access::api_error;
use super::{CliError, Exit, Global};
use crate::api::TrainingJob;

pub(super) use list::{JobRow, rows as job_rows, table as job_table};
pub(super) use submit::{apply_documents, read_all};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Submit the jobs of a file, with the experiments and pools beside them.
    Submit(submit::Args),
    /// List jobs: how far each is, on what, what it cost, and why it waits.
    List(list::Args),
    /// Show one job's attempts, capacity, decision and events.
    Describe(describe::Args),
    /// Print what the program of a job writes.
    Logs(logs::Args),
    /// Stop a job and give its machines back.
    Cancel(cancel::Args),
}

pub async fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    match args.command {
        Command::Submit(args) => submit::run(args, global).await,
        Command::List(args) => list::run(&args, global).await,
        Command::Describe(args) => describe::run(&args, global).await,
        Command::Logs(args) => logs::run(&args, global).await,
        Command::Cancel(args) => cancel::run(&args, global).await,
    }
}

/// The job NAME of the namespace asked for.
pub(super) async fn fetch(client: &Client, namespace: &str, name: &str) -> Result<TrainingJob, CliError> {
    let jobs: Api<TrainingJob> = Api::namespaced(client.clone(), namespace);
    jobs.get(name).await.map_err(|error| api_error(format!("could not read job {namespace}/{name}"), error))
}
