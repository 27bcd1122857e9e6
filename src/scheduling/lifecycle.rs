//! The life of one job, derived anew in every cycle from durable records only: its status, its claims, its workloads.
//!
//! ```text
//!            ┌──────────────── interrupted, failed and retried ────────────────┐
//!            ▼                                                                 │
//!  place ─ WriteClaim ─► AskCloud ─► AdoptNode… ─► RecordJob(attempt n) ─► StartAttempt ─► runs ─► RecordJob(over)
//!            ▲  refused, lost, not joined │                                                          │
//!            └────────────────────────────┘                       EndAttempt, ReleasePods, Release ◄─┘
//! ```
//! Rules that keep this safe under crashes and stale caches:
//! - A step relies on records, never on an action of the same plan; whatever was lost in a crash is planned again.
//! - Claims of attempts later than the one at hand are left alone: the job's status may be the stale one.
//! - Machines are released only when no pod of their attempt runs (or its grace is long over), so a checkpoint can be saved.
//! - A claim that nobody wants any more is withdrawn, not asked for: see [`Action::WithdrawClaim`].
//!
//! Simple on purpose: the whole gang moves when one machine is lost (keeping the survivors is a later improvement), a retry
//! takes new machines, and a rebalance recommendation is noted but moves nobody, because a move costs a restart for certain
//! and the notice may never come; the deadline margin has room for one more loss anyway.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::machines::{Fleet, Machine};
use super::placement::time_words;
use super::snapshot::{JobView, Snapshot, WorkloadEnd, WorkloadView};
use super::{Action, Decision, DecisionKind, NOTICE_GRACE_SECONDS, Reason, ReasonCode};
use crate::capacity::{CapacityKind, Claim, ClaimPhase, NoticeKind, Offer};
use crate::training::slack::{fraction_of, remaining_work, usable_fraction};
use crate::training::{Attempt, AttemptOutcome, JobPhase, JobStatus, PodRecord};

/// A machine that has not joined the cluster so long after its launch (market time) is given back…
pub const JOIN_TIMEOUT: TimeDelta = TimeDelta::minutes(15);
/// …but not before its kubelet had this long, in real time since the claim: a fast market makes no kubelet faster.
pub const JOIN_TIMEOUT_REAL: TimeDelta = TimeDelta::minutes(5);
/// Pods of which none has started by then have failed: a wrong image, an impossible request (real time).
pub const START_TIMEOUT: TimeDelta = TimeDelta::minutes(15);
/// A gang's failure on spot is blamed on the program only after this market time.
const BLAME_AFTER: TimeDelta = TimeDelta::minutes(2);
/// Longer than the grace: pods that still count as running are on machines that do not answer.
const GRACE_OVER: TimeDelta = TimeDelta::seconds(NOTICE_GRACE_SECONDS + 30);

/// The records of all jobs, by job uid.
pub struct Records<'a> {
    pub snapshot: &'a Snapshot,
    pub fleet: &'a Fleet,
    claims: BTreeMap<&'a str, Vec<&'a Claim>>,
    workloads: BTreeMap<&'a str, Vec<&'a WorkloadView>>,
}

impl<'a> Records<'a> {
    pub fn of(snapshot: &'a Snapshot, fleet: &'a Fleet) -> Records<'a> {
        let mut claims: BTreeMap<&str, Vec<&Claim>> = BTreeMap::new();
        for claim in &snapshot.claims {
            claims.entry(&claim.record.job.uid).or_default().push(claim);
        }
        for list in claims.values_mut() {
            list.sort_by_key(|claim| (claim.record.attempt, claim.record.ask));
        }
        let mut workloads: BTreeMap<&str, Vec<&WorkloadView>> = BTreeMap::new();
        for workload in &snapshot.workloads {
            workloads.entry(&workload.job_uid).or_default().push(workload);
        }
        Records { snapshot, fleet, claims, workloads }
    }

    pub fn claims(&self, job_uid: &str) -> &[&'a Claim] {
        self.claims.get(job_uid).map_or(&[], Vec::as_slice)
    }

    pub fn workloads(&self, job_uid: &str) -> &[&'a WorkloadView] {
        self.workloads.get(job_uid).map_or(&[], Vec::as_slice)
    }
}

