//! One node of a type, filled with what is worth most at given prices of classes: as a fraction (an upper bound, by a simplex
//! with one row a resource), and in whole pods (a search that gives up only what the fraction's resource prices allow).

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

    /// Whatever the prices, no filling is worth more than this: the resources at these prices, and what items are worth beyond.
    fn bound_at(&self, prices: &[f64]) -> f64 {
        let beyond = |item: usize| self.most[item] * (self.value[item] - self.priced(item, prices)).max(0.0);
        prices.iter().sum::<f64>() + (0..self.items()).map(beyond).sum::<f64>()
    }

    /// The linear relaxation, by a primal simplex with bounds.
    pub fn fraction(&self, meter: &mut Meter) -> Fraction {
        let mut tableau = Tableau::new(self);
        for _ in 0..60 + 4 * self.width {
            meter.spend(self.items() * self.width + 8);
            if !tableau.step(self) {
                break;
            }
        }
        let prices: Vec<f64> = tableau.prices(self).iter().map(|price| price.max(0.0)).collect();
        let amounts = tableau.amounts(self);
        let filling = amounts.iter().enumerate().filter(|(_, amount)| **amount > 1e-7).map(|(item, amount)| (self.classes[item], *amount)).collect();
        Fraction { bound: self.bound_at(&prices), filling, prices, amounts }
    }

    /// The best whole filling within `visits` steps of the search; the bound holds also where the search ended early.
    pub fn whole(&self, fraction: &Fraction, visits: usize, meter: &mut Meter) -> Whole {
        let mut search = Search::new(self, fraction, visits);
        search.start_greedily(fraction);
        search.run();
        meter.spend(search.visited * self.width + 4 * self.items() * self.width);
        let content = search.best.iter().enumerate().filter(|(_, count)| **count > 0).map(|(item, count)| (self.classes[item], *count)).collect();
        Whole { bound: search.bound(), content }
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
}

