//! Purser makes money a schedulable resource of machine-learning platforms.
//!
//! The map of the house; arrows point one way only (a test enforces it):
//!
//! ```text
//!  main → cli, http → kubernetes, twin, cloud, ledger, testbed → api → simulation
//!       → scheduling, cost → training, capacity → units
//! ```
//! Above the line everything decides and is pure: no async, clock, file, environment or random source. Below it, thin
//! shells touch the world.

// — decides —
pub mod capacity;
pub mod cost;
pub mod scheduling;
pub mod simulation;
pub mod training;
pub mod units;

// — touches —
#[cfg(feature = "io")]
pub mod api;
#[cfg(feature = "io")]
pub mod cli;
#[cfg(feature = "io")]
pub mod cloud;
#[cfg(feature = "io")]
pub mod http;
#[cfg(feature = "io")]
pub mod kubernetes;
#[cfg(feature = "io")]
pub mod ledger;
#[cfg(feature = "io")]
pub mod testbed;
#[cfg(feature = "io")]
pub mod twin;
