//! How capacity is bought.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How an instance is paid for. `reserved`: an On-Demand Capacity Reservation that is already paid; `spot`: spare capacity
/// that EC2 may take back with two minutes' notice; `on-demand`: list price, until you end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CapacityKind {
    Reserved,
    Spot,
    OnDemand,
}

impl CapacityKind {
    pub const ALL: [CapacityKind; 3] = [CapacityKind::Reserved, CapacityKind::Spot, CapacityKind::OnDemand];

    pub const fn as_str(&self) -> &'static str {
        match self {
            CapacityKind::Reserved => "reserved",
            CapacityKind::Spot => "spot",
            CapacityKind::OnDemand => "on-demand",
        }
    }

    /// Of an existing node, by its labels: Karpenter's word for it, else that of EKS managed groups; a node that says
    /// nothing is on-demand.
    pub fn of_node(labels: &BTreeMap<String, String>) -> CapacityKind {
        let word = labels.get("karpenter.sh/capacity-type").or_else(|| labels.get("eks.amazonaws.com/capacityType"));
        match word.map(|word| word.to_ascii_lowercase()).as_deref() {
            Some("spot") => CapacityKind::Spot,
            Some("reserved" | "capacity_block") => CapacityKind::Reserved,
            _ => CapacityKind::OnDemand,
        }
    }
}

impl fmt::Display for CapacityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
