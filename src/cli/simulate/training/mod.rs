//! `purser simulate training`: deadline policies on measured spot markets, beside the exact optimum.

mod plot;
mod tables;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::output::{self, Format};
use crate::cli::{CliError, Exit};
use crate::simulation::deadline::calibration;
use crate::simulation::deadline::cases::{self, Case, Cases, Grid};
use crate::simulation::deadline::priced;
use crate::simulation::deadline::contest::{self, Contestant, Played};
use crate::simulation::deadline::table::{self, Mean, Row};
use crate::simulation::deadline::{Outcome, optimum, replay};
use crate::simulation::market::trace::{self, PriceSeries, Series, TraceError};

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
    /// Each zone by itself, or the zones of a trace together [default: single; with --prices: multi]
    #[arg(long, value_enum, value_name = "MODE")]
    zones: Option<Zones>,
    /// Prices: CSV with the columns trace,zone,device,gap_s,start_tick,ticks,spot_usd_h,on_demand_usd_h. Costs are then USD, gangs
    /// are of 1 to 16 machines, and traces without prices are left out
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// What moves with a job from region to region (with --prices)
    #[arg(long, default_value_t = priced::DATA_GB, value_parser = gigabytes, requires = "prices", value_name = "GB")]
    data: f64,
    /// How wrong the stated work may be: the true one is spread from (1-U) to (1+U) times it over the starts
    #[arg(long, default_value_t = 0.0, value_parser = duration_error, value_name = "U")]
    duration_error: f64,
    /// Only groups whose name holds this
    #[arg(long, value_name = "TEXT")]
    group: Option<String>,
    /// Draw one job's life under each policy as SVG: of the first group, job fraction and overhead
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Which of that row's runs is drawn, from 0
    #[arg(long, default_value_t = 0, requires = "plot", value_name = "N")]
    plot_run: usize,
    /// Also forecast each job's cost and end when it is submitted, and count how many 90 % intervals contain what comes
    #[arg(long)]
    forecast: bool,
    /// Also show every row
    #[arg(long)]
    rows: bool,
    /// The form
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Zones {
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

fn gigabytes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(size) if size >= 0.0 && size.is_finite() => Ok(size),
        Ok(_) | Err(_) => Err("data has a size in GB, 0 or more, for example 98".to_owned()),
    }
}

#[derive(Serialize)]
struct Report<'a> {
    rows: &'a [Row],
    policies: BTreeMap<Contestant, Mean>,
    #[serde(skip_serializing_if = "Option::is_none")]
    forecast: Option<calibration::Report>,
}

pub fn run(args: &Args) -> Result<Exit, CliError> {
    let cases = args.cases()?;
    let contestants = if args.policy.is_empty() { Contestant::ALL } else { &args.policy };
    if let Some(path) = &args.plot {
        let svg = plot::svg(&args.life(&cases, contestants)?);
        std::fs::write(path, svg).map_err(|error| CliError::failed(format!("could not write {}", path.display())).because(error))?;
    }
    let rows = table::rows(&cases, &play(&cases, contestants));
    let forecast = args.forecast.then(|| calibration::report(&cases, &on_every_core(&cases, |batch| calibration::foresee(&cases, batch), |one| one.case)));
    let report = Report { rows: &rows, policies: table::means(&rows), forecast };
    match args.output {
        Format::Table => {
            let every = if args.rows { format!("\n{}", tables::side_by_side(&rows).text()) } else { String::new() };
            let forecast = report.forecast.as_ref().map_or_else(String::new, |report| format!("\n{}", tables::forecast(report).text()));
            output::print(&format!("{}\n{}{forecast}{every}", tables::summary(&report.policies).text(), tables::slices(&rows).text()))?;
        }
        Format::Json | Format::Csv => output::emit(args.output, &tables::long(&rows), &report)?,
    }
    Ok(Exit::Done)
}

/// A file of series, or what is wrong with it in which line.
fn read<T>(path: &Path, option: &str, columns: &str, parse: fn(&str) -> Result<T, TraceError>) -> Result<T, CliError> {
    let unread = |error| CliError::usage(format!("cannot read {}", path.display())).because(error).hint(format!("{option} names a CSV file"));
    let text = std::fs::read_to_string(path).map_err(unread)?;
    let wrong = |error| CliError::usage(format!("{option}: cannot use {}", path.display())).because(error).hint(format!("its columns are {columns}"));
    parse(&text).map_err(wrong)
}

/// Zones that are played together have ticks of one length.
fn same_ticks(series: &[Series], zones: Zones) -> Result<(), CliError> {
    let mut ticks: BTreeMap<String, &Series> = BTreeMap::new();
    for one in series.iter().filter(|_| zones == Zones::Multi) {
        let first = *ticks.entry(format!("{}/{}", one.key.group(), one.key.device)).or_insert(one);
        if first.gap_seconds != one.gap_seconds {
            let (a, b) = (&first.key.zone, &one.key.zone);
            return Err(CliError::usage(format!("{}: {a} has ticks of {} s and {b} of {} s", one.key.group(), first.gap_seconds, one.gap_seconds))
                .hint("write both with one gap_s, or play them by themselves with --zones single"));
        }
    }
    Ok(())
}

