//! Random problems with every kind of constraint; whatever is planned must pass the independent audit.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::capacity::{CapacityKind, Offer, Provider};

const EFFORT: Effort = Effort(400_000);

fn price(text: &str) -> MoneyPerHour {
    MoneyPerHour::usd(text).unwrap()
}

fn offer(name: &str, zone: &str, cpu: u64, gib: u64, gpus: u64, price_text: &str) -> NodeOffer {
    let extended = if gpus > 0 { BTreeMap::from([("nvidia.com/gpu".to_owned(), gpus)]) } else { BTreeMap::new() };
    NodeOffer {
        offer: Offer { provider: Provider::Aws, instance_type: name.into(), zone: zone.into(), kind: CapacityKind::OnDemand, price: price(price_text), reservation: None },
        allocatable: Resources { cpu_milli: cpu, memory_bytes: gib << 30, extended },
        pods_max: 12,
        labels: BTreeMap::new(),
        taints: Vec::new(),
        count_max: None,
    }
}

fn offers() -> Vec<NodeOffer> {
    let mut offers = Vec::new();
    for zone in ["a", "b", "c"] {
        offers.push(offer("small", zone, 4_000, 8, 0, "0.17"));
        offers.push(offer("large", zone, 16_000, 64, 0, "0.77"));
        offers.push(offer("gpu", zone, 8_000, 32, 1, "1.2"));
        offers.push(offer("gpus", zone, 48_000, 192, 4, "5.1"));
    }
    offers[3].taints.push(Taint { key: "gpu".into(), value: "yes".into(), effect: "NoSchedule".into() });
    offers[5].labels.insert("disk".into(), "ssd".into());
    offers[6].count_max = Some(2);
    offers
}

fn pod(app: &str, cpu: u64, gib: u64, gpus: u64) -> Pod {
    let extended = if gpus > 0 { BTreeMap::from([("nvidia.com/gpu".to_owned(), gpus)]) } else { BTreeMap::new() };
    let requests = Resources { cpu_milli: cpu, memory_bytes: gib << 30, extended };
    Pod { namespace: "shop".into(), labels: BTreeMap::from([("app".to_owned(), app.to_owned())]), requests, ..Pod::default() }
}

fn near(app: &str, topology: Topology) -> PodTerm {
    PodTerm { topology, selector: Selector::labels([("app", app)]), namespaces: BTreeSet::new() }
}

fn spread(app: &str, topology: Topology, skew_max: u32) -> Spread {
    Spread { topology, skew_max, selector: Selector::labels([("app", app)]) }
}

/// One application: a number of like pods with some of the constraints.
fn application(random: &mut ChaCha8Rng, name: &str, others: &[&str]) -> Vec<Pod> {
    let gpus = if random.random_bool(0.3) { random.random_range(1..=4) } else { 0 };
    let mut pod = pod(name, random.random_range(1..=60) * 200, random.random_range(1..=20), gpus);
    match random.random_range(0..12) {
        0 => pod.spread.push(spread(name, Topology::Zone, random.random_range(1..=2))),
        1 => pod.spread.push(spread(name, Topology::Hostname, random.random_range(1..=2))),
        2 => pod.anti_affinity.push(near(name, Topology::Hostname)),
        3 => pod.anti_affinity.push(near(name, Topology::Zone)),
        4 => pod.affinity.push(near(name, Topology::Zone)),
        5 => pod.node_selector = Selector::labels([("disk", "ssd")]),
        6 => pod.volume_zones = Some(BTreeSet::from(["b".to_owned()])),
        7 => pod.tolerations.push(Toleration { key: Some("gpu".into()), value: None, effect: None }),
        8 => pod.anti_affinity.push(near(others[random.random_range(0..others.len())], Topology::Hostname)),
        9 => pod.affinity.push(near(others[random.random_range(0..others.len())], Topology::Hostname)),
        10 => pod.node_affinity = vec![Selector { requirements: vec![Requirement { key: "topology.kubernetes.io/zone".into(), operator: Operator::NotIn, values: vec!["a".into()] }] }],
        _ => {}
    }
    vec![pod; random.random_range(1..=14)]
}

