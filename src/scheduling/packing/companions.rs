//! Pods that must share a host with others: nodes for them are chosen first, while the others can still be put beside them.

use super::classes::{Classes, fits};
use super::pod::Topology;
use super::problem::PackingProblem;
use super::rules::Kind;
use super::standing::Standing;

/// Opens nodes for classes with affinity on hosts, each with one pod that they must be beside; takes what it places off `left`.
pub fn place(standing: &mut Standing, problem: &PackingProblem, numbers: &Classes, left: &mut [usize]) {
    for class in 0..left.len() {
        let rules = numbers.classes[class].carries.iter().copied();
        let Some(rule) = rules.into_iter().find(|rule| numbers.rules.get(*rule).kind == Kind::Affinity && numbers.rules.get(*rule).topology == Topology::Hostname) else { continue };
        // A class that matches its own rule wants to be on one host altogether, and is its own company.
        let among_themselves = numbers.classes[class].matches.contains(&rule);
        while left[class] > 0 {
            let company = if among_themselves { Some(class) } else { (0..left.len()).find(|other| left[*other] > 0 && numbers.classes[*other].matches.contains(&rule)) };
            let Some(company) = company else { break };
            let beside = left[class] - usize::from(among_themselves);
            let Some(offer) = cheapest(standing, problem, numbers, [company, class], beside, among_themselves) else { break };
            let node = standing.open(offer);
            if !put(standing, node, company, left) {
                break;
            }
            while left[class] > 0 && put(standing, node, class, left) {}
            if among_themselves {
                break;
            }
        }
    }
}

fn put(standing: &mut Standing, node: usize, class: usize, left: &mut [usize]) -> bool {
    let admitted = standing.admits(node, class);
    if admitted {
        standing.place(node, class);
        left[class] -= 1;
    }
    admitted
}

/// The offer that costs least for each pod of the class beside one of its company; with `all`, only one that holds all of them.
fn cheapest(standing: &Standing, problem: &PackingProblem, numbers: &Classes, [company, class]: [usize; 2], beside: usize, all: bool) -> Option<usize> {
    let rate = |offer: usize| {
        let copies = copies(numbers, offer, company, class, beside);
        let enough = if all { copies >= beside } else { copies > 0 };
        enough.then(|| problem.offers[offer].offer.price.0.approximate() / (copies.max(1) as f64))
    };
    let usable = (0..problem.offers.len()).filter(|offer| standing.would_admit(*offer, company) && numbers.allows(class, *offer));
    let rated = usable.filter_map(|offer| rate(offer).map(|rate| (rate, offer)));
    rated.min_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1))).map(|(_, offer)| offer)
}

/// How many of the class fit beside one of its company, `most` at most.
fn copies(numbers: &Classes, offer: usize, company: usize, class: usize, most: usize) -> usize {
    let mut load = numbers.classes[company].demand.clone();
    for copies in 0..most {
        load.iter_mut().zip(&numbers.classes[class].demand).for_each(|(load, demand)| *load += demand);
        if !fits(&load, &numbers.room[offer]) {
            return copies;
        }
    }
    most
}