/// What a job's turn comes to.
pub struct Turn {
    /// The status as it should be now, but for decision and cost.
    pub status: JobStatus,
    /// Before the status is written.
    pub first: Vec<Action>,
    /// After the status is written.
    pub then: Vec<Action>,
    pub next: Next,
}

pub enum Next {
    /// Decided already.
    Decided(Decision),
    /// Needs capacity: attempt and ask number. The caller places it.
    Place { attempt: u32, ask: u32 },
}

/// Moves one job as far as its records allow.
pub fn advance(view: &JobView, records: &Records<'_>) -> Turn {
    let mut course = Course {
        view,
        records,
        claims: records.claims(&view.job.id.uid),
        workloads: records.workloads(&view.job.id.uid),
        status: view.status.clone(),
        first: Vec::new(),
        then: Vec::new(),
    };
    let next = course.run();
    Turn { status: course.status, first: course.first, then: course.then, next }
}

struct Course<'a> {
    view: &'a JobView,
    records: &'a Records<'a>,
    claims: &'a [&'a Claim],
    workloads: &'a [&'a WorkloadView],
    status: JobStatus,
    first: Vec<Action>,
    then: Vec<Action>,
}

impl<'a> Course<'a> {
    fn run(&mut self) -> Next {
        self.keep_pod_records();
        self.end_workloads_of_past_attempts();
        let unwanted = self.view.deleting || (self.view.job.cancelled && !self.status.phase.is_over());
        if unwanted {
            return Next::Decided(self.abandon());
        }
        if !self.status.phase.is_over()
            && let Some(decision) = self.continue_attempt()
        {
            return Next::Decided(decision);
        }
        if self.status.phase.is_over() {
            return Next::Decided(self.rest());
        }
        self.provision()
    }

    // — attempts —

    fn open_attempt(&self) -> Option<&Attempt> {
        self.status.attempts.last().filter(|attempt| attempt.outcome.is_none())
    }

    /// `None`: there is no open attempt, or there is none any more.
    fn continue_attempt(&mut self) -> Option<Decision> {
        let attempt = self.open_attempt()?.clone();
        let workload = self.workload(attempt.number);
        if let Some(WorkloadView { finished: Some(WorkloadEnd::Complete), .. }) = workload {
            self.succeed();
            return None;
        }
        if let Some(loss) = self.loss_of(&attempt) {
            self.leave_machines(&attempt);
            self.close_attempt(AttemptOutcome::Interrupted, loss);
            self.end_workload(attempt.number);
            return None;
        }
        let Some(workload) = workload else {
            return Some(self.start(&attempt));
        };
        match &workload.finished {
            Some(WorkloadEnd::Failed { reason, message, node_lost: true }) => {
                self.close_attempt(AttemptOutcome::Interrupted, format!("a node was lost ({reason}: {message})"));
                None
            }
            Some(WorkloadEnd::Failed { .. }) if self.may_be_a_lost_machine(&attempt, workload) => Some(decision(
                DecisionKind::Keep,
                ReasonCode::Running,
                "a worker failed; waits to hear whether a machine was lost".to_owned(),
            )),
            Some(WorkloadEnd::Failed { reason, message, node_lost: false }) => {
                self.fail(format!("the program failed ({reason}: {message})"));
                None
            }
            Some(WorkloadEnd::Complete) => None,
            None if workload.deleting_since_real.is_some() => {
                self.close_attempt(AttemptOutcome::Interrupted, "somebody deleted its Job".to_owned());
                None
            }
            None if self.never_started(workload) => {
                self.fail(format!("no pod started within {} minutes; see the events of its pods", START_TIMEOUT.num_minutes()));
                None
            }
            None => Some(self.keep(&attempt, workload)),
        }
    }

