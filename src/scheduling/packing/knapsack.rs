//! One node of a type, filled with what is worth most at given prices of classes: as a fraction (an upper bound, by a simplex
//! with one row a resource), and in whole pods (branch and bound on that fraction, the best bound first).

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::meter::Meter;
use super::model::{Content, Model};

const TOLERANCE: f64 = 1e-9;
/// Of sums of shares; contents are checked exactly where they are used.
const ROUNDING: f64 = 1e-12;

/// The classes that could be on a node of one type, and what they are worth.
pub struct Knapsack {
    /// Resources that the type has; rows are in shares of it.
    width: usize,
    classes: Vec<usize>,
    value: Vec<f64>,
    most: Vec<f64>,
    /// Share of each resource that one pod takes, item after item.
    share: Vec<f64>,
}

/// A part of the search: some pods are in, others are limited.
#[derive(Clone)]
struct Branch {
    /// Pods that are in, and what they are worth.
    inside: Vec<u32>,
    worth: f64,
    /// What is left of each resource, and how many more of each item may come.
    room: Vec<f64>,
    most: Vec<f64>,
}

/// The best fractional filling.
pub struct Fraction {
    /// No filling is worth more, whole or not.
    pub bound: f64,
    /// (class, how many).
    pub filling: Vec<(usize, f64)>,
    /// What a whole node's worth of each resource is worth.
    prices: Vec<f64>,
    amounts: Vec<f64>,
}

/// The best whole filling found.
pub struct Whole {
    /// No whole filling is worth more.
    pub bound: f64,
    pub content: Content,
}

impl Knapsack {
    /// `left` says how many pods of each of `classes` there are.
    pub fn new(model: &Model, index: usize, values: &[f64], left: &[f64], classes: &[usize]) -> Knapsack {
        let known = &model.types[index];
        let rows: Vec<usize> = (0..model.dimensions).filter(|row| known.room[*row] > 0.0).collect();
        let mut knapsack = Knapsack { width: rows.len(), classes: Vec::new(), value: Vec::new(), most: Vec::new(), share: Vec::new() };
        for class in classes.iter().copied() {
            let most = known.fits[class].min(left[class]);
            if most >= 1.0 && values[class] > TOLERANCE {
                knapsack.classes.push(class);
                knapsack.value.push(values[class]);
                knapsack.most.push(most);
                let demand = model.demand(class);
                knapsack.share.extend(rows.iter().map(|row| demand[*row] / known.room[*row]));
            }
        }
        knapsack
    }

    fn items(&self) -> usize {
        self.classes.len()
    }

    fn share(&self, item: usize) -> &[f64] {
        &self.share[item * self.width..(item + 1) * self.width]
    }

    fn priced(&self, item: usize, prices: &[f64]) -> f64 {
        self.share(item).iter().zip(prices).map(|(share, price)| share * price).sum()
    }

    fn copies(&self, item: usize, room: &[f64]) -> f64 {
        let by_room = self.share(item).iter().zip(room).filter(|(share, _)| **share > 0.0).map(|(share, room)| (room / share + ROUNDING).floor().max(0.0));
        by_room.fold(f64::INFINITY, f64::min)
    }

    fn root(&self) -> Branch {
        Branch { inside: vec![0; self.items()], worth: 0.0, room: vec![1.0; self.width], most: self.most.clone() }
    }

    /// The linear relaxation.
    pub fn fraction(&self, meter: &mut Meter) -> Fraction {
        self.relax(&self.root(), meter)
    }

    /// The relaxation of what a branch leaves open, by a primal simplex with bounds. Whatever the prices it ends with, no filling
    /// is worth more than what is inside, the resources at these prices, and what items are worth beyond: that is the bound.
    fn relax(&self, branch: &Branch, meter: &mut Meter) -> Fraction {
        let mut tableau = Tableau::new(self, branch);
        for _ in 0..60 + 4 * self.width {
            meter.spend(self.items() * self.width + 8);
            if !tableau.step(self) {
                break;
            }
        }
        let prices: Vec<f64> = tableau.prices(self).iter().map(|price| price.max(0.0)).collect();
        let beyond = |item: usize| branch.most[item] * (self.value[item] - self.priced(item, &prices)).max(0.0);
        let resources: f64 = prices.iter().zip(&branch.room).map(|(price, room)| price * room.max(0.0)).sum();
        let bound = branch.worth + resources + (0..self.items()).map(beyond).sum::<f64>();
        let amounts = tableau.amounts(self);
        let filling = amounts.iter().enumerate().filter(|(_, amount)| **amount > 1e-7).map(|(item, amount)| (self.classes[item], *amount)).collect();
        Fraction { bound, filling, prices, amounts }
    }

