//! Condition types and reasons; a string literal of one outside this file is a bug.

use std::fmt;

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    /// The object makes sense and names what exists.
    Ready,
    /// The job may spend: budget and rules allow it.
    Admitted,
    /// Its machines are there.
    Provisioned,
    /// Its gang runs.
    Running,
    /// It is over: True done, False failed or cancelled.
    Succeeded,
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Reasons that controllers give besides the planner's own ([`crate::scheduling::action::ReasonCode`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionReason {
    Accepted,
    InvalidSpec,
    UnknownExperiment,
    UnknownPool,
    NodesClaimedTwice,
    NamespaceClaimedTwice,
    CloudUnreachable,
    NoMachineFits,
}

impl fmt::Display for ConditionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Kubernetes' condition; the transition time is kept while the status stays the same.
pub fn condition(
    previous: &[Condition],
    type_: ConditionType,
    status: Option<bool>,
    reason: impl fmt::Display,
    message: impl Into<String>,
    generation: Option<i64>,
    now: DateTime<Utc>,
) -> Condition {
    let (type_, status) = (type_.to_string(), match status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    });
    let kept = previous.iter().find(|old| old.type_ == type_ && old.status == status).map(|old| old.last_transition_time.clone());
    Condition {
        last_transition_time: kept.unwrap_or_else(|| kubernetes_time(now)),
        message: message.into(),
        observed_generation: generation,
        reason: reason.to_string(),
        status: status.to_owned(),
        type_,
    }
}

/// k8s-openapi speaks jiff; the rest of Purser speaks chrono. Whole seconds, as Kubernetes stores them.
pub fn kubernetes_time(time: DateTime<Utc>) -> Time {
    Time(k8s_openapi::jiff::Timestamp::from_second(time.timestamp()).unwrap_or(k8s_openapi::jiff::Timestamp::UNIX_EPOCH))
}

pub fn core_time(time: &Time) -> DateTime<Utc> {
    DateTime::from_timestamp(time.0.as_second(), 0).unwrap_or_default()
}
