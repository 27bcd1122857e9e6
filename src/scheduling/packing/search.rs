//! Improves a fleet by taking a few nodes apart and packing their pods anew (ruin and recreate, Schrimpf et al. 2000), where
//! "anew" is the same column generation and dive on a problem small enough to take a millisecond.

use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::dive::dive;
use super::meter::Meter;
use super::model::{Model, Node};
use super::relaxation::{Fillings, Generation, Rest};

const VISITS: usize = 20;
const ROUNDS: usize = 12;
/// How many nodes are taken apart.
const FEWEST: usize = 2;
const MOST: usize = 9;

/// Repacks groups of nodes until the meter is spent; the fleet never becomes dearer.
pub fn improve(model: &Model, rest: &Rest, values: &[f64], nodes: &mut Vec<Node>, meter: &mut Meter) {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut bought = rest.clone();
    nodes.iter().for_each(|node| bought.take(node.type_index, &node.content));
    let mut limits = bought.limits;
    while !meter.is_spent() && nodes.len() >= FEWEST {
        let mut chosen = ruin(model, values, nodes, &mut random);
        meter.spend(nodes.len() * 8);
        let mut part = Rest { left: vec![0.0; model.classes()], limits: limits.clone() };
        chosen.iter().for_each(|index| part.give_back(nodes[*index].type_index, &nodes[*index].content));
        let before: f64 = chosen.iter().map(|index| model.types[nodes[*index].type_index].price).sum();
        let Some(better) = repack(model, &part, values, before, meter) else { continue };
        chosen.sort_unstable();
        for index in chosen.into_iter().rev() {
            let node = nodes.swap_remove(index);
            if let Some(limit) = &mut limits[node.type_index] {
                *limit += 1.0;
            }
        }
        for node in &better {
            if let Some(limit) = &mut limits[node.type_index] {
                *limit -= 1.0;
            }
        }
        nodes.extend(better);
    }
}

/// Nodes for the same pods at a lower cost, if they are found.
fn repack(model: &Model, part: &Rest, values: &[f64], before: f64, meter: &mut Meter) -> Option<Vec<Node>> {
    let mut generation = Generation::new(model, part, Some(values.to_vec()));
    generation.run(Fillings::Whole { visits: VISITS }, ROUNDS, 1e-3, meter);
    if generation.cost() > before - 1e-9 {
        return None;
    }
    let nodes = dive(model, part, &generation.relaxed(), meter);
    let after: f64 = nodes.iter().map(|node| model.types[node.type_index].price).sum();
    let packed: f64 = nodes.iter().flat_map(|node| &node.content).map(|(_, count)| f64::from(*count)).sum();
    (after < before - 1e-9 && packed == part.left.iter().sum::<f64>()).then_some(nodes)
}

/// A node whose pods are worth little for its price, and others: some that lose too, some by chance.
fn ruin(model: &Model, values: &[f64], nodes: &[Node], random: &mut ChaCha8Rng) -> Vec<usize> {
    let size = random.random_range(FEWEST..=MOST).min(nodes.len());
    let loss = |node: &Node| model.types[node.type_index].price - node.content.iter().map(|(class, count)| values[*class] * f64::from(*count)).sum::<f64>();
    let mut chosen: Vec<usize> = Vec::new();
    while chosen.len() < size {
        // The worst of three: mostly nodes that lose, but every node's turn comes.
        let candidates: Vec<usize> = (0..3).map(|_| random.random_range(0..nodes.len())).filter(|index| !chosen.contains(index)).collect();
        let worst = candidates.into_iter().max_by(|one, other| loss(&nodes[*one]).total_cmp(&loss(&nodes[*other])));
        chosen.extend(worst);
    }
    chosen
}
