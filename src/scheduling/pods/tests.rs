//! A fleet's life in a small world that does what plans say: what is bought, who is let go where, what is given back.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use proptest::prelude::*;

use super::purchase::offered;
use super::{HOSTNAME, purchase};
use crate::capacity::offer::QuotedOffer;
use crate::capacity::{
    CapacityKind, Claim, ClaimPhase, ClaimedInstance, End, EndCause, InstanceType, Notice, NoticeKind, Offer, PodRef, PodsPolicy, Provider, Refusal, RefusalCode, RepairPolicy,
};
use crate::scheduling::packing::{Pod, PodTerm, Resources, Selector, Topology};
use crate::scheduling::scenario::{node_of, noon, pool, scenario};
use crate::scheduling::snapshot::{CloudInstance, DisruptionBudget, InstanceState, NodeRoom, Observed, PodView, Snapshot};
use crate::scheduling::{Action, Plan, audit, plan};
use crate::units::{MoneyPerHour, Span};

const MIB: u64 = 1024 * 1024;

fn quoted(name: &str, vcpu: u32, memory_mib: u64, gpus: u32, zone: &str, price: &str) -> QuotedOffer {
    let machine = InstanceType { name: name.into(), vcpu, memory_mib, gpus, gpu_name: None, architecture: "amd64".into(), pods: 30 };
    let price = MoneyPerHour::usd(price).unwrap();
    let offer = Offer { provider: Provider::Aws, instance_type: name.into(), zone: zone.into(), kind: CapacityKind::OnDemand, price, reservation: None };
    QuotedOffer { offer, machine, available_max: None }
}

fn pod(name: &str, cpu_milli: u64, memory_mib: u64) -> PodView {
    let requests = Resources { cpu_milli, memory_bytes: memory_mib * MIB, extended: BTreeMap::new() };
    let labels = BTreeMap::from([("app".to_owned(), name.split('-').next().unwrap().to_owned())]);
    PodView {
        id: PodRef { namespace: "shop".into(), name: name.into(), uid: format!("uid-{name}") },
        pool: "general".into(),
        gated: true,
        bound_to: None,
        pinned_to: None,
        finished: false,
        deleting: false,
        created_at_real: noon() - TimeDelta::seconds(5),
        needs: Ok(Pod { namespace: "shop".into(), name: name.into(), labels, requests, ..Pod::default() }),
        move_loses: Some(Span::minutes(1)),
    }
}

struct World {
    snapshot: Snapshot,
    /// The cloud says no to these types.
    sold_out: BTreeSet<String>,
    /// Nodes have so much less memory than their type promises.
    short_mib: u64,
    launched: usize,
}

impl World {
    fn new(pods: Vec<PodView>) -> World {
        let mut pool = pool("general");
        pool.pods = Some(PodsPolicy::default());
        pool.offers = vec![
            quoted("m.large", 2, 8_192, 0, "us-east-1a", "0.10"),
            quoted("m.xlarge", 4, 16_384, 0, "us-east-1a", "0.20"),
            quoted("m.xlarge", 4, 16_384, 0, "us-east-1b", "0.20"),
            quoted("m.4xlarge", 16, 65_536, 0, "us-east-1b", "0.79"),
        ];
        let mut snapshot = scenario().pool(pool).0;
        snapshot.pods = pods;
        World { snapshot, sold_out: BTreeSet::new(), short_mib: 0, launched: 0 }
    }

    fn plan(&self) -> Plan {
        let planned = plan(&self.snapshot);
        assert_eq!(planned, audit(&self.snapshot, planned.clone()), "the audit dropped something");
        planned
    }

    /// Does what plans say until they say nothing.
    fn settle(&mut self) {
        for _ in 0..20 {
            let planned = self.plan();
            if planned.actions.is_empty() {
                return;
            }
            for action in &planned.actions {
                self.apply(action);
            }
        }
        panic!("it never comes to rest: {:?}", self.plan().actions);
    }

