//! Pods that nobody has bought a machine for: first onto room that is there, the rest onto the cheapest fleet to be had.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;

use super::Turn;
use super::ground::{Ground, hostname};
use crate::capacity::claim::{fleet_of, pods_claim_name};
use crate::capacity::offer::QuotedOffer;
use crate::capacity::{Claim, ClaimPhase, ClaimRecord, InstanceType, PodsPolicy, Provider, Slot};
use crate::scheduling::Action;
use crate::scheduling::packing::{self, Effort, ExistingNode, FleetPlan, NodeOffer, PackingProblem, Pod, Resources};
use crate::scheduling::placement::request_text;
use crate::scheduling::refusals::Refusals;
use crate::scheduling::snapshot::{NodeView, PodView, PoolView};
use crate::scheduling::supply::Supply;

/// A claim is all or nothing and one object: more machines are asked for in several.
const CLAIM_MACHINES_MAX: usize = 100;
const CLAIM_PODS_MAX: usize = 2_000;
/// A pod that waited so many times the longest batch was planned before; it does not hurry others.
const PLANNED_BEFORE: i32 = 3;
/// Machines that are bought for one pod, as long as their claims are remembered: something else is wrong then.
const BOUGHT_MAX: u32 = 3;
/// Work units for each pair of pods: a batch of 250 gets the whole effort of a cycle.
const EFFORT_OF_A_PAIR: u64 = 5_000;
/// So many times what all pods ask for together is more than any sensible fleet has.
const FAR_AWAY: u64 = 4;
const MIB: u64 = 1024 * 1024;
const GPU: &str = "nvidia.com/gpu";
/// Names told of many.
const NAMES_SHOWN: usize = 3;

pub fn plan(ground: &Ground<'_>, pool: &PoolView, refusals: &Refusals<'_>, supply: &mut Supply<'_>, turn: &mut Turn) {
    let Some(policy) = &pool.pods else { return };
    let waiting = ground.unseated(&pool.name);
    let (waiting, broken): (Vec<&PodView>, Vec<&PodView>) = waiting.into_iter().partition(|pod| pod.needs.is_ok());
    turn.alerts.extend(broken.iter().filter_map(|pod| Some(format!("pod {} waits: {}", pod.id, pod.needs.as_ref().err()?))));
    let bought = bought_for(&ground.snapshot.claims);
    let is_hopeless = |pod: &&PodView| bought.get(pod.id.uid.as_str()).is_some_and(|times| *times >= BOUGHT_MAX);
    let (hopeless, waiting): (Vec<&PodView>, Vec<&PodView>) = waiting.into_iter().partition(is_hopeless);
    if !hopeless.is_empty() {
        let names: Vec<String> = hopeless.iter().map(|pod| pod.id.to_string()).collect();
        turn.alerts.push(format!(
            "{BOUGHT_MAX} machines each were bought for {} of pool {}, and none could take them; no more are bought for now. Do nodes have less room than their type promises?",
            some_of(&names),
            pool.name
        ));
    }
    if !is_settled(ground, policy, &waiting) {
        return;
    }
    if let Some(message) = refusals.rejected(pool, &fleet_of(&pool.name), 0) {
        turn.alerts.push(format!("{} pods of pool {} wait: the cloud calls the pool's request wrong: {message}", waiting.len(), pool.name));
        return;
    }
    let purchase = Purchase::new(ground, pool, policy, waiting, refusals, supply);
    let fleet = packing::pack(&purchase.problem, effort_for(purchase.waiting.len()));
    turn.alerts.extend(purchase.unplaced(&fleet));
    turn.actions.extend(purchase.onto_standing(&fleet));
    let claims = purchase.claims(&fleet, supply.left_in_pool(pool));
    for (name, record) in claims {
        supply.take(&record);
        turn.actions.push(Action::WriteClaim { name, record });
    }
}

