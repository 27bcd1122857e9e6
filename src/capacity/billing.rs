//! What one machine costs, from `running` to its end: a list of exact terms, one for each clock hour and price.
//!
//! Decides nothing and knows no ledger: [`crate::cost::metering`] books these terms. The rules, with where they are
//! written and the day they were last read (2026-11):
//!
//! | rule | source |
//! | --- | --- |
//! | charged from `running` until `shutting-down`; nothing while `pending` | EC2 User Guide, "Amazon EC2 instance state changes" <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html> |
//! | by the second, at least 60 s a run (Linux; since 2017-10-02) | "Amazon EC2 On-Demand Pricing" <https://aws.amazon.com/ec2/pricing/on-demand/>; AWS News Blog, "Per-Second Billing for EC2 Instances and EBS Volumes" |
//! | spot is charged at the price in force while it runs, not at the bid or the price at launch | EC2 User Guide, "Spot Instance pricing" <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/using-spot-instances-history.html> |
//! | a Linux spot instance that EC2 itself interrupts in its first hour is free; ended by its owner it is charged | EC2 User Guide, "Billing for interrupted Spot Instances" <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/billing-for-interrupted-spot-instances.html> |
//! | what runs in a capacity reservation draws from what the reservation already costs: 0 here, the reservation is a charge of its own | EC2 User Guide, "Capacity Reservation pricing and billing" <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/capacity-reservations-pricing-billing.html> |
//!
//! Times count in whole seconds (EC2 tells no more). A term is price × seconds / 3600, half to even at the 18th decimal,
//! so the sum over terms is what is booked; nothing is rounded after that.

use chrono::{DateTime, TimeDelta, Timelike, Utc};

use super::{CapacityKind, Claim, ClaimPhase, ClaimedInstance, EndCause, PriceSegment, Provider};
use crate::units::{Money, MoneyError, MoneyPerHour};

/// The least that EC2 charges for a run.
pub const MINIMUM_SECONDS: i64 = 60;
/// A spot instance that EC2 interrupts sooner than this is free.
pub const FREE_WHEN_INTERRUPTED_WITHIN_SECONDS: i64 = 3600;
/// How long a message about an end may be late: EventBridge tries to deliver for 24 hours by default
/// (EventBridge User Guide, "How EventBridge retries delivering events").
pub const ESTIMATE_SETTLES_AFTER_SECONDS: i64 = 24 * 3600;

/// One machine's time from entering `running` to leaving it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub provider: Provider,
    pub kind: CapacityKind,
    pub running: DateTime<Utc>,
    pub until: Until,
}

/// How far a run is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// It ended then; minimum and free hour can be judged.
    Ended(DateTime<Utc>, EndCause),
    /// It was alive then: charged so far, as if it goes on.
    Alive(DateTime<Utc>),
}

/// Price × seconds within one clock hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The UTC clock hour, by its start.
    pub window: DateTime<Utc>,
    pub from: DateTime<Utc>,
    /// Exclusive.
    pub to: DateTime<Utc>,
    pub price: MoneyPerHour,
    pub amount: Money,
}

