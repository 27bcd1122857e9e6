//! When a job will have ended and what it will have cost: many lives of it under the table's own choices, on markets that
//! may be this one ([`super::doubt`]).
//!
//! ```text
//!  Behaviour ─ doubt ─► market 1 ─ the policy and its safety net, step by step ─► cost, end ─┐
//!                       market 2 ─ …                                                         ├─► 5 %, 50 %, 95 %
//!                       …                                                                    ┘
//! ```
//! The same seed gives the same markets whatever the job, so jobs and deadlines are compared on common ground.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Verdict;
use super::behaviour::{AGES, Behaviour, CLASSES};
use super::doubt::{Possible, Tides};
use super::value::{Market, Sitting, Table};

/// Lives that give a steady interval.
pub const PATHS: usize = 200;

/// A job as it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    pub left_hours: f64,
    /// Work still to do, as stated, without what a launch has to load.
    pub work_hours: f64,
    /// How much more or less it may be.
    pub error_hours: f64,
    /// What the current launch still has to load.
    pub loading_hours: f64,
    pub market: Market,
    pub sitting: Sitting,
}

/// The 5 %, 50 % and 95 % points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub low: f64,
    pub middle: f64,
    pub high: f64,
}

/// What may come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// In the unit of the table's prices.
    pub cost: Interval,
    pub mean_cost: f64,
    pub hours_to_finish: Interval,
    /// Share of lives that end after the deadline.
    pub late: f64,
    /// Of the paid hours, on average.
    pub on_demand_share: f64,
    /// Mean number of times that spot goes.
    pub interruptions: f64,
}

/// Forecasts a job whose choices are the table's.
pub fn forecast(behaviour: &Behaviour, table: &Table, outlook: &Outlook, seed: u64, paths: usize) -> Forecast {
    forecast_with(behaviour, table, outlook, Tides::USUAL, seed, paths)
}

pub fn forecast_with(behaviour: &Behaviour, table: &Table, outlook: &Outlook, tides: Tides, seed: u64, paths: usize) -> Forecast {
    let step_hours = table.terms().step_hours;
    let mut choices = Choices::of(table);
    let job = Job::of(outlook, table);
    let life = |path: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(path);
        let work = (job.stated + job.error * (2.0 * rng.random::<f64>() - 1.0)).max(0.0);
        let market = Possible::draw(behaviour, outlook.market, step_hours, tides, rng);
        Life::new(&job, outlook.sitting, work).live(market, &mut choices)
    };
    let ends: Vec<End> = (0..paths.max(1) as u64).map(life).collect();
    summary(&ends, outlook, table)
}

fn summary(ends: &[End], outlook: &Outlook, table: &Table) -> Forecast {
    let terms = table.terms();
    let hours = |steps: f64| steps * terms.step_hours;
    let cost = |end: &End| hours(end.spot) * terms.spot_price + hours(end.on_demand) * terms.on_demand_price;
    let mean = |of: &dyn Fn(&End) -> f64| ends.iter().map(of).sum::<f64>() / ends.len() as f64;
    let paid = mean(&|end| end.spot + end.on_demand);
    Forecast {
        cost: Interval::of(ends.iter().map(cost).collect()),
        mean_cost: mean(&cost),
        hours_to_finish: Interval::of(ends.iter().map(|end| hours(end.at)).collect()),
        late: mean(&|end| f64::from(u8::from(hours(end.at) > outlook.left_hours + 1e-6))),
        on_demand_share: if paid > 0.0 { mean(&|end| end.on_demand) / paid } else { 0.0 },
        interruptions: mean(&|end| end.interruptions),
    }
}

impl Interval {
    /// Of values in any order, at least one.
    fn of(mut values: Vec<f64>) -> Interval {
        values.sort_by(f64::total_cmp);
        let last = (values.len() - 1) as f64;
        let at = |place: f64| values[place as usize];
        Interval { low: at((0.05 * last).floor()), middle: at((0.5 * last).round()), high: at((0.95 * last).ceil()) }
    }
}