    fn apply(&mut self, action: &Action) {
        match action {
            Action::WriteClaim { name, record } => {
                let uid = format!("token-{name}");
                assert!(self.snapshot.claims.iter().all(|claim| claim.name != *name), "{name} twice");
                self.snapshot.claims.push(Claim { name: name.clone(), uid, written_at_real: self.snapshot.real_now, record: record.clone(), status: Default::default() });
            }
            Action::AskCloud { claim, .. } => self.ask(claim),
            Action::WithdrawClaim { claim, .. } => self.refuse(claim, RefusalCode::Withdrawn),
            Action::RecordInstances { claim, instances, ended, .. } => {
                let status = &mut self.claim(claim).status;
                status.instances = instances.clone();
                if *ended {
                    status.phase = ClaimPhase::Ended;
                }
            }
            Action::AdoptNode { claim, node, .. } => {
                let node = self.snapshot.nodes.iter_mut().find(|one| one.name == *node).unwrap();
                (node.claim, node.unclaimed_taint) = (Some(claim.clone()), false);
            }
            Action::TaintNode { node, .. } => self.snapshot.nodes.iter_mut().filter(|one| one.name == *node).for_each(|one| one.leaving_taint = true),
            Action::RemoveNode { node, .. } => self.snapshot.nodes.retain(|one| one.name != *node),
            Action::Release { claim, instances, .. } => {
                let now = self.snapshot.now;
                self.end(instances, EndCause::Terminated);
                let status = &mut self.claim(claim).status;
                status.instances.iter_mut().filter(|one| instances.contains(&one.id)).for_each(|one| one.release_asked_at = Some(now));
            }
            Action::PlacePod { pod, node, hostname, .. } => {
                let pod = self.pod(&pod.name);
                assert!(pod.gated);
                (pod.gated, pod.pinned_to, pod.bound_to) = (false, Some(hostname.clone()), Some(node.clone()));
            }
            Action::EvictPod { pod, .. } => self.snapshot.pods.retain(|one| one.id != *pod),
            Action::DeleteClaim { claim, .. } => self.snapshot.claims.retain(|one| one.name != *claim),
            other => panic!("nobody asked for {other:?}"),
        }
    }

    fn ask(&mut self, name: &str) {
        let claim = self.claim(name).clone();
        if self.sold_out.contains(&claim.record.offer.instance_type) {
            return self.refuse(name, RefusalCode::NoCapacity);
        }
        let now = self.snapshot.now;
        let mut instances = Vec::new();
        for _ in 0..claim.record.count {
            self.launched += 1;
            let (id, node) = (format!("i-{}", self.launched), format!("n-{}", self.launched));
            instances.push(ClaimedInstance { id: id.clone(), node: None, launched_at: now, running_at: Some(now), notice: None, seen_alive_at: Some(now), release_asked_at: None, end: None });
            let offer = &claim.record.offer;
            let machine = self.snapshot.pools[0].offers.iter().find(|quoted| quoted.offer == *offer).unwrap().machine.clone();
            let mut view = node_of(&node, &id, None);
            let whole = PodsPolicy { reserved_cpu_milli: 0, reserved_memory_mib: 0, ..PodsPolicy::default() };
            let (mut allocatable, pods_max) = offered(&machine, &whole);
            allocatable.memory_bytes = allocatable.memory_bytes.saturating_sub(self.short_mib * MIB);
            view.room = Some(NodeRoom { allocatable, pods_max, taints: Vec::new() });
            view.labels = [(HOSTNAME, node.as_str()), ("topology.kubernetes.io/zone", &offer.zone)].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
            self.snapshot.nodes.push(view);
            let seen = CloudInstance {
                id,
                pool: "general".into(),
                claim: Some(name.into()),
                client_token: Some(claim.uid.clone()),
                instance_type: offer.instance_type.clone(),
                zone: offer.zone.clone(),
                state: InstanceState::Running,
                launched_at: now,
                running_at: Some(now),
                ended: None,
                notice: None,
                observed_at: now,
            };
            if let Observed::Known(all) = &mut self.snapshot.instances {
                all.push(seen);
            }
        }
        let status = &mut self.claim(name).status;
        (status.phase, status.instances) = (ClaimPhase::Granted, instances);
    }

    fn refuse(&mut self, name: &str, code: RefusalCode) {
        let at = self.snapshot.now;
        let status = &mut self.claim(name).status;
        (status.phase, status.refusal) = (ClaimPhase::Refused, Some(Refusal { code, message: "none left".into(), at }));
    }

