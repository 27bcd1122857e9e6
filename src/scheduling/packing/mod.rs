//! Packing: which nodes to buy for many pods, and which pod goes where, close to the least that is mathematically possible.
//!
//! ```text
//!  PackingProblem ──pack──► FleetPlan{nodes, on_existing, unplaced with reasons, cost, bounds}
//! ```
//! Pure, deterministic, bounded by an [`Effort`] rather than a clock, and always feasible: whatever the optimiser proposes is
//! placed through [`standing`], which admits a pod only where every rule holds. Method and sources: docs/reference/packing.md.

mod apart;
mod audit;
mod classes;
mod companions;
mod dive;
mod fleet;
mod knapsack;
mod lots;
mod matching;
mod meter;
mod model;
mod one_by_one;
mod planner;
mod pod;
mod problem;
mod reference;
mod relaxation;
mod repair;
mod rules;
mod search;
mod simplex;
mod standing;
mod zoning;

pub use audit::{Breach, audit};
pub use fleet::{Bounds, Effort, FleetPlan, PlannedNode, Topologically, Unplaced};
pub use pod::{Operator, Pod, PodTerm, Requirement, Resident, Resources, Selector, Spread, Taint, Toleration, Topology};
pub use repair::{Destination, RepairPlan, RepairRules, RepairStep, RunningFleet, RunningNode, RunningPod, repair};
pub use problem::{ExistingNode, NodeOffer, PackingProblem};

use classes::Classes;
use meter::Meter;
use standing::{Source, Standing};

use crate::units::{Currency, Money, MoneyPerHour};

#[cfg(test)]
mod properties_tests;
#[cfg(test)]
mod repair_tests;

/// Who plans. The published ones are there to be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Purser,
    /// Karpenter's first-fit-decreasing.
    Karpenter,
    /// A greedy on the dual prices of resources.
    DualGreedy,
}

/// Plans a fleet for the pods of `problem`.
pub fn pack(problem: &PackingProblem, effort: Effort) -> FleetPlan {
    pack_as(Policy::Purser, problem, effort)
}

/// The same by another policy.
pub fn pack_as(policy: Policy, problem: &PackingProblem, effort: Effort) -> FleetPlan {
    let numbers = Classes::of(problem);
    let mut standing = Standing::new(problem, &numbers);
    let mut left: Vec<usize> = numbers.classes.iter().map(|class| class.members.len()).collect();
    let mut meter = Meter::new(effort);
    let learnt = match policy {
        Policy::Purser => planner::place(&mut standing, problem, &numbers, &mut left, &mut meter),
        Policy::Karpenter => {
            reference::karpenter(&mut standing, problem, &numbers, &mut left);
            None
        }
        Policy::DualGreedy => {
            planner::place_greedily(&mut standing, problem, &numbers, &mut left, &mut meter);
            None
        }
    };
    let unplaced = one_by_one::place_all(&mut standing, problem, &numbers, &left);
    let bought = standing.bought();
    let bounds = match learnt {
        Some((bounds, count)) if count == bought => bounds,
        _ => planner::bounds(problem, &numbers, &bought, &mut Meter::new(effort)),
    };
    FleetPlan { bounds, ..plan_of(&standing, problem, &numbers, &unplaced) }
}

/// Names the pods: members of a class are handed out in their order.
fn plan_of(standing: &Standing, problem: &PackingProblem, numbers: &Classes, unplaced: &[(usize, Unplaced)]) -> FleetPlan {
    let mut members: Vec<std::slice::Iter<usize>> = numbers.classes.iter().map(|class| class.members.iter()).collect();
    let mut plan = FleetPlan { nodes: Vec::new(), on_existing: Vec::new(), unplaced: Vec::new(), cost: zero(), charged: zero(), bounds: Bounds::default() };
    for node in standing.nodes.iter().filter(|node| !node.placed.is_empty()) {
        let mut pods: Vec<usize> = node.placed.iter().filter_map(|class| members[*class].next().copied()).collect();
        pods.sort_unstable();
        match node.source {
            Source::Existing(index) => plan.on_existing.extend(pods.into_iter().map(|pod| (pod, index))),
            Source::Offer(offer) => plan.nodes.push(PlannedNode { offer, pods }),
        }
    }
    for (class, reason) in unplaced {
        plan.unplaced.extend(members[*class].by_ref().map(|pod| (*pod, reason.clone())));
    }
    plan.on_existing.sort_unstable();
    plan.unplaced.sort_by_key(|(pod, _)| *pod);
    plan.cost = total(plan.nodes.iter().map(|node| problem.offers[node.offer].offer.price));
    plan.charged = total(plan.nodes.iter().map(|_| problem.node_charge).chain([plan.cost]));
    plan
}

fn zero() -> MoneyPerHour {
    MoneyPerHour(Money::ZERO_USD)
}

fn total(prices: impl IntoIterator<Item = MoneyPerHour>) -> MoneyPerHour {
    let atoms = prices.into_iter().map(|price| price.0.atoms()).sum();
    MoneyPerHour(Money::from_atoms(atoms, Currency::USD))
}