    fn keep(&mut self, attempt: &Attempt, workload: &WorkloadView) -> Decision {
        let runs = workload.pods_running >= self.view.job.workers;
        if runs || self.status.phase == JobPhase::Running {
            self.status.phase = JobPhase::Running;
        } else {
            self.status.phase = JobPhase::Provisioning;
        }
        self.keep_claims(attempt.number, &attempt.claims);
        let fraction = fraction_of(attempt, self.view.progress.as_ref());
        let left = remaining_work(&self.view.job, fraction);
        let finish = self.now() + left;
        let what = format!("{} on {}", percent(fraction), words(self.view.job.workers, &attempt.offer));
        if !runs && self.status.phase != JobPhase::Running {
            let message = format!("attempt {}: {} of {} pods run", attempt.number, workload.pods_running, self.view.job.workers);
            return decision(DecisionKind::Wait, ReasonCode::MachinesStarting, message);
        }
        let deadline = match self.view.job.deadline {
            Some(deadline) if finish > deadline => {
                format!(", after its deadline {}", time_words(deadline))
            }
            Some(deadline) => format!(", deadline {}", time_words(deadline)),
            None => String::new(),
        };
        let message = format!("{what}, would finish about {}{deadline}", time_words(finish));
        Decision { finish: Some(finish), ..decision(DecisionKind::Keep, ReasonCode::Running, message) }
    }

    /// The attempt is recorded and has no workload: create it, unless one of an earlier attempt is still there.
    fn start(&mut self, attempt: &Attempt) -> Decision {
        self.keep_claims(attempt.number, &attempt.claims);
        if let Some(other) = self.workloads.first() {
            return decision(
                DecisionKind::Wait,
                ReasonCode::StoppingAttempt,
                format!("the pods of attempt {} are still ending", other.attempt),
            );
        }
        // A status that this very turn changed is not the one that StartAttempt would be checked against.
        if self.status == self.view.status && self.all_joined(attempt) {
            self.then.push(Action::StartAttempt {
                job: self.view.job.id.clone(),
                version: self.view.version.clone(),
                attempt: attempt.number,
                claims: attempt.claims.clone(),
                resume_fraction: self.resume_fraction().max(attempt.from_fraction),
            });
        }
        decision(DecisionKind::Wait, ReasonCode::MachinesStarting, format!("attempt {} is being started", attempt.number))
    }

    fn all_joined(&self, attempt: &Attempt) -> bool {
        let claims: Vec<&&Claim> = self.claims.iter().filter(|claim| attempt.claims.contains(&claim.name)).collect();
        claims.len() == attempt.claims.len()
            && claims.iter().all(|claim| gang(claim, self.records.fleet).iter().all(|machine| machine.joined))
    }

    fn loss_of(&self, attempt: &Attempt) -> Option<String> {
        let missing = attempt.claims.iter().find(|name| !self.claims.iter().any(|claim| claim.name == **name));
        let gone = missing.map(|name| format!("claim {name} is gone; machines without a claim are not paid for"));
        let own = self.claims.iter().filter(|claim| attempt.claims.contains(&claim.name));
        gone.or_else(|| own.flat_map(|claim| gang(claim, self.records.fleet)).find_map(Machine::loss))
    }

    /// Nodes that are on notice take no new pods.
    fn leave_machines(&mut self, attempt: &Attempt) {
        let own = self.claims.iter().filter(|claim| attempt.claims.contains(&claim.name));
        for machine in own.flat_map(|claim| gang(claim, self.records.fleet)) {
            let noticed = machine.record.notice.as_ref().is_some_and(|notice| notice.kind == NoticeKind::Interruption);
            let tainted = |name: &String| self.records.snapshot.nodes.iter().any(|node| node.name == *name && node.leaving_taint);
            if let Some(node) = machine.node.as_ref().filter(|node| (noticed || machine.gone) && !tainted(node)) {
                self.first.push(Action::TaintNode { node: node.clone(), because: machine.loss().unwrap_or_default() });
            }
        }
    }

    /// When a spot machine vanishes, its peers crash before anybody tells: for a moment it is not the program's fault.
    fn may_be_a_lost_machine(&self, attempt: &Attempt, workload: &WorkloadView) -> bool {
        let failed_at = workload.pods.iter().filter_map(|pod| pod.finished_at).max();
        let fresh = failed_at.is_some_and(|at| self.now() - at < BLAME_AFTER);
        fresh && workload.pods.len() > 1 && attempt.offer.kind == CapacityKind::Spot
    }

    fn never_started(&self, workload: &WorkloadView) -> bool {
        let waited = self.records.snapshot.real_now - workload.created_at_real >= START_TIMEOUT;
        waited && workload.pods_running == 0 && workload.pods.iter().all(|pod| pod.started_at.is_none())
    }

