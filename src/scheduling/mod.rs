//! Snapshot → Plan: who runs next, on what, and what to keep, give back and end.
//!
//! ```text
//!  Snapshot ──plan──► Plan{actions, decisions} ──audit──► Plan without what breaks an invariant
//! ```
//! Pure: the operator, `purser plan`, `purser explain` and `purser simulate` call the same functions.
//! Start at [`plan::plan`]; the state of one job moves in [`lifecycle`].

pub mod action;
pub mod advice;
pub mod audit;
pub mod boot;
pub mod budget;
pub mod deadline;
pub mod explain;
pub mod leftovers;
pub mod lifecycle;
pub mod machines;
pub mod markets;
pub mod packing;
pub mod placement;
pub mod plan;
pub mod pods;
pub mod queue;
pub mod refusals;
pub mod snapshot;
pub mod supply;

pub use action::{Action, Decision, DecisionKind, NOTICE_GRACE_SECONDS, Plan, Reason, ReasonCode};
pub use audit::audit;
pub use plan::plan;
pub use snapshot::Snapshot;

#[cfg(test)]
pub mod scenario;
#[cfg(test)]
mod scenario_tests;