    fn end(&mut self, ids: &[String], cause: EndCause) {
        let at = self.snapshot.now;
        let Observed::Known(all) = &mut self.snapshot.instances else { return };
        for seen in all.iter_mut().filter(|seen| ids.contains(&seen.id)) {
            (seen.state, seen.ended) = (InstanceState::Terminated, Some(End { at, cause, estimated: false }));
        }
    }

    fn claim(&mut self, name: &str) -> &mut Claim {
        self.snapshot.claims.iter_mut().find(|claim| claim.name == name).unwrap()
    }

    fn pod(&mut self, name: &str) -> &mut PodView {
        self.snapshot.pods.iter_mut().find(|pod| pod.id.name == name).unwrap()
    }

    fn node_of(&self, pod: &str) -> &str {
        self.snapshot.pods.iter().find(|one| one.id.name == pod).and_then(|pod| pod.bound_to.as_deref()).unwrap_or("none")
    }

    fn alive(&self) -> Vec<&CloudInstance> {
        self.snapshot.instances.known().unwrap().iter().filter(|seen| seen.state.is_alive()).collect()
    }

    fn waiting(&self) -> usize {
        self.snapshot.pods.iter().filter(|pod| pod.gated).count()
    }

    /// Every pod is where there is room for it, and no machine is idle.
    fn check(&self) {
        for node in &self.snapshot.nodes {
            let here = self.snapshot.pods.iter().filter(|pod| pod.bound_to.as_ref() == Some(&node.name));
            let wanted = here.clone().fold(Resources::default(), |sum, pod| sum.plus(&pod.needs.as_ref().unwrap().requests));
            assert!(wanted.fits_in(&node.room.as_ref().unwrap().allocatable), "{} holds too much", node.name);
            assert!(here.count() > 0, "{} stands for nobody", node.name);
        }
    }
}

fn some_pods() -> Vec<PodView> {
    (0..12).map(|number| pod(&format!("web-{number}"), 900, 1_000)).collect()
}

#[test]
fn pods_wait_for_each_other_but_not_for_ever() {
    let mut world = World::new(vec![pod("web-1", 500, 500), pod("web-2", 500, 500)]);
    let created_ago = |world: &mut World, name: &str, seconds: i64| world.pod(name).created_at_real = noon() - TimeDelta::seconds(seconds);
    created_ago(&mut world, "web-1", 6);
    created_ago(&mut world, "web-2", 1);
    assert!(world.plan().actions.is_empty(), "another has just come");
    created_ago(&mut world, "web-1", 11);
    assert_eq!(world.plan().actions.len(), 1, "ten seconds are enough");
    created_ago(&mut world, "web-1", 6);
    created_ago(&mut world, "web-2", 3);
    assert_eq!(world.plan().actions.len(), 1, "nobody has come for two seconds");
}

#[test]
fn a_fleet_is_bought_once_and_pods_go_where_they_were_planned() {
    let mut world = World::new(some_pods());
    let planned = world.plan();
    let record = |action: &Action| match action {
        Action::WriteClaim { record, .. } => Some(record.clone()),
        _ => None,
    };
    let records: Vec<_> = planned.actions.iter().filter_map(record).collect();
    world.settle();
    assert_eq!(world.waiting(), 0);
    world.check();
    let machines: u32 = records.iter().map(|record| record.count).sum();
    assert_eq!(world.alive().len(), machines as usize, "no machine more than planned");
    for slot in records.iter().flat_map(|record| &record.slots) {
        let nodes: BTreeSet<&str> = slot.pods.iter().map(|pod| world.node_of(&pod.name)).collect();
        assert_eq!(nodes.len(), 1, "planned together, and on {nodes:?}");
    }
}

#[test]
fn two_writers_who_know_the_same_buy_the_same() {
    let world = World::new(some_pods());
    let mut other = World::new(some_pods().into_iter().rev().collect());
    other.snapshot.now += TimeDelta::seconds(7);
    let names = |world: &World| -> BTreeSet<String> {
        let name = |action| match action {
            Action::WriteClaim { name, .. } => Some(name),
            _ => None,
        };
        world.plan().actions.into_iter().filter_map(name).collect()
    };
    assert_eq!(names(&world), names(&other));
}

