//! Where a job can sit: the seats of a market, tick by tick.

use crate::capacity::CapacityKind;

/// Machines for the whole gang in one zone, by one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Seat {
    pub zone: String,
    /// Index of the zone's region; moving between regions moves the data.
    pub region: usize,
    pub kind: CapacityKind,
    /// Whether the whole gang could be had, tick by tick; after the last tick it is like on-demand: always, spot: never.
    pub up: Vec<bool>,
    /// What a tick costs the whole gang; the last value goes on.
    pub price: Vec<f64>,
    /// Seconds of the job's work done in 1000 seconds here: another type of machine is faster or slower.
    pub speed_permille: i64,
}

/// The speed that a job's work is stated for.
pub const FULL_SPEED: i64 = 1000;

impl Seat {
    pub fn is_up(&self, tick: usize) -> bool {
        self.up.get(tick).copied().unwrap_or(self.kind == CapacityKind::OnDemand)
    }

    pub fn price(&self, tick: usize) -> f64 {
        let last = self.price.len().saturating_sub(1);
        self.price.get(tick.min(last)).copied().unwrap_or_default()
    }
}

/// EC2 User Guide, "Capacity Blocks for ML": instances are ended from 30 minutes before the block's end.
const CAPACITY_BLOCK_ENDS_EARLY_SECONDS: i64 = 30 * 60;

/// A market as one job sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Arena {
    pub tick_seconds: i64,
    pub ticks: usize,
    /// Spot seats by zone name, then on-demand seats by price, then reservations.
    pub seats: Vec<Seat>,
    /// What it costs to move the job's data from one region (row) to another (column).
    pub transfer: Vec<Vec<f64>>,
}

impl Arena {
    /// Zones of one region at one price: spot 1 a tick, on-demand `on_demand`, never exhausted.
    pub fn of_equal_prices(tick_seconds: i64, zones: Vec<(String, Vec<bool>)>, on_demand: f64) -> Arena {
        let ticks = zones.iter().map(|(_, up)| up.len()).min().unwrap_or_default();
        let seat = |zone, kind, up, price| Seat { zone, region: 0, kind, up, price: vec![price], speed_permille: FULL_SPEED };
        let mut seats: Vec<Seat> = zones.into_iter().map(|(zone, up)| seat(zone, CapacityKind::Spot, up[..ticks].to_vec(), 1.0)).collect();
        seats.push(seat("any".to_owned(), CapacityKind::OnDemand, Vec::new(), on_demand));
        Arena { tick_seconds, ticks, seats, transfer: vec![vec![0.0]] }
    }

    /// A Capacity Block of a zone: paid for already, from a tick to another, less the half hour before its end in which EC2 ends
    /// its instances.
    pub fn with_capacity_block(mut self, zone: &str, region: usize, ticks: std::ops::Range<usize>) -> Arena {
        let last_half_hour = (CAPACITY_BLOCK_ENDS_EARLY_SECONDS / self.tick_seconds + i64::from(CAPACITY_BLOCK_ENDS_EARLY_SECONDS % self.tick_seconds > 0)) as usize;
        let end = ticks.end.saturating_sub(last_half_hour);
        let up = (0..self.ticks).map(|tick| tick >= ticks.start && tick < end).collect();
        let kind = CapacityKind::Reserved;
        self.seats.push(Seat { zone: zone.to_owned(), region, kind, up, price: vec![0.0], speed_permille: FULL_SPEED });
        self
    }

    pub fn spot_seats(&self) -> usize {
        self.seats.iter().filter(|seat| seat.kind == CapacityKind::Spot).count()
    }

    pub fn transfer(&self, from: Option<usize>, to: usize) -> f64 {
        from.and_then(|from| self.transfer.get(from)?.get(to).copied()).unwrap_or_default()
    }
}

/// Markets for property tests: spot, on-demand (that may be exhausted), a reservation, speeds, moving prices, data to move.
#[cfg(test)]
pub(super) mod random {
    use super::*;
    use crate::simulation::deadline::Task;
    use rand::RngExt;
    use rand_chacha::ChaCha8Rng;

    pub fn arena(rng: &mut ChaCha8Rng, seats_max: usize, ticks: usize) -> Arena {
        let regions = rng.random_range(1..=2);
        let transfer = (0..regions).map(|from| (0..regions).map(|to| if from == to { 0.0 } else { f64::from(rng.random_range(0..3u32)) * 0.7 }).collect()).collect();
        let mut seats: Vec<Seat> = (0..rng.random_range(2..=seats_max)).map(|number| seat(rng, number, regions, ticks)).collect();
        seats.sort_by_key(|seat| seat.kind != CapacityKind::Spot);
        let arena = Arena { tick_seconds: 600, ticks, seats, transfer };
        if rng.random_range(0..3) == 0 { arena.with_capacity_block("z", 0, 1..ticks.min(40)) } else { arena }
    }

    fn seat(rng: &mut ChaCha8Rng, number: usize, regions: usize, ticks: usize) -> Seat {
        let kind = if number == 0 { CapacityKind::OnDemand } else { CapacityKind::Spot };
        let chance = if kind == CapacityKind::OnDemand { 85 } else { 60 };
        let mut is_up = true;
        let mut up = || {
            is_up = if rng.random_range(0..100) < 70 { is_up } else { rng.random_range(0..100) < chance };
            is_up
        };
        let up = (0..ticks).map(|_| up()).collect();
        let base = if kind == CapacityKind::OnDemand { 3.1 } else { 1.0 };
        let price = (0..ticks).map(|_| base + f64::from(rng.random_range(0..3u32)) * 0.25).collect();
        let speed_permille = [1000, 1000, 1500, 700][rng.random_range(0..4)];
        Seat { zone: format!("z{number}"), region: rng.random_range(0..regions), kind, up, price, speed_permille }
    }

    pub fn task(rng: &mut ChaCha8Rng, arena: &Arena) -> Task {
        let start = rng.random_range(0..=arena.ticks / 8);
        let deadline_ticks = (arena.ticks - start) as i64;
        let work = deadline_ticks * arena.tick_seconds * rng.random_range(20..90) / 100;
        Task { work, true_work: work, error_permille: 0, deadline_ticks, overhead: [0, 72, 360, 720][rng.random_range(0..4)], start }
    }
}
