//! `purser simulate training`: deadline policies on measured spot markets, beside the exact optimum.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::super::output::{self, Format, Table};
use super::super::{CliError, Exit};
use crate::simulation::deadline::cases::{self, Cases, Grid};
use crate::simulation::deadline::contest::{self, Contestant, Played};
use crate::simulation::deadline::table::{self, Mean, Row};
use crate::simulation::market::trace::{self, Series};

/// Plays one job with a deadline from many starts of measured traces under each policy, and compares what it costs with the
/// least that somebody who knew the future would have paid (exact). docs/reference/scheduling.md has the rules.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  purser simulate training --traces spot-traces.csv
  purser simulate training --traces spot-traces.csv --zones multi --policy greedy --policy purser --output json
  purser simulate training --traces spot-traces.csv --group aws-10-26-2022 --job-fraction 0.9 --rows

The table shows mean costs as multiples of the optimum's; each row (group, job fraction, overhead) counts once.")]
pub struct Args {
    /// Traces: CSV with the columns kind,nodes,trace,zone,device,gap_s,start_tick,ticks,value
    #[arg(long, value_name = "FILE")]
    traces: PathBuf,
    /// Who plays [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAME", value_parser = clap::builder::ValueParser::new(policy))]
    policy: Vec<Contestant>,
    /// Work over the time to the deadline, above 0 and up to 1
    #[arg(long, value_delimiter = ',', default_values_t = [0.5, 0.6, 0.7, 0.8, 0.9], value_parser = job_fraction, value_name = "F")]
    job_fraction: Vec<f64>,
    /// From a launch to new work
    #[arg(long, value_delimiter = ',', default_values_t = [72, 360, 720], value_parser = clap::value_parser!(i64).range(0..=86_400), value_name = "SECONDS")]
    restart_overhead: Vec<i64>,
    /// Starts over each trace [default: 24; 12 with several zones]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    starts: Option<u32>,
    /// Each zone by itself, or the zones of a trace together
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    zones: Zones,
    /// How wrong the stated work may be: the true one is spread from (1-U) to (1+U) times it over the starts
    #[arg(long, default_value_t = 0.0, value_parser = duration_error, value_name = "U")]
    duration_error: f64,
    /// Only groups whose name holds this
    #[arg(long, value_name = "TEXT")]
    group: Option<String>,
    /// Also show every row
    #[arg(long)]
    rows: bool,
    /// The form
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Zones {
    #[default]
    Single,
    Multi,
}

fn policy(name: &str) -> Result<Contestant, contest::NoSuchPolicy> {
    name.parse()
}

fn job_fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(fraction) if fraction > 0.0 && fraction <= 1.0 => Ok(fraction),
        Ok(_) | Err(_) => Err("a job fraction is work over time to the deadline: above 0 and up to 1, for example 0.8".to_owned()),
    }
}

fn duration_error(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(error) if (0.0..1.0).contains(&error) => Ok(error),
        Ok(_) | Err(_) => Err("a duration error is a part of the stated work: from 0 to below 1, for example 0.3".to_owned()),
    }
}

#[derive(Serialize)]
struct Report<'a> {
    rows: &'a [Row],
    policies: BTreeMap<Contestant, Mean>,
}

pub fn run(args: &Args) -> Result<Exit, CliError> {
    let cases = args.cases(&read_traces(&args.traces)?)?;
    let contestants = if args.policy.is_empty() { Contestant::ALL } else { &args.policy };
    let rows = table::rows(&cases, &play(&cases, contestants));
    let report = Report { rows: &rows, policies: table::means(&rows) };
    match args.output {
        Format::Table => {
            let every = if args.rows { format!("\n{}", side_by_side(&rows).text()) } else { String::new() };
            output::print(&format!("{}\n{}{every}", summary(&report.policies).text(), slices(&rows).text()))?;
        }
        Format::Json | Format::Csv => output::emit(args.output, &long(&rows), &report)?,
    }
    Ok(Exit::Done)
}

fn read_traces(path: &Path) -> Result<Vec<Series>, CliError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        CliError::usage(format!("cannot read {}", path.display())).because(error).hint("--traces names a CSV file of spot traces")
    })?;
    trace::series(&text).map_err(|error| {
        CliError::usage(format!("{} is no trace file", path.display())).because(error).hint(format!("its columns are {}", trace::TRACE_COLUMNS))
    })
}

impl Args {
    fn grid(&self) -> Grid {
        let starts = match self.zones {
            Zones::Single => 24,
            Zones::Multi => 12,
        };
        Grid {
            zones: match self.zones {
                Zones::Single => cases::Zones::Single,
                Zones::Multi => cases::Zones::Multi,
            },
            job_fractions: self.job_fraction.clone(),
            overheads: self.restart_overhead.clone(),
            starts: self.starts.unwrap_or(starts) as usize,
            duration_error: self.duration_error,
        }
    }