    fn succeed(&mut self) {
        self.close_attempt(AttemptOutcome::Succeeded, "done".to_owned());
        let ends = self.status.attempts.last().map(|attempt| attempt.pods.iter().filter_map(|pod| pod.finished_at));
        let finished_at = ends.and_then(Iterator::max).unwrap_or(self.now());
        self.finish(JobPhase::Succeeded, finished_at);
    }

    fn fail(&mut self, why: String) {
        self.close_attempt(AttemptOutcome::Failed, why);
        let failures = self.status.attempts.iter().filter(|attempt| attempt.outcome == Some(AttemptOutcome::Failed)).count();
        if failures > self.view.job.retries_max as usize {
            self.finish(JobPhase::Failed, self.now());
        }
    }

    fn finish(&mut self, phase: JobPhase, at: DateTime<Utc>) {
        self.status.phase = phase;
        self.status.finished_at = Some(at);
    }

    fn close_attempt(&mut self, outcome: AttemptOutcome, reason: String) {
        let now = self.now();
        let number = self.open_attempt().map(|attempt| attempt.number);
        let pods = number.and_then(|number| self.workload(number)).map(|workload| workload.pods.clone()).unwrap_or_default();
        if let Some(attempt) = self.status.attempts.last_mut() {
            attempt.ended_at = Some(now);
            attempt.outcome = Some(outcome);
            attempt.reason = Some(reason);
            merge_pods(&mut attempt.pods, &pods);
        }
    }

    // — workloads —

