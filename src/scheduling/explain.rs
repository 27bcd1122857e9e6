//! Decisions and plans in words: `purser explain job/x`, `purser plan`, Events and logs say the same things.

use serde::Serialize;

use super::budget::amount;
use super::placement::time_words;
use super::{Action, Decision, Plan};
use crate::capacity::Serves;
use crate::training::{Considered, DecisionRecord, JobRef, JobStatus};

/// A decision as a row: what `purser plan` shows of a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionRow {
    pub job: String,
    pub decision: String,
    pub reason: String,
    pub message: String,
    pub finish: Option<String>,
    pub cost: Option<String>,
    pub considered: Vec<Considered>,
}

/// An action as a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ActionRow {
    pub action: &'static str,
    pub subject: String,
    pub detail: String,
}

pub fn decision_row(job: &JobRef, decision: &Decision) -> DecisionRow {
    DecisionRow {
        job: job.to_string(),
        decision: format!("{:?}", decision.kind),
        reason: decision.because.code.to_string(),
        message: decision.because.message.clone(),
        finish: decision.finish.map(time_words),
        cost: decision.cost.map(|cost| cost.to_string()),
        considered: decision.considered.clone(),
    }
}

/// The whole plan as text, one line each: alerts, decisions, actions.
pub fn plan_lines(plan: &Plan) -> Vec<String> {
    let alerts = plan.alerts.iter().map(|alert| format!("! {alert}"));
    let decisions = plan.decisions.iter().map(|(job, decision)| decision_line(job, decision));
    let actions = plan.actions.iter().map(|action| format!("→ {}", action_line(action)));
    alerts.chain(decisions).chain(actions).collect()
}

/// `team-a/bert: Launch (SpotWithinSlack): 4 × g5.xlarge spot us-east-1a at …`.
pub fn decision_line(job: &JobRef, decision: &Decision) -> String {
    format!("{job}: {:?} ({}): {}", decision.kind, decision.because.code, decision.because.message)
}

pub fn action_line(action: &Action) -> String {
    let ActionRow { action, subject, detail } = action_row(action);
    if detail.is_empty() { format!("{action} {subject}") } else { format!("{action} {subject}: {detail}") }
}

pub fn action_row(action: &Action) -> ActionRow {
    let row = |action, subject: &str, detail: String| ActionRow { action, subject: subject.to_owned(), detail };
    match action {
        Action::WriteClaim { name, record } => {
            let what = super::lifecycle::words(record.count, &record.offer);
            let whom = match record.serves() {
                Serves::Attempt { job, attempt } => format!("{job}, attempt {attempt}"),
                Serves::Pods(slots) => format!("{} pods of pool {}", slots.iter().map(|slot| slot.pods.len()).sum::<usize>(), record.pool),
            };
            row("WriteClaim", name, format!("{what} for {whom}, ask {}", record.ask))
        }
        Action::AskCloud { claim, uid: _ } => row("AskCloud", claim, String::new()),
        Action::WithdrawClaim { claim, uid: _, because } => row("WithdrawClaim", claim, because.clone()),
        Action::RecordInstances { claim, uid: _, instances, ended } => {
            let ended = if *ended { ", all ended" } else { "" };
            row("RecordInstances", claim, format!("{} machines{ended}", instances.len()))
        }
        Action::AdoptNode { claim, uid: _, node, instance } => row("AdoptNode", node, format!("{instance} of {claim}")),
        Action::TaintNode { node, because } => row("TaintNode", node, because.clone()),
        Action::RemoveNode { node, instance } => row("RemoveNode", node, format!("{instance} has ended")),
        Action::Release { claim, uid: _, instances, because } => row("Release", claim, format!("{}: {because}", instances.join(", "))),
        Action::RecordJob { job, generation: _, version: _, status } => row("RecordJob", &job.to_string(), status_words(status)),
        Action::StartAttempt { job, version: _, attempt, claims, resume_fraction } => {
            row("StartAttempt", &job.to_string(), format!("{attempt} on {} from {resume_fraction:.2}", claims.join(", ")))
        }
        Action::EndAttempt { job, attempt, workload: _, grace_seconds, because } => {
            row("EndAttempt", &job.to_string(), format!("{attempt} with {grace_seconds} s of grace: {because}"))
        }
        Action::ReleasePods { job, attempt, workload: _, pods } => {
            row("ReleasePods", &job.to_string(), format!("{} of attempt {attempt}", pods.len()))
        }
        Action::TerminateOrphans { pool, instances } => row("TerminateOrphans", pool, instances.join(", ")),
        Action::DeleteClaim { claim, uid: _ } => row("DeleteClaim", claim, String::new()),
        Action::ReleaseJob { job } => row("ReleaseJob", &job.to_string(), String::new()),
        Action::PlacePod { pod, claim, node, hostname: _ } => row("PlacePod", &pod.to_string(), format!("on {node} of {claim}")),
        Action::EvictPod { pod, node, because } => row("EvictPod", &pod.to_string(), format!("from {node}: {because}")),
    }
}

fn status_words(status: &JobStatus) -> String {
    let attempt = status.attempts.last().map(|attempt| {
        let outcome = attempt.outcome.map_or("open".to_owned(), |outcome| format!("{outcome:?}"));
        format!(", attempt {} {outcome}", attempt.number)
    });
    format!("{}{}", status.phase, attempt.unwrap_or_default())
}

/// `purser explain job/x`: the recorded decision, the offers that were looked at, and how it came here.
pub fn job_lines(job: &JobRef, status: &JobStatus) -> Vec<String> {
    let mut lines = vec![format!("{job} is {}", status.phase)];
    lines.extend(status.capacity.iter().map(|capacity| format!("capacity: {capacity}")));
    lines.extend(status.cost.iter().map(|cost| format!("cost so far: {}", amount(*cost))));
    lines.extend(status.decision.iter().flat_map(record_lines));
    lines.extend(status.attempts.iter().map(|attempt| {
        let end = match (attempt.ended_at, attempt.outcome) {
            (Some(at), Some(outcome)) => format!("{outcome:?} at {}", time_words(at)),
            _ => "open".to_owned(),
        };
        let reason = attempt.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let from = (attempt.from_fraction * 100.0).floor();
        format!("attempt {} on {} from {} at {from} %, {end}{reason}", attempt.number, attempt.offer, time_words(attempt.started_at))
    }));
    lines
}

fn record_lines(record: &DecisionRecord) -> Vec<String> {
    let head = format!("{} ({}) at {}: {}", record.kind, record.reason, time_words(record.at), record.message);
    let offers = record.considered.iter().map(|offer| {
        let cost = offer.cost.map_or("-".to_owned(), amount);
        format!("  {} from {} at {}, rest {cost}: {}", offer.offer, offer.pool, offer.offer.price, offer.verdict)
    });
    std::iter::once(head).chain(offers).collect()
}
