//! Pods that are alike become one class; resources become a row of numbers. Everything after this works on classes.

use std::collections::{BTreeMap, BTreeSet};

use super::pod::{Pod, Resources, Selector, Toleration};
use super::problem::PackingProblem;
use super::rules::Rules;

/// A row of resources: CPU, memory, pods, then the extended resources that some pod wants, by name.
const NAMED_FROM: usize = 3;

/// Pods that no planner could tell apart.
#[derive(Clone, Debug)]
pub struct Class {
    /// Indices into the problem's pods, ascending; never empty.
    pub members: Vec<usize>,
    /// What one of them takes.
    pub demand: Vec<u64>,
    /// Which of the permits: offers that labels, taints and volumes allow.
    pub permit: usize,
    /// Rules about other pods that it carries, and those that count it.
    pub carries: Vec<usize>,
    pub matches: Vec<usize>,
}

/// The problem in numbers.
#[derive(Clone, Debug)]
pub struct Classes {
    /// Names of the dimensions, in the order of every row.
    pub dimensions: Vec<String>,
    pub classes: Vec<Class>,
    /// What each offer, and each node that stands, has.
    pub room: Vec<Vec<u64>>,
    pub existing_room: Vec<Vec<u64>>,
    /// Sets of offers that classes may use, each once.
    pub permits: Vec<Vec<bool>>,
    pub rules: Rules,
}

impl Classes {
    pub fn of(problem: &PackingProblem) -> Classes {
        let named: BTreeSet<&str> = problem.pods.iter().flat_map(|pod| pod.requests.extended.iter().filter(|(_, amount)| **amount > 0).map(|(name, _)| name.as_str())).collect();
        let named: Vec<&str> = named.into_iter().collect();
        let rules = Rules::of(problem);
        let room: Vec<Vec<u64>> = problem.offers.iter().map(|offer| row(&offer.allocatable, u64::from(offer.pods_max), &named)).collect();
        let existing_room = problem.existing.iter().map(|node| row(&node.free, u64::from(node.pods_free), &named)).collect();
        let (mut permits, mut classes) = (Permits::default(), Vec::new());
        for members in groups(&problem.pods, &rules).into_values() {
            let pod = &problem.pods[members[0]];
            let (carries, matches) = (rules.carried_by(pod), rules.matching(&pod.namespace, &pod.labels));
            classes.push(Class { permit: permits.of(pod, problem), demand: row(&pod.requests, 1, &named), carries, matches, members });
        }
        let permits = permits.sets;
        let dimensions = ["cpu", "memory", "pods"].into_iter().chain(named.iter().copied()).map(str::to_owned).collect();
        Classes { dimensions, classes, room, existing_room, permits, rules }
    }

    /// Whether labels, taints, volumes and room of an empty node allow the class.
    pub fn allows(&self, class: usize, offer: usize) -> bool {
        let class = &self.classes[class];
        self.permits[class.permit][offer] && fits(&class.demand, &self.room[offer])
    }
}

/// What tells pods apart. Labels count only through the rules that look at them.
type Key<'p> = (&'p Resources, &'p Selector, &'p [Selector], &'p [Toleration], Option<&'p BTreeSet<String>>, Vec<usize>, Vec<usize>);

fn groups<'p>(pods: &'p [Pod], rules: &Rules) -> BTreeMap<Key<'p>, Vec<usize>> {
    let mut groups: BTreeMap<Key<'p>, Vec<usize>> = BTreeMap::new();
    for (index, pod) in pods.iter().enumerate() {
        let (carries, matches) = (rules.carried_by(pod), rules.matching(&pod.namespace, &pod.labels));
        let key = (&pod.requests, &pod.node_selector, pod.node_affinity.as_slice(), pod.tolerations.as_slice(), pod.volume_zones.as_ref(), carries, matches);
        groups.entry(key).or_default().push(index);
    }
    groups
}

/// What of a pod decides which offers it may use.
type Wishes<'p> = (&'p Selector, &'p [Selector], &'p [Toleration], Option<&'p BTreeSet<String>>);

/// Asked once for all pods that wish the same; wishes that come to the same offers share a permit.
#[derive(Default)]
struct Permits<'p> {
    known: BTreeMap<Wishes<'p>, usize>,
    sets: Vec<Vec<bool>>,
}

impl<'p> Permits<'p> {
    fn of(&mut self, pod: &'p Pod, problem: &PackingProblem) -> usize {
        let wishes = (&pod.node_selector, pod.node_affinity.as_slice(), pod.tolerations.as_slice(), pod.volume_zones.as_ref());
        if let Some(permit) = self.known.get(&wishes) {
            return *permit;
        }
        let set: Vec<bool> = problem.offers.iter().map(|offer| pod.may_use(offer)).collect();
        let permit = self.sets.iter().position(|known| *known == set).unwrap_or(self.sets.len());
        if permit == self.sets.len() {
            self.sets.push(set);
        }
        self.known.insert(wishes, permit);
        permit
    }
}

pub fn row(resources: &Resources, pods: u64, named: &[&str]) -> Vec<u64> {
    let mut row = vec![resources.cpu_milli, resources.memory_bytes, pods];
    debug_assert_eq!(row.len(), NAMED_FROM);
    row.extend(named.iter().map(|name| resources.extended(name)));
    row
}

pub fn fits(demand: &[u64], room: &[u64]) -> bool {
    demand.iter().zip(room).all(|(demand, room)| demand <= room)
}