    fn workload(&self, attempt: u32) -> Option<&'a WorkloadView> {
        self.workloads.iter().find(|workload| workload.attempt == attempt).copied()
    }

    /// Pods end after their attempt did; their times are copied as long as they can be seen.
    fn keep_pod_records(&mut self) {
        for workload in self.workloads {
            let attempt = self.status.attempts.iter_mut().find(|attempt| attempt.number == workload.attempt && attempt.outcome.is_some());
            if let Some(attempt) = attempt {
                merge_pods(&mut attempt.pods, &workload.pods);
            }
        }
    }

    /// Only what is over according to the record that was read: a finished Job is the one witness of how it ended.
    fn end_workloads_of_past_attempts(&mut self) {
        for workload in self.workloads {
            let recorded = self.view.status.attempts.iter().find(|attempt| attempt.number == workload.attempt);
            let Some(attempt) = recorded.filter(|attempt| attempt.outcome.is_some()) else {
                continue;
            };
            if workload.deleting_since_real.is_none() {
                self.end_workload(workload.attempt);
                continue;
            }
            let recorded = |name: &str| attempt.pods.iter().any(|record| record.name == name && record.finished_at.is_some());
            let kept = |pod: &&PodRecord| pod.finished_at.is_some() && recorded(&pod.name);
            let pods: Vec<String> = workload.pods.iter().filter(kept).map(|pod| pod.name.clone()).collect();
            if !pods.is_empty() {
                let (job, workload) = (self.view.job.id.clone(), workload.name.clone());
                self.then.push(Action::ReleasePods { job, attempt: attempt.number, workload, pods });
            }
        }
    }

    fn end_workload(&mut self, attempt: u32) {
        let Some(workload) = self.workload(attempt).filter(|workload| workload.deleting_since_real.is_none()) else {
            return;
        };
        let reason = self.status.attempts.iter().find(|past| past.number == attempt).and_then(|past| past.reason.clone());
        self.then.push(Action::EndAttempt {
            job: self.view.job.id.clone(),
            attempt,
            workload: workload.name.clone(),
            grace_seconds: NOTICE_GRACE_SECONDS,
            because: reason.unwrap_or_default(),
        });
    }

    fn pods_are_gone(&self, attempt: u32) -> bool {
        let gone = |workload: &WorkloadView| {
            let grace_over = |since: DateTime<Utc>| self.records.snapshot.real_now - since >= GRACE_OVER;
            workload.pods_running == 0 || workload.deleting_since_real.is_some_and(grace_over)
        };
        self.workloads.iter().filter(|workload| workload.attempt == attempt).all(|workload| gone(workload))
    }

    // — claims —

    /// Keeps these claims of the attempt at hand; gives back what earlier attempts and other asks hold, and surplus machines.
    fn keep_claims(&mut self, attempt: u32, kept: &[String]) {
        for claim in self.claims.iter().filter(|claim| claim.record.attempt <= attempt) {
            if !kept.contains(&claim.name) {
                self.give_back(claim, "its attempt is over");
            } else if claim.is_granted() {
                let own: Vec<String> = gang(claim, self.records.fleet).iter().map(|machine| machine.record.id.clone()).collect();
                let surplus = self.records.fleet.releasable(&claim.name).into_iter().filter(|id| !own.contains(id)).collect();
                self.release(claim, surplus, "more machines than were asked for");
            }
        }
    }

    fn give_back_all(&mut self, because: &str) {
        for claim in self.claims {
            self.give_back(claim, because);
        }
    }

    fn give_back(&mut self, claim: &Claim, because: &str) {
        if claim.status.phase == ClaimPhase::Written {
            self.then.push(Action::WithdrawClaim { claim: claim.name.clone(), uid: claim.uid.clone(), because: because.to_owned() });
        } else if self.pods_are_gone(claim.record.attempt) {
            self.release(claim, self.records.fleet.releasable(&claim.name), because);
        }
    }

    fn release(&mut self, claim: &Claim, instances: Vec<String>, because: &str) {
        if !instances.is_empty() {
            let (name, uid) = (claim.name.clone(), claim.uid.clone());
            self.then.push(Action::Release { claim: name, uid, instances, because: because.to_owned() });
        }
    }

    fn holds_nothing(&self) -> bool {
        let closed = |claim: &&Claim| claim.status.phase != ClaimPhase::Written && self.records.fleet.open_count(&claim.name) == 0;
        self.workloads.is_empty() && self.claims.iter().all(closed)
    }

    // — the ends —

    /// Cancelled or being deleted: ends what runs, gives everything back, then is over.
    fn abandon(&mut self) -> Decision {
        let because = if self.view.deleting { "the job was deleted" } else { "the job was cancelled" };
        if let Some(number) = self.open_attempt().map(|attempt| attempt.number) {
            let complete = self.workload(number).is_some_and(|workload| workload.finished == Some(WorkloadEnd::Complete));
            let outcome = if complete { AttemptOutcome::Succeeded } else { AttemptOutcome::Cancelled };
            self.close_attempt(outcome, because.to_owned());
            self.end_workload(number);
        }
        self.give_back_all(because);
        if self.holds_nothing() {
            if !self.status.phase.is_over() {
                self.finish(JobPhase::Cancelled, self.now());
            }
            if self.view.deleting {
                self.then.push(Action::ReleaseJob { job: self.view.job.id.clone() });
            }
        }
        decision(DecisionKind::Finish, ReasonCode::Cancelled, because.to_owned())
    }

    fn rest(&mut self) -> Decision {
        self.give_back_all("the job is over");
        let attempts = self.status.attempts.len();
        let reason = self.status.attempts.last().and_then(|attempt| attempt.reason.clone()).unwrap_or_default();
        match self.status.phase {
            JobPhase::Failed => {
                decision(DecisionKind::Finish, ReasonCode::ProgramFailed, format!("failed after {attempts} attempts: {reason}"))
            }
            JobPhase::Cancelled => decision(DecisionKind::Finish, ReasonCode::Cancelled, "the job was cancelled".to_owned()),
            _ => decision(DecisionKind::Finish, ReasonCode::Done, format!("done in {attempts} attempt{}", if attempts == 1 { "" } else { "s" })),
        }
    }

    // — capacity for the next attempt —

    fn provision(&mut self) -> Next {
        let attempt = self.status.attempts.last().map_or(1, |last| last.number + 1);
        let usable = self.claims.iter().copied().find(|claim| self.is_usable(claim, attempt));
        let kept: Vec<String> = usable.iter().map(|claim| claim.name.clone()).collect();
        self.keep_claims(attempt, &kept);
        let Some(claim) = usable else {
            let asks = self.claims.iter().filter(|claim| claim.record.attempt == attempt).map(|claim| claim.record.ask);
            self.status.phase = self.waiting_phase();
            return Next::Place { attempt, ask: asks.max().unwrap_or(0) + 1 };
        };
        self.status.phase = JobPhase::Provisioning;
        self.status.capacity = Some(words(claim.record.count, &claim.record.offer));
        Next::Decided(self.provision_on(claim, attempt))
    }

    fn provision_on(&mut self, claim: &Claim, attempt: u32) -> Decision {
        let capacity = words(claim.record.count, &claim.record.offer);
        if claim.status.phase == ClaimPhase::Written {
            self.then.push(Action::AskCloud { claim: claim.name.clone(), uid: claim.uid.clone() });
            return decision(DecisionKind::Wait, ReasonCode::AskingCloud, format!("{capacity} is being asked for"));
        }
        let machines = gang(claim, self.records.fleet);
        let joined = machines.iter().filter(|machine| machine.joined).count();
        if joined < claim.record.count as usize {
            let message = format!("{capacity}: {joined} of {} machines have joined the cluster", claim.record.count);
            return decision(DecisionKind::Wait, ReasonCode::MachinesStarting, message);
        }
        if let Some(other) = self.workloads.first() {
            return decision(
                DecisionKind::Wait,
                ReasonCode::StoppingAttempt,
                format!("the pods of attempt {} are still ending", other.attempt),
            );
        }
        self.status.attempts.push(Attempt {
            number: attempt,
            claims: vec![claim.name.clone()],
            offer: claim.record.offer.clone(),
            started_at: self.now(),
            from_fraction: self.resume_fraction(),
            ended_at: None,
            outcome: None,
            reason: None,
            pods: Vec::new(),
        });
        decision(DecisionKind::Wait, ReasonCode::MachinesStarting, format!("{capacity} has joined; attempt {attempt} is being started"))
    }

    fn is_usable(&self, claim: &Claim, attempt: u32) -> bool {
        let machines = gang(claim, self.records.fleet);
        let alive = match claim.status.phase {
            ClaimPhase::Written => true,
            ClaimPhase::Granted => machines.iter().all(|machine| machine.loss().is_none()) && !self.join_is_overdue(claim, machines),
            ClaimPhase::Refused | ClaimPhase::Ended => false,
        };
        alive && claim.record.attempt == attempt && claim.record.count == self.view.job.workers
    }

    fn join_is_overdue(&self, claim: &Claim, machines: &[Machine]) -> bool {
        let launched_at = machines.iter().map(|machine| machine.record.launched_at).max();
        let snapshot = self.records.snapshot;
        let overdue = launched_at.is_none_or(|at| snapshot.now - at >= JOIN_TIMEOUT)
            && snapshot.real_now - claim.written_at_real >= JOIN_TIMEOUT_REAL;
        overdue && (machines.is_empty() || machines.iter().any(|machine| !machine.joined))
    }

    fn waiting_phase(&self) -> JobPhase {
        match self.status.attempts.last().and_then(|attempt| attempt.outcome) {
            Some(AttemptOutcome::Interrupted) => JobPhase::Interrupted,
            _ => JobPhase::Waiting,
        }
    }

    fn resume_fraction(&self) -> f64 {
        self.view.checkpoint.as_ref().map_or(0.0, |mark| usable_fraction(mark.fraction))
    }

    fn now(&self) -> DateTime<Utc> {
        self.records.snapshot.now
    }
}

/// The machines that the claim asked for; more than those are surplus.
fn gang<'f>(claim: &Claim, fleet: &'f Fleet) -> &'f [Machine] {
    let machines = fleet.machines(&claim.name);
    &machines[..machines.len().min(claim.record.count as usize)]
}

/// An end that is only inferred (a lost node) moves with every look: the first one stays, unless the program's own is told.
fn merge_pods(records: &mut Vec<PodRecord>, seen: &[PodRecord]) {
    for pod in seen {
        match records.iter_mut().find(|record| record.name == pod.name) {
            Some(record) if record.finished_at.is_some() && (record.exit_code.is_some() || pod.exit_code.is_none()) => {}
            Some(record) => record.clone_from(pod),
            None => records.push(pod.clone()),
        }
    }
}

/// `4 × g5.xlarge spot us-east-1a`.
pub fn words(count: u32, offer: &Offer) -> String {
    format!("{count} × {offer}")
}

fn percent(fraction: f64) -> String {
    format!("{:.0} % done", (fraction * 100.0).floor())
}

pub fn decision(kind: DecisionKind, code: ReasonCode, message: String) -> Decision {
    Decision { kind, because: Reason { code, message }, considered: Vec::new(), finish: None, cost: None, prospect: None }
}
