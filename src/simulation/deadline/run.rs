//! One run of one policy.

use super::Arena;
use crate::capacity::CapacityKind;

/// What is to be done, and from when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// What the policy is told, in seconds of work.
    pub work: i64,
    /// What it really takes.
    pub true_work: i64,
    /// How wrong `work` may be, in thousandths of it.
    pub error_permille: i64,
    /// Ticks from the start to the deadline.
    pub deadline_ticks: i64,
    /// Seconds from a launch to new work.
    pub overhead: i64,
    /// The arena's tick at which the job is submitted.
    pub start: usize,
}

impl Task {
    /// Work to be reckoned with: the most that the told error allows, but no more than on-demand could do from the start.
    pub fn work_max(&self, tick_seconds: i64) -> i64 {
        let most = self.work + (self.work * self.error_permille + 999) / 1000;
        most.min((self.deadline_ticks * tick_seconds - self.overhead).max(self.work.min(most)))
    }
}

/// What a policy may know at the start of a tick.
pub struct View<'a> {
    arena: &'a Arena,
    pub task: &'a Task,
    /// Since the job's start.
    pub tick: i64,
    /// Where it sits; `None` is idle. A seat that has gone is left already.
    pub seat: Option<usize>,
    /// The last spot seat it had, or the first.
    pub zone: usize,
    /// Where its data is.
    pub region: Option<usize>,
    /// Overhead of the current launch that is still to do, seconds.
    pub overhead_left: i64,
    /// Work done, seconds.
    pub done: i64,
}

impl View<'_> {
    /// The market's tick.
    pub fn now(&self) -> usize {
        self.task.start + self.tick as usize
    }

    pub fn tick_seconds(&self) -> i64 {
        self.arena.tick_seconds
    }

    pub fn ticks_left(&self) -> i64 {
        self.task.deadline_ticks - self.tick
    }

    pub fn seats(&self) -> usize {
        self.arena.seats.len()
    }

    pub fn spot_seats(&self) -> usize {
        self.arena.spot_seats()
    }

    pub fn kind(&self, seat: usize) -> CapacityKind {
        self.arena.seats[seat].kind
    }

    pub fn region_of(&self, seat: usize) -> usize {
        self.arena.seats[seat].region
    }

    pub fn is_up(&self, seat: usize) -> bool {
        self.arena.seats[seat].is_up(self.now())
    }

    pub fn price(&self, seat: usize) -> f64 {
        self.arena.seats[seat].price(self.now())
    }

    pub fn transfer(&self, to_seat: usize) -> f64 {
        self.arena.transfer(self.region, self.region_of(to_seat))
    }

    /// Up or not in every tick of the market until now, this one included.
    pub fn past(&self, seat: usize) -> &[bool] {
        let up = &self.arena.seats[seat].up;
        &up[..up.len().min(self.now() + 1)]
    }

    pub fn is_on(&self, kind: CapacityKind) -> bool {
        self.seat.is_some_and(|seat| self.kind(seat) == kind)
    }

    /// The cheapest on-demand seat that is up, data moved.
    pub fn on_demand(&self) -> Option<usize> {
        let total = |seat: &usize| self.price(*seat) * self.ticks_left().max(1) as f64 + self.transfer(*seat);
        let sits = |seat: &usize| self.seat == Some(*seat);
        (self.spot_seats()..self.seats()).filter(|seat| self.is_up(*seat)).min_by(|a, b| {
            sits(b).cmp(&sits(a)).then(total(a).total_cmp(&total(b)))
        })
    }

    /// No tick may be lost any more.
    pub fn is_critical(&self) -> bool {
        let work = self.task.work_max(self.tick_seconds()) - self.done;
        ceil_div(work + self.task.overhead, self.tick_seconds()) >= self.ticks_left()
    }
}

/// Chooses a seat that is up, or none.
pub trait Policy {
    fn choose(&mut self, view: &View<'_>) -> Option<usize>;
}

/// What became of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub cost: f64,
    pub spot_ticks: i64,
    pub on_demand_ticks: i64,
    pub launches: i64,
    pub preemptions: i64,
    pub finish_tick: i64,
    pub missed: bool,
    /// The seat of every tick, for pictures.
    pub seats: Vec<Option<usize>>,
}

/// Ticks past the deadline after which a run is given up, in deadlines.
const PATIENCE: i64 = 4;

/// Plays the job to its end.
pub fn run(arena: &Arena, task: &Task, policy: &mut dyn Policy) -> Outcome {
    let mut view = View { arena, task, tick: 0, seat: None, zone: 0, region: None, overhead_left: 0, done: 0 };
    let mut outcome = Outcome::default();
    while view.done < task.true_work && view.tick < task.deadline_ticks * PATIENCE {
        if view.seat.is_some_and(|seat| !view.is_up(seat)) {
            view.seat = None;
            outcome.preemptions += 1;
        }
        let chosen = with_safety_net(&view, policy.choose(&view));
        sit(&mut view, &mut outcome, chosen);
        view.tick += 1;
    }
    outcome.finish_tick = view.tick;
    outcome.missed = view.done < task.true_work || view.tick > task.deadline_ticks;
    outcome
}

/// On-demand, once nothing else keeps the deadline.
fn with_safety_net(view: &View<'_>, chosen: Option<usize>) -> Option<usize> {
    if !view.is_critical() {
        return chosen;
    }
    if view.is_on(CapacityKind::Spot) && view.overhead_left == 0 { view.seat } else { view.on_demand() }
}

/// Takes the seat for one tick: pays it, and works.
fn sit(view: &mut View<'_>, outcome: &mut Outcome, chosen: Option<usize>) {
    if let Some(seat) = chosen {
        debug_assert!(view.is_up(seat), "a policy took a seat that is down");
        if chosen != view.seat {
            outcome.launches += 1;
            outcome.cost += view.transfer(seat);
            view.overhead_left = view.task.overhead;
        }
        match view.kind(seat) {
            CapacityKind::Spot => {
                outcome.spot_ticks += 1;
                view.zone = seat;
            }
            CapacityKind::OnDemand | CapacityKind::Reserved => outcome.on_demand_ticks += 1,
        }
        outcome.cost += view.price(seat);
        view.region = Some(view.region_of(seat));
        let tick_seconds = view.tick_seconds();
        view.done += (tick_seconds - view.overhead_left).max(0);
        view.overhead_left = (view.overhead_left - tick_seconds).max(0);
    }
    view.seat = chosen;
    outcome.seats.push(chosen);
}

pub fn ceil_div(a: i64, b: i64) -> i64 {
    a.div_euclid(b) + i64::from(a.rem_euclid(b) != 0)
}
