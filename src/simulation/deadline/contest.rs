//! Every policy on the same runs, beside the optimum.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::cases::Cases;
use super::published::{Greedy, OnDemand, TimeSliced, UniformProgress};
use super::purser::Purser;
use super::{Outcome, Policy, optimum, replay, run};

/// Who can play.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contestant {
    OnDemand,
    Greedy,
    TimeSliced,
    UniformProgress,
    /// Ours.
    Purser,
    /// Who knows the future.
    Optimal,
}

impl Contestant {
    pub const ALL: &[Contestant] = &[Contestant::OnDemand, Contestant::Greedy, Contestant::TimeSliced, Contestant::UniformProgress, Contestant::Purser, Contestant::Optimal];

    pub const fn name(self) -> &'static str {
        match self {
            Contestant::OnDemand => "on-demand",
            Contestant::Greedy => "greedy",
            Contestant::TimeSliced => "time-sliced",
            Contestant::UniformProgress => "uniform-progress",
            Contestant::Purser => "purser",
            Contestant::Optimal => "optimal",
        }
    }

    /// A player that has seen nothing yet; the optimum is no policy.
    pub fn policy(self) -> Option<Box<dyn Policy>> {
        match self {
            Contestant::OnDemand => Some(Box::new(OnDemand)),
            Contestant::Greedy => Some(Box::new(Greedy)),
            Contestant::TimeSliced => Some(Box::new(TimeSliced)),
            Contestant::UniformProgress => Some(Box::new(UniformProgress)),
            Contestant::Purser => Some(Box::new(Purser::default())),
            Contestant::Optimal => None,
        }
    }
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no policy is called {name:?}; there are {}", Contestant::ALL.iter().map(|one| one.name()).collect::<Vec<_>>().join(", "))]
pub struct NoSuchPolicy {
    name: String,
}

impl FromStr for Contestant {
    type Err = NoSuchPolicy;

    fn from_str(name: &str) -> Result<Contestant, NoSuchPolicy> {
        Contestant::ALL.iter().copied().find(|one| one.name() == name).ok_or_else(|| NoSuchPolicy { name: name.to_owned() })
    }
}

/// What became of one case.
#[derive(Clone, Debug, PartialEq)]
pub struct Played {
    /// Index among the cases.
    pub case: usize,
    /// What on-demand from the start costs, and whether it keeps the deadline.
    pub on_demand: Score,
    /// The least cost that keeps the deadline; `None` where nothing does.
    pub optimal: Option<f64>,
    pub scores: Vec<(Contestant, Score)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    pub cost: f64,
    pub missed: bool,
    pub interruptions: i64,
}

impl Score {
    fn of(outcome: &Outcome) -> Score {
        Score { cost: outcome.cost, missed: outcome.missed, interruptions: outcome.preemptions }
    }
}

/// Cases that one player can take one after the other, so that what it worked out about a market serves them all: by arena and
/// overhead, in the order of their starts.
pub fn batches(cases: &Cases) -> Vec<Vec<usize>> {
    let mut batches: BTreeMap<(usize, i64), Vec<usize>> = BTreeMap::new();
    for (number, case) in cases.cases.iter().enumerate() {
        batches.entry((case.arena, case.task.overhead)).or_default().push(number);
    }
    let mut batches: Vec<Vec<usize>> = batches.into_values().collect();
    batches.iter_mut().for_each(|batch| batch.sort_by_key(|number| cases.cases[*number].task.start));
    batches
}

/// Plays the cases of a batch.
pub fn play(cases: &Cases, batch: &[usize], contestants: &[Contestant]) -> Vec<Played> {
    let mut players: Vec<(Contestant, Box<dyn Policy>)> = contestants.iter().filter_map(|one| Some((*one, one.policy()?))).collect();
    batch.iter().map(|case| play_one(cases, *case, contestants, &mut players)).collect()
}

