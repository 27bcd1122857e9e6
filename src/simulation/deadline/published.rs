//! The published policies, for comparison: NSDI '24, "Can't Be Late", sections 3 and 4.
//!
//! Each says what it would do before the safety net of [`super::run`].

use super::run::{Policy, View, ceil_div};
use crate::capacity::CapacityKind;

/// On-demand from the start.
pub struct OnDemand;

impl Policy for OnDemand {
    fn choose(&mut self, view: &View<'_>) -> Option<usize> {
        view.on_demand()
    }
}

/// Spot whenever it is up; on-demand when nothing else keeps the deadline.
pub struct Greedy;

impl Policy for Greedy {
    fn choose(&mut self, view: &View<'_>) -> Option<usize> {
        spot(view)
    }
}

/// Even progress in slices of eight hours: on-demand at the end of each that spot left short.
pub struct TimeSliced;

const SLICE_SECONDS: i64 = 8 * 3600;

impl Policy for TimeSliced {
    fn choose(&mut self, view: &View<'_>) -> Option<usize> {
        let (task, gap) = (view.task, view.tick_seconds());
        let (now, deadline) = (view.tick * gap, task.deadline_ticks * gap);
        let slice_end = ((now / SLICE_SECONDS + 1) * SLICE_SECONDS).min(deadline);
        let needed = ceil_div(task.work * slice_end, deadline) - view.done;
        let is_short = needed > 0 && needed + task.overhead > slice_end - now - gap;
        if is_short && !view.is_on(CapacityKind::Spot) { view.on_demand() } else { spot(view) }
    }
}

/// On-demand when behind even progress, kept until well ahead of it.
pub struct UniformProgress;

impl Policy for UniformProgress {
    fn choose(&mut self, view: &View<'_>) -> Option<usize> {
        let (task, gap) = (view.task, view.tick_seconds());
        let (work, deadline) = (i128::from(task.work), i128::from(task.deadline_ticks * gap));
        let (now, overhead, progress) = (i128::from(view.tick * gap), i128::from(task.overhead), i128::from(view.done) * deadline);
        let left = ceil_div(task.work - view.done + 2 * task.overhead, gap) >= view.ticks_left();
        let cheap = spot(view);
        if left && !view.is_on(CapacityKind::Spot) {
            return view.on_demand();
        }
        if view.is_on(CapacityKind::OnDemand) {
            let is_ahead = cheap.is_some() && (now + 2 * overhead) * work < progress;
            return if is_ahead { cheap } else { view.on_demand() };
        }
        if cheap.is_none() && progress < now * work { view.on_demand() } else { cheap }
    }
}

/// A reservation; else stays where it is up; else the cheapest that is, the next in turn where
/// several cost the same.
fn spot(view: &View<'_>) -> Option<usize> {
    let reserved = view.reservation();
    if reserved.is_some() {
        return reserved;
    }
    let stays = view.seat.filter(|seat| view.kind(*seat) == CapacityKind::Spot && view.is_up(*seat));
    if stays.is_some() {
        return stays;
    }
    let zones = view.spot_seats();
    let in_turn = (0..zones).map(|step| (view.zone + step) % zones).filter(|seat| view.is_up(*seat));
    in_turn.min_by(|a, b| view.price(*a).total_cmp(&view.price(*b)))
}
