//! Properties of a fleet under any sequence of launches, ends and pauses.

use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;
use crate::simulation::market::{demo, seeded};

fn order(instance_type: &str, zone: &str, kind: CapacityKind) -> Order {
    Order {
        pool: PoolKey::new(instance_type, zone),
        kind,
        reservation: (kind == CapacityKind::Reserved).then(|| demo::RESERVATION.to_owned()),
        token: "t".into(),
        image: "ami-1".into(),
        subnet: format!("subnet-{zone}"),
        tags: BTreeMap::new(),
    }
}

fn demo_fleet() -> Fleet {
    Fleet::new(Arc::new(demo::market(DateTime::UNIX_EPOCH)), Timing::default())
}

fn after(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

#[test]
fn a_spot_machine_runs_after_its_boot_and_is_taken_back_with_two_minutes_notice() {
    let mut fleet = demo_fleet();
    fleet.advance(after(10));
    let ids = fleet.launch(&order("g5.xlarge", "us-east-1a", CapacityKind::Spot), 1);
    fleet.advance(after(7_200));
    let found = fleet.instance(&ids[0]).unwrap();
    assert_eq!(found.running_at, Some(after(70)));
    assert_eq!(found.rebalance_at, Some(after(5_700 - 300)));
    assert_eq!(found.warned_at, Some(after(5_700 - 120)));
    assert_eq!(found.ending, Some((after(5_700), EndReason::Interrupted)));
    assert_eq!(found.ended_at, Some(after(5_720)));
    assert_eq!(found.state_at(after(9)), None);
    assert_eq!(found.state_at(after(5_719)), Some(InstanceState::ShuttingDown));
}

#[test]
fn nobody_is_launched_into_the_last_two_minutes_of_a_pool() {
    let mut fleet = demo_fleet();
    let pool = PoolKey::new("g5.xlarge", "us-east-1a");
    fleet.advance(after(5_700 - 121));
    assert_eq!(fleet.room(&pool, CapacityKind::Spot, None), 8);
    fleet.advance(after(5_700 - 120));
    assert_eq!(fleet.room(&pool, CapacityKind::Spot, None), 0);
}

#[test]
fn a_reservation_gives_what_it_has_and_costs_nothing_more() {
    let mut fleet = demo_fleet();
    let reserved = order("g5.xlarge", "us-east-1c", CapacityKind::Reserved);
    assert_eq!(fleet.launch(&reserved, 3).len(), 2);
    assert_eq!(fleet.reservation_available(demo::RESERVATION), 0);
    fleet.advance(after(60));
    let prices = fleet.take_news().into_iter().filter_map(|fact| match fact.what {
        What::Running { price, .. } => Some(price),
        _ => None,
    });
    assert!(prices.into_iter().all(|price| price.per_hour().is_zero()));
    let first = fleet.instances()[0].id.clone();
    fleet.terminate(&[first]);
    assert_eq!(fleet.reservation_available(demo::RESERVATION), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Wait(i64),
    Launch { pool: usize, kind: CapacityKind, count: u32 },
    Terminate(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1_i64..4_000).prop_map(Step::Wait),
        4 => (0_usize..21, 1_u32..10).prop_map(|(pool, count)| Step::Launch { pool, kind: CapacityKind::Spot, count }),
        1 => (0_usize..21, 1_u32..3).prop_map(|(pool, count)| Step::Launch { pool, kind: CapacityKind::OnDemand, count }),
        2 => (0_usize..1_000).prop_map(Step::Terminate),
    ];
    prop::collection::vec(step, 1..60)
}

fn take(fleet: &mut Fleet, step: &Step) {
    match step {
        Step::Wait(seconds) => fleet.advance(fleet.now() + TimeDelta::seconds(*seconds)),
        Step::Launch { pool, kind, count } => {
            let key = fleet.market().pools.keys().nth(*pool).unwrap().clone();
            fleet.launch(&order(&key.instance_type, &key.zone, *kind), *count);
        }
        Step::Terminate(pick) => {
            if let Some(found) = fleet.instances().get(pick % fleet.instances().len().max(1)) {
                let id = found.id.clone();
                fleet.terminate(&[id]);
            }
        }
    }
}

/// Making sixty days of a market takes longer than a test case; three are enough.
fn seeded_market(seed: u64) -> Arc<Market> {
    static MARKETS: OnceLock<Vec<Arc<Market>>> = OnceLock::new();
    let markets = MARKETS.get_or_init(|| (0..3).map(|seed| Arc::new(seeded::market(seed, DateTime::UNIX_EPOCH))).collect());
    markets[seed as usize % markets.len()].clone()
}

fn run(market: &Arc<Market>, steps: &[Step], restart_before: Option<usize>) -> Vec<Fact> {
    let mut fleet = Fleet::new(market.clone(), Timing::default());
    let mut facts = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        if restart_before == Some(index) {
            let now = fleet.now();
            fleet = Fleet::replay(market.clone(), Timing::default(), &facts);
            fleet.advance(now);
        }
        take(&mut fleet, step);
        facts.append(&mut fleet.take_news());
    }
    facts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_fleet_continued_from_its_log_does_the_same(seed in 0_u64..3, steps in steps(), cut in 0_usize..60) {
        let market = seeded_market(seed);
        let whole = run(&market, &steps, None);
        let continued = run(&market, &steps, Some(cut % steps.len()));
        prop_assert_eq!(whole, continued);
    }

    #[test]
    fn capacity_is_never_exceeded_and_nothing_happens_to_the_ended(seed in 0_u64..3, steps in steps()) {
        let market = seeded_market(seed);
        let facts = run(&market, &steps, None);
        prop_assert!(facts.is_sorted_by_key(|fact| fact.at));
        let fleet = Fleet::replay(market.clone(), Timing::default(), &facts);
        for (key, pool) in &market.pools {
            let spot: Vec<&Instance> = fleet.instances().iter().filter(|found| found.order.pool == *key && found.order.kind == CapacityKind::Spot).collect();
            let moments = spot.iter().flat_map(|found| [Some(found.launched_at), found.ending.map(|(at, _)| at)]).flatten()
                .chain(pool.spot_capacity.changes(0, market.second(fleet.now())).map(|(second, _)| market.time(second)));
            for at in moments.filter(|at| *at <= fleet.now()) {
                let occupied = spot.iter().filter(|found| found.state_at(at).is_some_and(InstanceState::is_alive)).count();
                prop_assert!(occupied <= *pool.spot_capacity.at(market.second(at)) as usize, "{} at {}", key, at);
            }
        }
        for found in fleet.instances() {
            let times = [Some(found.launched_at), found.running_at, found.ending.map(|(at, _)| at), found.ended_at];
            prop_assert!(times.into_iter().flatten().is_sorted());
            if let Some((at, EndReason::Interrupted)) = found.ending {
                prop_assert_eq!(found.warned_at.map(|warned| at - warned), Some(TimeDelta::seconds(120)));
            }
        }
    }
}
