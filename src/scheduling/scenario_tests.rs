//! Decisions, told as small worlds and judged by the text of the plan.

use chrono::TimeDelta;

use super::scenario::*;
use super::snapshot::{InstanceState, Observed, WorkloadEnd};
use super::{Action, DecisionKind, ReasonCode, plan};
use crate::capacity::{CapacityKind, InstanceRequirements, Provider, RefusalCode};
use crate::training::{AttemptOutcome, JobPhase, JobStatus};

fn reason_of(scenario: &Scenario, name: &str) -> (DecisionKind, ReasonCode, String) {
    let plan = scenario.result();
    let (_, decision) = plan.decisions.iter().find(|(job, _)| job.name == name).unwrap();
    (decision.kind, decision.because.code, decision.because.message.clone())
}

fn status_of(scenario: &Scenario, name: &str) -> JobStatus {
    let status = scenario.result().actions.into_iter().find_map(|action| match action {
        Action::RecordJob { job, status, .. } if job.name == name => Some(*status),
        _ => None,
    });
    status.unwrap()
}

fn launched(scenario: &Scenario) -> Vec<(String, CapacityKind)> {
    let launch = |action| match action {
        Action::WriteClaim { record, .. } => Some((record.job.name, record.offer.kind)),
        _ => None,
    };
    scenario.result().actions.into_iter().filter_map(launch).collect()
}

#[test]
fn a_job_without_deadline_goes_to_the_cheapest_spot_offer() {
    let text = scenario().pool(pool("gpu")).job(job("bert").workers(4)).plan();
    assert_eq!(
        text,
        "lab/bert: Launch (SpotWithinSlack): 4 × g5.xlarge spot us-east-1a at 0.4 USD/h: cheapest spot; there is no deadline; \
         would finish about 2026-03-01 14:10 UTC for about 3.47 USD\n\
         → RecordJob lab/bert: Provisioning\n\
         → WriteClaim claim-7b944edd02e1f934082f: 4 × g5.xlarge spot us-east-1a for lab/bert, attempt 1, ask 1"
    );
}

#[test]
fn spot_is_refused_when_an_interruption_would_miss_the_deadline() {
    // 2 h of work, 5 min of boot, 5 min of restart; losing one start costs 5 + 5 + 10 + 5 min more.
    let relaxed = scenario().pool(pool("gpu")).job(job("a").deadline_in(minutes(156)));
    assert_eq!(reason_of(&relaxed, "a").1, ReasonCode::SpotWithinSlack);
    let pressed = scenario().pool(pool("gpu")).job(job("a").deadline_in(minutes(155)));
    assert_eq!(launched(&pressed), [("a".into(), CapacityKind::OnDemand)]);
    assert_eq!(reason_of(&pressed, "a").1, ReasonCode::DeadlineNeedsOnDemand);
}

#[test]
fn a_deadline_that_no_start_can_meet_is_refused_with_one_that_could() {
    let scenario = scenario().pool(pool("gpu")).job(job("a").deadline_in(minutes(129)));
    let (kind, code, message) = reason_of(&scenario, "a");
    assert_eq!((kind, code), (DecisionKind::Refuse, ReasonCode::DeadlineImpossible));
    assert!(message.ends_with("the deadline would have to be ≥ 2026-03-01 14:10 UTC"), "{message}");
    let possible = super::scenario::scenario().pool(pool("gpu")).job(job("a").deadline_in(minutes(130)));
    assert_eq!(launched(&possible), [("a".into(), CapacityKind::OnDemand)]);
}

#[test]
fn a_job_that_has_begun_goes_on_after_its_deadline_became_impossible() {
    let bert = job("bert").deadline_in(minutes(10)).checkpoint_at(0.5);
    let mut over = granted(claim(&bert, 1, 1, spot()));
    over.status.phase = crate::capacity::ClaimPhase::Ended;
    let mut bert = bert.attempt_on(&over);
    bert.0.status.attempts[0].outcome = Some(AttemptOutcome::Interrupted);
    let scenario = scenario().pool(pool("gpu")).job(bert);
    assert_eq!(launched(&scenario), [("bert".into(), CapacityKind::OnDemand)]);
    assert!(reason_of(&scenario, "bert").2.contains("missed already"));
}

