//! Instance types and offers: what the scheduler chooses among.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CapacityKind;
use crate::units::MoneyPerHour;

/// Who supplies the machines of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// Purser buys EC2 instances and ends them.
    Aws,
    /// Purser uses nodes that exist already (managed node groups, Karpenter) and never ends them.
    Nodes,
}

/// What one machine of a type is, as `DescribeInstanceTypes` tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceType {
    /// For example `g5.xlarge`.
    pub name: String,
    pub vcpu: u32,
    pub memory_mib: u64,
    pub gpus: u32,
    /// As EC2 names it, for example `A10G`; absent without GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_name: Option<String>,
    /// `amd64` or `arm64`, the Kubernetes words.
    pub architecture: String,
    /// Pods at most, as its network interfaces have addresses for them; 0 where that is not known.
    #[serde(default)]
    pub pods: u32,
}

/// One thing that can be bought: a type in a zone, by a kind, at a price per machine and hour.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    pub provider: Provider,
    pub instance_type: String,
    /// Availability zone name, for example `us-east-1a`.
    pub zone: String,
    pub kind: CapacityKind,
    /// What one machine costs for an hour at the time of the decision.
    pub price: MoneyPerHour,
    /// The capacity reservation it draws from (`cr-…`), for kind `reserved`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<String>,
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.instance_type, self.kind, self.zone)
    }
}

/// An offer as it stands now, with what bounds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotedOffer {
    pub offer: Offer,
    pub machine: InstanceType,
    /// How many more machines could be had under quotas, reservations' remaining instances and subnets' free addresses,
    /// with the name of the tightest bound; `None` where nothing is known to bound it.
    pub available_max: Option<(u32, String)>,
}
