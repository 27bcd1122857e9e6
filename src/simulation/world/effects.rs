//! What each action does to the world, under the preconditions that the real shell checks.

use super::World;
use super::cluster::Workload;
use crate::capacity::{Claim, ClaimPhase, ClaimRecord, ClaimedInstance, Provider, Refusal, RefusalCode};
use crate::scheduling::Action;
use crate::scheduling::snapshot::{NodeView, Snapshot};
use crate::training::JobRef;

impl World {
    /// Applies one action. `Err`: the action would have done harm.
    pub(super) fn apply(&mut self, action: &Action, seen: &Snapshot) -> Result<(), String> {
        match action {
            Action::WriteClaim { name, record } => self.write_claim(name, record)?,
            Action::AskCloud { claim, uid } => self.ask(claim, uid),
            Action::WithdrawClaim { claim, uid, because } => {
                let at = self.now;
                let live = self.claims.get_mut(claim).filter(|live| live.uid == *uid && live.status.phase == ClaimPhase::Written);
                if let Some(live) = live {
                    live.status.phase = ClaimPhase::Refused;
                    live.status.refusal = Some(Refusal { code: RefusalCode::Withdrawn, message: because.clone(), at });
                }
            }
            Action::RecordInstances { claim, uid, instances, ended } => self.record_instances(claim, uid, instances, *ended, seen),
            Action::AdoptNode { claim, uid: _, node, instance: _ } => {
                if let Some(node) = self.nodes.get_mut(node) {
                    if node.claim.as_ref().is_some_and(|other| other != claim) {
                        return Err(format!("node {} would serve two claims", node.name));
                    }
                    node.claim = Some(claim.clone());
                    node.unclaimed_taint = false;
                }
            }
            Action::TaintNode { node, because: _ } => {
                if let Some(node) = self.nodes.get_mut(node) {
                    node.leaving_taint = true;
                }
            }
            Action::RemoveNode { node, instance } => self.remove_node(node, instance)?,
            Action::Release { claim, uid, instances, because: _ } => self.release(claim, uid, instances),
            Action::RecordJob { job, generation: _, version, status } => {
                let next = self.next_version();
                if let Some(live) = self.jobs.get_mut(&job.uid).filter(|live| live.version == *version) {
                    live.status = status.as_ref().clone();
                    live.version = next;
                }
            }
            Action::StartAttempt { job, version, attempt, claims, resume_fraction } => {
                self.start(job, version, *attempt, claims, *resume_fraction);
            }
            Action::EndAttempt { job, attempt: _, workload, grace_seconds: _, because: _ } => self.end(job, workload),
            Action::ReleasePods { job, attempt: _, workload, pods } => self.release_pods(job, workload, pods)?,
            Action::TerminateOrphans { pool: _, instances } => self.terminate(instances),
            Action::DeleteClaim { claim, uid } => self.delete_claim(claim, uid)?,
            // These worlds have no pods but those of jobs.
            Action::PlacePod { .. } | Action::EvictPod { .. } => return Err(format!("{action:?} where there are no such pods")),
            Action::ReleaseJob { job } => {
                if let Some(view) = self.jobs.remove(&job.uid) {
                    self.departed.insert(job.uid.clone(), view);
                }
            }
        }
        Ok(())
    }

    fn write_claim(&mut self, name: &str, record: &ClaimRecord) -> Result<(), String> {
        if self.claims.contains_key(name) {
            return Ok(());
        }
        self.check_budget(record)?;
        self.versions += 1;
        let claim = Claim {
            name: name.to_owned(),
            uid: format!("token-{}", self.versions),
            written_at_real: self.real_now,
            record: record.clone(),
            status: Default::default(),
        };
        self.claims.insert(name.to_owned(), claim);
        Ok(())
    }

    /// Two effects: the cloud's, and the record of its answer; the process may die in between.
    fn ask(&mut self, name: &str, uid: &str) {
        let Some(claim) = self.claims.get(name).filter(|live| live.uid == uid && live.status.phase == ClaimPhase::Written).cloned() else {
            return;
        };
        if claim.record.offer.provider == Provider::Nodes {
            return self.take_nodes(claim);
        }
        let answer = self.cloud.launch(&claim, self.now, self.faults, &mut self.random);
        if self.chance(self.faults.lost_answer) {
            self.log.push(format!("† the answer to {name} is lost"));
            return self.restart();
        }
        if answer.refusal.is_some() {
            self.terminate(&answer.instances);
            if self.dies() {
                return self.restart();
            }
        }
        let instances = answer.instances.iter().filter_map(|id| self.cloud.machines.get(id)).map(|vm| ClaimedInstance {
            id: vm.id.clone(),
            node: None,
            launched_at: vm.launched_at,
            running_at: None,
            notice: None,
            seen_alive_at: None,
            release_asked_at: None,
            end: None,
        });
        let instances = instances.collect();
        if let Some(live) = self.claims.get_mut(name) {
            live.status.instances = instances;
            live.status.phase = if answer.refusal.is_some() { ClaimPhase::Refused } else { ClaimPhase::Granted };
            live.status.refusal = answer.refusal;
        }
    }