fn play_one(cases: &Cases, case: usize, contestants: &[Contestant], players: &mut [(Contestant, Box<dyn Policy>)]) -> Played {
    let (arena, task) = (&cases.arenas[cases.cases[case].arena], &cases.cases[case].task);
    let on_demand = Score::of(&run(arena, task, &mut OnDemand));
    let mut scores: Vec<(Contestant, Score)> = players.iter_mut().map(|(one, policy)| (*one, Score::of(&run(arena, task, policy.as_mut())))).collect();
    let in_time = scores.iter().map(|(_, score)| score).chain([&on_demand]).filter(|score| !score.missed);
    let best = optimum(arena, task, in_time.map(|score| score.cost).fold(f64::INFINITY, f64::min));
    if let Some(best) = best.as_ref().filter(|_| contestants.contains(&Contestant::Optimal)) {
        scores.push((Contestant::Optimal, Score::of(&replay(arena, task, &best.seats))));
    }
    Played { case, on_demand, optimal: best.map(|best| best.cost), scores }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::CapacityKind;
    use crate::simulation::deadline::arena::{FULL_SPEED, random};
    use crate::simulation::deadline::cases::Case;
    use crate::simulation::deadline::{Arena, Task, cases::ON_DEMAND_TO_SPOT};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// A market whose on-demand can always be had, at the speed that the job states.
    fn kind_market(seed: u64) -> Cases {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut arena = random::arena(&mut rng, 5, 300);
        for seat in arena.seats.iter_mut().filter(|seat| seat.kind == CapacityKind::OnDemand) {
            (seat.up, seat.speed_permille) = (Vec::new(), FULL_SPEED);
        }
        let task = random::task(&mut rng, &arena);
        Cases { arenas: vec![arena], cases: vec![Case { group: "random".to_owned(), arena: 0, job_fraction: 0.5, task }] }
    }

    #[test]
    fn no_policy_misses_a_deadline_that_on_demand_keeps_nor_costs_less_than_the_optimum() {
        for seed in 0..100 {
            // Ours solves a programme in each market, which takes a while without optimisation.
            let players: Vec<Contestant> = Contestant::ALL.iter().copied().filter(|one| *one != Contestant::Purser || seed % 20 == 0).collect();
            let played = &play(&kind_market(seed), &[0], &players)[0];
            let optimal = played.optimal.expect("on-demand alone keeps the deadline");
            assert!(!played.on_demand.missed, "seed {seed}");
            for (contestant, score) in &played.scores {
                assert!(!score.missed && score.cost >= optimal - 1e-9, "seed {seed}: {contestant} {score:?}, optimum {optimal}");
            }
        }
    }

    #[test]
    fn a_reservation_is_never_idle_while_on_demand_runs_for_a_job_it_could_serve() {
        let mut reserved = 0;
        for seed in 0..60 {
            let mut cases = kind_market(seed);
            let arena = cases.arenas.remove(0).with_capacity_block("z", 0, 40..160);
            let task = cases.cases[0].task;
            for one in [Contestant::Greedy, Contestant::Purser].into_iter().filter(|one| *one == Contestant::Greedy || seed % 20 == 0) {
                let outcome = run(&arena, &task, one.policy().unwrap().as_mut());
                reserved += outcome.reserved_ticks;
                for (tick, seat) in outcome.seats.iter().enumerate().filter(|(_, seat)| seat.is_some_and(|seat| arena.seats[seat].kind == CapacityKind::OnDemand)) {
                    let done = if tick == 0 { 0 } else { outcome.done[tick - 1] };
                    let is_critical = super::super::run::ceil_div(task.work - done + task.overhead, arena.tick_seconds) >= task.deadline_ticks - tick as i64;
                    // The block ends at tick 157, half an hour early.
                    let lasts = (task.start + tick..157).len() as i64 * arena.tick_seconds;
                    let is_up = task.start + tick >= 40;
                    assert!(is_critical || !is_up || lasts <= 2 * task.overhead, "seed {seed}: {one} pays for seat {seat:?} in tick {tick}");
                }
            }
        }
        assert!(reserved > 1000, "{reserved} ticks: the blocks were hardly used");
    }

    #[test]
    fn a_run_is_counted_tick_by_tick() {
        // Two ticks of spot (one lost to the launch), two without, three, one without, two.
        let up = [1, 1, 0, 0, 1, 1, 1, 0, 1, 1].map(|up| up == 1).to_vec();
        let arena = Arena::of_equal_prices(600, vec![("a".to_owned(), up)], ON_DEMAND_TO_SPOT);
        let task = Task { work: 3000, true_work: 3000, error_permille: 0, deadline_ticks: 10, overhead: 600, start: 0 };
        let counts = |one: Contestant| {
            let outcome = run(&arena, &task, one.policy().unwrap().as_mut());
            (outcome.spot_ticks, outcome.on_demand_ticks, outcome.launches, outcome.preemptions, outcome.finish_tick)
        };
        assert_eq!(counts(Contestant::OnDemand), (0, 6, 1, 0, 6));
        assert_eq!(counts(Contestant::Greedy), (5, 3, 3, 2, 10), "work 600 and 1200 on spot, then on-demand when five ticks' worth is left");
    }

    #[test]
    fn names_are_read_back() {
        for one in Contestant::ALL {
            assert_eq!(one.name().parse(), Ok(*one));
        }
        assert!("best".parse::<Contestant>().unwrap_err().to_string().contains("greedy"));
    }
}