#[test]
fn idle_reserved_capacity_comes_first_whatever_its_list_price() {
    let mut gpu = pool("gpu");
    gpu.offers.push(quoted(offer("g5.xlarge", "us-east-1b", CapacityKind::Reserved, "9")));
    let scenario = scenario().pool(gpu).job(job("a").budget("0.01"));
    assert_eq!(launched(&scenario), [("a".into(), CapacityKind::Reserved)]);
}

#[test]
fn a_gang_larger_than_what_is_available_waits_and_names_the_quota() {
    let mut gpu = pool("gpu");
    for quoted in &mut gpu.offers {
        quoted.available_max = Some((3, "quota L-3819A6DF".into()));
    }
    let scenario = scenario().pool(gpu).job(job("big").workers(4)).job(job("small").workers(2)).job(job("late").workers(2));
    let (kind, code, message) = reason_of(&scenario, "big");
    assert_eq!((kind, code), (DecisionKind::Wait, ReasonCode::QuotaReached));
    assert!(message.contains("quota L-3819A6DF leaves 3"), "{message}");
    // The first of two that fit one by one takes the place.
    assert_eq!(launched(&scenario).len(), 1);
}

#[test]
fn jobs_are_served_by_priority_then_deadline_then_submission() {
    let mut gpu = pool("gpu");
    gpu.machines_max = Some(1);
    let urgent = job("b-urgent").priority(1);
    let soon = job("c-soon").deadline_in(hours(9));
    let world = scenario().pool(gpu.clone()).job(job("a-first")).job(urgent).job(soon.clone());
    assert_eq!(launched(&world)[0].0, "b-urgent");
    assert_eq!(reason_of(&world, "a-first").1, ReasonCode::PoolLimit);
    assert_eq!(launched(&scenario().pool(gpu).job(job("a-first")).job(soon))[0].0, "c-soon");
}

#[test]
fn over_budget_is_refused_and_says_by_how_much() {
    let world = scenario().pool(pool("gpu")).experiment_budget("10", "9.50").job(job("a").workers(4));
    let (kind, code, message) = reason_of(&world, "a");
    assert_eq!((kind, code), (DecisionKind::Refuse, ReasonCode::OverBudget));
    assert!(
        message.contains("would cost about 3.47 USD, but 0.50 USD of the budget of experiment vision (10.00 USD) is left: 2.97 USD short"),
        "{message}"
    );
    let team = scenario().pool(pool("gpu")).team_budget("10", "9.50").job(job("a").workers(4));
    assert!(reason_of(&team, "a").2.contains("team lab-team"));
    let own = scenario().pool(pool("gpu")).job(job("a").workers(4).budget("3"));
    assert_eq!(reason_of(&own, "a").1, ReasonCode::OverBudget);
}

#[test]
fn what_running_jobs_will_still_cost_counts_against_the_budget() {
    let first = job("first").takes(hours(10));
    let held = granted(claim(&first, 1, 1, on_demand()));
    // Until noon 59 min have run up, at 1 USD/h; about 10 h are to come.
    let world = scenario()
        .pool(pool("gpu"))
        .experiment_budget("11.5", "0")
        .claim(&held)
        .workload(running(&held))
        .job(first.attempt_on(&held))
        .job(job("second"));
    assert_eq!(reason_of(&world, "second").1, ReasonCode::OverBudget);
}

#[test]
fn two_launches_of_one_plan_share_the_budget() {
    let world = scenario().pool(pool("gpu")).experiment_budget("1", "0").job(job("a")).job(job("b"));
    assert_eq!(launched(&world).len(), 1);
    assert_eq!(reason_of(&world, "b").1, ReasonCode::OverBudget);
}

#[test]
fn a_refused_offer_is_left_alone_for_longer_each_time() {
    let bert = job("bert").only(&[CapacityKind::Spot]);
    let ask = |ask, ago| refused(claim(&bert, 1, ask, spot()), RefusalCode::NoCapacity, noon() - minutes(ago));
    let once = |ago| scenario().pool(pool("gpu")).claim(&ask(1, ago)).job(bert.clone());
    assert_eq!(reason_of(&once(9), "bert").1, ReasonCode::AllOffersRefused);
    assert_eq!(launched(&once(11)).len(), 1);
    let twice = |ago| scenario().pool(pool("gpu")).claim(&ask(1, ago + 10)).claim(&ask(2, ago)).job(bert.clone());
    assert_eq!(reason_of(&twice(19), "bert").1, ReasonCode::AllOffersRefused);
    assert_eq!(launched(&twice(21)).len(), 1);
    // A refusal of four says nothing about one.
    let four = refused(claim(&job("four").workers(4), 1, 1, spot()), RefusalCode::NoCapacity, noon() - minutes(1));
    assert_eq!(launched(&scenario().pool(pool("gpu")).claim(&four).job(bert.clone())).len(), 1);
}

