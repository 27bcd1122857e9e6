//! The ledger against charges computed by hand and against a sum over every single second.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::simulation::market::fleet::{Fact, Fleet, Launched, Timing};
use crate::simulation::market::{Market, seeded};

fn order(kind: CapacityKind, pool: PoolKey) -> Order {
    let tags = [("purser.dev/claim".to_owned(), "claim-1".to_owned())].into();
    Order { pool, kind, reservation: None, token: "t".into(), image: "ami".into(), subnet: "subnet".into(), tags }
}

fn time(text: &str) -> DateTime<Utc> {
    format!("2026-01-01T{text}Z").parse().unwrap()
}

fn usd(text: &str) -> MoneyPerHour {
    MoneyPerHour::usd(text).unwrap()
}

/// One machine from `running` to `end`, at a price, with spot price changes.
fn history(kind: CapacityKind, running: &str, end: Option<(&str, EndReason)>, price: &str, changes: &[(&str, &str)]) -> Vec<Entry> {
    let pool = PoolKey::new("g5.xlarge", "us-east-1a");
    let instance = "i-1".to_owned();
    let fact = |at: &str, what: What| Fact { at: time(at), what };
    let mut facts = vec![
        fact("00:00:00", What::Launched(Box::new(Launched { instance: instance.clone(), order: order(kind, pool.clone()) }))),
        fact(running, What::Running { instance: instance.clone(), price: usd(price) }),
    ];
    facts.extend(changes.iter().map(|(at, price)| fact(at, What::Priced { pool: pool.clone(), price: usd(price) })));
    facts.extend(end.map(|(at, reason)| fact(at, What::Ending { instance, reason })));
    facts.into_iter().map(Entry::Fleet).collect()
}

fn total(entries: &[Entry]) -> String {
    ledger(entries, time("23:00:00")).total
}

const USER: EndReason = EndReason::User;

#[test]
fn a_machine_is_charged_by_the_second_in_each_clock_hour() {
    let entries = history(CapacityKind::OnDemand, "00:30:00", Some(("02:00:01", USER)), "3.6", &[]);
    let ledger = ledger(&entries, time("23:00:00"));
    assert_eq!(ledger.rows.iter().map(|row| row.charge.as_str()).collect::<Vec<_>>(), ["1.8", "3.6", "0.001"]);
    assert_eq!(ledger.total, "5.401");
    assert_eq!(ledger.rows[0].claim.as_deref(), Some("claim-1"));
}

#[test]
fn less_than_a_minute_costs_a_minute_across_the_hour_and_the_price() {
    // 10 s at 3.6, 20 s at 7.2 up to its end, 30 s more as if it had run on.
    let entries = history(CapacityKind::Spot, "00:59:50", Some(("01:00:20", USER)), "3.6", &[("01:00:00", "7.2")]);
    assert_eq!(total(&entries), "0.11");
}

#[test]
fn spot_that_ec2_interrupts_within_the_first_hour_is_free_and_later_is_not() {
    let interrupted = |end: &str| total(&history(CapacityKind::Spot, "00:10:00", Some((end, EndReason::Interrupted)), "3.6", &[]));
    assert_eq!(interrupted("01:09:59"), "0");
    assert_eq!(interrupted("01:10:00"), "3.6");
    assert_eq!(total(&history(CapacityKind::Spot, "00:10:00", Some(("01:09:59", USER)), "3.6", &[])), "3.599");
}

#[test]
fn reserved_machines_cost_nothing_more_and_what_never_ran_nothing() {
    assert_eq!(total(&history(CapacityKind::Reserved, "00:10:00", Some(("02:00:00", USER)), "0", &[])), "0");
    let pending = &history(CapacityKind::OnDemand, "00:10:00", None, "3.6", &[])[..1];
    assert!(ledger(pending, time("01:00:00")).rows.is_empty());
}

#[test]
fn a_machine_that_runs_is_charged_until_now() {
    let entries = history(CapacityKind::OnDemand, "00:10:00", None, "3.6", &[]);
    let open = ledger(&entries, time("00:20:00"));
    assert_eq!((open.total.as_str(), open.rows[0].is_open), ("0.6", true));
}

#[test]
fn pieces_are_rounded_half_to_even_at_eighteen_decimals() {
    assert_eq!([charge(1, 1_800), charge(3, 1_800), charge(1, 1_801), charge(1, 1_799)], [0, 2, 1, 0]);
}