/// What became of one life; in steps.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    at: f64,
    spot: f64,
    on_demand: f64,
    interruptions: f64,
}

/// What the policy is told, in steps.
struct Job {
    left: f64,
    stated: f64,
    error: f64,
    /// The most and the least that is reckoned with.
    most: f64,
    least: f64,
    overhead: f64,
    loading: f64,
}

impl Job {
    fn of(outlook: &Outlook, table: &Table) -> Job {
        let steps = |hours: f64| hours / table.terms().step_hours;
        let (left, stated, error) = (steps(outlook.left_hours), steps(outlook.work_hours), steps(outlook.error_hours));
        let overhead = steps(table.terms().overhead_hours);
        // No more than on-demand could do in time.
        let most = (stated + error).min((left - overhead).max(stated));
        Job { left, stated, error, most, least: (stated - error).max(0.0), overhead, loading: steps(outlook.loading_hours) }
    }
}

/// One life, in steps.
struct Life<'a> {
    job: &'a Job,
    work: f64,
    done: f64,
    loading: f64,
    sitting: Sitting,
    end: End,
}

/// Rounding that must not cost a step.
const EPSILON: f64 = 1e-6;

impl Life<'_> {
    fn new(job: &Job, sitting: Sitting, work: f64) -> Life<'_> {
        Life { job, work, done: 0.0, loading: job.loading, sitting, end: End::default() }
    }

    fn live(mut self, mut market: Possible, choices: &mut Choices<'_>) -> End {
        while self.done < self.work - EPSILON {
            let verdict = self.verdict(&market, choices);
            self.sit(verdict);
            if market.step() && self.sitting == Sitting::Spot && self.done < self.work - EPSILON {
                self.sitting = Sitting::Nowhere;
                self.end.interruptions += 1.0;
            }
        }
        self.end
    }

    fn verdict(&self, market: &Possible, choices: &mut Choices<'_>) -> Verdict {
        let left = self.job.left - self.end.at;
        let most = self.job.most - self.done;
        // One more idle step, and on-demand would be late.
        if most + self.job.overhead > left - 1.0 + EPSILON {
            let works = self.sitting == Sitting::Spot && self.loading <= EPSILON;
            return if works { Verdict::Spot } else { Verdict::OnDemand };
        }
        // A wrong estimate is kept for: it is taken from the time left.
        let mean = (self.job.least.max(self.done).min(self.job.most) + self.job.most) / 2.0;
        let loading = if self.sitting == Sitting::Nowhere { 0.0 } else { self.loading };
        choices.verdict(left - (self.job.most - mean), (mean - self.done).max(0.0) + loading, market, self.sitting)
    }

    fn sit(&mut self, verdict: Verdict) {
        let seat = match verdict {
            Verdict::Wait => Sitting::Nowhere,
            Verdict::Spot => Sitting::Spot,
            Verdict::OnDemand => Sitting::OnDemand,
        };
        if seat != self.sitting {
            self.loading = self.job.overhead;
        }
        self.sitting = seat;
        let taken = if seat == Sitting::Nowhere { 1.0 } else { (self.loading + self.work - self.done).min(1.0) };
        match seat {
            Sitting::Nowhere => {}
            Sitting::Spot => self.end.spot += taken,
            Sitting::OnDemand => self.end.on_demand += taken,
        }
        if seat != Sitting::Nowhere {
            self.done += (taken - self.loading).max(0.0);
            self.loading = (self.loading - taken).max(0.0);
        }
        self.end.at += taken;
    }
}

/// The table's choices, each asked for once: by steps left and slack (finely near the deadline, roughly far from it), market
/// and seat.
struct Choices<'a> {
    table: &'a Table,
    left: Ladder,
    slack: Ladder,
    /// By left, market, seat and slack; `None` where it was not asked for.
    known: Vec<Option<Verdict>>,
}

