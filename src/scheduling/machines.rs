//! What has become of the machines of every claim: the claim's record brought up to date with what the clouds and the
//! cluster say now. Everything else decides on this view, and what changed materially is recorded.
//!
//! Few writes: "seen alive" moves only when a clock hour has passed, because metering closes hours.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::Action;
use super::snapshot::{CloudInstance, InstanceState, NodeView, Observed, Snapshot};
use crate::capacity::billing::hour_of;
use crate::capacity::{Claim, ClaimPhase, ClaimedInstance, End, EndCause, Notice, NoticeKind, Provider};

/// The message that a machine has ended normally arrives within seconds; after this market time without one, the end is
/// estimated. (A start that nobody told is metering's to guess and to mend.)
const EVENT_LAG: TimeDelta = TimeDelta::minutes(10);
/// A launched machine may be missing from the cloud's list for a while (eventual consistency).
const LIST_LAG: TimeDelta = TimeDelta::minutes(10);
/// The same in real time since the claim was written: however fast the market runs, the cloud answers in real time.
const LIST_LAG_REAL: TimeDelta = TimeDelta::seconds(60);
/// A machine that still runs so long after it was asked to end is asked again.
const RELEASE_REPEAT: TimeDelta = TimeDelta::minutes(5);

/// One machine of a claim as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    pub record: ClaimedInstance,
    /// Its node exists, adopted or not.
    pub node: Option<String>,
    /// Its node is there and belongs to the claim.
    pub joined: bool,
    /// Its node is ready and waits to be adopted.
    adoptable: bool,
    /// It was adopted once and its node has vanished.
    pub node_lost: bool,
    /// The cloud says that it does not run any more.
    pub gone: bool,
    /// It should be asked to end (again).
    release_due: bool,
}

impl Machine {
    pub fn is_open(&self) -> bool {
        self.record.end.is_none()
    }

    /// No new work here, and what runs here will stop: why, in words.
    pub fn loss(&self) -> Option<String> {
        let id = &self.record.id;
        match (&self.record.notice, &self.record.end) {
            (_, Some(end)) if end.cause == EndCause::Interrupted => Some(format!("{id} was interrupted at {}", end.at)),
            (_, Some(end)) => Some(format!("{id} ended at {}", end.at)),
            (Some(notice), None) if notice.kind == NoticeKind::Interruption => {
                Some(format!("{id} got its interruption notice at {}", notice.at))
            }
            _ if self.gone => Some(format!("{id} does not run any more")),
            _ if self.node_lost => Some(format!("the node of {id} has gone")),
            _ if self.record.release_asked_at.is_some() => Some(format!("{id} is being given back")),
            _ => None,
        }
    }
}

/// All machines by claim name.
pub struct Fleet {
    machines: BTreeMap<String, Vec<Machine>>,
}

impl Fleet {
    pub fn of(snapshot: &Snapshot) -> Fleet {
        let look = Look::new(snapshot);
        Fleet { machines: snapshot.claims.iter().map(|claim| (claim.name.clone(), look.machines_of(claim))).collect() }
    }

    pub fn machines(&self, claim: &str) -> &[Machine] {
        self.machines.get(claim).map_or(&[], Vec::as_slice)
    }

    pub fn open(&self, claim: &str) -> impl Iterator<Item = &Machine> {
        self.machines(claim).iter().filter(|machine| machine.is_open())
    }

    pub fn open_count(&self, claim: &str) -> u32 {
        u32::try_from(self.open(claim).count()).unwrap_or(u32::MAX)
    }

    /// Ids of this claim's machines that should be ended and were not asked to, or too long ago.
    pub fn releasable(&self, claim: &str) -> Vec<String> {
        self.open(claim).filter(|machine| machine.release_due).map(|machine| machine.record.id.clone()).collect()
    }
}

/// Records, adoptions and removals that follow from what was seen, whatever the jobs want.
pub fn follow(snapshot: &Snapshot, fleet: &Fleet) -> Vec<Action> {
    let mut actions = Vec::new();
    for claim in &snapshot.claims {
        let machines = fleet.machines(&claim.name);
        actions.extend(record(claim, machines));
        actions.extend(adopt(claim, machines));
    }
    actions.extend(remove_nodes(snapshot, fleet));
    actions
}

fn record(claim: &Claim, machines: &[Machine]) -> Option<Action> {
    let instances: Vec<ClaimedInstance> = machines.iter().map(|machine| machine.record.clone()).collect();
    let ended = claim.is_granted() && instances.iter().all(|instance| instance.end.is_some());
    (instances != claim.status.instances || ended).then(|| Action::RecordInstances {
        claim: claim.name.clone(),
        uid: claim.uid.clone(),
        instances,
        ended,
    })
}

