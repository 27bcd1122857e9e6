//! The question: pods that wait, nodes that stand, nodes that could be bought.

use std::collections::BTreeMap;

use super::pod::{Pod, Resident, Resources, Taint};
use crate::capacity::Offer;
use crate::units::{Money, MoneyPerHour};

/// One thing that can be bought, as a node would look when it has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeOffer {
    /// Type, zone, kind, price. Reserved capacity that is paid already has price 0.
    pub offer: Offer,
    /// What pods can have: allocatable, less what daemons on every node take.
    pub allocatable: Resources,
    /// How many pods fit besides daemons' pods.
    pub pods_max: u32,
    /// Labels that the node will carry. Type, zone, capacity kind, system and hostname need not be repeated: they follow from
    /// `offer` ([`NodeOffer::label`]).
    pub labels: BTreeMap<String, String>,
    /// Taints that stay.
    pub taints: Vec<Taint>,
    /// How many can be had; `None`: no bound is known.
    pub count_max: Option<u32>,
}

/// A node that stands, with the room that is left on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExistingNode {
    pub name: String,
    pub zone: String,
    pub free: Resources,
    pub pods_free: u32,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub residents: Vec<Resident>,
}

/// What [`super::pack`] is asked. Indices into `pods`, `existing` and `offers` are how the answer speaks of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackingProblem {
    pub pods: Vec<Pod>,
    pub existing: Vec<ExistingNode>,
    pub offers: Vec<NodeOffer>,
    /// What a node costs besides its price (agents, addresses, images): the planner buys fewer, larger nodes the higher it is.
    pub node_charge: MoneyPerHour,
}

impl Default for PackingProblem {
    fn default() -> PackingProblem {
        PackingProblem { pods: Vec::new(), existing: Vec::new(), offers: Vec::new(), node_charge: MoneyPerHour(Money::ZERO_USD) }
    }
}

impl NodeOffer {
    /// The value of a label that the node will carry.
    pub fn label(&self, key: &str) -> Option<&str> {
        if let Some(value) = self.labels.get(key) {
            return Some(value);
        }
        match key {
            "node.kubernetes.io/instance-type" => Some(&self.offer.instance_type),
            "topology.kubernetes.io/zone" => Some(&self.offer.zone),
            "karpenter.sh/capacity-type" => Some(self.offer.kind.as_str()),
            "kubernetes.io/os" => Some("linux"),
            _ => None,
        }
    }
}