const STATES: usize = 2 * CLASSES;
const SEATS: usize = 3;
/// Rungs are so far apart, or a part of what they stand at.
const LEFT_RUNG: f32 = 1.0;
const SLACK_RUNG: f32 = 0.1;
const RUNG_PART: f32 = 0.03;

impl Choices<'_> {
    fn of(table: &Table) -> Choices<'_> {
        let slacks = table.slacks();
        let left = Ladder::new(LEFT_RUNG, table.layers() as f32);
        let slack = Ladder::new(SLACK_RUNG, slacks[slacks.len() - 1]);
        let known = vec![None; left.rungs.len() * STATES * SEATS * slack.rungs.len()];
        Choices { table, left, slack, known }
    }

    fn verdict(&mut self, left: f64, work: f64, market: &Possible, sitting: Sitting) -> Verdict {
        let (left, slack) = (self.left.nearest(left), self.slack.nearest(left - work));
        let state = if market.is_up() { market.class() } else { CLASSES + market.class() };
        let seat = match sitting {
            Sitting::Nowhere => 0,
            Sitting::Spot => 1,
            Sitting::OnDemand => 2,
        };
        let index = ((left * STATES + state) * SEATS + seat) * self.slack.rungs.len() + slack;
        if let Some(verdict) = self.known[index] {
            return verdict;
        }
        let verdict = self.ask(f64::from(self.left.rungs[left]), f64::from(self.slack.rungs[slack]), market, sitting);
        self.known[index] = Some(verdict);
        verdict
    }

    fn ask(&self, left: f64, slack: f64, market: &Possible, sitting: Sitting) -> Verdict {
        let age_hours = AGES[market.class()];
        let market = if market.is_up() { Market::Up { age_hours } } else { Market::Down { age_hours } };
        let terms = self.table.terms();
        let values = self.table.values(left * terms.step_hours, (left - slack).max(0.0) * terms.step_hours, market, sitting);
        values.weighed(terms, market, sitting).verdict()
    }
}

/// Numbers from 0, ever farther apart.
struct Ladder {
    rungs: Vec<f32>,
    /// The rung nearest to each multiple of the first distance.
    of: Vec<u16>,
    first: f64,
}

impl Ladder {
    fn new(first: f32, last: f32) -> Ladder {
        let mut rungs = vec![0.0f32];
        let mut top = 0.0f32;
        while top < last {
            top += first * (top * RUNG_PART / first).round().max(1.0);
            rungs.push(top.min(last));
        }
        let nearest = |value: f32| {
            let above = rungs.partition_point(|rung| *rung < value).min(rungs.len() - 1);
            let is_below_nearer = above > 0 && value - rungs[above - 1] < rungs[above] - value;
            (above - usize::from(is_below_nearer)) as u16
        };
        let of = (0..=(last / first) as usize).map(|multiple| nearest(multiple as f32 * first)).collect();
        Ladder { rungs, of, first: f64::from(first) }
    }

