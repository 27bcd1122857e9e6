//! One job with a deadline on a market that was measured: what a policy would have paid, and what the future's knower.
//!
//! ```text
//!  traces ─ arena ─► Arena ─┬─ run ◄─ Policy (published, ours) ─► Outcome ─┬─► table: ratio by group, job fraction, overhead
//!                           └─ optimum ────────────────────────────────────┘
//! ```
//! Time goes in ticks. At the start of each a policy sees which seats are up now and were before, never what comes, and
//! sits on one or on none; it pays the whole tick. A launch costs the restart overhead in full before work goes on;
//! checkpoints are free and perfect. Rules and published policies: Wu et al., "Can't Be Late: Optimizing Spot Instance
//! Savings under Deadlines", NSDI 2024. Durations are whole seconds, so that tick counts can be compared exactly; costs are
//! statistics, and floats.

pub mod arena;
mod bound;
pub mod calibration;
pub mod cases;
pub mod contest;
mod horizon;
pub mod optimum;
pub mod priced;
pub mod published;
pub mod purser;
pub mod run;
pub mod table;

pub use arena::{Arena, Seat};
pub use optimum::optimum;
pub use run::{Outcome, Policy, Task, View, opening, replay, run};
