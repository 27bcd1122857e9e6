//! What the pods on simulated nodes should say: pure, from the pods that are there, the machines and the time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

use super::Machine;
use super::work::{Rate, Standing, Work};
use crate::api::labels;
use crate::units::Span;

const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodName {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Something to write on a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    pub pod: PodName,
    pub gang: GangKey,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Annotate how far the program is and what its last checkpoint holds.
    Report(Standing),
    /// The program has ended well: phase Succeeded, exit code 0. The containers as they were.
    Succeed(Vec<ContainerStatus>),
}

/// One attempt: its batch/v1 Job by namespace, name and the UID of its owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GangKey {
    namespace: String,
    job: String,
    owner: String,
}

/// Why pods are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// Time has passed: programs report how far they are.
    Time,
    /// A pod has changed: only what cannot wait is written, since our own writing is a change too.
    Change,
}

#[derive(Default)]
pub struct Gangs(BTreeMap<GangKey, Gang>);

/// What is remembered of an attempt.
#[derive(Default)]
struct Gang {
    work: Option<Work>,
    /// Where it stood when it stopped working for ever.
    stopped: Option<Standing>,
    reported: Option<Standing>,
}

impl Gangs {
    /// Brings every gang up to date and says what has to be written.
    pub fn look(&mut self, pods: &[Arc<Pod>], machines: &BTreeMap<String, Machine>, now: DateTime<Utc>, occasion: Occasion) -> Vec<Order> {
        let mut groups: BTreeMap<GangKey, Vec<&Pod>> = BTreeMap::new();
        for pod in pods {
            if let Some(key) = key(pod) {
                groups.entry(key).or_default().push(pod);
            }
        }
        self.0.retain(|key, _| groups.contains_key(key));
        groups.into_iter().flat_map(|(key, pods)| self.0.entry(key.clone()).or_default().look(&key, &pods, machines, now, occasion)).collect()
    }

    /// The report could not be written: it is due again.
    pub fn forget_report(&mut self, order: &Order) {
        if let Some(gang) = self.0.get_mut(&order.gang) {
            gang.reported = None;
        }
    }
}

impl Gang {
    fn look(&mut self, key: &GangKey, pods: &[&Pod], machines: &BTreeMap<String, Machine>, now: DateTime<Utc>, occasion: Occasion) -> Vec<Order> {
        let Some(first) = pods.iter().min_by_key(|pod| index(pod)) else { return Vec::new() };
        let Some(rate) = rate(first) else { return Vec::new() };
        let workers = annotation(first, labels::WORKERS).and_then(|text| text.parse().ok()).unwrap_or(1);
        let running = pods.iter().filter(|pod| is_running(pod, machines)).count();
        if self.work.is_none() && running >= workers {
            self.work = Some(begin(first, rate, now));
        }
        let Some(work) = self.work else { return Vec::new() };
        if self.stopped.is_none() && running < workers {
            self.stopped = Some(last_standing(&work, pods, machines, now));
        }
        let standing = self.stopped.unwrap_or_else(|| work.at(now));
        let order = |pod: &Pod, what| Order { pod: name(pod), gang: key.clone(), what };
        let mut orders = Vec::new();
        let is_time = occasion == Occasion::Time || self.stopped.is_some() || standing.is_done();
        if is_time && self.reported != Some(standing) && is_worth_telling(self.reported, standing) {
            self.reported = Some(standing);
            orders.push(order(first, What::Report(standing)));
        }
        if standing.is_done() {
            let open = pods.iter().filter(|pod| phase(pod) == Some("Running"));
            orders.extend(open.map(|pod| order(pod, What::Succeed(containers(pod)))));
        }
        orders
    }
}

/// A twin that was away finds work that is under way: the annotation says how far it came, and the start is paid for.
fn begin(first: &Pod, rate: Rate, now: DateTime<Utc>) -> Work {
    let told = annotation(first, labels::PROGRESS).and_then(|text| text.parse::<f64>().ok());
    match told.filter(|told| *told > rate.resume_fraction) {
        Some(told) => Work { rate: Rate { resume_fraction: told, restart_overhead: Span::default(), ..rate }, since: now },
        None => Work { rate, since: now },
    }
}

/// A program that is told to stop saves what it has; one whose machine is gone has only its last checkpoint.
fn last_standing(work: &Work, pods: &[&Pod], machines: &BTreeMap<String, Machine>, now: DateTime<Utc>) -> Standing {
    let ended_at = pods.iter().filter_map(|pod| machines.get(node(pod)?)?.ended_at).min();
    let standing = work.at(ended_at.unwrap_or(now).min(now));
    let is_told = pods.iter().any(|pod| pod.metadata.deletion_timestamp.is_some());
    let is_lost = ended_at.is_some() || pods.iter().any(|pod| node(pod).is_some_and(|node| !machines.contains_key(node)));
    if is_told && !is_lost { Standing { checkpoint: standing.fraction, ..standing } } else { standing }
}

/// A report costs a write: one for each checkpoint, and for each thousandth of the work.
fn is_worth_telling(reported: Option<Standing>, standing: Standing) -> bool {
    reported.is_none_or(|reported| reported.checkpoint != standing.checkpoint || (standing.fraction - reported.fraction).abs() >= 0.001 || standing.is_done())
}

