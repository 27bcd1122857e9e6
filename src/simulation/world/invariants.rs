//! What must hold after every single effect, whatever failed before.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;

use super::World;
use crate::capacity::{CapacityKind, ClaimRecord};
use crate::scheduling::budget::cost_of;
use crate::training::Outlook;
use crate::units::{Money, Span};

/// A machine may be without claim so long: ten minutes of age, two looks, a few crashes.
const GARBAGE_INTERVAL: TimeDelta = TimeDelta::minutes(30);

impl World {
    pub(super) fn check(&mut self) -> Result<(), String> {
        self.check_claims()?;
        self.check_workloads()?;
        self.check_owners()
    }

    /// Per claim at most the machines that were asked for, and a node serves one claim.
    fn check_claims(&self) -> Result<(), String> {
        let mut alive: BTreeMap<&str, u32> = BTreeMap::new();
        for vm in self.cloud.machines.values().filter(|vm| vm.is_alive(self.now)) {
            *alive.entry(&vm.token).or_default() += 1;
        }
        for claim in self.claims.values() {
            let count = alive.get(claim.uid.as_str()).copied().unwrap_or_default();
            if count > claim.record.count {
                return Err(format!("claim {} has {count} machines, {} were asked for", claim.name, claim.record.count));
            }
        }
        Ok(())
    }

    /// Never two attempts of a job with running pods; every pod on a node of its own attempt.
    fn check_workloads(&self) -> Result<(), String> {
        let mut running: BTreeSet<&str> = BTreeSet::new();
        for workload in self.workloads.values() {
            let view = &workload.view;
            if view.pods_running > 0 && !running.insert(&view.job_uid) {
                return Err(format!("two attempts of {} run", view.job_uid));
            }
            for node in view.pods.iter().filter(|pod| pod.finished_at.is_none()).filter_map(|pod| pod.node.as_ref()) {
                let claim = self.nodes.get(node).and_then(|node| node.claim.as_ref());
                let standing = self.standing_nodes().contains(node);
                if claim.is_some_and(|claim| !workload.claims.contains(claim)) && !standing {
                    return Err(format!("a pod of {} runs on {node} of claim {claim:?}", view.name));
                }
            }
        }
        Ok(())
    }

    /// No machine is forgotten: it has a claim, or is ended within the interval.
    fn check_owners(&mut self) -> Result<(), String> {
        let now = self.now;
        let ownerless = |vm: &&super::cloud::Vm| vm.is_alive(now) && !self.claims.contains_key(&vm.claim);
        let ownerless: BTreeSet<String> = self.cloud.machines.values().filter(ownerless).map(|vm| vm.id.clone()).collect();
        self.ownerless_since.retain(|id, _| ownerless.contains(id));
        for id in ownerless {
            let since = *self.ownerless_since.entry(id.clone()).or_insert(now);
            if now - since > GARBAGE_INTERVAL {
                return Err(format!("machine {id} has no claim since {since}"));
            }
        }
        Ok(())
    }

    /// What the experiment has truly spent and this launch stay within its budget. (Caches may hide what others have just
    /// committed, so that part is judged by the audit, on what it saw; and a few minutes of all machines are tolerated.)
    pub(super) fn check_budget(&self, record: &ClaimRecord) -> Result<(), String> {
        let Some(Some(limit)) = self.experiments.get(&record.experiment) else { return Ok(()) };
        let Some(view) = self.jobs.get(&record.job.uid) else { return Ok(()) };
        if record.offer.kind == CapacityKind::Reserved {
            return Ok(());
        }
        let boot = self.pools.iter().find(|pool| pool.name == record.pool).map_or(Span::default(), |pool| pool.boot);
        let time = Outlook::of_start(&view.job, view.checkpoint.as_ref(), boot).remaining;
        let cost = cost_of(record.offer.price, record.count, time).map_err(|error| error.to_string())?;
        let spent = self.spent(&record.experiment);
        let alive = self.cloud.machines.values().filter(|vm| vm.is_alive(self.now) && vm.experiment == record.experiment);
        let tolerated = alive.filter_map(|vm| vm.offer.price.for_seconds(600).ok()).fold(0, |sum, money| sum + money.atoms());
        if spent.atoms() + cost.atoms() > limit.atoms() + tolerated {
            let total = Money::usd_atoms(spent.atoms() + cost.atoms());
            return Err(format!("{} would spend {total} of {limit}", record.experiment));
        }
        Ok(())
    }
}
