//! One claim for pods: asked for while anybody wants it, its pods let go when a machine has joined, each machine given back
//! when nobody is or will be on it.

use super::ground::{Ground, hostname};
use crate::capacity::{Claim, ClaimPhase, NoticeKind, PodRef, Serves, Slot};
use crate::scheduling::Action;
use crate::scheduling::machines::Machine;
use crate::scheduling::snapshot::PodView;

pub fn advance(ground: &Ground<'_>, claim: &Claim) -> Vec<Action> {
    let Serves::Pods(slots) = claim.record.serves() else { return Vec::new() };
    match claim.status.phase {
        ClaimPhase::Written => vec![ask(ground, claim, slots)],
        ClaimPhase::Granted => granted(ground, claim, slots),
        ClaimPhase::Refused | ClaimPhase::Ended => give_back_all(ground, claim),
    }
}

fn ask(ground: &Ground<'_>, claim: &Claim, slots: &[Slot]) -> Action {
    let (claim, uid) = (claim.name.clone(), claim.uid.clone());
    let wanted = slots.iter().flat_map(|slot| &slot.pods).any(|pod| ground.held_back(pod).is_some());
    match wanted {
        true => Action::AskCloud { claim, uid },
        false => Action::WithdrawClaim { claim, uid, because: "its pods are gone".to_owned() },
    }
}

fn granted(ground: &Ground<'_>, claim: &Claim, slots: &[Slot]) -> Vec<Action> {
    let mut actions = Vec::new();
    let releasable = ground.fleet.releasable(&claim.name);
    let mut unwanted: Vec<(String, String)> = Vec::new();
    for (index, machine) in ground.fleet.machines(&claim.name).iter().enumerate().filter(|(_, machine)| machine.is_open()) {
        let pods = slots.get(index).map_or(&[][..], |slot| &slot.pods);
        if ground.is_promising(claim, machine) {
            actions.extend(let_go(ground, claim, machine, pods));
        } else {
            actions.extend(clear(ground, machine));
        }
        if let Some(because) = unwanted_because(ground, claim, machine, pods).filter(|_| releasable.contains(&machine.record.id)) {
            unwanted.push((machine.record.id.clone(), because));
        }
    }
    if let Some((_, because)) = unwanted.first() {
        let (because, instances) = (because.clone(), unwanted.into_iter().map(|(id, _)| id).collect());
        actions.push(Action::Release { claim: claim.name.clone(), uid: claim.uid.clone(), instances, because });
    }
    actions
}

/// The slot's pods that have their seat here, once the node is there.
fn let_go(ground: &Ground<'_>, claim: &Claim, machine: &Machine, pods: &[PodRef]) -> Vec<Action> {
    let Some(node) = ground.joined_node(machine).filter(|node| !node.leaving_taint) else { return Vec::new() };
    let has_seat_here = |pod: &&PodView| ground.seat_of(pod).is_some_and(|seat| seat.claim.uid == claim.uid && seat.machine == Some(machine));
    let placed = |pod: &PodView| Action::PlacePod { pod: pod.id.clone(), claim: claim.name.clone(), node: node.name.clone(), hostname: hostname(node).to_owned() };
    pods.iter().filter_map(|pod| ground.held_back(pod)).filter(has_seat_here).map(placed).collect()
}

/// A machine that is going away or drained: no new pod, and those on it leave with their own grace.
fn clear(ground: &Ground<'_>, machine: &Machine) -> Vec<Action> {
    let Some(node) = ground.joined_node(machine) else { return Vec::new() };
    let because = machine.loss().unwrap_or_else(|| "a cheaper fleet does without its node".to_owned());
    let taint = (!node.leaving_taint).then(|| Action::TaintNode { node: node.name.clone(), because: because.clone() });
    let stays = ground.on(&node.name).iter().filter(|pod| !pod.deleting);
    let evict = |pod: &&PodView| Action::EvictPod { pod: pod.id.clone(), node: node.name.clone(), because: because.clone() };
    taint.into_iter().chain(stays.map(evict)).collect()
}

/// Why the machine should end, if it should.
fn unwanted_because(ground: &Ground<'_>, claim: &Claim, machine: &Machine, pods: &[PodRef]) -> Option<String> {
    if machine.node_lost {
        return Some(format!("the node of {} has gone", machine.record.id));
    }
    if ground.is_overdue(claim, machine) {
        return Some("it did not join the cluster in time".to_owned());
    }
    if machine.node.as_deref().is_some_and(|node| !ground.on(node).is_empty()) {
        return None;
    }
    let expected = pods.iter().filter_map(|pod| ground.held_back(pod)).any(|pod| ground.seat_of(pod).is_some_and(|seat| seat.machine == Some(machine)));
    let noticed = machine.record.notice.as_ref().is_some_and(|notice| notice.kind == NoticeKind::Interruption);
    match (expected, noticed) {
        (true, _) => None,
        (false, true) => Some("it is about to be interrupted, and nobody is on it".to_owned()),
        (false, false) => Some("its pods are gone".to_owned()),
    }
}

/// Machines of a partial or a late answer.
fn give_back_all(ground: &Ground<'_>, claim: &Claim) -> Vec<Action> {
    let instances = ground.fleet.releasable(&claim.name);
    let because = "the claim was refused".to_owned();
    if instances.is_empty() { Vec::new() } else { vec![Action::Release { claim: claim.name.clone(), uid: claim.uid.clone(), instances, because }] }
}
