//! `purser demo`: the whole way on one machine, harmless. A local Kubernetes, a simulated AWS market whose clock runs fast,
//! the operator, and the samples; then what it cost, beside what the market says it charged.
//!
//! ```text
//!  up: stage (cluster, twin, operator) → samples → plan → live view until done → report and comparison
//! ```
//! Nothing reaches a cloud: every process is started with dummy credentials and the twin as its only endpoint.

mod closing;
mod live;
mod stage;

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{SecondsFormat, SubsecRound, TimeDelta};
use clap::Subcommand;
use indicatif::ProgressBar;

use self::stage::Stage;
use super::documents::{self, Document, Object};
use super::{CliError, Exit, install, job};
use crate::testbed;

/// The samples, in the binary: `purser demo` works without a checkout.
const SAMPLES: [(&str, &str); 5] = [
    ("namespaces.yaml", include_str!("../../../manifests/samples/namespaces.yaml")),
    ("teams.yaml", include_str!("../../../manifests/samples/teams.yaml")),
    ("pools.yaml", include_str!("../../../manifests/samples/pools.yaml")),
    ("experiments.yaml", include_str!("../../../manifests/samples/experiments.yaml")),
    ("jobs.yaml", include_str!("../../../manifests/samples/jobs.yaml")),
];

/// The market's clock at the start; the samples' deadlines are of this day.
const MARKET_EPOCH: &str = "2026-03-02T08:00:00Z";

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  purser demo up\n  purser demo up --speed 60 --dir /tmp/purser-demo\n  purser demo down")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start everything, run the samples, show what they cost; leaves the cluster up for a closer look.
    Up(Up),
    /// End everything and remove what it made.
    Down(Place),
}

#[derive(Debug, clap::Args)]
struct Place {
    /// State of the demo: cluster, logs, ledger [default: purser-demo in the system's folder for temporary files].
    #[arg(long, value_name = "DIR", env = "PURSER_DEMO_DIR")]
    dir: Option<PathBuf>,
}

impl Place {
    fn dir(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| std::env::temp_dir().join("purser-demo"))
    }
}

#[derive(Debug, clap::Args)]
struct Up {
    #[command(flatten)]
    place: Place,
    /// Market seconds per real second.
    #[arg(long, default_value_t = 120.0, value_name = "N")]
    speed: f64,
    /// Give up when the jobs are not done after so many real minutes.
    #[arg(long, default_value_t = 15, value_name = "MINUTES")]
    patience: u64,
}

pub async fn run(args: &Args) -> Result<Exit, CliError> {
    match &args.verb {
        Verb::Up(up) => start(up).await,
        Verb::Down(place) => end(&place.dir()).await,
    }
}

async fn start(up: &Up) -> Result<Exit, CliError> {
    let dir = up.place.dir();
    let documents = samples()?;
    say("starting a local Kubernetes, a simulated AWS market and the operator …");
    let stage = {
        let _busy = busy("etcd, kube-apiserver, controller-manager, scheduler, kwok");
        Stage::set(&dir, up.speed, MARKET_EPOCH).await.map_err(|error| with_way_out(error, &dir))?
    };
    let shown = play(&stage, &documents, Duration::from_secs(60 * up.patience)).await;
    shown.map_err(|error| with_way_out(error, &dir))
}

/// From the samples to the report.
async fn play(stage: &Stage, documents: &[Document], patience: Duration) -> Result<Exit, CliError> {
    let client = stage.client().await?;
    install::install_kinds(&client).await?;
    stage.start_servers().await?;
    say("what Purser would do with the samples, before it does it (purser plan):");
    stage.show_plan(&SAMPLES).await?;
    // Pools first: jobs that nobody can serve yet would be refused, if only for a second.
    let (jobs, others): (Vec<Document>, Vec<Document>) = documents.iter().cloned().partition(|document| matches!(document.object, Object::Job(_)));
    job::apply_documents(&client, "default", &others).await?;
    stage.wait_for_offers(&client).await?;
    let begun = stage.market_time_passed().await?;
    let jobs: Vec<Document> = jobs.into_iter().map(|job| moved_along(job, begun)).collect();
    job::apply_documents(&client, "default", &jobs).await?;
    say("the jobs, until they are done; the market's clock runs ahead:");
    live::watch(&client, stage, patience).await?;
    closing::wait_for_books(&client, patience).await?;
    closing::show(stage).await
}

fn samples() -> Result<Vec<Document>, CliError> {
    let mut all = Vec::new();
    for (name, text) in SAMPLES {
        all.extend(documents::parse_text(name, text).map_err(|error| CliError::failed("an embedded sample is broken").because(error))?);
    }
    all.sort_by_key(|document| document.object.rank());
    Ok(all)
}

/// The job with its deadline as far from now as it was from the market's beginning, however slow this machine has been.
fn moved_along(mut document: Document, by: TimeDelta) -> Document {
    if let Object::Job(job) = &document.object
        && let Some(deadline) = job.spec.deadline
    {
        let moved = (deadline + by).trunc_subsecs(0);
        document.value["spec"]["deadline"] = serde_json::json!(moved.to_rfc3339_opts(SecondsFormat::Secs, true));
    }
    document
}

async fn end(dir: &Path) -> Result<Exit, CliError> {
    if !dir.exists() {
        say(&format!("nothing is left of a demo in {}", dir.display()));
        return Ok(Exit::Done);
    }
    testbed::down(dir).await.map_err(|error| CliError::failed("cannot end the demo").because(error))?;
    say(&format!("the demo is over; {} is gone", dir.display()));
    Ok(Exit::Done)
}

fn with_way_out(error: CliError, dir: &Path) -> CliError {
    match error.has_hint() {
        true => error,
        false => error.hint(format!("logs are in {}; end the demo with: purser demo down --dir {}", dir.join("logs").display(), dir.display())),
    }
}

/// Something that takes a while: it turns where stderr is a terminal, and clears itself.
fn busy(text: &str) -> Busy {
    let spinner = ProgressBar::new_spinner().with_message(text.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(120));
    Busy(spinner)
}

struct Busy(ProgressBar);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// What the demo is doing: never data, so on stderr.
fn say(text: &str) {
    eprintln!("\n» {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_are_three_experiments_and_five_jobs_that_parse() {
        let count = |kind: &str| samples().unwrap().iter().filter(|document| document.object.kind() == kind).count();
        assert_eq!((count("experiment"), count("trainingjob"), count("team"), count("capacitypool")), (3, 5, 2, 2));
    }
}
