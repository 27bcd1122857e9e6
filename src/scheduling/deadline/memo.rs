//! Tables that were solved once: the same market and terms give the same table, and neighbours are as good.
//!
//! A table takes tens of milliseconds to solve and a planner asks every few seconds, so what is asked is rounded (hazards to
//! a fifth, as they are never known better) and what was solved is kept. A pure function with a memory: nobody can tell.

use std::sync::{Arc, Mutex};

use super::behaviour::Behaviour;
use super::value::{Table, Terms};

/// Tables kept, a few megabytes each.
const KEPT: usize = 64;
/// Steps of work in a table, and the most slack that it knows; more changes nothing.
const WORK_STEPS: f64 = 48.0;
const SLACK_STEPS: f64 = 72.0;
/// Rounding of hazards and step lengths.
const RATIO: f64 = 1.25;
/// Parts of a step to which overheads are rounded up, and of the price ratio.
const OVERHEAD_PARTS: f64 = 4.0;
const PRICE_PARTS: f64 = 10.0;

/// What a table is asked for, in whole numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    step: i64,
    overhead: i64,
    dearness: i64,
    market: Vec<i64>,
}

static SOLVED: Mutex<Vec<(Key, Arc<Table>)>> = Mutex::new(Vec::new());

/// A table whose unit is the spot price, for so much work. Its terms say what was rounded to what.
pub fn table(behaviour: &Behaviour, work_hours: f64, overhead_hours: f64, on_demand_to_spot: f64) -> Arc<Table> {
    let step = (work_hours.max(1.0 / 60.0) / WORK_STEPS).ln() / RATIO.ln();
    let step_hours = RATIO.powi(step.ceil() as i32);
    let key = Key {
        step: step.ceil() as i64,
        overhead: (overhead_hours / step_hours * OVERHEAD_PARTS).ceil() as i64,
        dearness: (on_demand_to_spot * PRICE_PARTS).round() as i64,
        market: market_key(behaviour),
    };
    let mut solved = SOLVED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(index) = solved.iter().position(|(known, _)| *known == key) {
        // Used last, forgotten last.
        let found = solved.remove(index);
        let table = Arc::clone(&found.1);
        solved.push(found);
        return table;
    }
    let terms = Terms {
        step_hours,
        spot_price: 1.0,
        on_demand_price: (key.dearness as f64 / PRICE_PARTS).max(1.0 / PRICE_PARTS),
        overhead_hours: key.overhead as f64 / OVERHEAD_PARTS * step_hours,
        left_hours_max: (WORK_STEPS + SLACK_STEPS) * step_hours,
        slack_hours_max: SLACK_STEPS * step_hours,
        // The operator moves nobody off machines that run.
        on_demand_stays: true,
    };
    let table = Arc::new(Table::solve(&rounded(behaviour), terms));
    if solved.len() >= KEPT {
        solved.remove(0);
    }
    solved.push((key, Arc::clone(&table)));
    table
}

fn ladder(value: f64) -> i64 {
    (value.max(1e-6).ln() / RATIO.ln()).round() as i64
}

fn share(value: f64) -> i64 {
    (value * PRICE_PARTS).round() as i64
}

fn market_key(behaviour: &Behaviour) -> Vec<i64> {
    let hazards = behaviour.up.iter().chain(&behaviour.down).map(|hazard| ladder(*hazard));
    hazards.chain([share(behaviour.elsewhere)]).chain(behaviour.elsewhere_ages.iter().map(|age| share(*age))).collect()
}

fn rounded(behaviour: &Behaviour) -> Behaviour {
    let hazards = |hazards: &[f64; 8]| hazards.map(|hazard| RATIO.powi(ladder(hazard) as i32));
    Behaviour {
        up: hazards(&behaviour.up),
        down: hazards(&behaviour.down),
        elsewhere: share(behaviour.elsewhere) as f64 / PRICE_PARTS,
        ..behaviour.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::behaviour::learn;
    use super::*;

    #[test]
    fn almost_the_same_question_is_answered_from_memory() {
        let behaviour = learn(&[Vec::new()], 0.0);
        let first = table(&behaviour, 10.0, 0.2, 3.0);
        assert!(Arc::ptr_eq(&first, &table(&behaviour, 10.0, 0.2, 3.001)));
        assert!(!Arc::ptr_eq(&first, &table(&behaviour, 10.0, 0.2, 4.0)));
    }
}
