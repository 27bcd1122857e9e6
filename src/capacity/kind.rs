//! How capacity is bought.

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
}

impl fmt::Display for CapacityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
