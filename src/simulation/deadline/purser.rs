//! Purser's own policy on a measured market: [`crate::scheduling::deadline`], fed with what the market has shown.
//!
//! Zones whose prices differ fall into bands, and a job may keep to the cheapest band or take dearer ones too. Each of these
//! nested choices is a market of its own, with a table of its own; what is done next is the best that any of them offers.

use std::collections::HashMap;
use std::rc::Rc;

use super::run::{Policy, View};
use crate::capacity::CapacityKind;
use crate::scheduling::deadline::behaviour::{AGES, Hazards, age_unseen, class_of, learn};
use crate::scheduling::deadline::doubt::Tides;
use crate::scheduling::deadline::forecast::forecast_with;
use crate::scheduling::deadline::{Behaviour, Forecast, Market, Outlook, Sitting, Spell, Table, Terms, Values};

/// Learned anew so often, and when a job starts.
const LEARN_EVERY_HOURS: f64 = 12.0;
/// Steps of the table in the stated work.
const STEPS: f64 = 288.0;
/// The most time to the deadline that a table covers, in stated work; more slack than that changes nothing.
const HORIZON: f64 = 2.0;
/// A zone this much dearer than the cheapest of its band begins another.
const BAND: f64 = 1.25;
const BANDS_MAX: usize = 4;
/// Sets of tables kept, of some 50 MB each: a run of four days needs eight, the next start most of the same.
const KEPT: usize = 20;

/// What was worked out for one band and the cheaper ones.
struct Plan {
    zones: Vec<usize>,
    hazards: Vec<Hazards>,
    terms: Terms,
    table: Table,
}

/// One batch of runs on one market and with one overhead; what it worked out for one run serves the next.
#[derive(Default)]
pub struct Purser {
    plans: HashMap<Key, Rc<Vec<Plan>>>,
    order: Vec<Key>,
    ages: Ages,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    epoch: usize,
    work: i64,
    overhead: i64,
}

impl Policy for Purser {
    fn choose(&mut self, view: &View<'_>) -> Option<usize> {
        self.ages.look(view);
        let reserved = view.reservation();
        if reserved.is_some() {
            return reserved;
        }
        let plans = self.plans(view);
        let offers = plans.iter().flat_map(|plan| offers(view, plan, &self.ages));
        let best = offers.min_by(|a, b| a.value.total_cmp(&b.value).then(a.hazard.total_cmp(&b.hazard)));
        best.and_then(|best| best.seat)
    }
}

impl Purser {
    /// What it expects of a job that is submitted now, with the band that promises most.
    pub fn forecast(&mut self, view: &View<'_>, tides: Tides, seed: u64, paths: usize) -> Option<Forecast> {
        self.ages.look(view);
        let plans = self.plans(view);
        let promise = |plan: &Plan| offers(view, plan, &self.ages).iter().map(|offer| offer.value).fold(f64::INFINITY, f64::min);
        let plan = plans.iter().min_by(|a, b| promise(a).total_cmp(&promise(b)))?;
        let task = view.task;
        let outlook = Outlook {
            left_hours: hours(view.ticks_left() * view.tick_seconds()),
            work_hours: hours(task.work),
            error_hours: hours(task.work * task.error_permille / 1000),
            loading_hours: 0.0,
            market: market(view, plan, &self.ages),
            sitting: Sitting::Nowhere,
        };
        Some(forecast_with(&behaviour(view, &plan.zones, view.now()), &plan.table, &outlook, tides, seed, paths))
    }
}

/// A seat, or none, and what the rest costs with it.
struct Offer {
    seat: Option<usize>,
    value: f64,
    hazard: f64,
}

