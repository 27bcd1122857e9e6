//! The world at one moment, as far as it was looked at.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::capacity::offer::QuotedOffer;
use super::packing;
use crate::capacity::{Claim, InstanceRequirements, NoticeKind, PodRef, PodsPolicy, PriceSource, Provider};
use crate::training::{CheckpointMark, Job, JobStatus, Progress};
use crate::units::{Money, Span};

/// "We have not looked" is not "there is nothing".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Observed<T> {
    Absent,
    #[default]
    Unknown,
    Known(T),
}

impl<T> Observed<T> {
    pub fn known(&self) -> Option<&T> {
        match self {
            Observed::Known(value) => Some(value),
            Observed::Absent | Observed::Unknown => None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Market time: prices, deadlines, metering, notices.
    pub now: DateTime<Utc>,
    /// Real time: timeouts of machines and pods.
    pub real_now: DateTime<Utc>,
    pub jobs: Vec<JobView>,
    pub experiments: Vec<ExperimentView>,
    pub teams: Vec<TeamView>,
    pub pools: Vec<PoolView>,
    pub claims: Vec<Claim>,
    pub nodes: Vec<NodeView>,
    pub workloads: Vec<WorkloadView>,
    /// Pods with the label of a pool.
    pub pods: Vec<PodView>,
    pub disruption_budgets: Vec<DisruptionBudget>,
    /// It is time to look whether a cheaper fleet would do.
    pub repair_due: bool,
    /// Every machine that the clouds say carries this installation's tag, gone ones included as long as the cloud lists them.
    /// `Unknown` where any cloud with open claims could not be asked.
    pub instances: Observed<Vec<CloudInstance>>,
    /// [`Plan::orphans_seen`](super::Plan) of the cycle before; empty after a start.
    pub orphans_seen: BTreeMap<String, DateTime<Utc>>,
    /// Market time that passes from one plan to the next, as lately seen: what waits is looked at again only then.
    pub reaction: TimeDelta,
}

#[derive(Clone, Debug, PartialEq)]
pub struct JobView {
    pub job: Job,
    pub status: JobStatus,
    pub progress: Option<Progress>,
    pub checkpoint: Option<CheckpointMark>,
    /// Which status was read (for example a hash of it, or the resourceVersion); writes hold only against it.
    pub version: String,
    /// In the ledger for this job so far.
    pub metered: Money,
    /// Being deleted: give everything back, then let the finalizer go.
    pub deleting: bool,
    /// The object does not parse or names what does not exist: it waits with this reason and message.
    pub invalid: Option<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExperimentView {
    pub namespace: String,
    pub name: String,
    pub owner: String,
    pub budget: Option<Money>,
    /// In the ledger so far.
    pub metered: Money,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TeamView {
    pub name: String,
    pub namespaces: Vec<String>,
    pub monthly_budget: Option<Money>,
    /// In the ledger for this calendar month (UTC).
    pub metered_this_month: Money,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolView {
    pub name: String,
    pub provider: Provider,
    pub requirements: InstanceRequirements,
    /// `Err((reason, message))` where the pool cannot be used (bad spec, claims another pool's nodes, cloud unreachable).
    pub state: Result<(), (String, String)>,
    pub offers: Vec<QuotedOffer>,
    pub price_source: PriceSource,
    /// How long a machine takes from launch to ready, as stated or seen.
    pub boot: Span,
    /// Machines at most, over all claims of the pool.
    pub machines_max: Option<u32>,
    /// How it serves pods; `None`: it does not.
    pub pods: Option<PodsPolicy>,
    /// The pool's configuration as JSON text (`cloud::PoolConfig`); a claim's `request` is the JSON of a
    /// `cloud::LaunchRequest` around it. Empty for provider `nodes`.
    pub request_template: String,
}

/// A Kubernetes node that a pool may use or that a claim made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    pub name: String,
    pub provider_id: Option<String>,
    pub ready: bool,
    pub schedulable: bool,
    /// Carries the startup taint `purser.dev/unclaimed`.
    pub unclaimed_taint: bool,
    /// Carries the taint of `Action::TaintNode`.
    pub leaving_taint: bool,
    /// Label `purser.dev/claim`.
    pub claim: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub pool: Option<String>,
    /// What it has for pods; absent where nobody asked, or the node does not say.
    pub room: Option<NodeRoom>,
}

/// A node's allocatable, and the taints that are not Purser's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRoom {
    pub allocatable: packing::Resources,
    pub pods_max: u32,
    pub taints: Vec<packing::Taint>,
}

/// A pod that carries the label of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    pub id: PodRef,
    pub pool: String,
    /// Carries the scheduling gate `purser.dev/capacity`: no scheduler looks at it.
    pub gated: bool,
    /// `spec.nodeName`.
    pub bound_to: Option<String>,
    /// The one hostname that its node selector admits.
    pub pinned_to: Option<String>,
    /// Succeeded or Failed: it holds nothing any more.
    pub finished: bool,
    pub deleting: bool,
    pub created_at_real: DateTime<Utc>,
    /// What it asks of a node, or why that cannot be honoured.
    pub needs: Result<packing::Pod, String>,
    /// The time that is lost when it has to start elsewhere; `None`: it must stay.
    pub move_loses: Option<Span>,
}

/// How many more of some pods may be disturbed now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisruptionBudget {
    pub namespace: String,
    pub selector: packing::Selector,
    pub left: u32,
}

impl DisruptionBudget {
    pub fn counts(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        self.namespace == namespace && self.selector.matches_labels(labels)
    }
}

impl PodView {
    /// Waits for Purser, and somebody waits for it.
    pub fn is_held_back(&self) -> bool {
        self.gated && !self.deleting && !self.finished
    }
}

/// One attempt's batch/v1 Job with its pods; it is there as long as the Job or any of its pods is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadView {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub job_uid: String,
    pub attempt: u32,
    /// Deletion of the Job was asked (real time), or the Job is gone and only pods are left.
    pub deleting_since_real: Option<DateTime<Utc>>,
    /// The Job's condition: Complete, or Failed with its reason.
    pub finished: Option<WorkloadEnd>,
    /// Pods that exist. `finished_at` is set once a pod cannot run any more (ended, never started and deleted, or its node
    /// is gone), if only with the time at which that was seen.
    pub pods: Vec<crate::training::PodRecord>,
    pub pods_running: u32,
    /// Created (real time).
    pub created_at_real: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkloadEnd {
    Complete,
    /// The reason of the Job's Failed condition (`PodFailurePolicy`, `BackoffLimitExceeded`…) and its message.
    Failed { reason: String, message: String, node_lost: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    Pending,
    Running,
    ShuttingDown,
    Terminated,
}

impl InstanceState {
    pub fn is_alive(self) -> bool {
        matches!(self, InstanceState::Pending | InstanceState::Running)
    }
}

/// A machine as the cloud describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudInstance {
    pub id: String,
    pub pool: String,
    /// From the tag `purser.dev/claim`.
    pub claim: Option<String>,
    pub client_token: Option<String>,
    pub instance_type: String,
    pub zone: String,
    pub state: InstanceState,
    pub launched_at: DateTime<Utc>,
    /// From a state-change event, where one was seen.
    pub running_at: Option<DateTime<Utc>>,
    pub ended: Option<crate::capacity::End>,
    pub notice: Option<(NoticeKind, DateTime<Utc>)>,
    /// Market time at which the cloud gave this answer.
    pub observed_at: DateTime<Utc>,
}
