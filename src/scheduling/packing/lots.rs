//! Lots: what the optimiser packs as one. A lot is a class, or the part of it that goes to one zone; where there are too many
//! lots for a relaxation, neighbours are merged for it, by a middling demand (for a plan) or their smallest (for a bound).

use std::collections::BTreeMap;

use super::classes::Classes;

/// Pods of one class for one zone, or for any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lot {
    pub class: usize,
    /// Index into the standing's zones.
    pub zone: Option<usize>,
    pub count: usize,
}

/// How a group of lots counts in a merged model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Each as something between its mean and its largest, for a plan: smaller pods make up for those that do not fit.
    Between,
    /// Each as its smallest, for a bound: no fleet for the lots is cheaper than the cheapest for the group.
    Down,
}

/// One lot a class, in any zone.
pub fn anywhere(count: &[usize]) -> Vec<Lot> {
    (0..count.len()).filter(|class| count[*class] > 0).map(|class| Lot { class, zone: None, count: count[class] }).collect()
}

/// What lots share that may be merged: permit, zone, limit per node, and which resources they want at all.
type Likeness = (usize, Option<usize>, u64, Vec<bool>);

/// Groups of like lots, `most` at most where wishes allow. A group is halved where its lots differ most, weighed by their pods.
pub fn grouped(numbers: &Classes, lots: &[Lot], per_node: &[f64], most: usize) -> Vec<Vec<usize>> {
    let mut alike: BTreeMap<Likeness, Vec<usize>> = BTreeMap::new();
    for (index, lot) in lots.iter().enumerate() {
        let class = &numbers.classes[lot.class];
        let wanted = class.demand.iter().map(|amount| *amount > 0).collect();
        alike.entry((class.permit, lot.zone, per_node[index].to_bits(), wanted)).or_default().push(index);
    }
    let mut groups: Vec<(f64, Vec<usize>)> = alike.into_values().map(|lots_of| (spread(numbers, lots, &lots_of).0, lots_of)).collect();
    while groups.len() < most {
        let Some((widest, _)) = groups.iter().enumerate().max_by(|(_, one), (_, other)| one.0.total_cmp(&other.0)) else { break };
        if groups[widest].0 <= 0.0 {
            break;
        }
        let (_, group) = groups.swap_remove(widest);
        for half in halves(numbers, lots, group) {
            groups.push((spread(numbers, lots, &half).0, half));
        }
    }
    let mut groups: Vec<Vec<usize>> = groups.into_iter().map(|(_, group)| group).collect();
    groups.sort();
    groups
}

/// How much its lots differ, weighed by their pods, and in which resource most.
fn spread(numbers: &Classes, lots: &[Lot], group: &[usize]) -> (f64, usize) {
    let pods: usize = group.iter().map(|lot| lots[*lot].count).sum();
    let ratio = |dimension: usize| {
        let amounts = || group.iter().map(|lot| numbers.classes[lots[*lot].class].demand[dimension] as f64);
        let (least, most) = (amounts().fold(f64::INFINITY, f64::min), amounts().fold(0.0, f64::max));
        if most > 0.0 { (most - least) / most * amounts().sum::<f64>() / (most * group.len() as f64) } else { 0.0 }
    };
    let widest = (0..numbers.dimensions.len()).map(|dimension| (ratio(dimension), dimension)).max_by(|one, other| one.0.total_cmp(&other.0));
    let (ratio, dimension) = widest.unwrap_or((0.0, 0));
    (ratio * pods as f64, dimension)
}

fn halves(numbers: &Classes, lots: &[Lot], mut group: Vec<usize>) -> [Vec<usize>; 2] {
    let (_, dimension) = spread(numbers, lots, &group);
    let amount = |lot: &usize| numbers.classes[lots[*lot].class].demand[dimension];
    group.sort_by_key(|lot| (amount(lot), *lot));
    // Equal amounts stay together, so the cut is where the amount first changes at or after the middle, or before it.
    let middle = group.len() / 2;
    let changes = |at: &usize| amount(&group[*at]) != amount(&group[*at - 1]);
    let cut = (middle.max(1)..group.len()).find(changes).or_else(|| (1..middle.max(1)).rev().find(changes)).unwrap_or(middle);
    let upper = group.split_off(cut);
    [group, upper]
}
