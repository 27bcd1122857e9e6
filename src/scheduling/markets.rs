//! What spot markets have shown: claims and attempts, read as times in which a zone had machines and times in which it had
//! none. What was not asked for is not known.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::deadline::Spell;
use super::snapshot::Snapshot;
use crate::capacity::{CapacityKind, Claim, EndCause, Offer, RefusalCode};

/// A zone that refused is taken to be without machines for at least so long.
const GONE_HOURS: f64 = 0.02;
/// If machines were granted so soon after, nothing was up in between.
const BACK_HOURS: f64 = 1.0;

/// Spells by instance type and zone, in hours before now (negative).
#[derive(Debug, Default)]
pub struct Markets {
    spells: BTreeMap<(String, String), Vec<Spell>>,
}

/// What was seen of one zone, unordered.
#[derive(Default)]
struct Seen {
    up: Vec<(f64, f64)>,
    gone: Vec<f64>,
}

impl Markets {
    pub fn of(snapshot: &Snapshot) -> Markets {
        let mut seen: BTreeMap<(String, String), Seen> = BTreeMap::new();
        let hours = |at: DateTime<Utc>| (at - snapshot.now).num_seconds() as f64 / 3600.0;
        for claim in snapshot.claims.iter().filter(|claim| claim.record.offer.kind == CapacityKind::Spot) {
            read_claim(claim, seen.entry(key(&claim.record.offer)).or_default(), &hours);
        }
        let known = |name: &String| snapshot.claims.iter().any(|claim| claim.name == *name);
        let attempts = snapshot.jobs.iter().flat_map(|view| &view.status.attempts);
        // An attempt tells what its claims told, once these are gone.
        for attempt in attempts.filter(|attempt| attempt.offer.kind == CapacityKind::Spot && !attempt.claims.iter().any(known)) {
            let zone = seen.entry(key(&attempt.offer)).or_default();
            let end = attempt.ended_at.map_or(0.0, hours);
            zone.up.push((hours(attempt.started_at), end));
            if attempt.outcome == Some(crate::training::AttemptOutcome::Interrupted) {
                zone.gone.push(end);
            }
        }
        Markets { spells: seen.into_iter().map(|(key, seen)| (key, seen.spells())).collect() }
    }

    /// Ascending, until now.
    pub fn spells(&self, offer: &Offer) -> Vec<Spell> {
        self.spells.get(&key(offer)).cloned().unwrap_or_default()
    }
}

fn key(offer: &Offer) -> (String, String) {
    (offer.instance_type.clone(), offer.zone.clone())
}

fn read_claim(claim: &Claim, zone: &mut Seen, hours: &dyn Fn(DateTime<Utc>) -> f64) {
    for instance in &claim.status.instances {
        let end = instance.end.as_ref();
        zone.up.push((hours(instance.running_at.unwrap_or(instance.launched_at)), end.map_or(0.0, |end| hours(end.at))));
        zone.gone.extend(end.filter(|end| end.cause == EndCause::Interrupted).map(|end| hours(end.at)));
    }
    let refused = claim.status.refusal.iter().filter(|refusal| matches!(refusal.code, RefusalCode::NoCapacity | RefusalCode::Partial));
    zone.gone.extend(refused.map(|refusal| hours(refusal.at)));
}

impl Seen {
    fn spells(mut self) -> Vec<Spell> {
        self.up.retain(|(from, to)| to > from);
        self.up.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.gone.sort_by(f64::total_cmp);
        let mut up: Vec<(f64, f64)> = Vec::new();
        for (from, to) in self.up {
            match up.last_mut() {
                // Machines that were lost in between begin a new spell.
                Some((_, end)) if *end >= from && !self.gone.iter().any(|gone| *gone >= *end && *gone <= from) => *end = end.max(to),
                _ => up.push((from, to)),
            }
        }
        let mut spells: Vec<Spell> = up.iter().map(|(from, to)| Spell { up: true, from: *from, to: *to }).collect();
        spells.extend(gaps(&up, &self.gone));
        spells.sort_by(|a, b| a.from.total_cmp(&b.from));
        spells
    }
}

/// From a loss or refusal to the last refusal before machines were granted again, or to that grant if it came soon.
fn gaps(up: &[(f64, f64)], gone: &[f64]) -> Vec<Spell> {
    let starts = up.iter().map(|(from, _)| *from).chain([f64::INFINITY]);
    let ends = [f64::NEG_INFINITY].into_iter().chain(up.iter().map(|(_, to)| *to));
    let gap = |(end, start): (f64, f64)| {
        let mut inside = gone.iter().copied().filter(|at| *at >= end && *at < start);
        let first = inside.next()?;
        let last = inside.next_back().unwrap_or(first);
        let to = if start - last <= BACK_HOURS { start } else { (last + GONE_HOURS).min(0.0) };
        (to > first).then_some(Spell { up: false, from: first, to })
    };
    ends.zip(starts).filter_map(gap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spells(up: &[(f64, f64)], gone: &[f64]) -> Vec<(bool, f64, f64)> {
        let seen = Seen { up: up.to_vec(), gone: gone.to_vec() };
        seen.spells().into_iter().map(|spell| (spell.up, spell.from, spell.to)).collect()
    }

    #[test]
    fn a_loss_ends_a_spell_and_a_grant_soon_after_ends_the_gap() {
        assert_eq!(spells(&[(-5.0, -3.0), (-2.5, 0.0)], &[-3.0]), [(true, -5.0, -3.0), (false, -3.0, -2.5), (true, -2.5, 0.0)]);
    }

    #[test]
    fn what_nobody_asked_for_is_not_known() {
        let late = spells(&[(-50.0, -48.0), (-2.0, 0.0)], &[-48.0, -47.0]);
        assert_eq!(late, [(true, -50.0, -48.0), (false, -48.0, -47.0 + GONE_HOURS), (true, -2.0, 0.0)]);
        assert_eq!(spells(&[(-5.0, -3.0), (-1.0, 0.0)], &[]), [(true, -5.0, -3.0), (true, -1.0, 0.0)]);
    }

    #[test]
    fn machines_side_by_side_are_one_spell() {
        assert_eq!(spells(&[(-5.0, -3.0), (-4.0, -1.0)], &[-1.0]), [(true, -5.0, -1.0), (false, -1.0, -1.0 + GONE_HOURS)]);
    }
}
