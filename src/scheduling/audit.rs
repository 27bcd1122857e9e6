//! Derives the invariants again from snapshot and plan, and drops what breaks one. The planner should never need this; a
//! defect in it must cost an alert, not money.
//!
//! - A claim is named after (job, attempt, ask), is for the next attempt of a job that wants to run, asks for exactly the
//!   gang, of an offer that is quoted, under quota, pool limit, budget and deadline; a job has one usable claim at a time.
//! - The cloud is asked only for claims that are written and unanswered; machines are released and deleted only by their own
//!   claim; a node serves one claim.
//! - A claim for pods is named after them, gives no pod a second machine and every slot what its pods need (`pods.rs`).
//! - One attempt at a time: it starts only when it is recorded as open and nothing of the job is there.
//! - Records only grow: attempts keep their outcome, claims keep their machines, what is over stays over.

mod pods;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::budget::{Budgets, cost_of};
use super::lifecycle::JOIN_TIMEOUT;
use super::machines::{Fleet, machine_id};
use super::pods::ground::{Ground, Room};
use super::snapshot::{JobView, NodeView, PoolView};
use super::supply::Supply;
use super::{Action, Plan, Snapshot};
use crate::capacity::claim::claim_name;
use crate::capacity::{CapacityKind, Claim, ClaimPhase, ClaimRecord, ClaimedInstance, Provider, Serves};
use crate::training::{JobRef, JobStatus, Outlook};

/// The plan without the actions that break an invariant; each dropped one is named in `alerts`.
pub fn audit(snapshot: &Snapshot, plan: Plan) -> Plan {
    let fleet = Fleet::of(snapshot);
    let mut auditor = Auditor::new(snapshot, &fleet, &plan);
    let Plan { actions, decisions, orphans_seen, mut alerts } = plan;
    let mut approved = Vec::with_capacity(actions.len());
    for action in actions {
        match auditor.admit(&action) {
            Ok(()) => approved.push(action),
            Err(why) => alerts.push(format!("dropped by the audit: {why} ({})", super::explain::action_line(&action))),
        }
    }
    Plan { actions: approved, decisions, orphans_seen, alerts }
}

type Verdict = Result<(), String>;

fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}

struct Auditor<'a> {
    snapshot: &'a Snapshot,
    fleet: &'a Fleet,
    jobs: BTreeMap<&'a str, &'a JobView>,
    claims: BTreeMap<&'a str, &'a Claim>,
    nodes: BTreeMap<&'a str, &'a NodeView>,
    ground: Rc<Ground<'a>>,
    /// Statuses that this plan writes, by job uid.
    written: BTreeMap<String, JobStatus>,
    supply: Supply<'a>,
    budgets: Budgets,
    nodes_used: BTreeSet<String>,
    /// What is left on nodes that this plan lets pods go to.
    rooms: BTreeMap<String, Room>,
    /// (kind of action, subject) of what may happen once in a plan.
    once: BTreeSet<(&'static str, String)>,
}

