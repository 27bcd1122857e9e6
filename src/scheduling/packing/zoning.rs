//! Gives pods whose rules speak of zones a zone each, before anything is packed: spread evenly, apart or together as they wish,
//! the cheaper zone first where it is all the same.

use super::classes::Classes;
use super::lots::Lot;
use super::pod::Topology;
use super::problem::PackingProblem;
use super::rules::Kind;
use super::standing::Standing;

/// Lots for `count` pods of each class.
pub fn lots(standing: &Standing, problem: &PackingProblem, numbers: &Classes, count: &[usize]) -> Vec<Lot> {
    let mut zones = standing.zones().to_vec();
    let mut lots = Vec::new();
    let mut zoned: Vec<usize> = Vec::new();
    for class in (0..count.len()).filter(|class| count[*class] > 0) {
        match concerns_zones(numbers, class) {
            true => zoned.push(class),
            false => lots.push(Lot { class, zone: None, count: count[class] }),
        }
    }
    // Pods that must be near others come after those others.
    let follows = |class: &usize| numbers.classes[*class].carries.iter().any(|rule| numbers.rules.get(*rule).kind == Kind::Affinity && !numbers.classes[*class].matches.contains(rule));
    zoned.sort_by_key(|class| (follows(class), *class));
    for class in zoned {
        let prices = prices_by_zone(standing, problem, numbers, class);
        let mut per_zone = vec![0; zones.len()];
        for _ in 0..count[class] {
            let known = &numbers.classes[class];
            let open = (0..zones.len()).filter(|zone| prices[*zone].is_some() && standing.breaks_in_zone(class, &zones, *zone).is_none());
            let crowd = |zone: usize| known.carries.iter().map(|rule| zones[zone].tally(*rule).matches).sum::<u32>();
            let Some(zone) = open.min_by_key(|zone| (crowd(*zone), prices[*zone], *zone)) else { break };
            zones[zone].add(&known.carries, &known.matches);
            per_zone[zone] += 1;
        }
        lots.extend((0..zones.len()).filter(|zone| per_zone[*zone] > 0).map(|zone| Lot { class, zone: Some(zone), count: per_zone[zone] }));
    }
    lots
}

fn concerns_zones(numbers: &Classes, class: usize) -> bool {
    let known = &numbers.classes[class];
    known.carries.iter().chain(&known.matches).any(|rule| numbers.rules.get(*rule).topology == Topology::Zone)
}

/// The least price of a node for one pod of the class, where it could run at all.
fn prices_by_zone(standing: &Standing, problem: &PackingProblem, numbers: &Classes, class: usize) -> Vec<Option<crate::units::MoneyPerHour>> {
    let mut prices = vec![None; standing.zones().len()];
    for offer in (0..problem.offers.len()).filter(|offer| numbers.allows(class, *offer) && standing.is_to_be_had(*offer)) {
        let price = Some(problem.offers[offer].offer.price);
        let known = &mut prices[standing.zone_of_offers()[offer]];
        if known.is_none() || price < *known {
            *known = price;
        }
    }
    prices
}
