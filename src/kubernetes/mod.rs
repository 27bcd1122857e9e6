//! The operator: reads the cluster and the clouds, lets the core decide, and acts.
//!
//! ```text
//!  observe ──Snapshot──► scheduling::plan ──► audit ──Plan──► apply ──► report
//!     ▲                      (pure)                             │
//!     └── reflectors, lists, quotes, machines, ledger sums      └── effects by name, each between two failpoints
//! ```
//! Start at [`cycle`]. `admission` is the webhook, `events` the clouds' messages, `meter` the hours of the ledger,
//! `controllers` the statuses of what people write, `lease` who may act. Nothing here decides what to buy.

pub mod admission;
pub mod apply;
pub mod chain;
pub mod clock;
pub mod controllers;
pub mod cycle;
pub mod effects;
pub mod events;
pub mod failpoint;
pub mod health;
pub mod installation;
pub mod lease;
pub mod meter;
pub mod metrics;
pub mod names;
pub mod observe;
pub mod progress;
pub mod report;
pub mod scrape;