#[test]
fn while_spot_is_refused_and_slack_is_left_the_job_waits_and_says_until_when() {
    let bert = job("bert").deadline_in(hours(6));
    let no = refused(claim(&bert, 1, 1, spot()), RefusalCode::NoCapacity, noon() - minutes(1));
    let world = scenario().pool(pool("gpu")).claim(&no).job(bert);
    let (kind, code, message) = reason_of(&world, "bert");
    assert_eq!((kind, code), (DecisionKind::Wait, ReasonCode::SpotUnavailableSlackLeft));
    assert!(message.contains("asked again at 2026-03-01 12:09 UTC; on-demand is bought at 2026-03-01 1") && message.contains("expected to save"), "{message}");
}

#[test]
fn waiting_for_spot_ends_where_the_deadline_needs_on_demand() {
    let world = |minutes_before: i64| {
        let bert = job("bert").takes(hours(10)).deadline_in(minutes(10 * 60 + minutes_before));
        let no = refused(claim(&bert, 1, 1, spot()), RefusalCode::NoCapacity, noon() - minutes(1));
        scenario().pool(pool("gpu")).claim(&no).job(bert)
    };
    assert_eq!(reason_of(&world(600), "bert").1, ReasonCode::SpotUnavailableSlackLeft);
    assert_eq!(reason_of(&world(60), "bert").1, ReasonCode::SpotUnavailableSlackLeft);
    assert_eq!(reason_of(&world(15), "bert").1, ReasonCode::DeadlineNeedsOnDemand);
}

#[test]
fn a_planner_that_looks_seldom_turns_to_on_demand_earlier() {
    let bert = job("bert").deadline_in(hours(6));
    let mut world = scenario().pool(pool("gpu")).job(bert);
    assert_eq!(reason_of(&world, "bert").1, ReasonCode::SpotWithinSlack);
    world.0.reaction = hours(2);
    assert_eq!(reason_of(&world, "bert").1, ReasonCode::DeadlineNeedsOnDemand);
}

#[test]
fn a_request_that_the_cloud_calls_wrong_is_not_repeated_until_job_or_pool_change() {
    let bert = job("bert");
    let wrong = refused(claim(&bert, 1, 1, spot()), RefusalCode::Invalid, noon() - minutes(30));
    let world = scenario().pool(pool("gpu")).claim(&wrong).job(bert.clone());
    assert_eq!(reason_of(&world, "bert").1, ReasonCode::RequestRejected);
    let mut edited = bert.clone();
    edited.0.job.generation = 2;
    assert_eq!(launched(&scenario().pool(pool("gpu")).claim(&wrong).job(edited)).len(), 1);
    let mut mended = pool("gpu");
    mended.request_template = r#"{"pool": "gpu", "ami": "ami-2"}"#.into();
    assert_eq!(launched(&scenario().pool(mended).claim(&wrong).job(bert)).len(), 1);
}

#[test]
fn a_written_claim_is_asked_again_and_never_written_twice() {
    let bert = job("bert");
    let written = claim(&bert, 1, 1, spot());
    let world = scenario().pool(pool("gpu")).claim(&written).job(bert.clone());
    let asks = world.result().actions.into_iter().filter(|action| matches!(action, Action::AskCloud { .. })).count();
    assert_eq!((asks, launched(&world).len()), (1, 0));
    // Nobody wants it any more: it is withdrawn, not bought.
    let gone = scenario().pool(pool("gpu")).claim(&written).job(bert.cancelled());
    assert!(gone.plan().contains(&format!("WithdrawClaim {}: the job was cancelled", written.name)));
}

