//! How a pool serves pods that are not of a TrainingJob: serving replicas, CPU work, small jobs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CapacityKind;
use crate::units::{Money, MoneyPerHour, Span};

/// A shared fleet for pods that carry the label `purser.dev/pool` with the pool's name. Purser holds them back (scheduling
/// gate `purser.dev/capacity`), plans the cheapest fleet for all of them together, buys it, and lets each pod go to the node
/// it was planned on. Machines are given back when their pods are gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PodsPolicy {
    /// What a node costs an hour besides its machine (agents, addresses, images), for example `"0.02"`: a larger charge makes
    /// fewer and larger nodes. It only weighs in the choice and is never booked. Default 0.02.
    pub node_charge: MoneyPerHour,
    /// Pods are planned together once no new one has come for so long. Default 2s.
    pub batch_idle: Span,
    /// … but none waits longer than this for others. Default 10s.
    pub batch_max: Span,
    /// Kinds of capacity that may be bought. Default on-demand only: pods have no checkpoint that Purser knows of.
    #[schemars(length(min = 1, max = 3))]
    pub capacity_kinds: Vec<CapacityKind>,
    /// CPU of each node that is left for DaemonSets, in thousandths of a core. Default 250.
    pub reserved_cpu_milli: u32,
    /// Memory of each node that is left for DaemonSets, in MiB. Default 512.
    pub reserved_memory_mib: u32,
}

impl Default for PodsPolicy {
    fn default() -> PodsPolicy {
        PodsPolicy {
            node_charge: MoneyPerHour(Money::usd_atoms(crate::units::money::ATOMS_PER_UNIT / 50)),
            batch_idle: Span::seconds(2),
            batch_max: Span::seconds(10),
            capacity_kinds: vec![CapacityKind::OnDemand],
            reserved_cpu_milli: 250,
            reserved_memory_mib: 512,
        }
    }
}

impl PodsPolicy {
    /// What a schema cannot say, in a sentence for whoever wrote it.
    pub fn validate(&self) -> Result<(), String> {
        if self.node_charge.per_hour().is_negative() {
            return Err(format!("pods.nodeCharge {} is negative; write 0 or more", self.node_charge));
        }
        if self.batch_max < self.batch_idle {
            return Err(format!("pods.batchMax {} is shorter than pods.batchIdle {}; a batch could never settle", self.batch_max, self.batch_idle));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_section_means_the_defaults_and_they_are_valid() {
        let empty: PodsPolicy = serde_json::from_str("{}").unwrap();
        assert_eq!(empty, PodsPolicy::default());
        assert_eq!(empty.validate(), Ok(()));
        let negative: PodsPolicy = serde_json::from_str(r#"{"nodeCharge": "-0.1"}"#).unwrap();
        assert!(negative.validate().unwrap_err().contains("nodeCharge"));
        let hasty: PodsPolicy = serde_json::from_str(r#"{"batchIdle": "20s"}"#).unwrap();
        assert!(hasty.validate().unwrap_err().contains("batchMax"));
    }
}
