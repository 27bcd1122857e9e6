//! Acts: one function an action, each effect by name through [`effects::perform`](super::effects::perform).
//!
//! An action carries what it was planned against (uid, version). Where that no longer holds it is dropped, which is no
//! error: the next cycle looks again. This module decides nothing.
//!
//! ```text
//!  claims.rs    WriteClaim AskCloud WithdrawClaim RecordInstances Release DeleteClaim TerminateOrphans
//!  nodes.rs     AdoptNode TaintNode RemoveNode, and what AskCloud and Release are for provider `nodes`
//!  jobs.rs      RecordJob ReleaseJob
//!  workloads.rs StartAttempt EndAttempt ReleasePods     (manifest.rs builds the objects, purely)
//!  pods.rs      PlacePod EvictPod
//! ```

mod claims;
mod jobs;
pub mod manifest;
mod nodes;
mod pods;
mod workloads;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::core::DeserializeGuard;

use super::clock::MarketClock;
use crate::cloud::{Cloud, CloudError};
use crate::scheduling::Action;

pub(in crate::kubernetes) use claims::region_of;
pub(in crate::kubernetes) use jobs::version_of;
pub(in crate::kubernetes) use pods::is_gated;

/// What acts: the two worlds that actions change, and the clock.
#[derive(Clone)]
pub struct Hands {
    pub client: Client,
    /// Absent where the binary was built without one.
    pub cloud: Option<Arc<dyn Cloud>>,
    pub clock: MarketClock,
    /// Where pods report their progress.
    pub progress_url: String,
}

/// What the plan was made from, as far as writes must hold against it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// resourceVersion by claim.
    pub claims: BTreeMap<String, String>,
    /// AWS region by pool.
    pub regions: BTreeMap<String, String>,
    /// Pods that were held back, by UID.
    pub held_back: BTreeMap<String, Arc<DeserializeGuard<Pod>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    Done,
    /// What the action was planned against no longer holds.
    Dropped(String),
}

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("could not {doing}")]
    Kubernetes { doing: String, #[source] source: Box<kube::Error> },
    #[error(transparent)]
    Cloud(#[from] CloudError),
    #[error("claim {claim} needs a cloud, but this purser was built without one; build it with the feature aws")]
    NoCloud { claim: String },
    #[error("could not {doing}: others kept changing the object; the next cycle tries again")]
    Contended { doing: String },
    #[error("could not build the workload of {job}: {why}")]
    Manifest { job: String, why: String },
}

pub type Result<T = Applied> = std::result::Result<T, ApplyError>;

impl Hands {
    pub async fn apply(&self, action: &Action, seen: &Seen) -> Result {
        match action {
            Action::WriteClaim { name, record } => self.write_claim(name, record).await,
            Action::AskCloud { claim, uid } => self.ask_cloud(claim, uid).await,
            Action::WithdrawClaim { claim, uid, because } => self.withdraw_claim(claim, uid, because).await,
            Action::RecordInstances { claim, uid, instances, ended } => {
                self.record_instances(claim, uid, instances, *ended, seen.claims.get(claim)).await
            }
            Action::AdoptNode { claim, uid, node, instance } => self.adopt_node(claim, uid, node, instance).await,
            Action::TaintNode { node, because: _ } => self.taint_node(node).await,
            Action::RemoveNode { node, instance } => self.remove_node(node, instance).await,
            Action::Release { claim, uid, instances, because: _ } => self.release(claim, uid, instances).await,
            Action::RecordJob { job, generation, version, status } => self.record_job(job, *generation, version, status).await,
            Action::StartAttempt { job, version, attempt, claims, resume_fraction } => {
                self.start_attempt(job, version, *attempt, claims, *resume_fraction).await
            }
            Action::EndAttempt { job, attempt, workload, grace_seconds, because: _ } => {
                self.end_attempt(job, *attempt, workload, *grace_seconds).await
            }
            Action::ReleasePods { job, attempt: _, workload: _, pods } => self.release_pods(job, pods).await,
            Action::TerminateOrphans { pool, instances } => self.terminate_orphans(seen.regions.get(pool), instances).await,
            Action::DeleteClaim { claim, uid } => self.delete_claim(claim, uid).await,
            Action::ReleaseJob { job } => self.release_job(job).await,
            Action::PlacePod { pod, claim, node, hostname } => self.place_pod(pod, claim, node, hostname, seen.held_back.get(&pod.uid)).await,
            Action::EvictPod { pod, node, because: _ } => self.evict_pod(pod, node).await,
        }
    }
}

/// The action's name, for metrics and logs.
pub fn kind(action: &Action) -> &'static str {
    match action {
        Action::WriteClaim { .. } => "WriteClaim",
        Action::AskCloud { .. } => "AskCloud",
        Action::WithdrawClaim { .. } => "WithdrawClaim",
        Action::RecordInstances { .. } => "RecordInstances",
        Action::AdoptNode { .. } => "AdoptNode",
        Action::TaintNode { .. } => "TaintNode",
        Action::RemoveNode { .. } => "RemoveNode",
        Action::Release { .. } => "Release",
        Action::RecordJob { .. } => "RecordJob",
        Action::StartAttempt { .. } => "StartAttempt",
        Action::EndAttempt { .. } => "EndAttempt",
        Action::ReleasePods { .. } => "ReleasePods",
        Action::TerminateOrphans { .. } => "TerminateOrphans",
        Action::DeleteClaim { .. } => "DeleteClaim",
        Action::ReleaseJob { .. } => "ReleaseJob",
        Action::PlacePod { .. } => "PlacePod",
        Action::EvictPod { .. } => "EvictPod",
    }
}

