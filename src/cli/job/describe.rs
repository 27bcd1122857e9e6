//! `purser job describe`: everything that is known of one job, in the order in which one asks.

use std::fmt::Write;

use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use crate::api::{CapacityClaim, TrainingJob};
use crate::capacity::claim::ClaimStatus;
use crate::cli::cluster_access::api_error;
use crate::cli::explain::decision_text;
use crate::cli::output::{self, Table};
use crate::cli::{CliError, Exit, Global};
use crate::training::{Attempt, JobStatus};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  purser job describe detector-finetune -n vision\n  purser job describe detector-finetune -n vision --json | jq .claims")]
pub struct Args {
    /// The job.
    name: String,
    /// The objects themselves, as JSON.
    #[arg(long)]
    json: bool,
}

/// A job with what belongs to it.
#[derive(Serialize)]
struct Description {
    job: TrainingJob,
    claims: Vec<CapacityClaim>,
    events: Vec<EventLine>,
}

#[derive(Serialize)]
struct EventLine {
    at: String,
    kind: String,
    reason: String,
    message: String,
}

pub async fn run(args: &Args, global: &Global) -> Result<Exit, CliError> {
    let (client, namespace) = (global.client().await?, global.namespace().await?);
    let description = gather(&client, &namespace, &args.name).await?;
    if args.json { output::print_json(&description)? } else { output::print(&text(&description))? }
    Ok(Exit::Done)
}

async fn gather(client: &Client, namespace: &str, name: &str) -> Result<Description, CliError> {
    let job = super::fetch(client, namespace, name).await?;
    let uid = job.uid().unwrap_or_default();
    let claims: Api<CapacityClaim> = Api::all(client.clone());
    let claims = claims.list(&ListParams::default()).await.map_err(|error| api_error("could not list claims", error))?.items;
    let mut claims: Vec<CapacityClaim> = claims.into_iter().filter(|claim| claim.spec.record.job.uid == uid).collect();
    claims.sort_by_key(|claim| (claim.spec.record.attempt, claim.spec.record.ask));
    Ok(Description { events: events(client, namespace, &uid).await?, job, claims })
}

/// The job's events, oldest first.
async fn events(client: &Client, namespace: &str, uid: &str) -> Result<Vec<EventLine>, CliError> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
    let mut events = api.list(&params).await.map_err(|error| api_error("could not list events", error))?.items;
    let time = |event: &Event| event.last_timestamp.as_ref().map(|time| time.0).or(event.event_time.as_ref().map(|time| time.0)).or(event.metadata.creation_timestamp.as_ref().map(|time| time.0));
    events.sort_by_key(time);
    let line = |event: &Event| EventLine {
        at: time(event).map(|time| time.to_string()).unwrap_or_default(),
        kind: event.type_.clone().unwrap_or_default(),
        reason: event.reason.clone().unwrap_or_default(),
        message: event.message.clone().unwrap_or_default(),
    };
    Ok(events.iter().map(line).collect())
}

/// Writing to a String cannot fail, so the results are let go.
fn text(description: &Description) -> String {
    let job = &description.job;
    let status = job.status.clone().unwrap_or_default();
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{:<12} {value}", format!("{name}:"));
        }
    };
    line("Job", &format!("{}/{}", job.namespace().unwrap_or_default(), job.name_any()));
    line("Experiment", &job.spec.experiment);
    line("Workers", &job.spec.workers.to_string());
    line("Work", &format!("{} on machines that fit, saved every {}", job.spec.expected_duration, job.spec.checkpoint.interval));
    line("Deadline", &job.spec.deadline.map(|deadline| deadline.to_rfc3339()).unwrap_or_default());
    line("Budget", &job.spec.budget.map(|budget| budget.to_string()).unwrap_or_default());
    line("Phase", &status.job.phase.to_string());
    line("Progress", &status.progress.map(|progress| format!("{:.1}% at {}", progress.fraction * 100.0, progress.at.to_rfc3339())).unwrap_or_default());
    line("Checkpoint", &status.checkpoint.map(|mark| format!("{:.1}% at {}", mark.fraction * 100.0, mark.at.to_rfc3339())).unwrap_or_default());
    line("Capacity", &status.job.capacity.clone().unwrap_or_default());
    line("Cost", &status.job.cost.map(|cost| cost.to_string()).unwrap_or_default());
    for (title, part) in [
        ("Decision", decision(&status.job)),
        ("Attempts", attempts(&status.job.attempts)),
        ("Claims", claims(&description.claims)),
        ("Conditions", conditions(&status.conditions)),
        ("Events", event_table(&description.events)),
    ] {
        if !part.is_empty() {
            let _ = write!(text, "\n{title}:\n{}", indented(&part));
        }
    }
    text
}

fn decision(status: &JobStatus) -> String {
    status.decision.as_ref().map(decision_text).unwrap_or_default()
}

fn attempts(attempts: &[Attempt]) -> String {
    let mut table = Table::new(&[">#", "capacity", "started", "ended", "from", "outcome", "reason"]);
    for attempt in attempts {
        table.row([
            attempt.number.to_string(),
            attempt.offer.to_string(),
            short(attempt.started_at),
            attempt.ended_at.map(short).unwrap_or_default(),
            format!("{:.1}%", attempt.from_fraction * 100.0),
            attempt.outcome.map(|outcome| format!("{outcome:?}")).unwrap_or_else(|| "running".to_owned()),
            attempt.reason.clone().unwrap_or_default(),
        ]);
    }
    if table.is_empty() { String::new() } else { table.text() }
}

fn claims(claims: &[CapacityClaim]) -> String {
    let mut table = Table::new(&["claim", ">attempt", ">count", "offer", ">price/h", "phase", "metered", "note"]);
    for claim in claims {
        let (record, status) = (&claim.spec.record, claim.status.clone().unwrap_or_default());
        table.row([
            claim.name_any(),
            record.attempt.to_string(),
            record.count.to_string(),
            record.offer.to_string(),
            record.offer.price.per_hour().decimal(),
            format!("{:?}", status.phase),
            status.metered.map(|metered| metered.to_string()).unwrap_or_default(),
            claim_note(&status),
        ]);
    }
    if table.is_empty() { String::new() } else { table.text() }
}

fn claim_note(status: &ClaimStatus) -> String {
    if let Some(refusal) = &status.refusal {
        return format!("{:?}: {}", refusal.code, refusal.message);
    }
    let notices: Vec<String> = status
        .instances
        .iter()
        .filter_map(|instance| instance.notice.as_ref().map(|notice| format!("{} {:?} {}", instance.id, notice.kind, short(notice.at))))
        .collect();
    notices.join(", ")
}

fn conditions(conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition]) -> String {
    let mut table = Table::new(&["type", "status", "reason", "message"]);
    for condition in conditions {
        table.row([&condition.type_, &condition.status, &condition.reason, &condition.message].map(String::clone));
    }
    if table.is_empty() { String::new() } else { table.text() }
}

fn event_table(events: &[EventLine]) -> String {
    let mut table = Table::new(&["at", "type", "reason", "message"]);
    for event in events {
        table.row([&event.at, &event.kind, &event.reason, &event.message].map(String::clone));
    }
    if table.is_empty() { String::new() } else { table.text() }
}

fn short(time: chrono::DateTime<chrono::Utc>) -> String {
    time.format("%m-%d %H:%M:%S").to_string()
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
