//! The least that somebody who knew the future would have paid; exact.
//!
//! A launch adds the overhead to the work that remains, a paid tick takes a tick's work from it. Going forward over the
//! ticks, each place (a seat, or idle with the data in a region) keeps the pairs (work that remains, cost so far) that no
//! other pair beats in both. Pairs that cannot end below a cost already reached are dropped ([`super::bound`]). Both prunings
//! are lossless. (A launch left before its overhead is over counts its rest twice here; no best run has one.)

use super::bound::Bound;
use super::horizon::{Horizon, Place};
use super::{Arena, Task};

/// The best run.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimum {
    pub cost: f64,
    /// The seat of every tick until the work is done.
    pub seats: Vec<Option<usize>>,
}

/// The best run that keeps the deadline, if there is one; `reached` is the cost of any such run (infinity where none is known).
pub fn optimum(arena: &Arena, task: &Task, reached: f64) -> Option<Optimum> {
    let horizon = Horizon::of(arena, task);
    let bound = Bound::of(&horizon)?;
    let best = reached.min(bound.reached) * (1.0 + ROUNDING) + f64::MIN_POSITIVE;
    Search { horizon: &horizon, bound: &bound, best, found: None, steps: Vec::new() }.solve()
}

/// What sums of the same prices in another order may differ by, relatively.
const ROUNDING: f64 = 1e-9;

/// Work that remains, the cost so far, and how one came here.
#[derive(Clone, Copy, Debug)]
struct Label {
    left: i64,
    cost: f64,
    /// The last step; 0 is none.
    step: u32,
}

/// A paid tick of a way.
#[derive(Clone, Copy, Debug)]
struct Step {
    before: u32,
    tick: u32,
    seat: u32,
}

struct Search<'a> {
    horizon: &'a Horizon<'a>,
    bound: &'a Bound,
    best: f64,
    /// The last step of the best way so far.
    found: Option<Step>,
    steps: Vec<Step>,
}

/// Labels by place: ascending work left, strictly descending cost.
type Labels = Vec<Label>;

impl Search<'_> {
    fn solve(mut self) -> Option<Optimum> {
        let (seats, regions) = (self.horizon.seats.len(), self.horizon.regions);
        let first = [Label { left: self.horizon.work, cost: 0.0, step: 0 }];
        let mut on: Vec<Labels> = vec![Vec::new(); seats];
        let mut idle: Vec<Labels> = vec![Vec::new(); regions];
        let mut pools: Vec<Labels> = vec![Vec::new(); regions];
        let mut spare = Vec::new();
        for tick in 0..self.horizon.ticks {
            for (seat, facts) in self.horizon.seats.iter().enumerate() {
                merge_in(&mut idle[facts.region], &on[seat], 0.0, &mut spare);
            }
            for (region, labels) in idle.iter_mut().enumerate() {
                self.prune(labels, tick, self.horizon.idle(region));
            }
            self.gather(&first, &idle, &mut pools, &mut spare);
            let mut up = self.horizon.at(tick).iter().peekable();
            for (seat, here) in on.iter_mut().enumerate() {
                match up.next_if(|offer| offer.seat == seat) {
                    None => here.clear(),
                    Some(offer) => {
                        let region = self.horizon.seats[seat].region;
                        self.sit(seat, tick, offer.price, here, &pools[region], &mut spare);
                    }
                }
            }
        }
        self.trace()
    }

    /// For each region, everything that could launch there now, the data moved.
    fn gather(&self, first: &[Label], idle: &[Labels], pools: &mut [Labels], spare: &mut Labels) {
        for (to, pool) in pools.iter_mut().enumerate() {
            pool.clear();
            pool.extend_from_slice(first);
            for (from, labels) in idle.iter().enumerate() {
                merge_in(pool, labels, self.horizon.transfer(from, to), spare);
            }
        }
    }

    /// One tick on a seat: whoever was there, and whoever launches.
    fn sit(&mut self, seat: usize, tick: usize, price: f64, here: &mut Labels, pool: &[Label], spare: &mut Labels) {
        let facts = self.horizon.seats[seat];
        let launching = pool.iter().map(|label| Label { left: label.left + facts.launch, ..*label });
        merge(here.iter().copied(), launching, spare);
        here.clear();
        for label in spare.iter() {
            let step = Step { before: label.step, tick: tick as u32, seat: seat as u32 };
            let (left, cost) = (label.left - facts.gain, label.cost + price);
            if left > 0 {
                here.push(Label { left, cost, ..*label });
            } else if cost <= self.best {
                (self.best, self.found) = (cost, Some(step));
            }
        }
        self.prune(here, tick + 1, Place(seat));
        for label in here {
            self.steps.push(Step { before: label.step, tick: tick as u32, seat: seat as u32 });
            label.step = self.steps.len() as u32;
        }
    }

    fn prune(&self, labels: &mut Labels, tick: usize, place: Place) {
        let places = self.horizon.places();
        let mut line = 0;
        labels.retain(|label| label.cost + self.bound.rest(tick, place, places, label.left as f64 / 1e3, &mut line) <= self.best);
    }

    fn trace(self) -> Option<Optimum> {
        let mut step = self.found?;
        let mut seats = vec![None; step.tick as usize + 1];
        loop {
            seats[step.tick as usize] = Some(step.seat as usize);
            match step.before.checked_sub(1) {
                Some(before) => step = self.steps[before as usize],
                None => return Some(Optimum { cost: self.best, seats }),
            }
        }
    }
}

