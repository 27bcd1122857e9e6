//! `TrainingJob`: a gang of workers that must be done by a deadline at the least cost.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::capacity::{CapacityKind, InstanceRequirements};
use crate::training::{Checkpoint, CheckpointMark, Job, JobRef, JobStatus, Progress, ProgressMetric};
use crate::units::{Money, Span};

/// A training job: what to run, on how many workers, until when, for how much.
#[derive(CustomResource, KubeSchema, Clone, Debug, Serialize, Deserialize)]
#[kube(
    group = "purser.dev",
    version = "v1alpha1",
    kind = "TrainingJob",
    namespaced,
    status = "TrainingJobStatus",
    shortname = "tj",
    category = "purser",
    doc = "A training job that Purser runs on the cheapest capacity that meets its deadline.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "Where it is in its life."),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progressPercent", description = "How far the program is."),
    printcolumn(name = "Capacity", type_ = "string", json_path = ".status.capacity", description = "What it runs on."),
    printcolumn(name = "Cost", type_ = "string", json_path = ".status.costRounded", description = "Charges so far."),
    printcolumn(name = "Deadline", type_ = "string", json_path = ".spec.deadline", description = "When it must be done."),
    printcolumn(name = "Attempts", type_ = "integer", json_path = ".status.attemptCount", priority = 1),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.decision.message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.workers == oldSelf.workers && self.experiment == oldSelf.experiment && self.template == oldSelf.template")
        .message("workers, experiment and template cannot change once the job exists; delete it and submit it again")
)]
pub struct TrainingJobSpec {
    /// The Experiment (same namespace) that owns the job and pays for it.
    #[schemars(length(min = 1, max = 253))]
    pub experiment: String,
    /// Workers that run at once or not at all (a gang), one machine each. Default 1, at most 1000.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub workers: i64,
    /// The pod each worker runs, a PodTemplateSpec. Purser adds the rendezvous environment (MASTER_ADDR, MASTER_PORT,
    /// WORLD_SIZE, RANK, PURSER_…), the node selector and tolerations, and restartPolicy Never.
    #[schemars(schema_with = "any_object")]
    pub template: serde_json::Value,
    /// The time by which it must be done (RFC 3339), for example `2026-12-01T18:00:00Z`. Default none: then the cheapest
    /// capacity wins however long it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
    /// How long the whole work takes on machines that meet the requirements, without interruptions: `4h`, `1h 30m`.
    #[x_kube(validation = Rule::new("!self.matches('^[0 smhdayw]*$')").message("expectedDuration must be more than zero"))]
    pub expected_duration: Span,
    /// How the program saves its state, and where.
    #[serde(default)]
    pub checkpoint: Checkpoint,
    /// How its machines may be bought. Default all: reserved, spot, on-demand.
    #[serde(default = "all_kinds")]
    #[schemars(length(min = 1, max = 3))]
    pub capacity_kinds: Vec<CapacityKind>,
    /// What each worker's machine must be.
    #[serde(default)]
    pub requirements: InstanceRequirements,
    /// The CapacityPool to use. Default: any that fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub pool: Option<String>,
    /// What the job may cost in all, for example `"120.50"` (US dollars) or `"120.50 EUR"`. Default: only the experiment's
    /// and the team's budgets bound it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.startsWith('-') && !self.matches('^[0.]+( [A-Z]{3})?$')").message("budget must be more than zero"))]
    pub budget: Option<Money>,
    /// Failures of the program itself that are forgiven; interruptions never count. Default 2, 0 to 100.
    #[serde(default = "two")]
    #[schemars(range(min = 0, max = 100))]
    pub retries_max: i64,
    /// Higher runs first. Default 0, -1000 to 1000.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,
    /// Set to true to stop the job and give its machines back; it cannot be started again.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self || !oldSelf").message("a cancelled job cannot be revived; submit it again"))]
    pub cancelled: bool,
}

/// What became of it so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrainingJobStatus {
    #[serde(flatten)]
    pub job: JobStatus,
    /// How far the program says it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The last state that was saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointMark>,
    /// `progress` for people: `42%`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_percent: Option<String>,
    /// `cost` for people: `12.34 USD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_rounded: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt_count: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

fn one() -> i64 {
    1
}

fn two() -> i64 {
    2
}

fn all_kinds() -> Vec<CapacityKind> {
    CapacityKind::ALL.to_vec()
}