/// A few pods need little thought, many are worth all that a cycle has.
fn effort_for(pods: usize) -> Effort {
    let pods = pods as u64;
    Effort(pods.saturating_mul(pods).saturating_mul(EFFORT_OF_A_PAIR)).min(Effort::CYCLE)
}

/// Nobody new for a while, or somebody has waited long enough for others.
fn is_settled(ground: &Ground<'_>, policy: &PodsPolicy, waiting: &[&PodView]) -> bool {
    let age = |pod: &&PodView| ground.snapshot.real_now - pod.created_at_real;
    let (idle, most) = (policy.batch_idle.delta(), policy.batch_max.delta().max(TimeDelta::seconds(1)));
    let Some(youngest) = waiting.iter().map(age).min() else { return false };
    youngest >= idle || waiting.iter().map(age).any(|age| age >= most && age < most * PLANNED_BEFORE)
}

/// One batch of one pool.
pub struct Purchase<'a> {
    pub ground: &'a Ground<'a>,
    pool: &'a PoolView,
    waiting: Vec<&'a PodView>,
    /// As `problem.existing`.
    pub standing: Vec<(&'a Claim, &'a NodeView)>,
    /// As `problem.offers`.
    offers: Vec<&'a QuotedOffer>,
    /// How many of each can be had, where that is known.
    most: Vec<Option<u32>>,
    pub problem: PackingProblem,
}

impl<'a> Purchase<'a> {
    pub fn new(ground: &'a Ground<'a>, pool: &'a PoolView, policy: &PodsPolicy, waiting: Vec<&'a PodView>, refusals: &Refusals<'_>, supply: &Supply<'_>) -> Purchase<'a> {
        let standing = standing(ground, &pool.name);
        let now = ground.snapshot.now;
        let is_to_be_had = |quoted: &&QuotedOffer| {
            let offer = &quoted.offer;
            policy.capacity_kinds.contains(&offer.kind)
                && pool.requirements.admits(&quoted.machine)
                && pool.requirements.admits_zone(&offer.zone)
                && refusals.avoided(&pool.name, offer, u32::MAX, now, false).is_none()
        };
        let usable = pool.state.is_ok() && pool.provider == Provider::Aws && supply.left_in_pool(pool) != Some(0);
        let offers: Vec<&QuotedOffer> = pool.offers.iter().filter(|_| usable).filter(is_to_be_had).collect();
        let pods: Vec<Pod> = waiting.iter().filter_map(|pod| pod.needs.clone().ok()).collect();
        let demand = pods.iter().fold(Resources::default(), |sum, pod| sum.plus(&pod.requests));
        let most: Vec<Option<u32>> = offers.iter().map(|quoted| supply.available(pool, quoted).map(|(most, _)| most)).collect();
        let bounded = |(quoted, most): (&&QuotedOffer, &Option<u32>)| {
            let offer = node_offer(pool, quoted, policy);
            let count_max = most.filter(|most| is_near(*most, &offer.allocatable, &demand, pods.len()));
            NodeOffer { count_max, ..offer }
        };
        let problem = PackingProblem {
            existing: standing.iter().map(|(_, node)| existing(ground, node, policy)).collect(),
            offers: offers.iter().zip(&most).map(bounded).collect(),
            pods,
            node_charge: policy.node_charge,
        };
        Purchase { ground, pool, waiting, standing, offers, most, problem }
    }

    fn onto_standing(&self, fleet: &FleetPlan) -> Vec<Action> {
        let placed = |(pod, node): &(usize, usize)| {
            let (claim, view) = self.standing[*node];
            let pod = self.waiting[*pod].id.clone();
            Action::PlacePod { pod, claim: claim.name.clone(), node: view.name.clone(), hostname: hostname(view).to_owned() }
        };
        fleet.on_existing.iter().map(placed).collect()
    }

    /// One claim for each offer (several where it would be too large), as many machines as the pool may have.
    fn claims(&self, fleet: &FleetPlan, most: Option<u32>) -> Vec<(String, ClaimRecord)> {
        let mut by_offer: BTreeMap<usize, Vec<Slot>> = BTreeMap::new();
        for node in fleet.nodes.iter().take(most.map_or(usize::MAX, |most| most as usize)) {
            let pods = node.pods.iter().map(|pod| self.waiting[*pod].id.clone()).collect();
            let slots = by_offer.entry(node.offer).or_default();
            if self.most[node.offer].is_none_or(|most| slots.len() < most as usize) {
                slots.push(Slot { pods });
            }
        }
        let chunked = by_offer.into_iter().flat_map(|(offer, slots)| chunks(slots).into_iter().map(move |slots| (offer, slots)));
        chunked.map(|(offer, slots)| self.claim(self.offers[offer], slots)).collect()
    }

    fn claim(&self, quoted: &QuotedOffer, slots: Vec<Slot>) -> (String, ClaimRecord) {
        let ask = ask_of(&self.ground.snapshot.claims, &slots);
        let name = pods_claim_name(&slots, ask);
        let mut record = ClaimRecord {
            job: fleet_of(&self.pool.name),
            generation: 0,
            experiment: self.pool.name.clone(),
            team: None,
            attempt: 1,
            ask,
            pool: self.pool.name.clone(),
            offer: quoted.offer.clone(),
            count: u32::try_from(slots.len()).unwrap_or(u32::MAX),
            decided_at: self.ground.snapshot.now,
            nodes: Vec::new(),
            slots,
            request: String::new(),
        };
        record.request = request_text(&self.pool.request_template, &record, &name);
        (name, record)
    }

    /// One line for each reason.
    fn unplaced(&self, fleet: &FleetPlan) -> Vec<String> {
        let mut by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (pod, why) in &fleet.unplaced {
            by_reason.entry(why.to_string()).or_default().push(self.waiting[*pod].id.to_string());
        }
        by_reason.into_iter().map(|(why, pods)| format!("{} of pool {} wait: {why}", some_of(&pods), self.pool.name)).collect()
    }
}

