//! What a job still costs, if the market goes on as learned and every later choice is the best one.
//!
//! A dynamic programme over the steps left to the deadline, the slack (steps left less steps of work left), the market's
//! state and where the job sits. A launch takes its overhead from the slack; idling takes a step from it; work takes none.
//! So the deadline is the line where slack ends, and lies on the grid whatever the overhead is; the grid is fine near it and
//! coarse far from it.
//!
//! ```text
//!  market   up, by age of the zone ──goes──► another zone up │ all down, by age of the gap ──comes──► up, age 0
//!  seat     none ⇄ spot ⇄ on-demand                           (each launch: overhead)
//! ```
//! Statistics, so floats; what they are made of is in [`super::behaviour`].

use super::behaviour::{AGES, Behaviour, CLASSES};

/// Market states: up by class of the zone that would be taken, then down by class of the gap.
const STATES: usize = 2 * CLASSES;
/// Rows a layer: idle in each state, on-demand in each state, spot in each up state.
const ROWS: usize = 2 * STATES + CLASSES;
const ON_DEMAND: usize = STATES;
const SPOT: usize = 2 * STATES;

/// A step of work that comes too late, in on-demand steps: dear enough that no plan counts on it.
const LATE: f32 = 8.0;

/// What the programme is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    pub step_hours: f64,
    /// For the whole gang and hour, in any one unit.
    pub spot_price: f64,
    pub on_demand_price: f64,
    /// From a launch to new work.
    pub overhead_hours: f64,
    /// The longest time to the deadline, and the most slack, that will be asked about.
    pub left_hours_max: f64,
    pub slack_hours_max: f64,
    /// Who sits on on-demand sits there to the end.
    pub on_demand_stays: bool,
}

/// Where a job sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sitting {
    Nowhere,
    Spot,
    OnDemand,
}

/// The market as it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Market {
    /// The zone in which the job sits, or would be put, is up for so many hours.
    Up { age_hours: f64 },
    Down { age_hours: f64 },
}

impl Market {
    fn state(self) -> usize {
        match self {
            Market::Up { age_hours } => super::behaviour::class_of(age_hours),
            Market::Down { age_hours } => CLASSES + super::behaviour::class_of(age_hours),
        }
    }
}

/// What the rest costs on average, by what is done for the next step; in the unit of the prices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Values {
    pub idle: f64,
    /// Infinite where spot is down.
    pub spot: f64,
    pub on_demand: f64,
}

/// The chances of a market state for the next step.
#[derive(Clone, Copy, Debug)]
struct Chances {
    /// As it is, but perhaps older.
    stays: (usize, f32),
    ages: (usize, f32),
    /// All down for a zone that was up; up for a gap.
    turns: (usize, f32),
    /// Up in another zone.
    moves: f32,
}

/// The programme, solved.
pub struct Table {
    terms: Terms,
    chances: Vec<Chances>,
    elsewhere_ages: [f32; CLASSES],
    /// Slack, in steps, ascending from 0.
    grid: Vec<f32>,
    layers: usize,
    /// Cost in spot steps: layer (steps left), row, slack.
    values: Vec<f32>,
}

impl Table {
    pub fn solve(behaviour: &Behaviour, terms: Terms) -> Table {
        let layers = (terms.left_hours_max / terms.step_hours).ceil() as usize + 1;
        let grid = grid((terms.slack_hours_max / terms.step_hours) as f32);
        let values = vec![0.0; (layers + 1) * ROWS * grid.len()];
        let elsewhere_ages = behaviour.elsewhere_ages.map(|share| share as f32);
        let chances = (0..STATES).map(|state| chances(behaviour, state, terms.step_hours)).collect();
        let mut table = Table { terms, chances, elsewhere_ages, grid, layers, values };
        let mut sweep = Sweep::new(&table);
        for layer in 1..=layers {
            let size = ROWS * table.grid.len();
            let (before, after) = table.values.split_at_mut(layer * size);
            sweep.layer(&table.chances, &table.elsewhere_ages, &before[(layer - 1) * size..], &mut after[..size], layer as f32, &table.grid);
        }
        table
    }

    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Slacks, in steps, between which values are straight.
    pub(super) fn slacks(&self) -> &[f32] {
        &self.grid
    }