impl Term {
    pub fn seconds(&self) -> i64 {
        (self.to - self.from).num_seconds()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BillingError {
    #[error("no price is known at {at}; the price history begins {}", begins.map_or("nowhere".to_owned(), |from| from.to_rfc3339()))]
    NoPrice { at: DateTime<Utc>, begins: Option<DateTime<Utc>> },
    #[error(transparent)]
    Amount(#[from] MoneyError),
}

/// What is charged for a run at these prices (in any order; the last one given wins where two begin together).
pub fn charges(run: &Run, prices: &[PriceSegment]) -> Result<Vec<Term>, BillingError> {
    let Some((from, to)) = charged_time(run) else { return Ok(Vec::new()) };
    let prices = in_order(prices);
    let mut terms = Vec::new();
    let mut at = from;
    while at < to {
        let segment = prices.partition_point(|segment| segment.from <= at);
        let Some(current) = segment.checked_sub(1).map(|index| prices[index]) else {
            return Err(BillingError::NoPrice { at, begins: prices.first().map(|segment| segment.from) });
        };
        let next_price = prices.get(segment).map_or(to, |next| next.from);
        let window = hour_of(at);
        let end = to.min(next_price).min(window + TimeDelta::hours(1));
        let price = if run.kind == CapacityKind::Reserved { MoneyPerHour(Money::zero(current.price.0.currency())) } else { current.price };
        terms.push(Term { window, from: at, to: end, price, amount: price.for_seconds((end - at).num_seconds())? });
        at = end;
    }
    Ok(terms)
}

/// The time that is paid for, `None` where nothing is.
pub fn charged_time(run: &Run) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let from = whole_second(run.running);
    let to = match run.until {
        Until::Alive(at) => whole_second(at),
        Until::Ended(at, cause) => ended_charge(run, from, whole_second(at).max(from), cause)?,
    };
    (from < to).then_some((from, to))
}

/// Whether everything that a claim cost is in the ledger, so that the claim may go: every machine has ended, and the
/// ledger is certain (`metered_until`) beyond all that is known of it.
pub fn is_settled(claim: &Claim) -> bool {
    let answered = claim.status.phase != ClaimPhase::Written;
    answered && claim.status.instances.iter().all(|instance| is_instance_settled(claim, instance))
}

fn is_instance_settled(claim: &Claim, instance: &ClaimedInstance) -> bool {
    let (Some(end), Some(until)) = (&instance.end, claim.status.metered_until) else { return false };
    let offer = &claim.record.offer;
    let run = Run { provider: offer.provider, kind: offer.kind, running: instance.running_at.unwrap_or(instance.launched_at), until: Until::Ended(end.at, end.cause) };
    let charged = charged_time(&run).is_none_or(|(_, to)| until >= to);
    // A look may have been stale: what was seen alive in a window is certain only when that window is closed.
    let looked = instance.seen_alive_at.is_none_or(|seen| until > seen);
    charged && looked && until > end.at
}

/// The clock hour that a time lies in.
pub fn hour_of(at: DateTime<Utc>) -> DateTime<Utc> {
    let second = whole_second(at);
    second - TimeDelta::seconds(i64::from(second.minute() * 60 + second.second()))
}

fn ended_charge(run: &Run, from: DateTime<Utc>, to: DateTime<Utc>, cause: EndCause) -> Option<DateTime<Utc>> {
    // Nodes that exist anyway are not EC2's to charge: their price is the administrator's own, by the second.
    if run.provider == Provider::Nodes {
        return Some(to);
    }
    let free = match cause {
        EndCause::NeverRan => true,
        EndCause::Interrupted => run.kind == CapacityKind::Spot && (to - from).num_seconds() < FREE_WHEN_INTERRUPTED_WITHIN_SECONDS,
        EndCause::Terminated => false,
    };
    // The missing seconds of a short run are charged at its end, at the price in force there.
    (!free).then(|| to.max(from + TimeDelta::seconds(MINIMUM_SECONDS)))
}

fn in_order(prices: &[PriceSegment]) -> Vec<PriceSegmentAt> {
    let mut ordered: Vec<PriceSegmentAt> =
        prices.iter().map(|segment| PriceSegmentAt { from: whole_second(segment.from), price: segment.price }).collect();
    ordered.sort_by_key(|segment| segment.from);
    ordered
}

#[derive(Clone, Copy)]
struct PriceSegmentAt {
    from: DateTime<Utc>,
    price: MoneyPerHour,
}

fn whole_second(at: DateTime<Utc>) -> DateTime<Utc> {
    at.with_nanosecond(0).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-03-02T{text}Z").parse().unwrap()
    }

    fn price(from: &str, usd: &str) -> PriceSegment {
        PriceSegment { from: at(from), price: MoneyPerHour::usd(usd).unwrap() }
    }

    fn total(terms: &[Term]) -> Money {
        crate::units::money::sum(crate::units::Currency::USD, terms.iter().map(|term| term.amount)).unwrap()
    }

    struct ByHand {
        case: &'static str,
        kind: CapacityKind,
        running: &'static str,
        end: &'static str,
        cause: EndCause,
        prices: &'static [(&'static str, &'static str)],
        terms: &'static [&'static str],
    }

