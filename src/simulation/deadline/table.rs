//! What many runs say together: a row for each group, job fraction and overhead; a policy's mean over its rows.

use std::collections::BTreeMap;

use serde::Serialize;

use super::cases::{Case, Cases};
use super::contest::{Contestant, Played, Score};

/// A policy on the runs of one group, job fraction and overhead.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub group: String,
    pub policy: Contestant,
    pub job_fraction: f64,
    pub restart_overhead_s: i64,
    pub runs: usize,
    /// Mean over the runs for which some run keeps the deadline; absent where none does.
    pub cost_ratio_to_optimal: Option<f64>,
    pub cost_ratio_to_on_demand: f64,
    pub worst_cost_ratio_to_optimal: Option<f64>,
    /// Mean cost of the optimum over the mean cost of on-demand: what there is to gain.
    #[serde(skip)]
    pub optimal_to_on_demand: Option<f64>,
    /// Runs that end after their deadline.
    pub deadline_misses: usize,
    /// Of these, runs that on-demand from the start would have ended in time.
    pub avoidable_misses: usize,
    pub interruptions: i64,
}

/// A policy over all rows; each row counts once.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Mean {
    pub rows: usize,
    pub runs: usize,
    pub mean_cost_ratio_to_optimal: Option<f64>,
    pub mean_cost_ratio_to_on_demand: f64,
    pub worst_cost_ratio_to_optimal: Option<f64>,
    pub deadline_misses: usize,
    pub avoidable_misses: usize,
    pub interruptions: i64,
    #[serde(skip)]
    pub optimal_to_on_demand: Option<f64>,
}

/// By group, then overhead, job fraction and policy.
pub fn rows(cases: &Cases, played: &[Played]) -> Vec<Row> {
    let mut runs: BTreeMap<RowKey<'_>, Vec<&Played>> = BTreeMap::new();
    for one in played {
        runs.entry(RowKey::of(&cases.cases[one.case])).or_default().push(one);
    }
    runs.into_iter().flat_map(|(key, runs)| rows_of(&key, &runs)).collect()
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct RowKey<'a> {
    group: &'a str,
    overhead: i64,
    /// Bits of a positive number sort as the number does.
    job_fraction: u64,
}

impl RowKey<'_> {
    fn of(case: &Case) -> RowKey<'_> {
        RowKey { group: &case.group, overhead: case.task.overhead, job_fraction: case.job_fraction.to_bits() }
    }
}

fn rows_of(key: &RowKey<'_>, runs: &[&Played]) -> Vec<Row> {
    let mut scores: BTreeMap<Contestant, Vec<(&Played, &Score)>> = BTreeMap::new();
    for one in runs {
        one.scores.iter().for_each(|(contestant, score)| scores.entry(*contestant).or_default().push((one, score)));
    }
    let row = |(policy, scores): (Contestant, Vec<(&Played, &Score)>)| {
        let ratios: Vec<f64> = scores.iter().filter_map(|(played, score)| Some(score.cost / played.optimal?)).collect();
        let gains: Vec<f64> = scores.iter().filter_map(|(played, _)| Some(played.optimal? / played.on_demand.cost)).collect();
        let missed = || scores.iter().filter(|(_, score)| score.missed);
        Row {
            group: key.group.to_owned(),
            policy,
            job_fraction: f64::from_bits(key.job_fraction),
            restart_overhead_s: key.overhead,
            runs: scores.len(),
            cost_ratio_to_optimal: mean(&ratios),
            cost_ratio_to_on_demand: scores.iter().map(|(played, score)| score.cost / played.on_demand.cost).sum::<f64>() / scores.len() as f64,
            worst_cost_ratio_to_optimal: ratios.iter().copied().reduce(f64::max),
            optimal_to_on_demand: mean(&gains),
            deadline_misses: missed().count(),
            avoidable_misses: missed().filter(|(played, _)| !played.on_demand.missed).count(),
            interruptions: scores.iter().map(|(_, score)| score.interruptions).sum(),
        }
    };
    scores.into_iter().map(row).collect()
}

/// Each policy over its rows.
pub fn means<'a>(rows: impl IntoIterator<Item = &'a Row>) -> BTreeMap<Contestant, Mean> {
    let mut by_policy: BTreeMap<Contestant, Vec<&Row>> = BTreeMap::new();
    rows.into_iter().for_each(|row| by_policy.entry(row.policy).or_default().push(row));
    by_policy.into_iter().map(|(policy, rows)| (policy, mean_of(&rows))).collect()
}

fn mean_of(rows: &[&Row]) -> Mean {
    let some = |pick: fn(&Row) -> Option<f64>| rows.iter().filter_map(|row| pick(row)).collect::<Vec<_>>();
    let on_demand: Vec<f64> = rows.iter().map(|row| row.cost_ratio_to_on_demand).collect();
    Mean {
        rows: rows.len(),
        runs: rows.iter().map(|row| row.runs).sum(),
        mean_cost_ratio_to_optimal: mean(&some(|row| row.cost_ratio_to_optimal)),
        mean_cost_ratio_to_on_demand: mean(&on_demand).unwrap_or_default(),
        worst_cost_ratio_to_optimal: some(|row| row.worst_cost_ratio_to_optimal).into_iter().reduce(f64::max),
        deadline_misses: rows.iter().map(|row| row.deadline_misses).sum(),
        avoidable_misses: rows.iter().map(|row| row.avoidable_misses).sum(),
        interruptions: rows.iter().map(|row| row.interruptions).sum(),
        optimal_to_on_demand: mean(&some(|row| row.optimal_to_on_demand)),
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The rows that have something in common, as a reader wants them: all, each overhead, each job fraction, each group.
pub fn slices(rows: &[Row]) -> Vec<(String, Vec<&Row>)> {
    let slice = |name: String, belongs: &dyn Fn(&Row) -> bool| (name, rows.iter().filter(|row| belongs(row)).collect::<Vec<_>>());
    let mut slices = vec![slice("all".to_owned(), &|_| true)];
    slices.extend(distinct(rows, |row| row.restart_overhead_s).into_iter().map(|d| slice(format!("d = {d} s"), &|row| row.restart_overhead_s == d)));
    let fractions = distinct(rows, |row| row.job_fraction.to_bits());
    slices.extend(fractions.into_iter().map(|f| slice(format!("f = {}", f64::from_bits(f)), &|row| row.job_fraction.to_bits() == f)));
    slices.extend(distinct(rows, |row| row.group.clone()).into_iter().map(|group| slice(group.clone(), &|row| row.group == group)));
    slices
}

fn distinct<T: Ord>(rows: &[Row], of: impl Fn(&Row) -> T) -> Vec<T> {
    let mut values: Vec<T> = rows.iter().map(of).collect();
    values.sort();
    values.dedup();
    values
}
