//! Purser's planner: relax, dive, search, and put what comes out onto the standing fleet.
//!
//! ```text
//!  nodes that stand ◄─fill─ lots ─assignment relaxation─► prices ─configuration relaxation─► mix ─dive─► nodes ─search─► nodes
//! ```
//! What the standing refuses (rules between different classes on one host) goes round again; what is left is placed one by one.

use super::apart::told_apart;
use super::classes::Classes;
use super::companions;
use super::dive::dive;
use super::fleet::Bounds;
use super::knapsack::Knapsack;
use super::lots::{self, Lot, Merge};
use super::meter::Meter;
use super::model::{Model, Node, Type};
use super::problem::PackingProblem;
use super::reference;
use super::relaxation::{Fillings, Generation, Relaxed, Rest};
use super::search;
use super::standing::Standing;
use super::zoning;

/// Rows that a relaxation is given at most; more lots are merged for it.
const LOTS_MAX: usize = 160;
const ROUNDS_MAX: usize = 4;
const GAP: f64 = 1e-4;
const VISITS: usize = 72;

/// Places what it can of `left` pods of each class, and takes it off. Answers what it learnt about bounds, and for how many
/// pods of each class that holds.
pub fn place(standing: &mut Standing, problem: &PackingProblem, numbers: &Classes, left: &mut [usize], meter: &mut Meter) -> Option<(Bounds, Vec<usize>)> {
    fill_existing(standing, problem, numbers, left, meter);
    companions::place(standing, problem, numbers, left);
    let mut learnt = None;
    for _ in 0..ROUNDS_MAX {
        let lots = zoning::lots(standing, problem, numbers, left);
        let model = Model::of(problem, numbers, &lots, standing.left(), standing.zone_of_offers());
        let mut rest = Rest::of(&model);
        leave_out_hopeless(&model, &mut rest);
        if rest.is_done() || meter.is_spent() {
            break;
        }
        let wanted = left.to_vec();
        let optimised = optimise(&model, numbers, &lots, &rest, meter);
        // Chosen zones and the strict reading of spread are the planner's own, so they prove nothing.
        if learnt.is_none() && !numbers.rules.any_zone_or_spread() {
            learnt = Some((optimised.bounds, wanted));
        }
        if load(standing, &model, &lots, &optimised.nodes, left) == 0 {
            break;
        }
    }
    learnt
}

/// The same by the greedy on prices.
pub fn place_greedily(standing: &mut Standing, problem: &PackingProblem, numbers: &Classes, left: &mut [usize], meter: &mut Meter) {
    let lots = lots::anywhere(left);
    let model = Model::of(problem, numbers, &lots, standing.left(), standing.zone_of_offers());
    let mut rest = Rest::of(&model);
    leave_out_hopeless(&model, &mut rest);
    let nodes = reference::dual_greedy(&model, &rest, meter);
    load(standing, &model, &lots, &nodes, left);
}

/// Bounds for this many pods of each class on nodes that are bought, under no more rules than kube-scheduler has.
pub fn bounds(problem: &PackingProblem, numbers: &Classes, count: &[usize], meter: &mut Meter) -> Bounds {
    let lots = lots::anywhere(count);
    let left: Vec<Option<u32>> = problem.offers.iter().map(|offer| offer.count_max).collect();
    let mut model = Model::of(problem, numbers, &lots, &left, &vec![0; problem.offers.len()]);
    model.lift_spread(numbers, &lots);
    let mut rest = Rest::of(&model);
    leave_out_hopeless(&model, &mut rest);
    if rest.is_done() {
        return Bounds::default();
    }
    if lots.len() > LOTS_MAX {
        let bound = bound_of_merged(&model, numbers, &lots, &rest, meter);
        return Bounds { assignment: bound, configuration: bound };
    }
    relax(&model, &rest, meter).0
}

/// Lots that no type holds are told apart from the others later; they would only spoil the prices.
fn leave_out_hopeless(model: &Model, rest: &mut Rest) {
    for class in 0..model.classes() {
        if !model.types.iter().any(|known| known.fits[class] >= 1.0) {
            rest.left[class] = 0.0;
        }
    }
}

struct Optimised {
    nodes: Vec<Node>,
    bounds: Bounds,
}

fn optimise(model: &Model, numbers: &Classes, lots: &[Lot], rest: &Rest, meter: &mut Meter) -> Optimised {
    let mut optimised = if lots.len() <= LOTS_MAX {
        let (bounds, mix) = relax(model, rest, meter);
        let nodes = dive(model, rest, &mix, meter);
        (Optimised { nodes, bounds }, mix.duals)
    } else {
        optimise_merged(model, numbers, lots, rest, meter)
    };
    // It gains little, and a plan is waited for.
    meter.within(40, |meter| search::improve(model, rest, &optimised.1, &mut optimised.0.nodes, meter));
    optimised.0
}

/// The assignment relaxation, then the configuration relaxation from its prices.
fn relax(model: &Model, rest: &Rest, meter: &mut Meter) -> (Bounds, Relaxed) {
    let mut assignment = Generation::new(model, rest, None);
    meter.within(45, |meter| assignment.run(Fillings::Fractional, 1000, 1e-7, meter));
    let mut configuration = Generation::new(model, rest, Some(assignment.best_prices()));
    // The dive and the search get what this leaves.
    meter.within(70, |meter| configuration.run(Fillings::Whole { visits: VISITS }, 1000, GAP, meter));
    let bounds = Bounds { assignment: assignment.bound, configuration: configuration.bound.max(assignment.bound) };
    (bounds, configuration.relaxed())
}