/// Some launches and ends on a seeded market.
fn live(market: &Arc<Market>, steps: &[(usize, u32, i64, bool)]) -> Fleet {
    let mut fleet = Fleet::new(market.clone(), Timing::default());
    for (pool, count, seconds, is_spot) in steps {
        let key = market.pools.keys().nth(*pool).unwrap().clone();
        let kind = if *is_spot { CapacityKind::Spot } else { CapacityKind::OnDemand };
        fleet.launch(&order(kind, key), *count);
        fleet.advance(fleet.now() + TimeDelta::seconds(*seconds));
        let ended: Vec<String> = fleet.live().step_by(3).map(|found| found.id.clone()).collect();
        fleet.terminate(&ended);
    }
    fleet
}

/// Price × seconds of every second charged, in atoms × 3600, and the pieces that the ledger may round.
fn second_by_second(fleet: &Fleet, market: &Market) -> (i128, i128) {
    let (mut sum, mut pieces) = (0, 0);
    for found in fleet.instances() {
        let Some(from) = found.running_at else { continue };
        let (until, reason) = found.ending.map_or((fleet.now(), None), |(at, reason)| (at.max(from + TimeDelta::seconds(60)), Some((at, reason))));
        let is_spot = found.order.kind == CapacityKind::Spot;
        if is_spot && reason.is_some_and(|(at, reason)| reason == EndReason::Interrupted && (at - from).num_seconds() < 3_600) {
            continue;
        }
        let mut before = None;
        for second in 0..(until - from).num_seconds() {
            let at = from + TimeDelta::seconds(second);
            let pool = &market.pools[&found.order.pool];
            let price = if is_spot { *pool.spot_price.at(market.second(at)) } else { pool.on_demand_price };
            sum += price.per_hour().atoms();
            let piece = (price, at.timestamp() / 3_600);
            pieces += i128::from(before.replace(piece) != Some(piece));
        }
    }
    (sum, pieces)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_total_is_the_sum_over_every_second(steps in prop::collection::vec((0_usize..21, 1_u32..4, 1_i64..9_000, any::<bool>()), 1..12)) {
        static MARKET: std::sync::OnceLock<Arc<Market>> = std::sync::OnceLock::new();
        let market = MARKET.get_or_init(|| Arc::new(seeded::market(3, time("00:00:17"))));
        let mut fleet = live(market, &steps);
        // Prices of the minute that short runs are charged after their end must be known.
        fleet.advance(fleet.now() + TimeDelta::seconds(60));
        let entries: Vec<Entry> = fleet.take_news().into_iter().map(Entry::Fleet).collect();
        let found = ledger(&entries, fleet.now());
        let charged: i128 = found.rows.iter().map(|row| row.atoms).sum();
        let (exact, pieces) = second_by_second(&fleet, market);
        prop_assert!((charged * 3_600 - exact).abs() <= 1_800 * pieces, "{} against {}/3600 in {} pieces", charged, exact, pieces);
        prop_assert_eq!(found.rows.iter().map(|row| row.segments.len() as i128).sum::<i128>() - free_segments(&found), pieces);
    }
}

fn free_segments(ledger: &Ledger) -> i128 {
    ledger.rows.iter().filter(|row| row.free.is_some()).map(|row| row.segments.len() as i128).sum()
}

/// The other ledger: claims as the operator would record them, closed hour by hour by `crate::cost`. Of the twin's code only
/// the market is used, of ours nothing of the twin's ledger.
mod metered {
    use super::*;
    use crate::capacity::claim::ClaimStatus;
    use crate::capacity::{Claim, ClaimPhase, ClaimRecord, ClaimedInstance, End, EndCause, Offer, PriceSegment, Provider};
    use crate::cost::{Bookings, Meter, PriceBook};
    use crate::simulation::market::fleet::Instance;
    use crate::training::JobRef;

    #[derive(Default)]
    pub struct Metered {
        pub booked: Bookings,
        pub by_instance: BTreeMap<String, Money>,
        window: Option<DateTime<Utc>>,
    }

    impl Metered {
        /// Closes every hour that can be closed with what is known now.
        pub fn close(&mut self, fleet: &Fleet) {
            let claims: Vec<Claim> = fleet.instances().iter().map(|found| claim(found, fleet)).collect();
            let prices = prices(&claims, fleet);
            let mut window = self.window.unwrap_or(hour_of(fleet.market().epoch));
            loop {
                let meter = Meter { claims: &claims, prices: &prices, booked: &self.booked, grace: TimeDelta::days(9) };
                let Ok(rows) = meter.close(window, fleet.now()) else { break };
                self.booked.add_rows(&rows).unwrap();
                for row in rows {
                    let sum = self.by_instance.entry(row.resource).or_insert(Money::ZERO_USD);
                    *sum = sum.checked_add(row.cost).unwrap();
                }
                window = next_hour(window);
            }
            self.window = Some(window);
        }
    }

