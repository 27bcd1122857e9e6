//! Pods of pools: held back until a fleet for all of them is planned and bought, then each let go to its own node.
//!
//! ```text
//!  gated pods ──batch settles──► packing::pack ──► WriteClaim, one for each (type, zone, kind), slots name the pods
//!      ▲                                             │ AskCloud, AdoptNode: as for any claim
//!      │                                             ▼
//!      └── machine refused, interrupted, late ◄── PlacePod: pinned to the slot's node, gate off ──► pods gone: Release
//! ```
//! The scheduler never chooses: a pod that is let go fits on one node only, where its room was kept. All memory is in the
//! claims (which pod was which machine bought for) and in the pods (which node a pod is pinned to). A pod whose machine does
//! not come is planned again; a pod that was pinned and lost its machine is evicted, and whoever owns it makes another.
//!
//! Pure. [`ground`] says what stands and who has a seat where; [`life`] moves claims on; [`purchase`] fills room that is
//! there, and buys; [`mend`] looks for a cheaper fleet for those that run.

pub mod ground;
mod life;
mod mend;
pub mod purchase;
#[cfg(test)]
mod tests;

use super::machines::Fleet;
use super::refusals::Refusals;
use super::snapshot::Snapshot;
use super::supply::Supply;
use super::Action;
use ground::Ground;

/// The label by which a node selector names one node.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// What is to be done for pods, and what people should know.
#[derive(Debug, Default)]
pub struct Turn {
    pub actions: Vec<Action>,
    pub alerts: Vec<String>,
}

/// `supply` is what is left after the jobs' turn.
pub fn advance(snapshot: &Snapshot, fleet: &Fleet, refusals: &Refusals<'_>, supply: &mut Supply<'_>) -> Turn {
    let ground = Ground::of(snapshot, fleet);
    let mut turn = Turn::default();
    for claim in snapshot.claims.iter().filter(|claim| claim.record.is_for_pods()) {
        turn.actions.extend(life::advance(&ground, claim));
    }
    for pool in &snapshot.pools {
        purchase::plan(&ground, pool, refusals, supply, &mut turn);
        mend::plan(&ground, pool, refusals, supply, &mut turn);
    }
    turn.alerts.extend(of_no_pool(snapshot));
    turn
}

/// Pods that name a pool which is not there, or serves no pods.
fn of_no_pool(snapshot: &Snapshot) -> Vec<String> {
    let serves = |name: &str| snapshot.pools.iter().any(|pool| pool.name == name && pool.pods.is_some());
    let mut lost: std::collections::BTreeMap<&str, Vec<String>> = std::collections::BTreeMap::new();
    for pod in snapshot.pods.iter().filter(|pod| pod.gated && !serves(&pod.pool)) {
        lost.entry(&pod.pool).or_default().push(pod.id.to_string());
    }
    let told = |(pool, pods): (&str, Vec<String>)| {
        format!("{} wait for pool {pool}, which is not there or has no section spec.pods", purchase::some_of(&pods))
    };
    lost.into_iter().map(told).collect()
}
