//! The market of the demo: three zones of us-east-1 whose spot capacity comes and goes in a fixed rhythm.
//!
//! Made so that in the first market hours everything happens that Purser must live with: the cheapest zone interrupts
//! everybody after 95 minutes, the second one after three hours, large GPU machines have hardly any spot, and two machines
//! are reserved.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{Market, Pool, PoolKey, Reservation, Steps, machines};
use crate::units::money::ATOMS_PER_UNIT;
use crate::units::{Money, MoneyPerHour};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
/// The rhythm begins again after so long.
const PERIOD: i64 = 12 * HOUR;

/// The reservation of the demo: two g5.xlarge in us-east-1c.
pub const RESERVATION: &str = "cr-0de30000000000001";

pub fn market(epoch: DateTime<Utc>) -> Market {
    let mut market = Market { name: "demo".into(), epoch, types: BTreeMap::new(), pools: BTreeMap::new(), reservations: Vec::new() };
    for (name, zones) in shape() {
        let machine = machines::known(name).expect("the demo offers machines of the table only");
        for (zone, capacity, spot_price) in zones {
            let pool = Pool {
                spot_capacity: capacity.repeating(PERIOD),
                on_demand_capacity: None,
                spot_price: spot_price.repeating(PERIOD),
                on_demand_price: machine.on_demand,
            };
            market.pools.insert(PoolKey::new(name, zone), pool);
        }
        market.types.insert(name.to_owned(), machine);
    }
    market.reservations.push(Reservation { id: RESERVATION.into(), pool: PoolKey::new("g5.xlarge", "us-east-1c"), count: 2 });
    market
}

type Zone = (&'static str, Steps<u32>, Steps<MoneyPerHour>);

fn shape() -> [(&'static str, [Zone; 3]); 5] {
    let (a, b, c) = ("us-east-1a", "us-east-1b", "us-east-1c");
    [
        (
            "g5.xlarge",
            [
                (a, up_to(8, 95 * MINUTE, 75 * MINUTE), price(3_568).then(2 * HOUR, usd(3_902)).then(5 * HOUR, usd(3_611))),
                (b, up_to(4, 3 * HOUR, 50 * MINUTE), price(3_786).then(HOUR, usd(3_844)).then(4 * HOUR, usd(3_797))),
                (c, up_to(2, 8 * HOUR, 2 * HOUR), price(4_172)),
            ],
        ),
        (
            "g5.12xlarge",
            [
                (a, Steps::constant(0).then(7 * HOUR, 1).then(8 * HOUR, 0), price(20_347)),
                (b, Steps::constant(1).then(40 * MINUTE, 0).then(6 * HOUR, 1), price(22_346).then(30 * MINUTE, usd(24_648))),
                (c, Steps::constant(0), price(23_214)),
            ],
        ),
        (
            "g4dn.xlarge",
            [
                (a, up_to(6, 130 * MINUTE, 40 * MINUTE), price(1_750)),
                (b, up_to(6, 5 * HOUR, HOUR), price(1_769).then(3 * HOUR, usd(1_863))),
                (c, Steps::constant(2), price(1_947)),
            ],
        ),
        (
            "m6i.xlarge",
            [
                (a, up_to(16, 100 * MINUTE, 30 * MINUTE), price(697).then(90 * MINUTE, usd(744))),
                (b, up_to(16, 4 * HOUR, 30 * MINUTE), price(818)),
                (c, up_to(8, 7 * HOUR, 30 * MINUTE), price(858).then(2 * HOUR, usd(829))),
            ],
        ),
        (
            "m6i.4xlarge",
            [
                (a, up_to(4, 2 * HOUR, HOUR), price(2_788)),
                (b, up_to(4, 6 * HOUR, HOUR), price(3_272)),
                (c, up_to(4, 9 * HOUR, HOUR), price(3_432)),
            ],
        ),
    ]
}

/// `most` machines, none from `gone_at` on for `gone_for` seconds.
fn up_to(most: u32, gone_at: i64, gone_for: i64) -> Steps<u32> {
    Steps::constant(most).then(gone_at, 0).then(gone_at + gone_for, most)
}

fn price(ten_thousandths: i128) -> Steps<MoneyPerHour> {
    Steps::constant(usd(ten_thousandths))
}

fn usd(ten_thousandths: i128) -> MoneyPerHour {
    MoneyPerHour(Money::usd_atoms(ten_thousandths * (ATOMS_PER_UNIT / 10_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_zone_of_the_demo_interrupts_within_two_hours() {
        let market = market(DateTime::UNIX_EPOCH);
        let cheapest = &market.pools[&PoolKey::new("g5.xlarge", "us-east-1a")];
        assert_eq!(cheapest.spot_capacity.next_fall(0, 2 * HOUR), Some((95 * MINUTE, 0)));
        assert!(market.pools.values().all(|pool| pool.spot_price.at(0).per_hour() < pool.on_demand_price.per_hour()));
        assert_eq!(market.zones(), ["us-east-1a", "us-east-1b", "us-east-1c"]);
    }
}