fn offers(view: &View<'_>, plan: &Plan, ages: &Ages) -> Vec<Offer> {
    let time = Time::of(view);
    let sits = view.seat.map(|seat| view.kind(seat));
    let up: Vec<usize> = (0..plan.zones.len()).filter(|zone| view.is_up(plan.zones[*zone])).collect();
    let value = |market: Market, sitting: Sitting| -> Values {
        let loading = if sitting == Sitting::Nowhere { 0.0 } else { time.loading };
        plan.table.values(time.left, time.work + loading, market, sitting).weighed(&plan.terms, market, sitting)
    };
    let mut offers = Vec::new();
    let market = market(view, plan, ages);
    let elsewhere = if sits == Some(CapacityKind::OnDemand) { Sitting::OnDemand } else { Sitting::Nowhere };
    let around = value(market, elsewhere);
    let sits_here = view.seat.filter(|seat| plan.zones.contains(seat));
    if sits_here.is_none() {
        offers.push(Offer { seat: None, value: around.idle, hazard: 0.0 });
    }
    if let Some(seat) = view.on_demand() {
        offers.push(Offer { seat: Some(seat), value: around.on_demand + view.transfer(seat), hazard: 0.0 });
    }
    for zone in up {
        let seat = plan.zones[zone];
        let sitting = if view.seat == Some(seat) { Sitting::Spot } else { elsewhere };
        let values = value(Market::Up { age_hours: ages.hours(seat, view) }, sitting);
        // The table's prices are the band's mean; this zone costs more or less for as long as it lasts.
        let dearer = (view.price(seat) / view.hours() - plan.terms.spot_price) * life(plan, zone, ages.hours(seat, view)).min(time.work);
        offers.push(Offer { seat: Some(seat), value: values.spot + dearer + view.transfer(seat), hazard: hazard(view, plan, zone, ages) });
    }
    offers
}

/// The zone that lasts longest, or the gap of all.
fn market(view: &View<'_>, plan: &Plan, ages: &Ages) -> Market {
    let up = (0..plan.zones.len()).filter(|zone| view.is_up(plan.zones[*zone]));
    match up.min_by(|a, b| hazard(view, plan, *a, ages).total_cmp(&hazard(view, plan, *b, ages))) {
        Some(zone) => Market::Up { age_hours: ages.hours(plan.zones[zone], view) },
        None => Market::Down { age_hours: plan.zones.iter().map(|zone| ages.hours(*zone, view)).fold(f64::INFINITY, f64::min) },
    }
}

fn hazard(view: &View<'_>, plan: &Plan, zone: usize, ages: &Ages) -> f64 {
    plan.hazards[zone][class_of(ages.hours(plan.zones[zone], view))]
}

/// Hours that a zone of this age goes on, on average.
fn life(plan: &Plan, zone: usize, age_hours: f64) -> f64 {
    let hazards = &plan.hazards[zone];
    let (mut lives, mut hours, mut age) = (1.0, 0.0, age_hours);
    for (class, hazard) in hazards.iter().enumerate().skip(class_of(age_hours)) {
        let until = AGES.get(class + 1).copied().unwrap_or(f64::INFINITY);
        let ends = (-hazard * (until - age)).exp();
        hours += lives * (1.0 - ends) / hazard;
        lives *= ends;
        age = until;
    }
    hours
}

/// Hours, with what must be kept for a wrong estimate taken from the time left.
struct Time {
    left: f64,
    work: f64,
    loading: f64,
}

impl Time {
    fn of(view: &View<'_>) -> Time {
        let task = view.task;
        let most = task.work_max(view.tick_seconds());
        let least = (task.work - task.work * task.error_permille / 1000).max(view.done).min(most);
        let mean = (least + most) / 2;
        let left = view.ticks_left() * view.tick_seconds() - (most - mean);
        Time { left: hours(left), work: hours(mean - view.done), loading: hours(view.overhead_left) }
    }
}

fn hours(seconds: i64) -> f64 {
    seconds as f64 / 3600.0
}

impl Purser {
    /// The plans for what was known when this part of the market began.
    fn plans(&mut self, view: &View<'_>) -> Rc<Vec<Plan>> {
        let every = ((LEARN_EVERY_HOURS / view.hours()).round() as usize).max(1);
        let key = Key { epoch: view.now() / every, work: view.task.work, overhead: view.task.overhead };
        if let Some(plans) = self.plans.get(&key) {
            return Rc::clone(plans);
        }
        if self.order.len() >= KEPT {
            self.plans.remove(&self.order.remove(0));
        }
        let plans = Rc::new(solve(view, key.epoch * every));
        self.plans.insert(key, Rc::clone(&plans));
        self.order.push(key);
        plans
    }
}

