//! How much work is left, when it could be done, and how long a job can still afford to wait.
//!
//! ```text
//!  now ─── boot ─── restart ─── remaining work ───► finish ······ slack ······► deadline
//! ```
//! Fractions and durations are estimates (`f64` is fine); no money here.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Attempt, CheckpointMark, Job, Progress};
use crate::units::Span;

/// Kept beyond everything that is known to take time: clocks, queues and the cycle itself.
pub const SPARE: Span = Span::minutes(5);

/// What a job still needs when it is started on machines that take `boot` to be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    pub remaining: TimeDelta,
    pub restart: TimeDelta,
    pub boot: TimeDelta,
    pub checkpoint_interval: TimeDelta,
}

impl Outlook {
    /// For a start from the last checkpoint.
    pub fn of_start(job: &Job, checkpoint: Option<&CheckpointMark>, boot: Span) -> Outlook {
        Outlook {
            remaining: remaining_work(job, checkpoint.map_or(0.0, |mark| mark.fraction)),
            restart: job.checkpoint.restart_overhead.delta(),
            boot: boot.delta(),
            checkpoint_interval: job.checkpoint.interval.delta(),
        }
    }

    /// Machine time of one worker from launch to done.
    pub fn total(&self) -> TimeDelta {
        self.boot + self.restart + self.remaining
    }

    pub fn finish(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        now + self.total()
    }

    /// Time that could be wasted from now on, and the deadline still met by a start that is not interrupted.
    pub fn slack(&self, now: DateTime<Utc>, deadline: DateTime<Utc>) -> TimeDelta {
        deadline - self.finish(now)
    }

    /// What one lost start can cost: its boot and restart, the work since its last checkpoint, and something to spare.
    pub fn loss_max(&self) -> TimeDelta {
        self.boot + self.restart + self.checkpoint_interval + SPARE.delta()
    }

    /// From this moment on only capacity that nobody takes back will do. `reaction` is the time from one plan to the next:
    /// a last try of something else takes three, to ask, to learn that it was refused, and to ask for what is safe.
    pub fn must_be_safe_from(&self, deadline: DateTime<Utc>, reaction: TimeDelta) -> DateTime<Utc> {
        deadline - self.total() - self.loss_max() - reaction * 3
    }
}

/// Work left at this fraction, rounded up to whole seconds.
pub fn remaining_work(job: &Job, fraction: f64) -> TimeDelta {
    let left = 1.0 - usable_fraction(fraction);
    TimeDelta::seconds((job.expected_duration.as_seconds() as f64 * left).ceil() as i64)
}

/// How far a running attempt is: what it told since it started, else where it started.
pub fn fraction_of(attempt: &Attempt, progress: Option<&Progress>) -> f64 {
    let told = progress.filter(|progress| progress.at >= attempt.started_at).map_or(0.0, |progress| progress.fraction);
    usable_fraction(told).max(usable_fraction(attempt.from_fraction))
}

/// Programs tell what they like; what is no fraction counts as nothing done.
pub fn usable_fraction(fraction: f64) -> f64 {
    if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 }
}
