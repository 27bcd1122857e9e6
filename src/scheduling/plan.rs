//! Snapshot → Plan, job by job in queue order. Start here.

use chrono::TimeDelta;

use super::budget::{Budgets, cost_of, marginal_price};
use super::lifecycle::{self, Next, Records, Turn};
use super::machines::{Fleet, follow};
use super::markets::Markets;
use super::placement::{self, Launch, Market, Placement, Shelf};
use super::refusals::Refusals;
use super::snapshot::JobView;
use super::supply::Supply;
use super::{Action, Decision, DecisionKind, Plan, Snapshot, leftovers, pods, queue};
use crate::capacity::ClaimRecord;
use crate::capacity::claim::claim_name;
use crate::training::slack::{fraction_of, remaining_work};
use crate::training::{DecisionRecord, JobPhase, JobStatus};

/// A recorded decision whose words or cost have changed is written again after this market time; when its kind or reason
/// changes, at once. So a waiting or running job costs two writes an hour.
const REFRESH: TimeDelta = TimeDelta::minutes(30);

/// Decides what to buy, keep, give back and end.
pub fn plan(snapshot: &Snapshot) -> Plan {
    let fleet = Fleet::of(snapshot);
    let records = Records::of(snapshot, &fleet);
    let mut planner = Planner {
        snapshot,
        shelf: Shelf::of(snapshot),
        refusals: Refusals::of(snapshot),
        markets: Markets::of(snapshot),
        supply: Supply::of(snapshot, &fleet),
        budgets: Budgets::of(snapshot, &fleet),
        plan: Plan { actions: follow(snapshot, &fleet), ..Plan::default() },
    };
    for view in queue::rank(&snapshot.jobs) {
        planner.settle(view, lifecycle::advance(view, &records));
    }
    let Planner { refusals, mut supply, mut plan, .. } = planner;
    let turn = pods::advance(snapshot, &fleet, &refusals, &mut supply);
    plan.actions.extend(turn.actions);
    plan.alerts.extend(turn.alerts);
    leftovers::clear(&records, &snapshot.orphans_seen, &mut plan);
    plan
}

/// The plan so far, and what jobs compete for, less what earlier ones took.
struct Planner<'a> {
    snapshot: &'a Snapshot,
    shelf: Shelf<'a>,
    refusals: Refusals<'a>,
    markets: Markets,
    supply: Supply<'a>,
    budgets: Budgets,
    plan: Plan,
}

impl Planner<'_> {
    /// Turns a job's turn into actions in their order, placing it where that is what it needs.
    fn settle(&mut self, view: &JobView, turn: Turn) {
        let Turn { mut status, first, mut then, next } = turn;
        let decision = match next {
            Next::Decided(decision) => decision,
            Next::Place { attempt, ask } => {
                let (decision, claim) = self.place(view, attempt, ask, &mut status);
                then.extend(claim);
                decision
            }
        };
        let decision = with_cost(view, &status, decision);
        self.note(view, &mut status, &decision);
        self.plan.actions.extend(first);
        if status != view.status {
            self.plan.actions.push(Action::RecordJob {
                job: view.job.id.clone(),
                generation: view.job.generation,
                version: view.version.clone(),
                status: Box::new(status),
            });
        }
        self.plan.actions.extend(then);
        self.plan.decisions.insert(view.job.id.clone(), decision);
    }

    fn place(&mut self, view: &JobView, attempt: u32, ask: u32, status: &mut JobStatus) -> (Decision, Option<Action>) {
        let Planner { snapshot, shelf, refusals, markets, supply, budgets, plan: _ } = self;
        let placement = placement::place(view, &Market { snapshot, shelf, refusals, markets, supply, budgets });
        let Placement { kind, because, considered, finish, cost, prospect, launch } = placement;
        let decision = Decision { kind, because, considered, finish, cost, prospect: prospect.map(Box::new) };
        let Some(launch) = launch else {
            status.capacity = None;
            return (decision, None);
        };
        let (name, record) = self.claim(view, attempt, ask, launch);
        self.supply.take(&record);
        if let Some(cost) = cost {
            self.budgets.commit(view, cost);
        }
        status.phase = JobPhase::Provisioning;
        status.capacity = Some(lifecycle::words(record.count, &record.offer));
        (decision, Some(Action::WriteClaim { name, record }))
    }

    fn claim(&self, view: &JobView, attempt: u32, ask: u32, launch: Launch) -> (String, ClaimRecord) {
        let Launch { pool, offer, nodes, request_template } = launch;
        let name = claim_name(&view.job.id.uid, attempt, ask);
        let mut record = ClaimRecord {
            job: view.job.id.clone(),
            generation: view.job.generation,
            experiment: view.job.experiment.clone(),
            team: self.budgets.team_of(&view.job.id.namespace).cloned(),
            attempt,
            ask,
            pool,
            offer,
            count: view.job.workers,
            decided_at: self.snapshot.now,
            nodes,
            slots: Vec::new(),
            request: String::new(),
        };
        record.request = placement::request_text(&request_template, &record, &name);
        (name, record)
    }

    /// Writes decision and cost into the status where they say something new.
    fn note(&self, view: &JobView, status: &mut JobStatus, decision: &Decision) {
        let record = DecisionRecord {
            kind: format!("{:?}", decision.kind),
            reason: decision.because.code.to_string(),
            message: decision.because.message.clone(),
            at: self.snapshot.now,
            considered: decision.considered.clone(),
        };
        let cost = self.budgets.spent(&view.job.id);
        let is_over = status.phase.is_over();
        let is_news = status != &view.status
            || status.decision.as_ref().is_none_or(|old| {
                let changed = (&old.kind, &old.reason) != (&record.kind, &record.reason);
                changed || (!is_over && says_more(old, &record, decision.kind, status.cost != cost))
            });
        let settled = is_over && status.cost != cost && holds_no_machine(view, self.snapshot);
        if is_news {
            // The offers that were looked at stay on record until the next time that offers are looked at.
            let considered = match (&status.decision, record.considered.is_empty()) {
                (Some(old), true) => old.considered.clone(),
                _ => record.considered.clone(),
            };
            status.decision = Some(DecisionRecord { considered, ..record });
        }
        if is_news || settled {
            status.cost = cost;
        }
    }
}

/// A running job's rest, priced at what was agreed.
fn with_cost(view: &JobView, status: &JobStatus, decision: Decision) -> Decision {
    let running = status.attempts.last().filter(|_| decision.kind == DecisionKind::Keep);
    let left = running.map(|attempt| {
        let fraction = fraction_of(attempt, view.progress.as_ref());
        cost_of(marginal_price(&attempt.offer), view.job.workers, remaining_work(&view.job, fraction))
    });
    Decision { cost: decision.cost.or(left.and_then(Result::ok)), ..decision }
}

/// Whether the same decision is worth writing again. A refusal stands until its first clause (up to a colon) says something
/// else, for example because the deadline was edited; times that only move with the clock come after it.
fn says_more(old: &DecisionRecord, new: &DecisionRecord, kind: DecisionKind, cost_changed: bool) -> bool {
    let clause = |record: &DecisionRecord| record.message.split(": ").next().map(str::to_owned);
    match kind {
        DecisionKind::Refuse => clause(old) != clause(new),
        _ => new.at - old.at >= REFRESH && (old.message != new.message || cost_changed),
    }
}

fn holds_no_machine(view: &JobView, snapshot: &Snapshot) -> bool {
    let own = snapshot.claims.iter().filter(|claim| claim.record.job.uid == view.job.id.uid);
    own.flat_map(|claim| claim.open_instances()).next().is_none()
}
