//! What the rest of a job costs at least, from any tick and place: the bound that lets [`super::optimum`] drop most of what
//! it meets.
//!
//! Put a value on a second of work and let the job do as much or as little as it likes: without the work that must be done,
//! the cheapest way on is a small programme over tick × place. For any value, that way's cost less its work's value, plus the
//! value of the work that is really left, is at most what the rest costs (Lagrangian duality); the best of several values is
//! close to it, because launches and transfers are paid for in it too. The ways themselves, cut off where the work is done,
//! are good runs: the cheapest is a cost already reached.

use super::horizon::{Horizon, Place};

/// Values of a second of work, ascending, each with the least (cost − value × work) from every tick and place on.
pub struct Bound {
    lines: Vec<Line>,
    /// The cheapest run met on the way.
    pub reached: f64,
}

struct Line {
    value: f64,
    /// By tick, then place.
    rest: Vec<f64>,
}

/// Doublings of the dearest price after which work that is not done cannot be done.
const DOUBLINGS: i32 = 30;
/// Bisections between a value that buys too little and one that buys enough.
const BISECTIONS: usize = 10;
/// Further values, for jobs that are far ahead or behind.
const SPREAD: usize = 14;
/// The dearest of them, in dearest prices: what cannot be done any more is dropped by it.
const DEAREST: f64 = 64.0;

impl Bound {
    /// `None` where the work cannot be done in time.
    pub fn of(horizon: &Horizon) -> Option<Bound> {
        let (cheapest, dearest) = horizon.values();
        let mut bound = Bound { lines: Vec::new(), reached: f64::INFINITY };
        let mut enough = dearest;
        let mut doublings = 0;
        while !bound.add(horizon, enough) {
            doublings += 1;
            if doublings > DOUBLINGS {
                return None;
            }
            enough *= 2.0;
        }
        let mut short = cheapest / 16.0;
        for _ in 0..BISECTIONS {
            let value = (short * enough).sqrt();
            if bound.add(horizon, value) { enough = value } else { short = value }
        }
        let (first, last) = (cheapest / 2.0, dearest * 4.0);
        for step in 0..SPREAD {
            bound.add(horizon, first * (last / first).powf(step as f64 / (SPREAD - 1) as f64));
        }
        bound.add(horizon, 0.0);
        bound.add(horizon, dearest * DEAREST);
        // Of larger values the differences that matter drown in rounding.
        bound.lines.retain(|line| line.value <= dearest * DEAREST);
        bound.lines.sort_by(|a, b| a.value.total_cmp(&b.value));
        Some(bound)
    }

    /// The least that work left costs from a tick and place on; `line` is where the search begins, and moves up with the work.
    #[inline]
    pub fn rest(&self, tick: usize, place: Place, places: usize, left_seconds: f64, line: &mut usize) -> f64 {
        let at = tick * places + place.0;
        let cost = |number: usize| self.lines[number].rest[at] + self.lines[number].value * left_seconds;
        let mut best = cost(*line);
        while *line + 1 < self.lines.len() {
            let next = cost(*line + 1);
            if next < best {
                break;
            }
            best = next;
            *line += 1;
        }
        best
    }

    /// Adds a value; whether its cheapest way does all the work.
    fn add(&mut self, horizon: &Horizon, value: f64) -> bool {
        let rest = ways(horizon, value);
        let cost = walk(horizon, value, &rest);
        self.reached = self.reached.min(cost.unwrap_or(f64::INFINITY));
        self.lines.push(Line { value, rest });
        cost.is_some()
    }
}

/// Backwards: the least (cost − value × work) from each tick and place.
fn ways(horizon: &Horizon, value: f64) -> Vec<f64> {
    let places = horizon.places();
    let mut all = vec![0.0; (horizon.ticks + 1) * places];
    let mut launched = vec![f64::INFINITY; horizon.regions];
    for tick in (0..horizon.ticks).rev() {
        let (now, next) = all[tick * places..].split_at_mut(places);
        let next = &next[..places];
        launched.fill(f64::INFINITY);
        let mut first = next[horizon.unlaunched().0];
        for offer in horizon.at(tick) {
            let facts = &horizon.seats[offer.seat];
            let sits = offer.price - value * facts.gain_seconds + next[offer.seat];
            let launches = sits + value * facts.launch_seconds;
            first = first.min(launches);
            for (from, cost) in launched.iter_mut().enumerate() {
                *cost = cost.min(launches + horizon.transfer(from, facts.region));
            }
        }
        for (region, launches) in launched.iter().enumerate() {
            let idle = horizon.idle(region).0;
            now[idle] = next[idle].min(*launches);
        }
        for (seat, facts) in horizon.seats.iter().enumerate() {
            now[seat] = now[horizon.idle(facts.region).0];
        }
        for offer in horizon.at(tick) {
            let sits = offer.price - value * horizon.seats[offer.seat].gain_seconds + next[offer.seat];
            now[offer.seat] = now[offer.seat].min(sits);
        }
        now[horizon.unlaunched().0] = first;
    }
    all
}

/// Forwards along the cheapest way until the work is done: its cost, or `None` where it does too little.
fn walk(horizon: &Horizon, value: f64, rest: &[f64]) -> Option<f64> {
    let places = horizon.places();
    let (mut place, mut left, mut cost) = (horizon.unlaunched(), horizon.work, 0.0);
    for tick in 0..horizon.ticks {
        let next = &rest[(tick + 1) * places..];
        let rests = horizon.left_idle(place);
        let (mut best, mut taken) = (next[rests.0], None);
        for offer in horizon.at(tick) {
            let facts = &horizon.seats[offer.seat];
            let stays = place == Place(offer.seat);
            let launch = if stays { 0.0 } else { horizon.move_to(rests, facts.region) + value * facts.launch_seconds };
            let total = offer.price - value * facts.gain_seconds + launch + next[offer.seat];
            if total < best {
                (best, taken) = (total, Some((offer, stays)));
            }
        }
        place = rests;
        if let Some((offer, stays)) = taken {
            let facts = &horizon.seats[offer.seat];
            cost += offer.price + if stays { 0.0 } else { horizon.move_to(rests, facts.region) };
            left += if stays { 0 } else { facts.launch } - facts.gain;
            place = Place(offer.seat);
        }
        if left <= 0 {
            return Some(cost);
        }
    }
    None
}
