//! Whether a TrainingJob makes sense here and now: its deadline, the experiment and pool that it names, its pod template.

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};

use super::super::apply::manifest::{self, AttemptPlan};
use super::Checks;
use super::review::{Denial, Verdict, unsure};
use crate::api::{CapacityPool, Experiment, TrainingJob};
use crate::training::JobRef;

/// Names that are offered in a hint.
const NAMES_SHOWN: usize = 5;

pub async fn judge(checks: &Checks, job: &TrainingJob, is_new: bool) -> Verdict {
    job.spec.validate().map_err(|error| Denial::new(error.to_string(), "kubectl explain trainingjob.spec shows each field"))?;
    let mut warnings = Vec::new();
    if is_new {
        deadline(checks, job)?;
        warnings.extend(experiment(checks, job).await?);
        warnings.extend(template(checks, job).await?);
    }
    warnings.extend(pool(checks, job).await?);
    Ok(warnings)
}

fn deadline(checks: &Checks, job: &TrainingJob) -> Result<(), Denial> {
    let now = checks.clock.now();
    let Some(deadline) = job.spec.deadline.filter(|deadline| *deadline <= now) else { return Ok(()) };
    let seconds = |time: chrono::DateTime<chrono::Utc>| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    Err(Denial::new(
        format!("spec.deadline {} is in the past (it is {})", seconds(deadline), seconds(now)),
        "give a deadline to come, or none",
    ))
}

async fn experiment(checks: &Checks, job: &TrainingJob) -> Verdict {
    let namespace = job.namespace().unwrap_or_default();
    let api: Api<Experiment> = Api::namespaced(checks.client.clone(), &namespace);
    match api.get_metadata_opt(&job.spec.experiment).await {
        Ok(Some(_)) => Ok(Vec::new()),
        Ok(None) => {
            let what = format!("spec.experiment {:?} does not exist in namespace {namespace}", job.spec.experiment);
            Err(Denial::new(what, known(&api, "create the Experiment first").await))
        }
        Err(error) => unsure("spec.experiment", &error),
    }
}

async fn pool(checks: &Checks, job: &TrainingJob) -> Verdict {
    let Some(name) = &job.spec.pool else { return Ok(Vec::new()) };
    let api: Api<CapacityPool> = Api::all(checks.client.clone());
    match api.get_metadata_opt(name).await {
        Ok(Some(_)) => Ok(Vec::new()),
        Ok(None) => Err(Denial::new(format!("spec.pool {name:?} does not exist"), known(&api, "leave spec.pool away for any that fits").await)),
        Err(error) => unsure("spec.pool", &error),
    }
}

/// What does exist, for a hint.
async fn known<K>(api: &Api<K>, otherwise: &str) -> String
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug + kube::Resource,
{
    let list = api.list_metadata(&ListParams::default().limit(NAMES_SHOWN as u32)).await;
    let names: Vec<String> = list.map(|list| list.items.iter().map(ResourceExt::name_any).collect()).unwrap_or_default();
    if names.is_empty() { otherwise.to_owned() } else { format!("{otherwise}; there are {}", names.join(", ")) }
}

/// Only the API server knows every rule for pods, policies of the namespace included: it judges the Job made from the
/// template, in a dry run, and its words are passed on.
async fn template(checks: &Checks, job: &TrainingJob) -> Verdict {
    let id = JobRef {
        namespace: job.namespace().unwrap_or_default(),
        name: job.name_any(),
        uid: job.uid().unwrap_or_else(|| "00000000-0000-0000-0000-000000000000".to_owned()),
    };
    let claims = ["claim-dry-run".to_owned()];
    let plan = AttemptPlan { job: &id, attempt: 1, claims: &claims, resume_fraction: 0.0, grace_seconds: 30, progress_url: "" };
    let hint = "spec.template is a PodTemplateSpec; kubectl explain pod.spec shows each field";
    let built = manifest::workload(&plan, &job.spec).map_err(|why| Denial::new(format!("spec.template: {why}"), hint))?;
    let params = PostParams { dry_run: true, ..PostParams::default() };
    match Api::<Job>::namespaced(checks.client.clone(), &id.namespace).create(&params, &built).await {
        Ok(_) => Ok(Vec::new()),
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
            Err(Denial::new(format!("spec.template is refused by the API server: {}", status.message), hint))
        }
        Err(error) => unsure("spec.template", &error),
    }
}
