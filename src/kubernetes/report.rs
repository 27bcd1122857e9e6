//! What people see of a job besides its record: conditions, rounded numbers, Events. Pure but for [`Announcer`].

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Client;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::Mutex;

use crate::api::conditions::condition;
use crate::api::{ConditionReason, ConditionType, TrainingJob};
use crate::scheduling::{Decision, DecisionKind};
use crate::training::{JobPhase, JobRef, JobStatus};
use crate::units::Money;

/// Events hold 1 KiB of text.
const NOTE_MAX: usize = 1000;

/// `42%`; a job that succeeded is done whatever its program said last.
pub fn progress_percent(phase: JobPhase, fraction: Option<f64>) -> Option<String> {
    match (phase, fraction) {
        (JobPhase::Succeeded, _) => Some("100%".to_owned()),
        (_, Some(fraction)) => Some(format!("{:.0}%", (fraction * 100.0).floor())),
        (_, None) => None,
    }
}

/// `12.34 USD`.
pub fn rounded(amount: &Money) -> String {
    format!("{} {}", amount.rounded_to_cents(), amount.currency())
}

/// The conditions that follow from a job's phase and last decision.
pub fn job_conditions(previous: &[Condition], status: &JobStatus, generation: i64, now: DateTime<Utc>) -> Vec<Condition> {
    let (reason, message) = match &status.decision {
        Some(decision) => (decision.reason.clone(), decision.message.clone()),
        None => (ConditionReason::Accepted.to_string(), String::new()),
    };
    let refused = status.decision.as_ref().is_some_and(|decision| decision.kind == DecisionKind::Refuse.to_string());
    let invalid = [ConditionReason::InvalidSpec, ConditionReason::UnknownExperiment, ConditionReason::UnknownPool];
    let is_invalid = invalid.iter().any(|name| name.to_string() == reason);
    let truths = [
        (ConditionType::Ready, Some(!is_invalid)),
        (ConditionType::Admitted, Some(!refused && !is_invalid)),
        (ConditionType::Provisioned, Some(status.phase == JobPhase::Running)),
        (ConditionType::Running, Some(status.phase == JobPhase::Running)),
        (ConditionType::Succeeded, succeeded(status.phase)),
    ];
    let said = |(type_, truth)| condition(previous, type_, truth, &reason, &message, Some(generation), now);
    truths.into_iter().map(said).collect()
}

fn succeeded(phase: JobPhase) -> Option<bool> {
    match phase {
        JobPhase::Succeeded => Some(true),
        JobPhase::Failed | JobPhase::Cancelled => Some(false),
        JobPhase::Pending | JobPhase::Waiting | JobPhase::Provisioning | JobPhase::Running | JobPhase::Interrupted => None,
    }
}

impl std::fmt::Display for DecisionKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// Publishes an Event when a job's decision changes; never fatal.
pub struct Announcer {
    recorder: Recorder,
    /// The last reason that was announced, by job; lost with the process, which costs one repeated Event.
    announced: Mutex<BTreeMap<JobRef, String>>,
}

impl Announcer {
    pub fn new(client: Client, instance: &str) -> Announcer {
        let reporter = Reporter { controller: "purser.dev/operator".to_owned(), instance: Some(instance.to_owned()) };
        Announcer { recorder: Recorder::new(client, reporter), announced: Mutex::default() }
    }

    pub async fn announce(&self, decisions: &BTreeMap<JobRef, Decision>) {
        let mut announced = self.announced.lock().await;
        announced.retain(|job, _| decisions.contains_key(job));
        for (job, decision) in decisions {
            let reason = decision.because.code.to_string();
            if announced.get(job) == Some(&reason) {
                continue;
            }
            match self.recorder.publish(&event(decision), &reference(job)).await {
                Ok(()) => drop(announced.insert(job.clone(), reason)),
                Err(error) => tracing::debug!(%job, %error, "could not publish an Event"),
            }
        }
    }
}

fn event(decision: &Decision) -> Event {
    let alarming = matches!(decision.kind, DecisionKind::Refuse);
    Event {
        type_: if alarming { EventType::Warning } else { EventType::Normal },
        reason: decision.because.code.to_string(),
        note: Some(decision.because.message.chars().take(NOTE_MAX).collect()),
        action: decision.kind.to_string(),
        secondary: None,
    }
}

fn reference(job: &JobRef) -> ObjectReference {
    ObjectReference {
        api_version: Some(TrainingJob::api_version(&()).into_owned()),
        kind: Some(TrainingJob::kind(&()).into_owned()),
        namespace: Some(job.namespace.clone()),
        name: Some(job.name.clone()),
        uid: Some(job.uid.clone()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_never_rounds_up_to_done() {
        assert_eq!(progress_percent(JobPhase::Running, Some(0.999)), Some("99%".to_owned()));
        assert_eq!(progress_percent(JobPhase::Succeeded, Some(0.98)), Some("100%".to_owned()));
        assert_eq!(progress_percent(JobPhase::Pending, None), None);
    }

    #[test]
    fn a_transition_keeps_its_time_until_the_truth_changes() {
        let (early, late) = (DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(1));
        let waiting = JobStatus::default();
        let first = job_conditions(&[], &waiting, 1, early);
        let second = job_conditions(&first, &JobStatus { phase: JobPhase::Running, ..waiting }, 1, late);
        let time = |conditions: &[Condition], type_: ConditionType| {
            conditions.iter().find(|one| one.type_ == type_.to_string()).map(|one| crate::api::conditions::core_time(&one.last_transition_time)).unwrap()
        };
        assert_eq!(time(&second, ConditionType::Ready), early);
        assert_eq!(time(&second, ConditionType::Running), late);
    }
}