    /// Ten charges computed by hand; the arithmetic stands beside each.
    const BY_HAND: [ByHand; 10] = [
        // 3600 s × 1.006 / 3600 = 1.006
        ByHand { case: "one whole clock hour on demand", kind: CapacityKind::OnDemand, running: "10:00:00", end: "11:00:00", cause: EndCause::Terminated,
            prices: &[("00:00:00", "1.006")], terms: &["1.006"] },
        // 10:50–11:00 600 s: 3.6 × 600 / 3600 = 0.6; 11:00–11:20 1200 s: 3.6 × 1200 / 3600 = 1.2
        ByHand { case: "a clock hour's boundary splits the charge", kind: CapacityKind::OnDemand, running: "10:50:00", end: "11:20:00", cause: EndCause::Terminated,
            prices: &[("00:00:00", "3.6")], terms: &["0.6", "1.2"] },
        // ran 5 s, charged 60 s: 55.04 × 60 / 3600 = 55.04 / 60 = 0.917333…, 18 decimals: 0.917333333333333333
        ByHand { case: "a run of five seconds costs a minute", kind: CapacityKind::OnDemand, running: "09:00:00", end: "09:00:05", cause: EndCause::Terminated,
            prices: &[("00:00:00", "55.04")], terms: &["0.917333333333333333"] },
        // ran 10:59:50–10:59:55, charged to 11:00:50: 10 s: 0.36 × 10 / 3600 = 0.001; 50 s: 0.36 × 50 / 3600 = 0.005
        ByHand { case: "the minute may reach into the next hour", kind: CapacityKind::Spot, running: "10:59:50", end: "10:59:55", cause: EndCause::Terminated,
            prices: &[("00:00:00", "0.36")], terms: &["0.001", "0.005"] },
        // EC2 took it after 3599 s: nothing
        ByHand { case: "spot interrupted one second before its first hour is over", kind: CapacityKind::Spot, running: "10:30:00", end: "11:29:59", cause: EndCause::Interrupted,
            prices: &[("00:00:00", "0.4")], terms: &[] },
        // EC2 took it after 3600 s: 10:30–11:00 1800 s: 0.4 / 2 = 0.2; 11:00–11:30 the same
        ByHand { case: "spot interrupted when its first hour is over", kind: CapacityKind::Spot, running: "10:30:00", end: "11:30:00", cause: EndCause::Interrupted,
            prices: &[("00:00:00", "0.4")], terms: &["0.2", "0.2"] },
        // ended by us after 1800 s: charged, 0.4 × 1800 / 3600 = 0.2
        ByHand { case: "spot given back within the first hour is charged", kind: CapacityKind::Spot, running: "10:00:00", end: "10:30:00", cause: EndCause::Terminated,
            prices: &[("00:00:00", "0.4")], terms: &["0.2"] },
        // 10:00–10:20 1200 s: 0.3 / 3 = 0.1; 10:20–10:50 1800 s: 0.5 / 2 = 0.25; 10:50–11:00 600 s: 0.24 / 6 = 0.04
        ByHand { case: "the spot price changes twice in the hour", kind: CapacityKind::Spot, running: "10:00:00", end: "11:00:00", cause: EndCause::Terminated,
            prices: &[("09:00:00", "0.3"), ("10:20:00", "0.5"), ("10:50:00", "0.24")], terms: &["0.1", "0.25", "0.04"] },
        // already paid: 0 × 1800 s, 0 × 1800 s
        ByHand { case: "reserved capacity is already paid", kind: CapacityKind::Reserved, running: "10:30:00", end: "11:30:00", cause: EndCause::Terminated,
            prices: &[("00:00:00", "98.32")], terms: &["0", "0"] },
        // 0.0042 × 7 s / 3600 = 0.0294 / 3600 = 0.00000816666…: 18 decimals end in …667; then 53 s at 0.0084, 0.4452 / 3600 = 0.000123666…667
        // (ran 10:00:53–10:01:00.9, that is 7 s at whole seconds; the 53 s that are missing fall after 10:01:00, where 0.0084 is in force)
        ByHand { case: "the missing seconds of the minute are charged at the price after the end", kind: CapacityKind::OnDemand, running: "10:00:53", end: "10:01:00.9",
            cause: EndCause::Terminated, prices: &[("10:00:00", "0.0042"), ("10:01:00", "0.0084")], terms: &["0.000008166666666667", "0.000123666666666667"] },
    ];

