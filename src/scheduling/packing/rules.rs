//! Rules about pods near pods (spread, affinity, anti-affinity), each once, and how they are counted on a node or in a zone.
//!
//! Stricter than kube-scheduler in two places, so that a plan never depends on the order of binding: a spread constraint is
//! kept by every pod that it counts, and on hosts it is taken as "at most `maxSkew` a node", since an empty node can always come.

use std::collections::BTreeMap;

use super::pod::{Pod, Topology};
use super::problem::PackingProblem;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    AntiAffinity,
    Affinity,
    Spread { skew_max: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    pub kind: Kind,
    pub topology: Topology,
    /// Whose pods it counts; sorted.
    namespaces: Vec<String>,
    selector: super::pod::Selector,
}

impl Rule {
    fn counts(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        self.namespaces.iter().any(|one| one == namespace) && self.selector.matches_labels(labels)
    }
}

/// All rules of the pods that wait, and the anti-affinity of those that run.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
}

impl Rules {
    pub fn of(problem: &PackingProblem) -> Rules {
        let mut rules: Vec<Rule> = problem.pods.iter().flat_map(rules_of).collect();
        let residents = problem.existing.iter().flat_map(|node| &node.residents);
        rules.extend(residents.flat_map(|resident| resident.anti_affinity.iter().map(|term| of_term(&resident.namespace, term, Kind::AntiAffinity))));
        rules.sort();
        rules.dedup();
        Rules { rules }
    }

    /// Whether some rule speaks of zones or of spread.
    pub fn any_zone_or_spread(&self) -> bool {
        self.rules.iter().any(|rule| rule.topology == Topology::Zone || matches!(rule.kind, Kind::Spread { .. }))
    }

    pub fn get(&self, rule: usize) -> &Rule {
        &self.rules[rule]
    }

    pub fn carried_by(&self, pod: &Pod) -> Vec<usize> {
        self.numbers(rules_of(pod))
    }

    pub fn anti_affinity_of(&self, resident: &super::pod::Resident) -> Vec<usize> {
        self.numbers(resident.anti_affinity.iter().map(|term| of_term(&resident.namespace, term, Kind::AntiAffinity)).collect())
    }

    /// The rules that count a pod with these labels.
    pub fn matching(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<usize> {
        (0..self.rules.len()).filter(|rule| self.rules[*rule].counts(namespace, labels)).collect()
    }

    fn numbers(&self, rules: Vec<Rule>) -> Vec<usize> {
        let mut numbers: Vec<usize> = rules.iter().filter_map(|rule| self.rules.binary_search(rule).ok()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

fn rules_of(pod: &Pod) -> Vec<Rule> {
    let spread = |spread: &super::pod::Spread| Rule {
        kind: Kind::Spread { skew_max: spread.skew_max.max(1) },
        topology: spread.topology,
        namespaces: vec![pod.namespace.clone()],
        selector: spread.selector.clone(),
    };
    let mut rules: Vec<Rule> = pod.spread.iter().map(spread).collect();
    rules.extend(pod.anti_affinity.iter().map(|term| of_term(&pod.namespace, term, Kind::AntiAffinity)));
    rules.extend(pod.affinity.iter().map(|term| of_term(&pod.namespace, term, Kind::Affinity)));
    rules
}

fn of_term(namespace: &str, term: &super::pod::PodTerm, kind: Kind) -> Rule {
    let own = || vec![namespace.to_owned()];
    let namespaces = if term.namespaces.is_empty() { own() } else { term.namespaces.iter().cloned().collect() };
    Rule { kind, topology: term.topology, namespaces, selector: term.selector.clone() }
}

/// How often a rule is carried and matched in one place (a node or a zone).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub carriers: u32,
    pub matches: u32,
    /// Pods that do both.
    pub both: u32,
}

impl Tally {
    /// No pod carries an anti-affinity rule beside another pod that it matches.
    pub fn is_apart(&self) -> bool {
        self.carriers == 0 || self.matches == 0 || (self.carriers == 1 && self.matches == 1 && self.both == 1)
    }
}

/// Tallies of the rules that somebody in a place carries or matches.
#[derive(Clone, Debug, Default)]
pub struct Place {
    tallies: BTreeMap<usize, Tally>,
}

impl Place {
    pub fn tally(&self, rule: usize) -> Tally {
        self.tallies.get(&rule).copied().unwrap_or_default()
    }

    pub fn add(&mut self, carries: &[usize], matches: &[usize]) {
        for rule in carries {
            self.tallies.entry(*rule).or_default().carriers += 1;
        }
        for rule in matches {
            let tally = self.tallies.entry(*rule).or_default();
            tally.matches += 1;
            tally.both += u32::from(carries.contains(rule));
        }
    }

    /// The rule's tally with one more such pod.
    pub fn with(&self, rule: usize, carries: &[usize], matches: &[usize]) -> Tally {
        let (carried, matched) = (carries.contains(&rule), matches.contains(&rule));
        let mut tally = self.tally(rule);
        tally.carriers += u32::from(carried);
        tally.matches += u32::from(matched);
        tally.both += u32::from(carried && matched);
        tally
    }
}
