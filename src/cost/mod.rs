//! What things cost and whom: charges in FOCUS columns, metering of machines, reports.
//!
//! ```text
//!  claims, prices, what is booked ──metering──► charges of one closed hour ──► the ledger (crate::ledger)
//!  sums by dimension ──report──► rows, total, cents that add up
//! ```
//! Pure. Knows EC2's rules from [`crate::capacity::billing`], and nothing of where a ledger is kept.

pub mod charge;
pub mod metering;
pub mod prices;
pub mod report;

pub use charge::Charge;
pub use metering::{Bookings, Meter, NotYet};
pub use prices::PriceBook;
