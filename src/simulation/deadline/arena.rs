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

/// A market as one job sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Arena {
    pub tick_seconds: i64,
    pub ticks: usize,
    /// Spot seats by zone name, then on-demand seats by price.
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

    pub fn spot_seats(&self) -> usize {
        self.seats.iter().filter(|seat| seat.kind == CapacityKind::Spot).count()
    }

    pub fn transfer(&self, from: Option<usize>, to: usize) -> f64 {
        from.and_then(|from| self.transfer.get(from)?.get(to).copied()).unwrap_or_default()
    }
}