/// `pods a, b, c and 4 more`.
pub fn some_of(pods: &[String]) -> String {
    let more = pods.len().saturating_sub(NAMES_SHOWN);
    let names = pods[..pods.len() - more].join(", ");
    if more > 0 { format!("pods {names} and {more} more") } else { format!("pods {names}") }
}

/// How often machines were asked for any of these pods, this time included.
pub fn ask_of(claims: &[Claim], slots: &[Slot]) -> u32 {
    let uids: BTreeSet<&str> = slots.iter().flat_map(|slot| &slot.pods).map(|pod| pod.uid.as_str()).collect();
    let concerns = |claim: &&Claim| claim.record.slots.iter().flat_map(|slot| &slot.pods).any(|pod| uids.contains(pod.uid.as_str()));
    1 + u32::try_from(claims.iter().filter(concerns).count()).unwrap_or(u32::MAX - 1)
}

/// How often a machine was really had for a pod, by UID.
fn bought_for(claims: &[Claim]) -> BTreeMap<&str, u32> {
    let mut bought = BTreeMap::new();
    let had = claims.iter().filter(|claim| matches!(claim.status.phase, ClaimPhase::Granted | ClaimPhase::Ended));
    for pod in had.flat_map(|claim| &claim.record.slots).flat_map(|slot| &slot.pods) {
        *bought.entry(pod.uid.as_str()).or_default() += 1;
    }
    bought
}

fn chunks(slots: Vec<Slot>) -> Vec<Vec<Slot>> {
    let mut chunks: Vec<Vec<Slot>> = Vec::new();
    let mut pods = 0;
    for slot in slots {
        pods += slot.pods.len();
        match chunks.last_mut().filter(|chunk| chunk.len() < CLAIM_MACHINES_MAX && pods <= CLAIM_PODS_MAX) {
            Some(chunk) => chunk.push(slot),
            None => {
                pods = slot.pods.len();
                chunks.push(vec![slot]);
            }
        }
    }
    chunks
}

