//! Looks at a plan as kube-scheduler would, pod by pod and from the pods' own words, sharing nothing with the planner but what
//! selectors mean. Tests and the operator ask it before a plan is believed.

use std::collections::BTreeMap;
use std::fmt;

use super::fleet::FleetPlan;
use super::pod::{Pod, PodTerm, Resident, Resources, Spread, Topology};
use super::problem::{ExistingNode, NodeOffer, PackingProblem};

/// Something that a plan must not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Breach {
    /// A pod is named this often instead of once.
    Named { pod: usize, times: usize },
    /// The pods of a node together want more than it has.
    Overfull { node: String },
    /// Labels, taints or volume zones forbid this node.
    Forbidden { pod: usize, node: String },
    /// More of an offer than can be had.
    Oversold { offer: usize },
    AntiAffinity { pod: usize },
    Affinity { pod: usize },
    Spread { pod: usize },
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named { pod, times } => write!(f, "pod {pod} is planned {times} times"),
            Self::Overfull { node } => write!(f, "{node} has not the room for its pods"),
            Self::Forbidden { pod, node } => write!(f, "pod {pod} may not run on {node}"),
            Self::Oversold { offer } => write!(f, "offer {offer} cannot be had that often"),
            Self::AntiAffinity { pod } => write!(f, "pod {pod} is near a pod that it must not be near"),
            Self::Affinity { pod } => write!(f, "pod {pod} is not near a pod that it must be near"),
            Self::Spread { pod } => write!(f, "pod {pod} is where too many of its like are"),
        }
    }
}

/// Everything that the plan does wrong; empty for a good plan.
pub fn audit(problem: &PackingProblem, plan: &FleetPlan) -> Vec<Breach> {
    let fleet = Fleet::of(problem, plan);
    let mut breaches = named_once(problem, plan);
    breaches.extend(oversold(problem, plan));
    for host in &fleet.hosts {
        breaches.extend(host.breaches(problem));
    }
    for (host, at) in fleet.hosts.iter().enumerate() {
        breaches.extend(at.pods.iter().flat_map(|pod| fleet.neighbourhood(problem, *pod, host)));
    }
    breaches
}

fn named_once(problem: &PackingProblem, plan: &FleetPlan) -> Vec<Breach> {
    let mut times = vec![0; problem.pods.len()];
    let bought = plan.nodes.iter().flat_map(|node| node.pods.iter());
    let others = plan.on_existing.iter().map(|(pod, _)| pod).chain(plan.unplaced.iter().map(|(pod, _)| pod));
    bought.chain(others).for_each(|pod| times[*pod] += 1);
    times.iter().enumerate().filter(|(_, times)| **times != 1).map(|(pod, times)| Breach::Named { pod, times: *times }).collect()
}

fn oversold(problem: &PackingProblem, plan: &FleetPlan) -> Vec<Breach> {
    let mut bought = vec![0_u32; problem.offers.len()];
    plan.nodes.iter().for_each(|node| bought[node.offer] += 1);
    let over = |offer: &usize| problem.offers[*offer].count_max.is_some_and(|max| bought[*offer] > max);
    (0..problem.offers.len()).filter(over).map(|offer| Breach::Oversold { offer }).collect()
}

/// A node as it stands when the plan is done.
struct Host<'p> {
    node: Node<'p>,
    pods: Vec<usize>,
}

#[derive(Clone, Copy)]
enum Node<'p> {
    Existing(&'p ExistingNode),
    Bought(&'p NodeOffer),
}

impl Node<'_> {
    fn zone(&self) -> &str {
        match self {
            Node::Existing(node) => &node.zone,
            Node::Bought(offer) => &offer.offer.zone,
        }
    }

    fn name(&self) -> &str {
        match self {
            Node::Existing(node) => &node.name,
            Node::Bought(offer) => &offer.offer.instance_type,
        }
    }

    fn room(&self) -> (&Resources, u32) {
        match self {
            Node::Existing(node) => (&node.free, node.pods_free),
            Node::Bought(offer) => (&offer.allocatable, offer.pods_max),
        }
    }

    fn allows(&self, pod: &Pod) -> bool {
        match self {
            Node::Existing(node) => pod.may_run_on(node),
            Node::Bought(offer) => pod.may_use(offer),
        }
    }
}

