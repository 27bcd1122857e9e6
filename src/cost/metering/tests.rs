//! Metering as knowledge comes late, wrong or not at all.

use proptest::prelude::*;

use super::*;
use crate::capacity::{CapacityKind, ClaimRecord, End, Offer, PriceSegment, Provider};
use crate::training::JobRef;
use crate::units::MoneyPerHour;

fn at(text: &str) -> DateTime<Utc> {
    format!("2026-03-02T{text}Z").parse().unwrap()
}

fn usd(text: &str) -> Money {
    Money::usd(text).unwrap()
}

fn offer(kind: CapacityKind) -> Offer {
    let price = MoneyPerHour::usd("3.6").unwrap();
    Offer { provider: Provider::Aws, instance_type: "g5.xlarge".into(), zone: "us-east-1a".into(), kind, price, reservation: None }
}

fn claim(kind: CapacityKind, instances: Vec<ClaimedInstance>) -> Claim {
    let record = ClaimRecord {
        job: JobRef { namespace: "vision".into(), name: "bert".into(), uid: "u-1".into() },
        generation: 1,
        experiment: "sweep".into(),
        team: Some("research".into()),
        attempt: 1,
        ask: 1,
        pool: "gpu".into(),
        offer: offer(kind),
        count: instances.len() as u32,
        decided_at: at("10:00:00"),
        nodes: Vec::new(),
        slots: Vec::new(),
        request: String::new(),
    };
    let phase = if instances.iter().all(|instance| instance.end.is_some()) { ClaimPhase::Ended } else { ClaimPhase::Granted };
    let status = crate::capacity::claim::ClaimStatus { phase, instances, ..Default::default() };
    Claim { name: "claim-1".into(), uid: "c-1".into(), written_at_real: at("10:00:00"), record, status }
}

fn machine(running: &str) -> ClaimedInstance {
    ClaimedInstance {
        id: "i-1".into(),
        node: None,
        launched_at: at(running) - TimeDelta::seconds(30),
        running_at: Some(at(running)),
        notice: None,
        seen_alive_at: None,
        release_asked_at: None,
        end: None,
    }
}

fn ended(running: &str, end: &str, cause: EndCause) -> ClaimedInstance {
    ClaimedInstance { end: Some(End { at: at(end), cause, estimated: false }), ..machine(running) }
}

/// 3.6 an hour: a second costs 0.001.
fn flat(kind: CapacityKind) -> PriceBook {
    let mut prices = PriceBook::default();
    prices.record(&offer(kind), vec![PriceSegment { from: at("00:00:00"), price: MoneyPerHour::usd("3.6").unwrap() }]);
    prices
}

/// Closes one window late enough for grace only where `now` says so, and books its rows.
fn close(claim: &Claim, prices: &PriceBook, booked: &mut Bookings, window: &str, now: &str) -> Result<Vec<Charge>, NotYet> {
    let claims = std::slice::from_ref(claim);
    let rows = Meter { claims, prices, booked, grace: TimeDelta::minutes(10) }.close(at(window), at(now))?;
    booked.add_rows(&rows).unwrap();
    Ok(rows)
}

fn amounts(rows: &[Charge]) -> Vec<(Class, String)> {
    rows.iter().map(|row| (row.class, row.cost.decimal())).collect()
}

#[test]
fn a_window_waits_until_its_machines_are_seen_beyond_its_end_or_grace_is_over() {
    let (prices, mut booked) = (flat(CapacityKind::OnDemand), Bookings::default());
    let mut claim = claim(CapacityKind::OnDemand, vec![machine("10:50:00")]);
    assert_eq!(close(&claim, &prices, &mut booked, "10:00:00", "10:59:59"), Err(NotYet::Open { ends: at("11:00:00") }));
    assert!(matches!(close(&claim, &prices, &mut booked, "10:00:00", "11:00:01"), Err(NotYet::NotSeen { .. })));

    claim.status.instances[0].seen_alive_at = Some(at("10:55:00"));
    assert!(matches!(close(&claim, &prices, &mut booked, "10:00:00", "11:09:59"), Err(NotYet::NotSeen { .. })));
    let rows = close(&claim, &prices, &mut booked, "10:00:00", "11:10:00").unwrap();
    assert_eq!(amounts(&rows), [(Class::Regular, "0.3".into())], "charged as far as it was seen");
    assert!(rows[0].estimated);

    // It was alive after all: the missing five minutes come with the next window.
    claim.status.instances[0].seen_alive_at = Some(at("12:00:00"));
    let rows = close(&claim, &prices, &mut booked, "11:00:00", "12:00:00").unwrap();
    assert_eq!(amounts(&rows), [(Class::Regular, "3.6".into()), (Class::Correction { of: at("10:00:00") }, "0.3".into())]);
    assert!(rows.iter().all(|row| row.window == at("11:00:00") && !row.estimated));
}

