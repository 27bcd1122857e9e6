//! `purser plan`: what would be bought for the jobs of a file, when they would finish and what they would cost, without
//! buying and without a cluster. It calls the planner that the operator calls.

#[cfg(feature = "aws")]
mod market;
mod world;

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::explain::considered_table;
use super::output::{self, Format, Table};
use super::{CliError, Exit, Global, job};
use crate::capacity::{Offer, PriceSource};
use crate::kubernetes::clock::MarketClock;
use crate::scheduling::action::{Decision, DecisionKind};
use crate::scheduling::snapshot::{PoolView, Snapshot};
use crate::scheduling::{audit, plan};
use crate::scheduling::advice::Expected;
use crate::training::{Considered, JobRef};
use crate::units::{Currency, Money, money};

/// The planner's word for the offer it takes.
const CHOSEN: &str = "chosen";

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  purser plan -f job.yaml\n  purser plan -f pools.yaml -f experiments.yaml -f jobs.yaml --offers\n  purser plan -f manifests/samples/ --at 2026-03-02T08:00:00Z\n\nExit code 3: a job of the files could not run.")]
pub struct Args {
    /// YAML or JSON with jobs, and the experiments, teams and pools they need; a folder means its files; - is standard input.
    #[arg(short, long, required = true, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// The time of the decision [default: now].
    #[arg(long, value_name = "TIME")]
    at: Option<DateTime<Utc>>,
    /// The region to assume where the files have no CapacityPool.
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// Ask AWS for prices, reservations and quotas (with its usual credentials) instead of the catalogue in the binary.
    #[cfg(feature = "aws")]
    #[arg(long)]
    live: bool,
    /// The market's clock, where it is not the real one: the twin's /purser/clock.
    #[arg(long, value_name = "URL")]
    market_clock: Option<String>,
    /// Show the offers that were looked at, and why each won or lost.
    #[arg(long)]
    offers: bool,
    /// The form.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// One job of the plan; the same in every form.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PlannedJob {
    namespace: String,
    name: String,
    /// `Launch`, `Wait` or `Refuse`.
    decision: String,
    reason: String,
    message: String,
    workers: u32,
    offer: Option<Offer>,
    finish: Option<DateTime<Utc>>,
    deadline: Option<DateTime<Utc>>,
    /// Exact, with its currency: if nothing is interrupted.
    cost: Option<Money>,
    /// Within which cost and finish lie in 90 of 100 cases.
    expected: Option<Expected>,
    considered: Vec<Considered>,
}

#[derive(Serialize)]
struct PlanOutput {
    at: DateTime<Utc>,
    prices: Vec<String>,
    notes: Vec<String>,
    jobs: Vec<PlannedJob>,
    total: Money,
}

pub async fn run(args: &Args, global: &Global) -> Result<Exit, CliError> {
    let documents = job::read_all(&args.file)?;
    let namespace = global.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let clock = clock(args).await?;
    let assume = world::Assumptions { at: args.at.unwrap_or_else(|| clock.now()), namespace, region: args.region.clone() };
    let world = world::build(&documents, &assume).map_err(|error| CliError::usage("cannot plan these files").because(error))?;
    #[cfg(feature = "aws")]
    let world = if args.live { market::at_live_prices(world, &documents, clock).await? } else { world };
    if world.snapshot.jobs.is_empty() {
        return Err(CliError::usage("the files hold no TrainingJob").hint("add one with -f, for example manifests/samples/jobs.yaml"));
    }
    let decided = audit::audit(&world.snapshot, plan::plan(&world.snapshot));
    let jobs: Vec<PlannedJob> = world.snapshot.jobs.iter().filter_map(|view| planned(&view.job, decided.decisions.get(&view.job.id)?)).collect();
    let output = summary(&world, jobs)?;
    let is_found = output.jobs.iter().any(|job| job.offer.is_none());
    print(args, &output)?;
    Ok(if is_found { Exit::Found } else { Exit::Done })
}

async fn clock(args: &Args) -> Result<MarketClock, CliError> {
    match &args.market_clock {
        Some(url) => MarketClock::fetch(url).await.map_err(|error| CliError::failed("cannot plan without a time").because(error)),
        None => Ok(MarketClock::identity()),
    }
}

