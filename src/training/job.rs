//! A training job as the core sees it: parsed, defaulted, trusted.

use std::fmt;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::capacity::{CapacityKind, InstanceRequirements};
use crate::units::{Money, Span};

/// Which job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct JobRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl fmt::Display for JobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// How the program saves its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// How often the program saves. Work since the last save is lost when a machine dies without notice. Default 10m.
    #[serde(default = "default_interval")]
    pub interval: Span,
    /// Time from a machine being ready to new work being done: image pull, start, load of the checkpoint. Default 5m.
    #[serde(default = "default_overhead")]
    pub restart_overhead: Span,
    /// Where it saves: `s3://bucket/prefix` or `file:///path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub uri: Option<String>,
}

fn default_interval() -> Span {
    Span::minutes(10)
}

fn default_overhead() -> Span {
    Span::minutes(5)
}

impl Default for Checkpoint {
    fn default() -> Self {
        Checkpoint { interval: default_interval(), restart_overhead: default_overhead(), uri: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub id: JobRef,
    pub generation: i64,
    pub submitted_at: DateTime<Utc>,
    pub experiment: String,
    pub workers: u32,
    /// Total work on the required machines, from nothing to done.
    pub expected_duration: Span,
    pub deadline: Option<DateTime<Utc>>,
    pub checkpoint: Checkpoint,
    /// Never empty.
    pub capacity_kinds: Vec<CapacityKind>,
    pub requirements: InstanceRequirements,
    pub pool: Option<String>,
    pub budget: Option<Money>,
    /// Failures of the program itself that are forgiven; interruptions do not count.
    pub retries_max: u32,
    /// Higher runs first. Default 0.
    pub priority: i32,
    pub cancelled: bool,
}
