//! What nobody wants any more: claims and attempts without a job, machines without a claim, claims that are over.
//!
//! All of this ends or deletes things on the evidence of something missing, so it is careful: a missing record may be a record
//! that was not read, or a cluster restored from an old backup. Beyond a safe number nothing is ended and a person is told.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::lifecycle::Records;
use super::refusals::MEMORY;
use super::snapshot::{CloudInstance, WorkloadView};
use super::{Action, NOTICE_GRACE_SECONDS, Plan};
use crate::capacity::{Claim, ClaimPhase, billing};
use crate::training::JobRef;

/// A machine without claim is an orphan once it is this old (market time) and was seen by two answers of the cloud.
const ORPHAN_AGE: TimeDelta = TimeDelta::minutes(10);
/// A claim whose job cannot be found counts as left over once it is this old (real time).
const JOBLESS_AGE: TimeDelta = TimeDelta::seconds(30);

/// More than three and more than a fifth of what runs: something else is wrong.
fn is_too_many(leftovers: usize, alive: usize) -> bool {
    leftovers > 3.max(alive / 5)
}

pub fn clear(records: &Records<'_>, orphans_seen: &BTreeMap<String, DateTime<Utc>>, plan: &mut Plan) {
    give_back_jobless(records, plan);
    end_jobless_attempts(records, plan);
    end_orphans(records, orphans_seen, plan);
    delete_claims(records, plan);
}

/// Claims of jobs that are gone (the finalizer makes this rare: somebody took it off).
fn give_back_jobless(records: &Records<'_>, plan: &mut Plan) {
    let snapshot = records.snapshot;
    let jobs: BTreeSet<&str> = snapshot.jobs.iter().map(|view| view.job.id.uid.as_str()).collect();
    let is_open = |claim: &&Claim| claim.status.phase == ClaimPhase::Written || records.fleet.open_count(&claim.name) > 0;
    let open: Vec<&Claim> = snapshot.claims.iter().filter(|claim| !claim.record.is_for_pods()).filter(is_open).collect();
    let is_jobless =
        |claim: &&&Claim| !jobs.contains(claim.record.job.uid.as_str()) && snapshot.real_now - claim.written_at_real >= JOBLESS_AGE;
    let jobless: Vec<&&Claim> = open.iter().filter(is_jobless).collect();
    if is_too_many(jobless.len(), open.len()) {
        plan.alerts.push(format!(
            "{} of {} claims with machines have no TrainingJob; nothing is ended. Was the cluster restored from a backup?",
            jobless.len(),
            open.len()
        ));
        return;
    }
    for claim in jobless {
        let (name, uid, because) = (claim.name.clone(), claim.uid.clone(), "its job is gone".to_owned());
        let instances = records.fleet.releasable(&claim.name);
        if claim.status.phase == ClaimPhase::Written {
            plan.actions.push(Action::WithdrawClaim { claim: name, uid, because });
        } else if !instances.is_empty() {
            plan.actions.push(Action::Release { claim: name, uid, instances, because });
        }
    }
}

/// Attempts that a job left behind: it was let go by somebody who did not see them yet. Nobody will record their pods' times.
fn end_jobless_attempts(records: &Records<'_>, plan: &mut Plan) {
    let snapshot = records.snapshot;
    let jobs: BTreeSet<&str> = snapshot.jobs.iter().map(|view| view.job.id.uid.as_str()).collect();
    let is_jobless =
        |workload: &&WorkloadView| !jobs.contains(workload.job_uid.as_str()) && snapshot.real_now - workload.created_at_real >= JOBLESS_AGE;
    for workload in snapshot.workloads.iter().filter(is_jobless) {
        // All that is left of the job is its UID.
        let job = JobRef { namespace: workload.namespace.clone(), name: workload.name.clone(), uid: workload.job_uid.clone() };
        let (attempt, workload_name) = (workload.attempt, workload.name.clone());
        let finished = workload.pods.iter().filter(|pod| pod.finished_at.is_some());
        let pods: Vec<String> = finished.map(|pod| pod.name.clone()).collect();
        if workload.deleting_since_real.is_none() {
            let (grace_seconds, because) = (NOTICE_GRACE_SECONDS, "its job is gone".to_owned());
            plan.actions.push(Action::EndAttempt { job, attempt, workload: workload_name, grace_seconds, because });
        } else if !pods.is_empty() {
            plan.actions.push(Action::ReleasePods { job, attempt, workload: workload_name, pods });
        }
    }
}

