//! What a training program would have done by now: pure arithmetic over market time.
//!
//! A gang works only while all its workers run. After the restart overhead its fraction rises linearly; every checkpoint
//! interval it saves.

use chrono::{DateTime, TimeDelta, Utc};

use crate::units::Span;

/// What the operator wrote on the pods.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// For the whole work, from 0 to 1.
    pub expected_duration: Span,
    pub restart_overhead: Span,
    pub checkpoint_interval: Span,
    pub resume_fraction: f64,
}

/// A gang at work since a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    pub rate: Rate,
    /// Market time at which all workers ran.
    pub since: DateTime<Utc>,
}

/// How far a gang is, and what its last checkpoint holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    pub fraction: f64,
    pub checkpoint: f64,
}

impl Standing {
    pub fn is_done(&self) -> bool {
        self.fraction >= 1.0
    }
}

impl Work {
    pub fn at(&self, now: DateTime<Utc>) -> Standing {
        let worked = now - self.since - self.rate.restart_overhead.delta();
        let interval = self.rate.checkpoint_interval.as_seconds();
        let saved = if interval == 0 { worked } else { TimeDelta::seconds(worked.num_seconds().div_euclid(interval) * interval) };
        let fraction = self.fraction(worked);
        // The end of the work is saved too.
        let checkpoint = if fraction >= 1.0 { 1.0 } else { self.fraction(saved) };
        Standing { fraction, checkpoint }
    }

    fn fraction(&self, worked: TimeDelta) -> f64 {
        let resumed = self.rate.resume_fraction.clamp(0.0, 1.0);
        let (worked, whole) = (worked.num_seconds(), self.rate.expected_duration.as_seconds());
        if worked <= 0 {
            return resumed;
        }
        // The first second of work finishes what takes no time at all.
        if whole == 0 { 1.0 } else { (resumed + worked as f64 / whole as f64).min(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work() -> Work {
        let rate = Rate { expected_duration: Span::hours(4), restart_overhead: Span::minutes(6), checkpoint_interval: Span::minutes(30), resume_fraction: 0.25 };
        Work { rate, since: DateTime::UNIX_EPOCH }
    }

    fn after(minutes: i64) -> Standing {
        work().at(DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes))
    }

    #[test]
    fn nothing_is_done_during_the_restart_overhead() {
        assert_eq!(after(6), Standing { fraction: 0.25, checkpoint: 0.25 });
    }

    #[test]
    fn progress_is_linear_and_checkpoints_lag_behind_it() {
        assert_eq!(after(6 + 60), Standing { fraction: 0.5, checkpoint: 0.5 });
        assert_eq!(after(6 + 72), Standing { fraction: 0.55, checkpoint: 0.5 });
    }

    #[test]
    fn the_end_is_reached_exactly_when_the_rest_of_the_duration_has_passed() {
        assert!(!after(6 + 179).is_done());
        assert_eq!(after(6 + 180), Standing { fraction: 1.0, checkpoint: 1.0 });
    }
}