    /// The most steps to the deadline that it knows.
    pub(super) fn layers(&self) -> usize {
        self.layers
    }

    /// What the rest costs by each choice. Work includes what a launch still has to load.
    pub fn values(&self, left_hours: f64, work_hours: f64, market: Market, sitting: Sitting) -> Values {
        let step = self.terms.step_hours;
        let slack = ((left_hours - work_hours) / step).min(f64::from(self.grid[self.grid.len() - 1])) as f32;
        let work = (work_hours / step) as f32;
        let after = (work + slack - 1.0).clamp(0.0, self.layers as f32);
        let (low, part) = (after.floor() as usize, after.fract());
        let at = |layer: usize| self.values_at(layer.min(self.layers), work, slack, market.state(), sitting);
        let (first, unit) = (at(low), step * self.terms.spot_price);
        let mixed = if part < 1e-3 { first } else { mix(first, at(low + 1), part) };
        Values { idle: f64::from(mixed[0]) * unit, spot: f64::from(mixed[1]) * unit, on_demand: f64::from(mixed[2]) * unit }
    }

    fn values_at(&self, layer: usize, work: f32, slack: f32, state: usize, sitting: Sitting) -> [f32; 3] {
        let Chances { stays, ages, turns, moves } = self.chances[state];
        let elsewhere = |rows: usize, slack: f32| -> f32 {
            if moves == 0.0 { 0.0 } else { (0..CLASSES).map(|class| self.elsewhere_ages[class] * self.value(layer, rows + class, slack)).sum() }
        };
        let expected = |rows: usize, slack: f32| {
            let known = [stays, ages, turns].into_iter().filter(|(_, chance)| *chance > 0.0);
            known.map(|(to, chance)| chance * self.value(layer, rows + to, slack)).sum::<f32>() + moves * elsewhere(rows, slack)
        };
        let overhead = |seat: Sitting| if sitting == seat { 0.0 } else { self.overhead() };
        let dear = overhead(Sitting::OnDemand);
        let on_demand = if self.terms.on_demand_stays {
            self.dearness() * (work + dear + LATE * (dear - slack).max(0.0))
        } else {
            self.dearness() * (work + dear).min(1.0) + expected(ON_DEMAND, slack - dear)
        };
        if self.terms.on_demand_stays && sitting == Sitting::OnDemand {
            return [f32::INFINITY, f32::INFINITY, on_demand];
        }
        let spot = if state < CLASSES {
            let cheap = overhead(Sitting::Spot);
            let lost = turns.1 + moves;
            let goes_on: f32 = [stays, ages].into_iter().map(|(to, chance)| chance * self.value(layer, SPOT + to, slack - cheap)).sum();
            let gone = turns.1 * self.value(layer, turns.0, slack - cheap - 0.5) + moves * elsewhere(0, slack - cheap - 0.5);
            (work + cheap).min(1.0) * (1.0 - 0.5 * lost) + goes_on + gone
        } else {
            f32::INFINITY
        };
        [expected(0, slack - 1.0), spot, on_demand]
    }

    fn value(&self, layer: usize, row: usize, slack: f32) -> f32 {
        if layer as f32 <= slack {
            return 0.0;
        }
        let row = &self.values[(layer * ROWS + row) * self.grid.len()..][..self.grid.len()];
        if slack < 0.0 {
            return row[0] - slack * self.dearness() * LATE;
        }
        let index = self.grid.partition_point(|point| *point <= slack).clamp(1, row.len() - 1) - 1;
        let part = (slack - self.grid[index]) / (self.grid[index + 1] - self.grid[index]);
        row[index] + (row[index + 1] - row[index]) * part
    }

