//! Hundreds of histories full of faults; when the faults stop, everything ends and the plan is empty for good.

use chrono::TimeDelta;
use rand::RngExt;

use super::{Faults, World, seeded};
use crate::scheduling::Action;
use crate::training::JobPhase;

/// A few market hours with every fault, then peace.
fn live_through(seed: u64) -> Result<World, (Box<World>, String)> {
    let mut world = seeded::world(seed);
    let step = |world: &mut World, most: i64| {
        let passes = TimeDelta::seconds(world.random.random_range(10..most));
        world.step(passes)
    };
    for round in 0..150 {
        if round % 10 == 9 && world.random.random_bool(0.2) {
            world.meddle();
        }
        if let Err(why) = step(&mut world, 120) {
            return Err((Box::new(world), why));
        }
    }
    world.faults = Faults::NONE;
    for _ in 0..400 {
        match step(&mut world, 180) {
            Ok(plan) if plan.actions.is_empty() && world.claims.is_empty() && world.workloads.is_empty() => break,
            Ok(_) => {}
            Err(why) => return Err((Box::new(world), why)),
        }
    }
    match settled(&mut world) {
        Ok(()) => Ok(world),
        Err(why) => Err((Box::new(world), why)),
    }
}

/// Nothing runs, nothing is planned, every job is over or refused for a reason.
fn settled(world: &mut World) -> Result<(), String> {
    for view in world.jobs.values() {
        let decision = view.status.decision.as_ref().map(|decision| decision.kind.as_str());
        if !view.status.phase.is_over() && decision != Some("Refuse") {
            return Err(format!("{} is {} with {:?}", view.job.id, view.status.phase, view.status.decision));
        }
    }
    let now = world.now;
    if let Some(vm) = world.cloud.machines.values().find(|vm| vm.is_alive(now)) {
        return Err(format!("machine {} still runs", vm.id));
    }
    if !world.claims.is_empty() || !world.workloads.is_empty() {
        return Err(format!("{} workloads and these claims are left: {:#?}", world.workloads.len(), world.claims));
    }
    if let Some(node) = world.nodes.values().find(|node| node.claim.is_some()) {
        return Err(format!("node {} still belongs to {:?}", node.name, node.claim));
    }
    let refused = world.jobs.values().filter(|view| !view.status.phase.is_over()).count();
    let mut reworded = 0;
    for _ in 0..20 {
        let plan = world.step(TimeDelta::minutes(7))?;
        // What is over budget becomes impossible when its deadline comes near; then past; each is said once.
        reworded += plan.actions.len();
        if reworded > 3 * refused || !plan.actions.iter().all(|action| matches!(action, Action::RecordJob { .. })) {
            return Err(format!("the plan is not empty: {:?}", plan.actions));
        }
    }
    Ok(())
}

fn run(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        if let Err((world, why)) = live_through(seed) {
            panic!("seed {seed}: {why}\nthe last of its history:\n{}", world.tail(40));
        }
    }
}

/// How many histories; `PURSER_SEEDS=10000` for a long night.
fn seeds() -> u64 {
    std::env::var("PURSER_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(120)
}

#[test]
fn no_fault_forgets_a_machine_or_runs_a_job_twice() {
    run(0..seeds() / 2);
}

#[test]
fn no_fault_forgets_a_machine_or_runs_a_job_twice_other_half() {
    run(seeds() / 2..seeds());
}

#[test]
fn a_world_without_faults_finishes_every_feasible_job_in_its_first_attempt() {
    for seed in 0..40 {
        let mut world = seeded::world(seed);
        world.faults = Faults::NONE;
        for _ in 0..200 {
            world.step(TimeDelta::minutes(2)).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        }
        for view in world.jobs.values().filter(|view| view.status.phase.is_over()) {
            assert_eq!((view.status.phase, view.status.attempts.len()), (JobPhase::Succeeded, 1), "seed {seed}: {}", view.job.id);
        }
        settled(&mut world).unwrap_or_else(|why| panic!("seed {seed}: {why}\n{}", world.tail(40)));
    }
}

#[test]
fn one_seed_is_one_history() {
    let history = |seed| live_through(seed).map(|world| world.log).unwrap_or_default();
    assert_eq!(history(7), history(7));
}