#[test]
fn machines_that_join_are_adopted_then_the_attempt_is_recorded_then_started() {
    let bert = job("bert").workers(2);
    let held = granted(claim(&bert, 1, 1, spot()));
    let mut joining = scenario().pool(pool("gpu")).claim(&held).job(bert.clone());
    joining.0.nodes[1].claim = None;
    joining.0.nodes[1].unclaimed_taint = true;
    assert!(joining.plan().contains("→ AdoptNode n-i-bert-1: i-bert-1 of"));
    assert!(!joining.plan().contains("attempt 1 open"));
    let joined = scenario().pool(pool("gpu")).claim(&held).job(bert.clone());
    assert!(joined.plan().contains("→ RecordJob lab/bert: Provisioning, attempt 1 open"));
    assert!(!joined.plan().contains("StartAttempt"), "it is started from the record, by the next plan");
    let mut recorded = bert;
    recorded.0.status = status_of(&joined, "bert");
    let text = scenario().pool(pool("gpu")).claim(&held).job(recorded).plan();
    assert!(text.contains("→ StartAttempt lab/bert: 1 on claim-"), "{text}");
}

#[test]
fn machines_that_do_not_join_are_given_back_and_others_asked_for() {
    let bert = job("bert");
    let mut held = granted(claim(&bert, 1, 1, spot()));
    held.status.instances[0].node = None;
    let world = scenario().pool(pool("gpu")).claim(&held).job(bert);
    let text = world.plan();
    assert!(text.contains("→ Release claim-") && text.contains("attempt 1, ask 2"), "{text}");
}

#[test]
fn an_interruption_notice_moves_the_whole_gang_at_once() {
    let bert = job("bert").workers(2).checkpoint_at(0.4);
    let held = noticed(granted(claim(&bert, 1, 1, spot())), 0);
    let world = scenario().pool(pool("gpu")).claim(&held).workload(running(&held)).job(bert.attempt_on(&held));
    let text = world.plan();
    let actions: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("→ ")).map(|line| line.split(' ').next().unwrap()).collect();
    // The machines follow once the pods have saved their state.
    assert_eq!(actions, ["TaintNode", "RecordJob", "EndAttempt", "WriteClaim"], "{text}");
    assert!(text.contains("90 s of grace") && text.contains("attempt 2, ask 1"), "{text}");
    let status = status_of(&world, "bert");
    assert_eq!(status.attempts[0].outcome, Some(AttemptOutcome::Interrupted));
    assert_eq!(status.attempts[0].pods.len(), 2);
}

#[test]
fn the_next_attempt_waits_for_the_pods_of_the_last_and_resumes_from_the_checkpoint() {
    let bert = job("bert").checkpoint_at(0.4);
    let (old, new) = (noticed(granted(claim(&bert, 1, 1, spot())), 0), granted(claim(&bert, 2, 1, spot())));
    let mut ended = bert.clone().attempt_on(&old);
    ended.0.status.attempts[0].outcome = Some(AttemptOutcome::Interrupted);
    let mut ending = running(&old);
    ending.deleting_since_real = Some(noon());
    let still = scenario().pool(pool("gpu")).claim(&new).workload(ending).job(ended.clone());
    assert_eq!(reason_of(&still, "bert").1, ReasonCode::StoppingAttempt);
    let gone = scenario().pool(pool("gpu")).claim(&new).job(ended);
    assert_eq!(status_of(&gone, "bert").attempts[1].from_fraction, 0.4);
}

#[test]
fn a_rebalance_recommendation_is_noted_and_moves_nobody() {
    let bert = job("bert");
    let held = granted(claim(&bert, 1, 1, spot()));
    let mut world = scenario().pool(pool("gpu")).claim(&held).workload(running(&held)).job(bert.attempt_on(&held));
    let Observed::Known(instances) = &mut world.0.instances else { panic!() };
    instances[0].notice = Some((crate::capacity::NoticeKind::Rebalance, noon()));
    let text = world.plan();
    assert!(text.contains("RecordInstances") && text.contains("Keep (Running)") && !text.contains("EndAttempt"), "{text}");
}

#[test]
fn a_finished_job_is_recorded_before_its_witness_is_deleted() {
    let bert = job("bert");
    let held = granted(claim(&bert, 1, 1, spot()));
    let done = finished(&held, WorkloadEnd::Complete);
    let world = scenario().pool(pool("gpu")).claim(&held).workload(done.clone()).job(bert.clone().attempt_on(&held));
    let text = world.plan();
    assert!(text.contains("RecordJob lab/bert: Succeeded") && text.contains("Release claim-") && !text.contains("EndAttempt"), "{text}");
    let mut recorded = bert;
    recorded.0.status = status_of(&world, "bert");
    let text = scenario().pool(pool("gpu")).claim(&held).workload(done).job(recorded).plan();
    assert!(text.contains("EndAttempt"), "{text}");
}

