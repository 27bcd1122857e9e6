//! What can be bought: instance types, capacity kinds, offers, prices over time, claims, and what EC2 charges.
//!
//! Pure. Knows nothing of jobs (see [`crate::training`]) or of how a cloud is asked (see `crate::cloud`).

pub mod billing;
pub mod catalogue;
pub mod claim;
pub mod kind;
pub mod offer;
pub mod price;
pub mod requirements;

pub use claim::{Claim, ClaimPhase, ClaimRecord, ClaimedInstance, End, EndCause, Notice, NoticeKind, Refusal, RefusalCode};
pub use kind::CapacityKind;
pub use offer::{InstanceType, Offer, Provider};
pub use price::{PriceSegment, PriceSource};
pub use requirements::InstanceRequirements;
