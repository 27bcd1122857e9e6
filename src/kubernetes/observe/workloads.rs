//! Jobs and pods of attempts → [`WorkloadView`]. Pure.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

use super::super::apply::manifest::INDEX;
use super::super::clock::MarketClock;
use crate::api::conditions::core_time;
use crate::api::labels;
use crate::scheduling::snapshot::{WorkloadEnd, WorkloadView};
use crate::training::PodRecord;

/// One attempt of one job.
type Key = (String, u32);

/// What attempts' Jobs and pods say, seen at one time with these nodes.
pub struct Attempts<'a> {
    pub clock: &'a MarketClock,
    pub real_now: DateTime<Utc>,
    pub nodes: &'a BTreeSet<String>,
}

impl Attempts<'_> {
    /// A view for each attempt that has a Job or any pod left.
    pub fn views(&self, jobs: &[Job], pods: &[Pod]) -> Vec<WorkloadView> {
        let mut pods_of: BTreeMap<Key, Vec<&Pod>> = BTreeMap::new();
        for pod in pods {
            if let Some(key) = key(pod.labels()) {
                pods_of.entry(key).or_default().push(pod);
            }
        }
        let mut views: Vec<WorkloadView> = Vec::new();
        for job in jobs {
            let Some(key) = key(job.labels()) else { continue };
            let pods = pods_of.remove(&key).unwrap_or_default();
            views.push(self.view(key, Some(job), &pods));
        }
        views.extend(pods_of.into_iter().map(|(key, pods)| self.view(key, None, &pods)));
        views
    }

    fn view(&self, (job_uid, attempt): Key, job: Option<&Job>, pods: &[&Pod]) -> WorkloadView {
        let records: Vec<PodRecord> = pods.iter().map(|pod| self.record(pod)).collect();
        let alive = pods.iter().zip(&records).filter(|(pod, record)| is_running(pod) && record.finished_at.is_none());
        let created = job.and_then(|job| job.creation_timestamp()).or_else(|| pods.first().and_then(|pod| pod.creation_timestamp()));
        WorkloadView {
            namespace: job.map_or_else(|| pods.first().and_then(|pod| pod.namespace()), |job| job.namespace()).unwrap_or_default(),
            name: job.map_or_else(|| owner_name(pods), ResourceExt::name_any),
            uid: job.and_then(ResourceExt::uid).unwrap_or_default(),
            job_uid,
            attempt,
            deleting_since_real: match job {
                Some(job) => job.metadata.deletion_timestamp.as_ref().map(core_time),
                None => Some(pods.iter().filter_map(|pod| pod.metadata.deletion_timestamp.as_ref()).map(core_time).min().unwrap_or(self.real_now)),
            },
            finished: job.and_then(|job| finished(job, pods, self.nodes)),
            pods_running: u32::try_from(alive.count()).unwrap_or(u32::MAX),
            pods: records,
            created_at_real: created.as_ref().map_or(self.real_now, core_time),
        }
    }

    fn record(&self, pod: &Pod) -> PodRecord {
        let program = program(pod);
        let state = program.and_then(|status| status.state.as_ref());
        let ended = state.and_then(|state| state.terminated.as_ref());
        let running = state.and_then(|state| state.running.as_ref());
        let started = ended.and_then(|ended| ended.started_at.as_ref()).or_else(|| running.and_then(|running| running.started_at.as_ref()));
        let finished = ended.and_then(|ended| ended.finished_at.as_ref()).map(core_time);
        let market = |real: DateTime<Utc>| self.clock.market(real);
        PodRecord {
            name: pod.name_any(),
            index: index(pod),
            node: node(pod).map(str::to_owned),
            started_at: started.map(core_time).map(market),
            finished_at: finished.or_else(|| self.cannot_run(pod).then_some(self.real_now)).map(market),
            exit_code: ended.map(|ended| ended.exit_code),
            reason: self.reason(pod, ended.and_then(|ended| ended.reason.clone())),
        }
    }

    /// It ended, was deleted before it had a node, or its node has gone.
    fn cannot_run(&self, pod: &Pod) -> bool {
        let over = matches!(phase(pod), "Succeeded" | "Failed");
        match node(pod) {
            None => over || pod.metadata.deletion_timestamp.is_some(),
            Some(node) => over || !self.nodes.contains(node),
        }
    }

    fn reason(&self, pod: &Pod, program: Option<String>) -> Option<String> {
        if is_disrupted(pod) {
            return Some("DisruptionTarget".to_owned());
        }
        let lost = node(pod).is_some_and(|node| !self.nodes.contains(node));
        let said = pod.status.as_ref().and_then(|status| status.reason.clone());
        said.or(lost.then(|| "NodeLost".to_owned())).or(program)
    }
}

