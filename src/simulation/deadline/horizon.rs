//! The ticks between a job's start and its deadline, laid out for search: what is up when, at what price, and what it does.

use super::{Arena, Task};

/// A seat, idle with the data in a region, or not yet launched: a number below [`Horizon::places`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub usize);

/// A seat that is up in a tick.
#[derive(Clone, Copy, Debug)]
pub struct TickOffer {
    pub seat: usize,
    pub price: f64,
}

/// What a seat does to the work that remains, in thousandths of a second of work (and in seconds).
#[derive(Clone, Copy, Debug)]
pub struct SeatFacts {
    pub region: usize,
    /// Taken off by a tick.
    pub gain: i64,
    pub gain_seconds: f64,
    /// Put on by a launch.
    pub launch: i64,
    pub launch_seconds: f64,
}

pub struct Horizon<'a> {
    arena: &'a Arena,
    pub ticks: usize,
    pub regions: usize,
    pub seats: Vec<SeatFacts>,
    /// In thousandths of a second.
    pub work: i64,
    offers: Vec<TickOffer>,
    /// Where each tick's offers begin; one more than there are ticks.
    begins: Vec<usize>,
}

impl<'a> Horizon<'a> {
    pub fn of(arena: &'a Arena, task: &Task) -> Horizon<'a> {
        let ticks = task.deadline_ticks.max(0) as usize;
        let mut offers = Vec::new();
        let mut begins = vec![0];
        for tick in task.start..task.start + ticks {
            let up = arena.seats.iter().enumerate().filter(|(_, seat)| seat.is_up(tick));
            offers.extend(up.map(|(number, seat)| TickOffer { seat: number, price: seat.price(tick) }));
            begins.push(offers.len());
        }
        let facts = |seat: &super::Seat| {
            let (gain, launch) = (arena.tick_seconds * seat.speed_permille, task.overhead * seat.speed_permille);
            SeatFacts { region: seat.region, gain, gain_seconds: gain as f64 / 1e3, launch, launch_seconds: launch as f64 / 1e3 }
        };
        let seats = arena.seats.iter().map(facts).collect();
        Horizon { arena, ticks, regions: arena.transfer.len(), seats, work: task.true_work * 1000, offers, begins }
    }

    #[inline]
    pub fn at(&self, tick: usize) -> &[TickOffer] {
        &self.offers[self.begins[tick]..self.begins[tick + 1]]
    }

    pub fn places(&self) -> usize {
        self.seats.len() + self.regions + 1
    }

    pub fn idle(&self, region: usize) -> Place {
        Place(self.seats.len() + region)
    }

    pub fn unlaunched(&self) -> Place {
        Place(self.seats.len() + self.regions)
    }

    /// Where one is after leaving a place.
    pub fn left_idle(&self, place: Place) -> Place {
        self.seats.get(place.0).map_or(place, |facts| self.idle(facts.region))
    }

    #[inline]
    pub fn transfer(&self, from: usize, to: usize) -> f64 {
        self.arena.transfer[from][to]
    }

    /// The data's way from an idle place to a region; free before the first launch.
    pub fn move_to(&self, from: Place, to: usize) -> f64 {
        if from == self.unlaunched() { 0.0 } else { self.transfer(from.0 - self.seats.len(), to) }
    }

    /// The cheapest and the dearest price of a second of work, zero prices left out.
    pub fn values(&self) -> (f64, f64) {
        let values = self.offers.iter().map(|offer| offer.price / self.seats[offer.seat].gain_seconds).filter(|value| *value > 0.0);
        let (cheapest, dearest) = values.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), value| (low.min(value), high.max(value)));
        if cheapest.is_finite() { (cheapest, dearest) } else { (1.0, 1.0) }
    }
}
