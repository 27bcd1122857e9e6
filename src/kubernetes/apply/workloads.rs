//! One attempt's Service, Job and pods: created once, ended with grace, let go after their record is copied.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::ResourceExt;
use serde_json::json;

use super::super::clock::MarketClock;
use super::super::effects::{Effect, perform};
use super::jobs::version_of;
use super::manifest::{self, AttemptPlan};
use super::{Applied, ApplyError, Hands, Result, doing, dropped, is_already_exists, is_conflict, is_not_found, tolerate};
use crate::api::{FIELD_MANAGER, labels};
use crate::scheduling::NOTICE_GRACE_SECONDS;
use crate::training::JobRef;

/// A program needs this much real time to hear SIGTERM, however fast the market's clock runs.
const GRACE_SECONDS_MIN: i64 = 2;

/// Market seconds as real ones.
pub(in crate::kubernetes) fn real_grace(clock: &MarketClock, market_seconds: i64) -> i64 {
    clock.real_span(TimeDelta::seconds(market_seconds)).num_seconds().max(GRACE_SECONDS_MIN)
}

impl Hands {
    /// Reads everything live: caches of jobs, Jobs and pods may disagree, and two attempts must never run at once.
    pub(super) async fn start_attempt(&self, job: &JobRef, version: &str, attempt: u32, claims: &[String], resume_fraction: f64) -> Result {
        let Some(live) = self.live_job(job).await? else { return dropped(format!("job {job} is gone")) };
        let Some(object) = live.object else { return dropped(format!("job {job} no longer parses")) };
        if live.metadata.deletion_timestamp.is_some() || object.spec.cancelled {
            return dropped(format!("job {job} is not wanted any more"));
        }
        if version_of(&live.status.job) != version {
            return dropped(format!("the status of job {job} changed meanwhile"));
        }
        if let Some(other) = self.other_attempt(job, attempt).await? {
            return dropped(format!("{other} of another attempt of {job} still exists"));
        }
        let grace_seconds = real_grace(&self.clock, NOTICE_GRACE_SECONDS);
        let plan = AttemptPlan { job, attempt, claims, resume_fraction, grace_seconds, progress_url: &self.progress_url };
        let workload = manifest::workload(&plan, &object.spec).map_err(|why| ApplyError::Manifest { job: job.to_string(), why })?;
        self.create_service(&plan).await?;
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let created = perform(Effect::CreateWorkload, async {
            tolerate(self.workloads(&job.namespace).create(&params, &workload).await, is_already_exists)
        });
        created.await.map_err(doing(format!("start attempt {attempt} of {job}")))?;
        Ok(Applied::Done)
    }

    async fn create_service(&self, plan: &AttemptPlan<'_>) -> Result<()> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let service = manifest::service(plan);
        let created = perform(Effect::CreateService, async {
            tolerate(self.services(&plan.job.namespace).create(&params, &service).await, is_already_exists)
        });
        created.await.map_err(doing(format!("create the Service of {}", plan.job)))
    }

    /// A Job or pod of the same TrainingJob and another attempt.
    async fn other_attempt(&self, job: &JobRef, attempt: u32) -> Result<Option<String>> {
        let others = format!("{}={},{}!={attempt}", labels::JOB_UID, job.uid, labels::ATTEMPT);
        let params = ListParams::default().labels(&others).limit(1);
        let jobs = self.workloads(&job.namespace).list(&params).await.map_err(doing(format!("list the Jobs of {job}")))?;
        if let Some(other) = jobs.items.first() {
            return Ok(Some(format!("Job {}", other.name_any())));
        }
        let pods = self.pods(&job.namespace).list(&params).await.map_err(doing(format!("list the pods of {job}")))?;
        Ok(pods.items.first().map(|pod| format!("pod {}", pod.name_any())))
    }

