//! The fleet as it is being planned: what is left on each node, who is near whom. Whatever is placed is placed here, one pod
//! after the other, and each is admitted only where every rule holds; so a plan is feasible by construction.

use std::collections::BTreeMap;

use super::classes::{Class, Classes, fits};
use super::fleet::Topologically;
use super::pod::Topology;
use super::problem::PackingProblem;
use super::rules::{Kind, Place};

/// A node of the standing: bought or to be bought.
#[derive(Clone, Debug)]
pub struct StandingNode {
    pub source: Source,
    pub zone: usize,
    pub room: Vec<u64>,
    /// Class of each pod placed here by this plan.
    pub placed: Vec<usize>,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Existing(usize),
    Offer(usize),
}

/// Nodes, zones, and what is still to be had.
#[derive(Clone, Debug)]
pub struct Standing<'a> {
    problem: &'a PackingProblem,
    numbers: &'a Classes,
    pub nodes: Vec<StandingNode>,
    zones: Vec<Place>,
    zone_of_offer: Vec<usize>,
    /// How many more of each offer can be had.
    left: Vec<Option<u32>>,
}

impl<'a> Standing<'a> {
    /// The nodes that stand, with their residents.
    pub fn new(problem: &'a PackingProblem, numbers: &'a Classes) -> Standing<'a> {
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        let all = problem.existing.iter().map(|node| node.zone.as_str()).chain(problem.offers.iter().map(|offer| offer.offer.zone.as_str()));
        for zone in all {
            let next = names.len();
            names.entry(zone).or_insert(next);
        }
        let mut standing = Standing {
            problem,
            numbers,
            nodes: Vec::new(),
            zones: vec![Place::default(); names.len()],
            zone_of_offer: problem.offers.iter().map(|offer| names[offer.offer.zone.as_str()]).collect(),
            left: problem.offers.iter().map(|offer| offer.count_max).collect(),
        };
        for (index, node) in problem.existing.iter().enumerate() {
            let zone = names[node.zone.as_str()];
            let mut place = Place::default();
            for resident in &node.residents {
                let (carries, matches) = (numbers.rules.anti_affinity_of(resident), numbers.rules.matching(&resident.namespace, &resident.labels));
                place.add(&carries, &matches);
                standing.zones[zone].add(&carries, &matches);
            }
            standing.nodes.push(StandingNode { source: Source::Existing(index), zone, room: numbers.existing_room[index].clone(), placed: Vec::new(), place });
        }
        standing
    }

    pub fn zones(&self) -> &[Place] {
        &self.zones
    }

    pub fn zone_of_offers(&self) -> &[usize] {
        &self.zone_of_offer
    }

    /// How many more of each offer can be had; `None`: no bound is known.
    pub fn left(&self) -> &[Option<u32>] {
        &self.left
    }

    /// The rule about zones that keeps one more pod of the class from a zone, where zones are filled like these.
    pub fn breaks_in_zone(&self, class: usize, zones: &[Place], zone: usize) -> Option<Topologically> {
        let class = &self.numbers.classes[class];
        let of_zones = |rule: &usize| self.numbers.rules.get(*rule).topology == Topology::Zone;
        let concerned = class.carries.iter().chain(&class.matches).filter(|rule| of_zones(rule));
        concerned.copied().find_map(|rule| self.breaks(rule, class, &Place::default(), zones, zone))
    }

    /// How many pods of each class are on nodes that are to be bought.
    pub fn bought(&self) -> Vec<usize> {
        let mut count = vec![0; self.numbers.classes.len()];
        let planned = self.nodes.iter().filter(|node| matches!(node.source, Source::Offer(_)));
        planned.flat_map(|node| &node.placed).for_each(|class| count[*class] += 1);
        count
    }

    pub fn is_to_be_had(&self, offer: usize) -> bool {
        self.left[offer] != Some(0)
    }

    /// An empty node of this offer; the caller has asked whether it is to be had.
    pub fn open(&mut self, offer: usize) -> usize {
        if let Some(left) = &mut self.left[offer] {
            *left = left.saturating_sub(1);
        }
        let (zone, room) = (self.zone_of_offer[offer], self.numbers.room[offer].clone());
        self.nodes.push(StandingNode { source: Source::Offer(offer), zone, room, placed: Vec::new(), place: Place::default() });
        self.nodes.len() - 1
    }

    /// Whether this class could be placed on the node now.
    pub fn admits(&self, node: usize, class: usize) -> bool {
        let (standing, wanted) = (&self.nodes[node], &self.numbers.classes[class]);
        let allowed = match standing.source {
            Source::Existing(index) => self.problem.pods[wanted.members[0]].may_run_on(&self.problem.existing[index]),
            Source::Offer(offer) => self.numbers.permits[wanted.permit][offer],
        };
        allowed && fits(&wanted.demand, &standing.room) && self.kept_away(class, &standing.place, standing.zone).is_none()
    }

    /// The same without rules of zones, for pods whose zones were chosen together.
    pub fn admits_zoned(&self, node: usize, class: usize) -> bool {
        let (standing, wanted) = (&self.nodes[node], &self.numbers.classes[class]);
        let on_hosts = |rule: &usize| self.numbers.rules.get(*rule).topology == Topology::Hostname;
        let concerned = || wanted.carries.iter().chain(&wanted.matches).filter(|rule| on_hosts(rule));
        fits(&wanted.demand, &standing.room) && concerned().all(|rule| self.breaks(*rule, wanted, &standing.place, &self.zones, standing.zone).is_none())
    }

    /// Whether a new node of this offer would admit the class.
    pub fn would_admit(&self, offer: usize, class: usize) -> bool {
        self.numbers.allows(class, offer) && self.is_to_be_had(offer) && self.kept_away(class, &Place::default(), self.zone_of_offer[offer]).is_none()
    }

    /// The rule that keeps the class from this place.
    pub fn kept_away(&self, class: usize, host: &Place, zone: usize) -> Option<Topologically> {
        let class = &self.numbers.classes[class];
        let concerned = class.carries.iter().chain(class.matches.iter().filter(|rule| !class.carries.contains(rule)));
        concerned.copied().find_map(|rule| self.breaks(rule, class, host, &self.zones, zone))
    }

    fn breaks(&self, rule: usize, class: &Class, host: &Place, zones: &[Place], zone: usize) -> Option<Topologically> {
        let known = self.numbers.rules.get(rule);
        let place = match known.topology {
            Topology::Hostname => host,
            Topology::Zone => &zones[zone],
        };
        let tally = place.with(rule, &class.carries, &class.matches);
        match (known.kind, known.topology) {
            (Kind::AntiAffinity, _) => (!tally.is_apart()).then_some(Topologically::AntiAffinity),
            (Kind::Spread { skew_max }, Topology::Hostname) => (tally.matches > skew_max).then_some(Topologically::Spread),
            (Kind::Spread { skew_max }, Topology::Zone) => {
                (class.matches.contains(&rule) && tally.matches > self.fewest(rule, class, zones) + skew_max).then_some(Topologically::Spread)
            }
            (Kind::Affinity, _) if !class.carries.contains(&rule) => None,
            (Kind::Affinity, _) => {
                let is_first = class.matches.contains(&rule) && zones.iter().all(|zone| zone.tally(rule).matches == 0);
                (place.tally(rule).matches == 0 && !is_first).then_some(Topologically::Affinity)
            }
        }
    }

    /// The fewest pods that the rule counts in any zone where the class could run.
    fn fewest(&self, rule: usize, class: &Class, zones: &[Place]) -> u32 {
        let pod = &self.problem.pods[class.members[0]];
        let by_offer = (0..self.problem.offers.len()).filter(|offer| self.numbers.permits[class.permit][*offer]).map(|offer| self.zone_of_offer[offer]);
        let standing = self.nodes.iter().filter(|node| matches!(node.source, Source::Existing(index) if pod.may_run_on(&self.problem.existing[index])));
        by_offer.chain(standing.map(|node| node.zone)).map(|zone| zones[zone].tally(rule).matches).min().unwrap_or(0)
    }

    /// Puts one pod of the class on a node that admits it.
    pub fn place(&mut self, node: usize, class: usize) {
        let wanted = &self.numbers.classes[class];
        let standing = &mut self.nodes[node];
        standing.room.iter_mut().zip(&wanted.demand).for_each(|(room, demand)| *room -= demand);
        standing.placed.push(class);
        standing.place.add(&wanted.carries, &wanted.matches);
        self.zones[standing.zone].add(&wanted.carries, &wanted.matches);
    }
}

impl Standing<'_> {
    /// The rule, if any, that keeps the class from a new node of this offer.
    pub fn kept_away_from_offer(&self, class: usize, offer: usize) -> Option<Topologically> {
        self.kept_away(class, &Place::default(), self.zone_of_offer[offer])
    }

    /// The rule that keeps the class from a node on which it would fit.
    pub fn kept_away_from_node(&self, class: usize, node: usize) -> Option<Topologically> {
        let standing = &self.nodes[node];
        fits(&self.numbers.classes[class].demand, &standing.room).then(|| self.kept_away(class, &standing.place, standing.zone)).flatten()
    }
}
