//! What a pod asks of the node it will run on, and of the pods beside it: only what kube-scheduler would refuse a node for.
//!
//! Preferences are left out on purpose. Selectors speak in Kubernetes' words; what they mean is in [`super::matching`].

use std::collections::{BTreeMap, BTreeSet};

/// Counted resources of a pod or a node. Memory in bytes, extended resources by name (`nvidia.com/gpu`), in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resources {
    pub cpu_milli: u64,
    pub memory_bytes: u64,
    /// Also `ephemeral-storage`, where it counts. Zero is the same as absent.
    pub extended: BTreeMap<String, u64>,
}

impl Resources {
    pub fn extended(&self, name: &str) -> u64 {
        self.extended.get(name).copied().unwrap_or(0)
    }

    pub fn plus(&self, other: &Resources) -> Resources {
        let mut sum = self.clone();
        sum.cpu_milli += other.cpu_milli;
        sum.memory_bytes += other.memory_bytes;
        for (name, amount) in &other.extended {
            *sum.extended.entry(name.clone()).or_default() += amount;
        }
        sum
    }

    /// What is left; nothing is ever less than zero.
    pub fn minus(&self, other: &Resources) -> Resources {
        let mut rest = self.clone();
        rest.cpu_milli = rest.cpu_milli.saturating_sub(other.cpu_milli);
        rest.memory_bytes = rest.memory_bytes.saturating_sub(other.memory_bytes);
        for (name, amount) in &mut rest.extended {
            *amount = amount.saturating_sub(other.extended(name));
        }
        rest
    }

    pub fn fits_in(&self, room: &Resources) -> bool {
        let extended_fits = self.extended.iter().all(|(name, amount)| *amount <= room.extended(name));
        self.cpu_milli <= room.cpu_milli && self.memory_bytes <= room.memory_bytes && extended_fits
    }
}

/// `key operator values`, of labels of nodes or pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    pub values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    /// Nodes only: the label is an integer above the one value.
    Gt,
    Lt,
}

/// All requirements hold. Empty matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    pub requirements: Vec<Requirement>,
}

impl Selector {
    /// `key in (value)` for each pair, as `matchLabels` and `nodeSelector` mean it.
    pub fn labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Selector {
        let equal = |(key, value): (&str, &str)| Requirement { key: key.to_owned(), operator: Operator::In, values: vec![value.to_owned()] };
        Selector { requirements: pairs.into_iter().map(equal).collect() }
    }
}

/// As in a pod's `tolerations`: an absent key with operator Exists tolerates everything; an absent effect, every effect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Toleration {
    pub key: Option<String>,
    /// `None`: operator Exists.
    pub value: Option<String>,
    pub effect: Option<String>,
}

/// A taint that keeps pods away (effects `NoSchedule` and `NoExecute`; do not pass `PreferNoSchedule`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Taint {
    pub key: String,
    pub value: String,
    pub effect: String,
}

/// Over what pods are spread or kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topology {
    /// `kubernetes.io/hostname`
    Hostname,
    /// `topology.kubernetes.io/zone`
    Zone,
}

/// A `topologySpreadConstraint` with `whenUnsatisfiable: DoNotSchedule`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spread {
    pub topology: Topology,
    /// 1 at least.
    pub skew_max: u32,
    /// Which pods of the namespace count.
    pub selector: Selector,
}

/// A required pod affinity or anti-affinity term.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodTerm {
    pub topology: Topology,
    pub selector: Selector,
    /// Empty: the pod's own.
    pub namespaces: BTreeSet<String>,
}

/// A pod that waits for a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// The pod's effective requests (init containers and overhead included).
    pub requests: Resources,
    /// `nodeSelector`.
    pub node_selector: Selector,
    /// Required node affinity: one of the terms holds; no term means any node.
    pub node_affinity: Vec<Selector>,
    pub tolerations: Vec<Toleration>,
    /// Zones in which all of its volumes can be attached; `None`: no volume says.
    pub volume_zones: Option<BTreeSet<String>>,
    pub spread: Vec<Spread>,
    pub affinity: Vec<PodTerm>,
    pub anti_affinity: Vec<PodTerm>,
}

/// A pod that runs already: it counts in topologies, and its own anti-affinity keeps others away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub anti_affinity: Vec<PodTerm>,
}

impl Pod {
    pub fn resident(&self) -> Resident {
        Resident { namespace: self.namespace.clone(), labels: self.labels.clone(), anti_affinity: self.anti_affinity.clone() }
    }
}
