//! Machines bought on a market and what becomes of them, as facts at exact seconds of market time.
//!
//! ```text
//!  launch ─► pending ──boot──► running ──(rebalance ─ 5 min ─ warning ─ 2 min)──► shutting-down ─► terminated
//!                 └──────────────── terminate ──────────────────────────────────────┘
//! ```
//! Everything that happens is a [`Fact`]; the state is the sum of the facts, so a fleet is continued from a log by
//! [`Fleet::replay`]. Time moves by [`Fleet::advance`] from one scheduled event to the next: however fast the clock runs,
//! a machine that boots for 60 seconds runs exactly 60 seconds after its launch.
//!
//! **Interruption.** The market knows when a pool's capacity falls. Two minutes before, as many machines as would be too
//! many are warned, newest first, and leave `running` at the second of the fall; the rebalance recommendation comes five
//! minutes before. A launch must fit the capacity of now and of the next two minutes, so nobody gets a shorter notice.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{Market, PoolKey};
use crate::capacity::CapacityKind;
use crate::scheduling::snapshot::InstanceState;
use crate::units::{Money, MoneyPerHour};

/// Seconds of market time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timing {
    /// From launch to running.
    pub boot_seconds: u32,
    /// From shutting-down to terminated.
    pub shutdown_seconds: u32,
    /// From the interruption warning to the end: 120 on EC2.
    pub notice_seconds: u32,
    /// From the rebalance recommendation to the end.
    pub rebalance_seconds: u32,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing { boot_seconds: 60, shutdown_seconds: 20, notice_seconds: 120, rebalance_seconds: 300 }
    }
}

/// Who ended a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndReason {
    User,
    Interrupted,
}

/// Something that happened, at a whole second of market time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    pub at: DateTime<Utc>,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum What {
    Launched(Box<Launched>),
    /// It entered running; a machine of its kind costs `price` from now on, nothing if reserved.
    Running { instance: String, price: MoneyPerHour },
    /// The pool's spot price from now on, for whoever runs there.
    Priced { pool: PoolKey, price: MoneyPerHour },
    Rebalance { instance: String },
    Warned { instance: String, ends_at: DateTime<Utc> },
    /// It left pending or running.
    Ending { instance: String, reason: EndReason },
    Ended { instance: String },
    Tagged { instance: String, tags: BTreeMap<String, String> },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Launched {
    pub instance: String,
    pub order: Order,
}

/// What a launch asks for, for each of its machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    pub pool: PoolKey,
    pub kind: CapacityKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<String>,
    /// The client token.
    #[serde(default)]
    pub token: String,
    pub image: String,
    pub subnet: String,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub id: String,
    pub order: Order,
    pub launched_at: DateTime<Utc>,
    pub running_at: Option<DateTime<Utc>>,
    pub rebalance_at: Option<DateTime<Utc>>,
    pub warned_at: Option<DateTime<Utc>>,
    /// EC2 will take it back then.
    pub reclaim_at: Option<DateTime<Utc>>,
    pub ending: Option<(DateTime<Utc>, EndReason)>,
    pub ended_at: Option<DateTime<Utc>>,
}

impl Instance {
    pub fn is_live(&self) -> bool {
        self.ending.is_none()
    }

    /// Its state at a time in the past; absent before its launch.
    pub fn state_at(&self, at: DateTime<Utc>) -> Option<InstanceState> {
        let reached = |time: Option<DateTime<Utc>>| time.is_some_and(|time| time <= at);
        if self.launched_at > at {
            None
        } else if reached(self.ended_at) {
            Some(InstanceState::Terminated)
        } else if reached(self.ending.map(|(time, _)| time)) {
            Some(InstanceState::ShuttingDown)
        } else if reached(self.running_at) {
            Some(InstanceState::Running)
        } else {
            Some(InstanceState::Pending)
        }
    }
}

/// What happens at a second; in the order in which it happens where the second is the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Price(PoolKey),
    Reclaim(usize),
    Gone(usize),
    Boot(usize),
    Rebalance { pool: PoolKey, fall: DateTime<Utc> },
    Warn { pool: PoolKey, fall: DateTime<Utc> },
}

#[derive(Clone, Debug)]
pub struct Fleet {
    market: Arc<Market>,
    timing: Timing,
    instances: Vec<Instance>,
    index: BTreeMap<String, usize>,
    /// Pending and running machines by pool, oldest first.
    live: BTreeMap<PoolKey, Vec<usize>>,
    /// Pools in which a spot machine was ever launched: their falls are followed, and their prices, which are known up to
    /// this time.
    followed: BTreeMap<PoolKey, DateTime<Utc>>,
    timers: BinaryHeap<Reverse<(DateTime<Utc>, Timer)>>,
    now: DateTime<Utc>,
    /// Everything before is in the log already.
    replayed_until: DateTime<Utc>,
    news: Vec<Fact>,
}

