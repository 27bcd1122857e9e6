//! The results as tables: by policy, by what rows have in common, row by row.

use std::collections::BTreeMap;

use crate::cli::output::Table;
use crate::simulation::deadline::calibration::{self, Calibration};
use crate::simulation::deadline::contest::Contestant;
use crate::simulation::deadline::table::{self, Mean, Row};

pub fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"))
}

pub fn summary(policies: &BTreeMap<Contestant, Mean>) -> Table {
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

pub fn slices(rows: &[Row]) -> Table {
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

pub fn side_by_side(rows: &[Row]) -> Table {
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

/// How many forecasts held.
pub fn forecast(report: &calibration::Report) -> Table {
    let mut table = Table::new(&["90 % intervals", ">runs", ">cost within", ">below", ">above", ">width / middle", ">finish within", ">below", ">above", ">width / middle", ">cost / forecast"]);
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let mut row = |name: &str, one: &Calibration| {
        let cost = [percent(one.cost_coverage), percent(one.cost_below), percent(one.cost_above), format!("{:.2}", one.cost_width)];
        let finish = [percent(one.finish_coverage), percent(one.finish_below), percent(one.finish_above), format!("{:.2}", one.finish_width)];
        table.row([name.to_owned(), one.runs.to_string()].into_iter().chain(cost).chain(finish).chain([format!("{:.3}", one.cost_real_to_forecast)]));
    };
    row("all", &report.all);
    report.slices.iter().for_each(|slice| row(&slice.name, &slice.calibration));
    table
}

/// One line a row and policy, for programs.
pub fn long(rows: &[Row]) -> Table {
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