    #[test]
    fn ten_charges_agree_with_those_computed_by_hand() {
        for ByHand { case, kind, running, end, cause, prices, terms } in BY_HAND {
            let run = Run { provider: Provider::Aws, kind, running: at(running), until: Until::Ended(at(end), cause) };
            let prices: Vec<PriceSegment> = prices.iter().map(|(from, usd)| price(from, usd)).collect();
            let amounts: Vec<String> = charges(&run, &prices).unwrap().iter().map(|term| term.amount.decimal()).collect();
            assert_eq!(amounts, terms, "{case}");
        }
    }

    #[test]
    fn a_time_before_the_first_known_price_is_refused_by_name() {
        let run = Run { provider: Provider::Aws, kind: CapacityKind::Spot, running: at("10:00:00"), until: Until::Alive(at("10:30:00")) };
        assert_eq!(
            charges(&run, &[price("10:10:00", "1")]),
            Err(BillingError::NoPrice { at: at("10:00:00"), begins: Some(at("10:10:00")) })
        );
        assert!(charges(&run, &[]).unwrap_err().to_string().contains("begins nowhere"));
    }

    #[test]
    fn existing_nodes_cost_the_seconds_they_were_used() {
        let run = Run { provider: Provider::Nodes, kind: CapacityKind::Spot, running: at("10:00:00"), until: Until::Ended(at("10:00:06"), EndCause::Interrupted) };
        assert_eq!(total(&charges(&run, &[price("00:00:00", "6")]).unwrap()).decimal(), "0.01");
    }

    #[test]
    fn what_never_ran_costs_nothing() {
        let run = Run { provider: Provider::Aws, kind: CapacityKind::OnDemand, running: at("10:00:00"), until: Until::Ended(at("10:05:00"), EndCause::NeverRan) };
        assert_eq!(charges(&run, &[price("00:00:00", "1")]).unwrap(), []);
    }

    /// Price × 1 s for each second, in 3600ths of an atom: exact, and with none of the code above.
    fn naive_sum_in_3600ths(from: i64, to: i64, prices: &[(i64, i64)]) -> i128 {
        (from..to)
            .map(|second| {
                let (_, price) = prices.iter().filter(|(start, _)| *start <= second).max_by_key(|(start, _)| *start).unwrap();
                i128::from(*price)
            })
            .sum()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn charges_agree_with_a_sum_over_single_seconds(
            start in 0_i64..7200,
            length in 0_i64..12_000,
            cause in prop_oneof![Just(EndCause::Terminated), Just(EndCause::Interrupted)],
            kind in prop_oneof![Just(CapacityKind::Spot), Just(CapacityKind::OnDemand)],
            first in 0_i64..i64::MAX,
            later in proptest::collection::btree_map(1_i64..20_000, 0_i64..i64::MAX, 0..6),
        ) {
            let prices: Vec<(i64, i64)> = std::iter::once((0, first)).chain(later).collect();
            let segments: Vec<PriceSegment> = prices.iter().rev().map(|(from, atoms)| PriceSegment {
                from: at("00:00:00") + TimeDelta::seconds(*from),
                price: MoneyPerHour(Money::usd_atoms(i128::from(*atoms))),
            }).collect();
            let running = at("00:00:00") + TimeDelta::seconds(start);
            let run = Run { provider: Provider::Aws, kind, running, until: Until::Ended(running + TimeDelta::seconds(length), cause) };
            let terms = charges(&run, &segments).unwrap();

            let free = kind == CapacityKind::Spot && cause == EndCause::Interrupted && length < 3600;
            let exact = if free { 0 } else { naive_sum_in_3600ths(start, start + length.max(60), &prices) };
            let off = (total(&terms).atoms() * 3600 - exact).abs();
            prop_assert!(off * 2 <= 3600 * terms.len() as i128, "at most half an atom a term: off {off}");
            for pair in terms.windows(2) {
                prop_assert_eq!(pair[0].to, pair[1].from);
            }
            for term in &terms {
                prop_assert!(term.from < term.to && term.window <= term.from && term.to <= term.window + TimeDelta::hours(1));
            }
        }
    }
}
