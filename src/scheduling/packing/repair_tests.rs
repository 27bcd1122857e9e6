//! Whatever fleet runs: repair never costs more, never moves what must stay, keeps budgets, and comes to an end.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::repair::{Destination, RepairRules, RunningFleet, RunningNode, RunningPod, repair};
use super::*;
use crate::capacity::{CapacityKind, Offer, Provider};

fn money(text: &str) -> Money {
    Money::usd(text).unwrap()
}

fn offer(name: &str, cpu: u64, gib: u64, price: &str) -> NodeOffer {
    NodeOffer {
        offer: Offer { provider: Provider::Aws, instance_type: name.into(), zone: "a".into(), kind: CapacityKind::OnDemand, price: MoneyPerHour::usd(price).unwrap(), reservation: None },
        allocatable: Resources { cpu_milli: cpu, memory_bytes: gib << 30, extended: BTreeMap::new() },
        pods_max: 20,
        labels: BTreeMap::new(),
        taints: Vec::new(),
        count_max: None,
    }
}

fn pod(cpu: u64, gib: u64) -> Pod {
    Pod { namespace: "shop".into(), requests: Resources { cpu_milli: cpu, memory_bytes: gib << 30, extended: BTreeMap::new() }, ..Pod::default() }
}

fn rules() -> RepairRules {
    RepairRules { horizon_seconds: 24 * 3600, gain_min: Money::ZERO_USD, moves_max: 1000, effort: Effort(200_000) }
}

/// Nodes filled to a random part.
fn fleet(seed: u64) -> RunningFleet {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let offers = vec![offer("small", 4_000, 8, "0.17"), offer("wide", 16_000, 32, "0.68"), offer("large", 16_000, 64, "0.80")];
    let (mut pods, mut nodes) = (Vec::new(), Vec::new());
    for number in 0..random.random_range(1..12) {
        let offer = random.random_range(0..offers.len());
        let (mut free, mut on_it) = (offers[offer].allocatable.clone(), Vec::new());
        for _ in 0..random.random_range(0..5) {
            let pod = pod(random.random_range(1..=20) * 200, random.random_range(1..=8));
            if pod.requests.fits_in(&free) {
                free = free.minus(&pod.requests);
                on_it.push(pods.len());
                let may_move = random.random_bool(0.85).then(|| if random.random_bool(0.5) { vec![0] } else { Vec::new() });
                pods.push(RunningPod { pod, restart_cost: money(["0", "0.05", "3"][random.random_range(0..3)]), may_move });
            }
        }
        nodes.push(RunningNode { name: format!("node-{number:02}"), offer, pods: on_it });
    }
    RunningFleet { pods, nodes, offers, node_charge: MoneyPerHour::usd("0.02").unwrap(), budgets: vec![random.random_range(0..10)] }
}

fn everything_runs(fleet: &RunningFleet) -> bool {
    let mut times = vec![0; fleet.pods.len()];
    fleet.nodes.iter().flat_map(|node| &node.pods).for_each(|pod| times[*pod] += 1);
    let fits = |node: &RunningNode| {
        let wanted = node.pods.iter().fold(Resources::default(), |sum, pod| sum.plus(&fleet.pods[*pod].pod.requests));
        wanted.fits_in(&fleet.offers[node.offer].allocatable)
    };
    times.iter().all(|times| *times == 1) && fleet.nodes.iter().all(fits)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn each_step_saves_money_and_leaves_a_fleet_that_runs(seed in any::<u64>(), moves_max in 0_usize..30) {
        let before = fleet(seed);
        let rules = RepairRules { moves_max, ..rules() };
        let plan = repair(&before, &rules).unwrap();
        let (mut now, mut moved) = (before.clone(), vec![0_u32; before.budgets.len()]);
        for step in &plan.steps {
            let after = now.after(step);
            prop_assert!(everything_runs(&after));
            prop_assert_eq!(now.cost().0.checked_sub(after.cost().0).unwrap(), step.saves.0);
            let restarts: i128 = step.moves.iter().map(|(pod, _)| before.pods[*pod].restart_cost.atoms()).sum();
            prop_assert_eq!(step.restart_cost.atoms(), restarts);
            prop_assert!(step.saves.for_seconds(rules.horizon_seconds).unwrap().atoms() > restarts, "the saving repays the moves");
            for (pod, _) in &step.moves {
                let budgets = before.pods[*pod].may_move.clone();
                prop_assert!(budgets.is_some(), "pod {} must stay", pod);
                budgets.iter().flatten().for_each(|budget| moved[*budget] += 1);
            }
            now = after;
        }
        prop_assert!(plan.steps.iter().map(|step| step.moves.len()).sum::<usize>() <= moves_max);
        prop_assert!(moved.iter().zip(&before.budgets).all(|(moved, budget)| moved <= budget));
    }

    #[test]
    fn a_repaired_fleet_needs_no_repair(seed in any::<u64>()) {
        let before = fleet(seed);
        let plan = repair(&before, &rules()).unwrap();
        let after = plan.steps.iter().fold(before, |fleet, step| fleet.after(step));
        prop_assert_eq!(repair(&after, &rules()).unwrap().steps, vec![]);
    }
}

#[test]
fn two_half_empty_nodes_become_one() {
    let running = |cost: &str| RunningPod { pod: pod(1_500, 2), restart_cost: money(cost), may_move: Some(Vec::new()) };
    let fleet = |cost: &str| RunningFleet {
        pods: vec![running(cost), running(cost)],
        nodes: vec![RunningNode { name: "a".into(), offer: 0, pods: vec![0] }, RunningNode { name: "b".into(), offer: 0, pods: vec![1] }],
        offers: vec![offer("small", 4_000, 8, "0.17")],
        node_charge: MoneyPerHour::usd("0").unwrap(),
        budgets: Vec::new(),
    };
    let plan = repair(&fleet("0.10"), &rules()).unwrap();
    assert_eq!(plan.steps.len(), 1);
    assert_eq!((plan.steps[0].remove.clone(), plan.steps[0].buy.len()), (vec![0], 0));
    assert_eq!(plan.steps[0].moves, [(0, Destination::Running(1))]);
    // 0.17 $/h for a day is 4.08 $: what a restart loses must be less.
    assert_eq!(plan.steps[0].gain, money("3.98"));
    assert!(repair(&fleet("5"), &rules()).unwrap().steps.is_empty());
}
