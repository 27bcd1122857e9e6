//! `purser cluster up|down|status`: a throwaway Kubernetes on this machine, for trying things out.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Subcommand;
use serde_json::json;

use super::output::{self, Format, Table};
use super::{CliError, Exit};
use crate::testbed::{self, LocalCluster, Options, TestbedError};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  export KUBECONFIG=$(purser cluster up)\n  purser cluster status\n  purser cluster down")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a cluster in a folder and leave it running; prints the path of its kubeconfig.
    Up(Up),
    /// End the cluster of a folder, whoever started it, and remove the folder.
    Down(Place),
    /// Show what runs in a folder.
    Status(Status),
}

#[derive(Debug, clap::Args)]
struct Place {
    /// The cluster's folder: data, logs, kubeconfig.
    #[arg(long, value_name = "DIR", default_value = "demo-state/cluster")]
    dir: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Up {
    #[command(flatten)]
    place: Place,
    /// Prepare for real nodes (containerd and kubelet), which need root; without this nodes are simulated.
    #[arg(long)]
    real_nodes: bool,
    /// The form.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
struct Status {
    #[command(flatten)]
    place: Place,
    /// The form.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub async fn run(args: &Args) -> Result<Exit, CliError> {
    match &args.verb {
        Verb::Up(up) => start(up).await,
        Verb::Down(place) => end(&place.dir).await,
        Verb::Status(status) => show(status),
    }
}

async fn start(up: &Up) -> Result<Exit, CliError> {
    let started = Instant::now();
    let options = Options { real_nodes: up.real_nodes, detached: true, ..Options::default() };
    let cluster = LocalCluster::start(&up.place.dir, options).await.map_err(|error| failed("cannot start a local cluster", error))?;
    eprintln!("the cluster is up at {} after {:.1} s", cluster.server(), started.elapsed().as_secs_f64());
    let kubeconfig = cluster.kubeconfig_path();
    match up.output {
        Format::Json => output::print_json(&json!({ "server": cluster.server(), "kubeconfig": kubeconfig }))?,
        Format::Table | Format::Csv => output::print(&format!("{}\n", kubeconfig.display()))?,
    }
    Ok(Exit::Done)
}

async fn end(dir: &Path) -> Result<Exit, CliError> {
    testbed::down(dir).await.map_err(|error| failed("cannot end the local cluster", error))?;
    eprintln!("nothing runs in {} any more", dir.display());
    Ok(Exit::Done)
}

fn show(status: &Status) -> Result<Exit, CliError> {
    let components = testbed::status(&status.place.dir);
    let mut table = Table::new(&["component", ">pid"]);
    for component in &components {
        table.row([component.name.clone(), component.pid.to_string()]);
    }
    output::emit(status.output, &table, &components)?;
    Ok(Exit::Done)
}

fn failed(what: &str, error: TestbedError) -> CliError {
    let hint = error.hint();
    let failed = CliError::failed(what).because(error);
    match hint {
        Some(hint) => failed.hint(hint),
        None => failed,
    }
}
