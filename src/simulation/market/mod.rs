//! A market of machines: how many of each type a zone can give at each second, at which price.
//!
//! A [`Market`] comes from measured traces ([`trace`]), from a seed ([`seeded`]), from a price list ([`catalogue`]) or from code ([`demo`]); [`fleet`] is what
//! was bought on it and what becomes of that. Pure: times come in, nothing here reads a clock.
//!
//! ```text
//!  trace · seeded · demo → Market ← Fleet (buy, end, advance) → facts → purser twin
//! ```

pub mod catalogue;
pub mod demo;
pub mod fleet;
pub mod machines;
pub mod seeded;
pub mod steps;
pub mod trace;

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

pub use fleet::Fleet;
pub use machines::MachineType;
pub use steps::Steps;

use crate::units::MoneyPerHour;

/// One instance type in one zone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PoolKey {
    pub instance_type: String,
    pub zone: String,
}

impl PoolKey {
    pub fn new(instance_type: impl Into<String>, zone: impl Into<String>) -> PoolKey {
        PoolKey { instance_type: instance_type.into(), zone: zone.into() }
    }

    pub fn region(&self) -> &str {
        region_of(&self.zone)
    }
}

impl fmt::Display for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.instance_type, self.zone)
    }
}

/// What one pool can give over time, in seconds since the market's epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    pub spot_capacity: Steps<u32>,
    /// Unlimited where absent.
    pub on_demand_capacity: Option<Steps<u32>>,
    pub spot_price: Steps<MoneyPerHour>,
    pub on_demand_price: MoneyPerHour,
}

/// An On-Demand Capacity Reservation: machines that are paid for already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// `cr-…`
    pub id: String,
    pub pool: PoolKey,
    pub count: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Market {
    /// As it was asked for, for example `demo`, `seed:7` or `trace:FILE#GROUP`.
    pub name: String,
    /// Second 0.
    pub epoch: DateTime<Utc>,
    pub types: BTreeMap<String, MachineType>,
    pub pools: BTreeMap<PoolKey, Pool>,
    pub reservations: Vec<Reservation>,
}

impl Market {
    pub fn second(&self, at: DateTime<Utc>) -> i64 {
        (at - self.epoch).num_seconds()
    }

    pub fn time(&self, second: i64) -> DateTime<Utc> {
        self.epoch + TimeDelta::seconds(second)
    }

    pub fn pool(&self, key: &PoolKey) -> Option<&Pool> {
        self.pools.get(key)
    }

    pub fn zones(&self) -> Vec<&str> {
        let mut zones: Vec<&str> = self.pools.keys().map(|key| key.zone.as_str()).collect();
        zones.sort_unstable();
        zones.dedup();
        zones
    }

    pub fn regions(&self) -> Vec<&str> {
        let mut regions: Vec<&str> = self.zones().into_iter().map(region_of).collect();
        regions.dedup();
        regions
    }

    pub fn reservation(&self, id: &str) -> Option<&Reservation> {
        self.reservations.iter().find(|reservation| reservation.id == id)
    }

    pub fn spot_price(&self, key: &PoolKey, at: DateTime<Utc>) -> Option<MoneyPerHour> {
        self.pool(key).map(|pool| *pool.spot_price.at(self.second(at)))
    }
}

/// `us-east-1a` and `us-central1-a` → their region.
pub fn region_of(zone: &str) -> &str {
    let without_letter = zone.strip_suffix(|letter: char| letter.is_ascii_lowercase()).unwrap_or(zone);
    without_letter.strip_suffix('-').unwrap_or(without_letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_of_both_clouds_know_their_region() {
        assert_eq!(region_of("us-east-1a"), "us-east-1");
        assert_eq!(region_of("us-central1-a"), "us-central1");
    }
}
