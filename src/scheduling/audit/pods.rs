//! The invariants of claims for pods: no pod has two machines, every slot holds what it is for, and a pod is let go only to a
//! node that is its claim's and has room.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::{Auditor, Verdict, require};
use crate::capacity::claim::{fleet_of, pods_claim_name};
use crate::capacity::{Claim, ClaimPhase, ClaimRecord, PodRef, PodsPolicy, Slot};
use crate::scheduling::packing::Resources;
use crate::scheduling::pods::ground::{Ground, hostname};
use crate::scheduling::pods::purchase::offered;
use crate::scheduling::snapshot::PoolView;

impl Auditor<'_> {
    pub(super) fn admit_pods_claim(&mut self, name: &str, record: &ClaimRecord, slots: &[Slot]) -> Verdict {
        require(name == pods_claim_name(slots, record.ask), || format!("claim {name} is misnamed"))?;
        require(!self.claims.contains_key(name), || format!("claim {name} exists"))?;
        require(record.count as usize == slots.len(), || format!("{} machines for {} slots", record.count, slots.len()))?;
        require(record.job == fleet_of(&record.pool), || format!("claim {name} would be paid by {}", record.job))?;
        let pool = self.snapshot.pools.iter().find(|pool| pool.name == record.pool && pool.state.is_ok());
        let pool = pool.ok_or_else(|| format!("pool {} is not ready", record.pool))?;
        let policy = pool.pods.as_ref().ok_or_else(|| format!("pool {} serves no pods", record.pool))?;
        require(policy.capacity_kinds.contains(&record.offer.kind), || format!("pool {} buys no {} for pods", record.pool, record.offer.kind))?;
        self.check_supply(pool, record)?;
        let ground = Rc::clone(&self.ground);
        for slot in slots {
            self.check_slot(&ground, pool, policy, record, slot)?;
        }
        self.supply.take(record);
        Ok(())
    }

    fn check_slot(&mut self, ground: &Ground<'_>, pool: &PoolView, policy: &PodsPolicy, record: &ClaimRecord, slot: &Slot) -> Verdict {
        require(!slot.pods.is_empty(), || "a machine would be bought for nobody".to_owned())?;
        let quoted = pool.offers.iter().find(|quoted| quoted.offer == record.offer);
        let (room, pods_max) = quoted.map(|quoted| offered(&quoted.machine, policy)).unwrap_or_default();
        let mut wanted = Resources::default();
        for pod in &slot.pods {
            let view = ground.held_back(pod).ok_or_else(|| format!("pod {pod} does not wait"))?;
            require(view.pool == pool.name, || format!("pod {pod} is of pool {}", view.pool))?;
            require(ground.seat_of(view).is_none(), || format!("a machine was bought for pod {pod} already"))?;
            self.first("buy for pod", &pod.uid)?;
            let needs = view.needs.as_ref().map_err(|why| format!("pod {pod}: {why}"))?;
            wanted = wanted.plus(&needs.requests);
        }
        let fits = wanted.fits_in(&room) && slot.pods.len() <= pods_max as usize;
        require(fits, || format!("{} pods do not fit on {}", slot.pods.len(), record.offer))
    }

    pub(super) fn admit_ask_for_pods(&mut self, claim: &Claim, slots: &[Slot]) -> Verdict {
        let uids: BTreeSet<&str> = slots.iter().flat_map(|slot| &slot.pods).map(|pod| pod.uid.as_str()).collect();
        let wanted = self.snapshot.pods.iter().any(|pod| pod.is_held_back() && uids.contains(pod.id.uid.as_str()));
        require(wanted, || format!("nobody waits for claim {}", claim.name))?;
        self.first("AskCloud", &claim.name)
    }

    pub(super) fn admit_placement(&mut self, pod: &PodRef, claim: &str, node: &str, host: &str) -> Verdict {
        let view = self.ground.pod(pod).ok_or_else(|| format!("there is no pod {pod}"))?;
        require(view.is_held_back(), || format!("pod {pod} does not wait"))?;
        let record = self.claims.get(claim).copied().filter(|claim| claim.record.is_for_pods() && claim.status.phase == ClaimPhase::Granted);
        let record = record.ok_or_else(|| format!("there is no granted claim {claim} for pods"))?;
        require(record.record.pool == view.pool, || format!("claim {claim} is of pool {}, pod {pod} of {}", record.record.pool, view.pool))?;
        let target = self.node(node)?;
        let is_home = target.claim.as_deref() == Some(claim) && !target.unclaimed_taint && !target.leaving_taint && hostname(target) == host;
        require(is_home, || format!("node {node} takes no pods for claim {claim}"))?;
        let ground = Rc::clone(&self.ground);
        let room = self.rooms.entry(node.to_owned()).or_insert_with(|| ground.room(target));
        let needs = view.needs.as_ref().map_err(|why| format!("pod {pod}: {why}"))?;
        require(room.take(needs), || format!("pod {pod} does not fit on node {node}"))?;
        self.first("PlacePod", &pod.uid)
    }

    pub(super) fn admit_eviction(&mut self, pod: &PodRef, node: &str) -> Verdict {
        let view = self.ground.pod(pod).ok_or_else(|| format!("there is no pod {pod}"))?;
        require(!view.gated && !view.deleting, || format!("pod {pod} is on no node, or leaves already"))?;
        let target = self.node(node)?;
        let is_there = view.bound_to.as_deref() == Some(node) || view.pinned_to.as_deref() == Some(hostname(target));
        require(is_there, || format!("pod {pod} is not on node {node}"))?;
        let of_pods = target.claim.as_ref().and_then(|claim| self.claims.get(claim.as_str())).is_some_and(|claim| claim.record.is_for_pods());
        require(of_pods, || format!("node {node} was not bought for pods"))?;
        self.first("EvictPod", &pod.uid)
    }
}