fn problem(seed: u64) -> PackingProblem {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let names = ["web", "db", "cache", "batch", "model", "queue"];
    let pods: Vec<Pod> = names.iter().take(random.random_range(1..=6)).flat_map(|name| application(&mut random, name, &names)).collect();
    let resident = pod("web", 0, 0, 0).resident();
    let standing = ExistingNode {
        name: "old".into(),
        zone: "b".into(),
        free: Resources { cpu_milli: 9_000, memory_bytes: 20 << 30, extended: BTreeMap::new() },
        pods_free: 5,
        residents: vec![Resident { anti_affinity: vec![near("db", Topology::Hostname)], ..resident }],
        ..ExistingNode::default()
    };
    let existing = if random.random_bool(0.5) { vec![standing] } else { Vec::new() };
    let node_charge = price(["0", "0.02", "0.2"][random.random_range(0..3)]);
    PackingProblem { pods, existing, offers: offers(), node_charge }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_plan_breaks_a_constraint_or_loses_a_pod(seed in any::<u64>()) {
        let problem = problem(seed);
        let plan = pack(&problem, EFFORT);
        prop_assert_eq!(audit(&problem, &plan), vec![]);
    }

    #[test]
    fn the_same_problem_gets_the_same_plan(seed in any::<u64>()) {
        let problem = problem(seed);
        prop_assert_eq!(pack(&problem, EFFORT), pack(&problem, EFFORT));
    }

    #[test]
    fn no_fleet_is_cheaper_than_its_bound(seed in any::<u64>()) {
        let plan = pack(&problem(seed), EFFORT);
        prop_assert!(plan.bounds.assignment <= plan.bounds.configuration);
        prop_assert!(plan.bounds.configuration <= plan.charged.0.approximate() + 1e-9, "{} > {}", plan.bounds.configuration, plan.charged);
    }

    #[test]
    fn a_plan_is_feasible_however_little_it_may_think(seed in any::<u64>(), effort in 0_u64..200_000) {
        let problem = problem(seed);
        let plan = pack(&problem, Effort(effort));
        prop_assert_eq!(audit(&problem, &plan), vec![]);
    }
}

#[test]
fn more_pods_never_lower_the_bound() {
    let mut pods = Vec::new();
    let mut least = 0.0;
    for turn in 0..12 {
        pods.push(pod("web", 1_000 + 300 * turn, 2 + turn % 5, turn % 3));
        let problem = PackingProblem { pods: pods.clone(), offers: offers(), ..PackingProblem::default() };
        let bound = pack(&problem, EFFORT).bounds.assignment;
        assert!(bound >= least * (1.0 - 1e-6), "{turn}: {bound} after {least}");
        least = bound;
    }
}

#[test]
fn room_is_made_for_pods_beside_those_that_they_need() {
    let agents = Pod { affinity: vec![near("db", Topology::Hostname)], ..pod("agent", 3_000, 2, 0) };
    let together = Pod { affinity: vec![near("ring", Topology::Hostname)], ..pod("ring", 5_000, 4, 0) };
    let pods = [vec![pod("db", 4_000, 8, 0); 3], vec![agents; 4], vec![together; 3]].concat();
    let problem = PackingProblem { pods, offers: offers(), ..PackingProblem::default() };
    let plan = pack(&problem, EFFORT);
    assert_eq!((plan.unplaced.clone(), audit(&problem, &plan)), (vec![], vec![]));
}

#[test]
fn a_pod_without_place_is_told_what_would_help() {
    let why = |pod: Pod| pack(&PackingProblem { pods: vec![pod], offers: offers(), ..PackingProblem::default() }, EFFORT).unplaced[0].1.to_string();
    assert!(why(pod("web", 90_000, 1, 0)).contains("asks for 90000 of cpu; the largest node that is offered has 48000"));
    assert!(why(Pod { node_selector: Selector::labels([("disk", "tape")]), ..pod("web", 100, 1, 0) }).contains("node selector"));
    assert!(why(Pod { volume_zones: Some(BTreeSet::from(["z".to_owned()])), ..pod("web", 100, 1, 0) }).contains("volumes are in z"));
    assert!(why(Pod { affinity: vec![near("db", Topology::Zone)], ..pod("web", 100, 1, 0) }).contains("must be near"));
    let apart = Pod { anti_affinity: vec![near("web", Topology::Zone)], ..pod("web", 100, 1, 0) };
    let plan = pack(&PackingProblem { pods: vec![apart; 5], offers: offers(), ..PackingProblem::default() }, EFFORT);
    assert_eq!(plan.unplaced.len(), 2, "three zones take three");
    assert_eq!(plan.unplaced[0].1, Unplaced::KeptAway { by: Topologically::AntiAffinity });
}
