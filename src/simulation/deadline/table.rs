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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::deadline::cases::{Grid, Zones, cases};
    use crate::simulation::deadline::contest::{batches, play};
    use crate::simulation::deadline::{Task, optimum, run};
    use crate::simulation::market::trace::{Series, series};

    fn traces() -> Option<Vec<Series>> {
        let Ok(folder) = std::env::var("PURSER_DATA_DIR") else {
            println!("skipped: PURSER_DATA_DIR is not set");
            return None;
        };
        Some(series(&std::fs::read_to_string(format!("{folder}/traces/spot/spot-traces.csv")).unwrap()).unwrap())
    }

    fn grid(zones: Zones, starts: usize) -> Grid {
        Grid { zones, job_fractions: vec![0.5, 0.6, 0.7, 0.8, 0.9], overheads: vec![72, 360, 720], starts, duration_error: 0.0 }
    }

    /// f, d, T, start; per policy (spot, on-demand, launches, preemptions, finish); the optimum: the reference's pinned runs.
    type Pinned = (Task, [(i64, i64, i64, i64, i64); 4], f64);

    fn pinned() -> Vec<Pinned> {
        let task = |overhead, deadline_ticks, start| Task { work: 172_800, true_work: 172_800, error_permille: 0, deadline_ticks, overhead, start };
        vec![
            (task(720, 480, 721), [(0, 290, 1, 0, 290), (115, 187, 12, 11, 480), (166, 153, 26, 18, 480), (165, 156, 28, 20, 450)], 610.5320),
            (task(720, 480, 865), [(0, 290, 1, 0, 290), (130, 180, 19, 18, 480), (159, 161, 27, 18, 466), (164, 160, 31, 23, 466)], 596.3754),
            (task(72, 320, 721), [(0, 289, 1, 0, 289), (40, 249, 2, 1, 320), (15, 275, 10, 3, 320), (131, 160, 20, 12, 318)], 616.9780),
            (task(72, 320, 865), [(0, 289, 1, 0, 289), (57, 232, 7, 6, 320), (25, 265, 11, 4, 320), (109, 182, 24, 14, 314)], 636.2792),
            (task(360, 411, 721), [(0, 289, 1, 0, 289), (84, 210, 10, 9, 411), (140, 161, 21, 14, 411), (165, 141, 30, 19, 408)], 579.6523),
            (task(360, 411, 865), [(0, 289, 1, 0, 289), (113, 184, 15, 14, 411), (104, 198, 22, 14, 411), (131, 172, 25, 17, 394)], 658.1468),
        ]
    }

    #[test]
    fn the_reference_runs_come_out_tick_by_tick() {
        let Some(traces) = traces() else { return };
        let zone: Vec<Series> = traces.into_iter().filter(|one| one.key.group() == "availability/1-node/aws-10-26-2022" && one.key.zone == "us-west-2b" && one.key.device == "v100_1").collect();
        let arena = &cases(&zone, &grid(Zones::Single, 1)).arenas[0];
        for (task, expected, least) in pinned() {
            let counts = [Contestant::OnDemand, Contestant::Greedy, Contestant::TimeSliced, Contestant::UniformProgress].map(|one| {
                let outcome = run(arena, &task, one.policy().unwrap().as_mut());
                (outcome.spot_ticks, outcome.on_demand_ticks, outcome.launches, outcome.preemptions, outcome.finish_tick)
            });
            assert_eq!(counts, expected, "{task:?}");
            let found = optimum(arena, &task, f64::INFINITY).unwrap().cost;
            assert!((found - least).abs() < 1e-3, "{task:?}: {found} against {least}");
        }
    }

    #[test]
    fn sampled_rows_equal_the_reference() {
        let Some(traces) = traces() else { return };
        let sample = [
            (Zones::Single, 24, "availability/16-node/aws-08-27-2023", 360, 0.7, 48, [2.0536, 1.1563, 1.1186, 1.0793]),
            (Zones::Single, 24, "preemption/4-node/aws-08-03-2023", 720, 0.9, 48, [1.8001, 1.3603, 1.2554, 1.2140]),
            (Zones::Multi, 12, "availability/16-node/aws-08-27-2023/v100_1/all", 720, 0.9, 12, [1.8127, 1.5175, 1.2459, 1.2441]),
            (Zones::Multi, 12, "availability/1-node/aws-10-26-2022/k80_1/all", 72, 0.8, 12, [2.9842, 1.1662, 1.0455, 1.0525]),
        ];
        for (zones, starts, group, overhead, fraction, runs, expected) in sample {
            let grid = Grid { job_fractions: vec![fraction], overheads: vec![overhead], ..grid(zones, starts) };
            let cases = cases(&traces, &grid).of_groups(|name| name == group);
            let published = [Contestant::OnDemand, Contestant::Greedy, Contestant::TimeSliced, Contestant::UniformProgress];
            let played: Vec<Played> = batches(&cases).iter().flat_map(|batch| play(&cases, batch, &published)).collect();
            let rows = rows(&cases, &played);
            for (row, expected) in rows.iter().zip(expected) {
                let ratio = row.cost_ratio_to_optimal.unwrap();
                assert!((ratio - expected).abs() < 5.1e-5 && row.deadline_misses == 0 && row.runs == runs, "{row:?}: {expected}");
            }
        }
    }

    #[test]
    fn a_mean_counts_rows_not_runs() {
        let row = |policy, runs, ratio| Row {
            group: "g".to_owned(),
            policy,
            job_fraction: 0.5,
            restart_overhead_s: 72,
            runs,
            cost_ratio_to_optimal: ratio,
            cost_ratio_to_on_demand: 0.5,
            worst_cost_ratio_to_optimal: ratio,
            optimal_to_on_demand: Some(0.4),
            deadline_misses: 1,
            avoidable_misses: 0,
            interruptions: 2,
        };
        let means = means(&[row(Contestant::Greedy, 10, Some(1.2)), row(Contestant::Greedy, 2, Some(1.4)), row(Contestant::Greedy, 1, None)]);
        let greedy = &means[&Contestant::Greedy];
        assert!((greedy.mean_cost_ratio_to_optimal.unwrap() - 1.3).abs() < 1e-12, "a row in which nothing keeps the deadline has no ratio");
        assert_eq!((greedy.rows, greedy.runs, greedy.deadline_misses, greedy.worst_cost_ratio_to_optimal), (3, 13, 3, Some(1.4)));
    }
}
