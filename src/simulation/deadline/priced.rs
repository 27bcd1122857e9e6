//! Runs on prices that differ and move: traces with a price file, gangs of several sizes, regions with data to move.
//!
//! Costs are USD. A gang sits in a zone as a whole or not at all: the zone is up for a gang of n in a tick in which n machines
//! could be had, and n machines are paid. Every region has one on-demand seat, at its own price.

use std::collections::BTreeMap;

use super::cases::{self, Case, Cases, Grid};
use super::{Arena, Seat, arena::FULL_SPEED};
use crate::capacity::CapacityKind;
use crate::simulation::market::region_of;
use crate::simulation::market::trace::{PriceSeries, Series};
use crate::units::MoneyPerHour;

/// Sizes of gangs; a trace that asked for fewer machines has the smaller ones only.
pub const GANGS: [u32; 5] = [1, 2, 4, 8, 16];
/// Checkpoint and optimiser state of a model of 7e9 parameters, at 14 bytes each (2 for weights, 12 for the 32-bit copy and Adam's two moments).
pub const DATA_GB: f64 = 98.0;
/// Of work, whatever the trace.
const WORK_SECONDS: i64 = 48 * 3600;

/// USD per GB between two regions of one continent (us, europe), from "Data transfer between regions" of EC2's and of
/// Google's network price lists; between America and Europe; and where Asia is one end.
const NEAR: f64 = 0.02;
const ATLANTIC: f64 = 0.05;
const ASIA: f64 = 0.08;

/// Every run of the grid over the traces that have prices; groups are `kind/nodes/trace/device/{all,REGION}/gang-N` (without
/// the place where zones are by themselves).
pub fn priced(series: &[Series], prices: &[PriceSeries], grid: &Grid, data_gb: f64) -> Cases {
    let priced: Vec<Series> = series.iter().filter(|one| price_of(one, prices).is_some()).cloned().collect();
    let mut all = Cases::default();
    for (name, _, zones) in cases::groups(&priced, grid.zones) {
        let asked = cases::nodes(zones[0]);
        for gang in GANGS.into_iter().filter(|gang| *gang <= asked) {
            let arena = arena(&zones, prices, gang, data_gb);
            let cases = cases::cases_on(&format!("{name}/gang-{gang}"), WORK_SECONDS, &arena, all.arenas.len(), grid);
            all.cases.extend::<Vec<Case>>(cases);
            all.arenas.push(arena);
        }
    }
    all
}

fn price_of<'a>(series: &Series, prices: &'a [PriceSeries]) -> Option<&'a PriceSeries> {
    let key = &series.key;
    prices.iter().find(|price| (&price.trace, &price.zone, &price.device) == (&key.trace, &key.zone, &key.device))
}

fn arena(zones: &[&Series], prices: &[PriceSeries], gang: u32, data_gb: f64) -> Arena {
    let gap = zones[0].gap_seconds;
    let ticks = zones.iter().map(|zone| zone.values.len()).min().unwrap_or_default();
    // What a tick costs the gang.
    let tick_price = |price: MoneyPerHour| price.per_hour().approximate() * f64::from(gang) * f64::from(gap) / 3600.0;
    let mut regions: BTreeMap<&str, f64> = BTreeMap::new();
    for (zone, price) in zones.iter().filter_map(|zone| Some((zone, price_of(zone, prices)?))) {
        let on_demand = regions.entry(region_of(&zone.key.zone)).or_insert(f64::INFINITY);
        *on_demand = on_demand.min(tick_price(price.on_demand));
    }
    let names: Vec<&str> = regions.keys().copied().collect();
    let number = |region: &str| names.iter().position(|name| *name == region).unwrap_or_default();
    let spot = |zone: &&Series| {
        let price = price_of(zone, prices)?;
        let at = |tick: usize| price.spot.get(tick * gap as usize / price.gap_seconds as usize).or(price.spot.last()).copied();
        Some(Seat {
            zone: zone.key.zone.clone(),
            region: number(region_of(&zone.key.zone)),
            kind: CapacityKind::Spot,
            up: zone.values[..ticks].iter().map(|value| *value >= gang).collect(),
            price: (0..ticks).filter_map(|tick| Some(tick_price(at(tick)?))).collect(),
            speed_permille: FULL_SPEED,
        })
    };
    let on_demand = |(region, price): (&&str, &f64)| Seat {
        zone: (*region).to_owned(),
        region: number(region),
        kind: CapacityKind::OnDemand,
        up: Vec::new(),
        price: vec![*price],
        speed_permille: FULL_SPEED,
    };
    let mut seats: Vec<Seat> = zones.iter().filter_map(spot).collect();
    let mut always: Vec<Seat> = regions.iter().map(on_demand).collect();
    always.sort_by(|a, b| a.price(0).total_cmp(&b.price(0)));
    seats.extend(always);
    let transfer = names.iter().map(|from| names.iter().map(|to| usd_per_gb(from, to) * data_gb).collect()).collect();
    Arena { tick_seconds: i64::from(gap), ticks, seats, transfer }
}