impl<'a> Auditor<'a> {
    fn new(snapshot: &'a Snapshot, fleet: &'a Fleet, plan: &Plan) -> Auditor<'a> {
        let statuses = plan.actions.iter().filter_map(|action| match action {
            Action::RecordJob { job, status, .. } => Some((job.uid.clone(), status.as_ref().clone())),
            _ => None,
        });
        Auditor {
            snapshot,
            fleet,
            jobs: snapshot.jobs.iter().map(|view| (view.job.id.uid.as_str(), view)).collect(),
            claims: snapshot.claims.iter().map(|claim| (claim.name.as_str(), claim)).collect(),
            nodes: snapshot.nodes.iter().map(|node| (node.name.as_str(), node)).collect(),
            written: statuses.collect(),
            supply: Supply::of(snapshot, fleet),
            budgets: Budgets::of(snapshot, fleet),
            ground: Rc::new(Ground::of(snapshot, fleet)),
            nodes_used: BTreeSet::new(),
            rooms: BTreeMap::new(),
            once: BTreeSet::new(),
        }
    }

    fn admit(&mut self, action: &Action) -> Verdict {
        match action {
            Action::WriteClaim { name, record } => match record.serves() {
                Serves::Attempt { .. } => self.admit_claim(name, record),
                Serves::Pods(slots) => self.admit_pods_claim(name, record, slots),
            },
            Action::AskCloud { claim, uid } => self.admit_ask(claim, uid),
            Action::WithdrawClaim { claim, uid, because: _ } => {
                let phase = self.claim(claim, uid)?.status.phase;
                require(phase == ClaimPhase::Written, || format!("claim {claim} is answered already"))
            }
            Action::RecordInstances { claim, uid, instances, ended } => self.admit_instances(claim, uid, instances, *ended),
            Action::AdoptNode { claim, uid, node, instance } => self.admit_adoption(claim, uid, node, instance),
            Action::TaintNode { node, because: _ } => self.node(node).map(|_| ()),
            Action::RemoveNode { node, instance } => {
                let belongs = machine_id(self.node(node)?) == Some(instance);
                require(belongs, || format!("node {node} is not the machine {instance}"))
            }
            Action::Release { claim, uid, instances, because: _ } => self.admit_release(claim, uid, instances),
            Action::RecordJob { job, version, status, generation: _ } => self.admit_status(job, version, status),
            Action::StartAttempt { job, version, attempt, claims, resume_fraction } => {
                require((0.0..=1.0).contains(resume_fraction), || format!("{resume_fraction} is no fraction"))?;
                self.admit_start(job, version, *attempt, claims)
            }
            Action::EndAttempt { job, attempt, workload, grace_seconds: _, because: _ } => self.admit_workload(job, *attempt, workload),
            Action::ReleasePods { job, attempt, workload, pods: _ } => self.admit_workload(job, *attempt, workload),
            Action::TerminateOrphans { pool: _, instances } => self.admit_orphans(instances),
            Action::DeleteClaim { claim, uid } => self.admit_deletion(claim, uid),
            Action::ReleaseJob { job } => self.admit_farewell(job),
            Action::PlacePod { pod, claim, node, hostname } => self.admit_placement(pod, claim, node, hostname),
            Action::EvictPod { pod, node, because: _ } => self.admit_eviction(pod, node),
        }
    }

    // — launches —

    fn admit_claim(&mut self, name: &str, record: &ClaimRecord) -> Verdict {
        let view = self.job(&record.job)?;
        require(name == claim_name(&record.job.uid, record.attempt, record.ask), || format!("claim {name} is misnamed"))?;
        require(!self.claims.contains_key(name), || format!("claim {name} exists"))?;
        require(!(view.job.cancelled || view.deleting || view.status.phase.is_over()), || format!("{} is over", record.job))?;
        require(record.count == view.job.workers && record.count > 0, || {
            format!("{} machines for {} workers", record.count, view.job.workers)
        })?;
        self.check_succession(view, record)?;
        let pool = self.snapshot.pools.iter().find(|pool| pool.name == record.pool && pool.state.is_ok());
        let pool = pool.ok_or_else(|| format!("pool {} is not ready", record.pool))?;
        self.check_supply(pool, record)?;
        check_deadline(view, pool, self.snapshot)?;
        self.check_budget(view, pool, record)?;
        self.first("WriteClaim", &record.job.uid)?;
        self.supply.take(record);
        Ok(())
    }

    /// The next attempt only, after the one before is over, and no second usable claim for it.
    fn check_succession(&self, view: &JobView, record: &ClaimRecord) -> Verdict {
        let uid = &record.job.uid;
        let status = self.written.get(uid).unwrap_or(&view.status);
        let over = status.attempts.last().is_none_or(|attempt| attempt.outcome.is_some());
        let next = status.attempts.last().map_or(1, |attempt| attempt.number + 1);
        require(over && record.attempt == next, || format!("attempt {} of {} is not the next", record.attempt, record.job))?;
        let usable = |claim: &&&Claim| {
            let machines = self.fleet.machines(&claim.name);
            let in_time = |at| self.snapshot.now - at < JOIN_TIMEOUT;
            let healthy =
                machines.iter().all(|machine| machine.loss().is_none() && (machine.joined || in_time(machine.record.launched_at)));
            let same_gang = claim.record.count == record.count;
            claim.is_for(uid, record.attempt) && same_gang && (claim.status.phase == ClaimPhase::Written || (claim.is_granted() && healthy))
        };
        let other = self.claims.values().find(usable);
        require(other.is_none(), || format!("{} has the claim {} already", record.job, other.map_or("", |claim| &claim.name)))
    }

    fn check_supply(&mut self, pool: &PoolView, record: &ClaimRecord) -> Verdict {
        let quoted = pool.offers.iter().find(|quoted| quoted.offer == record.offer);
        let quoted = quoted.ok_or_else(|| format!("pool {} does not offer {} at {}", pool.name, record.offer, record.offer.price))?;
        let available = self.supply.available(pool, quoted);
        require(available.as_ref().is_none_or(|(most, _)| record.count <= *most), || format!("{:?} are available", available))?;
        let left = self.supply.left_in_pool(pool);
        require(left.is_none_or(|left| record.count <= left), || format!("pool {} has {left:?} machines left", pool.name))?;
        if pool.provider == Provider::Aws {
            return require(record.nodes.is_empty(), || "nodes are named for a cloud".to_owned());
        }
        require(record.nodes.len() == record.count as usize, || format!("{} nodes for {} machines", record.nodes.len(), record.count))?;
        for node in &record.nodes {
            let free = self.node(node)?.claim.is_none() && !self.claimed_nodes().contains(node.as_str());
            require(free && self.nodes_used.insert(node.clone()), || format!("node {node} serves another claim"))?;
        }
        Ok(())
    }

    fn claimed_nodes(&self) -> BTreeSet<&str> {
        let written = self.claims.values().filter(|claim| claim.status.phase == ClaimPhase::Written);
        written.flat_map(|claim| claim.record.nodes.iter().map(String::as_str)).collect()
    }

    fn check_budget(&mut self, view: &JobView, pool: &PoolView, record: &ClaimRecord) -> Verdict {
        if record.offer.kind == CapacityKind::Reserved {
            return Ok(());
        }
        let outlook = outlook(view, pool);
        let cost = cost_of(record.offer.price, record.count, outlook.total()).map_err(|error| error.to_string())?;
        self.budgets.allowance(view).check(cost).map_err(|shortfall| shortfall.to_string())?;
        self.budgets.commit(view, cost);
        Ok(())
    }

    fn admit_ask(&mut self, claim: &str, uid: &str) -> Verdict {
        let record = self.claim(claim, uid)?;
        require(record.status.phase == ClaimPhase::Written, || format!("claim {claim} is answered already"))?;
        if let Serves::Pods(slots) = record.record.serves() {
            return self.admit_ask_for_pods(record, slots);
        }
        let view = self.job(&record.record.job)?;
        require(!(view.job.cancelled || view.deleting), || format!("{} is not wanted any more", record.record.job))?;
        self.first("AskCloud", &record.record.job.uid)
    }

    // — machines —

    fn admit_instances(&mut self, claim: &str, uid: &str, instances: &[ClaimedInstance], ended: bool) -> Verdict {
        let old = &self.claim(claim, uid)?.status.instances;
        let kept = old.iter().all(|old| instances.iter().any(|new| new.id == old.id && (old.end.as_ref().is_none_or(|end| end.estimated) || new.end.is_some())));
        require(kept, || format!("claim {claim} would forget a machine or its end"))?;
        let all_ended = instances.iter().all(|instance| instance.end.is_some());
        require(!ended || all_ended, || format!("claim {claim} has machines that did not end"))?;
        self.first("RecordInstances", claim)
    }

    fn admit_adoption(&mut self, claim: &str, uid: &str, node: &str, instance: &str) -> Verdict {
        let record = self.claim(claim, uid)?;
        let view = self.node(node)?;
        let known = self.fleet.machines(claim).iter().any(|machine| machine.record.id == instance);
        let matches = record.record.offer.provider == Provider::Nodes || machine_id(view) == Some(instance);
        require(known && matches, || format!("node {node} is not a machine of claim {claim}"))?;
        require(view.claim.as_ref().is_none_or(|other| other == claim), || format!("node {node} belongs to {:?}", view.claim))?;
        require(self.nodes_used.insert(node.to_owned()), || format!("node {node} is used twice"))
    }

    fn admit_release(&mut self, claim: &str, uid: &str, instances: &[String]) -> Verdict {
        self.claim(claim, uid)?;
        let own: BTreeSet<&str> = self.fleet.machines(claim).iter().map(|machine| machine.record.id.as_str()).collect();
        let foreign = instances.iter().find(|id| !own.contains(id.as_str()));
        require(foreign.is_none(), || format!("{foreign:?} is not a machine of claim {claim}"))
    }

    fn admit_orphans(&mut self, instances: &[String]) -> Verdict {
        let listed = self.snapshot.instances.known().map_or(&[][..], Vec::as_slice);
        let recorded: BTreeSet<&str> =
            self.claims.values().flat_map(|claim| &claim.status.instances).map(|instance| instance.id.as_str()).collect();
        for id in instances {
            let tag = listed.iter().find(|instance| instance.id == *id).ok_or_else(|| format!("{id} was not seen"))?;
            let has_claim = tag.claim.as_ref().is_some_and(|claim| self.claims.contains_key(claim.as_str()));
            require(!has_claim && !recorded.contains(id.as_str()), || format!("{id} has a claim"))?;
        }
        Ok(())
    }

    fn admit_deletion(&mut self, claim: &str, uid: &str) -> Verdict {
        let record = self.claim(claim, uid)?;
        let over = matches!(record.status.phase, ClaimPhase::Refused | ClaimPhase::Ended);
        require(over && self.fleet.open_count(claim) == 0, || format!("claim {claim} is not over"))
    }

    // — jobs —

    fn admit_status(&mut self, job: &JobRef, version: &str, status: &JobStatus) -> Verdict {
        let view = self.job(job)?;
        require(version == view.version, || format!("the status of {job} was planned against another version"))?;
        let kept = |old: &crate::training::Attempt| {
            status.attempts.iter().any(|new| new.number == old.number && (old.outcome.is_none() || new.outcome == old.outcome))
        };
        require(view.status.attempts.iter().all(kept), || format!("{job} would forget an attempt or its outcome"))?;
        require(!view.status.phase.is_over() || status.phase == view.status.phase, || format!("{job} would come back to life"))?;
        let open = status.attempts.iter().filter(|attempt| attempt.outcome.is_none()).count();
        require(open <= 1, || format!("{job} would have {open} open attempts"))?;
        self.first("RecordJob", &job.uid)
    }

    fn admit_start(&mut self, job: &JobRef, version: &str, attempt: u32, claims: &[String]) -> Verdict {
        let view = self.job(job)?;
        require(version == view.version, || format!("attempt {attempt} of {job} was planned against another version"))?;
        let recorded =
            view.status.attempts.last().is_some_and(|last| last.number == attempt && last.outcome.is_none() && last.claims == claims);
        require(recorded, || format!("attempt {attempt} of {job} is not recorded as open"))?;
        let other = self.snapshot.workloads.iter().find(|workload| workload.job_uid == job.uid);
        require(other.is_none(), || format!("attempt {} of {job} is still there", other.map_or(0, |workload| workload.attempt)))?;
        self.first("StartAttempt", &job.uid)
    }

    fn admit_workload(&mut self, job: &JobRef, attempt: u32, workload: &str) -> Verdict {
        let own = |view: &&super::snapshot::WorkloadView| view.job_uid == job.uid && view.attempt == attempt && view.name == workload;
        require(self.snapshot.workloads.iter().any(|view| own(&view)), || format!("{workload} is not attempt {attempt} of {job}"))
    }

    fn admit_farewell(&mut self, job: &JobRef) -> Verdict {
        let view = self.job(job)?;
        require(view.deleting, || format!("{job} is not being deleted"))?;
        let own = self.claims.values().filter(|claim| claim.record.job.uid == job.uid);
        let open = own.filter(|claim| claim.status.phase == ClaimPhase::Written || self.fleet.open_count(&claim.name) > 0).count();
        require(open == 0, || format!("{job} holds {open} claims"))
    }

    // — look-ups —

    fn job(&self, job: &JobRef) -> Result<&'a JobView, String> {
        self.jobs.get(job.uid.as_str()).copied().ok_or_else(|| format!("there is no job {job}"))
    }

    fn claim(&self, name: &str, uid: &str) -> Result<&'a Claim, String> {
        let claim = self.claims.get(name).copied().filter(|claim| claim.uid == uid);
        claim.ok_or_else(|| format!("there is no claim {name} with UID {uid}"))
    }

    fn node(&self, name: &str) -> Result<&'a NodeView, String> {
        self.nodes.get(name).copied().ok_or_else(|| format!("there is no node {name}"))
    }

    fn first(&mut self, kind: &'static str, subject: &str) -> Verdict {
        require(self.once.insert((kind, subject.to_owned())), || format!("{kind} twice for {subject}"))
    }
}

fn outlook(view: &JobView, pool: &PoolView) -> Outlook {
    let boot = if pool.provider == Provider::Aws { pool.boot } else { crate::units::Span::default() };
    Outlook::of_start(&view.job, view.checkpoint.as_ref(), boot)
}

/// A first start that cannot meet its deadline is not bought.
fn check_deadline(view: &JobView, pool: &PoolView, snapshot: &Snapshot) -> Verdict {
    let Some(deadline) = view.job.deadline.filter(|_| view.status.attempts.is_empty()) else {
        return Ok(());
    };
    let finish = outlook(view, pool).finish(snapshot.now);
    require(finish <= deadline, || format!("{} would finish at {finish}, after its deadline {deadline}", view.job.id))
}