#[test]
fn refused_machines_are_replaced_by_others() {
    let mut world = World::new(some_pods());
    world.sold_out.insert("m.4xlarge".into());
    world.settle();
    assert_eq!(world.waiting(), 0);
    assert!(world.alive().iter().all(|seen| seen.instance_type != "m.4xlarge"));
    world.check();
}

#[test]
fn a_newcomer_takes_room_that_is_there() {
    let mut world = World::new(vec![pod("db-1", 2_600, 4_000)]);
    world.settle();
    let before = world.launched;
    world.snapshot.pods.push(pod("web-1", 300, 500));
    world.settle();
    assert_eq!((world.launched, world.waiting()), (before, 0), "{:?}", world.snapshot.pods);
    assert_eq!(world.node_of("web-1"), world.node_of("db-1"));
}

#[test]
fn machines_go_with_the_last_of_their_pods() {
    let mut world = World::new(some_pods());
    world.settle();
    let home = world.node_of("web-3").to_owned();
    world.snapshot.pods.retain(|pod| pod.bound_to.as_ref() != Some(&home));
    world.settle();
    world.check();
    assert!(world.snapshot.nodes.iter().all(|node| node.name != home));
    world.snapshot.pods.iter_mut().for_each(|pod| pod.finished = true);
    world.settle();
    assert!(world.alive().is_empty() && world.snapshot.nodes.is_empty());
}

#[test]
fn pods_that_vanish_before_the_cloud_is_asked_cost_nothing() {
    let mut world = World::new(some_pods());
    for action in world.plan().actions {
        world.apply(&action);
    }
    world.snapshot.pods.clear();
    world.settle();
    assert_eq!(world.launched, 0);
}

#[test]
fn pods_leave_a_machine_that_will_be_taken_and_those_that_waited_get_another() {
    let mut world = World::new(some_pods());
    world.settle();
    let victim = world.alive()[0].id.clone();
    let node = format!("n-{}", victim.strip_prefix("i-").unwrap());
    let doomed: Vec<PodRef> = world.snapshot.pods.iter().filter(|pod| pod.bound_to.as_ref() == Some(&node)).map(|pod| pod.id.clone()).collect();
    let now = world.snapshot.now;
    for claim in &mut world.snapshot.claims {
        claim.status.instances.iter_mut().filter(|one| one.id == victim).for_each(|one| one.notice = Some(Notice { kind: NoticeKind::Interruption, at: now }));
    }
    let actions = world.plan().actions;
    let evicted: Vec<&PodRef> = actions.iter().filter_map(|action| if let Action::EvictPod { pod, .. } = action { Some(pod) } else { None }).collect();
    assert_eq!(evicted, doomed.iter().collect::<Vec<_>>());
    assert!(actions.iter().any(|action| matches!(action, Action::TaintNode { node: tainted, .. } if *tainted == node)));
    // Their owner makes new ones.
    actions.iter().for_each(|action| world.apply(action));
    world.snapshot.pods.extend((0..doomed.len()).map(|number| pod(&format!("again-{number}"), 900, 1_000)));
    world.end(&[victim], EndCause::Interrupted);
    world.settle();
    assert_eq!((world.waiting(), world.snapshot.pods.len()), (0, 12));
    world.check();
}

#[test]
fn nodes_that_are_smaller_than_promised_are_not_bought_for_ever() {
    let mut world = World::new(vec![pod("db-1", 1_000, 50_000)]);
    world.short_mib = 20_000;
    world.settle();
    assert_eq!((world.waiting(), world.launched), (1, 3));
    let alerts = world.plan().alerts.join("\n");
    assert!(alerts.contains("shop/db-1") && alerts.contains("less room"), "{alerts}");
    assert!(world.alive().is_empty(), "what was of no use is given back");
}

#[test]
fn who_must_not_be_together_is_not() {
    let apart = PodTerm { topology: Topology::Hostname, selector: Selector::labels([("app", "db")]), namespaces: BTreeSet::new() };
    let mut pods: Vec<PodView> = (0..4).map(|number| pod(&format!("db-{number}"), 500, 500)).collect();
    pods.iter_mut().for_each(|pod| pod.needs.as_mut().unwrap().anti_affinity.push(apart.clone()));
    let mut world = World::new(pods);
    world.settle();
    let nodes: BTreeSet<&str> = (0..4).map(|number| world.snapshot.pods[number].bound_to.as_deref().unwrap()).collect();
    assert_eq!(nodes.len(), 4);
}