fn key(labels: &BTreeMap<String, String>) -> Option<Key> {
    Some((labels.get(labels::JOB_UID)?.clone(), labels.get(labels::ATTEMPT)?.parse().ok()?))
}

/// The Job that made the pods, by their owner reference; it may be gone.
fn owner_name(pods: &[&Pod]) -> String {
    pods.iter().flat_map(|pod| pod.owner_references()).find(|owner| owner.kind == "Job").map(|owner| owner.name.clone()).unwrap_or_default()
}

/// The first container is the training program.
fn program(pod: &Pod) -> Option<&ContainerStatus> {
    let first = &pod.spec.as_ref()?.containers.first()?.name;
    pod.status.as_ref()?.container_statuses.as_ref()?.iter().find(|status| status.name == *first)
}

fn index(pod: &Pod) -> u32 {
    pod.annotations().get(INDEX).or_else(|| pod.labels().get(INDEX)).and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn is_running(pod: &Pod) -> bool {
    phase(pod) == "Running"
}

fn is_disrupted(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True")
}

fn finished(job: &Job, pods: &[&Pod], nodes: &BTreeSet<String>) -> Option<WorkloadEnd> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let holds = |types: &[&str]| conditions.iter().find(|condition| types.contains(&condition.type_.as_str()) && condition.status == "True");
    if holds(&["Complete", "SuccessCriteriaMet"]).is_some() {
        return Some(WorkloadEnd::Complete);
    }
    let failed = holds(&["Failed"]).or_else(|| holds(&["FailureTarget"]))?;
    let message = failed.message.clone().unwrap_or_default();
    let lost = |pod: &&Pod| is_disrupted(pod) || node(pod).is_some_and(|node| !nodes.contains(node));
    Some(WorkloadEnd::Failed {
        reason: failed.reason.clone().unwrap_or_default(),
        node_lost: message.contains("DisruptionTarget") || pods.iter().any(lost),
        message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, node: &str, status: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "vision", "labels": {"purser.dev/job-uid": "u", "purser.dev/attempt": "2"},
                         "annotations": {"batch.kubernetes.io/job-completion-index": "3"},
                         "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "bert-a2-x", "uid": "w"}]},
            "spec": {"nodeName": node, "containers": [{"name": "train"}]},
            "status": status
        }))
        .unwrap()
    }

    fn views(jobs: &[Job], pods: &[Pod]) -> Vec<WorkloadView> {
        let nodes = BTreeSet::from(["here".to_owned()]);
        Attempts { clock: &MarketClock::identity(), real_now: DateTime::UNIX_EPOCH, nodes: &nodes }.views(jobs, pods)
    }

    #[test]
    fn a_pod_whose_node_has_gone_cannot_run_any_more() {
        let seen = views(&[], &[pod("p", "gone", json!({"phase": "Running"}))]);
        assert_eq!(seen[0].pods[0].finished_at, Some(DateTime::UNIX_EPOCH));
        assert_eq!(seen[0].pods[0].reason.as_deref(), Some("NodeLost"));
        assert_eq!(seen[0].pods_running, 0);
    }

    #[test]
    fn pods_without_their_job_are_an_attempt_that_is_ending() {
        let seen = views(&[], &[pod("p", "here", json!({"phase": "Running"}))]);
        assert_eq!((seen[0].name.as_str(), seen[0].attempt, seen[0].pods[0].index), ("bert-a2-x", 2, 3));
        assert!(seen[0].deleting_since_real.is_some());
        assert_eq!(seen[0].pods_running, 1);
    }

    #[test]
    fn an_exit_code_is_a_broken_program_and_a_disruption_is_a_lost_node() {
        let job = |message: &str| -> Job {
            serde_json::from_value(json!({
                "metadata": {"name": "bert-a2-x", "namespace": "vision", "labels": {"purser.dev/job-uid": "u", "purser.dev/attempt": "2"}},
                "status": {"conditions": [{"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": message}]}
            }))
            .unwrap()
        };
        let lost = |message: &str| match &views(&[job(message)], &[])[0].finished {
            Some(WorkloadEnd::Failed { node_lost, .. }) => *node_lost,
            _ => panic!("the Job has failed"),
        };
        assert!(!lost("Container train for pod vision/p failed with exit code 1 matching FailJob rule at index 1"));
        assert!(lost("Pod vision/p has condition DisruptionTarget matching FailJob rule at index 0"));
    }
}
