//! What the instances cost: the twin's own ledger, the judge of everybody else's.
//!
//! Computed from the journal and nothing else, by its own few lines; it must not use `crate::cost` or
//! `crate::capacity::billing`, or the comparison would prove nothing. The rules, as EC2 charges:
//! - from entering `running` to leaving it, in whole seconds; nothing while pending;
//! - price × seconds / 3600 for each piece between clock hours and price changes, rounded half to even at 18 decimals;
//! - at least 60 seconds: what is missing is charged at the end, as if the machine had run on;
//! - nothing for a spot machine that EC2 interrupted within its first hour; nothing for a reserved one.

use std::collections::BTreeMap;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use serde::Serialize;

use super::journal::Entry;
use crate::capacity::CapacityKind;
use crate::simulation::market::PoolKey;
use crate::simulation::market::fleet::{EndReason, Order, What};
use crate::units::{Money, MoneyPerHour};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// Market time; machines that still run are charged until then.
    pub as_of: DateTime<Utc>,
    pub currency: &'static str,
    /// By instance in the order of launch, then by hour.
    pub rows: Vec<Row>,
    /// The exact sum of the rows' charges.
    pub total: String,
}

/// One instance in one clock hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub instance: String,
    /// The tag `purser.dev/claim`.
    pub claim: Option<String>,
    /// The tag `purser.dev/job`.
    pub job: Option<String>,
    pub instance_type: String,
    pub zone: String,
    pub kind: CapacityKind,
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    /// It still runs: the charge will grow.
    pub is_open: bool,
    /// Why nothing is charged, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free: Option<&'static str>,
    pub segments: Vec<Segment>,
    /// Exact decimal.
    pub charge: String,
    #[serde(skip)]
    atoms: i128,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Segment {
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    pub price: MoneyPerHour,
    pub charge: String,
}

/// What the journal says that everything cost until `as_of`.
pub fn ledger(entries: &[Entry], as_of: DateTime<Utc>) -> Ledger {
    let book = Book::read(entries);
    let rows: Vec<Row> = book.runs.iter().flat_map(|run| rows(run, &book, as_of)).collect();
    let total = decimal(rows.iter().map(|row| row.atoms).sum());
    Ledger { as_of, currency: "USD", rows, total }
}

struct Run {
    instance: String,
    order: Order,
    running_at: Option<DateTime<Utc>>,
    price: Option<MoneyPerHour>,
    end: Option<(DateTime<Utc>, EndReason)>,
}

/// From when on, and how much.
type Price = (DateTime<Utc>, MoneyPerHour);

#[derive(Default)]
struct Book {
    runs: Vec<Run>,
    index: BTreeMap<String, usize>,
    /// In the order of time.
    spot_prices: BTreeMap<PoolKey, Vec<Price>>,
}

impl Book {
    fn read(entries: &[Entry]) -> Book {
        let mut book = Book::default();
        for entry in entries {
            let Entry::Fleet(fact) = entry else { continue };
            match &fact.what {
                What::Launched(launched) => {
                    book.index.insert(launched.instance.clone(), book.runs.len());
                    book.runs.push(Run { instance: launched.instance.clone(), order: launched.order.clone(), running_at: None, price: None, end: None });
                }
                What::Running { instance, price } => book.change(instance, |run| (run.running_at, run.price) = (Some(fact.at), Some(*price))),
                What::Priced { pool, price } => book.spot_prices.entry(pool.clone()).or_default().push((fact.at, *price)),
                What::Ending { instance, reason } => book.change(instance, |run| run.end = Some((fact.at, *reason))),
                What::Tagged { instance, tags } => book.change(instance, |run| run.order.tags.extend(tags.clone())),
                What::Rebalance { .. } | What::Warned { .. } | What::Ended { .. } => {}
            }
        }
        book
    }

    fn change(&mut self, instance: &str, change: impl FnOnce(&mut Run)) {
        if let Some(index) = self.index.get(instance) {
            change(&mut self.runs[*index]);
        }
    }

    /// The price at a time, and until when it holds.
    fn price(&self, run: &Run, at: DateTime<Utc>) -> (MoneyPerHour, Option<DateTime<Utc>>) {
        let first = run.price.unwrap_or(MoneyPerHour(Money::ZERO_USD));
        let changes = self.spot_prices.get(&run.order.pool).filter(|_| run.order.kind == CapacityKind::Spot).map(Vec::as_slice).unwrap_or_default();
        let next = changes.partition_point(|(from, _)| *from <= at);
        let in_force = changes[..next].last().filter(|(from, _)| run.running_at.is_some_and(|running| *from > running));
        (in_force.map_or(first, |(_, price)| *price), changes.get(next).map(|(from, _)| *from))
    }
}

fn rows(run: &Run, book: &Book, as_of: DateTime<Utc>) -> Vec<Row> {
    let Some(from) = run.running_at.filter(|from| *from < as_of) else { return Vec::new() };
    let end = run.end.map(|(at, _)| at);
    let until = end.map_or(as_of, |end| end.max(from + TimeDelta::seconds(60)));
    let free = free(run, from);
    let mut rows: Vec<Row> = Vec::new();
    let mut at = from;
    while at < until {
        let (price, changes_at) = book.price(run, at);
        let to = until.min(next_hour(at)).min(changes_at.unwrap_or(until));
        let atoms = if free.is_some() { 0 } else { charge(price.per_hour().atoms(), (to - at).num_seconds()) };
        if at == from || at == hour_of(at) {
            rows.push(Row {
                instance: run.instance.clone(),
                claim: run.order.tags.get("purser.dev/claim").cloned(),
                job: run.order.tags.get("purser.dev/job").cloned(),
                instance_type: run.order.pool.instance_type.clone(),
                zone: run.order.pool.zone.clone(),
                kind: run.order.kind,
                from: at,
                to,
                is_open: end.is_none(),
                free,
                segments: Vec::new(),
                charge: String::new(),
                atoms: 0,
            });
        }
        let row = rows.last_mut().expect("the first piece has begun a row");
        row.segments.push(Segment { from: at, to, price, charge: decimal(atoms) });
        (row.to, row.atoms) = (to, row.atoms + atoms);
        row.charge = decimal(row.atoms);
        at = to;
    }
    rows
}

fn free(run: &Run, from: DateTime<Utc>) -> Option<&'static str> {
    match run.end {
        _ if run.order.kind == CapacityKind::Reserved => Some("reserved capacity is paid for already"),
        Some((end, EndReason::Interrupted)) if run.order.kind == CapacityKind::Spot && end - from < TimeDelta::hours(1) => Some("interrupted by EC2 within its first hour"),
        _ => None,
    }
}

/// price × seconds / 3600 as an exact fraction, then half to even.
fn charge(price: i128, seconds: i64) -> i128 {
    let numerator = price * i128::from(seconds);
    let (quotient, rest) = (numerator / 3_600, numerator % 3_600);
    match (rest * 2).cmp(&3_600) {
        std::cmp::Ordering::Less => quotient,
        std::cmp::Ordering::Greater => quotient + 1,
        std::cmp::Ordering::Equal => quotient + quotient % 2,
    }
}

fn hour_of(at: DateTime<Utc>) -> DateTime<Utc> {
    at.duration_trunc(TimeDelta::hours(1)).unwrap_or(at)
}

fn next_hour(at: DateTime<Utc>) -> DateTime<Utc> {
    hour_of(at) + TimeDelta::hours(1)
}

fn decimal(atoms: i128) -> String {
    Money::usd_atoms(atoms).decimal()
}

#[cfg(test)]
mod tests;