impl Fleet {
    pub fn new(market: Arc<Market>, timing: Timing) -> Fleet {
        let epoch = market.epoch;
        Fleet {
            market,
            timing,
            instances: Vec::new(),
            index: BTreeMap::new(),
            live: BTreeMap::new(),
            followed: BTreeMap::new(),
            timers: BinaryHeap::new(),
            now: epoch,
            replayed_until: epoch,
            news: Vec::new(),
        }
    }

    /// The fleet that these facts left behind.
    pub fn replay<'a>(market: Arc<Market>, timing: Timing, facts: impl IntoIterator<Item = &'a Fact>) -> Fleet {
        let mut fleet = Fleet::new(market, timing);
        for fact in facts {
            fleet.apply(fact);
            fleet.now = fleet.now.max(fact.at);
        }
        fleet.replayed_until = fleet.now;
        fleet
    }

    pub fn market(&self) -> &Market {
        &self.market
    }

    pub fn timing(&self) -> Timing {
        self.timing
    }

    pub fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// Every machine that was ever launched, oldest first.
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    pub fn instance(&self, id: &str) -> Option<&Instance> {
        self.index.get(id).map(|index| &self.instances[*index])
    }

    /// Its place in the order of launches, from 0.
    pub fn number(&self, id: &str) -> Option<usize> {
        self.index.get(id).copied()
    }

    pub fn live(&self) -> impl Iterator<Item = &Instance> {
        self.live.values().flatten().map(|index| &self.instances[*index])
    }

    /// When something will happen next if nobody does anything.
    pub fn next_event(&self) -> Option<DateTime<Utc>> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// What happened since the last call.
    pub fn take_news(&mut self) -> Vec<Fact> {
        std::mem::take(&mut self.news)
    }

    /// Lets everything happen up to and including `to`.
    pub fn advance(&mut self, to: DateTime<Utc>) {
        while let Some(Reverse((at, timer))) = self.timers.pop_if_due(to) {
            self.now = self.now.max(at);
            self.fire(at, timer);
        }
        self.now = self.now.max(to);
    }

    /// How many more machines could be launched now.
    pub fn room(&self, pool: &PoolKey, kind: CapacityKind, reservation: Option<&str>) -> u32 {
        let Some(offered) = self.market.pool(pool) else { return 0 };
        let second = self.market.second(self.now);
        match kind {
            CapacityKind::Spot => self.spot_room(pool, second),
            CapacityKind::OnDemand => match &offered.on_demand_capacity {
                Some(capacity) => capacity.at(second).saturating_sub(self.live_count(pool, |order| order.kind == kind)),
                None => u32::MAX,
            },
            CapacityKind::Reserved => {
                let Some(found) = reservation.and_then(|id| self.market.reservation(id)).filter(|found| found.pool == *pool) else { return 0 };
                found.count.saturating_sub(self.live_count(pool, |order| order.reservation.as_deref() == Some(found.id.as_str())))
            }
        }
    }

    /// Machines of a reservation that nobody uses.
    pub fn reservation_available(&self, id: &str) -> u32 {
        self.market.reservation(id).map_or(0, |found| self.room(&found.pool, CapacityKind::Reserved, Some(id)))
    }

    /// Launches `count` machines, or as many as there is room for. Returns their ids.
    pub fn launch(&mut self, order: &Order, count: u32) -> Vec<String> {
        let count = count.min(self.room(&order.pool, order.kind, order.reservation.as_deref()));
        (0..count)
            .map(|_| {
                let instance = self.next_id();
                self.happen(self.now, What::Launched(Box::new(Launched { instance: instance.clone(), order: order.clone() })));
                instance
            })
            .collect()
    }

    /// Ends machines; those that are ending already stay as they are.
    pub fn terminate(&mut self, ids: &[String]) {
        for id in ids {
            if self.instance(id).is_some_and(Instance::is_live) {
                self.happen(self.now, What::Ending { instance: id.clone(), reason: EndReason::User });
            }
        }
    }

    pub fn tag(&mut self, id: &str, tags: BTreeMap<String, String>) {
        if self.index.contains_key(id) {
            self.happen(self.now, What::Tagged { instance: id.to_owned(), tags });
        }
    }

    fn happen(&mut self, at: DateTime<Utc>, what: What) {
        let fact = Fact { at, what };
        self.apply(&fact);
        self.news.push(fact);
    }

    /// The only place where facts change the state.
    fn apply(&mut self, fact: &Fact) {
        let at = fact.at;
        match &fact.what {
            What::Launched(launched) => self.add(at, launched),
            What::Running { instance, .. } => self.change(instance, |found| found.running_at = Some(at)),
            What::Rebalance { instance } => self.change(instance, |found| found.rebalance_at = Some(at)),
            What::Warned { instance, ends_at } => {
                self.change(instance, |found| (found.warned_at, found.reclaim_at) = (Some(at), Some(*ends_at)));
                if let Some(index) = self.index.get(instance) {
                    self.timers.push(Reverse((*ends_at, Timer::Reclaim(*index))));
                }
            }
            What::Ending { instance, reason } => self.take_away(at, instance, *reason),
            What::Ended { instance } => self.change(instance, |found| found.ended_at = Some(at)),
            What::Tagged { instance, tags } => self.change(instance, |found| found.order.tags.extend(tags.clone())),
            What::Priced { pool, .. } => {
                self.followed.insert(pool.clone(), at);
            }
        }
    }

    fn change(&mut self, id: &str, change: impl FnOnce(&mut Instance)) {
        if let Some(index) = self.index.get(id) {
            change(&mut self.instances[*index]);
        }
    }

    fn add(&mut self, at: DateTime<Utc>, launched: &Launched) {
        let index = self.instances.len();
        let Launched { instance, order } = launched;
        self.instances.push(Instance {
            id: instance.clone(),
            order: order.clone(),
            launched_at: at,
            running_at: None,
            rebalance_at: None,
            warned_at: None,
            reclaim_at: None,
            ending: None,
            ended_at: None,
        });
        self.index.insert(instance.clone(), index);
        self.live.entry(order.pool.clone()).or_default().push(index);
        self.timers.push(Reverse((at + seconds(self.timing.boot_seconds), Timer::Boot(index))));
        if order.kind == CapacityKind::Spot && !self.followed.contains_key(&order.pool) {
            self.followed.insert(order.pool.clone(), at);
            self.follow_price(&order.pool, at);
            self.follow_fall(&order.pool, Stage::Rebalance, at + seconds(self.timing.rebalance_seconds));
            self.follow_fall(&order.pool, Stage::Warn, at + seconds(self.timing.notice_seconds));
        }
    }

    fn take_away(&mut self, at: DateTime<Utc>, id: &str, reason: EndReason) {
        let Some(index) = self.index.get(id).copied() else { return };
        self.instances[index].ending = Some((at, reason));
        if let Some(pool) = self.live.get_mut(&self.instances[index].order.pool) {
            pool.retain(|live| *live != index);
        }
        self.timers.push(Reverse((at + seconds(self.timing.shutdown_seconds), Timer::Gone(index))));
    }

    fn fire(&mut self, at: DateTime<Utc>, timer: Timer) {
        match timer {
            Timer::Boot(index) => self.boot(at, index),
            Timer::Reclaim(index) if self.instances[index].is_live() => {
                self.happen(at, What::Ending { instance: self.instances[index].id.clone(), reason: EndReason::Interrupted });
            }
            Timer::Gone(index) if self.instances[index].ended_at.is_none() => {
                self.happen(at, What::Ended { instance: self.instances[index].id.clone() });
            }
            Timer::Reclaim(_) | Timer::Gone(_) => {}
            Timer::Price(pool) => {
                let is_new = self.followed.get(&pool).is_none_or(|known| *known < at);
                if let Some(price) = self.market.spot_price(&pool, at).filter(|_| is_new) {
                    self.happen(at, What::Priced { pool: pool.clone(), price });
                }
                self.follow_price(&pool, at);
            }
            Timer::Rebalance { pool, fall } => {
                if at >= self.replayed_until {
                    self.recommend(at, &pool, fall);
                }
                self.follow_fall(&pool, Stage::Rebalance, fall);
            }
            Timer::Warn { pool, fall } => {
                if at >= self.replayed_until {
                    self.warn(at, &pool, fall);
                }
                self.follow_fall(&pool, Stage::Warn, fall);
            }
        }
    }

    fn boot(&mut self, at: DateTime<Utc>, index: usize) {
        let found = &self.instances[index];
        if found.is_live() && found.running_at.is_none() {
            let price = self.price(&found.order, at);
            self.happen(at, What::Running { instance: self.instances[index].id.clone(), price });
        }
    }

    fn price(&self, order: &Order, at: DateTime<Utc>) -> MoneyPerHour {
        let nothing = MoneyPerHour(Money::ZERO_USD);
        match order.kind {
            CapacityKind::Reserved => nothing,
            CapacityKind::Spot => self.market.spot_price(&order.pool, at).unwrap_or(nothing),
            CapacityKind::OnDemand => self.market.pool(&order.pool).map_or(nothing, |pool| pool.on_demand_price),
        }
    }

    fn recommend(&mut self, at: DateTime<Utc>, pool: &PoolKey, fall: DateTime<Utc>) {
        for index in self.too_many(pool, fall) {
            if self.instances[index].rebalance_at.is_none() {
                self.happen(at, What::Rebalance { instance: self.instances[index].id.clone() });
            }
        }
    }

    fn warn(&mut self, at: DateTime<Utc>, pool: &PoolKey, fall: DateTime<Utc>) {
        self.recommend(at, pool, fall);
        for index in self.too_many(pool, fall) {
            self.happen(at, What::Warned { instance: self.instances[index].id.clone(), ends_at: fall });
        }
    }

    /// Spot machines for which the pool has no place any more from `fall` on, newest first.
    fn too_many(&self, pool: &PoolKey, fall: DateTime<Utc>) -> Vec<usize> {
        let Some(offered) = self.market.pool(pool) else { return Vec::new() };
        let capacity = *offered.spot_capacity.at(self.market.second(fall)) as usize;
        let staying: Vec<usize> = self.staying(pool, fall).collect();
        staying.into_iter().skip(capacity).rev().collect()
    }

    /// Live spot machines of the pool that nobody will have taken back by then, oldest first.
    fn staying(&self, pool: &PoolKey, by: DateTime<Utc>) -> impl Iterator<Item = usize> {
        self.live.get(pool).into_iter().flatten().copied().filter(move |index| {
            let found = &self.instances[*index];
            found.order.kind == CapacityKind::Spot && found.reclaim_at.is_none_or(|reclaim| reclaim > by)
        })
    }

    fn spot_room(&self, pool: &PoolKey, second: i64) -> u32 {
        let Some(offered) = self.market.pool(pool) else { return 0 };
        let until = second + i64::from(self.timing.notice_seconds);
        let room_at = |second: i64| {
            let staying = self.staying(pool, self.market.time(second)).count() as u32;
            offered.spot_capacity.at(second).saturating_sub(staying)
        };
        let changes = offered.spot_capacity.changes(second, until).map(|(second, _)| second);
        std::iter::once(second).chain(changes).map(room_at).min().unwrap_or(0)
    }

    fn live_count(&self, pool: &PoolKey, which: impl Fn(&Order) -> bool) -> u32 {
        self.live.get(pool).map_or(0, |live| live.iter().filter(|index| which(&self.instances[**index].order)).count() as u32)
    }

    fn follow_price(&mut self, pool: &PoolKey, after: DateTime<Utc>) {
        let Some(offered) = self.market.pool(pool) else { return };
        if let Some((second, _)) = offered.spot_price.next_change(self.market.second(after)) {
            self.timers.push(Reverse((self.market.time(second), Timer::Price(pool.clone()))));
        }
    }

    fn follow_fall(&mut self, pool: &PoolKey, stage: Stage, after: DateTime<Utc>) {
        let Some(offered) = self.market.pool(pool) else { return };
        let second = self.market.second(after);
        let Some((fall, _)) = offered.spot_capacity.next_fall(second, second + FALLS_SEARCHED_SECONDS) else { return };
        let (pool, fall) = (pool.clone(), self.market.time(fall));
        self.timers.push(Reverse(match stage {
            Stage::Rebalance => (fall - seconds(self.timing.rebalance_seconds), Timer::Rebalance { pool, fall }),
            Stage::Warn => (fall - seconds(self.timing.notice_seconds), Timer::Warn { pool, fall }),
        }));
    }

    fn next_id(&self) -> String {
        use sha2::Digest;
        let seed = format!("{}/{}/{}", self.market.name, self.market.epoch, self.instances.len());
        let hex: String = sha2::Sha256::digest(seed).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("i-{}", &hex[..17])
    }
}

/// A year: no measured pool stays full for longer.
const FALLS_SEARCHED_SECONDS: i64 = 366 * 86_400;

#[derive(Clone, Copy)]
enum Stage {
    Rebalance,
    Warn,
}

fn seconds(count: u32) -> TimeDelta {
    TimeDelta::seconds(i64::from(count))
}

trait PopIfDue {
    fn pop_if_due(&mut self, to: DateTime<Utc>) -> Option<Reverse<(DateTime<Utc>, Timer)>>;
}

impl PopIfDue for BinaryHeap<Reverse<(DateTime<Utc>, Timer)>> {
    fn pop_if_due(&mut self, to: DateTime<Utc>) -> Option<Reverse<(DateTime<Utc>, Timer)>> {
        if self.peek().is_some_and(|Reverse((at, _))| *at <= to) { self.pop() } else { None }
    }
}

#[cfg(test)]
mod tests;
