//! Consolidation: from a running fleet, replaces N nodes by M cheaper ones where what is saved over a horizon is more than what
//! moving costs.
//!
//! ```text
//!  RunningFleet ──repair──► RepairPlan{steps: remove these nodes, buy those, move these pods}
//! ```
//! Each step leaves a fleet on which everything runs, so steps may be applied one by one and the rest dropped. Pods that must not
//! be disturbed keep their node; disruption budgets and the number of moves are never exceeded. Pure; the search is bounded.

use std::collections::BTreeMap;

use super::fleet::{Effort, FleetPlan};
use super::pod::{Pod, Resources};
use super::problem::{ExistingNode, NodeOffer, PackingProblem};
use super::{pack, total};
use crate::units::{Money, MoneyError, MoneyPerHour};

/// Nodes that are looked at singly, and how many of the worst are looked at together.
const SINGLES_MAX: usize = 200;
const TOGETHER_MAX: usize = 8;
const WINDOWS_MAX: usize = 40;

/// A pod that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningPod {
    pub pod: Pod,
    /// What moving it loses: work since its last checkpoint, and the start on the new node.
    pub restart_cost: Money,
    /// `None`: it must not be moved. Else the disruption budgets that count it, as indices.
    pub may_move: Option<Vec<usize>>,
}

/// A node that runs, and the pods on it (indices into the fleet's pods).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningNode {
    pub name: String,
    /// Index into the fleet's offers: what it is and costs.
    pub offer: usize,
    pub pods: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningFleet {
    pub pods: Vec<RunningPod>,
    pub nodes: Vec<RunningNode>,
    pub offers: Vec<NodeOffer>,
    pub node_charge: MoneyPerHour,
    /// How many more pods each disruption budget lets go now.
    pub budgets: Vec<u32>,
}

/// When a move is worth it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepairRules {
    /// For how long savings are counted.
    pub horizon_seconds: i64,
    /// What a step must bring over the horizon beyond what moving costs.
    pub gain_min: Money,
    /// Pods that may be moved in all.
    pub moves_max: usize,
    /// For each packing of a few nodes' pods.
    pub effort: Effort,
}

/// Where a pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// Index into the fleet's nodes as they are before the step.
    Running(usize),
    /// Index into the step's `buy`.
    Bought(usize),
}

/// One replacement. Buy, move, remove; node indices are those before the step ([`RunningFleet::after`] says what follows).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairStep {
    /// Indices into the fleet's nodes, ascending.
    pub remove: Vec<usize>,
    /// Offers to buy.
    pub buy: Vec<usize>,
    pub moves: Vec<(usize, Destination)>,
    /// Node charges included.
    pub saves: MoneyPerHour,
    pub restart_cost: Money,
    /// What it brings over the horizon.
    pub gain: Money,
}

/// Steps in order; each is made for the fleet that those before it leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairPlan {
    pub steps: Vec<RepairStep>,
}

/// Plans replacements until none brings enough, or moves run out.
pub fn repair(fleet: &RunningFleet, rules: &RepairRules) -> Result<RepairPlan, MoneyError> {
    let mut plan = RepairPlan::default();
    let (mut fleet, mut moves_left) = (fleet.clone(), rules.moves_max);
    while let Some(step) = best_step(&fleet, rules, moves_left)? {
        moves_left -= step.moves.len();
        fleet = fleet.after(&step);
        plan.steps.push(step);
    }
    Ok(plan)
}

/// The first candidate that brings enough: lone nodes by how little they carry for their price, then the worst together.
fn best_step(fleet: &RunningFleet, rules: &RepairRules, moves_left: usize) -> Result<Option<RepairStep>, MoneyError> {
    for candidate in candidates(fleet) {
        if let Some(step) = step(fleet, &candidate, rules, moves_left)? {
            return Ok(Some(step));
        }
    }
    Ok(None)
}

