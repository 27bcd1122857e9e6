//! What a plan can ask for. Every action is harmless when repeated; each becomes one or two named effects in
//! `kubernetes::apply`, and a process may die before or after any of them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::capacity::{ClaimRecord, ClaimedInstance};
use crate::training::{JobRef, JobStatus};

/// Grace for pods when their machine is going away on notice: 120 s are given, 30 s stay spare.
pub const NOTICE_GRACE_SECONDS: i64 = 90;

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create the CapacityClaim (AlreadyExists = somebody was quicker, which is fine).
    WriteClaim { name: String, record: ClaimRecord },
    /// Ask the cloud with the claim's stored request and its UID as client token, and record the answer in its status.
    AskCloud { claim: String, uid: String },
    /// Record what was seen of the claim's machines (running, notice, end, alive).
    RecordInstances { claim: String, uid: String, instances: Vec<ClaimedInstance>, ended: bool },
    /// The machine's node has joined: label it with the claim and swap the startup taint for the claim's own.
    AdoptNode { claim: String, uid: String, node: String, instance: String },
    /// Keep new pods off a node whose machine is going away.
    TaintNode { node: String, because: String },
    /// End these machines of the claim and note that it was asked.
    Release { claim: String, uid: String, instances: Vec<String>, because: String },
    /// Write the job's status (attempts, phase, decision); before StartAttempt of the attempt that it records.
    RecordJob { job: JobRef, generation: i64, status: Box<JobStatus> },
    /// Create the headless Service and the Indexed Job of the attempt.
    StartAttempt { job: JobRef, attempt: u32, claims: Vec<String>, resume_fraction: f64 },
    /// Delete the attempt's Job: its pods get SIGTERM and this grace (real seconds; scaled by the clock's speed in the shell).
    EndAttempt { job: JobRef, attempt: u32, workload: String, grace_seconds: i64, because: String },
    /// Machines with our tag and no claim.
    TerminateOrphans { pool: String, instances: Vec<String> },
    /// Remove a claim that is over: refused long ago, or ended and wholly in the ledger.
    DeleteClaim { claim: String, uid: String },
    /// Let a deleted job go: everything was given back.
    ReleaseJob { job: JobRef },
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
    OnlyKindAllowed,
    // wait
    NoOfferFits,
    AllOffersRefused,
    SpotUnavailableSlackLeft,
    QuotaReached,
    PoolNotReady,
    PoolLimit,
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
    /// What a person should be told, for example orphans beyond the safe number.
    pub alerts: Vec<String>,
}