/// Twelve pods, of which every third is left, on the nodes that were bought for all.
fn thinned_out() -> World {
    let mut world = World::new((0..12).map(|number| pod(&format!("web-{number}"), 1_700, 3_000)).collect());
    world.snapshot.pools[0].offers.retain(|quoted| quoted.machine.vcpu <= 4);
    world.settle();
    let mut number = 0;
    world.snapshot.pods.retain(|_| {
        number += 1;
        number % 2 == 0
    });
    world.settle();
    world.snapshot.pools[0].pods.as_mut().unwrap().repair = Some(RepairPolicy::default());
    world.snapshot.repair_due = true;
    world
}

/// Controllers make anew what was evicted.
fn remake(world: &mut World, evicted: &[Action], count: &mut usize) {
    for _ in evicted.iter().filter(|action| matches!(action, Action::EvictPod { .. })) {
        *count += 1;
        world.snapshot.pods.push(pod(&format!("again-{count}"), 1_700, 3_000));
    }
}

fn settle_with_controllers(world: &mut World) -> usize {
    let mut moved = 0;
    for _ in 0..40 {
        let actions = world.plan().actions;
        if actions.is_empty() {
            return moved;
        }
        actions.iter().for_each(|action| world.apply(action));
        remake(world, &actions, &mut moved);
    }
    panic!("it never comes to rest: {:?}", world.plan().actions);
}

fn price_of(world: &World) -> f64 {
    let price = |seen: &CloudInstance| world.snapshot.pools[0].offers.iter().find(|quoted| quoted.offer.instance_type == seen.instance_type).unwrap().offer.price;
    world.alive().into_iter().map(|seen| price(seen).per_hour().approximate()).sum()
}

#[test]
fn a_fleet_that_was_thinned_out_is_made_cheaper_and_comes_to_rest() {
    let mut world = thinned_out();
    let before = price_of(&world);
    let moved = settle_with_controllers(&mut world);
    assert!(moved > 0 && price_of(&world) < before, "{moved} moves, {before} $/h before, {} after", price_of(&world));
    assert_eq!((world.waiting(), world.snapshot.pods.len()), (0, 6));
    world.check();
}

#[test]
fn nobody_is_moved_who_must_stay_or_whose_budget_is_spent_or_while_others_wait() {
    let mut world = thinned_out();
    world.snapshot.pods.iter_mut().for_each(|pod| pod.move_loses = None);
    assert!(world.plan().actions.is_empty());

    let mut world = thinned_out();
    world.snapshot.disruption_budgets.push(DisruptionBudget { namespace: "shop".into(), selector: Selector::labels([("app", "web")]), left: 0 });
    assert!(world.plan().actions.is_empty());

    let mut world = thinned_out();
    let mut newcomer = pod("late-1", 100, 100);
    newcomer.created_at_real = noon();
    world.snapshot.pods.push(newcomer);
    assert!(world.plan().actions.is_empty(), "one who has just come may need the room");

    let mut world = thinned_out();
    world.snapshot.pods.iter_mut().for_each(|pod| pod.move_loses = Some(Span::hours(20)));
    assert!(world.plan().actions.is_empty(), "moving loses more than is saved");
}

#[test]
fn many_names_are_told_shortly() {
    let names: Vec<String> = (1..=5).map(|number| format!("p{number}")).collect();
    assert_eq!(purchase::some_of(&names), "pods p1, p2, p3 and 2 more");
    assert_eq!(purchase::some_of(&names[..2]), "pods p1, p2");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn whatever_comes_and_goes_everybody_has_a_place_and_nothing_stands_idle(
        sizes in prop::collection::vec((100u64..6_000, 100u64..24_000), 1..40),
        gone in prop::collection::vec(any::<bool>(), 40),
    ) {
        let pods = sizes.iter().enumerate().map(|(number, (cpu, memory))| pod(&format!("p-{number}"), *cpu, *memory)).collect();
        let mut world = World::new(pods);
        world.settle();
        prop_assert_eq!(world.waiting(), 0);
        world.check();
        let mut gone = gone.into_iter();
        world.snapshot.pods.retain(|_| !gone.next().unwrap_or(false));
        world.settle();
        world.check();
    }
}
