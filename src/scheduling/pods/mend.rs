//! Consolidation: pods leave nodes that a cheaper fleet would not need, where that repays what moving costs.
//!
//! ```text
//!  a look every now and then ─► packing::repair ─► TaintNode ─► EvictPod … ─► their owners make new pods ─► planned again ─► Release
//! ```
//! The taint is the memory: a node that carries it takes no pod, and those on it are asked to leave until it is empty, however
//! often Purser restarts. Only pods that somebody makes anew are moved, never more than the policy and the disruption budgets let
//! go, and a pool is looked at only while nothing in it is on its way.

use std::collections::BTreeMap;

use super::ground::Ground;
use super::purchase::{self, Purchase};
use super::Turn;
use crate::capacity::{ClaimPhase, Offer, PodsPolicy, RepairPolicy};
use crate::scheduling::Action;
use crate::scheduling::packing::{self, Effort, NodeOffer, Resources, RepairRules, RunningFleet, RunningNode, RunningPod};
use crate::scheduling::refusals::Refusals;
use crate::scheduling::snapshot::{NodeView, PodView, PoolView};
use crate::scheduling::supply::Supply;
use crate::units::{Money, MoneyPerHour, Span};

/// For each packing of a few nodes' pods; a look makes some hundreds of them.
const EFFORT: Effort = Effort(500_000);
const PER_MILLE: u64 = 1000;

pub fn plan(ground: &Ground<'_>, pool: &PoolView, refusals: &Refusals<'_>, supply: &Supply<'_>, turn: &mut Turn) {
    let Some((policy, repair)) = pool.pods.as_ref().and_then(|policy| Some((policy, policy.repair.as_ref()?))) else { return };
    if !ground.snapshot.repair_due || pool.state.is_err() || !is_quiet(ground, &pool.name) {
        return;
    }
    let purchase = Purchase::new(ground, pool, policy, Vec::new(), refusals, supply);
    let Some(fleet) = running(&purchase, policy) else { return };
    let rules = RepairRules { horizon_seconds: repair.horizon.as_seconds(), gain_min: repair.gain_min, moves_max: repair.moves_max as usize, effort: EFFORT };
    match packing::repair(&fleet, &rules) {
        Ok(plan) => turn.actions.extend(drains(&fleet, &plan, &purchase.standing.iter().map(|(_, node)| *node).collect::<Vec<_>>(), repair)),
        Err(error) => turn.alerts.push(format!("pool {} cannot be consolidated: {error}", pool.name)),
    }
}

/// Nothing is bought, nobody waits, and nobody leaves.
fn is_quiet(ground: &Ground<'_>, pool: &str) -> bool {
    let pods = ground.snapshot.pods.iter().filter(|pod| pod.pool == pool && !pod.finished);
    let mut claims = ground.snapshot.claims.iter().filter(|claim| claim.record.is_for_pods() && claim.record.pool == pool);
    let settled = claims.all(|claim| match claim.status.phase {
        ClaimPhase::Written => false,
        ClaimPhase::Refused | ClaimPhase::Ended => true,
        ClaimPhase::Granted => ground.fleet.open(&claim.name).all(|machine| ground.is_promising(claim, machine) && machine.joined),
    });
    settled && pods.into_iter().all(|pod| pod.bound_to.is_some() && !pod.deleting && !pod.gated && pod.needs.is_ok())
}

/// `None` where there is nothing to compare.
fn running(purchase: &Purchase<'_>, policy: &PodsPolicy) -> Option<RunningFleet> {
    let ground = purchase.ground;
    let mut offers: Vec<NodeOffer> = purchase.problem.offers.clone();
    let mut known: BTreeMap<(Offer, Resources), usize> = BTreeMap::new();
    let (mut pods, mut nodes) = (Vec::new(), Vec::new());
    for (claim, node) in &purchase.standing {
        let standing = as_offer(&claim.record.offer, node, policy)?;
        let key = (standing.offer.clone(), standing.allocatable.clone());
        let offer = *known.entry(key).or_insert_with(|| {
            offers.push(standing.clone());
            offers.len() - 1
        });
        let here = ground.on(&node.name);
        let first = pods.len();
        pods.extend(here.iter().map(|pod| running_pod(ground, pod, &standing)).collect::<Option<Vec<_>>>()?);
        nodes.push(RunningNode { name: node.name.clone(), offer, pods: (first..pods.len()).collect() });
    }
    let budgets = ground.snapshot.disruption_budgets.iter().map(|budget| budget.left).collect();
    (!nodes.is_empty()).then_some(RunningFleet { pods, nodes, offers, node_charge: policy.node_charge, budgets })
}

/// What stands, at the price that was agreed; no more of it can be had by that.
fn as_offer(offer: &Offer, node: &NodeView, policy: &PodsPolicy) -> Option<NodeOffer> {
    let room = node.room.as_ref()?;
    Some(NodeOffer {
        offer: offer.clone(),
        allocatable: room.allocatable.minus(&purchase::reserved(policy)),
        pods_max: room.pods_max,
        labels: node.labels.iter().filter(|(key, _)| key.as_str() != super::HOSTNAME).map(|(key, value)| (key.clone(), value.clone())).collect(),
        taints: room.taints.clone(),
        count_max: Some(0),
    })
}

fn running_pod(ground: &Ground<'_>, view: &PodView, node: &NodeOffer) -> Option<RunningPod> {
    let pod = view.needs.clone().ok()?;
    let budgets = &ground.snapshot.disruption_budgets;
    let counted = || (0..budgets.len()).filter(|index| budgets[*index].counts(&view.id.namespace, &pod.labels)).collect();
    let restart_cost = restart_cost(view.move_loses.unwrap_or_default(), share_per_mille(&pod.requests, &node.allocatable), node.offer.price)?;
    Some(RunningPod { may_move: view.move_loses.map(|_| counted()), restart_cost, pod })
}

/// The lost time, at the pod's share of its node's price.
fn restart_cost(lost: Span, share_per_mille: u64, price: MoneyPerHour) -> Option<Money> {
    let seconds = u64::try_from(lost.as_seconds()).ok()?.saturating_mul(share_per_mille).div_ceil(PER_MILLE);
    price.for_seconds(i64::try_from(seconds).ok()?).ok()
}

/// Of the resource of which the pod takes most.
fn share_per_mille(wanted: &Resources, room: &Resources) -> u64 {
    let share = |wanted: u64, room: u64| (wanted.saturating_mul(PER_MILLE) / room.max(1)).min(PER_MILLE);
    let named = wanted.extended.iter().map(|(name, amount)| share(*amount, room.extended(name)));
    named.chain([share(wanted.cpu_milli, room.cpu_milli), share(wanted.memory_bytes, room.memory_bytes)]).max().unwrap_or_default()
}

/// The nodes that stand now and that some step removes, each with what its step brings.
fn drains(fleet: &RunningFleet, plan: &packing::RepairPlan, standing: &[&NodeView], policy: &RepairPolicy) -> Vec<Action> {
    let mut fleet = fleet.clone();
    let mut actions = Vec::new();
    for step in &plan.steps {
        let because = format!("without it the fleet costs {} less, which repays {} moves in {}", step.saves, step.moves.len(), policy.horizon);
        let names = step.remove.iter().map(|node| fleet.nodes[*node].name.clone());
        let there = names.filter(|name| standing.iter().any(|node| node.name == *name));
        actions.extend(there.map(|node| Action::TaintNode { node, because: because.clone() }));
        fleet = fleet.after(step);
    }
    actions
}
