//! The shell of metering: fetches price histories, closes hours into the ledger, and tells the claims.
//!
//! What an hour costs decides [`crate::cost::metering`]; that it is written once sees [`crate::ledger`] to. Here is only the
//! order of effects: the ledger first, then the claims, so that a claim never says more than the ledger holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

use super::apply::{ApplyError, Hands, region_of};
use super::effects::Effect;
use super::failpoint;
use crate::capacity::Claim;
use crate::cost::metering::Metered;
use crate::cost::prices::needs;
use crate::cost::PriceBook;
use crate::ledger::windows::{WINDOW_CLOSED, WINDOW_COMMITTED};
use crate::ledger::{self, Ledger, LedgerError, close_windows};
use crate::units::Money;

/// An hour that misses knowledge waits so long (market time) before it closes with an estimate …
const GRACE: TimeDelta = TimeDelta::minutes(30);
/// … and so long in real time, for queues are polled in real time however fast the market runs.
const GRACE_REAL: TimeDelta = TimeDelta::seconds(60);
/// An hour that cannot close yet is tried again after this.
const RETRY: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum MeterError {
    #[error("could not close hours in the ledger")]
    Ledger(#[from] LedgerError),
    #[error("could not note in the claims how far they are metered")]
    Record(#[from] ApplyError),
}

/// What was charged so far, as budgets and statuses need it.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    ledger: Arc<ledger::Sums>,
    /// The first moment of this month.
    month: DateTime<Utc>,
}

impl Sums {
    pub fn of_job(&self, uid: &str) -> Money {
        self.ledger.by_job.get(uid).copied().unwrap_or(Money::ZERO_USD)
    }

    pub fn of_experiment(&self, namespace: &str, name: &str) -> Money {
        self.ledger.by_experiment.get(&format!("{namespace}/{name}")).copied().unwrap_or(Money::ZERO_USD)
    }

    pub fn of_team_this_month(&self, team: &str) -> Money {
        self.ledger.by_team_and_month.get(&(team.to_owned(), self.month)).copied().unwrap_or(Money::ZERO_USD)
    }

    /// Everything, for metrics.
    pub fn total(&self) -> f64 {
        self.ledger.by_experiment.values().map(Money::approximate).sum()
    }
}

pub struct Metering {
    ledger: Ledger,
    /// When closing is worth another try: the end of the open hour in market time, or soon where one waits.
    next: Option<(DateTime<Utc>, Instant)>,
}

/// What came of one look at the ledger.
#[derive(Clone, Debug, Default)]
pub struct MeteringReport {
    pub hours_closed: usize,
    pub alerts: Vec<String>,
}

impl Metering {
    pub fn new(ledger: Ledger) -> Metering {
        Metering { ledger, next: None }
    }

    pub async fn sums(&self, now: DateTime<Utc>) -> Result<Sums, LedgerError> {
        Ok(Sums { ledger: self.ledger.sums().await?, month: crate::cost::charge::month_of(now) })
    }

    /// Closes what can be closed, if it is time. `now` is when `claims` were read: an hour that ended since may miss some.
    pub async fn run(&mut self, hands: &Hands, claims: &[Claim], now: DateTime<Utc>) -> Result<MeteringReport, MeterError> {
        if claims.is_empty() || !self.is_due(now) {
            return Ok(MeteringReport::default());
        }
        let (prices, alerts) = price_book(hands, claims, now).await;
        let closed = close_windows(&self.ledger, claims, &prices, now, grace(hands), &pass_failpoint).await?;
        if let Some(waits) = &closed.waits {
            tracing::debug!(%waits, "the next hour stays open");
        }
        let next_end = closed.until.map_or(now, |until| until + TimeDelta::hours(1));
        self.next = Some((next_end, Instant::now() + RETRY));
        record(hands, claims, &closed.claims).await?;
        Ok(MeteringReport { hours_closed: closed.windows.len(), alerts })
    }

    fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.next.is_none_or(|(end, retry)| now >= end && Instant::now() >= retry)
    }
}

fn grace(hands: &Hands) -> TimeDelta {
    let real = TimeDelta::milliseconds((GRACE_REAL.num_milliseconds() as f64 * hands.clock.speed()) as i64);
    GRACE.max(real)
}

/// The ledger names its effects by text; here they have names of their own.
fn pass_failpoint(effect: &str) {
    match effect {
        WINDOW_CLOSED => failpoint::before(Effect::CommitWindow),
        WINDOW_COMMITTED => failpoint::after(Effect::CommitWindow),
        other => tracing::debug!(effect = other, "an effect without a failpoint"),
    }
}

/// A history that cannot be had leaves its hours open; the alert says so.
async fn price_book(hands: &Hands, claims: &[Claim], now: DateTime<Utc>) -> (PriceBook, Vec<String>) {
    let (mut book, mut alerts) = (PriceBook::default(), Vec::new());
    let regions: BTreeMap<&str, String> = claims.iter().map(|claim| (claim.record.pool.as_str(), region_of(&claim.record))).collect();
    for need in needs(claims) {
        let (Some(cloud), Some(region)) = (&hands.cloud, regions.get(need.pool.as_str())) else { continue };
        match cloud.price_history(region, &need.offer, need.from, now).await {
            Ok(history) => book.record(&need.offer, history),
            Err(error) => alerts.push(format!("hours with {} cannot be charged yet: {error}", need.offer)),
        }
    }
    (book, alerts)
}

async fn record(hands: &Hands, claims: &[Claim], metered: &BTreeMap<String, Metered>) -> Result<(), ApplyError> {
    for claim in claims {
        let Some(Metered { until, amount }) = metered.get(&claim.name) else { continue };
        let (until, amount) = (Some(*until), Some(*amount));
        if (claim.status.metered_until, claim.status.metered) == (until, amount) || claim.status.instances.is_empty() {
            continue;
        }
        hands
            .change_claim(Effect::RecordMetering, &claim.name, &claim.uid, |status| {
                (status.metered_until, status.metered) = (until, amount);
                true
            })
            .await?;
    }
    Ok(())
}
