//! The one loop for what is global: observe → plan → audit → apply → report. Only the leader runs it.
//!
//! It runs when something changed (bursts are waited out), at once after a plan that acted, and at least every few
//! seconds, because prices and time move without events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use futures::{FutureExt, StreamExt};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::apply::{self, Applied, Hands};
use super::chain::chain;
use super::controllers;
use super::events::{Pumps, Queue};
use super::health::Health;
use super::meter::{MeterError, Metering, Sums};
use super::metrics::Metrics;
use super::observe::stores::parsed;
use super::observe::{Known, Observation, ObserveError, Observer};
use super::progress;
use super::report::Announcer;
use super::scrape::Scraper;
use crate::ledger::LedgerError;
use crate::scheduling::{Action, Plan, audit, plan};

/// Changes come in bursts.
const DEBOUNCE: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Looking for cheaper fleets takes thought, and fleets change slowly.
const REPAIR_EVERY: Duration = Duration::from_secs(30);
/// Actions that are under way beside each other at most.
const AT_ONCE: usize = 16;
/// An action that failed is not tried again before this, doubled with every failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum CycleError {
    #[error(transparent)]
    Observe(#[from] ObserveError),
    #[error("could not read the sums of the ledger")]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Meter(#[from] MeterError),
    #[error("{failed} of {all} actions failed, first: {first}")]
    Apply { failed: usize, all: usize, first: String },
}

/// How much market time passes between plans: the longest of the last few gaps.
#[derive(Default)]
struct Pace {
    last: Option<DateTime<Utc>>,
    gaps: VecDeque<TimeDelta>,
}

impl Pace {
    const GAPS_KEPT: usize = 16;

    fn planned_at(&mut self, now: DateTime<Utc>) {
        if let Some(last) = self.last.replace(now) {
            self.gaps.push_back(now - last);
        }
        self.gaps.drain(..self.gaps.len().saturating_sub(Self::GAPS_KEPT));
    }

    fn reaction(&self) -> TimeDelta {
        self.gaps.iter().copied().max().unwrap_or_default()
    }
}

pub struct Cycle {
    pub observer: Observer,
    pub hands: Hands,
    pub metering: Metering,
    pub announcer: Announcer,
    pub scraper: Scraper,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub changed: Arc<Notify>,
    pub period: Duration,
    pub memory: Memory,
}

/// What one cycle hands to the next. Nothing in it need survive a restart.
#[derive(Default)]
pub struct Memory {
    orphans_seen: BTreeMap<String, DateTime<Utc>>,
    pace: Pace,
    pumps: Pumps,
    alerts: BTreeSet<String>,
    /// Actions that failed: when they may be tried again, and how long to wait after the next failure.
    failing: BTreeMap<String, (Instant, Duration)>,
    repair_looked: Option<Instant>,
}

impl Memory {
    /// Not at the start: what was on its way is seen first.
    fn is_repair_due(&mut self) -> bool {
        let last = *self.repair_looked.get_or_insert_with(Instant::now);
        let due = last.elapsed() >= REPAIR_EVERY;
        if due {
            self.repair_looked = Some(Instant::now());
        }
        due
    }
}

