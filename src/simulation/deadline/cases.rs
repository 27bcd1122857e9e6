//! Which runs a trace file gives: groups, job fractions, restart overheads, starts.

use std::collections::BTreeMap;

use super::{Arena, Task};
use crate::simulation::market::region_of;
use crate::simulation::market::trace::Series;

/// On-demand's price in spot prices: p3.2xlarge in us-east-1 when the traces were taken, 3.06 against 0.9731 USD an hour.
pub const ON_DEMAND_TO_SPOT: f64 = 3.06 / 0.9731;

/// Starts leave room for a job that works this part of its time to the deadline, so that they are the same for all.
const FRACTION_MIN: f64 = 0.5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zones {
    /// Each zone by itself.
    Single,
    /// All zones of a trace, and those of each region, together.
    Multi,
}

/// What is varied.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    pub zones: Zones,
    /// Work over time to the deadline.
    pub job_fractions: Vec<f64>,
    pub overheads: Vec<i64>,
    pub starts: usize,
    /// The work told may be wrong by that much of it, from 0 to below 1.
    pub duration_error: f64,
}

/// The runs that share a row's arena.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    pub group: String,
    /// Index among the arenas.
    pub arena: usize,
    pub job_fraction: f64,
    pub task: Task,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cases {
    pub arenas: Vec<Arena>,
    pub cases: Vec<Case>,
}

impl Cases {
    /// Names of the groups, each once.
    pub fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = self.cases.iter().map(|case| case.group.as_str()).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// The cases of some groups.
    pub fn of_groups(&self, is_wanted: impl Fn(&str) -> bool) -> Cases {
        let cases = self.cases.iter().filter(|case| is_wanted(&case.group)).cloned().collect();
        Cases { arenas: self.arenas.clone(), cases }
    }
}

/// Every run of the grid over the traces.
pub fn cases(series: &[Series], grid: &Grid) -> Cases {
    let mut all = Cases::default();
    for (group, kind, zones) in groups(series, grid.zones) {
        let arena = Arena::of_equal_prices(i64::from(zones[0].gap_seconds), zones.iter().map(|one| up(one)).collect(), ON_DEMAND_TO_SPOT);
        all.cases.extend(cases_on(&group, work_seconds(kind, zones[0]), &arena, all.arenas.len(), grid));
        all.arenas.push(arena);
    }
    all
}

fn up(series: &Series) -> (String, Vec<bool>) {
    let nodes = nodes(series);
    (series.key.zone.clone(), series.values.iter().map(|value| *value >= nodes).collect())
}

/// `16-node` → 16.
pub(super) fn nodes(series: &Series) -> u32 {
    series.key.nodes.split('-').next().and_then(|count| count.parse().ok()).unwrap_or(1)
}

/// Short traces get short jobs.
fn work_seconds(kind: &str, series: &Series) -> i64 {
    let hours = match (kind, series.key.nodes.as_str(), series.key.trace.split('-').next()) {
        ("preemption", "1-node", Some("aws")) => 24,
        (_, _, Some("gcp")) => 12,
        _ => 48,
    };
    hours * 3600
}

pub(super) type Group<'a> = (String, &'a str, Vec<&'a Series>);

pub(super) fn groups(series: &[Series], zones: Zones) -> Vec<Group<'_>> {
    match zones {
        Zones::Single => series.iter().map(|one| (one.key.group(), one.key.kind.as_str(), vec![one])).collect(),
        Zones::Multi => {
            let mut devices: BTreeMap<String, Vec<&Series>> = BTreeMap::new();
            for one in series {
                devices.entry(format!("{}/{}", one.key.group(), one.key.device)).or_default().push(one);
            }
            devices.into_iter().flat_map(|(name, zones)| together(&name, zones)).collect()
        }
    }
}

/// All zones where there are several, and each region's where there are several regions.
fn together<'a>(name: &str, mut zones: Vec<&'a Series>) -> Vec<Group<'a>> {
    zones.sort_by(|a, b| a.key.zone.cmp(&b.key.zone));
    let mut regions: BTreeMap<&str, Vec<&Series>> = BTreeMap::new();
    for zone in &zones {
        regions.entry(region_of(&zone.key.zone)).or_default().push(zone);
    }
    let kind = zones[0].key.kind.as_str();
    let by_region = regions.clone().into_iter().filter(|_| regions.len() > 1).map(|(region, zones)| (format!("{name}/{region}"), kind, zones));
    let all = (format!("{name}/all"), kind, zones);
    std::iter::once(all).chain(by_region).filter(|(_, _, zones)| zones.len() > 1).collect()
}

pub(super) fn cases_on(group: &str, work: i64, arena: &Arena, index: usize, grid: &Grid) -> Vec<Case> {
    let fraction_min = grid.job_fractions.iter().copied().fold(FRACTION_MIN, f64::min);
    let starts = starts(arena, ticks(work, fraction_min, arena.tick_seconds), grid.starts);
    let mut cases = Vec::new();
    for (&job_fraction, &overhead) in grid.job_fractions.iter().flat_map(|f| grid.overheads.iter().map(move |d| (f, d))) {
        for (number, &start) in starts.iter().enumerate() {
            let error = grid.duration_error * spread(number, starts.len());
            let task = Task {
                work,
                true_work: (work as f64 * (1.0 + error)).round() as i64,
                error_permille: (grid.duration_error * 1000.0).round() as i64,
                deadline_ticks: ticks(work, job_fraction, arena.tick_seconds),
                overhead,
                start,
            };
            cases.push(Case { group: group.to_owned(), arena: index, job_fraction, task });
        }
    }
    cases
}

/// From -1 to 1 over the starts.
fn spread(number: usize, count: usize) -> f64 {
    if count < 2 { 0.0 } else { 2.0 * number as f64 / (count - 1) as f64 - 1.0 }
}

fn ticks(work: i64, job_fraction: f64, tick_seconds: i64) -> i64 {
    (work as f64 / (job_fraction * tick_seconds as f64) + 1e-9).floor() as i64
}

/// Even over the trace, so that the longest job still ends inside it; each once.
fn starts(arena: &Arena, ticks_max: i64, count: usize) -> Vec<usize> {
    let room = (arena.ticks as i64 - ticks_max).max(0) as usize;
    let mut starts: Vec<usize> = (0..count).map(|number| if count < 2 { 0 } else { room * number / (count - 1) }).collect();
    starts.dedup();
    starts
}
