//! Whether a job with a deadline should take spot, wait for it, or pay for on-demand: the deadline policy, asked with what
//! the snapshot knows.
//!
//! The policy works inside the safety net of [`super::placement`]: its slack ends where the net begins.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::deadline::behaviour::{age_unseen, class_of, learn, standing};
use super::deadline::forecast::{self, Forecast};
use super::deadline::{Behaviour, Market, Sitting, Table, Values, memo};
use super::markets::Markets;
use crate::capacity::Offer;
use crate::training::Outlook;
use crate::units::{Money, MoneyPerHour};

/// A look into the waiting to come: so many steps, each a part of the slack.
const LOOKS: i32 = 64;

/// What is asked.
pub struct Question<'a> {
    pub now: DateTime<Utc>,
    /// From then on only what nobody takes back will do.
    pub safe_from: DateTime<Utc>,
    pub outlook: Outlook,
    pub workers: u32,
    /// Spot offers that could serve, and whether they may be asked now.
    pub spot: Vec<(&'a Offer, bool)>,
    pub on_demand: MoneyPerHour,
}

/// What the rest of the job costs on average, by what is done now.
#[derive(Clone, Debug, PartialEq)]
pub struct Advice {
    /// By the question's spot offers; `None` where it may not be asked now.
    pub spot: Vec<Option<Money>>,
    pub wait: Money,
    pub on_demand: Money,
    pub verdict: Verdict,
    pub prospect: Prospect,
}

/// A job's rest under the policy, from now on.
#[derive(Clone)]
pub struct Prospect {
    behaviour: Arc<Behaviour>,
    table: Arc<Table>,
    outlook: forecast::Outlook,
    /// USD in one unit of the table.
    unit: f64,
    now: DateTime<Utc>,
}

/// In how many of a hundred cases each lies inside: 90.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Expected {
    pub cost_low: Money,
    pub cost_high: Money,
    pub finish_low: DateTime<Utc>,
    pub finish_high: DateTime<Utc>,
    /// Cases of a hundred in which the deadline would be missed.
    pub late_percent: u32,
    /// Interruptions, in hundredths, on average.
    pub interruptions_percent: u32,
}

impl Prospect {
    /// Plays the rest of the job on markets like this one. The same job gets the same answer.
    pub fn expected(&self, seed: u64) -> Option<Expected> {
        let Forecast { cost, hours_to_finish, late, interruptions, .. } =
            forecast::forecast(&self.behaviour, &self.table, &self.outlook, seed, forecast::PATHS);
        let at = |hours: f64| self.now + TimeDelta::seconds((hours * 3600.0).round() as i64);
        Some(Expected {
            cost_low: dollars(cost.low * self.unit)?,
            cost_high: dollars(cost.high * self.unit)?,
            finish_low: at(hours_to_finish.low),
            finish_high: at(hours_to_finish.high),
            late_percent: (late * 100.0).round() as u32,
            interruptions_percent: (interruptions * 100.0).round() as u32,
        })
    }
}

impl PartialEq for Prospect {
    fn eq(&self, other: &Prospect) -> bool {
        (self.outlook, self.unit, self.now) == (other.outlook, other.unit, other.now)
    }
}

impl std::fmt::Debug for Prospect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prospect").field("outlook", &self.outlook).field("unit", &self.unit).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Index of the spot offer.
    Spot(usize),
    /// If spot does not come back, on-demand is bought at this time.
    Wait { until: DateTime<Utc> },
    OnDemand,
}

/// `None` where there is nothing to weigh: no spot offer, no price, or no time.
pub fn advise(question: &Question<'_>, markets: &Markets) -> Option<Advice> {
    Scales::new(question, markets)?.advice()
}

struct Scales<'a> {
    question: &'a Question<'a>,
    behaviour: Arc<Behaviour>,
    table: Arc<Table>,
    /// What one unit of the table is for the gang, in USD.
    unit: f64,
    zones: Vec<Zone>,
    left_hours: f64,
    work_hours: f64,
}

struct Zone {
    may_be_asked: bool,
    age_hours: f64,
    /// For how long it has been refusing.
    gone_hours: f64,
    life_hours: f64,
    /// Per hour, in spot units.
    price: f64,
}

