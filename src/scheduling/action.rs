//! What a plan can ask for. Every action is harmless when repeated; each becomes one or two named effects in
//! `kubernetes::apply`, and a process may die before or after any of them.
//!
//! The shell applies actions in order. An action that fails or no longer holds is dropped; those after it may still be
//! applied, because nothing in a plan relies on an earlier action of the same plan: what must come after a record (asking
//! the cloud after the claim, starting the attempt after the job's status) is planned by the next cycle, from that record.
//! So after a plan that had actions the shell looks again at once.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::capacity::{ClaimRecord, ClaimedInstance, PodRef};
use crate::training::{JobRef, JobStatus};

/// Grace for pods when their machine is going away on notice: 120 s are given, 30 s stay spare.
pub const NOTICE_GRACE_SECONDS: i64 = 90;

// A plan holds few actions, and each is looked at once: boxes would only be in the way.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create the CapacityClaim (AlreadyExists = somebody was quicker, which is fine).
    WriteClaim { name: String, record: ClaimRecord },
    /// Ask the cloud with the claim's stored request and its UID as client token, and record the answer in its status.
    AskCloud { claim: String, uid: String },
    /// A claim that nobody wants any more and whose answer is not known: set phase Refused with `RefusalCode::Withdrawn`
    /// (only while it is Written), and never ask for it again. Machines that an unrecorded answer had bought are found by
    /// their tag, recorded in the claim and released by later cycles; so nothing is bought only to be given back.
    WithdrawClaim { claim: String, uid: String, because: String },
    /// Replace the claim's `status.instances` by this list (what was seen: running, notice, end, alive, node); with `ended`,
    /// set phase Ended. The status must still be as it was read (resourceVersion), or the action is dropped.
    RecordInstances { claim: String, uid: String, instances: Vec<ClaimedInstance>, ended: bool },
    /// The machine's node has joined: in one patch, label it with the claim and swap the startup taint for the claim's own.
    /// (The claim's record of the node follows by RecordInstances, from the label.)
    AdoptNode { claim: String, uid: String, node: String, instance: String },
    /// Keep new pods off a node whose machine is going away (`NodeView.leaving_taint`).
    TaintNode { node: String, because: String },
    /// Delete the Node object of a machine that has ended, so that its pods are let go even where no cloud controller runs.
    RemoveNode { node: String, instance: String },
    /// End these machines of the claim, then note `release_asked_at`. Provider `nodes`: take label and taint off instead.
    Release { claim: String, uid: String, instances: Vec<String>, because: String },
    /// Write the job's status (attempts, phase, decision). Dropped unless the live status is still the one with `version`
    /// (`JobView::version`).
    RecordJob { job: JobRef, generation: i64, version: String, status: Box<JobStatus> },
    /// Create the headless Service and the Indexed Job of the attempt (AlreadyExists is fine). Dropped unless, read live, the
    /// status has `version` and no Job or pod of another attempt exists: caches of two kinds may disagree.
    StartAttempt { job: JobRef, version: String, attempt: u32, claims: Vec<String>, resume_fraction: f64 },
    /// Delete the attempt's Job: its pods get SIGTERM and this grace (real seconds; scaled by the clock's speed in the shell).
    EndAttempt { job: JobRef, attempt: u32, workload: String, grace_seconds: i64, because: String },
    /// Let these finished pods of an ending attempt go (finalizer): their times are in the job's status now.
    ReleasePods { job: JobRef, attempt: u32, workload: String, pods: Vec<String> },
    /// Machines with our tag and no claim.
    TerminateOrphans { pool: String, instances: Vec<String> },
    /// Remove a claim that is over: refused long ago, or ended and wholly in the ledger.
    DeleteClaim { claim: String, uid: String },
    /// Let a deleted job go: everything was given back.
    ReleaseJob { job: JobRef },
    /// Bind a held-back pod to a node of a claim by the node's hostname label, and take its gate off, in one patch.
    PlacePod { pod: PodRef, claim: String, node: String, hostname: String },
    /// Ask a pod to leave its node (Eviction API: its disruption budget may refuse; then it is asked again).
    EvictPod { pod: PodRef, node: String, because: String },
}

/// What the planner says of one job besides its actions: an Event when it changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub kind: DecisionKind,
    pub because: Reason,
    pub considered: Vec<crate::training::Considered>,
    /// When it would finish, as far as can be said.
    pub finish: Option<DateTime<Utc>>,
    /// What the rest would cost.
    pub cost: Option<crate::units::Money>,
    /// From which an interval can be forecast, where chance has a say.
    pub prospect: Option<Box<super::advice::Prospect>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionKind {
    Launch,
    Wait,
    Refuse,
    Keep,
    Finish,
}

/// Why; a code for machines and a sentence (what, why, what would help) for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    pub code: ReasonCode,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReasonCode {
    // launch
    ReservationIdle,
    SpotWithinSlack,
    DeadlineNeedsOnDemand,
    /// On-demand before the deadline demands it: waiting for spot costs more on average.
    OnDemandPays,
    OnlyKindAllowed,
    // wait
    NoOfferFits,
    AllOffersRefused,
    SpotUnavailableSlackLeft,
    QuotaReached,
    PoolNotReady,
    PoolLimit,
    AskingCloud,
    MachinesStarting,
    CloudUnknown,
    StoppingAttempt,
    // refuse
    OverBudget,
    UnknownExperiment,
    UnknownPool,
    DeadlineImpossible,
    InvalidSpec,
    RequestRejected,
    // keep, finish
    Running,
    Done,
    ProgramFailed,
    Cancelled,
}

impl std::fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub decisions: BTreeMap<JobRef, Decision>,
    /// Machines without claim seen so far, to be handed to the next [`Snapshot`](super::Snapshot); kept in memory only.
    pub orphans_seen: BTreeMap<String, DateTime<Utc>>,
    /// What a person should be told, for example orphans beyond the safe number.
    pub alerts: Vec<String>,
}
