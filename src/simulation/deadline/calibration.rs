//! Whether forecasts hold: each run is forecast when its job is submitted, with what the market had shown by then, and then
//! played. A 90 % interval should contain what comes nine times in ten.
//!
//! Intervals are in exact hours, so a run's last tick counts as far as it was used.

use std::collections::BTreeMap;

use serde::Serialize;

use super::cases::{Case, Cases};
use super::purser::Purser;
use super::{Arena, Outcome, Task, opening, run};
use crate::scheduling::deadline::doubt::Tides;
use crate::scheduling::deadline::forecast::PATHS;
use crate::scheduling::deadline::{Forecast, Interval};

/// A forecast and what came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Foreseen {
    /// Index among the cases.
    pub case: usize,
    pub forecast: Forecast,
    pub cost: f64,
    pub hours_to_finish: f64,
    pub missed: bool,
}

/// How many forecasts held.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Calibration {
    pub runs: usize,
    /// Shares of runs whose cost, or end, lay in its 90 % interval, below it and above it.
    pub cost_coverage: f64,
    pub cost_below: f64,
    pub cost_above: f64,
    pub finish_coverage: f64,
    pub finish_below: f64,
    pub finish_above: f64,
    /// Mean width of the intervals as a part of their middle.
    pub cost_width: f64,
    pub finish_width: f64,
    /// All real costs over all mean costs forecast.
    pub cost_real_to_forecast: f64,
    /// Mean forecast share of lives that end late, and the share of runs that did.
    pub late_forecast: f64,
    pub late: f64,
}

/// All runs, and those that have something in common.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub all: Calibration,
    pub slices: Vec<Slice>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Slice {
    pub name: String,
    #[serde(flatten)]
    pub calibration: Calibration,
}

/// Forecasts and plays the cases of a batch of [`super::contest::batches`].
pub fn foresee(cases: &Cases, batch: &[usize]) -> Vec<Foreseen> {
    let mut policy = Purser::default();
    batch.iter().filter_map(|case| foresee_one(cases, *case, &mut policy)).collect()
}

fn foresee_one(cases: &Cases, case: usize, policy: &mut Purser) -> Option<Foreseen> {
    let (arena, task) = (&cases.arenas[cases.cases[case].arena], &cases.cases[case].task);
    let forecast = policy.forecast(&opening(arena, task), Tides::USUAL, case as u64, PATHS)?;
    let (cost, hours_to_finish, missed) = real(arena, task, &run(arena, task, policy));
    Some(Foreseen { case, forecast, cost, hours_to_finish, missed })
}

/// Cost, hours to the end and whether that was late, with only the part of the last tick that was used.
fn real(arena: &Arena, task: &Task, outcome: &Outcome) -> (f64, f64, bool) {
    let last = outcome.seats.last().copied().flatten().map(|seat| &arena.seats[seat]);
    let spare_seconds = (outcome.done.last().copied().unwrap_or_default() - task.true_work).max(0) as f64;
    let spare = last.map_or(0.0, |seat| spare_seconds * 1000.0 / (seat.speed_permille * arena.tick_seconds) as f64);
    let price = last.map_or(0.0, |seat| seat.price(task.start + outcome.seats.len() - 1));
    (outcome.cost - spare * price, (outcome.finish_tick as f64 - spare) * arena.tick_seconds as f64 / 3600.0, outcome.missed)
}

/// By half of the traces (the model was chosen on the even one), overhead, job fraction and group.
pub fn report(cases: &Cases, foreseen: &[Foreseen]) -> Report {
    let half = |case: &Case| if case.arena.is_multiple_of(2) { "even traces" } else { "odd traces" }.to_owned();
    let names: [&dyn Fn(&Case) -> String; 4] = [&half, &|case| format!("d = {} s", case.task.overhead), &|case| format!("f = {}", case.job_fraction), &|case| case.group.clone()];
    let slices = names.iter().flat_map(|name| {
        let mut parts: BTreeMap<String, Vec<Foreseen>> = BTreeMap::new();
        foreseen.iter().for_each(|one| parts.entry(name(&cases.cases[one.case])).or_default().push(*one));
        parts.into_iter().map(|(name, part)| Slice { name, calibration: calibration(&part) })
    });
    Report { all: calibration(foreseen), slices: slices.collect() }
}

/// Rounding that is no surprise.
const EPSILON: f64 = 1e-6;

