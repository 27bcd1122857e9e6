//! Column generation for two relaxations of packing, and bounds that hold whatever the accuracy of the simplex.
//!
//! Columns are fillings of one node: fractional ones make the assignment relaxation (classes × types, per-resource capacity,
//! `x_ct <= k_ct y_t`), whole ones the configuration relaxation, which is tighter. For any prices of classes, let V_t be the most
//! that a filling of type t is worth. Prices divided by max V_t / price_t are feasible for the dual, so what all pods are worth
//! at them is a lower bound (Farley 1990); where a type is limited, what it is worth beyond its price is taken off as often as
//! it can be had. Prices are smoothed towards those of the best bound so far (Wentges 1997), which saves half of the rounds.

use super::knapsack::Knapsack;
use super::meter::Meter;
use super::model::{Content, Model};
use super::simplex::{Column, Master};

/// Cost of leaving a pod out, in multiples of the dearest node: only where no type can be had without limit.
const LEFT_OUT: f64 = 1000.0;
const SMOOTHING: f64 = 0.9;
/// Branches of the first searches for whole fillings, and how much longer later ones are.
const VISITS_FIRST: usize = 2;
const LONGER: usize = 6;

/// A filling of a node that may be bought, and how often the relaxation buys it.
#[derive(Clone, Debug)]
pub struct Configuration {
    pub type_index: usize,
    pub content: Content,
    pub level: f64,
}

/// What a relaxation found.
#[derive(Clone, Debug, Default)]
pub struct Relaxed {
    /// What one pod of each class is worth.
    pub duals: Vec<f64>,
    /// Fillings in use.
    pub solution: Vec<Configuration>,
}

/// How fillings are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fillings {
    Fractional,
    Whole { visits: usize },
}

/// What is still to be packed, and how many of each limited type can still be had.
#[derive(Clone, Debug)]
pub struct Rest {
    pub left: Vec<f64>,
    pub limits: Vec<Option<f64>>,
}

impl Rest {
    pub fn of(model: &Model) -> Rest {
        Rest { left: model.count.clone(), limits: model.types.iter().map(|known| known.limit).collect() }
    }

    pub fn is_done(&self) -> bool {
        self.left.iter().all(|left| *left <= 0.0)
    }

    pub fn has(&self, type_index: usize, content: &[(usize, u32)]) -> bool {
        self.limits[type_index].is_none_or(|limit| limit >= 1.0) && content.iter().all(|(class, count)| self.left[*class] >= f64::from(*count))
    }

    pub fn take(&mut self, type_index: usize, content: &[(usize, u32)]) {
        content.iter().for_each(|(class, count)| self.left[*class] -= f64::from(*count));
        if let Some(limit) = &mut self.limits[type_index] {
            *limit -= 1.0;
        }
    }

    pub fn give_back(&mut self, type_index: usize, content: &[(usize, u32)]) {
        content.iter().for_each(|(class, count)| self.left[*class] += f64::from(*count));
        if let Some(limit) = &mut self.limits[type_index] {
            *limit += 1.0;
        }
    }
}

impl Fillings {
    fn within(self, most: usize) -> Fillings {
        match self {
            Fillings::Fractional => Fillings::Fractional,
            Fillings::Whole { visits } => Fillings::Whole { visits: visits.min(most) },
        }
    }
}

/// Column generation over one kind of fillings, for `left` pods of each class.
pub struct Generation<'m> {
    model: &'m Model,
    rest: Rest,
    /// Classes that have pods left, in the order of the master's rows; then limited types.
    classes: Vec<usize>,
    limited: Vec<usize>,
    master: Master,
    /// What each column of the master is, where it is a whole filling.
    contents: Vec<Option<(usize, Content)>>,
    /// Prices of classes that gave the best bound.
    center: Vec<f64>,
    pub bound: f64,
}