#[test]
fn a_claim_whose_answer_is_not_recorded_holds_the_window_back() {
    let prices = flat(CapacityKind::Spot);
    let mut waiting = claim(CapacityKind::Spot, Vec::new());
    waiting.status.phase = ClaimPhase::Written;
    assert!(matches!(close(&waiting, &prices, &mut Bookings::default(), "10:00:00", "11:00:00"), Err(NotYet::Unanswered { .. })));
    assert!(close(&waiting, &prices, &mut Bookings::default(), "09:00:00", "11:00:00").unwrap().is_empty());
    assert!(close(&waiting, &prices, &mut Bookings::default(), "10:00:00", "11:10:00").unwrap().is_empty());
}

#[test]
fn spot_without_price_history_is_not_guessed() {
    let claim = claim(CapacityKind::Spot, vec![ended("10:00:00", "10:30:00", EndCause::Terminated)]);
    assert!(matches!(close(&claim, &PriceBook::default(), &mut Bookings::default(), "10:00:00", "20:00:00"), Err(NotYet::NoPrices { .. })));
}

#[test]
fn the_free_first_hour_of_an_interrupted_spot_takes_back_what_was_booked() {
    let (prices, mut booked) = (flat(CapacityKind::Spot), Bookings::default());
    let mut claim = claim(CapacityKind::Spot, vec![machine("10:50:00")]);
    claim.status.instances[0].seen_alive_at = Some(at("11:00:03"));
    assert_eq!(amounts(&close(&claim, &prices, &mut booked, "10:00:00", "11:00:05").unwrap()), [(Class::Regular, "0.6".into())]);

    claim.status.instances[0].end = Some(End { at: at("11:49:59"), cause: EndCause::Interrupted, estimated: false });
    let rows = close(&claim, &prices, &mut booked, "11:00:00", "12:00:00").unwrap();
    assert_eq!(amounts(&rows), [(Class::Correction { of: at("10:00:00") }, "-0.6".into())]);
    assert!(rows[0].description.contains("mends the hour from 2026-03-02 10:00 UTC"));
}

#[test]
fn the_minute_of_a_short_run_reaches_into_the_next_window() {
    let (prices, mut booked) = (flat(CapacityKind::OnDemand), Bookings::default());
    let claim = claim(CapacityKind::OnDemand, vec![ended("10:59:50", "10:59:55", EndCause::Terminated)]);
    assert_eq!(amounts(&close(&claim, &prices, &mut booked, "10:00:00", "11:00:00").unwrap()), [(Class::Regular, "0.01".into())]);
    assert_eq!(amounts(&close(&claim, &prices, &mut booked, "11:00:00", "12:00:00").unwrap()), [(Class::Regular, "0.05".into())]);
}

/// After a crash the message that it ran may come long after the one that it ended.
#[test]
fn a_machine_that_seemed_never_to_have_run_is_charged_when_a_late_message_says_that_it_did() {
    let (prices, mut booked) = (flat(CapacityKind::OnDemand), Bookings::default());
    let silent = ClaimedInstance { running_at: None, ..ended("10:10:00", "10:40:00", EndCause::NeverRan) };
    let mut claim = claim(CapacityKind::OnDemand, vec![silent]);
    assert!(close(&claim, &prices, &mut booked, "10:00:00", "11:00:00").unwrap().is_empty());
    let known = Meter { claims: &[], prices: &prices, booked: &booked, grace: TimeDelta::zero() }.progress(&claim, at("11:00:00")).unwrap();
    claim.status.metered_until = Some(known.until);
    assert!(!crate::capacity::billing::is_settled(&claim), "the claim must outlive the doubt");

    claim.status.instances = vec![ended("10:10:00", "10:40:00", EndCause::Terminated)];
    let rows = close(&claim, &prices, &mut booked, "11:00:00", "12:00:00").unwrap();
    assert_eq!(amounts(&rows), [(Class::Correction { of: at("10:00:00") }, "1.8".into())]);
}