pub fn calibration(foreseen: &[Foreseen]) -> Calibration {
    let share = |holds: &dyn Fn(&Foreseen) -> bool| foreseen.iter().filter(|one| holds(one)).count() as f64 / foreseen.len().max(1) as f64;
    let mean = |of: &dyn Fn(&Foreseen) -> f64| foreseen.iter().map(of).sum::<f64>() / foreseen.len().max(1) as f64;
    let is_below = |value: f64, interval: Interval| value < interval.low - EPSILON * interval.low.abs().max(1.0);
    let is_above = |value: f64, interval: Interval| value > interval.high + EPSILON * interval.high.abs().max(1.0);
    let width = |interval: Interval| if interval.middle > 0.0 { (interval.high - interval.low) / interval.middle } else { 0.0 };
    let (cost_below, cost_above) = (share(&|one| is_below(one.cost, one.forecast.cost)), share(&|one| is_above(one.cost, one.forecast.cost)));
    let finish_below = share(&|one| is_below(one.hours_to_finish, one.forecast.hours_to_finish));
    let finish_above = share(&|one| is_above(one.hours_to_finish, one.forecast.hours_to_finish));
    Calibration {
        runs: foreseen.len(),
        cost_coverage: 1.0 - cost_below - cost_above,
        cost_below,
        cost_above,
        finish_coverage: 1.0 - finish_below - finish_above,
        finish_below,
        finish_above,
        cost_width: mean(&|one| width(one.forecast.cost)),
        finish_width: mean(&|one| width(one.forecast.hours_to_finish)),
        cost_real_to_forecast: mean(&|one| one.cost) / mean(&|one| one.forecast.mean_cost),
        late_forecast: mean(&|one| one.forecast.late),
        late: share(&|one| one.missed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::deadline::cases::ON_DEMAND_TO_SPOT;
    use crate::simulation::deadline::published::Greedy;

    fn forecast(low: f64, high: f64) -> Forecast {
        let interval = Interval { low, middle: (low + high) / 2.0, high };
        Forecast { cost: interval, mean_cost: interval.middle, hours_to_finish: interval, late: 0.0, on_demand_share: 0.0, interruptions: 0.0 }
    }

    #[test]
    fn an_interval_contains_its_ends() {
        let came = |value: f64| Foreseen { case: 0, forecast: forecast(10.0, 20.0), cost: value, hours_to_finish: value, missed: false };
        let found = calibration(&[came(10.0), came(20.0), came(15.0), came(9.9), came(20.1)]);
        assert_eq!((found.runs, found.cost_below, found.cost_above, found.finish_below, found.finish_above), (5, 0.2, 0.2, 0.2, 0.2));
        assert!((found.cost_coverage - 0.6).abs() < 1e-9 && (found.cost_width - 10.0 / 15.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn the_last_tick_counts_as_far_as_it_was_used() {
        let arena = Arena::of_equal_prices(600, vec![("a".to_owned(), vec![true; 20])], ON_DEMAND_TO_SPOT);
        let task = Task { work: 3000, true_work: 3000, error_permille: 0, deadline_ticks: 10, overhead: 150, start: 0 };
        let (cost, hours, missed) = real(&arena, &task, &run(&arena, &task, &mut Greedy));
        assert!((cost - 5.25).abs() < 1e-9 && (hours - 3150.0 / 3600.0).abs() < 1e-9 && !missed, "{cost} {hours}");
    }

    #[test]
    fn what_never_goes_is_foreseen_to_the_second() {
        // Up for weeks before the job comes.
        let arena = Arena::of_equal_prices(600, vec![("a".to_owned(), vec![true; 6000])], ON_DEMAND_TO_SPOT);
        let task = Task { work: 12 * 3600, true_work: 12 * 3600, error_permille: 0, deadline_ticks: 100, overhead: 150, start: 5000 };
        let cases = Cases { arenas: vec![arena], cases: vec![Case { group: "calm".to_owned(), arena: 0, job_fraction: 0.7, task }] };
        let found = foresee(&cases, &[0])[0];
        for (value, interval) in [(found.cost, found.forecast.cost), (found.hours_to_finish, found.forecast.hours_to_finish)] {
            assert!((interval.low - value).abs() < 1e-6 && (interval.middle - value).abs() < 1e-6, "{found:?}");
        }
        let report = report(&cases, &[found]);
        assert_eq!((report.all.cost_coverage, report.all.finish_coverage, report.slices.len()), (1.0, 1.0, 4));
    }
}