    /// The best whole filling within `visits` branches. The bound holds also where the search ended early; it ends as soon as
    /// nothing worth more than `enough` can be found.
    pub fn whole(&self, fraction: &Fraction, visits: usize, enough: f64, meter: &mut Meter) -> Whole {
        let mut search = Search { knapsack: self, best: vec![0; self.items()], worth: 0.0, open: BinaryHeap::new() };
        search.look(self.root(), fraction);
        for _ in 0..visits {
            let Some(top) = search.open.peek() else { break };
            if top.bound <= search.worth.max(enough) + TOLERANCE {
                break;
            }
            let top = search.open.pop().expect("it was peeked at");
            search.split(top, meter);
        }
        let content = search.best.iter().enumerate().filter(|(_, count)| **count > 0).map(|(item, count)| (self.classes[item], *count)).collect();
        let unseen = search.open.peek().map_or(0.0, |top| top.bound);
        Whole { bound: search.worth.max(unseen) + TOLERANCE, content }
    }
}

/// A basis of as many variables as there are resources; the others are at nothing or at their most.
struct Tableau {
    /// Items, then slacks.
    basis: Vec<usize>,
    inverse: Vec<f64>,
    level: Vec<f64>,
    at_most: Vec<bool>,
    is_basic: Vec<bool>,
    most: Vec<f64>,
}

impl Tableau {
    fn new(knapsack: &Knapsack, branch: &Branch) -> Tableau {
        let (items, width) = (knapsack.items(), knapsack.width);
        let mut inverse = vec![0.0; width * width];
        (0..width).for_each(|row| inverse[row * width + row] = 1.0);
        let mut is_basic = vec![false; items + width];
        (items..items + width).for_each(|slack| is_basic[slack] = true);
        Tableau { basis: (items..items + width).collect(), inverse, level: branch.room.clone(), at_most: vec![false; items], is_basic, most: branch.most.clone() }
    }

    fn prices(&self, knapsack: &Knapsack) -> Vec<f64> {
        let mut prices = vec![0.0; knapsack.width];
        for (row, variable) in self.basis.iter().enumerate().filter(|(_, variable)| **variable < knapsack.items()) {
            let inverse = &self.inverse[row * knapsack.width..(row + 1) * knapsack.width];
            prices.iter_mut().zip(inverse).for_each(|(price, entry)| *price += knapsack.value[*variable] * entry);
        }
        prices
    }

    fn amounts(&self, knapsack: &Knapsack) -> Vec<f64> {
        let mut amounts: Vec<f64> = (0..knapsack.items()).map(|item| if self.at_most[item] { self.most[item] } else { 0.0 }).collect();
        for (row, variable) in self.basis.iter().enumerate().filter(|(_, variable)| **variable < knapsack.items()) {
            amounts[*variable] = self.level[row];
        }
        amounts
    }

    /// One change of the basis or of a bound; false when nothing helps any more.
    fn step(&mut self, knapsack: &Knapsack) -> bool {
        let prices = self.prices(knapsack);
        let Some((entering, grows)) = self.entering(knapsack, &prices) else { return false };
        let width = knapsack.width;
        let direction: Vec<f64> = (0..width)
            .map(|row| {
                let inverse = &self.inverse[row * width..(row + 1) * width];
                let along: f64 = if entering < knapsack.items() { inverse.iter().zip(knapsack.share(entering)).map(|(entry, share)| entry * share).sum() } else { inverse[entering - knapsack.items()] };
                if grows { along } else { -along }
            })
            .collect();
        let most = |variable: usize| self.most.get(variable).copied().unwrap_or(f64::INFINITY);
        let mut step = most(entering);
        let mut leaving = None;
        for (row, along) in direction.iter().enumerate() {
            let limit = if *along > 1e-10 {
                self.level[row].max(0.0) / along
            } else if *along < -1e-10 {
                (most(self.basis[row]) - self.level[row]).max(0.0) / -along
            } else {
                continue;
            };
            if limit < step {
                (step, leaving) = (limit, Some(row));
            }
        }
        if step.is_infinite() {
            return false;
        }
        self.level.iter_mut().zip(&direction).for_each(|(level, along)| *level -= step * along);
        match leaving {
            None => self.at_most[entering] = grows,
            Some(row) => self.exchange(knapsack, row, entering, grows, step, &direction),
        }
        true
    }