fn is_running(pod: &Pod, machines: &BTreeMap<String, Machine>) -> bool {
    let works = node(pod).and_then(|node| machines.get(node)).is_some_and(|machine| machine.ended_at.is_none());
    works && pod.metadata.deletion_timestamp.is_none() && matches!(phase(pod), Some("Running" | "Succeeded"))
}

fn key(pod: &Pod) -> Option<GangKey> {
    let owner = pod.metadata.owner_references.as_ref()?.iter().find(|owner| owner.kind == "Job")?;
    let job = pod.labels().get(JOB_NAME).cloned().unwrap_or_else(|| owner.name.clone());
    Some(GangKey { namespace: pod.namespace()?, job, owner: owner.uid.clone() })
}

fn rate(pod: &Pod) -> Option<Rate> {
    let span = |key: &str| annotation(pod, key).and_then(|text| text.parse::<Span>().ok());
    Some(Rate {
        expected_duration: span(labels::EXPECTED_DURATION)?,
        restart_overhead: span(labels::RESTART_OVERHEAD).unwrap_or_default(),
        checkpoint_interval: span(labels::CHECKPOINT_INTERVAL).unwrap_or(Span::minutes(10)),
        resume_fraction: annotation(pod, labels::RESUME_FRACTION).and_then(|text| text.parse().ok()).unwrap_or(0.0),
    })
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.annotations().get(key).map(String::as_str)
}

fn index(pod: &Pod) -> u32 {
    let text = pod.labels().get(INDEX).or_else(|| pod.annotations().get(INDEX));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn name(pod: &Pod) -> PodName {
    PodName { namespace: pod.namespace().unwrap_or_default(), name: pod.name_any() }
}

fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

fn containers(pod: &Pod) -> Vec<ContainerStatus> {
    pod.status.as_ref().and_then(|status| status.container_statuses.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use serde_json::json;

    use super::*;
    use crate::capacity::{CapacityKind, InstanceType};

    fn pod(rank: u32) -> Arc<Pod> {
        let pod = json!({
            "metadata": {
                "name": format!("bert-a1-{rank}"), "namespace": "vision",
                "labels": {"purser.dev/job": "bert", JOB_NAME: "bert-a1", INDEX: rank.to_string()},
                "annotations": {"purser.dev/expected-duration": "1h", "purser.dev/restart-overhead": "5m", "purser.dev/checkpoint-interval": "10m", "purser.dev/resume-fraction": "0", "purser.dev/workers": "2"},
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "bert-a1", "uid": "u", "controller": true}],
            },
            "spec": {"nodeName": format!("n{rank}"), "containers": [{"name": "main"}]},
            "status": {"phase": "Running"},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn machines(ended_at: Option<DateTime<Utc>>) -> BTreeMap<String, Machine> {
        let machine = |rank: u32| Machine {
            instance: format!("i-{rank}"),
            node: format!("n{rank}"),
            zone: "us-east-1a".into(),
            region: "us-east-1".into(),
            kind: CapacityKind::Spot,
            facts: InstanceType { name: "g5.xlarge".into(), vcpu: 4, memory_mib: 16_384, gpus: 1, gpu_name: None, architecture: "amd64".into(), pods: 0 },
            ended_at: ended_at.filter(|_| rank == 1),
        };
        (0..2).map(|rank| (format!("n{rank}"), machine(rank))).collect()
    }

    fn minute(minute: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minute)
    }

    #[test]
    fn a_gang_works_once_all_its_workers_run_and_then_succeeds_as_a_whole() {
        let mut gangs = Gangs::default();
        assert!(gangs.look(&[pod(0)], &machines(None), minute(0), Occasion::Time).is_empty());
        gangs.look(&[pod(0), pod(1)], &machines(None), minute(10), Occasion::Time);
        assert!(gangs.look(&[pod(0), pod(1)], &machines(None), minute(10 + 5 + 30), Occasion::Change).is_empty());
        let orders = gangs.look(&[pod(0), pod(1)], &machines(None), minute(10 + 5 + 30), Occasion::Time);
        assert!(matches!(&orders[..], [Order { what: What::Report(standing), .. }] if *standing == Standing { fraction: 0.5, checkpoint: 0.5 }));
        let orders = gangs.look(&[pod(0), pod(1)], &machines(None), minute(10 + 5 + 60), Occasion::Change);
        assert_eq!(orders.iter().filter(|order| matches!(order.what, What::Succeed(_))).count(), 2);
    }

    #[test]
    fn a_lost_machine_leaves_the_last_checkpoint_and_a_told_program_saves_what_it_has() {
        let begun = |gangs: &mut Gangs| drop(gangs.look(&[pod(0), pod(1)], &machines(None), minute(0), Occasion::Time));
        let standing = |orders: Vec<Order>| orders.into_iter().find_map(|order| if let What::Report(standing) = order.what { Some(standing) } else { None }).unwrap();
        let mut gangs = Gangs::default();
        begun(&mut gangs);
        let lost = standing(gangs.look(&[pod(0), pod(1)], &machines(Some(minute(5 + 27))), minute(40), Occasion::Change));
        assert_eq!(lost, Standing { fraction: 0.45, checkpoint: 20.0 / 60.0 });
        let mut gangs = Gangs::default();
        begun(&mut gangs);
        let mut told = (*pod(1)).clone();
        told.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        let saved = standing(gangs.look(&[pod(0), Arc::new(told)], &machines(None), minute(5 + 27), Occasion::Change));
        assert_eq!(saved, Standing { fraction: 0.45, checkpoint: 0.45 });
    }
}
