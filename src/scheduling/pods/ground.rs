//! What stands: the machines that were bought for pods, who is on them, and who has a seat on one that is still to come.

use std::collections::BTreeMap;

use super::HOSTNAME;
use crate::capacity::{Claim, ClaimPhase, PodRef, Serves};
use crate::scheduling::lifecycle::{JOIN_TIMEOUT, JOIN_TIMEOUT_REAL};
use crate::scheduling::machines::{Fleet, Machine};
use crate::scheduling::packing::{Pod, Resources};
use crate::scheduling::snapshot::{NodeView, PodView, Snapshot};

/// Where a held-back pod will go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seat<'a> {
    pub claim: &'a Claim,
    /// Absent while the cloud was not asked.
    pub machine: Option<&'a Machine>,
}

pub struct Ground<'a> {
    pub snapshot: &'a Snapshot,
    pub fleet: &'a Fleet,
    pods: BTreeMap<&'a str, &'a PodView>,
    nodes: BTreeMap<&'a str, &'a NodeView>,
    /// Pods that are bound or pinned to a node and not finished, by node.
    on_node: BTreeMap<&'a str, Vec<&'a PodView>>,
    /// By pod UID; only of pods that are held back.
    seats: BTreeMap<&'a str, Seat<'a>>,
    /// Held-back pods with a seat on a node that is there.
    expected: BTreeMap<&'a str, Vec<&'a PodView>>,
}

impl<'a> Ground<'a> {
    pub fn of(snapshot: &'a Snapshot, fleet: &'a Fleet) -> Ground<'a> {
        let nodes: BTreeMap<&str, &NodeView> = snapshot.nodes.iter().map(|node| (node.name.as_str(), node)).collect();
        let mut ground = Ground {
            snapshot,
            fleet,
            pods: snapshot.pods.iter().map(|pod| (pod.id.uid.as_str(), pod)).collect(),
            on_node: on_node(snapshot, &nodes),
            nodes,
            seats: BTreeMap::new(),
            expected: BTreeMap::new(),
        };
        for claim in &snapshot.claims {
            ground.seat(claim);
        }
        ground
    }

    fn seat(&mut self, claim: &'a Claim) {
        let Serves::Pods(slots) = claim.record.serves() else { return };
        let machines = self.fleet.machines(&claim.name);
        for (index, slot) in slots.iter().enumerate() {
            let machine = match claim.status.phase {
                ClaimPhase::Written => None,
                ClaimPhase::Granted => match machines.get(index).filter(|machine| self.is_promising(claim, machine)) {
                    Some(machine) => Some(machine),
                    None => continue,
                },
                ClaimPhase::Refused | ClaimPhase::Ended => continue,
            };
            let node = machine.and_then(|machine| self.joined_node(machine));
            let mut room = node.map(|node| self.room(node));
            let held_back: Vec<&PodView> = slot.pods.iter().filter_map(|pod| self.held_back(pod)).collect();
            for pod in held_back {
                let Ok(needs) = &pod.needs else { continue };
                // A node may turn out smaller than its type promised.
                if room.as_mut().is_none_or(|room| room.take(needs)) {
                    self.seats.insert(&pod.id.uid, Seat { claim, machine });
                    self.expected.entry(node.map_or("", |node| &node.name)).or_default().push(pod);
                }
            }
        }
    }

    /// It is there, or may still come, and neither is it drained nor will anything take it away that is known of.
    pub fn is_promising(&self, claim: &Claim, machine: &Machine) -> bool {
        let drained = self.joined_node(machine).is_some_and(|node| node.leaving_taint);
        machine.is_open() && machine.loss().is_none() && !drained && (machine.joined || !self.is_overdue(claim, machine))
    }

    pub fn is_overdue(&self, claim: &Claim, machine: &Machine) -> bool {
        let (market, real) = (self.snapshot.now - machine.record.launched_at, self.snapshot.real_now - claim.written_at_real);
        !machine.joined && market >= JOIN_TIMEOUT && real >= JOIN_TIMEOUT_REAL
    }

    /// The pod, if it is still the same one, waits, and is not being deleted.
    pub fn held_back(&self, pod: &PodRef) -> Option<&'a PodView> {
        self.pods.get(pod.uid.as_str()).copied().filter(|view| view.is_held_back())
    }

    pub fn pod(&self, pod: &PodRef) -> Option<&'a PodView> {
        self.pods.get(pod.uid.as_str()).copied()
    }

    pub fn seat_of(&self, pod: &PodView) -> Option<Seat<'a>> {
        self.seats.get(pod.id.uid.as_str()).copied()
    }

    /// Pods that wait for a machine nobody has bought yet.
    pub fn unseated(&self, pool: &str) -> Vec<&'a PodView> {
        let waits = |pod: &&PodView| pod.pool == pool && pod.is_held_back() && self.seat_of(pod).is_none();
        self.snapshot.pods.iter().filter(waits).collect()
    }

    pub fn joined_node(&self, machine: &Machine) -> Option<&'a NodeView> {
        let node = machine.node.as_deref().filter(|_| machine.joined)?;
        self.nodes.get(node).copied()
    }

    /// Pods that are bound or pinned to the node.
    pub fn on(&self, node: &str) -> &[&'a PodView] {
        self.on_node.get(node).map_or(&[], Vec::as_slice)
    }

    /// Pods that are held back and will be let go to the node.
    pub fn expected_on(&self, node: &str) -> &[&'a PodView] {
        self.expected.get(node).map_or(&[], Vec::as_slice)
    }

    /// What is left on a node beside the pods that are on it.
    pub fn room(&self, node: &NodeView) -> Room {
        let mut room = Room { free: node.room.clone().map(|room| room.allocatable), pods: node.room.as_ref().map_or(u32::MAX, |room| room.pods_max) };
        for pod in self.on(&node.name) {
            if let Ok(needs) = &pod.needs {
                room.take_anyway(needs);
            }
        }
        room
    }
}

/// Room on a node; `free` is absent where the node does not say what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    pub free: Option<Resources>,
    pub pods: u32,
}

impl Room {
    /// Whether the pod still fits; then its room is taken.
    pub fn take(&mut self, pod: &Pod) -> bool {
        let fits = self.pods > 0 && self.free.as_ref().is_none_or(|free| pod.requests.fits_in(free));
        if fits {
            self.take_anyway(pod);
        }
        fits
    }

    fn take_anyway(&mut self, pod: &Pod) {
        self.free = self.free.as_ref().map(|free| free.minus(&pod.requests));
        self.pods = self.pods.saturating_sub(1);
    }
}

fn on_node<'a>(snapshot: &'a Snapshot, nodes: &BTreeMap<&'a str, &'a NodeView>) -> BTreeMap<&'a str, Vec<&'a PodView>> {
    let by_hostname: BTreeMap<&str, &str> = nodes.values().map(|node| (hostname(node), node.name.as_str())).collect();
    let mut on_node: BTreeMap<&str, Vec<&PodView>> = BTreeMap::new();
    for pod in snapshot.pods.iter().filter(|pod| !pod.finished && !pod.gated) {
        let pinned = || by_hostname.get(pod.pinned_to.as_deref()?).copied();
        if let Some(node) = pod.bound_to.as_deref().or_else(pinned) {
            on_node.entry(node).or_default().push(pod);
        }
    }
    on_node
}

/// Mostly, but not on every cloud, the node's name.
pub fn hostname(node: &NodeView) -> &str {
    node.labels.get(HOSTNAME).unwrap_or(&node.name)
}
