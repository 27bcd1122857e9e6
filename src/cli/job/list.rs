//! `purser job list`: one row a job.

use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde::Serialize;

use crate::api::TrainingJob;
use crate::cli::cluster_access::api_error;
use crate::cli::output::{self, Format, Table};
use crate::cli::{CliError, Exit, Global};
use crate::training::JobPhase;

/// A list is read in pieces of this size, so that ten thousand jobs do not arrive at once.
const PAGE: u32 = 500;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  purser job list -n vision\n  purser job list -A --phase Waiting\n  purser job list -A --output json | jq '.[] | select(.phase == \"Running\") | .cost'")]
pub struct Args {
    /// Jobs of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only jobs of this phase, for example Running or Waiting.
    #[arg(long, value_name = "PHASE")]
    phase: Option<String>,
    /// The form.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What a row says; the same in every form.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobRow {
    pub namespace: String,
    pub name: String,
    pub experiment: String,
    pub phase: JobPhase,
    /// 0 to 1.
    pub progress: Option<f64>,
    pub capacity: Option<String>,
    /// Exact, with its currency.
    pub cost: Option<String>,
    pub deadline: Option<String>,
    pub attempts: usize,
    /// `Launch`, `Wait`, `Refuse`, `Keep` or `Finish`.
    pub decision: Option<String>,
    pub why: Option<String>,
}

impl From<&TrainingJob> for JobRow {
    fn from(job: &TrainingJob) -> JobRow {
        let status = job.status.clone().unwrap_or_default();
        JobRow {
            namespace: job.namespace().unwrap_or_default(),
            name: job.name_any(),
            experiment: job.spec.experiment.clone(),
            phase: status.job.phase,
            progress: status.progress.map(|progress| progress.fraction),
            capacity: status.job.capacity,
            cost: status.job.cost.map(|cost| cost.to_string()),
            deadline: job.spec.deadline.map(|deadline| deadline.format("%Y-%m-%d %H:%MZ").to_string()),
            attempts: status.job.attempts.len(),
            decision: status.job.decision.as_ref().map(|decision| decision.kind.clone()),
            why: status.job.decision.map(|decision| decision.message),
        }
    }
}

pub async fn run(args: &Args, global: &Global) -> Result<Exit, CliError> {
    let client = global.client().await?;
    let namespace = global.namespace().await?;
    let api: Api<TrainingJob> = if args.all_namespaces { Api::all(client) } else { Api::namespaced(client, &namespace) };
    let mut rows = rows(&api).await.map_err(|error| api_error("could not list jobs", error))?;
    rows.retain(|row| args.phase.as_ref().is_none_or(|phase| row.phase.to_string().eq_ignore_ascii_case(phase)));
    if rows.is_empty() && args.output == Format::Table {
        let place = if args.all_namespaces { "this cluster".to_owned() } else { format!("namespace {namespace}") };
        eprintln!("no jobs in {place}; submit one: purser job submit -f FILE");
        return Ok(Exit::Done);
    }
    output::emit(args.output, &table(&rows, args.all_namespaces), &rows)?;
    Ok(Exit::Done)
}

/// Every job that the API gives, page by page.
pub async fn rows(api: &Api<TrainingJob>) -> Result<Vec<JobRow>, kube::Error> {
    let (mut all, mut params) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let page = api.list(&params).await?;
        all.extend(page.items.iter().map(JobRow::from));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// JOB PHASE PROGRESS CAPACITY COST DEADLINE WHY.
pub fn table(rows: &[JobRow], with_namespace: bool) -> Table {
    let mut table = Table::new(&["job", "phase", ">progress", "capacity", ">cost", "deadline", "why"]);
    for row in rows {
        let job = if with_namespace { format!("{}/{}", row.namespace, row.name) } else { row.name.clone() };
        table.row([
            job,
            row.phase.to_string(),
            row.progress.map(percent).unwrap_or_default(),
            row.capacity.clone().unwrap_or_default(),
            row.cost.as_deref().map(cents).unwrap_or_default(),
            row.deadline.clone().unwrap_or_default(),
            row.why.clone().unwrap_or_default(),
        ]);
    }
    table
}

fn percent(fraction: f64) -> String {
    // Down, so that 100% is said only when it is done.
    format!("{}%", (fraction * 100.0).floor())
}

fn cents(exact: &str) -> String {
    exact.parse::<crate::units::Money>().map_or_else(|_| exact.to_owned(), |money| format!("{} {}", money.rounded_to_cents(), money.currency()))
}