impl<'a> Scales<'a> {
    fn new(question: &'a Question<'a>, markets: &Markets) -> Option<Scales<'a>> {
        let spells: Vec<_> = question.spot.iter().map(|(offer, _)| markets.spells(offer)).collect();
        let hourly = |price: MoneyPerHour| price.per_hour().approximate();
        let cheapest = question.spot.iter().map(|(offer, _)| hourly(offer.price)).min_by(f64::total_cmp)?;
        let (work_hours, overhead_hours) = (hours(question.outlook.remaining), hours(question.outlook.boot + question.outlook.restart));
        let slack_hours = hours(question.safe_from - question.now);
        if cheapest <= 0.0 || work_hours <= 0.0 || slack_hours <= 0.0 {
            return None;
        }
        let behaviour = Arc::new(learn(&spells, 0.0));
        let zone = |(index, (offer, may_be_asked)): (usize, &(&Offer, bool))| {
            let up_for = standing(&spells[index]).filter(|(up, _)| *up && spells[index].last().is_some_and(|last| last.to >= 0.0));
            let age_hours = up_for.map_or(age_unseen(true), |(_, age)| age);
            let life_hours = 1.0 / behaviour.zones[index][class_of(age_hours)];
            let gone_hours = spells[index].last().filter(|last| !last.up).map_or(0.0, |last| -last.from);
            Zone { may_be_asked: *may_be_asked, age_hours, gone_hours, life_hours, price: hourly(offer.price) / cheapest }
        };
        let zones = question.spot.iter().enumerate().map(zone).collect();
        let table = memo::table(&behaviour, work_hours, overhead_hours, hourly(question.on_demand) / cheapest);
        let unit = cheapest * f64::from(question.workers);
        Some(Scales { question, behaviour, table, unit, zones, left_hours: slack_hours + work_hours + overhead_hours, work_hours })
    }

    fn advice(&self) -> Option<Advice> {
        let up = self.zones.iter().filter(|zone| zone.may_be_asked).map(|zone| zone.age_hours).max_by(f64::total_cmp);
        let market = up.map_or(Market::Down { age_hours: self.gone_hours() }, |age_hours| Market::Up { age_hours });
        let around = self.values(market, 0.0);
        let spot: Vec<Option<f64>> = self.zones.iter().map(|zone| zone.may_be_asked.then(|| self.spot(zone))).collect();
        let best = spot.iter().enumerate().filter_map(|(index, value)| Some((index, (*value)?))).min_by(|a, b| a.1.total_cmp(&b.1));
        let verdict = match best {
            // What may be asked is asked: whether it comes is only known then, so nobody waits beside it.
            Some((index, value)) if value <= around.on_demand => Verdict::Spot(index),
            None if around.idle <= around.on_demand => Verdict::Wait { until: self.waits_until() },
            _ => Verdict::OnDemand,
        };
        let money = |value: f64| dollars(value * self.unit);
        Some(Advice {
            spot: spot.into_iter().map(|value| money(value?)).collect(),
            wait: money(around.idle)?,
            on_demand: money(around.on_demand)?,
            verdict,
            prospect: Prospect {
                behaviour: Arc::clone(&self.behaviour),
                table: Arc::clone(&self.table),
                outlook: forecast::Outlook {
                    left_hours: self.left_hours,
                    work_hours: self.work_hours,
                    error_hours: 0.0,
                    loading_hours: 0.0,
                    market,
                    sitting: Sitting::Nowhere,
                },
                unit: self.unit,
                now: self.question.now,
            },
        })
    }

    /// Since the last of them went.
    fn gone_hours(&self) -> f64 {
        self.zones.iter().map(|zone| zone.gone_hours).min_by(f64::total_cmp).unwrap_or_default()
    }

    fn values(&self, market: Market, waited_hours: f64) -> Values {
        self.table.values(self.left_hours - waited_hours, self.work_hours, market, Sitting::Nowhere)
    }

    fn spot(&self, zone: &Zone) -> f64 {
        let dearer = (zone.price - 1.0) * zone.life_hours.min(self.work_hours);
        self.values(Market::Up { age_hours: zone.age_hours }, 0.0).spot + dearer
    }

    /// The first moment of a gap that goes on at which on-demand is the better choice.
    fn waits_until(&self) -> DateTime<Utc> {
        let slack = self.question.safe_from - self.question.now;
        let looks = (0..LOOKS).map(|look| slack * look / LOOKS);
        let gives_up = |waited: &TimeDelta| {
            let waited_hours = hours(*waited);
            let values = self.values(Market::Down { age_hours: self.gone_hours() + waited_hours }, waited_hours);
            values.on_demand < values.idle
        };
        looks.into_iter().find(gives_up).map_or(self.question.safe_from, |waited| self.question.now + waited)
    }
}

fn hours(delta: TimeDelta) -> f64 {
    delta.num_seconds() as f64 / 3600.0
}

/// An estimate, to the cent.
fn dollars(value: f64) -> Option<Money> {
    let is_sane = value.is_finite() && value.abs() < 1e12;
    is_sane.then(|| Money::usd_atoms((value * 100.0).round() as i128 * 10_i128.pow(16)))
}