impl<'m> Generation<'m> {
    /// `start` are the prices to begin with, for example those of another relaxation.
    pub fn new(model: &'m Model, rest: &Rest, start: Option<Vec<f64>>) -> Generation<'m> {
        let left = &rest.left;
        let classes: Vec<usize> = (0..model.classes()).filter(|class| left[*class] > 0.0).collect();
        let limited: Vec<usize> = (0..model.types.len()).filter(|index| rest.limits[*index].is_some()).collect();
        let dearest = model.types.iter().map(|known| known.price).fold(1.0, f64::max);
        let mut first = Vec::new();
        let mut contents = Vec::new();
        for (row, class) in classes.iter().enumerate() {
            let (column, content) = alone(model, *class, left[*class], row, dearest);
            first.push(column);
            contents.push(content);
        }
        let mut right: Vec<f64> = classes.iter().map(|class| left[*class]).collect();
        right.extend(limited.iter().map(|index| rest.limits[*index].unwrap_or(0.0)));
        let master = Master::new(right, first);
        let center = start.unwrap_or_else(|| vec![0.0; model.classes()]);
        Generation { model, rest: rest.clone(), classes, limited, master, contents, center, bound: 0.0 }
    }

    /// Offers a whole filling to the master.
    pub fn propose(&mut self, type_index: usize, content: &[(usize, u32)]) {
        let entries = content.iter().map(|(class, count)| (*class, f64::from(*count))).collect::<Vec<_>>();
        self.add(type_index, &entries, Some((type_index, content.to_vec())));
    }

    fn add(&mut self, type_index: usize, filling: &[(usize, f64)], content: Option<(usize, Content)>) {
        let row_of = |class: usize| self.classes.binary_search(&class).ok();
        let mut entries: Vec<(usize, f64)> = filling.iter().filter_map(|(class, amount)| row_of(*class).map(|row| (row, *amount))).collect();
        if let Ok(limit) = self.limited.binary_search(&type_index) {
            entries.push((self.classes.len() + limit, 1.0));
        }
        self.master.add(Column { cost: self.model.types[type_index].price, entries });
        self.contents.push(content);
    }

    /// Rounds of pricing until the bound meets the master's cost within `gap`, nothing more is found, or the meter is spent. Whole
    /// fillings are searched for shortly as long as that finds some, then ever longer.
    pub fn run(&mut self, fillings: Fillings, rounds: usize, gap: f64, meter: &mut Meter) {
        let rows = self.classes.len() + self.limited.len();
        meter.spend(4 * rows * (rows + self.model.types.len()));
        let (mut smoothing, mut visits) = (SMOOTHING, VISITS_FIRST);
        for _ in 0..rounds {
            self.master.solve(meter);
            let (values, beyond) = self.master_prices();
            let cost = self.cost();
            if meter.is_spent() || cost - self.bound <= gap * cost {
                return;
            }
            let smooth: Vec<f64> = values.iter().zip(&self.center).map(|(value, center)| smoothing * center + (1.0 - smoothing) * value).collect();
            let priced = self.price(&smooth, fillings.within(visits), meter);
            if self.accept(priced, &values, &beyond) > 0 {
                smoothing = if smoothing > 0.0 { SMOOTHING } else { 0.0 };
            } else if smoothing > 0.0 {
                smoothing = if smoothing > 0.2 { smoothing / 2.0 } else { 0.0 };
            } else if fillings.within(visits) != fillings.within(visits * LONGER) {
                visits *= LONGER;
            } else {
                return;
            }
        }
    }

    /// Adds what helps the master at its own prices; how many did.
    fn accept(&mut self, priced: Vec<Priced>, values: &[f64], beyond: &[f64]) -> usize {
        let mut found = 0;
        for one in priced {
            let worth: f64 = one.filling.iter().map(|(class, amount)| values[*class] * amount).sum();
            let price = self.model.types[one.type_index].price + beyond[one.type_index];
            if worth > price * (1.0 + 1e-9) + 1e-9 {
                self.add(one.type_index, &one.filling, one.content);
                found += 1;
            }
        }
        found
    }

    /// Prices of classes, and what limited types are worth beyond their price, in the master.
    fn master_prices(&self) -> (Vec<f64>, Vec<f64>) {
        let duals = self.master.duals();
        let mut values = vec![0.0; self.model.classes()];
        self.classes.iter().enumerate().for_each(|(row, class)| values[*class] = duals[row].max(0.0));
        let mut beyond = vec![0.0; self.model.types.len()];
        self.limited.iter().enumerate().for_each(|(row, index)| beyond[*index] = (-duals[self.classes.len() + row]).max(0.0));
        (values, beyond)
    }

    pub fn cost(&self) -> f64 {
        self.master.solution().iter().map(|(column, level)| self.master.columns[*column].cost * level).sum()
    }

    /// The best filling of every type at these prices; keeps the bound that they prove.
    fn price(&mut self, values: &[f64], fillings: Fillings, meter: &mut Meter) -> Vec<Priced> {
        let mut priced = Vec::new();
        let mut most = vec![0.0; self.model.types.len()];
        for (index, most) in most.iter_mut().enumerate() {
            let one = self.fill(index, values, fillings, meter);
            *most = one.bound;
            priced.push(one);
        }
        let bound = self.proved(values, &most);
        if bound > self.bound {
            self.bound = bound;
            self.center = values.to_vec();
        }
        priced.retain(|one| !one.filling.is_empty());
        priced
    }

    fn fill(&self, index: usize, values: &[f64], fillings: Fillings, meter: &mut Meter) -> Priced {
        // A knapsack is some allocations and a look at every class.
        meter.spend(300 + 12 * self.classes.len());
        let knapsack = Knapsack::new(self.model, index, values, &self.rest.left, &self.classes);
        let fraction = knapsack.fraction(meter);
        let Fillings::Whole { visits } = fillings else {
            return Priced { type_index: index, bound: fraction.bound, filling: fraction.filling, content: None };
        };
        if fraction.bound < self.model.types[index].price * 0.9 {
            // Far from being worth its price: no search.
            return Priced { type_index: index, bound: fraction.bound, filling: Vec::new(), content: None };
        }
        let whole = knapsack.whole(&fraction, visits, self.model.types[index].price, meter);
        let content = if self.model.holds(index, &whole.content) { whole.content } else { Vec::new() };
        let filling = content.iter().map(|(class, count)| (*class, f64::from(*count))).collect();
        Priced { type_index: index, bound: whole.bound.min(fraction.bound), filling, content: Some((index, content)) }
    }

    /// The lower bound that these prices prove, when no filling of a type is worth more than `most`.
    fn proved(&self, values: &[f64], most: &[f64]) -> f64 {
        let types = || self.model.types.iter().zip(most).zip(&self.rest.limits);
        let over = types().filter(|(_, limit)| limit.is_none()).map(|((known, most), _)| most / known.price).fold(0.0, f64::max);
        // Prices that no type exceeds can be raised; where only limited types are, nothing says how far.
        let scale = if over > 0.0 { 1.0 / over } else { 1.0 };
        let worth: f64 = self.classes.iter().map(|class| values[*class] * self.rest.left[*class]).sum::<f64>() * scale;
        let limited: f64 = types().filter_map(|((known, most), limit)| limit.map(|limit| limit * (most * scale - known.price).max(0.0))).sum();
        (worth - limited).max(0.0) * (1.0 - 1e-10)
    }

    pub fn relaxed(&self) -> Relaxed {
        let named = |(column, level): (usize, f64)| {
            let (type_index, content) = self.contents[column].clone()?;
            Some(Configuration { type_index, content, level })
        };
        Relaxed { duals: self.master_prices().0, solution: self.master.solution().into_iter().filter_map(named).collect() }
    }

    /// The prices that gave the best bound.
    pub fn best_prices(&self) -> Vec<f64> {
        self.center.clone()
    }
}

struct Priced {
    type_index: usize,
    bound: f64,
    filling: Vec<(usize, f64)>,
    content: Option<(usize, Content)>,
}

/// The first column of a class: as many of it as fit, on the type that is cheapest for one.
fn alone(model: &Model, class: usize, left: f64, row: usize, dearest: f64) -> (Column, Option<(usize, Content)>) {
    let copies = |index: &usize| model.types[*index].fits[class].min(left).floor();
    let usable = (0..model.types.len()).filter(|index| model.types[*index].limit.is_none() && copies(index) >= 1.0);
    let rate = |index: &usize| model.types[*index].price / copies(index);
    match usable.min_by(|one, other| rate(one).total_cmp(&rate(other))) {
        Some(index) => {
            let count = copies(&index);
            (Column { cost: model.types[index].price, entries: vec![(row, count)] }, Some((index, vec![(class, count as u32)])))
        }
        None => (Column { cost: LEFT_OUT * dearest, entries: vec![(row, 1.0)] }, None),
    }
}
