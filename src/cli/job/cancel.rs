//! `purser job cancel`: for good; what was computed stays in its checkpoints.

use kube::Api;
use kube::api::{Patch, PatchParams};

use crate::api::TrainingJob;
use crate::cli::cluster_access::api_error;
use crate::cli::{CliError, Exit, Global, output};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  purser job cancel bert-pretrain -n language")]
pub struct Args {
    /// The job.
    name: String,
}

pub async fn run(args: &Args, global: &Global) -> Result<Exit, CliError> {
    let (client, namespace) = (global.client().await?, global.namespace().await?);
    let job = super::fetch(&client, &namespace, &args.name).await?;
    let phase = job.status.map(|status| status.job.phase).unwrap_or_default();
    if phase.is_over() {
        return Err(CliError::failed(format!("job {namespace}/{} is over already ({phase})", args.name)));
    }
    let jobs: Api<TrainingJob> = Api::namespaced(client, &namespace);
    let patch = serde_json::json!({"spec": {"cancelled": true}});
    jobs.patch(&args.name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(|error| api_error(format!("could not cancel job {namespace}/{}", args.name), error))?;
    output::print(&format!("trainingjob {namespace}/{} cancelled\n", args.name))?;
    eprintln!("its workers get SIGTERM and their grace, then its machines are given back: purser job describe {} -n {namespace}", args.name);
    Ok(Exit::Done)
}