fn planned(job: &crate::training::Job, decision: &Decision) -> Option<PlannedJob> {
    let JobRef { namespace, name, uid: _ } = job.id.clone();
    let chosen = decision.considered.iter().find(|considered| considered.verdict.starts_with(CHOSEN));
    Some(PlannedJob {
        namespace,
        name,
        decision: format!("{:?}", decision.kind),
        reason: decision.because.code.to_string(),
        message: decision.because.message.clone(),
        workers: job.workers,
        offer: chosen.filter(|_| decision.kind == DecisionKind::Launch).map(|considered| considered.offer.clone()),
        finish: decision.finish,
        deadline: job.deadline,
        cost: decision.cost,
        expected: decision.prospect.as_ref().and_then(|prospect| prospect.expected(seed_of(&job.id))),
        considered: decision.considered.clone(),
    })
}

/// The same job, the same forecast.
fn seed_of(job: &JobRef) -> u64 {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(job.to_string());
    digest.iter().take(8).fold(0, |seed, byte| (seed << 8) | u64::from(*byte))
}

fn expected_words(expected: &Expected) -> String {
    let time = |time: DateTime<Utc>| time.format("%Y-%m-%d %H:%MZ").to_string();
    format!(
        "In 90 of 100 cases it costs {} to {} USD and ends between {} and {}; interruptions: {}.{:02} on average; late in {} of 100.",
        expected.cost_low.rounded_to_cents(),
        expected.cost_high.rounded_to_cents(),
        time(expected.finish_low),
        time(expected.finish_high),
        expected.interruptions_percent / 100,
        expected.interruptions_percent % 100,
        expected.late_percent,
    )
}

fn summary(world: &world::World, jobs: Vec<PlannedJob>) -> Result<PlanOutput, CliError> {
    let costs = jobs.iter().filter(|job| job.offer.is_some()).filter_map(|job| job.cost);
    let total = money::sum(Currency::USD, costs).map_err(|error| CliError::failed("the costs cannot be added up").because(error))?;
    let mut notes = world.notes.clone();
    notes.extend(world::price_warnings(jobs.iter().filter_map(|job| job.offer.as_ref())));
    Ok(PlanOutput { at: world.snapshot.now, prices: prices(&world.snapshot), notes, jobs, total })
}

fn prices(snapshot: &Snapshot) -> Vec<String> {
    let source = |pool: &PoolView| match &pool.price_source {
        PriceSource::Live => format!("pool {}: live", pool.name),
        PriceSource::Catalogue { as_of } => format!("pool {}: catalogue of {as_of}, spot as a monthly average", pool.name),
        PriceSource::Pool => format!("pool {}: stated in the pool", pool.name),
    };
    snapshot.pools.iter().filter(|pool| !pool.offers.is_empty()).map(source).collect()
}

fn print(args: &Args, output: &PlanOutput) -> Result<(), CliError> {
    if args.output != Format::Table {
        return output::emit(args.output, &table(output, true), output);
    }
    output::print(&for_people(output, args.offers))?;
    for note in output.prices.iter().map(|prices| format!("prices of {prices}")).chain(output.notes.iter().cloned()) {
        eprintln!("note: {note}");
    }
    Ok(())
}

/// The table, and under it why, job by job.
fn for_people(output: &PlanOutput, with_offers: bool) -> String {
    let mut text = table(output, false).text();
    for job in &output.jobs {
        text.push_str(&format!("\n{}/{}: {} ({}): {}\n", job.namespace, job.name, job.decision, job.reason, job.message));
        text.extend(job.expected.as_ref().map(|expected| expected_words(expected) + "\n"));
        if with_offers && !job.considered.is_empty() {
            text.push_str(&considered_table(&job.considered).text());
        }
    }
    text
}

fn table(output: &PlanOutput, with_reason: bool) -> Table {
    let columns = ["job", "decision", "capacity", "finish", "deadline", ">cost", "why"];
    let mut table = Table::new(if with_reason { &columns } else { &columns[..6] });
    let time = |time: Option<DateTime<Utc>>| time.map(|time| time.format("%Y-%m-%d %H:%MZ").to_string()).unwrap_or_default();
    for job in &output.jobs {
        let mut row = vec![
            format!("{}/{}", job.namespace, job.name),
            job.decision.clone(),
            job.offer.as_ref().map(|offer| format!("{} × {offer}", job.workers)).unwrap_or_default(),
            time(job.finish),
            time(job.deadline),
            job.cost.map(|cost| cost.rounded_to_cents()).unwrap_or_default(),
        ];
        row.extend(with_reason.then(|| job.message.clone()));
        table.row(row);
    }
    table.total(["total", "", "", "", "", &output.total.rounded_to_cents()]);
    table
}