impl Cycle {
    /// Runs until it is told to stop; an effect that has begun is finished first.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut pause = Duration::ZERO;
        let mut backoff = Duration::from_secs(1);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.pause(pause) => {}
            }
            let begun = Instant::now();
            let outcome = self.once(&stop).await;
            self.metrics.cycle(begun.elapsed(), outcome.is_ok());
            pause = match outcome {
                Ok(acted) => {
                    self.health.cycle_succeeded();
                    backoff = Duration::from_secs(1);
                    if acted { Duration::ZERO } else { self.period }
                }
                Err(error) => {
                    let why = chain(&error);
                    if self.health.cycle_failed(&why) {
                        tracing::error!(error = %why, "the cycle failed and is tried again");
                    }
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    backoff
                }
            };
        }
    }

    /// Until something changed, `at_most` so long; and then until the burst is over.
    async fn pause(&self, at_most: Duration) {
        let _ = tokio::time::timeout(at_most, self.changed.notified()).await;
        tokio::time::sleep(DEBOUNCE).await;
    }

    /// Whether anything was done.
    async fn once(&mut self, stop: &CancellationToken) -> Result<bool, CycleError> {
        let sums = self.metering.sums(self.hands.clock.now()).await?;
        let known = Known {
            orphans_seen: std::mem::take(&mut self.memory.orphans_seen),
            reaction: self.memory.pace.reaction(),
            repair_due: self.memory.is_repair_due(),
        };
        let observation = self.observer.observe(&sums, known).await?;
        self.memory.pace.planned_at(observation.snapshot.now);
        self.pump(&observation);
        let planned = audit(&observation.snapshot, plan(&observation.snapshot));
        self.memory.orphans_seen = planned.orphans_seen.clone();
        let applied = self.apply(&planned, &observation, stop).await;
        let metered = self.metering.run(&self.hands, &observation.snapshot.claims, observation.snapshot.now).await;
        let metering_alerts = metered.as_ref().map(|report| report.alerts.clone()).unwrap_or_default();
        self.report(&planned, &observation, &sums, metering_alerts).await;
        let closed = metered?.hours_closed;
        Ok(applied? || closed > 0)
    }

    /// Each pool's queue is listened to as long as the pool names it.
    fn pump(&mut self, observation: &Observation) {
        let queue = |config: &crate::cloud::PoolConfig| Some(Queue { region: config.region.clone(), name: config.interruption_queue.clone()? });
        let wanted = observation.pools.iter().filter_map(|pool| pool.config.as_ref().and_then(queue)).collect();
        self.memory.pumps.keep(&wanted, &self.hands, &self.observer.cluster_id, &self.changed);
    }

    /// In order, but those of a kind that come in hundreds beside each other; one that fails does not hold up the others, for
    /// none relies on another of the same plan.
    async fn apply(&mut self, planned: &Plan, observation: &Observation, stop: &CancellationToken) -> Result<bool, CycleError> {
        let (mut acted, mut failures) = (false, Vec::new());
        let still_planned: BTreeSet<String> = planned.actions.iter().map(key).collect();
        self.memory.failing.retain(|action, _| still_planned.contains(action));
        let due = |action: &&Action| self.memory.failing.get(&key(action)).is_none_or(|(again, _)| Instant::now() >= *again);
        let due: Vec<&Action> = planned.actions.iter().filter(due).collect();
        for actions in due.chunk_by(|one, next| apply::may_run_beside(one, next)) {
            let outcomes = self.at_once(actions, observation, stop).await;
            if actions.iter().any(|action| apply::changes_cloud(action)) {
                self.observer.forget_machines().await;
            }
            for (action, outcome) in outcomes {
                self.metrics.action(apply::kind(action), &outcome);
                match outcome {
                    Ok(Applied::Done) => {
                        tracing::info!(action = apply::kind(action), subject = %subject(action), "done");
                        self.memory.failing.remove(&key(action));
                        acted = true;
                    }
                    Ok(Applied::Dropped(why)) => tracing::debug!(action = apply::kind(action), %why, "dropped"),
                    Err(error) => {
                        self.postpone(action);
                        failures.push(format!("{} of {}: {}", apply::kind(action), subject(action), chain(&error)));
                    }
                }
            }
        }
        match failures.first() {
            Some(first) => Err(CycleError::Apply { failed: failures.len(), all: planned.actions.len(), first: first.clone() }),
            None => Ok(acted),
        }
    }

    async fn at_once<'a>(&self, actions: &[&'a Action], observation: &Observation, stop: &CancellationToken) -> Vec<(&'a Action, apply::Result)> {
        let mut all = Vec::with_capacity(actions.len());
        for action in actions {
            all.push(self.unless_stopped(action, observation, stop).boxed());
        }
        let outcomes: Vec<Option<apply::Result>> = futures::stream::iter(all).buffered(AT_ONCE).collect().await;
        actions.iter().copied().zip(outcomes).filter_map(|(action, outcome)| Some((action, outcome?))).collect()
    }

    /// Once asked to stop nothing more is begun.
    async fn unless_stopped(&self, action: &Action, observation: &Observation, stop: &CancellationToken) -> Option<apply::Result> {
        if stop.is_cancelled() { None } else { Some(self.hands.apply(action, &observation.seen).await) }
    }

    fn postpone(&mut self, action: &Action) {
        let wait = self.memory.failing.get(&key(action)).map_or(RETRY_FIRST, |(_, wait)| *wait);
        self.memory.failing.insert(key(action), (Instant::now() + wait, (wait * 2).min(BACKOFF_MAX)));
    }

    async fn report(&mut self, planned: &Plan, observation: &Observation, sums: &Sums, metering_alerts: Vec<String>) {
        let alerts: BTreeSet<String> = planned.alerts.iter().chain(&observation.alerts).cloned().chain(metering_alerts).collect();
        for alert in alerts.difference(&self.memory.alerts) {
            tracing::warn!(%alert, "needs a person's look");
        }
        self.memory.alerts = alerts;
        self.metrics.observed(&observation.snapshot, planned, sums.total(), self.memory.alerts.len());
        let pods = parsed(&self.observer.stores.pods);
        progress::fold_annotations(&self.hands.client, &self.hands.clock, observation, &pods).await;
        let jobs = observation.snapshot.jobs.iter().map(|job| job.job.id.uid.as_str()).collect();
        if let Err(error) = self.hands.release_strays(&pods, &jobs).await {
            tracing::warn!(error = %chain(&error), "pods of a job that is gone were not let go");
        }
        self.scraper.look(&self.hands.client, &self.hands.clock, &pods);
        controllers::report(&self.observer, observation, sums).await;
        self.announcer.announce(&planned.decisions).await;
    }
}

/// What an action is about, for logs.
fn subject(action: &Action) -> String {
    match action {
        Action::WriteClaim { name, record } => format!("{name} ({} × {} for {})", record.count, record.offer, record.job),
        Action::AskCloud { claim, .. } | Action::WithdrawClaim { claim, .. } | Action::RecordInstances { claim, .. } | Action::DeleteClaim { claim, .. } => claim.clone(),
        Action::AdoptNode { claim, node, .. } => format!("{node} for {claim}"),
        Action::TaintNode { node, .. } | Action::RemoveNode { node, .. } => node.clone(),
        Action::Release { claim, instances, because, .. } => format!("{} of {claim}: {because}", instances.join(", ")),
        Action::RecordJob { job, status, .. } => format!("{job} ({})", status.phase),
        Action::StartAttempt { job, attempt, .. } | Action::ReleasePods { job, attempt, .. } => format!("{job} attempt {attempt}"),
        Action::EndAttempt { job, attempt, because, .. } => format!("{job} attempt {attempt}: {because}"),
        Action::TerminateOrphans { pool, instances } => format!("{} of pool {pool}", instances.join(", ")),
        Action::ReleaseJob { job } => job.to_string(),
        Action::PlacePod { pod, node, .. } | Action::EvictPod { pod, node, .. } => format!("{pod} {node}"),
    }
}

/// The same action planned again by the next cycle has the same key.
fn key(action: &Action) -> String {
    format!("{} {}", apply::kind(action), subject(action))
}