fn end_orphans(records: &Records<'_>, seen_before: &BTreeMap<String, DateTime<Utc>>, plan: &mut Plan) {
    let snapshot = records.snapshot;
    let Some(instances) = snapshot.instances.known() else {
        plan.orphans_seen = seen_before.clone();
        return;
    };
    let names: BTreeSet<&str> = snapshot.claims.iter().map(|claim| claim.name.as_str()).collect();
    let tokens: BTreeSet<&str> = snapshot.claims.iter().map(|claim| claim.uid.as_str()).collect();
    let recorded: BTreeSet<&str> =
        snapshot.claims.iter().flat_map(|claim| &claim.status.instances).map(|instance| instance.id.as_str()).collect();
    let has_claim = |instance: &CloudInstance| {
        recorded.contains(instance.id.as_str())
            || instance.claim.as_ref().is_some_and(|claim| names.contains(claim.as_str()))
            || instance.client_token.as_ref().is_some_and(|token| tokens.contains(token.as_str()))
    };
    let alive: Vec<&CloudInstance> = instances.iter().filter(|instance| instance.state.is_alive()).collect();
    let orphans: Vec<&CloudInstance> = alive.iter().copied().filter(|instance| !has_claim(instance)).collect();
    let first_seen = |orphan: &CloudInstance| seen_before.get(&orphan.id).copied().unwrap_or(orphan.observed_at);
    plan.orphans_seen = orphans.iter().map(|orphan| (orphan.id.clone(), first_seen(orphan))).collect();
    if is_too_many(orphans.len(), alive.len()) {
        plan.alerts.push(format!(
            "{} of {} machines of this installation have no claim; none is ended. Was the cluster restored from a backup? Look at {}…",
            orphans.len(),
            alive.len(),
            orphans.iter().take(3).map(|orphan| orphan.id.as_str()).collect::<Vec<_>>().join(", ")
        ));
        return;
    }
    let mut by_pool: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for orphan in orphans {
        let old = snapshot.now - orphan.launched_at >= ORPHAN_AGE;
        if old && orphan.observed_at > first_seen(orphan) {
            by_pool.entry(&orphan.pool).or_default().push(orphan.id.clone());
        }
    }
    let terminate = |(pool, instances): (&str, Vec<String>)| Action::TerminateOrphans { pool: pool.to_owned(), instances };
    plan.actions.extend(by_pool.into_iter().map(terminate));
}

fn delete_claims(records: &Records<'_>, plan: &mut Plan) {
    for claim in &records.snapshot.claims {
        if is_over(records, claim) {
            plan.actions.push(Action::DeleteClaim { claim: claim.name.clone(), uid: claim.uid.clone() });
        }
    }
}

/// Refused long ago or ended, and every charge in the ledger for certain.
fn is_over(records: &Records<'_>, claim: &Claim) -> bool {
    let machines = records.fleet.machines(&claim.name);
    // What was only just seen is recorded first.
    let recorded = machines.iter().map(|machine| &machine.record).eq(&claim.status.instances);
    let is_metered = recorded && billing::is_settled(claim);
    match (claim.status.phase, &claim.status.refusal) {
        (ClaimPhase::Refused, Some(refusal)) => is_metered && records.snapshot.now - refusal.at >= MEMORY,
        (ClaimPhase::Ended, _) => is_metered && (!machines.is_empty() || records.snapshot.now - claim.record.decided_at >= MEMORY),
        (ClaimPhase::Written | ClaimPhase::Granted | ClaimPhase::Refused, _) => false,
    }
}
