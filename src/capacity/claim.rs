//! A claim: one launch decision and its life. Written before the cloud is asked, kept until the ledger holds its cost.
//!
//! ```text
//!  Written ──asked──► Granted ──all ended──► Ended ──in the ledger──► (deleted)
//!     └────refused──► Refused ──kept a while as memory of the market──► (deleted)
//! ```
//! Times are market times as EC2 tells them, but those named `real`.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Offer;
use crate::training::JobRef;

/// What was decided; immutable. The claim's name is `hash(job uid, attempt, ask)`, for pods `hash(pods, ask)`; its UID is the
/// client token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRecord {
    /// The TrainingJob that pays; for pods the shared fleet of their pool: namespace `(shared)`, the pool's name.
    pub job: JobRef,
    /// The job's `metadata.generation` at the decision.
    #[serde(default)]
    pub generation: i64,
    /// The experiment and the team that pay.
    pub experiment: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// The job's attempt (from 1) that this capacity is for.
    pub attempt: u32,
    /// How often capacity was asked for in this attempt (from 1).
    pub ask: u32,
    /// The CapacityPool.
    pub pool: String,
    pub offer: Offer,
    /// Machines, all or none.
    #[schemars(range(min = 1, max = 10000))]
    pub count: u32,
    /// Market time of the decision.
    pub decided_at: DateTime<Utc>,
    /// For provider `nodes`: the nodes chosen, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// For pods: what each machine is for, in the order of `status.instances`. Empty for a job's attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<Slot>,
    /// The whole request to the cloud as JSON text, so that a repeat after a crash sends the same bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request: String,
}

/// What a claim is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves<'a> {
    /// The gang of one attempt: all machines or none are of use.
    Attempt { job: &'a JobRef, attempt: u32 },
    /// Pods of a pool, machine by machine.
    Pods(&'a [Slot]),
}

impl ClaimRecord {
    pub fn serves(&self) -> Serves<'_> {
        match self.slots.as_slice() {
            [] => Serves::Attempt { job: &self.job, attempt: self.attempt },
            slots => Serves::Pods(slots),
        }
    }

    /// Whether it was written for pods rather than for a job.
    pub fn is_for_pods(&self) -> bool {
        matches!(self.serves(), Serves::Pods(_))
    }
}

/// One machine of a claim for pods, and the pods that it was bought for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Slot {
    pub pods: Vec<PodRef>,
}

/// Which pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl std::fmt::Display for PodRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClaimPhase {
    /// Written; the cloud may or may not have been asked.
    #[default]
    Written,
    /// The cloud answered with all machines.
    Granted,
    /// The cloud refused, or gave fewer than all (what it gave was given back).
    Refused,
    /// Every machine has ended.
    Ended,
}

/// Why the cloud said no; the word decides what is tried next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum RefusalCode {
    /// `InsufficientInstanceCapacity`, `UnfulfillableCapacity`, `InsufficientReservedInstanceCapacity`…: another offer, or later.
    NoCapacity,
    /// `VcpuLimitExceeded`, `MaxSpotInstanceCountExceeded`, `InstanceLimitExceeded`: a quota; the message names it.
    Quota,
    /// `InsufficientFreeAddressesInSubnet`.
    NoAddresses,
    /// `SpotMaxPriceTooLow`.
    PriceTooHigh,
    /// Fewer machines than the gang needs were given; they were given back.
    Partial,
    /// A node that was chosen is taken or gone (provider `nodes`).
    NodesTaken,
    /// Purser gave the claim up before an answer was recorded; machines that turn up for it are given back.
    Withdrawn,
    /// The request itself is wrong (`InvalidParameterValue`, `UnauthorizedOperation`…): a person must act.
    Invalid,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    pub code: RefusalCode,
    pub message: String,
    pub at: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum NoticeKind {
    /// EC2 recommends moving before it may interrupt.
    Rebalance,
    /// EC2 will take the instance back two minutes after `at`.
    Interruption,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    pub kind: NoticeKind,
    /// When EC2 gave it.
    pub at: DateTime<Utc>,
}

/// Who ended an instance; decides what is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EndCause {
    /// Purser (or somebody else) terminated it.
    Terminated,
    /// EC2 interrupted the spot instance.
    Interrupted,
    /// It never ran.
    NeverRan,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct End {
    pub at: DateTime<Utc>,
    pub cause: EndCause,
    /// Nobody saw it end: the time is a guess between last seen alive and first seen gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
}

/// One machine of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimedInstance {
    /// `i-…`; for provider `nodes` the node's providerID or name.
    pub id: String,
    /// The Kubernetes node, once it has joined and was adopted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// EC2's LaunchTime.
    pub launched_at: DateTime<Utc>,
    /// When it entered `running`: charging starts here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<Notice>,
    /// The last market time at which EC2 said it was alive; moved when a metering window needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_alive_at: Option<DateTime<Utc>>,
    /// Purser asked EC2 to end it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_asked_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// The claim's life so far: the CRD's status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimStatus {
    pub phase: ClaimPhase,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<ClaimedInstance>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// Every charge before this time is in the ledger for certain; it stays behind while an estimate may still be mended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metered_until: Option<DateTime<Utc>>,
    /// The sum of this claim's rows in the ledger, exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metered: Option<crate::units::Money>,
}

/// A claim as the core sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub name: String,
    /// Also the client token.
    pub uid: String,
    /// Real time of writing (Kubernetes' creationTimestamp), for real-time timeouts.
    pub written_at_real: DateTime<Utc>,
    pub record: ClaimRecord,
    pub status: ClaimStatus,
}

impl Claim {
    /// Machines that are, or may still be, alive.
    pub fn open_instances(&self) -> impl Iterator<Item = &ClaimedInstance> {
        self.status.instances.iter().filter(|instance| instance.end.is_none())
    }

    pub fn is_granted(&self) -> bool {
        self.status.phase == ClaimPhase::Granted
    }

    pub fn is_for(&self, job_uid: &str, attempt: u32) -> bool {
        matches!(self.record.serves(), Serves::Attempt { job, attempt: of } if job.uid == job_uid && of == attempt)
    }
}

/// Namespace and experiment-namespace of what no single job or team pays for.
pub const SHARED: &str = "(shared)";

/// Who pays for machines that pods of a pool share.
pub fn fleet_of(pool: &str) -> JobRef {
    JobRef { namespace: SHARED.to_owned(), name: pool.to_owned(), uid: format!("pool-{pool}") }
}

/// `claim-` and 20 hex digits of SHA-256 over job uid, attempt and ask: two writers with the same (stale) knowledge
/// arrive at the same name, and the second one gets AlreadyExists instead of a second fleet.
pub fn claim_name(job_uid: &str, attempt: u32, ask: u32) -> String {
    named_after(&format!("{job_uid}/{attempt}/{ask}"))
}

/// The same for pods: over their UIDs, in any order, and how often machines were asked for any of them before.
pub fn pods_claim_name(slots: &[Slot], ask: u32) -> String {
    let mut uids: Vec<&str> = slots.iter().flat_map(|slot| &slot.pods).map(|pod| pod.uid.as_str()).collect();
    uids.sort_unstable();
    named_after(&format!("{}/{ask}", uids.join(" ")))
}

fn named_after(text: &str) -> String {
    use sha2::Digest;
    let hex: String = sha2::Sha256::digest(text).iter().take(10).map(|byte| format!("{byte:02x}")).collect();
    format!("claim-{hex}")
}