    fn claim(found: &Instance, fleet: &Fleet) -> Claim {
        let pool = &fleet.market().pools[&found.order.pool];
        let end = found.ending.map(|(at, reason)| End {
            at,
            cause: match (found.running_at, reason) {
                (None, _) => EndCause::NeverRan,
                (_, EndReason::User) => EndCause::Terminated,
                (_, EndReason::Interrupted) => EndCause::Interrupted,
            },
            estimated: false,
        });
        let instance = ClaimedInstance {
            id: found.id.clone(),
            node: None,
            launched_at: found.launched_at,
            running_at: found.running_at,
            notice: None,
            seen_alive_at: found.is_live().then(|| fleet.now()),
            release_asked_at: None,
            end,
        };
        let (zone, instance_type) = (found.order.pool.zone.clone(), found.order.pool.instance_type.clone());
        let record = ClaimRecord {
            job: JobRef { namespace: "n".into(), name: "j".into(), uid: "u".into() },
            generation: 1,
            experiment: "e".into(),
            team: None,
            attempt: 1,
            ask: 1,
            pool: "p".into(),
            offer: Offer { provider: Provider::Aws, instance_type, zone, kind: found.order.kind, price: pool.on_demand_price, reservation: None },
            count: 1,
            decided_at: found.launched_at,
            nodes: Vec::new(),
            slots: Vec::new(),
            request: String::new(),
        };
        let status = ClaimStatus { phase: ClaimPhase::Granted, instances: vec![instance], ..ClaimStatus::default() };
        Claim { name: format!("claim-{}", found.id), uid: found.id.clone(), written_at_real: found.launched_at, record, status }
    }

    /// As DescribeSpotPriceHistory tells: the price in force at the first launch, and every change up to now.
    fn prices(claims: &[Claim], fleet: &Fleet) -> PriceBook {
        let market = fleet.market();
        let mut book = PriceBook::default();
        for need in crate::cost::prices::needs(claims) {
            let history = &market.pools[&PoolKey::new(need.offer.instance_type.clone(), need.offer.zone.clone())].spot_price;
            let (first, last) = (market.second(need.from), market.second(fleet.now()));
            let in_force = std::iter::once((first, history.at(first)));
            let segment = |(second, price): (i64, &MoneyPerHour)| PriceSegment { from: market.time(second), price: *price };
            book.record(&need.offer, in_force.chain(history.changes(first, last)).map(segment).collect());
        }
        book
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_two_ledgers_agree_on_every_machine_to_the_last_digit(
        seed in 0_u64..1_000,
        steps in prop::collection::vec((0_usize..21, 1_u32..4, 1_i64..9_000, any::<bool>()), 1..12),
    ) {
        let market = Arc::new(seeded::market(seed, time("00:00:17")));
        let mut fleet = Fleet::new(market.clone(), Timing::default());
        let mut metered = metered::Metered::default();
        for (pool, count, seconds, is_spot) in steps {
            let key = market.pools.keys().nth(pool % market.pools.len()).unwrap().clone();
            fleet.launch(&order(if is_spot { CapacityKind::Spot } else { CapacityKind::OnDemand }, key), count);
            fleet.advance(fleet.now() + TimeDelta::seconds(seconds));
            metered.close(&fleet);
            let ended: Vec<String> = fleet.live().step_by(3).map(|found| found.id.clone()).collect();
            fleet.terminate(&ended);
        }
        let rest: Vec<String> = fleet.live().map(|found| found.id.clone()).collect();
        fleet.terminate(&rest);
        // The hour of the last end, and the one that a minute may reach into.
        fleet.advance(fleet.now() + TimeDelta::hours(3));
        metered.close(&fleet);

        let entries: Vec<Entry> = fleet.take_news().into_iter().map(Entry::Fleet).collect();
        let judge = ledger(&entries, fleet.now());
        let mut by_instance: BTreeMap<String, i128> = BTreeMap::new();
        judge.rows.iter().for_each(|row| *by_instance.entry(row.instance.clone()).or_default() += row.atoms);
        for found in fleet.instances() {
            let ours = metered.by_instance.get(&found.id).map_or(0, Money::atoms);
            prop_assert_eq!(ours, by_instance.get(&found.id).copied().unwrap_or(0), "{}", found.id);
        }
    }
}
