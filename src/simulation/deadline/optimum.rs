//! The least that somebody who knew the future would have paid; exact.
//!
//! A launch adds the overhead to the work that remains, a paid tick takes a tick's length from it. Going forward over the
//! ticks, each place (a seat, or idle with the data in a region) keeps the pairs (work that remains, cost so far) that no
//! other pair beats in both. Pairs that cannot end below a cost already reached are dropped: what remains costs at least the
//! cheapest ticks to come, were there no launches. Both prunings are lossless.

use super::{Arena, Task};

/// Work that remains and the cost so far.
#[derive(Clone, Copy, Debug)]
struct Label {
    left: i64,
    cost: f64,
}

/// The least cost, given the cost of any run that keeps the deadline (infinity where none is known).
pub fn optimum(arena: &Arena, task: &Task, reached: f64) -> Option<f64> {
    Search::new(arena, task, reached).solve()
}

struct Search<'a> {
    arena: &'a Arena,
    task: &'a Task,
    best: f64,
    floor: Floor,
}

/// Cost rounding leaves of sums that are equal.
const ROUNDING: f64 = 1e-9;

impl<'a> Search<'a> {
    fn new(arena: &'a Arena, task: &'a Task, reached: f64) -> Search<'a> {
        Search { arena, task, best: reached * (1.0 + ROUNDING) + ROUNDING, floor: Floor::of(arena, task) }
    }

    fn solve(mut self) -> Option<f64> {
        let seats = self.arena.seats.len();
        let regions = self.arena.transfer.len();
        // Idle before the first launch, on a seat, or idle with data in a region.
        let mut first: Vec<Label> = vec![Label { left: self.task.true_work, cost: 0.0 }];
        let mut on: Vec<Vec<Label>> = vec![Vec::new(); seats];
        let mut idle: Vec<Vec<Label>> = vec![Vec::new(); regions];
        let mut scratch = Vec::new();
        let mut found = None;
        for tick in 0..self.task.deadline_ticks {
            let now = self.task.start + tick as usize;
            for (seat, labels) in on.iter().enumerate() {
                idle[self.arena.seats[seat].region].extend_from_slice(labels);
            }
            idle.iter_mut().for_each(thin_out);
            let mut next: Vec<Vec<Label>> = Vec::with_capacity(seats);
            for seat in 0..seats {
                if !self.arena.seats[seat].is_up(now) {
                    next.push(Vec::new());
                    continue;
                }
                scratch.clear();
                scratch.extend_from_slice(&on[seat]);
                let region = self.arena.seats[seat].region;
                let launch = |label: &Label, transfer: f64| Label { left: label.left + self.task.overhead, cost: label.cost + transfer };
                scratch.extend(first.iter().map(|label| launch(label, 0.0)));
                for (from, labels) in idle.iter().enumerate() {
                    let transfer = self.arena.transfer(Some(from), region);
                    scratch.extend(labels.iter().map(|label| launch(label, transfer)));
                }
                let price = self.arena.seats[seat].price(now);
                scratch.iter_mut().for_each(|label| {
                    label.left -= self.arena.tick_seconds;
                    label.cost += price;
                });
                let done = scratch.iter().filter(|label| label.left <= 0).map(|label| label.cost).fold(f64::INFINITY, f64::min);
                if done <= self.best {
                    self.best = done;
                    found = Some(done);
                }
                scratch.retain(|label| label.left > 0 && self.may_win(label, tick + 1));
                thin_out(&mut scratch);
                next.push(scratch.clone());
            }
            on = next;
            first.retain(|label| self.floor.cost(label.left, tick + 1).is_some_and(|rest| label.cost + rest <= self.best));
            for labels in &mut idle {
                let floor = &self.floor;
                let best = self.best;
                labels.retain(|label| floor.cost(label.left, tick + 1).is_some_and(|rest| label.cost + rest <= best));
            }
        }
        found
    }

    fn may_win(&self, label: &Label, tick: i64) -> bool {
        self.floor.cost(label.left, tick).is_some_and(|rest| label.cost + rest <= self.best)
    }
}

/// Keeps what no other label beats: ascending work left, strictly descending cost.
fn thin_out(labels: &mut Vec<Label>) {
    labels.sort_unstable_by(|a, b| a.left.cmp(&b.left).then(a.cost.total_cmp(&b.cost)));
    let mut cheapest = f64::INFINITY;
    labels.retain(|label| {
        let stays = label.cost < cheapest;
        if stays {
            cheapest = label.cost;
        }
        stays
    });
}

/// What work costs at least from a tick on: the cheapest ticks that come, without a launch.
struct Floor {
    tick_seconds: i64,
    /// The prices at which a tick can be had, ascending.
    prices: Vec<f64>,
    /// `counts[tick][price]`: ticks from there to the deadline whose cheapest seat has that price.
    counts: Vec<Vec<u32>>,
}

impl Floor {
    fn of(arena: &Arena, task: &Task) -> Floor {
        let cheapest: Vec<f64> = (0..task.deadline_ticks)
            .map(|tick| {
                let now = task.start + tick as usize;
                arena.seats.iter().filter(|seat| seat.is_up(now)).map(|seat| seat.price(now)).fold(f64::INFINITY, f64::min)
            })
            .collect();
        let mut prices: Vec<f64> = cheapest.iter().copied().filter(|price| price.is_finite()).collect();
        prices.sort_unstable_by(f64::total_cmp);
        prices.dedup();
        let mut counts = vec![vec![0u32; prices.len()]; cheapest.len() + 1];
        for tick in (0..cheapest.len()).rev() {
            counts[tick] = counts[tick + 1].clone();
            let level = prices.partition_point(|price| *price < cheapest[tick]);
            if let Some(count) = counts[tick].get_mut(level) {
                *count += 1;
            }
        }
        Floor { tick_seconds: arena.tick_seconds, prices, counts }
    }

    /// `None` where the ticks to come do not suffice.
    fn cost(&self, left: i64, tick: i64) -> Option<f64> {
        let mut needed = super::run::ceil_div(left, self.tick_seconds).max(0) as u32;
        let mut cost = 0.0;
        for (price, count) in self.prices.iter().zip(&self.counts[tick as usize]) {
            let taken = needed.min(*count);
            cost += f64::from(taken) * price;
            needed -= taken;
            if needed == 0 {
                return Some(cost);
            }
        }
        None
    }
}