#[test]
fn reserved_machines_are_booked_at_zero_and_name_their_payer() {
    let mut claim = claim(CapacityKind::Reserved, vec![ended("10:00:00", "10:30:00", EndCause::Terminated)]);
    claim.record.offer.reservation = Some("cr-1".into());
    let rows = close(&claim, &PriceBook::default(), &mut Bookings::default(), "10:00:00", "11:00:00").unwrap();
    assert_eq!(amounts(&rows), [(Class::Regular, "0".into())]);
    assert_eq!((rows[0].payer.experiment.as_str(), rows[0].payer.team.as_deref()), ("vision/sweep", Some("research")));
}

#[test]
fn a_claim_stays_until_estimates_cannot_be_contradicted_any_more() {
    let (prices, mut booked) = (flat(CapacityKind::OnDemand), Bookings::default());
    let mut claim = claim(CapacityKind::OnDemand, vec![ended("10:00:00", "10:30:00", EndCause::Terminated)]);
    claim.status.instances[0].end.as_mut().unwrap().estimated = true;
    close(&claim, &prices, &mut booked, "10:00:00", "11:00:00").unwrap();

    let progress = |booked: &Bookings, until: DateTime<Utc>| {
        Meter { claims: &[], prices: &prices, booked, grace: TimeDelta::zero() }.progress(&claim, until).unwrap()
    };
    assert_eq!(progress(&booked, at("11:00:00")), Metered { until: at("10:00:00"), amount: usd("1.8") });
    let next_day = at("11:00:00") + TimeDelta::days(1);
    assert_eq!(progress(&booked, next_day).until, next_day);

    let mut settled = claim.clone();
    settled.status.metered_until = Some(at("10:00:00"));
    assert!(!is_settled(&settled));
    settled.status.metered_until = Some(next_day);
    assert!(is_settled(&settled));
}

/// What really happened to one machine, and when Purser hears of it (seconds after midnight, market time).
#[derive(Clone, Debug)]
struct Story {
    kind: CapacityKind,
    launched: i64,
    boot: i64,
    length: i64,
    cause: EndCause,
    prices: Vec<(i64, i64)>,
    running_heard_after: i64,
    end_heard_after: i64,
    /// Before the end is heard, somebody notes a guess of it.
    guess_after: Option<i64>,
    /// DescribeInstances answers, each with how stale it is.
    looks: Vec<(i64, i64)>,
}

impl Story {
    fn running(&self) -> i64 {
        self.launched + self.boot
    }

    fn end(&self) -> i64 {
        self.running() + self.length
    }

    /// The claim as its records stand at a time.
    fn claim_at(&self, now: i64) -> Claim {
        let time = |second: i64| at("00:00:00") + TimeDelta::seconds(second);
        let seen = self.looks.iter().filter(|(look, stale)| *look <= now && look - stale >= self.launched && look - stale < self.end()).map(|(look, _)| time(*look)).max();
        let heard = (now >= self.end() + self.end_heard_after).then(|| End { at: time(self.end()), cause: self.cause, estimated: false });
        let guessed = self.guess_after.filter(|after| now >= self.end() + after).map(|_| End {
            at: seen.unwrap_or(time(self.launched)),
            cause: EndCause::Terminated,
            estimated: true,
        });
        let instance = ClaimedInstance {
            id: "i-1".into(),
            node: None,
            launched_at: time(self.launched),
            running_at: (now >= self.running() + self.running_heard_after).then(|| time(self.running())),
            notice: None,
            seen_alive_at: seen,
            release_asked_at: None,
            end: heard.or(guessed),
        };
        let instances = if now >= self.launched { vec![instance] } else { Vec::new() };
        claim(self.kind, instances)
    }

