//! The numbers of the optimiser: lots with counts, and the offers that could ever be worth buying, as rows of `f64` (whole
//! numbers below 2⁵³, so sums are exact). Rules about other pods appear as a limit per node only; [`super::standing`] has the
//! last word.

use super::classes::{Class, Classes};
use super::lots::{Lot, Merge};
use super::pod::Topology;
use super::problem::PackingProblem;
use super::rules::{Kind, Rules};

/// What is to be packed into what, at which price. Its classes are lots, or groups of them.
#[derive(Clone, Debug)]
pub struct Model {
    pub dimensions: usize,
    /// Class after class.
    demand: Vec<f64>,
    /// How many pods of each class are to be placed.
    pub count: Vec<f64>,
    /// How many of a class one node may have.
    pub per_node: Vec<f64>,
    /// By price.
    pub types: Vec<Type>,
}

/// An offer that no other one dominates.
#[derive(Clone, Debug)]
pub struct Type {
    /// Index into the problem's offers.
    pub offer: usize,
    pub room: Vec<f64>,
    /// Per hour, node charge included.
    pub price: f64,
    /// How many can be had.
    pub limit: Option<f64>,
    /// How many of each class fit on an empty node; 0 where it must not run.
    pub fits: Vec<f64>,
}

/// The pods of one node, as (class, how many), ascending by class.
pub type Content = Vec<(usize, u32)>;

/// A node of the optimiser's fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub type_index: usize,
    pub content: Content,
}

impl Model {
    /// `left` says how many more of each offer can be had, `zone_of` in which zone it is.
    pub fn of(problem: &PackingProblem, numbers: &Classes, lots: &[Lot], left: &[Option<u32>], zone_of: &[usize]) -> Model {
        let class = |lot: &Lot| &numbers.classes[lot.class];
        let mut model = Model {
            dimensions: numbers.dimensions.len(),
            demand: lots.iter().flat_map(|lot| class(lot).demand.iter().map(|amount| *amount as f64)).collect(),
            count: lots.iter().map(|lot| lot.count as f64).collect(),
            per_node: lots.iter().map(|lot| per_node(class(lot), &numbers.rules)).collect(),
            types: Vec::new(),
        };
        for offer in undominated(problem, numbers, lots, left, zone_of) {
            let allowed = |lot: &Lot| numbers.permits[class(lot).permit][offer] && lot.zone.is_none_or(|zone| zone == zone_of[offer]);
            let room: Vec<f64> = numbers.room[offer].iter().map(|amount| *amount as f64).collect();
            let fits: Vec<f64> = lots.iter().enumerate().map(|(index, lot)| if allowed(lot) { model.copies(index, &room) } else { 0.0 }).collect();
            if fits.iter().any(|fits| *fits >= 1.0) {
                model.types.push(Type { offer, room, price: price(problem, offer), limit: left[offer].map(f64::from), fits });
            }
        }
        model
    }

    /// The same with groups of classes in place of classes.
    pub fn merged(&self, groups: &[Vec<usize>], merge: Merge) -> Model {
        let demand = |group: &Vec<usize>| -> Vec<f64> { (0..self.dimensions).map(|row| self.merged_demand(group, row, merge)).collect() };
        let mut merged = Model {
            dimensions: self.dimensions,
            demand: groups.iter().flat_map(demand).collect(),
            count: groups.iter().map(|group| group.iter().map(|class| self.count[*class]).sum()).collect(),
            per_node: groups.iter().map(|group| self.per_node[group[0]]).collect(),
            types: Vec::new(),
        };
        for known in &self.types {
            let allowed = |group: &Vec<usize>| group.iter().any(|class| known.fits[*class] >= 1.0);
            let fits = groups.iter().enumerate().map(|(index, group)| if allowed(group) { merged.copies(index, &known.room) } else { 0.0 }).collect();
            merged.types.push(Type { fits, ..known.clone() });
        }
        merged
    }

    fn merged_demand(&self, group: &[usize], row: usize, merge: Merge) -> f64 {
        let amounts = || group.iter().map(|class| self.demand(*class)[row]);
        match merge {
            Merge::Down => amounts().fold(f64::INFINITY, f64::min),
            Merge::Between => {
                let pods: f64 = group.iter().map(|class| self.count[*class]).sum();
                let all: f64 = group.iter().map(|class| self.count[*class] * self.demand(*class)[row]).sum();
                ((amounts().fold(0.0, f64::max) + all / pods) / 2.0).ceil()
            }
        }
    }

