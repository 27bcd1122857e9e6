//! Published and simple policies, to be compared with.
//!
//! Karpenter's (`scheduler.go`, v1.15): pods by CPU, then memory, falling; each into the claim with the fewest pods among those
//! where *some* type still holds all, else into a new one; which type is decided only afterwards, the cheapest that fits. There
//! is no price term while packing. The greedy: what pods are worth comes from the assignment relaxation; the node that carries
//! most worth for its price is bought, again and again.

use super::classes::{Classes, fits};
use super::knapsack::Knapsack;
use super::meter::Meter;
use super::model::{Content, Model, Node};
use super::problem::PackingProblem;
use super::relaxation::{Fillings, Generation, Rest};
use super::standing::Standing;

/// A node that Karpenter will ask for, of a type that it has not chosen yet.
struct Claim {
    load: Vec<u64>,
    classes: Vec<usize>,
    /// Offers that still hold everything.
    offers: Vec<usize>,
}

/// First-fit-decreasing; what a rule about other pods refuses stays in `left`.
pub fn karpenter(standing: &mut Standing, problem: &PackingProblem, numbers: &Classes, left: &mut [usize]) {
    let mut order: Vec<usize> = (0..left.len()).collect();
    order.sort_by(|one, other| numbers.classes[*other].demand.cmp(&numbers.classes[*one].demand));
    let mut claims: Vec<Claim> = Vec::new();
    for class in order {
        for _ in 0..left[class] {
            claims.sort_by_key(|claim| claim.classes.len());
            let taken = claims.iter_mut().any(|claim| claim.take(numbers, class));
            if !taken {
                let offers: Vec<usize> = (0..problem.offers.len()).filter(|offer| numbers.allows(class, *offer)).collect();
                if !offers.is_empty() {
                    claims.push(Claim { load: numbers.classes[class].demand.clone(), classes: vec![class], offers });
                }
            }
        }
    }
    for claim in claims {
        let cheapest = claim.offers.iter().filter(|offer| standing.is_to_be_had(**offer)).min_by_key(|offer| problem.offers[**offer].offer.price);
        let Some(offer) = cheapest else { continue };
        let node = standing.open(*offer);
        for class in claim.classes {
            if left[class] > 0 && standing.admits(node, class) {
                standing.place(node, class);
                left[class] -= 1;
            }
        }
    }
}

impl Claim {
    /// Takes the pod if some offer holds it too.
    fn take(&mut self, numbers: &Classes, class: usize) -> bool {
        let load: Vec<u64> = self.load.iter().zip(&numbers.classes[class].demand).map(|(load, demand)| load + demand).collect();
        let holds = |offer: &usize| fits(&load, &numbers.room[*offer]) && numbers.permits[numbers.classes[class].permit][*offer];
        if !self.offers.iter().any(holds) {
            return false;
        }
        self.offers.retain(holds);
        self.load = load;
        self.classes.push(class);
        true
    }
}

/// Nodes by worth for their price, at the prices of the assignment relaxation.
pub fn dual_greedy(model: &Model, rest: &Rest, meter: &mut Meter) -> Vec<Node> {
    let mut assignment = Generation::new(model, rest, None);
    assignment.run(Fillings::Fractional, 1000, 1e-6, meter);
    let values = assignment.best_prices();
    let (mut rest, mut nodes) = (rest.clone(), Vec::new());
    while let Some((type_index, content)) = worthiest(model, &rest, &values, meter) {
        while rest.has(type_index, &content) {
            rest.take(type_index, &content);
            nodes.push(Node { type_index, content: content.clone() });
        }
    }
    nodes
}

fn worthiest(model: &Model, rest: &Rest, values: &[f64], meter: &mut Meter) -> Option<(usize, Content)> {
    let classes: Vec<usize> = (0..model.classes()).filter(|class| rest.left[*class] >= 1.0).collect();
    let mut best: Option<(f64, usize, Content)> = None;
    for index in (0..model.types.len()).filter(|index| rest.limits[*index].is_none_or(|limit| limit >= 1.0)) {
        let knapsack = Knapsack::new(model, index, values, &rest.left, &classes);
        let fraction = knapsack.fraction(meter);
        let content = knapsack.whole(&fraction, 0, 0.0, meter).content;
        let worth: f64 = content.iter().map(|(class, count)| values[*class] * f64::from(*count)).sum();
        let rate = worth / model.types[index].price;
        let holds = rest.has(index, &content) && model.holds(index, &content);
        if !content.is_empty() && holds && best.as_ref().is_none_or(|(known, ..)| rate > *known) {
            best = Some((rate, index, content));
        }
    }
    best.map(|(_, index, content)| (index, content))
}
