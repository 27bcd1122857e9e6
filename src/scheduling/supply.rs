//! How many machines are left: pool limits, quoted bounds and free nodes, less what this plan and unanswered claims take.

use std::collections::{BTreeMap, BTreeSet};

use super::machines::Fleet;
use super::snapshot::{NodeView, PoolView, Snapshot};
use crate::capacity::offer::QuotedOffer;
use crate::capacity::{CapacityKind, ClaimPhase, ClaimRecord, Offer, Provider};

pub struct Supply<'a> {
    snapshot: &'a Snapshot,
    /// Machines that count against a pool's limit.
    used_by_pool: BTreeMap<String, u32>,
    /// Machines asked for that no quote knows of yet.
    asked_by_pool: BTreeMap<String, Vec<(Offer, u32)>>,
    nodes_taken: BTreeSet<String>,
}

impl<'a> Supply<'a> {
    pub fn of(snapshot: &'a Snapshot, fleet: &Fleet) -> Supply<'a> {
        let mut supply = Supply { snapshot, used_by_pool: BTreeMap::new(), asked_by_pool: BTreeMap::new(), nodes_taken: BTreeSet::new() };
        for claim in &snapshot.claims {
            match claim.status.phase {
                ClaimPhase::Written => supply.take(&claim.record),
                ClaimPhase::Granted | ClaimPhase::Refused | ClaimPhase::Ended => {
                    *supply.used_by_pool.entry(claim.record.pool.clone()).or_default() += fleet.open_count(&claim.name);
                    let open = fleet.open(&claim.name).filter_map(|machine| machine.node.clone());
                    supply.nodes_taken.extend(open);
                }
            }
        }
        supply
    }

    /// Counts what is claimed now.
    pub fn take(&mut self, record: &ClaimRecord) {
        *self.used_by_pool.entry(record.pool.clone()).or_default() += record.count;
        self.asked_by_pool.entry(record.pool.clone()).or_default().push((record.offer.clone(), record.count));
        self.nodes_taken.extend(record.nodes.iter().cloned());
    }

    /// Under the pool's own limit, where it has one.
    pub fn left_in_pool(&self, pool: &PoolView) -> Option<u32> {
        let used = self.used_by_pool.get(&pool.name).copied().unwrap_or_default();
        pool.machines_max.map(|most| most.saturating_sub(used))
    }

    /// Under the tightest bound that the quote names. Nodes are counted themselves.
    pub fn available(&self, pool: &PoolView, quoted: &QuotedOffer) -> Option<(u32, String)> {
        let bound = quoted.available_max.as_ref().filter(|_| pool.provider == Provider::Aws)?;
        let asked = self.asked_by_pool.get(&pool.name).into_iter().flatten().filter(|(offer, _)| is_same_capacity(offer, &quoted.offer));
        let asked: u32 = asked.map(|(_, count)| count).sum();
        let (most, name) = bound;
        Some((most.saturating_sub(asked), name.clone()))
    }

    /// Nodes of the pool that are such machines and free, by name.
    pub fn free_nodes(&self, pool: &PoolView, quoted: &QuotedOffer) -> Vec<&'a NodeView> {
        if pool.provider != Provider::Nodes {
            return Vec::new();
        }
        let usable = |node: &&NodeView| {
            node.pool.as_ref() == Some(&pool.name) && node.ready && node.schedulable && !node.leaving_taint && node.claim.is_none()
        };
        let mut nodes: Vec<&NodeView> = self
            .snapshot
            .nodes
            .iter()
            .filter(usable)
            .filter(|node| !self.nodes_taken.contains(&node.name) && is_machine_of(node, &quoted.offer))
            .collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes
    }
}

/// The same machines, whatever the price was when they were asked for.
fn is_same_capacity(a: &Offer, b: &Offer) -> bool {
    (a.kind, &a.instance_type, &a.zone) == (b.kind, &b.instance_type, &b.zone)
}

/// Labels that are there must agree; what a node does not say is not held against it.
fn is_machine_of(node: &NodeView, offer: &Offer) -> bool {
    let agrees = |label: &str, wanted: &str| node.labels.get(label).is_none_or(|value| value == wanted);
    agrees("node.kubernetes.io/instance-type", &offer.instance_type)
        && agrees("topology.kubernetes.io/zone", &offer.zone)
        && CapacityKind::of_node(&node.labels) == offer.kind
}