impl Args {
    fn zones(&self) -> Zones {
        let usual = if self.prices.is_some() { Zones::Multi } else { Zones::Single };
        self.zones.unwrap_or(usual)
    }

    fn grid(&self) -> Grid {
        let (zones, starts) = match self.zones() {
            Zones::Single => (cases::Zones::Single, 24),
            Zones::Multi => (cases::Zones::Multi, 12),
        };
        Grid {
            zones,
            job_fractions: self.job_fraction.clone(),
            overheads: self.restart_overhead.clone(),
            starts: self.starts.unwrap_or(starts) as usize,
            duration_error: self.duration_error,
        }
    }

    fn cases(&self) -> Result<Cases, CliError> {
        let series: Vec<Series> = read(&self.traces, "--traces", trace::TRACE_COLUMNS, trace::series)?;
        same_ticks(&series, self.zones())?;
        let all = match &self.prices {
            None => cases::cases(&series, &self.grid()),
            Some(path) => {
                let prices: Vec<PriceSeries> = read(path, "--prices", trace::PRICE_COLUMNS, trace::prices)?;
                priced::priced(&series, &prices, &self.grid(), self.data)
            }
        };
        let groups = all.groups();
        let kept = all.of_groups(|group| self.group.as_ref().is_none_or(|wanted| group.contains(wanted.as_str())));
        match (groups.is_empty(), kept.cases.is_empty(), &self.group) {
            (_, false, _) => Ok(kept),
            (false, true, Some(wanted)) => Err(CliError::usage(format!("no group's name holds {wanted:?}")).hint(format!("there are {}", groups.join(", ")))),
            (_, true, _) => Err(self.nothing_to_play()),
        }
    }

    fn nothing_to_play(&self) -> CliError {
        let traces = self.traces.display();
        match (&self.prices, self.zones()) {
            (Some(prices), Zones::Single) => CliError::usage(format!("no series of {traces} has a price in {}", prices.display())),
            (Some(prices), Zones::Multi) => CliError::usage(format!("no two zones of one trace and device of {traces} have a price in {}", prices.display())),
            (None, _) => CliError::usage(format!("{traces} has no two zones of one trace and device")),
        }
        .hint("trace, zone and device must be the same in both files; --zones single needs only one zone")
    }

    /// The run to be drawn, played by everyone.
    fn life<'a>(&self, cases: &'a Cases, contestants: &[Contestant]) -> Result<plot::Life<'a>, CliError> {
        let first = &cases.cases[0];
        let is_same_row = |case: &&Case| (&case.group, case.job_fraction, case.task.overhead) == (&first.group, first.job_fraction, first.task.overhead);
        let runs: Vec<&Case> = cases.cases.iter().filter(is_same_row).collect();
        let case = runs.get(self.plot_run).ok_or_else(|| CliError::usage(format!("there is no run {} to draw", self.plot_run)).hint(format!("{} has runs 0 to {}", first.group, runs.len() - 1)))?;
        let arena = &cases.arenas[case.arena];
        let best = optimum(arena, &case.task, f64::INFINITY).map(|best| replay(arena, &case.task, &best.seats));
        let outcome = |one: &Contestant| -> Option<(Contestant, Outcome)> {
            match one.policy() {
                Some(mut policy) => Some((*one, crate::simulation::deadline::run(arena, &case.task, policy.as_mut()))),
                None => Some((*one, best.clone()?)),
            }
        };
        let unit = if self.prices.is_some() { plot::Unit::Dollars } else { plot::Unit::SpotTicks };
        Ok(plot::Life { case, arena, unit, optimum: best.as_ref().map(|best| best.cost), lives: contestants.iter().filter_map(outcome).collect() })
    }
}

fn play(cases: &Cases, contestants: &[Contestant]) -> Vec<Played> {
    on_every_core(cases, |batch| contest::play(cases, batch, contestants), |one| one.case)
}

/// Every batch of cases on every core; the bar is on stderr.
fn on_every_core<T: Send>(cases: &Cases, of: impl Fn(&[usize]) -> Vec<T> + Sync, case: impl Fn(&T) -> usize) -> Vec<T> {
    let batches = contest::batches(cases);
    let bar = ProgressBar::new(cases.cases.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} runs, {eta} left").unwrap_or_else(|_| ProgressStyle::default_bar()));
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::with_capacity(cases.cases.len()));
    let work = || {
        while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
            let runs = of(batch);
            bar.inc(batch.len() as u64);
            found.lock().expect("a thread that panicked ends the command").extend(runs);
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    bar.finish_and_clear();
    let mut found = found.into_inner().expect("a thread that panicked ends the command");
    // Which thread ended first must not show in the sums.
    found.sort_by_key(case);
    found
}