/// Whether two neighbours in a plan may be under way at the same time: a fleet has hundreds of these, each about another object.
pub fn may_run_beside(one: &Action, next: &Action) -> bool {
    let comes_in_hundreds = |action: &Action| {
        matches!(
            action,
            Action::WriteClaim { .. } | Action::AskCloud { .. } | Action::RecordInstances { .. } | Action::AdoptNode { .. } | Action::RemoveNode { .. } | Action::PlacePod { .. } | Action::EvictPod { .. }
        )
    };
    comes_in_hundreds(one) && comes_in_hundreds(next)
}

/// Whether the cloud's list of machines is out of date after it.
pub fn changes_cloud(action: &Action) -> bool {
    matches!(action, Action::AskCloud { .. } | Action::Release { .. } | Action::TerminateOrphans { .. })
}

fn dropped(why: impl fmt::Display) -> Result {
    Ok(Applied::Dropped(why.to_string()))
}

/// Adds what was being done to an error of the API server.
fn doing(what: impl fmt::Display) -> impl FnOnce(kube::Error) -> ApplyError {
    move |source| ApplyError::Kubernetes { doing: what.to_string(), source: Box::new(source) }
}

/// The API server's answer, where it gave one.
fn status_of(error: &kube::Error) -> Option<&kube::core::Status> {
    match error {
        kube::Error::Api(status) => Some(status),
        _ => None,
    }
}

/// Somebody changed the object since it was read (409, but not AlreadyExists).
fn is_conflict(error: &kube::Error) -> bool {
    status_of(error).is_some_and(|status| status.code == 409 && !status.is_already_exists())
}

fn is_not_found(error: &kube::Error) -> bool {
    status_of(error).is_some_and(|status| status.is_not_found() || status.code == 404)
}

fn is_already_exists(error: &kube::Error) -> bool {
    status_of(error).is_some_and(|status| status.is_already_exists())
}

/// Doing it again is harmless, and it is done when it was done before.
fn tolerate<T>(result: std::result::Result<T, kube::Error>, harmless: fn(&kube::Error) -> bool) -> std::result::Result<(), kube::Error> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if harmless(&error) => Ok(()),
        Err(error) => Err(error),
    }
}