    /// The Job goes first, so that it replaces no pod; then each pod hears SIGTERM with the grace that is left.
    pub(super) async fn end_attempt(&self, job: &JobRef, attempt: u32, workload: &str, grace_seconds: i64) -> Result {
        let what = format!("end attempt {attempt} of {job}");
        let (jobs, services) = (self.workloads(&job.namespace), self.services(&job.namespace));
        let ended = perform(Effect::EndWorkload, async {
            tolerate(jobs.delete(workload, &DeleteParams::background()).await, is_not_found)?;
            tolerate(services.delete(workload, &DeleteParams::default()).await, is_not_found)?;
            self.stop_pods(job, attempt, grace_seconds).await
        });
        ended.await.map_err(doing(what))?;
        Ok(Applied::Done)
    }

    async fn stop_pods(&self, job: &JobRef, attempt: u32, grace_seconds: i64) -> std::result::Result<(), kube::Error> {
        let grace = if grace_seconds == 0 { 0 } else { real_grace(&self.clock, grace_seconds) };
        let params = DeleteParams::default().grace_period(u32::try_from(grace).unwrap_or(u32::MAX));
        let pods = self.pods(&job.namespace);
        let of_attempt = ListParams::default().labels(&format!("{}={},{}={attempt}", labels::JOB_UID, job.uid, labels::ATTEMPT));
        for pod in pods.list(&of_attempt).await?.items {
            if self.lost_its_node(&pod).await? {
                tolerate(pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await, is_not_found)?;
            } else if pod.metadata.deletion_timestamp.is_none() {
                tolerate(pods.delete(&pod.name_any(), &params).await, is_not_found)?;
            }
        }
        Ok(())
    }

    /// Without a kubelet nobody confirms the end of a pod, and Kubernetes' own collector takes a minute to notice.
    async fn lost_its_node(&self, pod: &Pod) -> std::result::Result<bool, kube::Error> {
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) else { return Ok(false) };
        Ok(Api::<Node>::all(self.client.clone()).get_metadata_opt(node).await?.is_none())
    }

    pub(super) async fn release_pods(&self, job: &JobRef, names: &[String]) -> Result {
        let pods = self.pods(&job.namespace);
        for name in names {
            let Some(live) = pods.get_opt(name).await.map_err(doing(format!("read pod {name}")))? else { continue };
            if live.labels().get(labels::JOB_UID) != Some(&job.uid) {
                continue;
            }
            self.release_pod(&pods, &live).await?;
            let lost = self.lost_its_node(&live).await.map_err(doing(format!("look for the node of pod {name}")))?;
            if lost {
                let params = DeleteParams::default().grace_period(0);
                tolerate(pods.delete(name, &params).await, is_not_found).map_err(doing(format!("remove pod {name}")))?;
            }
        }
        Ok(Applied::Done)
    }

    /// Pods that are being deleted and whose TrainingJob is not there any more: somebody took its finalizer off, and nobody
    /// is left to copy their record.
    pub async fn release_strays(&self, pods: &[Pod], job_uids: &BTreeSet<&str>) -> Result<()> {
        let is_stray = |pod: &&Pod| pod.labels().get(labels::JOB_UID).is_some_and(|uid| !job_uids.contains(uid.as_str()));
        for pod in pods.iter().filter(is_stray).filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
            self.release_pod(&self.pods(&pod.namespace().unwrap_or_default()), pod).await?;
        }
        Ok(())
    }

    /// Takes our finalizer off one pod.
    async fn release_pod(&self, pods: &Api<Pod>, live: &Pod) -> Result<()> {
        let name = live.name_any();
        let others: Vec<&String> = live.finalizers().iter().filter(|name| *name != labels::FINALIZER).collect();
        if others.len() == live.finalizers().len() {
            return Ok(());
        }
        let patch = json!({"metadata": {"resourceVersion": live.resource_version(), "finalizers": others}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let harmless = |error: &kube::Error| is_not_found(error) || is_conflict(error);
        let released = perform(Effect::ReleasePod, async { tolerate(pods.patch(&name, &params, &Patch::Merge(&patch)).await, harmless) });
        released.await.map_err(doing(format!("let pod {name} go")))
    }

    fn workloads(&self, namespace: &str) -> Api<Job> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn services(&self, namespace: &str) -> Api<Service> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }
}