fn usd_per_gb(from: &str, to: &str) -> f64 {
    let continent = |region: &str| match region.split('-').next() {
        Some("us" | "ca" | "northamerica") => Continent::America,
        Some("eu" | "europe") => Continent::Europe,
        Some(_) | None => Continent::Asia,
    };
    match (continent(from), continent(to)) {
        _ if from == to => 0.0,
        (Continent::America, Continent::America) | (Continent::Europe, Continent::Europe) => NEAR,
        (Continent::America, Continent::Europe) | (Continent::Europe, Continent::America) => ATLANTIC,
        (Continent::Asia, _) | (_, Continent::Asia) => ASIA,
    }
}

/// As far as transfer prices go: what is neither of the first two pays the dearest.
enum Continent {
    America,
    Europe,
    Asia,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::market::trace;

    const TRACES: &str = "kind,nodes,trace,zone,device,gap_s,start_tick,ticks,value
availability,4-node,t,europe-west1-c,h100_1,600,0,400,4
availability,4-node,t,us-east4-a,h100_1,600,0,300,1
availability,4-node,t,us-east4-a,h100_1,600,300,100,3
availability,4-node,t,us-east4-b,h100_1,600,0,400,0
";
    const PRICES: &str = "trace,zone,device,gap_s,start_tick,ticks,spot_usd_h,on_demand_usd_h
t,europe-west1-c,h100_1,600,0,400,6,12
t,us-east4-a,h100_1,1200,0,100,3,9
t,us-east4-a,h100_1,1200,100,100,1.5,9
";

    fn cases() -> Cases {
        let grid = Grid { zones: cases::Zones::Multi, job_fractions: vec![0.8], overheads: vec![360], starts: 1, duration_error: 0.0 };
        priced(&trace::series(TRACES).unwrap(), &trace::prices(PRICES).unwrap(), &grid, 100.0)
    }

    #[test]
    fn a_gang_pays_all_its_machines_and_is_up_only_where_all_can_be_had() {
        let cases = cases();
        let groups: Vec<&str> = cases.cases.iter().map(|case| case.group.as_str()).collect();
        assert_eq!(groups, ["availability/4-node/t/h100_1/all/gang-1", "availability/4-node/t/h100_1/all/gang-2", "availability/4-node/t/h100_1/all/gang-4"]);
        let pair = &cases.arenas[1];
        let virginia = pair.seats.iter().find(|seat| seat.zone == "us-east4-a").unwrap();
        assert_eq!((virginia.is_up(299), virginia.is_up(300)), (false, true));
        assert_eq!((virginia.price(199), virginia.price(200)), (1.0, 0.5), "two machines for a sixth of an hour; prices in ticks of their own");
    }

    #[test]
    fn zones_without_a_price_are_left_out_and_each_region_has_its_on_demand_seat() {
        let arena = &cases().arenas[0];
        let seats: Vec<(&str, CapacityKind, f64)> = arena.seats.iter().map(|seat| (seat.zone.as_str(), seat.kind, seat.price(0))).collect();
        let expected = [
            ("europe-west1-c", CapacityKind::Spot, 1.0),
            ("us-east4-a", CapacityKind::Spot, 0.5),
            ("us-east4", CapacityKind::OnDemand, 1.5),
            ("europe-west1", CapacityKind::OnDemand, 2.0),
        ];
        assert_eq!(seats, expected);
        assert_eq!(arena.transfer, [[0.0, 5.0], [5.0, 0.0]]);
    }
}