    fn exchange(&mut self, knapsack: &Knapsack, row: usize, entering: usize, grows: bool, step: f64, direction: &[f64]) {
        let width = knapsack.width;
        let leaving = self.basis[row];
        if leaving < knapsack.items() {
            self.at_most[leaving] = direction[row] < 0.0;
        }
        let from = if grows { 0.0 } else { self.most[entering] };
        self.level[row] = if grows { step } else { from - step };
        let sign = if grows { 1.0 } else { -1.0 };
        let pivot = direction[row] * sign;
        let pivot_row: Vec<f64> = self.inverse[row * width..(row + 1) * width].iter().map(|entry| entry / pivot).collect();
        for other in (0..width).filter(|other| *other != row) {
            let factor = direction[other] * sign;
            self.inverse[other * width..(other + 1) * width].iter_mut().zip(&pivot_row).for_each(|(entry, pivot)| *entry -= factor * pivot);
        }
        self.inverse[row * width..(row + 1) * width].copy_from_slice(&pivot_row);
        self.is_basic[leaving] = false;
        self.is_basic[entering] = true;
        if entering < knapsack.items() {
            self.at_most[entering] = false;
        }
        self.basis[row] = entering;
    }

    /// The variable that gains most by its whole range, and whether it grows.
    fn entering(&self, knapsack: &Knapsack, prices: &[f64]) -> Option<(usize, bool)> {
        let mut best: Option<(usize, bool, f64)> = None;
        let mut offer = |variable: usize, grows: bool, gain: f64| {
            if gain > 1e-9 && best.is_none_or(|(_, _, known)| gain > known) {
                best = Some((variable, grows, gain));
            }
        };
        for item in (0..knapsack.items()).filter(|item| !self.is_basic[*item]) {
            let gain = knapsack.value[item] - knapsack.priced(item, prices);
            match self.at_most[item] {
                false => offer(item, true, gain),
                true => offer(item, false, -gain),
            }
        }
        for (row, price) in prices.iter().enumerate().filter(|(row, _)| !self.is_basic[knapsack.items() + row]) {
            offer(knapsack.items() + row, true, -price);
        }
        best.map(|(variable, grows, _)| (variable, grows))
    }
}

/// A branch that is not closed yet.
struct Open {
    bound: f64,
    branch: Branch,
    /// The item to split by, and how many of it the fraction has beyond what is inside.
    item: usize,
    amount: f64,
}

impl PartialEq for Open {
    fn eq(&self, other: &Open) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Open {}

impl PartialOrd for Open {
    fn partial_cmp(&self, other: &Open) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Open {
    fn cmp(&self, other: &Open) -> Ordering {
        self.bound.total_cmp(&other.bound).then_with(|| self.branch.inside.cmp(&other.branch.inside))
    }
}

struct Search<'k> {
    knapsack: &'k Knapsack,
    best: Vec<u32>,
    worth: f64,
    open: BinaryHeap<Open>,
}

impl Search<'_> {
    /// Rounds the branch's fraction to a filling, and keeps the branch open where its bound is better than the best filling.
    fn look(&mut self, branch: Branch, fraction: &Fraction) {
        self.round(&branch, fraction);
        if fraction.bound <= self.worth + TOLERANCE {
            return;
        }
        // Split where the fraction is furthest from whole, weighed by worth.
        let doubt = |item: &usize| {
            let part = fraction.amounts[*item] - fraction.amounts[*item].floor();
            part.min(1.0 - part) * self.knapsack.value[*item]
        };
        let split = (0..self.knapsack.items()).max_by(|one, other| doubt(one).total_cmp(&doubt(other)));
        if let Some(item) = split.filter(|item| doubt(item) > TOLERANCE) {
            self.open.push(Open { bound: fraction.bound, branch, item, amount: fraction.amounts[item] });
        }
    }

