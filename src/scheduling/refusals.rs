//! What the market said lately: refused claims are the memory. An offer that was refused is left alone for ten minutes,
//! after each further refusal twice as long, up to an hour; when a deadline presses, for two minutes, up to ten.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::lifecycle::JOIN_TIMEOUT;
use super::snapshot::{PoolView, Snapshot};
use crate::capacity::{CapacityKind, Claim, ClaimPhase, Offer, RefusalCode};
use crate::training::JobRef;

/// Refused claims are kept so long (market time).
pub const MEMORY: TimeDelta = TimeDelta::hours(2);
const PATIENT: Backoff = Backoff { first: TimeDelta::minutes(10), most: TimeDelta::hours(1) };
const PRESSED: Backoff = Backoff { first: TimeDelta::minutes(2), most: TimeDelta::minutes(10) };
/// Nodes are seen afresh in every cycle; only a hot loop must be avoided.
const NODES: Backoff = Backoff { first: TimeDelta::minutes(1), most: TimeDelta::minutes(5) };

#[derive(Clone, Copy)]
struct Backoff {
    first: TimeDelta,
    most: TimeDelta,
}

impl Backoff {
    fn after(self, refusals: u32) -> TimeDelta {
        (0..refusals.saturating_sub(1)).fold(self.first, |pause, _| (pause * 2).min(self.most))
    }
}

/// Why and until when an offer is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Avoided {
    pub code: RefusalCode,
    pub message: String,
    pub until: DateTime<Utc>,
}

struct Remembered {
    at: DateTime<Utc>,
    count: u32,
    code: RefusalCode,
    message: String,
}

type OfferKey<'a> = (&'a str, &'a str, &'a str, CapacityKind);

#[derive(Default)]
pub struct Refusals<'a> {
    by_offer: BTreeMap<OfferKey<'a>, Vec<Remembered>>,
    granted_at: BTreeMap<OfferKey<'a>, DateTime<Utc>>,
    /// Requests that are wrong as such: job uid → pool → the job's generation and the pool's configuration then, the cloud's words.
    rejected: BTreeMap<String, BTreeMap<String, (i64, String, String)>>,
}

impl<'a> Refusals<'a> {
    pub fn of(snapshot: &'a Snapshot) -> Refusals<'a> {
        let mut refusals = Refusals::default();
        for claim in &snapshot.claims {
            refusals.remember(claim);
        }
        for remembered in refusals.by_offer.values_mut() {
            remembered.sort_by_key(|refusal| refusal.at);
        }
        refusals
    }

    /// Whether this many machines of the offer are better not asked for now. A refusal of many says nothing about few.
    pub fn avoided(&self, pool: &str, offer: &Offer, count: u32, now: DateTime<Utc>, pressed: bool) -> Option<Avoided> {
        let key = key_of(pool, offer);
        let granted_at = self.granted_at.get(&key).copied();
        let relevant = |refusal: &&Remembered| refusal.count <= count && granted_at.is_none_or(|at| refusal.at > at);
        let mut refusals = self.by_offer.get(&key)?.iter().filter(relevant);
        let (in_a_row, last) = (refusals.clone().count(), refusals.next_back()?);
        let backoff = match last.code {
            RefusalCode::NodesTaken => NODES,
            _ if pressed => PRESSED,
            _ => PATIENT,
        };
        let until = last.at + backoff.after(u32::try_from(in_a_row).unwrap_or(u32::MAX));
        (until > now).then(|| Avoided { code: last.code, message: last.message.clone(), until })
    }

    /// The cloud's words when it called this job's request to the pool wrong, as long as neither has changed.
    pub fn rejected(&self, pool: &PoolView, job: &JobRef, generation: i64) -> Option<&str> {
        let (then_generation, then_config, message) = self.rejected.get(&job.uid)?.get(&pool.name)?;
        (*then_generation == generation && *then_config == canonical(&pool.request_template)).then_some(message)
    }

    fn remember(&mut self, claim: &'a Claim) {
        let key = key_of(&claim.record.pool, &claim.record.offer);
        match (&claim.status.phase, &claim.status.refusal) {
            (ClaimPhase::Refused, Some(refusal)) => match refusal.code {
                RefusalCode::Withdrawn => {}
                RefusalCode::Invalid => {
                    let config = config_of(&claim.record.request);
                    let rejected = (claim.record.generation, config, refusal.message.clone());
                    self.rejected.entry(claim.record.job.uid.clone()).or_default().insert(claim.record.pool.clone(), rejected);
                }
                _ => self.add(key, claim, refusal.at, refusal.code, refusal.message.clone()),
            },
            (ClaimPhase::Granted | ClaimPhase::Ended, _) => match failed_to_join(claim) {
                Some(at) => self.add(key, claim, at, RefusalCode::NoCapacity, "its machines did not join the cluster".to_owned()),
                None => {
                    let granted_at = self.granted_at.entry(key).or_insert(claim.record.decided_at);
                    *granted_at = (*granted_at).max(claim.record.decided_at);
                }
            },
            (ClaimPhase::Refused | ClaimPhase::Written, _) => {}
        }
    }

    fn add(&mut self, key: OfferKey<'a>, claim: &Claim, at: DateTime<Utc>, code: RefusalCode, message: String) {
        self.by_offer.entry(key).or_default().push(Remembered { at, count: claim.record.count, code, message });
    }
}

fn key_of<'a>(pool: &'a str, offer: &'a Offer) -> OfferKey<'a> {
    (pool, &offer.instance_type, &offer.zone, offer.kind)
}

/// All machines were asked to end before any of them had a node: as bad as a refusal, and dearer.
fn failed_to_join(claim: &Claim) -> Option<DateTime<Utc>> {
    let instances = &claim.status.instances;
    let never_joined = instances.iter().all(|instance| instance.node.is_none() && instance.notice.is_none());
    if !never_joined {
        return None;
    }
    let asked = instances.iter().map(|instance| instance.release_asked_at).collect::<Option<Vec<_>>>()?.into_iter().max()?;
    // Given back earlier than that, nobody waited for it.
    instances.iter().all(|instance| asked - instance.launched_at >= JOIN_TIMEOUT).then_some(asked)
}

/// The pool's configuration inside a claim's request, in the spelling of [`canonical`].
fn config_of(request: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(request).ok();
    parsed.and_then(|request| request.get("config").map(ToString::to_string)).unwrap_or_default()
}

/// JSON text with sorted keys and no spaces, so that equal configurations are equal texts.
fn canonical(json: &str) -> String {
    serde_json::from_str::<serde_json::Value>(json).map_or_else(|_| String::new(), |value| value.to_string())
}
