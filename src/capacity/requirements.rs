//! What a machine must be to serve.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::InstanceType;

/// What one machine must offer. Everything that is set must hold; nothing set means any machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceRequirements {
    /// GPUs at least. Default 0; 16 at most.
    #[schemars(range(max = 16))]
    pub gpus: u32,
    /// The accelerator, as EC2 names it, for example `A10G`. Default any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_name: Option<String>,
    /// vCPUs at least. Default 0.
    pub vcpu: u32,
    /// Memory at least, in MiB. Default 0.
    pub memory_mib: u64,
    /// `amd64` or `arm64`. Default any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Only these instance types, for example `g5.xlarge`. Default any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub instance_types: Vec<String>,
    /// Only these availability zones, for example `us-east-1a`. Default any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 30))]
    pub zones: Vec<String>,
}

impl InstanceRequirements {
    /// Whether a machine of this type may serve (zones are asked separately).
    pub fn admits(&self, machine: &InstanceType) -> bool {
        machine.gpus >= self.gpus
            && machine.vcpu >= self.vcpu
            && machine.memory_mib >= self.memory_mib
            && self.gpu_name.as_ref().is_none_or(|name| machine.gpu_name.as_ref() == Some(name))
            && self.architecture.as_ref().is_none_or(|name| *name == machine.architecture)
            && (self.instance_types.is_empty() || self.instance_types.contains(&machine.name))
    }

    pub fn admits_zone(&self, zone: &str) -> bool {
        self.zones.is_empty() || self.zones.iter().any(|name| name == zone)
    }
}
