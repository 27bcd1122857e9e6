//! The command line: what can be asked for. One file a command; each has `Args` and `run`, and returns an [`Exit`] or a
//! [`CliError`]. Data goes to stdout ([`output`]), everything else to stderr.
//!
//! To add a command: `mod x;`, a variant with its one-line purpose below, and an arm in [`run`].

pub mod cluster_access;
pub mod documents;
pub mod error;
pub mod generate;
pub mod output;

mod cluster;
mod completions;
mod crds;
mod demo;
mod explain;
mod install;
mod job;
mod ledger;
mod logging;
mod operator;
mod plan;
mod report;
mod simulate;
mod twin;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use error::{CliError, Exit};

/// Money as a schedulable resource: runs training jobs on the cheapest capacity that meets their deadlines, and says what
/// each experiment cost, to the cent.
#[derive(Debug, Parser)]
#[command(name = "purser", version, max_term_width = 110, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Which cluster; for commands that speak to one.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub struct Global {
    /// Kubeconfig file [default: $KUBECONFIG, ~/.kube/config, or the pod's service account]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace [default: the context's]
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print or apply everything a cluster needs for Purser.
    Install(install::Args),
    /// Run the operator: webhook, metrics and, for the leader, the scheduling cycle.
    Operator(operator::Args),
    /// Print the CustomResourceDefinitions.
    Crds(crds::Args),
    /// Show the whole way on this machine: a local cluster, a simulated AWS market, five jobs, what they cost.
    Demo(demo::Args),
    /// Submit, list, describe and cancel training jobs, and read their logs.
    Job(job::Args),
    /// Say what would be bought for the jobs of a file, when they finish and what they cost, without buying.
    Plan(plan::Args),
    /// Say why a job waits or runs where it runs, and what a claim or a pool is about.
    Explain(explain::Args),
    /// Sum what a ledger holds: by experiment, team, job, capacity kind, day.
    Report(report::Args),
    /// Ask a ledger in SQL.
    Ledger(ledger::Args),
    /// Replay Purser's decisions beside published ones on real traces.
    Simulate(simulate::Args),
    /// Play AWS on this machine: EC2, SQS, S3, pricing and quotas over a simulated market.
    Twin(twin::Args),
    /// Start, look at and end a throwaway Kubernetes on this machine.
    Cluster(cluster::Args),
    /// Write what is made from code: manifests/crds and docs/reference.
    #[command(hide = true)]
    Generate(generate::Args),
    /// Print a completion script for a shell.
    Completions(completions::Args),
}

/// Parses the process's arguments, runs the command and reports how it ended.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // One TLS provider for Kubernetes, AWS and the webhook alike; a second install would be refused, so it happens here.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    logging::start(&cli.command);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&CliError::failed("could not start the runtime").because(error)),
    };
    match runtime.block_on(run(cli)) {
        Ok(exit) => exit.into(),
        Err(error) => fail(&error),
    }
}

fn fail(error: &CliError) -> ExitCode {
    eprintln!("error: {error}");
    error.exit().into()
}

async fn run(cli: Cli) -> Result<Exit, CliError> {
    match cli.command {
        Command::Install(args) => install::run(&args, &cli.global).await,
        Command::Operator(args) => operator::run(args, &cli.global).await,
        Command::Crds(args) => crds::run(&args),
        Command::Demo(args) => demo::run(&args).await,
        Command::Job(args) => job::run(args, &cli.global).await,
        Command::Plan(args) => plan::run(&args, &cli.global).await,
        Command::Explain(args) => explain::run(&args, &cli.global).await,
        Command::Report(args) => report::run(&args).await,
        Command::Ledger(args) => ledger::run(&args).await,
        Command::Simulate(args) => simulate::run(&args),
        Command::Twin(args) => twin::run(&args, &cli.global).await,
        Command::Cluster(args) => cluster::run(&args).await,
        Command::Generate(args) => generate::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}
