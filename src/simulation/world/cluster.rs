//! The cluster of the world: nodes that join and go, and pods that work, save, end and are held by their finalizer.

use chrono::{DateTime, TimeDelta, Utc};

use super::World;
use crate::scheduling::snapshot::{NodeView, WorkloadEnd, WorkloadView};
use crate::training::{CheckpointMark, JobRef, PodRecord, Progress};

/// Pods need this long to be gone after SIGTERM (real time).
const STOPPING: TimeDelta = TimeDelta::seconds(2);

/// One attempt's Job and pods.
pub struct Workload {
    pub view: WorkloadView,
    pub claims: Vec<String>,
    pub resume_fraction: f64,
    /// Useful work begins here.
    pub works_from: Option<DateTime<Utc>>,
}

impl Workload {
    pub fn new(job: &JobRef, attempt: u32, workers: u32, claims: &[String], resume_fraction: f64, real_now: DateTime<Utc>) -> Workload {
        let pod = |index| PodRecord {
            name: format!("{}-{attempt}-{index}", job.name),
            index,
            node: None,
            started_at: None,
            finished_at: None,
            exit_code: None,
            reason: None,
        };
        let view = WorkloadView {
            namespace: job.namespace.clone(),
            name: format!("{}-{attempt}", job.name),
            uid: format!("w-{}-{attempt}", job.uid),
            job_uid: job.uid.clone(),
            attempt,
            deleting_since_real: None,
            finished: None,
            pods: (0..workers).map(pod).collect(),
            pods_running: 0,
            created_at_real: real_now,
        };
        Workload { view, claims: claims.to_vec(), resume_fraction, works_from: None }
    }

    fn end(&mut self, how: WorkloadEnd, now: DateTime<Utc>) {
        let exit_code = if how == WorkloadEnd::Complete { 0 } else { 1 };
        self.view.finished = Some(how);
        self.stop_pods(now, Some(exit_code));
    }

    fn stop_pods(&mut self, now: DateTime<Utc>, exit_code: Option<i32>) {
        self.view.pods_running = 0;
        for pod in self.view.pods.iter_mut().filter(|pod| pod.finished_at.is_none()) {
            pod.finished_at = Some(now);
            pod.exit_code = exit_code;
        }
    }
}

impl World {
    pub(super) fn evolve_cluster(&mut self, passes: TimeDelta) {
        self.join_nodes();
        let names: Vec<String> = self.workloads.keys().cloned().collect();
        for name in names {
            let Some(mut workload) = self.workloads.remove(&name) else { continue };
            self.evolve_workload(&mut workload, passes);
            let gone = workload.view.deleting_since_real.is_some() && workload.view.pods.is_empty();
            if !gone {
                self.workloads.insert(name, workload);
            }
        }
    }

    fn join_nodes(&mut self) {
        for vm in self.cloud.machines.values() {
            let name = format!("n-{}", vm.id);
            // The kubelet registers once; a Node that is deleted while it runs does not come back here.
            let fresh = vm.joins_at.is_some_and(|at| at <= self.now && at > self.now - TimeDelta::minutes(5));
            if vm.has_joined(self.now) && fresh && !self.nodes.contains_key(&name) {
                let node = NodeView {
                    name: name.clone(),
                    provider_id: Some(format!("aws:///{}/{}", vm.offer.zone, vm.id)),
                    ready: true,
                    schedulable: true,
                    unclaimed_taint: true,
                    leaving_taint: false,
                    claim: None,
                    labels: Default::default(),
                    pool: Some(vm.pool.clone()),
                    room: None,
                };
                self.nodes.insert(name, node);
            }
        }
    }

    fn evolve_workload(&mut self, workload: &mut Workload, passes: TimeDelta) {
        let working = workload.view.pods_running > 0;
        if working && self.lost_nodes(workload) > 0 {
            workload.end(
                WorkloadEnd::Failed { reason: "PodFailurePolicy".into(), message: "a pod was lost".into(), node_lost: true },
                self.now,
            );
        }
        if let Some(since) = workload.view.deleting_since_real {
            if self.real_now - since >= STOPPING {
                workload.stop_pods(self.now, None);
            }
            return;
        }
        if workload.view.finished.is_some() {
            return;
        }
        match workload.works_from {
            None => self.begin(workload),
            Some(from) => self.work(workload, from, passes),
        }
    }

    fn lost_nodes(&self, workload: &Workload) -> usize {
        let alive = |name: &String| {
            let vm = self.cloud.machines.get(name.trim_start_matches("n-"));
            self.nodes.contains_key(name) && vm.is_none_or(|vm| vm.is_alive(self.now))
        };
        workload.view.pods.iter().filter_map(|pod| pod.node.as_ref()).filter(|name| !alive(name)).count()
    }

    /// All pods at once, when the gang's nodes are there.
    fn begin(&mut self, workload: &mut Workload) {
        let free = |node: &&NodeView| {
            let ours = node.claim.as_ref().is_some_and(|claim| workload.claims.contains(claim));
            ours && node.ready && !node.unclaimed_taint && !node.leaving_taint
        };
        let nodes: Vec<String> = self.nodes.values().filter(free).map(|node| node.name.clone()).collect();
        if nodes.len() < workload.view.pods.len() || self.lost_nodes(workload) > 0 {
            return;
        }
        let overhead = self.jobs.get(&workload.view.job_uid).map_or(TimeDelta::zero(), |view| view.job.checkpoint.restart_overhead.delta());
        for (pod, node) in workload.view.pods.iter_mut().zip(nodes) {
            pod.node = Some(node);
            pod.started_at = Some(self.now);
        }
        workload.view.pods_running = u32::try_from(workload.view.pods.len()).unwrap_or(u32::MAX);
        workload.works_from = Some(self.now + overhead);
    }

    fn work(&mut self, workload: &mut Workload, from: DateTime<Utc>, passes: TimeDelta) {
        let fails = self.chance((self.faults.program_failures * passes.num_seconds() as f64 / 3600.0).min(1.0));
        let Some(view) = self.jobs.get_mut(&workload.view.job_uid) else { return };
        let worked = (self.now - from).num_seconds().max(0) as f64;
        let fraction = (workload.resume_fraction + worked / view.job.expected_duration.as_seconds().max(1) as f64).min(1.0);
        view.progress = Some(Progress { fraction, at: self.now });
        let saved_at = view.checkpoint.as_ref().map_or(from, |mark| mark.at.max(from));
        if worked > 0.0 && self.now - saved_at >= view.job.checkpoint.interval.delta() {
            view.checkpoint = Some(CheckpointMark { fraction, at: self.now, uri: None });
        }
        if fraction >= 1.0 {
            workload.end(WorkloadEnd::Complete, self.now);
        } else if fails {
            workload.end(WorkloadEnd::Failed { reason: "PodFailurePolicy".into(), message: "exit 1".into(), node_lost: false }, self.now);
        }
    }

    /// SIGTERM: the program saves where it is.
    pub(super) fn save_on_sigterm(&mut self, job_uid: &str) {
        if let Some(view) = self.jobs.get_mut(job_uid)
            && let Some(progress) = &view.progress
        {
            let fraction = progress.fraction.max(view.checkpoint.as_ref().map_or(0.0, |mark| mark.fraction));
            view.checkpoint = Some(CheckpointMark { fraction, at: self.now, uri: None });
        }
    }
}
