//! The kinds of `purser.dev/v1alpha1`, one file a kind. Field docs are user docs: `kubectl explain` shows them.
//!
//! What is checked where: shapes, ranges and single-object rules by the CRD's schema and CEL (the API server refuses at
//! once); rules over several objects and the pod template by the admission webhook; and both again by `TryFrom` into the
//! core's types, because an object may have been stored before a rule existed.

pub mod conditions;
pub mod pool;
pub mod claim;
pub mod experiment;
pub mod team;
pub mod training_job;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use claim::CapacityClaim;
pub use conditions::{ConditionReason, ConditionType};
pub use experiment::Experiment;
pub use pool::CapacityPool;
pub use team::Team;
pub use training_job::TrainingJob;

pub const GROUP: &str = "purser.dev";
pub const VERSION: &str = "v1alpha1";

/// Field manager of everything Purser applies.
pub const FIELD_MANAGER: &str = "purser";

/// Labels, annotations and taints that Purser puts on objects of others.
pub mod labels {
    /// Node, pod, Job, Service: the CapacityClaim.
    pub const CLAIM: &str = "purser.dev/claim";
    /// Node: the CapacityPool. Pod, Namespace: the pool whose shared fleet it should run on.
    pub const POOL: &str = "purser.dev/pool";
    /// Pod, Job, Service: the TrainingJob's name, shortened to 63 characters where it must be.
    pub const JOB: &str = "purser.dev/job";
    /// Pod, Job, Service: the TrainingJob's UID.
    pub const JOB_UID: &str = "purser.dev/job-uid";
    /// Pod, Job, Service: the attempt's number.
    pub const ATTEMPT: &str = "purser.dev/attempt";
    /// Pod annotation: how far the program is, 0 to 1.
    pub const PROGRESS: &str = "purser.dev/progress";
    /// Pod annotation: the metric that tells how far the program is, `NAME@PORT`.
    pub const PROGRESS_METRIC: &str = "purser.dev/progress-metric";
    /// Pod annotation: the fraction that its last checkpoint holds.
    pub const CHECKPOINT: &str = "purser.dev/checkpoint";
    /// Pod annotation: the TrainingJob's name, whole.
    pub const JOB_NAME: &str = "purser.dev/job-name";
    /// Pod annotation: how long the whole work takes on these machines (`4h`); fake nodes simulate work from it.
    pub const EXPECTED_DURATION: &str = "purser.dev/expected-duration";
    /// Pod annotation: how long a start takes before new work is done (`5m`).
    pub const RESTART_OVERHEAD: &str = "purser.dev/restart-overhead";
    /// Pod annotation: how often the program saves (`10m`).
    pub const CHECKPOINT_INTERVAL: &str = "purser.dev/checkpoint-interval";
    /// Pod annotation: the fraction that this attempt resumes from, 0 to 1.
    pub const RESUME_FRACTION: &str = "purser.dev/resume-fraction";
    /// Pod annotation: workers in the gang.
    pub const WORKERS: &str = "purser.dev/workers";
    /// Audience of the token with which a pod reports its progress.
    pub const TOKEN_AUDIENCE: &str = "purser.dev";
    /// Taint of a node whose machine is going away (NoSchedule).
    pub const LEAVING_TAINT: &str = "purser.dev/leaving";
    /// Startup taint of a machine that no claim has adopted yet (NoExecute).
    pub const UNCLAIMED_TAINT: &str = "purser.dev/unclaimed";
    /// Scheduling gate of pods that wait for capacity of their pool.
    pub const GATE: &str = "purser.dev/capacity";
    /// Finalizer that keeps pods until their record is copied, and jobs until their capacity is given back.
    pub const FINALIZER: &str = "purser.dev/record";
}

/// All CRDs, in the order in which they should be installed.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![CapacityPool::crd(), CapacityClaim::crd(), Experiment::crd(), Team::crd(), TrainingJob::crd()]
}
