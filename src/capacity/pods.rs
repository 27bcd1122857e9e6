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
    /// Moves pods off nodes that a cheaper fleet would not need; `{}` takes every default. Default: pods stay where they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<RepairPolicy>,
}

/// When moving pods is worth it. Only pods that a controller makes anew are moved (of Jobs, only those that say by the annotation
/// `purser.dev/checkpoint-interval` that they save their work), never those annotated `karpenter.sh/do-not-disrupt: "true"` or
/// `cluster-autoscaler.kubernetes.io/safe-to-evict: "false"`, and never more than their PodDisruptionBudgets let go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RepairPolicy {
    /// For how long savings are counted against what moving loses. Default 1h.
    pub horizon: Span,
    /// What a replacement must bring over the horizon beyond what moving loses. Default 0.05 USD.
    pub gain_min: Money,
    /// Pods that may be moved at a time. Default 20; 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub moves_max: u32,
}

impl Default for RepairPolicy {
    fn default() -> RepairPolicy {
        RepairPolicy { horizon: Span::hours(1), gain_min: Money::usd_atoms(crate::units::money::ATOMS_PER_UNIT / 20), moves_max: 20 }
    }
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
            repair: None,
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
