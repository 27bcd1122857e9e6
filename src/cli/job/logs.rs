//! `purser job logs`: what the program writes, over interruptions: with `-f` the next attempt's worker is picked up by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::{Api, Client, ResourceExt};

use crate::api::labels;
use crate::cli::cluster_access::api_error;
use crate::cli::{CliError, Exit, Global, output};

/// How long to wait before looking for the next attempt's pod.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Kubernetes' label with a worker's rank in an Indexed Job.
const RANK_LABEL: &str = "batch.kubernetes.io/job-completion-index";

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  purser job logs bert-pretrain -n language\n  purser job logs bert-pretrain -n language -f --worker 2")]
pub struct Args {
    /// The job.
    name: String,
    /// Go on as it is written, over interruptions, until the job is over.
    #[arg(short, long)]
    follow: bool,
    /// The worker, by its rank.
    #[arg(long, default_value_t = 0, value_name = "RANK")]
    worker: u32,
}

pub async fn run(args: &Args, global: &Global) -> Result<Exit, CliError> {
    let (client, namespace) = (global.client().await?, global.namespace().await?);
    let mut printed = BTreeSet::new();
    loop {
        let job = super::fetch(&client, &namespace, &args.name).await?;
        let uid = job.uid().unwrap_or_default();
        let is_over = job.status.is_some_and(|status| status.job.phase.is_over());
        let next = latest_pod(&client, &namespace, &uid, args.worker).await?.filter(|pod| !printed.contains(&pod.name_any()));
        match next {
            Some(pod) => {
                print_pod(&client, &namespace, &pod, args.follow).await?;
                printed.insert(pod.name_any());
            }
            None if printed.is_empty() && (is_over || !args.follow) => return Err(no_pod(&namespace, args)),
            None => {}
        }
        if !args.follow || is_over {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn no_pod(namespace: &str, args: &Args) -> CliError {
    CliError::failed(format!("job {namespace}/{} has no worker {} whose log could be read", args.name, args.worker))
        .hint(format!("why it does not run: purser explain job/{} -n {namespace}", args.name))
}

/// The worker's pod of the latest attempt that has started.
async fn latest_pod(client: &Client, namespace: &str, job_uid: &str, worker: u32) -> Result<Option<Pod>, CliError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().labels(&format!("{}={job_uid},{RANK_LABEL}={worker}", labels::JOB_UID));
    let pods = pods.list(&params).await.map_err(|error| api_error("could not list pods", error))?.items;
    let has_started = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()).is_some_and(|phase| phase != "Pending");
    let attempt = |pod: &Pod| pod.labels().get(labels::ATTEMPT).and_then(|attempt| attempt.parse::<u32>().ok()).unwrap_or_default();
    Ok(pods.into_iter().filter(has_started).max_by_key(|pod| (attempt(pod), pod.creation_timestamp())))
}

async fn print_pod(client: &Client, namespace: &str, pod: &Pod, follow: bool) -> Result<(), CliError> {
    let name = pod.name_any();
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first()).map(|container| container.name.clone());
    let failed = |error| api_error(format!("could not read the log of {name}"), error);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = LogParams { container, follow, ..LogParams::default() };
    let mut lines = pods.log_stream(&name, &params).await.map_err(failed)?.lines();
    while let Some(line) = lines.try_next().await.map_err(|error| CliError::failed(format!("the log of {name} broke off")).because(error))? {
        output::print(&(line + "\n"))?;
    }
    Ok(())
}