    /// Lets a node have as many pods of a class as anti-affinity allows, whatever spread says.
    pub fn lift_spread(&mut self, numbers: &Classes, lots: &[Lot]) {
        self.per_node = lots.iter().map(|lot| apart_per_node(&numbers.classes[lot.class], &numbers.rules)).collect();
        for index in 0..self.types.len() {
            let fits = (0..self.classes()).map(|class| if self.types[index].fits[class] >= 1.0 { self.copies(class, &self.types[index].room) } else { 0.0 }).collect();
            self.types[index].fits = fits;
        }
    }

    pub fn classes(&self) -> usize {
        self.count.len()
    }

    pub fn demand(&self, class: usize) -> &[f64] {
        &self.demand[class * self.dimensions..(class + 1) * self.dimensions]
    }

    /// How many of a class fit in this room, as far as resources and the limit per node say.
    pub fn copies(&self, class: usize, room: &[f64]) -> f64 {
        let by_room = self.demand(class).iter().zip(room).filter(|(demand, _)| **demand > 0.0).map(|(demand, room)| (room / demand).floor());
        by_room.fold(self.per_node[class], f64::min)
    }

    /// What the pods of a node take together.
    pub fn load(&self, content: &[(usize, u32)]) -> Vec<f64> {
        let mut load = vec![0.0; self.dimensions];
        for (class, count) in content {
            load.iter_mut().zip(self.demand(*class)).for_each(|(load, demand)| *load += demand * f64::from(*count));
        }
        load
    }

    /// The cheapest type that holds this content, of those that can be had without limit.
    pub fn cheapest_for(&self, content: &[(usize, u32)]) -> Option<usize> {
        (0..self.types.len()).find(|index| self.types[*index].limit.is_none() && self.holds(*index, content))
    }

    /// Whether a node of the type has the room.
    pub fn holds(&self, index: usize, content: &[(usize, u32)]) -> bool {
        let known = &self.types[index];
        let each = || content.iter().all(|(class, count)| f64::from(*count) <= known.fits[*class]);
        self.load(content).iter().zip(&known.room).all(|(load, room)| load <= room) && each()
    }
}

fn price(problem: &PackingProblem, offer: usize) -> f64 {
    // Nothing is quite free, or prices of pods would know no bound.
    (problem.offers[offer].offer.price.0.approximate() + problem.node_charge.0.approximate()).max(1e-6)
}

/// Offers of which no other one holds whatever they hold for no more money; by price.
fn undominated(problem: &PackingProblem, numbers: &Classes, lots: &[Lot], left: &[Option<u32>], zone_of: &[usize]) -> Vec<usize> {
    let zoned = lots.iter().any(|lot| lot.zone.is_some());
    let mut order: Vec<usize> = (0..problem.offers.len()).filter(|offer| left[*offer] != Some(0)).collect();
    order.sort_by(|one, other| price(problem, *one).total_cmp(&price(problem, *other)).then(numbers.room[*other].cmp(&numbers.room[*one])).then(one.cmp(other)));
    let dominates = |one: usize, other: usize| {
        let room = numbers.room[one].iter().zip(&numbers.room[other]).all(|(mine, theirs)| mine >= theirs);
        let permits = || numbers.permits.iter().all(|permit| permit[one] || !permit[other]);
        left[one].is_none() && room && (!zoned || zone_of[one] == zone_of[other]) && permits()
    };
    let mut kept: Vec<usize> = Vec::new();
    for offer in order {
        if !kept.iter().any(|known| dominates(*known, offer)) {
            kept.push(offer);
        }
    }
    kept
}

/// How many pods of a class may be on one node, as rules say that it breaks by itself.
fn per_node(class: &Class, rules: &Rules) -> f64 {
    let spread = |rule: &usize| match (rules.get(*rule).topology, rules.get(*rule).kind) {
        (Topology::Hostname, Kind::Spread { skew_max }) => f64::from(skew_max),
        _ => f64::INFINITY,
    };
    class.matches.iter().map(spread).fold(apart_per_node(class, rules), f64::min)
}

fn apart_per_node(class: &Class, rules: &Rules) -> f64 {
    let is_apart = |rule: &usize| rules.get(*rule).topology == Topology::Hostname && rules.get(*rule).kind == Kind::AntiAffinity;
    if class.matches.iter().any(|rule| is_apart(rule) && class.carries.contains(rule)) { 1.0 } else { f64::INFINITY }
}