fn adopt(claim: &Claim, machines: &[Machine]) -> Vec<Action> {
    let due = machines.iter().filter(|machine| claim.is_granted() && machine.adoptable && machine.loss().is_none());
    due.filter_map(|machine| {
        Some(Action::AdoptNode {
            claim: claim.name.clone(),
            uid: claim.uid.clone(),
            node: machine.node.clone()?,
            instance: machine.record.id.clone(),
        })
    })
    .collect()
}

/// Node objects of machines that have ended: by a claim's record, or by the cloud's word where no claim is left.
fn remove_nodes(snapshot: &Snapshot, fleet: &Fleet) -> Vec<Action> {
    let on_cloud = snapshot.claims.iter().filter(|claim| claim.record.offer.provider == Provider::Aws);
    let recorded = on_cloud
        .flat_map(|claim| fleet.machines(&claim.name))
        .filter(|machine| !machine.is_open())
        .map(|machine| machine.record.id.as_str());
    let listed = snapshot.instances.known().map_or(&[][..], Vec::as_slice).iter();
    let told = listed.filter(|instance| instance.state == InstanceState::Terminated).map(|instance| instance.id.as_str());
    let ended: BTreeSet<&str> = recorded.chain(told).collect();
    let removal = |node: &NodeView| {
        let id = machine_id(node).filter(|id| ended.contains(id))?;
        Some(Action::RemoveNode { node: node.name.clone(), instance: id.to_owned() })
    };
    snapshot.nodes.iter().filter_map(removal).collect()
}

/// What was seen, indexed.
struct Look<'a> {
    snapshot: &'a Snapshot,
    /// `None`: the clouds were not (all) asked.
    instances: Option<BTreeMap<&'a str, &'a CloudInstance>>,
    by_claim: BTreeMap<&'a str, Vec<&'a CloudInstance>>,
    by_token: BTreeMap<&'a str, Vec<&'a CloudInstance>>,
    /// By name and by whole providerID, the two ids that machines of provider `nodes` go by.
    nodes: BTreeMap<&'a str, &'a NodeView>,
    nodes_by_machine: BTreeMap<&'a str, &'a NodeView>,
    nodes_by_claim: BTreeMap<&'a str, Vec<&'a NodeView>>,
}