#[test]
fn a_failing_program_is_retried_as_often_as_allowed_and_a_lost_node_is_no_failure() {
    let failed = |node_lost| WorkloadEnd::Failed { reason: "PodFailurePolicy".into(), message: "exit 1".into(), node_lost };
    let world = |retries, node_lost| {
        let bert = job("bert").retries(retries);
        let held = granted(claim(&bert, 1, 1, spot()));
        scenario().pool(pool("gpu")).claim(&held).workload(finished(&held, failed(node_lost))).job(bert.attempt_on(&held))
    };
    assert_eq!(status_of(&world(0, false), "bert").phase, JobPhase::Failed);
    assert_eq!(status_of(&world(1, false), "bert").phase, JobPhase::Provisioning);
    assert_eq!(status_of(&world(0, true), "bert").phase, JobPhase::Provisioning);
}

#[test]
fn a_gang_that_crashes_on_spot_is_not_blamed_before_a_lost_machine_could_be_known() {
    let failed = || WorkloadEnd::Failed { reason: "PodFailurePolicy".into(), message: "exit 1".into(), node_lost: false };
    let after = |minutes_later: i64| {
        let bert = job("bert").workers(2).retries(0);
        let held = granted(claim(&bert, 1, 1, spot()));
        let mut world = scenario().pool(pool("gpu")).claim(&held).workload(finished(&held, failed())).job(bert.attempt_on(&held));
        world.0.now = noon() + minutes(minutes_later);
        world
    };
    assert_eq!(reason_of(&after(1), "bert").0, DecisionKind::Keep);
    assert_eq!(status_of(&after(2), "bert").phase, JobPhase::Failed);
}

#[test]
fn cancelling_gives_everything_back_and_deleting_lets_the_job_go_afterwards() {
    let bert = job("bert");
    let held = granted(claim(&bert, 1, 1, spot()));
    let world = scenario().pool(pool("gpu")).claim(&held).workload(running(&held)).job(bert.clone().attempt_on(&held).cancelled());
    let text = world.plan();
    assert!(text.contains("attempt 1 Cancelled") && text.contains("EndAttempt") && !text.contains("Release claim"), "{text}");
    assert!(scenario().job(bert.clone().cancelled()).plan().contains("RecordJob lab/bert: Cancelled"));
    let leaving = scenario().claim(&held).job(bert.clone().deleting()).plan();
    assert!(leaving.contains("Release claim-") && !leaving.contains("ReleaseJob"), "{leaving}");
    assert!(scenario().job(bert.deleting()).plan().contains("ReleaseJob lab/bert"));
}

#[test]
fn a_claim_whose_job_is_gone_gives_its_machines_back() {
    let held = granted(claim(&job("ghost"), 1, 1, spot()));
    assert!(scenario().pool(pool("gpu")).claim(&held).plan().contains("i-ghost-0: its job is gone"));
}

#[test]
fn orphans_are_ended_when_old_and_seen_twice_but_not_when_they_are_many() {
    let orphans = |count: usize, seen: bool| {
        let mut world = scenario().pool(pool("gpu"));
        let held = granted(claim(&job("ghost").workers(count as u32), 1, 1, spot()));
        let mut listed = scenario().claim(&held);
        if seen {
            let earlier = |id: &str| (id.to_owned(), noon() - minutes(1));
            world.0.orphans_seen = held.status.instances.iter().map(|instance| earlier(&instance.id)).collect();
        }
        world.0.instances = std::mem::take(&mut listed.0.instances);
        world.plan()
    };
    assert_eq!(orphans(2, false), "");
    assert_eq!(orphans(2, true), "→ TerminateOrphans gpu: i-ghost-0, i-ghost-1");
    assert!(orphans(4, true).starts_with("! 4 of 4 machines of this installation have no claim; none is ended"));
}