impl Tableau {
    fn new(knapsack: &Knapsack) -> Tableau {
        let (items, width) = (knapsack.items(), knapsack.width);
        let mut inverse = vec![0.0; width * width];
        (0..width).for_each(|row| inverse[row * width + row] = 1.0);
        let mut is_basic = vec![false; items + width];
        (items..items + width).for_each(|slack| is_basic[slack] = true);
        Tableau { basis: (items..items + width).collect(), inverse, level: vec![1.0; width], at_most: vec![false; items], is_basic }
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
        let mut amounts: Vec<f64> = (0..knapsack.items()).map(|item| if self.at_most[item] { knapsack.most[item] } else { 0.0 }).collect();
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
        let most = |variable: usize| knapsack.most.get(variable).copied().unwrap_or(f64::INFINITY);
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
        let from = if grows { 0.0 } else { knapsack.most[entering] };
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

/// Depth first over items; what is lost against the fraction's bound only grows on the way down, so a branch ends where its
/// loss reaches the best filling's.
struct Search<'k> {
    knapsack: &'k Knapsack,
    /// Bound of the fraction, which losses are taken from.
    top: f64,
    /// What an item is worth beyond its share of the resources at the fraction's prices.
    beyond: Vec<f64>,
    prices: Vec<f64>,
    /// Items that are decided by search, those that matter most first.
    open: Vec<usize>,
    chosen: Vec<u32>,
    room: Vec<f64>,
    best: Vec<u32>,
    worth: f64,
    visits: usize,
    visited: usize,
    /// The best bound of what was not looked at.
    unseen: f64,
}

impl<'k> Search<'k> {
    fn new(knapsack: &'k Knapsack, fraction: &Fraction, visits: usize) -> Search<'k> {
        let beyond = (0..knapsack.items()).map(|item| knapsack.value[item] - knapsack.priced(item, &fraction.prices)).collect();
        Search {
            knapsack,
            top: fraction.bound,
            beyond,
            prices: fraction.prices.clone(),
            open: Vec::new(),
            chosen: vec![0; knapsack.items()],
            room: vec![1.0; knapsack.width],
            best: vec![0; knapsack.items()],
            worth: 0.0,
            visits,
            visited: 0,
            unseen: f64::NEG_INFINITY,
        }
    }

    /// The fraction rounded down, then filled with what is worth most for the resources it takes.
    fn start_greedily(&mut self, fraction: &Fraction) {
        let mut room = self.room.clone();
        let mut counts = vec![0_u32; self.knapsack.items()];
        for (item, count) in counts.iter_mut().enumerate() {
            *count = (fraction.amounts[item] + 1e-7).floor() as u32;
            take(&mut room, self.knapsack.share(item), f64::from(*count));
        }
        let rate = |item: usize| self.knapsack.value[item] / self.knapsack.priced(item, &self.prices).max(1e-12);
        let mut order: Vec<usize> = (0..self.knapsack.items()).collect();
        order.sort_by(|one, other| rate(*other).total_cmp(&rate(*one)).then(one.cmp(other)));
        for item in order {
            let more = self.copies(item, &room).min(self.knapsack.most[item] - f64::from(counts[item]));
            if more >= 1.0 {
                counts[item] += more as u32;
                take(&mut room, self.knapsack.share(item), more);
            }
        }
        self.worth = (0..counts.len()).map(|item| f64::from(counts[item]) * self.knapsack.value[item]).sum();
        self.best = counts;
    }

    fn copies(&self, item: usize, room: &[f64]) -> f64 {
        let by_room = self.knapsack.share(item).iter().zip(room).filter(|(share, _)| **share > 0.0).map(|(share, room)| (room / share + ROUNDING).floor());
        by_room.fold(f64::INFINITY, f64::min)
    }

    /// Items whose loss by one pod already exceeds what may be lost are fixed: at nothing, or at their most.
    fn run(&mut self) {
        let gap = self.top - self.worth;
        for item in 0..self.knapsack.items() {
            let beyond = self.beyond[item];
            if beyond > gap && self.copies(item, &self.room) >= self.knapsack.most[item] {
                self.chosen[item] = self.knapsack.most[item] as u32;
                take(&mut self.room, self.knapsack.share(item), self.knapsack.most[item]);
            } else if -beyond <= gap {
                self.open.push(item);
            }
        }
        let weight = |item: &usize| self.beyond[*item].abs();
        let mut open = std::mem::take(&mut self.open);
        open.sort_by(|one, other| weight(other).total_cmp(&weight(one)).then(one.cmp(other)));
        self.open = open;
        self.descend(0, 0.0);
    }

    fn descend(&mut self, depth: usize, loss: f64) {
        self.visited += 1;
        if self.top - loss <= self.worth + TOLERANCE {
            return;
        }
        if self.visited > self.visits {
            self.unseen = self.unseen.max(self.top - loss);
            return;
        }
        let Some(item) = self.open.get(depth).copied() else {
            self.finish(loss);
            return;
        };
        let (most, beyond) = (self.knapsack.most[item], self.beyond[item]);
        let fitting = self.copies(item, &self.room).min(most).max(0.0) as u32;
        let lost = |count: u32| if beyond > 0.0 { (most - f64::from(count)) * beyond } else { f64::from(count) * -beyond };
        let falling = beyond > -1e-9;
        for turn in 0..=fitting {
            let count = if falling { fitting - turn } else { turn };
            if self.top - loss - lost(count) <= self.worth + TOLERANCE {
                // Further counts lose more still.
                break;
            }
            self.put(item, count);
            self.descend(depth + 1, loss + lost(count));
            self.put(item, 0);
        }
    }

    fn put(&mut self, item: usize, count: u32) {
        let change = f64::from(count) - f64::from(self.chosen[item]);
        let share = &self.knapsack.share[item * self.knapsack.width..(item + 1) * self.knapsack.width];
        take(&mut self.room, share, change);
        self.chosen[item] = count;
    }

    /// All is decided; what is left of the resources is lost too.
    fn finish(&mut self, loss: f64) {
        let unused: f64 = self.room.iter().zip(&self.prices).map(|(room, price)| room.max(0.0) * price).sum();
        let worth = self.top - loss - unused;
        if worth > self.worth + TOLERANCE {
            self.worth = (0..self.chosen.len()).map(|item| f64::from(self.chosen[item]) * self.knapsack.value[item]).sum();
            self.best.copy_from_slice(&self.chosen);
        }
    }

    fn bound(&self) -> f64 {
        self.worth.max(self.unseen).max(0.0) + TOLERANCE
    }
}

fn take(room: &mut [f64], share: &[f64], count: f64) {
    room.iter_mut().zip(share).for_each(|(room, share)| *room -= share * count);
}