    fn nearest(&self, value: f64) -> usize {
        let multiple = (value / self.first).round().max(0.0) as usize;
        usize::from(self.of[multiple.min(self.of.len() - 1)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::deadline::behaviour::{Spell, learn};
    use crate::scheduling::deadline::value::Terms;

    fn table(behaviour: &Behaviour, work_hours: f64) -> Table {
        let terms = Terms { step_hours: work_hours / 48.0, spot_price: 2.0, on_demand_price: 6.0, overhead_hours: 0.1, left_hours_max: 3.0 * work_hours, slack_hours_max: 2.0 * work_hours, on_demand_stays: false };
        Table::solve(behaviour, terms)
    }

    /// Up and down in turn.
    fn restless(hours: f64) -> Behaviour {
        let spell = |turn: usize| Spell { up: turn % 2 == 0, from: turn as f64 * hours, to: (turn + 1) as f64 * hours };
        learn(&[(0..100).map(spell).collect()], 100.0 * hours)
    }

    /// Spot that never goes.
    fn calm() -> Behaviour {
        let mut behaviour = restless(2.0);
        behaviour.evidence.up.hours = [1e9; CLASSES];
        behaviour.up = behaviour.evidence.up.hazards();
        behaviour
    }

    fn outlook(left_hours: f64, work_hours: f64) -> Outlook {
        Outlook { left_hours, work_hours, error_hours: 0.0, loading_hours: 0.0, market: Market::Up { age_hours: 1.0 }, sitting: Sitting::Nowhere }
    }

    #[test]
    fn the_same_seed_gives_the_same_forecast() {
        let behaviour = restless(2.0);
        let table = table(&behaviour, 12.0);
        let of = |seed| forecast(&behaviour, &table, &outlook(20.0, 12.0), seed, 100);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn more_work_never_lowers_the_middle_cost() {
        let behaviour = restless(1.5);
        let table = table(&behaviour, 12.0);
        let costs: Vec<f64> = (2..=30).map(|half_hours| forecast(&behaviour, &table, &outlook(18.0, f64::from(half_hours) / 2.0), 3, PATHS).cost.middle).collect();
        assert!(costs.windows(2).all(|pair| pair[0] <= pair[1]), "{costs:?}");
    }

    #[test]
    fn a_market_that_never_goes_has_one_price() {
        let behaviour = calm();
        let table = table(&behaviour, 12.0);
        let found = forecast(&behaviour, &table, &outlook(20.0, 12.0), 1, PATHS);
        for (value, expected) in [(found.cost.low, 24.2), (found.cost.high, 24.2), (found.hours_to_finish.low, 12.1), (found.hours_to_finish.high, 12.1)] {
            assert!((value - expected).abs() < 1e-6, "{found:?}");
        }
        assert_eq!((found.late, found.on_demand_share, found.interruptions), (0.0, 0.0, 0.0));
    }

    #[test]
    fn what_only_on_demand_can_do_in_time_costs_on_demand() {
        let behaviour = restless(0.5);
        let table = table(&behaviour, 12.0);
        let down = Outlook { market: Market::Down { age_hours: 0.0 }, ..outlook(12.1, 12.0) };
        let found = forecast(&behaviour, &table, &down, 1, PATHS);
        assert_eq!((found.late, found.on_demand_share), (0.0, 1.0));
        assert!((found.cost.low - 12.1 * 6.0).abs() < 1e-6 && (found.cost.high - 12.1 * 6.0).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn what_on_demand_can_keep_is_never_forecast_as_late() {
        let behaviour = restless(0.7);
        let table = table(&behaviour, 12.0);
        for tenths in 0..60 {
            let found = forecast(&behaviour, &table, &outlook(12.1 + f64::from(tenths) / 10.0, 12.0), 1, 50);
            assert_eq!(found.late, 0.0, "{tenths}: {found:?}");
        }
    }

    #[test]
    fn a_deadline_that_nothing_keeps_is_forecast_as_late() {
        let behaviour = restless(0.5);
        let table = table(&behaviour, 12.0);
        assert_eq!(forecast(&behaviour, &table, &outlook(6.0, 12.0), 1, 50).late, 1.0);
    }

    #[test]
    fn a_guessed_duration_widens_the_interval() {
        let behaviour = calm();
        let table = table(&behaviour, 12.0);
        let found = forecast(&behaviour, &table, &Outlook { error_hours: 3.0, ..outlook(30.0, 12.0) }, 1, PATHS);
        let Interval { low, middle, high } = found.hours_to_finish;
        assert!((9.0..10.0).contains(&low) && (11.5..13.0).contains(&middle) && (14.2..15.2).contains(&high), "{found:?}");
    }
}