/// Groups of nodes whose pods may all move.
fn candidates(fleet: &RunningFleet) -> Vec<Vec<usize>> {
    let may_go = |node: &usize| fleet.nodes[*node].pods.iter().all(|pod| fleet.pods[*pod].may_move.is_some());
    let mut order: Vec<usize> = (0..fleet.nodes.len()).filter(may_go).collect();
    let used: Vec<f64> = fleet.nodes.iter().map(|node| fleet.used_share(node)).collect();
    order.sort_by(|one, other| used[*one].total_cmp(&used[*other]).then_with(|| fleet.nodes[*one].name.cmp(&fleet.nodes[*other].name)));
    let mut candidates: Vec<Vec<usize>> = order.iter().take(SINGLES_MAX).map(|node| vec![*node]).collect();
    for size in 2..=TOGETHER_MAX {
        // Windows slide by half, so that most pairs of neighbours are looked at.
        let windows = order.windows(size).step_by((size / 2).max(1)).take(WINDOWS_MAX);
        candidates.extend(windows.map(<[usize]>::to_vec));
    }
    candidates
}

/// The replacement for these nodes, where it is allowed and brings enough.
fn step(fleet: &RunningFleet, remove: &[usize], rules: &RepairRules, moves_left: usize) -> Result<Option<RepairStep>, MoneyError> {
    let moved: Vec<usize> = remove.iter().flat_map(|node| fleet.nodes[*node].pods.iter().copied()).collect();
    if moved.len() > moves_left || !fleet.budgets_allow(&moved) {
        return Ok(None);
    }
    let before = fleet.price_of(remove.iter().map(|node| fleet.nodes[*node].offer));
    let restart_cost = crate::units::money::sum(before.0.currency(), moved.iter().map(|pod| fleet.pods[*pod].restart_cost))?;
    let most = MoneyPerHour(before.0).for_seconds(rules.horizon_seconds)?.checked_sub(restart_cost)?;
    if most <= rules.gain_min {
        // Not even buying nothing instead would repay the moves.
        return Ok(None);
    }
    let (problem, standing) = fleet.without(remove, &moved);
    let plan = pack(&problem, rules.effort);
    if !plan.unplaced.is_empty() {
        return Ok(None);
    }
    let after = fleet.price_of(plan.nodes.iter().map(|node| node.offer));
    let saves = MoneyPerHour(before.0.checked_sub(after.0)?);
    let gain = saves.for_seconds(rules.horizon_seconds)?.checked_sub(restart_cost)?;
    if gain <= rules.gain_min || saves.0.atoms() <= 0 {
        return Ok(None);
    }
    let mut remove = remove.to_vec();
    remove.sort_unstable();
    Ok(Some(RepairStep { remove, buy: plan.nodes.iter().map(|node| node.offer).collect(), moves: moves(&plan, &moved, &standing), saves, restart_cost, gain }))
}

/// In the fleet's own numbers.
fn moves(plan: &FleetPlan, moved: &[usize], standing: &[usize]) -> Vec<(usize, Destination)> {
    let mut moves: Vec<(usize, Destination)> = plan.on_existing.iter().map(|(pod, node)| (moved[*pod], Destination::Running(standing[*node]))).collect();
    for (number, node) in plan.nodes.iter().enumerate() {
        moves.extend(node.pods.iter().map(|pod| (moved[*pod], Destination::Bought(number))));
    }
    moves.sort_unstable();
    moves
}

impl RunningFleet {
    /// Prices and node charges of these offers.
    fn price_of(&self, offers: impl Iterator<Item = usize>) -> MoneyPerHour {
        total(offers.flat_map(|offer| [self.offers[offer].offer.price, self.node_charge]))
    }

    /// Prices and node charges of all that runs.
    pub fn cost(&self) -> MoneyPerHour {
        self.price_of(self.nodes.iter().map(|node| node.offer))
    }

