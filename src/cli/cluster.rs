//! `purser cluster up|down|status`: a throwaway Kubernetes on this machine, for trying things out.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::testbed::{self, LocalCluster, Options};

/// A throwaway Kubernetes on this machine: real control plane, simulated nodes
#[derive(Debug, Args)]
pub struct ClusterCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a cluster in a folder and leave it running
    Up(Up),
    /// End the cluster of a folder and remove the folder
    Down(Place),
    /// Show what runs in a folder
    Status(Place),
}

#[derive(Debug, Args)]
struct Up {
    #[command(flatten)]
    place: Place,
    /// Prepare for real nodes (containerd and kubelet; needs root)
    #[arg(long)]
    real_nodes: bool,
}

#[derive(Debug, Args)]
struct Place {
    /// The cluster's folder: data, logs, kubeconfig
    #[arg(long, value_name = "DIR", default_value = "demo-state/cluster")]
    dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl ClusterCommand {
    pub async fn run(self) -> Result<(), Box<dyn std::error::Error>> {
        match self.verb {
            Verb::Up(up) => start(&up).await,
            Verb::Down(place) => end(&place.dir).await,
            Verb::Status(place) => show(&place),
        }
    }
}

async fn start(up: &Up) -> Result<(), Box<dyn std::error::Error>> {
    let started = std::time::Instant::now();
    let options = Options { real_nodes: up.real_nodes, detached: true, ..Options::default() };
    let cluster = LocalCluster::start(&up.place.dir, options).await?;
    let kubeconfig = cluster.kubeconfig_path();
    if up.place.json {
        println!("{}", json!({ "server": cluster.server(), "kubeconfig": kubeconfig }));
        return Ok(());
    }
    eprintln!("cluster is up at {} after {:.1} s", cluster.server(), started.elapsed().as_secs_f64());
    eprintln!("hint: export KUBECONFIG={}; purser cluster down --dir {}", kubeconfig.display(), up.place.dir.display());
    println!("{}", kubeconfig.display());
    Ok(())
}

async fn end(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    testbed::down(dir).await?;
    eprintln!("nothing runs in {} any more", dir.display());
    Ok(())
}

fn show(place: &Place) -> Result<(), Box<dyn std::error::Error>> {
    let components = testbed::status(&place.dir);
    if place.json {
        println!("{}", serde_json::to_string(&components)?);
        return Ok(());
    }
    if components.is_empty() {
        eprintln!("no cluster runs in {}", place.dir.display());
    }
    for component in components {
        println!("{:<40} {:>8}", component.name, component.pid);
    }
    Ok(())
}
