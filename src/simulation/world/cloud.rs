//! The cloud of the world: client tokens, refusals, partial answers, boots, notices, ends, a list that lags.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use super::Faults;
use crate::capacity::{CapacityKind, Claim, End, EndCause, NoticeKind, Offer, Refusal, RefusalCode};
use crate::scheduling::snapshot::{CloudInstance, InstanceState};
use crate::units::Money;

/// How long EC2 lists what has ended.
const LISTED_AFTER_END: TimeDelta = TimeDelta::hours(1);
const NOTICE: TimeDelta = TimeDelta::minutes(2);

#[derive(Clone, Debug)]
pub struct Vm {
    pub id: String,
    pub pool: String,
    pub claim: String,
    pub token: String,
    pub experiment: String,
    pub offer: Offer,
    pub launched_at: DateTime<Utc>,
    pub runs_at: DateTime<Utc>,
    /// `None`: its kubelet never comes.
    pub joins_at: Option<DateTime<Utc>>,
    pub notice_at: Option<DateTime<Utc>>,
    pub ends: Option<End>,
    /// Lists and events come so much later.
    lag: TimeDelta,
}

impl Vm {
    pub fn is_alive(&self, now: DateTime<Utc>) -> bool {
        self.ends.as_ref().is_none_or(|end| end.at > now)
    }

    pub fn has_joined(&self, now: DateTime<Utc>) -> bool {
        self.is_alive(now) && self.joins_at.is_some_and(|at| at <= now)
    }

    pub fn cost(&self, now: DateTime<Utc>) -> Money {
        let until = self.ends.as_ref().map_or(now, |end| end.at.min(now));
        let seconds = (until - self.runs_at).num_seconds().max(0);
        let price = (self.offer.kind != CapacityKind::Reserved).then_some(self.offer.price);
        price.and_then(|price| price.for_seconds(seconds).ok()).unwrap_or(Money::ZERO_USD)
    }

    fn seen(&self, now: DateTime<Utc>) -> CloudInstance {
        let known = |at: &DateTime<Utc>| *at + self.lag <= now;
        let state = match () {
            () if !self.is_alive(now) => InstanceState::Terminated,
            () if self.runs_at > now => InstanceState::Pending,
            () => InstanceState::Running,
        };
        CloudInstance {
            id: self.id.clone(),
            pool: self.pool.clone(),
            claim: Some(self.claim.clone()),
            client_token: Some(self.token.clone()),
            instance_type: self.offer.instance_type.clone(),
            zone: self.offer.zone.clone(),
            state,
            launched_at: self.launched_at,
            running_at: Some(self.runs_at).filter(known),
            ended: self.ends.clone().filter(|end| known(&end.at)),
            notice: self.notice_at.filter(known).map(|at| (NoticeKind::Interruption, at)),
            observed_at: now,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub instances: Vec<String>,
    pub refusal: Option<Refusal>,
}

#[derive(Default)]
pub struct Cloud {
    pub machines: BTreeMap<String, Vm>,
    answers: BTreeMap<String, Answer>,
}

impl Cloud {
    /// The same token gets the same answer, whatever has become of the machines.
    pub fn launch(&mut self, claim: &Claim, now: DateTime<Utc>, faults: Faults, random: &mut ChaCha12Rng) -> Answer {
        if let Some(answer) = self.answers.get(&claim.uid) {
            return answer.clone();
        }
        let refused = match claim.record.offer.kind {
            CapacityKind::Spot => faults.refused_spot,
            CapacityKind::OnDemand | CapacityKind::Reserved => faults.refused_on_demand,
        };
        let (count, refusal) = match () {
            () if random.random_bool(refused) => (0, Some(RefusalCode::NoCapacity)),
            () if claim.record.count > 1 && random.random_bool(faults.partial) => (claim.record.count - 1, Some(RefusalCode::Partial)),
            () => (claim.record.count, None),
        };
        let instances = (0..count).map(|_| self.boot(claim, now, faults, random)).collect();
        let refusal = refusal.map(|code| Refusal { code, message: "InsufficientInstanceCapacity".to_owned(), at: now });
        let answer = Answer { instances, refusal };
        self.answers.insert(claim.uid.clone(), answer.clone());
        answer
    }

    fn boot(&mut self, claim: &Claim, now: DateTime<Utc>, faults: Faults, random: &mut ChaCha12Rng) -> String {
        let id = format!("i-{:05}", self.machines.len());
        let runs_at = now + TimeDelta::seconds(random.random_range(10..60));
        let joins = !random.random_bool(faults.never_joins);
        let vm = Vm {
            id: id.clone(),
            pool: claim.record.pool.clone(),
            claim: claim.name.clone(),
            token: claim.uid.clone(),
            experiment: claim.record.experiment.clone(),
            offer: claim.record.offer.clone(),
            launched_at: now,
            runs_at,
            joins_at: joins.then_some(runs_at + TimeDelta::seconds(random.random_range(20..120))),
            notice_at: None,
            ends: None,
            lag: TimeDelta::seconds(random.random_range(0..40)),
        };
        self.machines.insert(id.clone(), vm);
        id
    }

    pub fn terminate(&mut self, ids: &[String], now: DateTime<Utc>) {
        for id in ids {
            if let Some(vm) = self.machines.get_mut(id).filter(|vm| vm.is_alive(now)) {
                let cause = if vm.runs_at > now { EndCause::NeverRan } else { EndCause::Terminated };
                vm.ends = Some(End { at: now, cause, estimated: false });
            }
        }
    }

    pub fn list(&self, now: DateTime<Utc>) -> Vec<CloudInstance> {
        let listed = |vm: &&Vm| {
            let forgotten = vm.ends.as_ref().is_some_and(|end| now - end.at > LISTED_AFTER_END);
            vm.launched_at + vm.lag <= now && !forgotten
        };
        self.machines.values().filter(listed).map(|vm| vm.seen(now)).collect()
    }

    /// Spot machines are taken back, mostly after a notice.
    pub fn evolve(&mut self, now: DateTime<Utc>, passes: TimeDelta, faults: Faults, random: &mut ChaCha12Rng) -> Vec<String> {
        let probability = (faults.interruptions * passes.num_seconds() as f64 / 3600.0).min(1.0);
        let mut taken = Vec::new();
        for vm in self.machines.values_mut() {
            let at_risk = vm.offer.kind == CapacityKind::Spot && vm.ends.is_none() && vm.runs_at <= now;
            if !at_risk || !random.random_bool(probability) {
                continue;
            }
            let announced = !random.random_bool(faults.unannounced);
            vm.notice_at = announced.then_some(now);
            let at = if announced { now + NOTICE } else { now };
            vm.ends = Some(End { at, cause: EndCause::Interrupted, estimated: false });
            taken.push(format!("‡ {} is taken back at {at}{}", vm.id, if announced { "" } else { ", without notice" }));
        }
        taken
    }
}