    fn cases(&self, series: &[Series]) -> Result<Cases, CliError> {
        let all = cases::cases(series, &self.grid());
        let groups = all.groups();
        let kept = all.of_groups(|group| self.group.as_ref().is_none_or(|wanted| group.contains(wanted.as_str())));
        match (kept.cases.is_empty(), &self.group) {
            (false, _) => Ok(kept),
            (true, Some(wanted)) => Err(CliError::usage(format!("no group's name holds {wanted:?}")).hint(format!("there are {}", groups.join(", ")))),
            (true, None) => Err(CliError::usage(format!("{} has no two zones of one trace and device", self.traces.display())).hint("leave out --zones multi")),
        }
    }
}

/// Every case on every core; the bar is on stderr.
fn play(cases: &Cases, contestants: &[Contestant]) -> Vec<Played> {
    let batches = contest::batches(cases);
    let bar = ProgressBar::new(cases.cases.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} runs, {eta} left").unwrap_or_else(|_| ProgressStyle::default_bar()));
    let next = AtomicUsize::new(0);
    let played = Mutex::new(Vec::with_capacity(cases.cases.len()));
    let work = || {
        while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
            let runs = contest::play(cases, batch, contestants);
            bar.inc(batch.len() as u64);
            played.lock().expect("a thread that panicked ends the command").extend(runs);
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    bar.finish_and_clear();
    let mut played = played.into_inner().expect("a thread that panicked ends the command");
    // Which thread ended first must not show in the sums.
    played.sort_by_key(|one| one.case);
    played
}

fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"))
}

fn summary(policies: &BTreeMap<Contestant, Mean>) -> Table {
    let mut table = Table::new(&["policy", ">rows", ">runs", ">cost / optimum", ">worst run", ">cost / on-demand", ">misses", ">avoidable", ">interruptions"]);
    for (policy, mean) in policies {
        table.row([
            policy.to_string(),
            mean.rows.to_string(),
            mean.runs.to_string(),
            ratio(mean.mean_cost_ratio_to_optimal),
            ratio(mean.worst_cost_ratio_to_optimal),
            ratio(Some(mean.mean_cost_ratio_to_on_demand)),
            mean.deadline_misses.to_string(),
            mean.avoidable_misses.to_string(),
            mean.interruptions.to_string(),
        ]);
    }
    table
}

/// Policies in a row; the optimum is 1 by definition.
fn columns(rows: &[Row]) -> Vec<Contestant> {
    let players = table::means(rows).into_keys().filter(|policy| *policy != Contestant::Optimal);
    players.collect()
}

fn slices(rows: &[Row]) -> Table {
    let policies = columns(rows);
    let names: Vec<String> = policies.iter().map(|policy| format!(">{policy}")).collect();
    let mut table = Table::new(&[&["cost / optimum", ">runs", ">optimum / on-demand"], names.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat());
    for (name, rows) in table::slices(rows) {
        let means = table::means(rows);
        let first = means.values().next();
        let runs = first.map(|mean| mean.runs).unwrap_or_default().to_string();
        let gain = ratio(first.and_then(|mean| mean.optimal_to_on_demand));
        let each = policies.iter().map(|policy| ratio(means.get(policy).and_then(|mean| mean.mean_cost_ratio_to_optimal)));
        table.row([name, runs, gain].into_iter().chain(each));
    }
    table
}

fn side_by_side(rows: &[Row]) -> Table {
    let policies = columns(rows);
    let names: Vec<String> = policies.iter().map(|policy| format!(">{policy}")).collect();
    let mut table = Table::new(&[&["group", ">d s", ">f", ">runs"], names.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat());
    let is_same = |a: &Row, b: &Row| (&a.group, a.restart_overhead_s, a.job_fraction) == (&b.group, b.restart_overhead_s, b.job_fraction);
    for rows in rows.chunk_by(is_same) {
        let row = &rows[0];
        let ratio_of = |policy| ratio(rows.iter().find(|row| row.policy == policy).and_then(|row| row.cost_ratio_to_optimal));
        let head = [row.group.clone(), row.restart_overhead_s.to_string(), row.job_fraction.to_string(), row.runs.to_string()];
        table.row(head.into_iter().chain(policies.iter().map(|policy| ratio_of(*policy))));
    }
    table
}

/// One line a row and policy, for programs.
fn long(rows: &[Row]) -> Table {
    let columns = ["group", "policy", ">job_fraction", ">restart_overhead_s", ">runs", ">cost_ratio_to_optimal", ">cost_ratio_to_on_demand", ">worst_cost_ratio_to_optimal", ">deadline_misses", ">avoidable_misses", ">interruptions"];
    let mut table = Table::new(&columns);
    let exact = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    for row in rows {
        table.row([
            row.group.clone(),
            row.policy.to_string(),
            row.job_fraction.to_string(),
            row.restart_overhead_s.to_string(),
            row.runs.to_string(),
            exact(row.cost_ratio_to_optimal),
            row.cost_ratio_to_on_demand.to_string(),
            exact(row.worst_cost_ratio_to_optimal),
            row.deadline_misses.to_string(),
            row.avoidable_misses.to_string(),
            row.interruptions.to_string(),
        ]);
    }
    table
}