    /// Provider `nodes`: labels are the grant.
    fn take_nodes(&mut self, claim: Claim) {
        let free = |name: &String| self.nodes.get(name).is_some_and(|node| node.claim.as_ref().is_none_or(|other| *other == claim.name));
        let all_free = claim.record.nodes.iter().all(free);
        for name in &claim.record.nodes {
            if self.chance(self.faults.lost_answer) {
                return self.restart();
            }
            if let Some(node) = self.nodes.get_mut(name) {
                if all_free {
                    node.claim = Some(claim.name.clone());
                } else if node.claim.as_ref() == Some(&claim.name) {
                    node.claim = None;
                }
            }
        }
        let (now, nodes) = (self.now, claim.record.nodes.clone());
        let Some(live) = self.claims.get_mut(&claim.name) else { return };
        if !all_free {
            live.status.phase = ClaimPhase::Refused;
            live.status.refusal = Some(Refusal { code: RefusalCode::NodesTaken, message: "a node is taken".to_owned(), at: now });
            return;
        }
        let instance = |id: String| ClaimedInstance {
            node: Some(id.clone()),
            id,
            launched_at: now,
            running_at: Some(now),
            notice: None,
            seen_alive_at: None,
            release_asked_at: None,
            end: None,
        };
        live.status.phase = ClaimPhase::Granted;
        live.status.instances = nodes.into_iter().map(instance).collect();
    }

    fn terminate(&mut self, ids: &[String]) {
        if self.chance(self.faults.lost_terminate) {
            self.log.push(format!("‡ ending {} has no effect", ids.join(", ")));
            return;
        }
        self.cloud.terminate(ids, self.now);
    }

    fn record_instances(&mut self, name: &str, uid: &str, instances: &[ClaimedInstance], ended: bool, seen: &Snapshot) {
        let read = seen.claims.iter().find(|claim| claim.name == name).map(|claim| &claim.status);
        let live = self.claims.get_mut(name).filter(|live| live.uid == uid && Some(&live.status) == read);
        if let Some(live) = live {
            live.status.instances = instances.to_vec();
            if ended {
                live.status.phase = ClaimPhase::Ended;
            }
        }
    }

    fn release(&mut self, name: &str, uid: &str, ids: &[String]) {
        let Some(claim) = self.claims.get(name).filter(|live| live.uid == uid) else { return };
        match claim.record.offer.provider {
            Provider::Aws => self.terminate(ids),
            Provider::Nodes => {
                let ours = |node: &&mut NodeView| ids.contains(&node.name) && node.claim.as_deref() == Some(name);
                for node in self.nodes.values_mut().filter(ours) {
                    node.claim = None;
                    node.leaving_taint = false;
                }
            }
        }
        if self.dies() {
            return self.restart();
        }
        let now = self.now;
        let live = self.claims.get_mut(name).into_iter().flat_map(|live| &mut live.status.instances);
        for instance in live.filter(|instance| ids.contains(&instance.id)) {
            instance.release_asked_at.get_or_insert(now);
        }
    }

    fn remove_node(&mut self, node: &str, instance: &str) -> Result<(), String> {
        if self.cloud.machines.get(instance).is_none_or(|vm| vm.is_alive(self.now)) {
            return Err(format!("the node {node} of a machine that runs would be removed"));
        }
        self.nodes.remove(node);
        Ok(())
    }

    fn start(&mut self, job: &JobRef, version: &str, attempt: u32, claims: &[String], resume_fraction: f64) {
        let Some(live) = self.jobs.get(&job.uid).filter(|live| live.version == version) else { return };
        if self.workloads.values().any(|workload| workload.view.job_uid == job.uid) {
            return;
        }
        let workload = Workload::new(job, attempt, live.job.workers, claims, resume_fraction, self.real_now);
        self.workloads.insert(workload.view.name.clone(), workload);
    }

    fn end(&mut self, job: &JobRef, name: &str) {
        let Some(workload) = self.workloads.get_mut(name).filter(|workload| workload.view.deleting_since_real.is_none()) else { return };
        workload.view.deleting_since_real = Some(self.real_now);
        if workload.view.pods_running > 0 {
            self.save_on_sigterm(&job.uid);
        }
    }

    fn release_pods(&mut self, job: &JobRef, name: &str, pods: &[String]) -> Result<(), String> {
        let Some(workload) = self.workloads.get_mut(name) else { return Ok(()) };
        let attempts = self.jobs.get(&job.uid).map(|live| &live.status.attempts);
        let records = || attempts.into_iter().flatten().flat_map(|attempt| &attempt.pods);
        let kept = |pod: &&crate::training::PodRecord| records().any(|record| record.name == pod.name && record.finished_at.is_some());
        let held = workload.view.pods.iter().filter(|pod| pods.contains(&pod.name) && attempts.is_some());
        let lost = held.into_iter().find(|pod| !kept(pod));
        if let Some(lost) = lost {
            return Err(format!("the times of pod {} would be lost", lost.name));
        }
        workload.view.pods.retain(|pod| !pods.contains(&pod.name));
        Ok(())
    }

    fn delete_claim(&mut self, name: &str, uid: &str) -> Result<(), String> {
        let Some(claim) = self.claims.get(name).filter(|live| live.uid == uid) else { return Ok(()) };
        let alive = self.cloud.machines.values().filter(|vm| vm.token == *uid && vm.is_alive(self.now)).count();
        let unmetered = claim.status.instances.iter().any(|instance| match &instance.end {
            Some(end) => claim.status.metered_until.is_none_or(|until| until < end.at),
            None => true,
        });
        if alive > 0 || unmetered {
            return Err(format!("claim {name} would be forgotten: {alive} machines run, unmetered: {unmetered}"));
        }
        self.claims.remove(name);
        Ok(())
    }

    /// For failure reports.
    pub fn tail(&self, lines: usize) -> String {
        self.log[self.log.len().saturating_sub(lines)..].join("\n")
    }
}
