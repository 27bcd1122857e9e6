//! Places pods one after the other: nodes that stand first, then nodes that are planned, then the offer that costs least.
//! For what is left over, and for pods whose rules about others need a look at every neighbour.

use super::classes::Classes;
use super::fleet::Unplaced;
use super::problem::PackingProblem;
use super::rules::Kind;
use super::standing::Standing;

/// Places what is left of each class, the largest first; (class, why) of those that find no place.
pub fn place_all(standing: &mut Standing, problem: &PackingProblem, numbers: &Classes, left: &[usize]) -> Vec<(usize, Unplaced)> {
    let follows = |class: usize| numbers.classes[class].carries.iter().any(|rule| numbers.rules.get(*rule).kind == Kind::Affinity);
    let mut order: Vec<usize> = (0..left.len()).filter(|class| left[*class] > 0).collect();
    // Pods that must be near others come after those others.
    order.sort_by_key(|class| (follows(*class), std::cmp::Reverse(&numbers.classes[*class].demand), *class));
    let mut unplaced = Vec::new();
    for class in order {
        if place(standing, problem, numbers, class, left[class]) < left[class] {
            unplaced.push((class, why(standing, problem, numbers, class)));
        }
    }
    unplaced
}

/// Places `count` pods of the class; how many found a place.
fn place(standing: &mut Standing, problem: &PackingProblem, numbers: &Classes, class: usize, count: usize) -> usize {
    let mut node = 0;
    for placed in 0..count {
        // Nodes only fill up, so what refused an equal pod refuses the next; rules of zones may turn, so they start again.
        if numbers.classes[class].carries.iter().any(|rule| numbers.rules.get(*rule).topology == super::pod::Topology::Zone) {
            node = 0;
        }
        while node < standing.nodes.len() && !standing.admits(node, class) {
            node += 1;
        }
        if node == standing.nodes.len() {
            match cheapest(standing, problem, class) {
                Some(offer) => node = standing.open(offer),
                None => return placed,
            }
        }
        standing.place(node, class);
    }
    count
}

fn cheapest(standing: &Standing, problem: &PackingProblem, class: usize) -> Option<usize> {
    let admitting = (0..problem.offers.len()).filter(|offer| standing.would_admit(*offer, class));
    admitting.min_by_key(|offer| problem.offers[*offer].offer.price)
}

/// Why the class has no place (any more), and what would help.
fn why(standing: &Standing, problem: &PackingProblem, numbers: &Classes, class: usize) -> Unplaced {
    let wanted = &numbers.classes[class];
    let pod = &problem.pods[wanted.members[0]];
    let rooms: Vec<&Vec<u64>> = numbers.room.iter().chain(&numbers.existing_room).collect();
    if rooms.is_empty() {
        return Unplaced::NoOffers;
    }
    let usable: Vec<usize> = (0..problem.offers.len()).filter(|offer| numbers.allows(class, *offer)).collect();
    if !usable.is_empty() {
        let kept_away = usable.iter().filter(|offer| standing.is_to_be_had(**offer)).find_map(|offer| standing.kept_away_from_offer(class, *offer));
        return kept_away.map_or(Unplaced::SoldOut { offers: usable.len() }, |by| Unplaced::KeptAway { by });
    }
    if let Some(by) = (0..standing.nodes.len()).find_map(|node| standing.kept_away_from_node(class, node)) {
        return Unplaced::KeptAway { by };
    }
    let large: Vec<usize> = (0..problem.offers.len()).filter(|offer| super::classes::fits(&wanted.demand, &numbers.room[*offer])).collect();
    if large.is_empty() {
        return too_large(numbers, wanted, &rooms);
    }
    let labelled: Vec<usize> = large.into_iter().filter(|offer| pod.selects(|key| problem.offers[*offer].label(key))).collect();
    if labelled.is_empty() {
        return Unplaced::NoMatchingLabels;
    }
    match labelled.iter().find(|offer| pod.untolerated(&problem.offers[**offer].taints).is_none()) {
        Some(_) => Unplaced::VolumeZones { zones: pod.volume_zones.iter().flatten().cloned().collect() },
        None => {
            let taint = pod.untolerated(&problem.offers[labelled[0]].taints).expect("it tolerates no offer that fits");
            Unplaced::NotTolerated { taint: format!("{}={}:{}", taint.key, taint.value, taint.effect) }
        }
    }
}

fn too_large(numbers: &Classes, wanted: &super::classes::Class, rooms: &[&Vec<u64>]) -> Unplaced {
    let share = |dimension: usize, room: &Vec<u64>| wanted.demand[dimension] as f64 / (room[dimension] as f64).max(0.5);
    let tightest = |room: &&&Vec<u64>| (0..wanted.demand.len()).map(|dimension| share(dimension, room)).fold(0.0, f64::max);
    let best = rooms.iter().min_by(|one, other| tightest(one).total_cmp(&tightest(other))).expect("there is a room");
    let lacking = (0..wanted.demand.len()).max_by(|one, other| share(*one, best).total_cmp(&share(*other, best))).unwrap_or(0);
    let largest = rooms.iter().map(|room| room[lacking]).max().unwrap_or(0);
    Unplaced::TooLarge { resource: numbers.dimensions[lacking].clone(), wanted: wanted.demand[lacking], largest }
}
