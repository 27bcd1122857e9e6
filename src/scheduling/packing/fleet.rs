//! The answer: which nodes to buy, which pod goes where, what it costs, how far from the bound it can be at most, and why
//! a pod has no place.

use std::fmt;

use crate::units::MoneyPerHour;

/// A node to buy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedNode {
    /// Index into `PackingProblem::offers`.
    pub offer: usize,
    /// Indices into `PackingProblem::pods`, ascending.
    pub pods: Vec<usize>,
}

/// Dollars per hour that no fleet for the placed pods can go below, node charge included. Statistics, rounded down.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    /// Of the assignment relaxation: classes × types, per-resource capacity, `x_ct <= k_ct y_t`.
    pub assignment: f64,
    /// Of the configuration relaxation, where it could be proved within the effort; never below `assignment`.
    pub configuration: f64,
}

/// The fleet, and how good it is.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetPlan {
    pub nodes: Vec<PlannedNode>,
    /// (pod, existing node), ascending by pod.
    pub on_existing: Vec<(usize, usize)>,
    /// (pod, why), ascending by pod. Every pod is in exactly one of the three lists.
    pub unplaced: Vec<(usize, Unplaced)>,
    /// The sum of prices of `nodes`.
    pub cost: MoneyPerHour,
    /// `cost` and the node charge of each node: what was minimised.
    pub charged: MoneyPerHour,
    pub bounds: Bounds,
}

/// Why a pod has no place, and what would help. Of several reasons the one that the fewest changes would lift is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unplaced {
    /// No offer and no node is large enough, whatever its labels. `resource` is what the best candidate lacks most.
    TooLarge { resource: String, wanted: u64, largest: u64 },
    /// Offers are large enough, but none matches the node selector or affinity.
    NoMatchingLabels,
    /// Offers match, but the pod tolerates no taint of theirs; one of them is named.
    NotTolerated { taint: String },
    /// Its volumes are in zones in which nothing that fits is offered.
    VolumeZones { zones: Vec<String> },
    /// Offers that would do can be had so often only.
    SoldOut { offers: usize },
    /// Affinity, anti-affinity or spread leave no node or zone.
    KeptAway { by: Topologically },
    /// There is nothing to choose among.
    NoOffers,
}

/// Which rule about other pods left no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topologically {
    Spread,
    Affinity,
    AntiAffinity,
}

impl fmt::Display for Unplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { resource, wanted, largest } => {
                write!(f, "asks for {wanted} of {resource}; the largest node that is offered has {largest}: ask for less, or allow larger types")
            }
            Self::NoMatchingLabels => f.write_str("no offer that is large enough matches its node selector and affinity: relax them, or label the pool"),
            Self::NotTolerated { taint } => write!(f, "does not tolerate the taint {taint}: add a toleration"),
            Self::VolumeZones { zones } => write!(f, "its volumes are in {}, where no offer fits: allow types there, or move the volumes", zones.join(", ")),
            Self::SoldOut { offers } => write!(f, "the {offers} offers that fit are used up: raise the limits, or allow more types or zones"),
            Self::KeptAway { by: Topologically::Spread } => f.write_str("topology spread leaves no place: raise maxSkew, or allow more zones"),
            Self::KeptAway { by: Topologically::Affinity } => f.write_str("no node has room beside the pods it must be near: run more of them, or relax its affinity"),
            Self::KeptAway { by: Topologically::AntiAffinity } => f.write_str("anti-affinity leaves no place: allow more zones, or relax it"),
            Self::NoOffers => f.write_str("nothing is offered: allow instance types in the pool"),
        }
    }
}

/// How much to think, in work units of one to three nanoseconds. The answer is feasible with any effort, and the same for the
/// same problem and effort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Effort(pub u64);

impl Effort {
    /// For a decision inside a cycle: about a second.
    pub const CYCLE: Effort = Effort(450_000_000);
    /// For a plan that somebody waits for.
    pub const THOROUGH: Effort = Effort(10_000_000_000);
}