/// A pod template is checked by the API server itself (a dry run of the Job made from it), not by a copy of its schema here.
fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobSpecError {
    #[error("spec.workers is {workers}; a job needs 1 to 1000 workers")]
    Workers { workers: i64 },
    #[error("spec.expectedDuration is zero; say how long the work takes, for example 4h")]
    Duration,
    #[error("spec.budget is {budget}; a budget is more than zero")]
    Budget { budget: Money },
    #[error("spec.retriesMax is {retries}; 0 to 100 are possible")]
    Retries { retries: i64 },
    #[error("spec.capacityKinds is empty; allow at least one of reserved, spot, on-demand")]
    NoKind,
    #[error("spec.checkpoint.uri {uri:?} is no URI that a checkpoint can have: {why}; write s3://bucket/prefix or file:///path")]
    CheckpointUri { uri: String, why: String },
    #[error("spec.template is no pod template: {why}")]
    Template { why: String },
    #[error("the object has no {what} yet; only stored objects can be scheduled")]
    NotStored { what: &'static str },
}

impl TrainingJobSpec {
    /// Everything that can be said about the spec alone.
    pub fn validate(&self) -> Result<(), JobSpecError> {
        if !(1..=1000).contains(&self.workers) {
            return Err(JobSpecError::Workers { workers: self.workers });
        }
        if self.expected_duration.is_zero() {
            return Err(JobSpecError::Duration);
        }
        if let Some(budget) = self.budget.filter(|budget| budget.atoms() <= 0) {
            return Err(JobSpecError::Budget { budget });
        }
        if !(0..=100).contains(&self.retries_max) {
            return Err(JobSpecError::Retries { retries: self.retries_max });
        }
        if self.capacity_kinds.is_empty() {
            return Err(JobSpecError::NoKind);
        }
        if let Some(uri) = &self.checkpoint.uri {
            check_checkpoint_uri(uri)?;
        }
        check_template(&self.template)
    }
}

fn check_checkpoint_uri(uri: &str) -> Result<(), JobSpecError> {
    let error = |why: &str| JobSpecError::CheckpointUri { uri: uri.to_owned(), why: why.to_owned() };
    let parsed = url::Url::parse(uri).map_err(|parse| error(&parse.to_string()))?;
    match parsed.scheme() {
        "s3" if parsed.host_str().is_none_or(str::is_empty) => Err(error("it names no bucket")),
        "file" if !parsed.path().starts_with('/') || parsed.path() == "/" => Err(error("it names no path")),
        "s3" | "file" => Ok(()),
        other => Err(error(&format!("the scheme is {other}"))),
    }
}

fn check_template(template: &serde_json::Value) -> Result<(), JobSpecError> {
    let error = |why: String| JobSpecError::Template { why };
    let parsed: k8s_openapi::api::core::v1::PodTemplateSpec =
        serde_json::from_value(template.clone()).map_err(|parse| error(parse.to_string()))?;
    let metric = parsed.metadata.as_ref().and_then(|metadata| metadata.annotations.as_ref()?.get(super::labels::PROGRESS_METRIC));
    if let Some(metric) = metric {
        metric.parse::<ProgressMetric>().map_err(|parse| error(format!("annotation {}: {parse}", super::labels::PROGRESS_METRIC)))?;
    }
    let spec = parsed.spec.ok_or_else(|| error("spec is missing; give it spec.containers".to_owned()))?;
    match spec.containers.first() {
        None => Err(error("spec.containers is empty; the first container is the training program".to_owned())),
        Some(container) if container.image.as_deref().is_none_or(str::is_empty) => {
            Err(error(format!("container {:?} has no image", container.name)))
        }
        Some(_) => Ok(()),
    }
}

impl TrainingJob {
    pub fn job_ref(&self) -> Result<JobRef, JobSpecError> {
        Ok(JobRef {
            namespace: self.namespace().ok_or(JobSpecError::NotStored { what: "namespace" })?,
            name: self.name_any(),
            uid: self.uid().ok_or(JobSpecError::NotStored { what: "UID" })?,
        })
    }
}

impl TryFrom<&TrainingJob> for Job {
    type Error = JobSpecError;

    fn try_from(object: &TrainingJob) -> Result<Job, JobSpecError> {
        object.spec.validate()?;
        let created = object.creation_timestamp().ok_or(JobSpecError::NotStored { what: "creation time" })?;
        let spec = object.spec.clone();
        Ok(Job {
            id: object.job_ref()?,
            generation: object.metadata.generation.unwrap_or_default(),
            submitted_at: super::conditions::core_time(&created),
            experiment: spec.experiment,
            workers: u32::try_from(spec.workers).map_err(|_| JobSpecError::Workers { workers: spec.workers })?,
            expected_duration: spec.expected_duration,
            deadline: spec.deadline,
            checkpoint: spec.checkpoint,
            capacity_kinds: spec.capacity_kinds,
            requirements: spec.requirements,
            pool: spec.pool,
            budget: spec.budget,
            retries_max: u32::try_from(spec.retries_max).map_err(|_| JobSpecError::Retries { retries: spec.retries_max })?,
            priority: spec.priority,
            cancelled: spec.cancelled,
        })
    }
}
