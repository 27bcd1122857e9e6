//! Every change that Purser makes to the world, by name, in one place.
//!
//! Each passes two failpoints; doing any of them again is harmless. A test may enumerate [`Effect::ALL`], end the process
//! before and after each, and check the invariants after the restart.

use std::fmt;

use super::failpoint;

macro_rules! effects {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Effect { $($(#[$doc])* $name),+ }

        impl Effect {
            pub const ALL: [Effect; [$(Effect::$name),+].len()] = [$(Effect::$name),+];
        }
    };
}

effects! {
    /// The job's finalizer, before anything is claimed for it.
    HoldJob,
    /// Create the CapacityClaim.
    WriteClaim,
    /// Ask the cloud for a claim's machines (same bytes, same token); for provider `nodes`, label and taint the nodes.
    AskCloud,
    /// End the machines of a partial answer.
    GiveBackPartial,
    /// Write the cloud's answer into the claim's status.
    RecordAnswer,
    /// Refuse a claim that nobody wants any more.
    WithdrawClaim,
    /// Write what was seen of machines into the claim's status.
    RecordInstances,
    /// Write what a message said into the claim's status.
    RecordEvent,
    /// Delete messages from the queue.
    AcknowledgeEvents,
    /// Label the node of a claim and swap its taint.
    AdoptNode,
    /// Keep new pods off a node.
    TaintNode,
    /// Delete the Node object of an ended machine.
    RemoveNode,
    /// End machines of a claim; for provider `nodes`, take label and taint off.
    ReleaseMachines,
    /// Note in the claim that the end was asked for.
    RecordRelease,
    /// Write the job's status.
    RecordJob,
    /// Create the attempt's headless Service.
    CreateService,
    /// Create the attempt's Indexed Job.
    CreateWorkload,
    /// Delete the attempt's Job.
    EndWorkload,
    /// Take the finalizer off a pod whose record is copied.
    ReleasePod,
    /// End machines that no claim knows.
    TerminateOrphans,
    /// Remove a claim that is over.
    DeleteClaim,
    /// Take the finalizer off a job that gave everything back.
    ReleaseJob,
    /// Bind a held-back pod to its node and take its gate off.
    PlacePod,
    /// Ask a pod to leave its node.
    EvictPod,
    /// Commit a window's charges to the ledger.
    CommitWindow,
    /// Write into claims until when they are metered.
    RecordMetering,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Does the work between the effect's two failpoints. What failed has not passed the second one.
pub async fn perform<T, E>(effect: Effect, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    failpoint::before(effect);
    let done = work.await?;
    failpoint::after(effect);
    tracing::debug!(%effect, "done");
    Ok(done)
}