/// Adds what costs `more` there to what is here; `spare` is working space.
fn merge_in(here: &mut Labels, there: &[Label], more: f64, spare: &mut Labels) {
    if !there.is_empty() {
        merge(here.iter().copied(), there.iter().map(|label| Label { cost: label.cost + more, ..*label }), spare);
        std::mem::swap(here, spare);
    }
}

/// Of two sorted lists, what no other label beats.
#[inline]
fn merge(one: impl Iterator<Item = Label>, other: impl Iterator<Item = Label>, merged: &mut Labels) {
    let (mut one, mut other) = (one, other);
    let (mut a, mut b) = (one.next(), other.next());
    let mut cheapest = f64::INFINITY;
    merged.clear();
    loop {
        let takes_one = match (&a, &b) {
            (Some(a), Some(b)) => a.left < b.left || (a.left == b.left && a.cost <= b.cost),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => return,
        };
        let taken = if takes_one { std::mem::replace(&mut a, one.next()) } else { std::mem::replace(&mut b, other.next()) };
        if let Some(label) = taken.filter(|label| label.cost < cheapest) {
            cheapest = label.cost;
            merged.push(label);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::deadline::arena::random::{arena, task};
    use crate::simulation::deadline::replay;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// The cheapest of all runs.
    fn brute_force(arena: &Arena, task: &Task) -> Option<f64> {
        let places = arena.seats.len() + 1;
        let count = places.pow(task.deadline_ticks as u32);
        let run = |number: usize| {
            let digits = (0..task.deadline_ticks as u32).map(|tick| number / places.pow(tick) % places);
            let seats: Vec<Option<usize>> = digits.map(|digit| digit.checked_sub(1)).collect();
            let is_up = |(tick, seat): (usize, &Option<usize>)| seat.is_none_or(|seat| arena.seats[seat].is_up(task.start + tick));
            if !seats.iter().enumerate().all(is_up) {
                return None;
            }
            let outcome = replay(arena, task, &seats);
            (!outcome.missed).then_some(outcome.cost)
        };
        (0..count).filter_map(run).min_by(f64::total_cmp)
    }

    #[test]
    fn no_run_of_all_is_cheaper_whatever_the_market() {
        let (mut feasible, mut infeasible) = (0, 0);
        for seed in 0..300 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let arena = arena(&mut rng, 3, 6);
            let task = task(&mut rng, &arena);
            let (expected, found) = (brute_force(&arena, &task), optimum(&arena, &task, f64::INFINITY));
            match (expected, &found) {
                (Some(expected), Some(found)) => {
                    assert!((expected - found.cost).abs() < 1e-9, "seed {seed}: {expected} against {found:?}");
                    feasible += 1;
                }
                (None, None) => infeasible += 1,
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        assert!(feasible > 100 && infeasible > 5, "{feasible} and {infeasible}: the cases test little");
    }

    #[test]
    fn the_run_that_is_told_costs_what_is_told() {
        for seed in 0..200 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let arena = arena(&mut rng, 6, 60);
            let task = task(&mut rng, &arena);
            if let Some(found) = optimum(&arena, &task, f64::INFINITY) {
                let outcome = replay(&arena, &task, &found.seats);
                assert!((outcome.cost - found.cost).abs() < 1e-9 && !outcome.missed, "seed {seed}: {found:?} {outcome:?}");
                assert_eq!(optimum(&arena, &task, found.cost).map(|best| best.cost), Some(found.cost), "seed {seed}: a reached cost only helps");
            }
        }
    }

    #[test]
    fn more_time_never_costs_more() {
        for seed in 0..100 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let arena = arena(&mut rng, 4, 80);
            let task = Task { start: 0, deadline_ticks: 30, ..task(&mut rng, &arena) };
            let cost = |deadline_ticks| optimum(&arena, &Task { deadline_ticks, ..task }, f64::INFINITY).map_or(f64::INFINITY, |best| best.cost);
            let costs = [30, 40, 50, 60].map(cost);
            assert!(costs.is_sorted_by(|less, more| *more <= *less + 1e-9), "seed {seed}: {costs:?}");
        }
    }
}