impl Host<'_> {
    fn breaches(&self, problem: &PackingProblem) -> Vec<Breach> {
        let node = || self.node.name().to_owned();
        let (room, pods_max) = self.node.room();
        let wanted = self.pods.iter().fold(Resources::default(), |sum, pod| sum.plus(&problem.pods[*pod].requests));
        let forbidden = self.pods.iter().filter(|pod| !self.node.allows(&problem.pods[**pod]));
        let mut breaches: Vec<Breach> = forbidden.map(|pod| Breach::Forbidden { pod: *pod, node: node() }).collect();
        if !wanted.fits_in(room) || self.pods.len() > pods_max as usize {
            breaches.push(Breach::Overfull { node: node() });
        }
        breaches
    }
}

/// All nodes, and everybody on them: (host, pod of the plan if it is one, what others see of it).
struct Fleet<'p> {
    hosts: Vec<Host<'p>>,
    everybody: Vec<(usize, Option<usize>, Resident)>,
}

impl<'p> Fleet<'p> {
    fn of(problem: &'p PackingProblem, plan: &FleetPlan) -> Fleet<'p> {
        let mut hosts: Vec<Host> = problem.existing.iter().map(|node| Host { node: Node::Existing(node), pods: Vec::new() }).collect();
        plan.on_existing.iter().for_each(|(pod, node)| hosts[*node].pods.push(*pod));
        hosts.extend(plan.nodes.iter().map(|node| Host { node: Node::Bought(&problem.offers[node.offer]), pods: node.pods.clone() }));
        let residents = problem.existing.iter().enumerate().flat_map(|(host, node)| node.residents.iter().map(move |resident| (host, None, resident.clone())));
        let mut everybody: Vec<(usize, Option<usize>, Resident)> = residents.collect();
        for (host, at) in hosts.iter().enumerate() {
            everybody.extend(at.pods.iter().map(|pod| (host, Some(*pod), problem.pods[*pod].resident())));
        }
        Fleet { hosts, everybody }
    }

    fn is_near(&self, topology: Topology, one: usize, other: usize) -> bool {
        match topology {
            Topology::Hostname => one == other,
            Topology::Zone => self.hosts[one].node.zone() == self.hosts[other].node.zone(),
        }
    }

    /// What the pod's own terms say about where it is, and what residents' terms say about it.
    fn neighbourhood(&self, problem: &PackingProblem, index: usize, host: usize) -> Vec<Breach> {
        let pod = &problem.pods[index];
        let others = || self.everybody.iter().filter(|(_, other, _)| *other != Some(index));
        let matched = |term: &PodTerm, other: &Resident| term.concerns(&pod.namespace, &other.namespace, &other.labels);
        let too_near = |term: &PodTerm| others().any(|(at, _, other)| self.is_near(term.topology, host, *at) && matched(term, other));
        let shunned = others().filter(|(_, other, _)| other.is_none()).any(|(at, _, resident)| {
            let concerns = |term: &PodTerm| self.is_near(term.topology, host, *at) && term.concerns(&resident.namespace, &pod.namespace, &pod.labels);
            resident.anti_affinity.iter().any(concerns)
        });
        let lonely = |term: &PodTerm| {
            let is_first = matched(term, &pod.resident()) && !others().any(|(_, _, other)| matched(term, other));
            !is_first && !too_near(term)
        };
        let mut breaches = Vec::new();
        if shunned || pod.anti_affinity.iter().any(too_near) {
            breaches.push(Breach::AntiAffinity { pod: index });
        }
        if pod.affinity.iter().any(lonely) {
            breaches.push(Breach::Affinity { pod: index });
        }
        if pod.spread.iter().any(|spread| self.skew(pod, spread, host) > i64::from(spread.skew_max)) {
            breaches.push(Breach::Spread { pod: index });
        }
        breaches
    }

    /// How many more of its like are where the pod is than where there are fewest.
    fn skew(&self, pod: &Pod, spread: &Spread, host: usize) -> i64 {
        let domain = |host: usize| match spread.topology {
            Topology::Hostname => host.to_string(),
            Topology::Zone => self.hosts[host].node.zone().to_owned(),
        };
        let eligible = (0..self.hosts.len()).filter(|host| self.hosts[*host].node.allows(pod));
        let mut counts: BTreeMap<String, i64> = eligible.map(|host| (domain(host), 0)).collect();
        for (at, _, other) in &self.everybody {
            if other.namespace == pod.namespace && spread.selector.matches_labels(&other.labels) {
                counts.entry(domain(*at)).and_modify(|count| *count += 1);
            }
        }
        let here = counts.get(&domain(host)).copied().unwrap_or(0);
        here - counts.values().min().copied().unwrap_or(0)
    }
}