#[test]
fn not_having_looked_is_not_seeing_nothing() {
    let bert = job("bert");
    let held = granted(claim(&bert, 1, 1, spot()));
    let world = |instances| {
        let mut world = scenario().pool(pool("gpu")).claim(&held).workload(running(&held)).job(bert.clone().attempt_on(&held));
        world.0.now = noon() + minutes(30);
        world.0.instances = instances;
        world.result()
    };
    let ends = |plan: super::Plan| plan.actions.into_iter().any(|action| matches!(action, Action::RecordInstances { ended: true, .. }));
    assert!(!ends(world(Observed::Unknown)));
    assert!(ends(world(Observed::Known(Vec::new()))));
}

#[test]
fn a_machine_that_ended_unseen_gets_an_estimated_end_between_last_alive_and_first_gone() {
    let bert = job("bert");
    let held = granted(claim(&bert, 1, 1, spot()));
    let mut world = scenario().pool(pool("gpu")).claim(&held).job(bert);
    world.0.now = noon() + minutes(30);
    let Observed::Known(instances) = &mut world.0.instances else { panic!() };
    (instances[0].state, instances[0].observed_at) = (InstanceState::Terminated, noon() + minutes(30));
    let end = world.result().actions.into_iter().find_map(|action| match action {
        Action::RecordInstances { instances, .. } => instances[0].end.clone(),
        _ => None,
    });
    let end = end.unwrap();
    assert_eq!((end.at, end.estimated), (noon() + minutes(15), true));
}

#[test]
fn a_guessed_end_is_taken_back_when_the_machine_turns_out_to_be_alive_and_it_is_given_back() {
    let mut held = granted(claim(&job("ghost"), 1, 1, spot()));
    held.status.phase = crate::capacity::ClaimPhase::Ended;
    held.status.instances[0].end =
        Some(crate::capacity::End { at: noon() - minutes(20), cause: crate::capacity::EndCause::Terminated, estimated: true });
    let world = |end_is_a_guess: bool| {
        let mut held = held.clone();
        held.status.instances[0].end.as_mut().unwrap().estimated = end_is_a_guess;
        let mut world = scenario().pool(pool("gpu")).claim(&held);
        let Observed::Known(instances) = &mut world.0.instances else { panic!() };
        (instances[0].state, instances[0].observed_at) = (InstanceState::Running, noon());
        world.result().actions
    };
    assert!(world(true).iter().any(|action| matches!(action, Action::Release { .. })));
    assert!(!world(false).iter().any(|action| matches!(action, Action::Release { .. })));
}

#[test]
fn claims_are_deleted_only_when_the_ledger_holds_them() {
    let mut held = granted(claim(&job("ghost"), 1, 1, spot()));
    held.status.phase = crate::capacity::ClaimPhase::Ended;
    held.status.instances[0].seen_alive_at = Some(noon() - minutes(30));
    held.status.instances[0].end =
        Some(crate::capacity::End { at: noon() - minutes(20), cause: crate::capacity::EndCause::Terminated, estimated: false });
    let deletes = |until: Option<TimeDelta>| {
        let mut held = held.clone();
        held.status.metered_until = until.map(|until| noon() + until);
        let mut world = scenario().pool(pool("gpu")).claim(&held);
        world.0.nodes.clear();
        world.plan().contains("DeleteClaim")
    };
    assert!(!deletes(None));
    assert!(!deletes(Some(-minutes(20))));
    assert!(deletes(Some(minutes(0))));
}

#[test]
fn existing_nodes_are_chosen_by_name_and_serve_one_claim_each() {
    let mut onprem = pool("onprem");
    onprem.provider = Provider::Nodes;
    let mut own = on_demand();
    own.provider = Provider::Nodes;
    onprem.offers = vec![quoted(own)];
    let mut world = scenario().pool(onprem).job(job("a").workers(2)).job(job("b").workers(2));
    for index in 0..3 {
        let mut node = node_of(&format!("node-{index}"), &format!("m-{index}"), None);
        (node.pool, node.unclaimed_taint) = (Some("onprem".into()), false);
        world.0.nodes.push(node);
    }
    let claims: Vec<Vec<String>> = world
        .result()
        .actions
        .into_iter()
        .filter_map(|action| match action {
            Action::WriteClaim { record, .. } => Some(record.nodes),
            _ => None,
        })
        .collect();
    assert_eq!(claims, [["node-0", "node-1"]]);
    assert!(reason_of(&world, "b").2.contains("1 are free in pool onprem"));
}

