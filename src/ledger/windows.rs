//! Closing hours: metering decides the rows ([`Meter`]), the ledger takes each hour once.
//!
//! A process may die before or after any of the named effects; the next call goes on from what the ledger holds.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Commit, Ledger, LedgerError};
use crate::capacity::Claim;
use crate::capacity::billing::hour_of;
use crate::cost::metering::{Meter, Metered, NotYet};
use crate::cost::{Bookings, Charge, PriceBook};

/// Rows of an hour are known and not yet committed.
pub const WINDOW_CLOSED: &str = "window-closed";
/// The hour is in the ledger and no claim says so yet.
pub const WINDOW_COMMITTED: &str = "window-committed";

/// An hour that is now in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedWindow {
    pub window: DateTime<Utc>,
    pub rows: usize,
    pub commit: Commit,
}

/// What came of closing.
#[derive(Clone, Debug, Default)]
pub struct Closed {
    /// Hours committed now; empty ones that follow each other count as the last of them.
    pub windows: Vec<ClosedWindow>,
    /// The end of the last closed hour.
    pub until: Option<DateTime<Utc>>,
    /// Why the next hour stays open (usually that it has not ended).
    pub waits: Option<NotYet>,
    /// For each claim how far it is metered: the status fields `meteredUntil` and `metered`.
    pub claims: BTreeMap<String, Metered>,
}

/// Closes every hour that can be closed. `claims` are all claims that exist, refused and ended ones too; `grace` is how
/// long (market time) an hour waits for knowledge; `effect` is told the name of each effect as it comes.
pub async fn close_windows(
    ledger: &Ledger,
    claims: &[Claim],
    prices: &PriceBook,
    now: DateTime<Utc>,
    grace: TimeDelta,
    effect: &(dyn Fn(&str) + Sync),
) -> Result<Closed, LedgerError> {
    let mut closed = Closed { until: ledger.closed_until().await?, ..Closed::default() };
    let Some(first) = closed.until.or_else(|| first_hour(claims)) else { return Ok(closed) };
    let mut booked = bookings(ledger, claims).await?;
    let mut window = first;
    loop {
        let step = next_with_rows(claims, prices, &booked, grace, window, now);
        closed.waits = step.waits;
        let Some((last, rows)) = step.commit else { break };
        effect(WINDOW_CLOSED);
        let commit = ledger.commit_window(last, &rows).await?;
        effect(WINDOW_COMMITTED);
        match commit {
            Commit::Written => booked.add_rows(&rows)?,
            // Another leader was quicker: go on from what it wrote.
            Commit::AlreadyClosed => booked = bookings(ledger, claims).await?,
        }
        closed.until = ledger.closed_until().await?;
        closed.windows.push(ClosedWindow { window: last, rows: rows.len(), commit });
        window = closed.until.unwrap_or(last + TimeDelta::hours(1));
    }
    if let Some(until) = closed.until {
        closed.claims = progress(claims, prices, &booked, until);
    }
    Ok(closed)
}

/// The next commit: an hour with rows, or the last of the empty hours before one that cannot close.
struct Step {
    commit: Option<(DateTime<Utc>, Vec<Charge>)>,
    waits: Option<NotYet>,
}

fn next_with_rows(claims: &[Claim], prices: &PriceBook, booked: &Bookings, grace: TimeDelta, from: DateTime<Utc>, now: DateTime<Utc>) -> Step {
    let meter = Meter { claims, prices, booked, grace };
    let (mut window, mut empty) = (from, None);
    loop {
        match meter.close(window, now) {
            Ok(rows) if rows.is_empty() => empty = Some((window, rows)),
            Ok(rows) => return Step { commit: Some((window, rows)), waits: None },
            Err(waits) => return Step { commit: empty, waits: Some(waits) },
        }
        window += TimeDelta::hours(1);
    }
}

/// How far each claim is metered. A claim that cannot be charged yet (no prices) is left out: it keeps what it has.
fn progress(claims: &[Claim], prices: &PriceBook, booked: &Bookings, until: DateTime<Utc>) -> BTreeMap<String, Metered> {
    let meter = Meter { claims, prices, booked, grace: TimeDelta::zero() };
    claims.iter().filter_map(|claim| meter.progress(claim, until).ok().map(|metered| (claim.name.clone(), metered))).collect()
}

async fn bookings(ledger: &Ledger, claims: &[Claim]) -> Result<Bookings, LedgerError> {
    let names: Vec<&str> = claims.iter().filter(|claim| !claim.status.instances.is_empty()).map(|claim| claim.name.as_str()).collect();
    ledger.bookings(&names).await
}

/// The hour in which an empty ledger begins.
fn first_hour(claims: &[Claim]) -> Option<DateTime<Utc>> {
    let launched = |claim: &Claim| claim.status.instances.iter().map(|instance| instance.launched_at).min();
    claims.iter().map(|claim| launched(claim).unwrap_or(claim.record.decided_at).min(claim.record.decided_at)).min().map(hour_of)
}