    /// Used for spot; on demand costs what the claim says.
    fn price_book(&self) -> PriceBook {
        let mut prices = PriceBook::default();
        let segment = |(from, atoms): &(i64, i64)| PriceSegment {
            from: at("00:00:00") + TimeDelta::seconds(*from),
            price: MoneyPerHour(Money::usd_atoms(i128::from(*atoms))),
        };
        prices.record(&offer(self.kind), self.prices.iter().map(segment).collect());
        prices
    }

    fn truth(&self) -> Money {
        let run = Run {
            provider: Provider::Aws,
            kind: self.kind,
            running: at("00:00:00") + TimeDelta::seconds(self.running()),
            until: Until::Ended(at("00:00:00") + TimeDelta::seconds(self.end()), self.cause),
        };
        let terms = billing::charges(&run, &self.price_book().of(&offer(self.kind)).unwrap()).unwrap();
        crate::units::money::sum(Currency::USD, terms.iter().map(|term| term.amount)).unwrap()
    }
}

fn story() -> impl Strategy<Value = Story> {
    let what = (prop_oneof![Just(CapacityKind::Spot), Just(CapacityKind::OnDemand)], 0_i64..7200, 0_i64..200, prop_oneof![0_i64..120, 0_i64..12_000]);
    let cause = prop_oneof![Just(EndCause::Terminated), Just(EndCause::Interrupted)];
    let prices = proptest::collection::btree_map(1_i64..20_000, 0_i64..i64::MAX, 0..5);
    let heard = (prop_oneof![0_i64..30, 0_i64..30_000], prop_oneof![0_i64..30, 0_i64..30_000], proptest::option::of(0_i64..20_000));
    let looks = proptest::collection::vec((0_i64..30_000, 0_i64..40), 0..20);
    (what, cause, prices, heard, looks).prop_map(|((kind, launched, boot, length), cause, prices, (running_heard_after, end_heard_after, guess_after), looks)| Story {
        kind,
        launched,
        boot,
        length,
        cause,
        prices: std::iter::once((0, 7_000_000_000_000_000_001)).chain(prices).collect(),
        running_heard_after,
        end_heard_after,
        guess_after,
        looks,
    })
}

fn booked_sum(rows: &[Charge]) -> Money {
    crate::units::money::sum(Currency::USD, rows.iter().map(|row| row.cost)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is heard whenever, the windows' rows add up to what EC2 charges; once a claim counts as settled nothing
    /// changes any more; and closing more windows adds nothing.
    #[test]
    fn all_windows_together_are_what_ec2_charges(story in story(), step in 60_i64..4000) {
        let prices = story.price_book();
        let (mut booked, mut ledger) = (Bookings::default(), Vec::new());
        let mut window = at("00:00:00");
        let mut certain = None;
        let end_of_story = 70_000 + 26 * 3600;
        let mut second = 0;
        while second <= end_of_story + step {
            let mut claim = story.claim_at(second);
            claim.status.metered_until = certain;
            if second > story.launched && is_settled(&claim) {
                prop_assert_eq!(booked_sum(&ledger), story.truth(), "settled too early, at {}", second);
            }
            let now = at("00:00:00") + TimeDelta::seconds(second);
            loop {
                let claims = std::slice::from_ref(&claim);
                let Ok(rows) = (Meter { claims, prices: &prices, booked: &booked, grace: TimeDelta::minutes(20) }).close(window, now) else { break };
                for row in &rows {
                    prop_assert_eq!(row.window, window);
                    prop_assert!(row.counts_to() <= window && row.from >= window && row.to <= window + TimeDelta::hours(1));
                }
                booked.add_rows(&rows).unwrap();
                ledger.extend(rows);
                window += TimeDelta::hours(1);
            }
            let meter = Meter { claims: &[], prices: &prices, booked: &booked, grace: TimeDelta::zero() };
            certain = Some(meter.progress(&claim, window).unwrap().until);
            second += step;
        }
        let mut last = story.claim_at(i64::MAX / 2);
        last.status.metered_until = certain;
        prop_assert!(is_settled(&last), "certain until {certain:?}");
        prop_assert_eq!(booked_sum(&ledger), story.truth());
        let again = Meter { claims: &[last], prices: &prices, booked: &booked, grace: TimeDelta::zero() };
        prop_assert_eq!(again.close(window, window + TimeDelta::hours(1)).unwrap(), []);
    }
}
