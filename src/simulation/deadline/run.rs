//! One run of one policy.

use super::{Arena, arena::FULL_SPEED};
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
    /// The same in thousandths, for seats that are faster or slower than the job's statement.
    done_exactly: i64,
}

impl View<'_> {
    /// The market's tick.
    pub fn now(&self) -> usize {
        self.task.start + self.tick as usize
    }

    pub fn tick_seconds(&self) -> i64 {
        self.arena.tick_seconds
    }

    /// A tick's length.
    pub fn hours(&self) -> f64 {
        self.arena.tick_seconds as f64 / 3600.0
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

    /// What a tick cost some ticks ago, this one being 0.
    pub fn price_ago(&self, seat: usize, ticks: usize) -> f64 {
        self.arena.seats[seat].price(self.now().saturating_sub(ticks))
    }

    /// Seconds of work done in 1000 seconds on a seat.
    pub fn speed_permille(&self, seat: usize) -> i64 {
        self.arena.seats[seat].speed_permille
    }

    /// Ticks until a reservation ends, this one included; its end is known from its beginning.
    pub fn reserved_ticks(&self, seat: usize) -> usize {
        let up = self.arena.seats[seat].up.get(self.now()..).unwrap_or_default();
        if self.kind(seat) == CapacityKind::Reserved { up.iter().take_while(|up| **up).count() } else { 0 }
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

    /// A reservation that is up and lasts longer than it takes to get there (and back, from a seat that works): it is paid for
    /// already.
    pub fn reservation(&self) -> Option<usize> {
        let launches = i64::from(self.seat.is_some()) + 1;
        let lasts = |seat: usize| self.reserved_ticks(seat) as i64 * self.tick_seconds();
        let is_worth_it = |seat: &usize| lasts(*seat) > if self.seat == Some(*seat) { 0 } else { launches * self.task.overhead };
        (0..self.seats()).filter(is_worth_it).max_by_key(|seat| (self.seat == Some(*seat), lasts(*seat)))
    }

    /// The on-demand seat that is up and ends the work cheapest, data moved; one that keeps the deadline, if any does.
    pub fn on_demand(&self) -> Option<usize> {
        let late = |seat: &usize| self.ticks_on(*seat) > self.ticks_left();
        let total = |seat: &usize| self.price(*seat) * self.ticks_left().max(1) as f64 * FULL_SPEED as f64 / self.speed_permille(*seat) as f64 + self.transfer(*seat);
        let sits = |seat: &usize| self.seat == Some(*seat);
        let up = self.on_demand_seats().filter(|seat| self.is_up(*seat));
        up.min_by(|a, b| late(a).cmp(&late(b)).then(sits(b).cmp(&sits(a))).then(total(a).total_cmp(&total(b))))
    }

    fn on_demand_seats(&self) -> impl Iterator<Item = usize> {
        (0..self.seats()).filter(|seat| self.kind(*seat) == CapacityKind::OnDemand)
    }

    /// Ticks from here to the end of the work on a seat, launch included.
    fn ticks_on(&self, seat: usize) -> i64 {
        let work = self.task.work_max(self.tick_seconds()) - self.done;
        let overhead = if self.seat == Some(seat) { self.overhead_left } else { self.task.overhead };
        ceil_div(ceil_div(work * FULL_SPEED, self.speed_permille(seat)) + overhead, self.tick_seconds())
    }

    fn fastest_on_demand(&self) -> i64 {
        self.on_demand_seats().map(|seat| self.speed_permille(seat)).max().unwrap_or(FULL_SPEED)
    }

    fn is_unfinished(&self) -> bool {
        self.done_exactly < self.task.true_work * FULL_SPEED
    }

    /// No tick may be lost any more.
    pub fn is_critical(&self) -> bool {
        let work = self.task.work_max(self.tick_seconds()) - self.done;
        ceil_div(ceil_div(work * FULL_SPEED, self.fastest_on_demand()) + self.task.overhead, self.tick_seconds()) >= self.ticks_left()
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
    pub reserved_ticks: i64,
    pub launches: i64,
    pub preemptions: i64,
    pub finish_tick: i64,
    pub missed: bool,
    /// The seat of every tick, for pictures.
    pub seats: Vec<Option<usize>>,
    /// Seconds of work done after every tick.
    pub done: Vec<i64>,
}

/// Ticks past the deadline after which a run is given up, in deadlines.
const PATIENCE: i64 = 4;

/// Plays the job to its end.
pub fn run(arena: &Arena, task: &Task, policy: &mut dyn Policy) -> Outcome {
    play(arena, task, &mut |view| with_safety_net(view, policy.choose(view)))
}

/// Plays seats that were chosen beforehand, as they are.
pub fn replay(arena: &Arena, task: &Task, seats: &[Option<usize>]) -> Outcome {
    play(arena, task, &mut |view| seats.get(view.tick as usize).copied().flatten())
}

/// What a policy may know when the job is submitted.
pub fn opening<'a>(arena: &'a Arena, task: &'a Task) -> View<'a> {
    View { arena, task, tick: 0, seat: None, zone: 0, region: None, overhead_left: 0, done: 0, done_exactly: 0 }
}

fn play(arena: &Arena, task: &Task, choose: &mut dyn FnMut(&View<'_>) -> Option<usize>) -> Outcome {
    let mut view = opening(arena, task);
    let mut outcome = Outcome::default();
    while view.is_unfinished() && view.tick < task.deadline_ticks * PATIENCE {
        if view.seat.is_some_and(|seat| !view.is_up(seat)) {
            view.seat = None;
            outcome.preemptions += 1;
        }
        let chosen = choose(&view);
        sit(&mut view, &mut outcome, chosen);
        view.tick += 1;
    }
    outcome.finish_tick = view.tick;
    outcome.missed = view.is_unfinished() || view.tick > task.deadline_ticks;
    outcome
}

/// On-demand, once nothing else keeps the deadline.
fn with_safety_net(view: &View<'_>, chosen: Option<usize>) -> Option<usize> {
    let ends_there = |seat: usize| view.reserved_ticks(seat) as i64 >= view.ticks_on(seat);
    if !view.is_critical() || chosen.is_some_and(ends_there) {
        return chosen;
    }
    let works = |seat: &usize| !view.is_on(CapacityKind::OnDemand) && view.overhead_left == 0 && view.speed_permille(*seat) >= view.fastest_on_demand();
    let stays = view.seat.filter(works);
    if stays.is_some() { stays } else { view.on_demand().or(chosen) }
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
            CapacityKind::OnDemand => outcome.on_demand_ticks += 1,
            CapacityKind::Reserved => outcome.reserved_ticks += 1,
        }
        outcome.cost += view.price(seat);
        view.region = Some(view.region_of(seat));
        let tick_seconds = view.tick_seconds();
        view.done_exactly += (tick_seconds - view.overhead_left).max(0) * view.speed_permille(seat);
        view.done = view.done_exactly / FULL_SPEED;
        view.overhead_left = (view.overhead_left - tick_seconds).max(0);
    }
    view.seat = chosen;
    outcome.seats.push(chosen);
    outcome.done.push(view.done);
}

pub fn ceil_div(a: i64, b: i64) -> i64 {
    a.div_euclid(b) + i64::from(a.rem_euclid(b) != 0)
}
