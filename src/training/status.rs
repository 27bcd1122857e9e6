//! A job's life so far: the durable record that metering, resuming and explaining read. It is the CRD's status as it stands.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::capacity::Offer;
use crate::units::Money;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum JobPhase {
    /// Not looked at yet.
    #[default]
    Pending,
    /// Waits; the decision says for what.
    Waiting,
    /// Capacity is claimed, machines are starting.
    Provisioning,
    Running,
    /// Lost its machines; the next attempt is on its way.
    Interrupted,
    Succeeded,
    Failed,
    Cancelled,
}

impl JobPhase {
    pub fn is_over(self) -> bool {
        matches!(self, JobPhase::Succeeded | JobPhase::Failed | JobPhase::Cancelled)
    }
}

impl std::fmt::Display for JobPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// How far the program is: 0 nothing, 1 done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    #[schemars(range(min = 0.0, max = 1.0))]
    pub fraction: f64,
    /// Market time at which it was told.
    pub at: DateTime<Utc>,
}

/// The last state that was saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointMark {
    #[schemars(range(min = 0.0, max = 1.0))]
    pub fraction: f64,
    pub at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AttemptOutcome {
    Succeeded,
    /// EC2 took a machine, or it was lost.
    Interrupted,
    /// The program failed; the pods' records say how.
    Failed,
    Cancelled,
}

/// What a pod did, copied here before it may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodRecord {
    pub name: String,
    /// The worker's rank.
    pub index: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One gang's run on one set of machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// The CapacityClaims it runs on.
    pub claims: Vec<String>,
    pub offer: Offer,
    /// Market time at which it was recorded; the batch/v1 Job is created after.
    pub started_at: DateTime<Utc>,
    /// Progress it resumed from.
    pub from_fraction: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<AttemptOutcome>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodRecord>,
}

/// An offer that was looked at, and why it won or lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Considered {
    pub pool: String,
    pub offer: Offer,
    /// Cost of the remaining work on it, all workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Money>,
    /// What the rest is expected to cost if this is taken now: interruptions, and what follows them, weighed by how likely
    /// they are. An estimate, to the cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Money>,
    /// `chosen`, or why not.
    pub verdict: String,
}

/// The last decision, as data and in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecisionRecord {
    /// `Launch`, `Wait`, `Refuse`, `Keep`…
    pub kind: String,
    /// A machine-readable reason, CamelCase, for example `OverBudget`.
    pub reason: String,
    /// What, why, and what would help.
    pub message: String,
    pub at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub considered: Vec<Considered>,
}

/// The CRD's status, but for conditions and observedGeneration, which are Kubernetes' own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JobStatus {
    pub phase: JobPhase,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionRecord>,
    /// What it runs on, in words: `4 × g5.xlarge spot us-east-1a`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<String>,
    /// Charges so far: metered ones exact, the open hour estimated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
}