    /// At most this many more of the item, or at least one more than that.
    fn split(&mut self, open: Open, meter: &mut Meter) {
        let Open { branch, item, amount, .. } = open;
        let mut fewer = branch.clone();
        fewer.most[item] = amount.floor();
        let mut more = branch;
        let added = amount.floor() + 1.0;
        more.inside[item] += added as u32;
        more.worth += added * self.knapsack.value[item];
        more.most[item] -= added;
        take(&mut more.room, self.knapsack.share(item), added);
        // What does not fit into the room that is left is out: this is what makes the bound of a branch tight.
        for other in 0..self.knapsack.items() {
            more.most[other] = more.most[other].min(self.knapsack.copies(other, &more.room));
        }
        meter.spend(200 + 6 * self.knapsack.items() * self.knapsack.width);
        for branch in [fewer, more] {
            if branch.room.iter().all(|room| *room >= -ROUNDING) && branch.most[item] >= 0.0 {
                let fraction = self.knapsack.relax(&branch, meter);
                self.look(branch, &fraction);
            }
        }
    }

    /// The fraction rounded down, then filled with what is worth most for the resources it takes.
    fn round(&mut self, branch: &Branch, fraction: &Fraction) {
        let (mut room, mut counts, mut worth) = (branch.room.clone(), branch.inside.clone(), branch.worth);
        let knapsack = self.knapsack;
        let mut open: Vec<(f64, usize, f64)> = Vec::new();
        for (item, count) in counts.iter_mut().enumerate() {
            let whole = (fraction.amounts[item] + 1e-7).floor();
            *count += whole as u32;
            worth += whole * knapsack.value[item];
            take(&mut room, knapsack.share(item), whole);
            if branch.most[item] - whole >= 1.0 {
                open.push((knapsack.value[item] / knapsack.priced(item, &fraction.prices).max(1e-12), item, branch.most[item] - whole));
            }
        }
        open.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
        for (_, item, most) in open {
            let more = knapsack.copies(item, &room).min(most);
            if more >= 1.0 {
                counts[item] += more as u32;
                worth += more * knapsack.value[item];
                take(&mut room, knapsack.share(item), more);
            }
        }
        if worth > self.worth {
            self.worth = worth;
            self.best = counts;
        }
    }
}

fn take(room: &mut [f64], share: &[f64], count: f64) {
    if count != 0.0 {
        room.iter_mut().zip(share).for_each(|(room, share)| *room -= share * count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::packing::Effort;
    use proptest::prelude::*;

    fn brute(knapsack: &Knapsack, item: usize, room: &[f64]) -> f64 {
        if item == knapsack.items() {
            return 0.0;
        }
        let most = knapsack.copies(item, room).min(knapsack.most[item]) as u32;
        let with = |count: u32| {
            let mut room = room.to_vec();
            take(&mut room, knapsack.share(item), f64::from(count));
            f64::from(count) * knapsack.value[item] + brute(knapsack, item + 1, &room)
        };
        (0..=most).map(with).fold(0.0, f64::max)
    }

    proptest! {
        #[test]
        fn the_best_filling_is_found_and_no_bound_is_below_it(shares in proptest::collection::vec((1_u32..60, 1_u32..60, 1_u32..40), 1..6), visits in 0_usize..400) {
            let knapsack = Knapsack {
                width: 2,
                classes: (0..shares.len()).collect(),
                value: shares.iter().map(|(_, _, value)| f64::from(*value)).collect(),
                most: vec![4.0; shares.len()],
                share: shares.iter().flat_map(|(cpu, memory, _)| [f64::from(*cpu) / 100.0, f64::from(*memory) / 100.0]).collect(),
            };
            let mut meter = Meter::new(Effort(100_000_000));
            let truth = brute(&knapsack, 0, &[1.0, 1.0]);
            let fraction = knapsack.fraction(&mut meter);
            prop_assert!(fraction.bound >= truth - 1e-6);
            prop_assert!(knapsack.whole(&fraction, visits, 0.0, &mut meter).bound >= truth - 1e-6);
            let best = knapsack.whole(&fraction, 1_000_000, 0.0, &mut meter);
            let worth: f64 = best.content.iter().map(|(class, count)| knapsack.value[*class] * f64::from(*count)).sum();
            prop_assert!((worth - truth).abs() < 1e-6, "{} instead of {}", worth, truth);
        }
    }
}