    /// On-demand's price in spot's.
    fn dearness(&self) -> f32 {
        (self.terms.on_demand_price / self.terms.spot_price) as f32
    }

    fn overhead(&self) -> f32 {
        (self.terms.overhead_hours / self.terms.step_hours) as f32
    }
}

fn mix(a: [f32; 3], b: [f32; 3], part: f32) -> [f32; 3] {
    std::array::from_fn(|choice| if a[choice].is_finite() { a[choice] + (b[choice] - a[choice]) * part } else { a[choice] })
}

/// Tenths of a step near the deadline, three steps far from it.
fn grid(slack_max: f32) -> Vec<f32> {
    let mut grid = vec![0.0f32];
    let mut last = 0.0;
    while last < slack_max + 3.0 {
        last += match last {
            near if near < 6.0 => 0.1,
            near if near < 18.0 => 0.3,
            near if near < 48.0 => 1.0,
            _ => 3.0,
        };
        grid.push(last);
    }
    grid
}

fn chances(behaviour: &Behaviour, state: usize, step_hours: f64) -> Chances {
    let (class, is_up) = (state % CLASSES, state < CLASSES);
    let hazard = if is_up { behaviour.up[class] } else { behaviour.down[class] };
    let ends = 1.0 - (-hazard * step_hours).exp();
    let older = if class + 1 < CLASSES { (step_hours / (AGES[class + 1] - AGES[class])).min(1.0) } else { 0.0 };
    let moves = if is_up { ends * behaviour.elsewhere } else { 0.0 };
    Chances {
        stays: (state, ((1.0 - ends) * (1.0 - older)) as f32),
        ages: (if class + 1 < CLASSES { state + 1 } else { state }, ((1.0 - ends) * older) as f32),
        turns: (if is_up { CLASSES } else { 0 }, (ends - moves) as f32),
        moves: moves as f32,
    }
}

/// Where on the grid the slack lies after so many steps of it are gone.
struct Shift {
    index: Vec<u32>,
    part: Vec<f32>,
    /// What a step of missing slack costs, in spot steps.
    late: f32,
}

impl Shift {
    fn new(grid: &[f32], by: f32, late: f32) -> Shift {
        let place = |slack: &f32| {
            let to = slack - by;
            let index = grid.partition_point(|point| *point <= to).clamp(1, grid.len() - 1) - 1;
            let part = if to < 0.0 { to } else { (to - grid[index]) / (grid[index + 1] - grid[index]) };
            (index as u32, part)
        };
        let (index, part) = grid.iter().map(place).unzip();
        Shift { index, part, late }
    }

    #[inline(always)]
    fn of(&self, row: &[f32], at: usize) -> f32 {
        let (index, part) = (self.index[at] as usize, self.part[at]);
        if part < 0.0 { row[0] - part * self.late } else { row[index] + (row[index + 1] - row[index]) * part }
    }
}

/// The work space of one layer after the other.
struct Sweep {
    stays: bool,
    dearness: f32,
    overhead: f32,
    /// Slack after idling a step, after a launch, after losing spot in the middle of a step, and after both.
    idle: Shift,
    launch: Shift,
    lost: Shift,
    launch_lost: Shift,
    /// Expected values at the next step, by row: idle, on-demand, spot that goes on.
    next: Vec<Vec<f32>>,
    /// Spot that has gone, by class.
    gone: Vec<Vec<f32>>,
    elsewhere: [Vec<f32>; 2],
}

impl Sweep {
    fn new(table: &Table) -> Sweep {
        let (dearness, overhead) = (table.dearness(), table.overhead());
        let size = table.grid.len();
        let shift = |by| Shift::new(&table.grid, by, dearness * LATE);
        Sweep {
            stays: table.terms.on_demand_stays,
            dearness,
            overhead,
            idle: shift(1.0),
            launch: shift(overhead),
            lost: shift(0.5),
            launch_lost: shift(overhead + 0.5),
            next: vec![vec![0.0; size]; ROWS],
            gone: vec![vec![0.0; size]; CLASSES],
            elsewhere: [vec![0.0; size], vec![0.0; size]],
        }
    }