    /// The largest share of a resource that the node's pods take; nodes that carry little come first.
    fn used_share(&self, node: &RunningNode) -> f64 {
        let (room, used) = (&self.offers[node.offer].allocatable, self.load(node));
        let share = |used: u64, room: u64| used as f64 / (room as f64).max(1.0);
        let named = room.extended.iter().map(|(name, amount)| share(used.extended(name), *amount));
        named.chain([share(used.cpu_milli, room.cpu_milli), share(used.memory_bytes, room.memory_bytes)]).fold(0.0, f64::max)
    }

    fn load(&self, node: &RunningNode) -> Resources {
        node.pods.iter().fold(Resources::default(), |sum, pod| sum.plus(&self.pods[*pod].pod.requests))
    }

    fn budgets_allow(&self, moved: &[usize]) -> bool {
        let mut wanted: BTreeMap<usize, u32> = BTreeMap::new();
        moved.iter().flat_map(|pod| self.pods[*pod].may_move.iter().flatten()).for_each(|budget| *wanted.entry(*budget).or_default() += 1);
        wanted.into_iter().all(|(budget, count)| self.budgets.get(budget).is_some_and(|left| count <= *left))
    }

    /// The question where the pods of some nodes go when these are gone, and which node of the fleet each existing one is.
    fn without(&self, remove: &[usize], moved: &[usize]) -> (PackingProblem, Vec<usize>) {
        let standing: Vec<usize> = (0..self.nodes.len()).filter(|node| !remove.contains(node)).collect();
        let existing = standing.iter().map(|node| self.existing(&self.nodes[*node])).collect();
        let pods = moved.iter().map(|pod| self.pods[*pod].pod.clone()).collect();
        let mut offers = self.offers.clone();
        // What is removed can be had again; what is asked for is counted on top of what runs.
        for node in remove {
            let limit = &mut offers[self.nodes[*node].offer].count_max;
            *limit = limit.map(|limit| limit + 1);
        }
        (PackingProblem { pods, existing, offers, node_charge: self.node_charge }, standing)
    }

    fn existing(&self, node: &RunningNode) -> ExistingNode {
        let offer = &self.offers[node.offer];
        let mut labels = offer.labels.clone();
        for key in ["node.kubernetes.io/instance-type", "topology.kubernetes.io/zone", "karpenter.sh/capacity-type", "kubernetes.io/os"] {
            if let Some(value) = offer.label(key) {
                labels.insert(key.to_owned(), value.to_owned());
            }
        }
        ExistingNode {
            name: node.name.clone(),
            zone: offer.offer.zone.clone(),
            free: offer.allocatable.minus(&self.load(node)),
            pods_free: offer.pods_max.saturating_sub(u32::try_from(node.pods.len()).unwrap_or(u32::MAX)),
            labels,
            taints: offer.taints.clone(),
            residents: node.pods.iter().map(|pod| self.pods[*pod].pod.resident()).collect(),
        }
    }

    /// The fleet after a step: removed nodes are gone, bought ones are at the end.
    pub fn after(&self, step: &RepairStep) -> RunningFleet {
        let mut fleet = self.clone();
        let bought = fleet.nodes.len();
        for (number, offer) in step.buy.iter().enumerate() {
            let name = format!("{}+{number}", fleet.nodes[step.remove[0]].name);
            fleet.nodes.push(RunningNode { name, offer: *offer, pods: Vec::new() });
            let limit = &mut fleet.offers[*offer].count_max;
            *limit = limit.map(|limit| limit.saturating_sub(1));
        }
        step.remove.iter().for_each(|node| fleet.nodes[*node].pods.clear());
        for (pod, destination) in &step.moves {
            let node = match destination {
                Destination::Running(node) => *node,
                Destination::Bought(number) => bought + number,
            };
            fleet.nodes[node].pods.push(*pod);
            fleet.pods[*pod].may_move.iter().flatten().for_each(|budget| fleet.budgets[*budget] -= 1);
        }
        for node in step.remove.iter().rev() {
            let gone = fleet.nodes.remove(*node);
            let limit = &mut fleet.offers[gone.offer].count_max;
            *limit = limit.map(|limit| limit + 1);
        }
        fleet
    }
}
