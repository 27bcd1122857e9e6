//! How far a market may be from what was learned: markets drawn from what is known of this one.
//!
//! Two doubts. The hazards were learned from few ends, so they are drawn from their posterior: the level, common to all ages,
//! then each class by itself. And markets change over days: a tide (autoregressive, on the logarithm of the hazards) comes and
//! goes in how soon spells end, how soon gaps do, and how likely another zone is up.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::behaviour::{AGES, Behaviour, CLASSES, Evidence, Hazards, Observed, class_of};
use super::value::Market;

/// How markets change beyond what they were learned to be: standard deviations of what comes and goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tides {
    /// Of the logarithm of hazards: of spells, and by themselves of gaps.
    pub hazards: f64,
    /// Of the log-odds that another zone is up when one goes.
    pub elsewhere: f64,
    /// After so many hours a tide has lost all but 1/e of itself.
    pub memory_hours: f64,
}

impl Tides {
    /// Chosen on one half of the public traces: docs/reference/scheduling.md, "Forecasts".
    pub const USUAL: Tides = Tides { hazards: 0.4, elsewhere: 2.0, memory_hours: 24.0 };
}

/// A market that may be this one, living.
pub struct Possible {
    rng: ChaCha8Rng,
    step_hours: f64,
    tides: Tides,
    up: Hazards,
    down: Hazards,
    elsewhere: f64,
    /// As the tide has it.
    moves: f64,
    elsewhere_ages: [f64; CLASSES],
    /// Of spells, of gaps, of other zones: in standard deviations.
    tide: [f64; 3],
    steps_to_turn: usize,
    /// Chances to end in a step, by class, in 2⁻³².
    ends: [[u32; CLASSES]; 2],
    is_up: bool,
    age_hours: f64,
}

/// Tides turn so often.
const TURN_HOURS: f64 = 4.0;

impl Possible {
    pub fn draw(behaviour: &Behaviour, market: Market, step_hours: f64, tides: Tides, mut rng: ChaCha8Rng) -> Possible {
        let Evidence { up, down, gone, found } = &behaviour.evidence;
        let (up, down) = (hazards(up, &mut rng), hazards(down, &mut rng));
        let elsewhere = if behaviour.elsewhere > 0.0 { beta(&mut rng, *found, gone - found) } else { 0.0 };
        let tide = std::array::from_fn(|_| normal(&mut rng));
        let (is_up, age_hours) = match market {
            Market::Up { age_hours } => (true, age_hours),
            Market::Down { age_hours } => (false, age_hours),
        };
        let elsewhere_ages = behaviour.elsewhere_ages;
        let mut possible = Possible { rng, step_hours, tides, up, down, elsewhere, moves: elsewhere, elsewhere_ages, tide, steps_to_turn: 0, ends: [[0; CLASSES]; 2], is_up, age_hours };
        possible.flow();
        possible
    }

    pub fn is_up(&self) -> bool {
        self.is_up
    }

    pub fn class(&self) -> usize {
        class_of(self.age_hours)
    }

    /// One step on; whether the zone that was up has gone (another may be up).
    pub fn step(&mut self) -> bool {
        self.turn();
        let ends = self.rng.random::<u32>() < self.ends[usize::from(self.is_up)][self.class()];
        if !ends {
            self.age_hours += self.step_hours;
            return false;
        }
        let was_up = self.is_up;
        let moves = was_up && self.moves > 0.0 && self.rng.random::<f64>() < self.moves;
        self.is_up = !was_up || moves;
        self.age_hours = if moves { self.age_elsewhere() } else { 0.0 };
        was_up
    }

    fn age_elsewhere(&mut self) -> f64 {
        let mut left = self.rng.random::<f64>();
        let class = self.elsewhere_ages.iter().position(|share| {
            left -= share;
            left < 0.0
        });
        AGES[class.unwrap_or(0)]
    }

    fn turn(&mut self) {
        if self.steps_to_turn > 0 {
            self.steps_to_turn -= 1;
            return;
        }
        self.steps_to_turn = (TURN_HOURS / self.step_hours).round().max(1.0) as usize;
        let kept = (-(self.steps_to_turn as f64) * self.step_hours / self.tides.memory_hours).exp();
        for tide in &mut self.tide {
            *tide = kept * *tide + (1.0 - kept * kept).sqrt() * normal(&mut self.rng);
        }
        self.flow();
    }

    /// Sets the chances to what the tide makes of the hazards.
    fn flow(&mut self) {
        let [up, down, others] = self.tide.map(|tide| tide.exp());
        let Tides { hazards, elsewhere, memory_hours: _ } = self.tides;
        let chance = |hazard: f64| ((1.0 - (-hazard * self.step_hours).exp()) * f64::from(u32::MAX)) as u32;
        self.ends = [(&self.down, down), (&self.up, up)].map(|(learned, tide)| learned.map(|hazard| chance(hazard * tide.powf(hazards))));
        let odds = self.elsewhere / (1.0 - self.elsewhere) * others.powf(elsewhere);
        self.moves = if self.elsewhere < 1.0 { odds / (1.0 + odds) } else { 1.0 };
    }
}

/// The level first, then each class around it.
fn hazards(observed: &Observed, rng: &mut ChaCha8Rng) -> Hazards {
    let (ends, expected) = observed.level();
    let level = gamma(rng, ends) / expected;
    observed.hazards_at(level, |_, ends| gamma(rng, ends))
}

fn beta(rng: &mut ChaCha8Rng, yes: f64, no: f64) -> f64 {
    let (yes, no) = (gamma(rng, yes.max(1.0)), gamma(rng, no.max(1.0)));
    yes / (yes + no)
}

/// Marsaglia and Tsang, "A simple method for generating gamma variables", ACM TOMS 26 (2000); shapes from 1, rate 1.
fn gamma(rng: &mut ChaCha8Rng, shape: f64) -> f64 {
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - rng.random::<f64>()).ln() < 0.5 * x * x + d * (1.0 - v + v.ln()) {
            return d * v;
        }
    }
}

/// Box and Muller's.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::deadline::behaviour::{Spell, learn};
    use rand::SeedableRng;

    #[test]
    fn a_gamma_has_its_mean_and_variance() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for shape in [1.5, 6.0, 80.0] {
            let draws: Vec<f64> = (0..20_000).map(|_| gamma(&mut rng, shape)).collect();
            let mean = draws.iter().sum::<f64>() / draws.len() as f64;
            let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / draws.len() as f64;
            assert!((mean / shape - 1.0).abs() < 0.03 && (variance / shape - 1.0).abs() < 0.06, "{shape}: {mean} {variance}");
        }
    }

    #[test]
    fn what_was_seen_for_long_is_doubted_less() {
        let turns = |count: usize| (0..count).map(|turn| Spell { up: turn % 2 == 0, from: turn as f64, to: (turn + 1) as f64 }).collect::<Vec<Spell>>();
        let spread = |count: usize| {
            let observed = learn(&[turns(count)], count as f64).evidence.up;
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            let logs: Vec<f64> = (0..500).map(|_| hazards(&observed, &mut rng)[2].ln()).collect();
            let mean = logs.iter().sum::<f64>() / 500.0;
            logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>()
        };
        assert!(spread(200) < 0.6 * spread(4), "{} {}", spread(200), spread(4));
    }
}