    /// `before` has one step less to the deadline than `after`.
    fn layer(&mut self, chances: &[Chances], ages: &[f32; CLASSES], before: &[f32], after: &mut [f32], left: f32, grid: &[f32]) {
        self.expect(chances, ages, before, grid.len());
        // Where no work is left nothing costs; slack beyond that stays 0.
        let open = grid.partition_point(|slack| *slack < left);
        for (state, chance) in chances.iter().enumerate() {
            let lost = if state < CLASSES { chance.turns.1 + chance.moves } else { 0.0 };
            for (at, slack) in grid.iter().enumerate().take(open) {
                let work = (left - slack).min(1.0);
                let work_launch = (left - slack + self.overhead).min(1.0);
                let idle = self.idle.of(&self.next[state], at);
                let dear = &self.next[ON_DEMAND + state];
                let (dear_on, dear_launch) = if self.stays {
                    let rest = left - slack;
                    (self.dearness * rest, self.dearness * (rest + self.overhead + LATE * (self.overhead - slack).max(0.0)))
                } else {
                    (self.dearness * work + dear[at], self.dearness * work_launch + self.launch.of(dear, at))
                };
                if state < CLASSES {
                    let (spot, gone, paid) = (&self.next[SPOT + state], &self.gone[state], 1.0 - 0.5 * lost);
                    let cheap_on = work * paid + spot[at] + lost * self.lost.of(gone, at);
                    let cheap_launch = work_launch * paid + self.launch.of(spot, at) + lost * self.launch_lost.of(gone, at);
                    after[state * grid.len() + at] = idle.min(dear_launch).min(cheap_launch);
                    after[(ON_DEMAND + state) * grid.len() + at] = idle.min(dear_on).min(cheap_launch);
                    after[(SPOT + state) * grid.len() + at] = idle.min(dear_launch).min(cheap_on);
                } else {
                    after[state * grid.len() + at] = idle.min(dear_launch);
                    after[(ON_DEMAND + state) * grid.len() + at] = idle.min(dear_on);
                }
            }
        }
    }

    fn expect(&mut self, chances: &[Chances], ages: &[f32; CLASSES], before: &[f32], size: usize) {
        let row = |row: usize| &before[row * size..(row + 1) * size];
        for (rows, mixed) in [0, ON_DEMAND].into_iter().zip(&mut self.elsewhere) {
            mixed.fill(0.0);
            for (class, share) in ages.iter().enumerate() {
                mixed.iter_mut().zip(row(rows + class)).for_each(|(sum, value)| *sum += share * value);
            }
        }
        for (state, Chances { stays, ages, turns, moves }) in chances.iter().enumerate() {
            for (rows, mixed) in [0, ON_DEMAND].into_iter().zip(&self.elsewhere) {
                let (a, b, c) = (row(rows + stays.0), row(rows + ages.0), row(rows + turns.0));
                for (at, next) in self.next[rows + state].iter_mut().enumerate() {
                    *next = stays.1 * a[at] + ages.1 * b[at] + turns.1 * c[at] + moves * mixed[at];
                }
            }
            if state < CLASSES {
                let (a, b, c) = (row(SPOT + stays.0), row(SPOT + ages.0), row(turns.0));
                for (at, next) in self.next[SPOT + state].iter_mut().enumerate() {
                    *next = stays.1 * a[at] + ages.1 * b[at];
                }
                let lost = (turns.1 + moves).max(f32::MIN_POSITIVE);
                for (at, gone) in self.gone[state].iter_mut().enumerate() {
                    *gone = (turns.1 * c[at] + moves * self.elsewhere[0][at]) / lost;
                }
            }
        }
    }
}