impl<'a> Look<'a> {
    fn new(snapshot: &'a Snapshot) -> Look<'a> {
        let listed: &[CloudInstance] = snapshot.instances.known().map_or(&[], Vec::as_slice);
        let (mut by_claim, mut by_token) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
        for instance in listed {
            if let Some(claim) = &instance.claim {
                by_claim.entry(claim.as_str()).or_default().push(instance);
            }
            if let Some(token) = &instance.client_token {
                by_token.entry(token.as_str()).or_default().push(instance);
            }
        }
        let mut nodes_by_claim = BTreeMap::<_, Vec<_>>::new();
        for node in &snapshot.nodes {
            if let Some(claim) = &node.claim {
                nodes_by_claim.entry(claim.as_str()).or_default().push(node);
            }
        }
        let known = matches!(snapshot.instances, Observed::Known(_));
        Look {
            snapshot,
            instances: known.then(|| listed.iter().map(|instance| (instance.id.as_str(), instance)).collect()),
            by_claim,
            by_token,
            nodes: snapshot.nodes.iter().flat_map(|node| names_of(node).map(move |name| (name, node))).collect(),
            nodes_by_claim,
            nodes_by_machine: snapshot.nodes.iter().filter_map(|node| Some((machine_id(node)?, node))).collect(),
        }
    }

    fn machines_of(&self, claim: &Claim) -> Vec<Machine> {
        let recorded = claim.status.instances.iter();
        match claim.record.offer.provider {
            Provider::Nodes => {
                recorded.cloned().chain(self.labelled_only(claim)).map(|instance| self.node_machine(claim, &instance)).collect()
            }
            Provider::Aws => recorded.cloned().chain(self.unrecorded(claim)).map(|instance| self.cloud_machine(claim, &instance)).collect(),
        }
    }

    /// Machines with this claim's tag or token that its status does not know. While the claim is Written the answer itself
    /// is still to come and tells them.
    fn unrecorded(&self, claim: &Claim) -> Vec<ClaimedInstance> {
        if claim.status.phase == ClaimPhase::Written {
            return Vec::new();
        }
        let tagged = self.by_claim.get(claim.name.as_str()).into_iter().flatten();
        let bought = self.by_token.get(claim.uid.as_str()).into_iter().flatten();
        let mut found: BTreeMap<&str, &CloudInstance> = tagged.chain(bought).map(|instance| (instance.id.as_str(), *instance)).collect();
        for instance in &claim.status.instances {
            found.remove(instance.id.as_str());
        }
        found.into_values().map(new_record).collect()
    }

    /// Nodes that were labelled for this claim by an answer that was never recorded, or is withdrawn.
    fn labelled_only(&self, claim: &Claim) -> Vec<ClaimedInstance> {
        if claim.status.phase == ClaimPhase::Written {
            return Vec::new();
        }
        let recorded = |node: &NodeView| claim.status.instances.iter().any(|instance| names_of(node).any(|name| name == instance.id));
        let nodes = self.nodes_by_claim.get(claim.name.as_str()).into_iter().flatten().filter(|node| !recorded(node));
        nodes.map(|node| self.node_record(node)).collect()
    }

    fn node_record(&self, node: &NodeView) -> ClaimedInstance {
        ClaimedInstance {
            id: node.provider_id.clone().unwrap_or_else(|| node.name.clone()),
            node: Some(node.name.clone()),
            launched_at: self.snapshot.now,
            running_at: Some(self.snapshot.now),
            notice: None,
            seen_alive_at: None,
            release_asked_at: None,
            end: None,
        }
    }

    fn cloud_machine(&self, claim: &Claim, recorded: &ClaimedInstance) -> Machine {
        let seen = self.instances.as_ref().and_then(|instances| instances.get(recorded.id.as_str())).copied();
        let node = self.nodes_by_machine.get(recorded.id.as_str()).copied();
        let mut record = recorded.clone();
        if let Some(seen) = seen {
            self.update(&mut record, seen);
        } else if record.end.is_none() && self.has_vanished(claim, &record) {
            record.end = Some(estimated_end(&record, self.snapshot.now, None));
        }
        self.note_node(claim, &mut record, node);
        if record != *recorded
            && let Some(seen) = seen.filter(|seen| seen.state == InstanceState::Running && record.end.is_none())
        {
            record.seen_alive_at = record.seen_alive_at.max(Some(seen.observed_at));
        }
        machine(claim, record, node, seen)
    }

    fn update(&self, record: &mut ClaimedInstance, seen: &CloudInstance) {
        record.running_at = seen.running_at.or(record.running_at);
        if let Some((kind, at)) = seen.notice
            && record.notice.as_ref().is_none_or(|notice| notice.kind < kind)
        {
            record.notice = Some(Notice { kind, at });
        }
        if is_end_refuted(record, seen) {
            record.end = None;
        }
        if seen.state == InstanceState::Running && record.end.is_none() {
            // Once at first, so that it is known to have run; then for each hour that metering closes.
            let due = record.seen_alive_at.or(record.running_at).is_none_or(|last| hour_of(seen.observed_at) > hour_of(last));
            if due {
                record.seen_alive_at = Some(seen.observed_at);
            }
        }
        match &seen.ended {
            Some(end) if !end.estimated && record.end.as_ref().is_none_or(|old| old.estimated) => {
                record.end = Some(End { cause: cause_of(record, end.cause), ..end.clone() });
            }
            told if record.end.is_none() && !seen.state.is_alive() && self.end_is_overdue(record) => {
                let gone_at = told.as_ref().map_or(seen.observed_at, |end| end.at.min(seen.observed_at));
                record.end = Some(estimated_end(record, gone_at, told.as_ref().map(|end| end.cause)));
            }
            _ => {}
        }
    }

    fn end_is_overdue(&self, record: &ClaimedInstance) -> bool {
        self.snapshot.now - last_known_alive(record) >= EVENT_LAG
    }

    /// The clouds were all asked, and do not list it any more.
    fn has_vanished(&self, claim: &Claim, record: &ClaimedInstance) -> bool {
        let was_listed_by_now = self.snapshot.now - record.launched_at >= LIST_LAG && self.snapshot.real_now - claim.written_at_real >= LIST_LAG_REAL;
        self.instances.is_some() && was_listed_by_now && self.end_is_overdue(record)
    }

    fn note_node(&self, claim: &Claim, record: &mut ClaimedInstance, node: Option<&NodeView>) {
        if let Some(node) = node.filter(|node| is_adopted(node, claim)) {
            record.node = Some(node.name.clone());
        }
    }

    /// A machine of provider `nodes` is its node: no node, no machine.
    fn node_machine(&self, claim: &Claim, recorded: &ClaimedInstance) -> Machine {
        let id = recorded.id.as_str();
        let node = self.nodes.get(id).copied();
        let mut record = recorded.clone();
        if record.end.is_none() {
            record.running_at = record.running_at.or(Some(record.launched_at));
            record.end = self.node_machine_end(claim, &record, node);
            self.note_node(claim, &mut record, node);
            let last = record.seen_alive_at.unwrap_or(record.launched_at);
            if record.end.is_none() && hour_of(self.snapshot.now) > hour_of(last) {
                record.seen_alive_at = Some(self.snapshot.now);
            }
        }
        machine(claim, record, node, None)
    }

    fn node_machine_end(&self, claim: &Claim, record: &ClaimedInstance, node: Option<&NodeView>) -> Option<End> {
        let held_by_us = node.is_some_and(|node| node.claim.as_ref() == Some(&claim.name));
        match (node, record.release_asked_at) {
            (None, None) => Some(End { at: self.snapshot.now, cause: EndCause::Interrupted, estimated: true }),
            (_, Some(at)) if !held_by_us => Some(End { at, cause: EndCause::Terminated, estimated: false }),
            _ => None,
        }
    }
}

fn machine(claim: &Claim, record: ClaimedInstance, node: Option<&NodeView>, seen: Option<&CloudInstance>) -> Machine {
    let alive = seen.is_none_or(|seen| seen.state.is_alive());
    let on_cloud = claim.record.offer.provider == Provider::Aws;
    let unheard = |at: DateTime<Utc>| match seen {
        Some(seen) => seen.observed_at - at >= RELEASE_REPEAT,
        // A stale adoption may have labelled the node again.
        None => !on_cloud && node.is_some_and(|node| node.claim.as_ref() == Some(&claim.name)),
    };
    Machine {
        node: node.map(|node| node.name.clone()),
        joined: node.is_some_and(|node| is_adopted(node, claim)),
        // Existing nodes are adopted by the answer itself.
        adoptable: on_cloud && node.is_some_and(|node| is_adoptable(node, claim)),
        node_lost: record.node.is_some() && node.is_none() && record.end.is_none(),
        gone: !alive || record.end.is_some(),
        release_due: alive && record.end.is_none() && record.release_asked_at.is_none_or(unheard),
        record,
    }
}

fn is_adopted(node: &NodeView, claim: &Claim) -> bool {
    node.claim.as_ref() == Some(&claim.name) && !node.unclaimed_taint
}

fn is_adoptable(node: &NodeView, claim: &Claim) -> bool {
    node.ready && !is_adopted(node, claim) && node.claim.as_ref().is_none_or(|other| *other == claim.name)
}

/// The machine's id in a node's `aws:///ZONE/i-…`.
pub fn machine_id(node: &NodeView) -> Option<&str> {
    node.provider_id.as_deref()?.rsplit('/').next().filter(|id| !id.is_empty())
}

fn names_of(node: &NodeView) -> impl Iterator<Item = &str> {
    std::iter::once(node.name.as_str()).chain(node.provider_id.as_deref())
}

fn new_record(seen: &CloudInstance) -> ClaimedInstance {
    ClaimedInstance {
        id: seen.id.clone(),
        node: None,
        launched_at: seen.launched_at,
        running_at: seen.running_at,
        notice: None,
        seen_alive_at: None,
        release_asked_at: None,
        end: None,
    }
}

fn last_known_alive(record: &ClaimedInstance) -> DateTime<Utc> {
    let notice = record.notice.as_ref().map(|notice| notice.at);
    [record.running_at, record.seen_alive_at, record.release_asked_at, notice].into_iter().flatten().fold(record.launched_at, DateTime::max)
}

/// The end was a guess, and long after it the machine is alive: it is to be given back, and its time to be charged.
fn is_end_refuted(record: &ClaimedInstance, seen: &CloudInstance) -> bool {
    seen.state.is_alive() && record.end.as_ref().is_some_and(|end| end.estimated && seen.observed_at - end.at >= LIST_LAG)
}

/// Halfway between last known alive and first seen gone.
fn estimated_end(record: &ClaimedInstance, gone_at: DateTime<Utc>, told: Option<EndCause>) -> End {
    let alive_at = last_known_alive(record);
    let half = TimeDelta::seconds((gone_at - alive_at).num_seconds().max(0) / 2);
    let noticed = record.notice.as_ref().is_some_and(|notice| notice.kind == NoticeKind::Interruption);
    let guess = if noticed && record.release_asked_at.is_none() { EndCause::Interrupted } else { EndCause::Terminated };
    End { at: alive_at + half, cause: cause_of(record, told.unwrap_or(guess)), estimated: true }
}

/// What nobody ever saw running did not run (a late message may mend that).
fn cause_of(record: &ClaimedInstance, told: EndCause) -> EndCause {
    match (record.running_at, record.seen_alive_at) {
        (None, None) => EndCause::NeverRan,
        _ => told,
    }
}