/// One plan a band, with what was seen until `tick`.
fn solve(view: &View<'_>, tick: usize) -> Vec<Plan> {
    let bands = bands(view, tick);
    let work_hours = hours(view.task.work);
    let step_hours = ((work_hours / STEPS / view.hours()).round().max(1.0)) * view.hours();
    let plan = |zones: &Vec<usize>| {
        let behaviour = behaviour(view, zones, tick);
        let prices = zones.iter().map(|zone| mean_price(view, *zone, tick));
        let dearest = view.on_demand().map_or(f64::MAX, |seat| view.price(seat));
        let terms = Terms {
            step_hours,
            spot_price: prices.fold(0.0, |sum, price| sum + price) / zones.len() as f64 / view.hours(),
            on_demand_price: dearest / view.hours(),
            overhead_hours: hours(view.task.overhead),
            left_hours_max: work_hours * HORIZON,
            slack_hours_max: work_hours * (HORIZON - 1.0),
            on_demand_stays: false,
        };
        Plan { zones: zones.clone(), table: Table::solve(&behaviour, terms), hazards: behaviour.zones, terms }
    };
    bands.iter().map(plan).collect()
}

/// What some zones have shown until `tick`.
fn behaviour(view: &View<'_>, zones: &[usize], tick: usize) -> Behaviour {
    let spells: Vec<Vec<Spell>> = zones.iter().map(|zone| spells(view, *zone, tick)).collect();
    learn(&spells, tick as f64 * view.hours())
}

/// The cheapest band, then that and the next, and so on.
fn bands(view: &View<'_>, tick: usize) -> Vec<Vec<usize>> {
    let mut zones: Vec<(usize, f64)> = (0..view.spot_seats()).map(|zone| (zone, mean_price(view, zone, tick))).collect();
    zones.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut bands: Vec<Vec<usize>> = Vec::new();
    let mut floor = f64::NEG_INFINITY;
    for (zone, price) in zones {
        let opens = bands.is_empty() || (price > floor * BAND && bands.len() < BANDS_MAX);
        if opens {
            floor = price;
            bands.push(bands.last().cloned().unwrap_or_default());
        }
        if let Some(band) = bands.last_mut() {
            band.push(zone);
        }
    }
    bands
}

/// Over the last day seen.
fn mean_price(view: &View<'_>, seat: usize, tick: usize) -> f64 {
    let ago = view.now() - tick.min(view.now());
    let day = ((24.0 / view.hours()) as usize).clamp(1, tick.max(1));
    let step = (day / 24).max(1);
    let samples = (0..day).step_by(step);
    let count = samples.clone().count() as f64;
    samples.map(|back| view.price_ago(seat, ago + back)).sum::<f64>() / count
}

fn spells(view: &View<'_>, seat: usize, tick: usize) -> Vec<Spell> {
    let past = view.past(seat);
    let past = &past[..past.len().min(tick + 1)];
    let mut from = 0;
    let chunks = past.chunk_by(|a, b| a == b);
    chunks
        .map(|chunk| {
            let spell = Spell { up: chunk[0], from: from as f64 * view.hours(), to: (from + chunk.len()) as f64 * view.hours() };
            from += chunk.len();
            spell
        })
        .collect()
}

/// Since when each zone is as it is.
#[derive(Default)]
struct Ages {
    /// The tick looked at last.
    tick: Option<usize>,
    since: Vec<(bool, f64)>,
}

impl Ages {
    fn look(&mut self, view: &View<'_>) {
        let now = view.now();
        let follows = self.tick.is_some_and(|tick| tick + 1 == now);
        let at = now as f64 * view.hours();
        if !follows && self.tick != Some(now) {
            self.since = (0..view.spot_seats()).map(|seat| beginning(view, seat)).collect();
        }
        for (seat, (up, since)) in self.since.iter_mut().enumerate() {
            if *up != view.is_up(seat) {
                (*up, *since) = (!*up, at);
            }
        }
        self.tick = Some(now);
    }

    fn hours(&self, seat: usize, view: &View<'_>) -> f64 {
        view.now() as f64 * view.hours() - self.since[seat].1
    }
}

fn beginning(view: &View<'_>, seat: usize) -> (bool, f64) {
    let past = view.past(seat);
    let up = view.is_up(seat);
    let length = past.iter().rev().take_while(|was| **was == up).count();
    let start = (past.len() - length) as f64 * view.hours();
    (up, if length == past.len() { start - age_unseen(up) } else { start })
}
