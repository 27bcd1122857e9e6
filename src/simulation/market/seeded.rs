//! A market made from a seed.
//!
//! Spot comes and goes as in published measurements of V100, K80 and CPU pools: lengths of being up and of being gone are
//! log-normal. Over some twenty measured pools the median stay was half an hour to an hour with σ of the logarithm 1.1 to
//! 1.7, the median gap 10 to 45 minutes with σ 0.8 to 1.6; [`Rhythm::default`] lies in the middle. Each zone draws its own
//! medians around these, so that there are good and bad zones. While a pool is up it gives 1 to 16 machines.
//!
//! Prices begin at 30 to 50 % of on-demand and move every few hours: a step back to their mean plus noise, between 15 and
//! 90 % of on-demand. After [`HORIZON_SECONDS`] all of it begins again.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::machines::floor_to_quote;
use super::{MachineType, Market, Pool, PoolKey, Steps, machines};
use crate::units::{Money, MoneyPerHour};

/// Sixty days.
pub const HORIZON_SECONDS: i64 = 60 * 86_400;

const TYPES: [&str; 7] = ["c6i.2xlarge", "g4dn.xlarge", "g5.12xlarge", "g5.xlarge", "m6i.4xlarge", "m6i.xlarge", "p3.2xlarge"];
const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];

/// How a pool comes and goes; seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rhythm {
    pub up_median: f64,
    pub up_sigma: f64,
    pub gone_median: f64,
    pub gone_sigma: f64,
    /// σ of the logarithm by which a zone's medians differ from these.
    pub zone_sigma: f64,
    pub machines_max: u32,
}

impl Default for Rhythm {
    fn default() -> Rhythm {
        Rhythm { up_median: 3_000.0, up_sigma: 1.4, gone_median: 1_500.0, gone_sigma: 1.2, zone_sigma: 0.5, machines_max: 16 }
    }
}

/// The same seed gives the same market. Types: small and large GPU and CPU machines; zones: us-east-1a to c.
pub fn market(seed: u64, epoch: DateTime<Utc>) -> Market {
    with_rhythm(seed, epoch, Rhythm::default())
}

pub fn with_rhythm(seed: u64, epoch: DateTime<Utc>, rhythm: Rhythm) -> Market {
    let mut random = ChaCha12Rng::seed_from_u64(seed);
    let mut market = Market { name: format!("seed:{seed}"), epoch, types: BTreeMap::new(), pools: BTreeMap::new(), reservations: Vec::new() };
    for name in TYPES {
        let machine = machines::known(name).expect("seeded markets offer machines of the table only");
        for zone in ZONES {
            market.pools.insert(PoolKey::new(name, zone), pool(&mut random, &machine, rhythm));
        }
        market.types.insert(name.to_owned(), machine);
    }
    market
}

fn pool(random: &mut ChaCha12Rng, machine: &MachineType, rhythm: Rhythm) -> Pool {
    Pool {
        spot_capacity: capacity(random, rhythm).repeating(HORIZON_SECONDS),
        on_demand_capacity: None,
        spot_price: price(random, machine.on_demand).repeating(HORIZON_SECONDS),
        on_demand_price: machine.on_demand,
    }
}

fn capacity(random: &mut ChaCha12Rng, rhythm: Rhythm) -> Steps<u32> {
    let up_median = rhythm.up_median * log_normal(random, 1.0, rhythm.zone_sigma);
    let gone_median = rhythm.gone_median * log_normal(random, 1.0, rhythm.zone_sigma);
    let mut up = random.random_bool(up_median / (up_median + gone_median));
    let mut steps = Steps::constant(0);
    let mut second = 0;
    while second < HORIZON_SECONDS {
        let (machines, length) = if up {
            (random.random_range(1..=rhythm.machines_max.max(1)), log_normal(random, up_median, rhythm.up_sigma))
        } else {
            (0, log_normal(random, gone_median, rhythm.gone_sigma))
        };
        if second == 0 {
            steps = Steps::constant(machines);
        } else {
            steps.push(second, machines);
        }
        // Shorter than two minutes nobody could use or notice.
        second += (length as i64).max(120);
        up = !up;
    }
    steps
}

fn price(random: &mut ChaCha12Rng, on_demand: MoneyPerHour) -> Steps<MoneyPerHour> {
    let mean = random.random_range(0.30..0.50);
    let mut share: f64 = mean;
    let mut steps = Steps::constant(part_of(on_demand, share));
    let mut second = 0;
    loop {
        second += random.random_range(2 * 3_600..8 * 3_600);
        if second >= HORIZON_SECONDS {
            return steps;
        }
        share = (share + 0.2 * (mean - share) + 0.02 * normal(random)).clamp(0.15, 0.90);
        steps.push(second, part_of(on_demand, share));
    }
}

/// A share of the on-demand price in EC2's four decimals; the share is kept to a millionth, so no rounding of floats is seen.
fn part_of(on_demand: MoneyPerHour, share: f64) -> MoneyPerHour {
    let millionths = (share * 1e6) as i128;
    MoneyPerHour(Money::usd_atoms(floor_to_quote(on_demand.per_hour().atoms() / 1_000_000 * millionths)))
}

fn log_normal(random: &mut ChaCha12Rng, median: f64, sigma: f64) -> f64 {
    median * (sigma * normal(random)).exp()
}

/// Box–Muller.
fn normal(random: &mut ChaCha12Rng) -> f64 {
    let (radius, angle): (f64, f64) = (random.random_range(f64::EPSILON..1.0), random.random_range(0.0..std::f64::consts::TAU));
    (-2.0 * radius.ln()).sqrt() * angle.cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_market_and_another_seed_another() {
        let epoch = DateTime::UNIX_EPOCH;
        assert_eq!(market(7, epoch), market(7, epoch));
        assert_ne!(market(7, epoch).pools, market(8, epoch).pools);
    }

    #[test]
    fn spot_is_cheaper_than_on_demand_and_up_some_of_the_time() {
        for (key, pool) in market(1, DateTime::UNIX_EPOCH).pools {
            assert!(pool.spot_price.changes(0, HORIZON_SECONDS).all(|(_, price)| *price < pool.on_demand_price), "{key}");
            let up = (0..1_000).filter(|index| *pool.spot_capacity.at(index * HORIZON_SECONDS / 1_000) > 0).count();
            assert!((100..=990).contains(&up), "{key} is up {up} of 1000 times");
        }
    }
}