#[test]
fn nodes_that_a_lost_answer_had_taken_are_given_back() {
    let bert = job("bert").workers(2);
    let mut own = on_demand();
    own.provider = Provider::Nodes;
    let mut withdrawn = refused(claim(&bert, 1, 1, own), RefusalCode::Withdrawn, noon());
    withdrawn.record.nodes = vec!["node-0".into(), "node-1".into()];
    let mut world = scenario().claim(&withdrawn).job(bert.cancelled());
    world.0.nodes.push(node_of("node-0", "m-0", Some(&withdrawn.name)));
    let text = world.plan();
    assert!(text.contains("RecordInstances") && text.contains("aws:///us-east-1a/m-0: the job was cancelled"), "{text}");
}

#[test]
fn what_cannot_be_says_what_would_help() {
    let code = |scenario: &Scenario| reason_of(scenario, "a").1;
    assert_eq!(code(&scenario().job(job("a"))), ReasonCode::UnknownPool);
    assert_eq!(code(&scenario().pool(pool("gpu")).job(job("a").pool("tpu"))), ReasonCode::UnknownPool);
    assert_eq!(code(&scenario().pool(pool("gpu")).job(job("a").gpus(8))), ReasonCode::NoOfferFits);
    assert_eq!(
        code(&scenario().pool(pool("gpu")).job(job("a").invalid("UnknownExperiment", "no experiment x"))),
        ReasonCode::UnknownExperiment
    );
    let mut broken = pool("gpu");
    broken.state = Err(("CloudUnreachable".into(), "the cloud does not answer".into()));
    assert_eq!(code(&scenario().pool(broken).job(job("a"))), ReasonCode::PoolNotReady);
    let reserved_only = scenario().pool(pool("gpu")).job(job("a").only(&[CapacityKind::Reserved]));
    assert!(reason_of(&reserved_only, "a").2.contains("g5.xlarge spot us-east-1a would, if the job allowed it"));
    let mut small = pool("gpu");
    small.machines_max = Some(2);
    assert!(reason_of(&scenario().pool(small).job(job("a").workers(3)), "a").2.contains("has 2 at most"));
    let mut narrow = pool("gpu");
    narrow.requirements = InstanceRequirements { zones: vec!["us-east-1b".into()], ..Default::default() };
    assert_eq!(code(&scenario().pool(narrow).job(job("a"))), ReasonCode::NoOfferFits);
}

#[test]
fn a_plan_applied_to_the_statuses_is_not_planned_again() {
    let bert = job("bert");
    let held = granted(claim(&bert, 1, 1, spot()));
    let mut world = scenario().pool(pool("gpu")).claim(&held).workload(running(&held)).job(bert.attempt_on(&held));
    world.0.jobs[0].status = status_of(&world, "bert");
    assert_eq!(plan(&world.0).actions, []);
}

#[test]
fn the_audit_drops_what_a_defective_planner_would_do() {
    let bert = job("bert");
    let held = granted(claim(&bert, 1, 1, spot()));
    let world = scenario().pool(pool("gpu")).claim(&held).workload(running(&held)).job(bert.clone().attempt_on(&held));
    let second = claim(&bert, 1, 2, spot());
    let job = bert.0.job.id.clone();
    let start =
        Action::StartAttempt { job: job.clone(), version: "1".into(), attempt: 1, claims: vec![held.name.clone()], resume_fraction: 0.0 };
    let forbidden = vec![
        Action::WriteClaim { name: second.name.clone(), record: second.record },
        Action::AskCloud { claim: held.name.clone(), uid: held.uid.clone() },
        start,
        Action::Release { claim: held.name.clone(), uid: held.uid.clone(), instances: vec!["i-of-another".into()], because: String::new() },
        Action::RecordInstances { claim: held.name.clone(), uid: held.uid.clone(), instances: Vec::new(), ended: true },
        Action::DeleteClaim { claim: held.name.clone(), uid: held.uid.clone() },
        Action::TerminateOrphans { pool: "gpu".into(), instances: vec!["i-bert-0".into()] },
        Action::ReleaseJob { job },
    ];
    let count = forbidden.len();
    let audited = super::audit(&world.0, super::Plan { actions: forbidden, ..Default::default() });
    assert_eq!(audited.actions, []);
    assert_eq!(audited.alerts.len(), count, "{:#?}", audited.alerts);
}
