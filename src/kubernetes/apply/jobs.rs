//! A TrainingJob's finalizer and status.

use kube::api::{Api, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::Resource;
use serde_json::json;

use super::super::effects::{Effect, perform};
use super::super::names::hash;
use super::super::report;
use super::{Applied, Hands, Result, doing, dropped, is_conflict, is_not_found};
use crate::api::training_job::TrainingJobStatus;
use crate::api::{FIELD_MANAGER, TrainingJob, labels};
use crate::training::{JobRef, JobStatus};

/// Which status was read: a hash of what Purser writes. Progress, which pods write, does not count.
pub(in crate::kubernetes) fn version_of(status: &JobStatus) -> String {
    hash(&serde_json::to_string(status).unwrap_or_default(), 24)
}

impl Hands {
    /// Puts the finalizer on the job, so that it cannot vanish while anything is claimed for it; says why not, if not.
    pub(super) async fn hold_job(&self, job: &JobRef) -> Result<Option<String>> {
        let Some(live) = self.live_job(job).await? else { return Ok(Some(format!("job {job} is gone"))) };
        if live.metadata.deletion_timestamp.is_some() {
            return Ok(Some(format!("job {job} is being deleted")));
        }
        let others = live.metadata.finalizers.clone().unwrap_or_default();
        if others.iter().any(|name| name == labels::FINALIZER) {
            return Ok(None);
        }
        let finalizers: Vec<&str> = others.iter().map(String::as_str).chain([labels::FINALIZER]).collect();
        self.patch_finalizers(Effect::HoldJob, job, &live, &finalizers).await
    }

    pub(super) async fn release_job(&self, job: &JobRef) -> Result {
        let Some(live) = self.live_job(job).await? else { return Ok(Applied::Done) };
        let all = live.metadata.finalizers.clone().unwrap_or_default();
        let finalizers: Vec<&str> = all.iter().map(String::as_str).filter(|name| *name != labels::FINALIZER).collect();
        match self.patch_finalizers(Effect::ReleaseJob, job, &live, &finalizers).await? {
            None => Ok(Applied::Done),
            Some(why) => dropped(why),
        }
    }

    async fn patch_finalizers(&self, effect: Effect, job: &JobRef, live: &LiveJob, finalizers: &[&str]) -> Result<Option<String>> {
        let patch = json!({"metadata": {"resourceVersion": live.metadata.resource_version, "finalizers": finalizers}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match perform(effect, self.jobs(job).patch(&job.name, &params, &Patch::Merge(&patch))).await {
            Ok(_) => Ok(None),
            Err(error) if is_conflict(&error) || is_not_found(&error) => Ok(Some(format!("job {job} changed meanwhile"))),
            Err(error) => Err(doing(format!("change the finalizers of job {job}"))(error)),
        }
    }

    pub(super) async fn record_job(&self, job: &JobRef, generation: i64, version: &str, status: &JobStatus) -> Result {
        let Some(live) = self.live_job(job).await? else { return dropped(format!("job {job} is gone")) };
        if live.metadata.generation.unwrap_or_default() != generation {
            return dropped(format!("the spec of job {job} changed meanwhile"));
        }
        if version_of(&live.status.job) != version {
            return dropped(format!("the status of job {job} changed meanwhile"));
        }
        let body = json!({
            "apiVersion": TrainingJob::api_version(&()),
            "kind": TrainingJob::kind(&()),
            "metadata": {"name": job.name, "namespace": job.namespace, "resourceVersion": live.metadata.resource_version},
            "status": self.written_status(&live, generation, status),
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match perform(Effect::RecordJob, self.jobs(job).patch_status(&job.name, &params, &Patch::Apply(&body))).await {
            Ok(_) => Ok(Applied::Done),
            Err(error) if is_conflict(&error) || is_not_found(&error) => dropped(format!("job {job} changed meanwhile")),
            Err(error) => Err(doing(format!("write the status of job {job}"))(error)),
        }
    }

    /// The fields that Purser owns; `progress` and `checkpoint` belong to who reports progress.
    fn written_status(&self, live: &LiveJob, generation: i64, status: &JobStatus) -> TrainingJobStatus {
        let fraction = live.status.progress.as_ref().map(|progress| progress.fraction);
        TrainingJobStatus {
            job: status.clone(),
            progress: None,
            checkpoint: None,
            progress_percent: report::progress_percent(status.phase, fraction),
            cost_rounded: status.cost.map(|cost| report::rounded(&cost)),
            attempt_count: Some(u32::try_from(status.attempts.len()).unwrap_or(u32::MAX)),
            conditions: report::job_conditions(&live.status.conditions, status, generation, self.clock.real_now()),
            observed_generation: Some(generation),
        }
    }

    /// The job as the API server has it now, if it is still the same one. One that no longer parses counts: it must be
    /// possible to say so in its status, and to let it go.
    pub(super) async fn live_job(&self, job: &JobRef) -> Result<Option<LiveJob>> {
        let live = self.jobs(job).get_opt(&job.name).await.map_err(doing(format!("read job {job}")))?;
        let live = live.map(|DeserializeGuard(parsed)| match parsed {
            Ok(object) => LiveJob { status: object.status.clone().unwrap_or_default(), metadata: object.metadata.clone(), object: Some(object) },
            Err(invalid) => LiveJob { status: TrainingJobStatus::default(), metadata: invalid.metadata, object: None },
        });
        Ok(live.filter(|live| live.metadata.uid.as_deref() == Some(&job.uid)))
    }

    fn jobs(&self, job: &JobRef) -> Api<DeserializeGuard<TrainingJob>> {
        Api::namespaced(self.client.clone(), &job.namespace)
    }
}

/// A TrainingJob read just now; `object` is absent where it does not parse.
pub(super) struct LiveJob {
    pub metadata: kube::api::ObjectMeta,
    pub status: TrainingJobStatus,
    pub object: Option<TrainingJob>,
}