/// Merged one way for a plan, another for a bound.
fn optimise_merged(model: &Model, numbers: &Classes, lots: &[Lot], rest: &Rest, meter: &mut Meter) -> (Optimised, Vec<f64>) {
    let bound = bound_of_merged(model, numbers, lots, rest, meter);
    let groups = lots::grouped(numbers, lots, &model.per_node, LOTS_MAX);
    let high = model.merged(&groups, Merge::Between);
    let mut merged_rest = rest_of_groups(rest, &groups);
    leave_out_hopeless(&high, &mut merged_rest);
    let (_, mix) = relax(&high, &merged_rest, meter);
    let nodes = dive(&high, &merged_rest, &mix, meter);
    let nodes = told_apart(model, &groups, &mix.duals, rest, &nodes);
    let mut values = vec![0.0; model.classes()];
    for (group, lots_of) in groups.iter().enumerate() {
        lots_of.iter().for_each(|lot| values[*lot] = mix.duals[group]);
    }
    (Optimised { nodes, bounds: Bounds { assignment: bound, configuration: bound } }, values)
}

fn rest_of_groups(rest: &Rest, groups: &[Vec<usize>]) -> Rest {
    let left = groups.iter().map(|group| group.iter().map(|lot| rest.left[*lot]).sum()).collect();
    Rest { left, limits: rest.limits.clone() }
}

/// The assignment bound, where each group counts as its smallest.
fn bound_of_merged(model: &Model, numbers: &Classes, lots: &[Lot], rest: &Rest, meter: &mut Meter) -> f64 {
    let groups = lots::grouped(numbers, lots, &model.per_node, LOTS_MAX);
    let low = model.merged(&groups, Merge::Down);
    let mut below = Generation::new(&low, &rest_of_groups(rest, &groups), None);
    meter.within(25, |meter| below.run(Fillings::Fractional, 1000, 1e-6, meter));
    below.bound
}

/// Opens the nodes and places what is admitted; how many pods that were.
fn load(standing: &mut Standing, model: &Model, lots: &[Lot], nodes: &[Node], left: &mut [usize]) -> usize {
    let mut placed = 0;
    for node in nodes {
        let offer = model.types[node.type_index].offer;
        if !standing.is_to_be_had(offer) {
            continue;
        }
        let opened = standing.open(offer);
        for (lot, count) in &node.content {
            let Lot { class, zone, .. } = lots[*lot];
            for _ in 0..*count {
                let admitted = if zone.is_some() { standing.admits_zoned(opened, class) } else { standing.admits(opened, class) };
                if admitted && left[class] > 0 {
                    standing.place(opened, class);
                    left[class] -= 1;
                    placed += 1;
                }
            }
        }
    }
    placed
}

/// Nodes that stand cost nothing more: each takes what is worth most at the prices of what would be bought instead.
fn fill_existing(standing: &mut Standing, problem: &PackingProblem, numbers: &Classes, left: &mut [usize], meter: &mut Meter) {
    if problem.existing.is_empty() {
        return;
    }
    let values = worth(standing, problem, numbers, left, meter);
    for node in 0..standing.nodes.len() {
        let room: Vec<f64> = standing.nodes[node].room.iter().map(|amount| *amount as f64).collect();
        let lots: Vec<Lot> = (0..left.len()).filter(|class| left[*class] > 0 && standing.admits(node, *class)).map(|class| Lot { class, zone: None, count: left[class] }).collect();
        let Some(model) = single(numbers, &lots, room) else { continue };
        let values: Vec<f64> = lots.iter().map(|lot| values[lot.class]).collect();
        let classes: Vec<usize> = (0..lots.len()).collect();
        let knapsack = Knapsack::new(&model, 0, &values, &model.count, &classes);
        let fraction = knapsack.fraction(meter);
        for (lot, count) in knapsack.whole(&fraction, VISITS, 0.0, meter).content {
            let class = lots[lot].class;
            for _ in 0..count {
                if standing.admits(node, class) {
                    standing.place(node, class);
                    left[class] -= 1;
                }
            }
        }
    }
}

/// What one pod of each class would cost elsewhere; a little for those that could be bought nowhere, so that they are placed too.
fn worth(standing: &Standing, problem: &PackingProblem, numbers: &Classes, left: &[usize], meter: &mut Meter) -> Vec<f64> {
    let lots = lots::anywhere(left);
    let model = Model::of(problem, numbers, &lots, standing.left(), standing.zone_of_offers());
    let mut rest = Rest::of(&model);
    leave_out_hopeless(&model, &mut rest);
    let dearest = model.types.iter().map(|known| known.price).fold(1.0, f64::max);
    let mut values = vec![dearest; left.len()];
    if lots.len() <= LOTS_MAX {
        let mut assignment = Generation::new(&model, &rest, None);
        meter.within(30, |meter| assignment.run(Fillings::Fractional, 1000, 1e-4, meter));
        let duals = assignment.best_prices();
        lots.iter().enumerate().filter(|(index, _)| rest.left[*index] > 0.0).for_each(|(index, lot)| values[lot.class] = duals[index].max(1e-6));
        return values;
    }
    // Too many for a relaxation: by what the cheapest node that holds it well would charge.
    for (index, lot) in lots.iter().enumerate() {
        let rates = model.types.iter().filter(|known| known.fits[index] >= 1.0).map(|known| known.price / known.fits[index]);
        values[lot.class] = rates.fold(dearest, f64::min);
    }
    values
}

/// A model of one node.
fn single(numbers: &Classes, lots: &[Lot], room: Vec<f64>) -> Option<Model> {
    let mut model = Model::of(&PackingProblem::default(), numbers, lots, &[], &[]);
    let fits: Vec<f64> = (0..lots.len()).map(|lot| model.copies(lot, &room)).collect();
    model.types.push(Type { offer: 0, room, price: 0.0, limit: Some(1.0), fits });
    (!lots.is_empty()).then_some(model)
}
