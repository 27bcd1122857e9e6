//! How long a pool's machines really take, from the decision to buy until the programs start.
//!
//! What the pool states is only where to begin: images are large, clouds are slow, and a job that must be done in time is
//! started by what was seen. The longest of the starts that are still on record counts, never less than what is stated, and
//! never more than an hour: one start that hung must not make every later deadline look impossible.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::Snapshot;
use crate::training::Attempt;
use crate::units::Span;

const LEARNT_MAX: Span = Span::hours(1);

/// Replaces what pools state by what was seen, where that was longer.
pub fn learn(snapshot: &mut Snapshot) {
    let longest = longest_starts(snapshot);
    for pool in &mut snapshot.pools {
        let seen = longest.get(&pool.name).copied().unwrap_or_default();
        pool.boot = pool.boot.max(seen.min(LEARNT_MAX));
    }
}

fn longest_starts(snapshot: &Snapshot) -> BTreeMap<String, Span> {
    let claims: BTreeMap<&str, _> = snapshot.claims.iter().map(|claim| (claim.name.as_str(), &claim.record)).collect();
    let mut longest: BTreeMap<String, Span> = BTreeMap::new();
    for attempt in snapshot.jobs.iter().flat_map(|view| &view.status.attempts) {
        let Some(started) = programs_started(attempt) else { continue };
        for record in attempt.claims.iter().filter_map(|name| claims.get(name.as_str())) {
            let kept = longest.entry(record.pool.clone()).or_default();
            *kept = (*kept).max(Span::from_delta(started - record.decided_at));
        }
    }
    longest
}

/// When the last worker of the gang began.
fn programs_started(attempt: &Attempt) -> Option<DateTime<Utc>> {
    attempt.pods.iter().filter_map(|pod| pod.started_at).max()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::super::scenario::*;
    use super::*;
    use crate::training::PodRecord;

    #[test]
    fn a_slow_start_makes_the_next_one_start_earlier_and_a_quick_one_changes_nothing() {
        for (minutes, expected) in [(1, Span::minutes(3)), (40, Span::minutes(40)), (300, Span::hours(1))] {
            let bert = job("bert");
            let four = granted(claim(&bert, 1, 1, spot()));
            let decided = four.record.decided_at;
            let mut world = scenario().pool(pool("gpu")).claim(&four).job(bert.attempt_on(&four));
            world.0.pools[0].boot = Span::minutes(3);
            let started_at = Some(decided + TimeDelta::minutes(minutes));
            world.0.jobs[0].status.attempts[0].pods = vec![PodRecord { started_at, ..running(&four).pods[0].clone() }];
            learn(&mut world.0);
            assert_eq!(world.0.pools[0].boot, expected);
        }
    }
}