/// Nodes of the pool's own machines that are there to stay.
fn standing<'a>(ground: &Ground<'a>, pool: &str) -> Vec<(&'a Claim, &'a NodeView)> {
    let of_pool = ground.snapshot.claims.iter().filter(|claim| claim.record.is_for_pods() && claim.record.pool == pool && claim.is_granted());
    of_pool
        .flat_map(|claim| {
            let machines = ground.fleet.machines(&claim.name).iter().filter(|machine| ground.is_promising(claim, machine));
            machines.filter_map(|machine| ground.joined_node(machine)).filter(|node| node.schedulable && !node.leaving_taint).map(move |node| (claim, node))
        })
        .collect()
}

fn existing(ground: &Ground<'_>, node: &NodeView, policy: &PodsPolicy) -> ExistingNode {
    let mut room = ground.room(node);
    for pod in ground.expected_on(&node.name) {
        if let Ok(needs) = &pod.needs {
            room.take(needs);
        }
    }
    let residents = ground.on(&node.name).iter().chain(ground.expected_on(&node.name));
    let residents = residents.filter_map(|pod| pod.needs.as_ref().ok()).map(Pod::resident).collect();
    ExistingNode {
        name: node.name.clone(),
        zone: node.labels.get("topology.kubernetes.io/zone").cloned().unwrap_or_default(),
        free: room.free.unwrap_or_default().minus(&reserved(policy)),
        pods_free: room.pods,
        labels: node.labels.clone(),
        taints: node.room.as_ref().map(|room| room.taints.clone()).unwrap_or_default(),
        residents,
    }
}

pub fn reserved(policy: &PodsPolicy) -> Resources {
    Resources { cpu_milli: policy.reserved_cpu_milli.into(), memory_bytes: u64::from(policy.reserved_memory_mib) * MIB, extended: BTreeMap::new() }
}

/// What pods can have of a machine under a pool's policy.
pub fn offered(machine: &InstanceType, policy: &PodsPolicy) -> (Resources, u32) {
    let has = machine.allocatable();
    let gpus = (has.gpus > 0).then(|| (GPU.to_owned(), u64::from(has.gpus)));
    let whole = Resources { cpu_milli: has.cpu_milli, memory_bytes: has.memory_mib * MIB, extended: gpus.into_iter().collect() };
    (whole.minus(&reserved(policy)), has.pods)
}

/// Whether a bound may matter. One that is far away is not told to the packer: bounds keep it from seeing that one type is
/// better than another in every way.
fn is_near(most: u32, machine: &Resources, demand: &Resources, pods: usize) -> bool {
    let times = |amount: u64| amount.saturating_mul(u64::from(most) / FAR_AWAY);
    let all = Resources {
        cpu_milli: times(machine.cpu_milli),
        memory_bytes: times(machine.memory_bytes),
        extended: machine.extended.iter().map(|(name, amount)| (name.clone(), times(*amount))).collect(),
    };
    let relevant = Resources { extended: demand.extended.iter().filter(|(name, _)| machine.extended.contains_key(*name)).map(|(name, amount)| (name.clone(), *amount)).collect(), ..demand.clone() };
    (most as usize) < pods && !relevant.fits_in(&all)
}

fn node_offer(pool: &PoolView, quoted: &QuotedOffer, policy: &PodsPolicy) -> NodeOffer {
    let (allocatable, pods_max) = offered(&quoted.machine, policy);
    let labels = [("kubernetes.io/arch", &quoted.machine.architecture), ("purser.dev/pool", &pool.name)];
    NodeOffer {
        offer: quoted.offer.clone(),
        allocatable,
        pods_max,
        labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value.clone())).collect(),
        taints: Vec::new(),
        count_max: None,
    }
}
