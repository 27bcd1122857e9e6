//! What can be bought: instance types, capacity kinds, offers, prices over time, claims, and what EC2 charges.
//!
//! Pure. Knows nothing of jobs (see [`crate::training`]) or of how a cloud is asked (see `crate::cloud`).

pub mod allocatable;
pub mod billing;
pub mod catalogue;
pub mod claim;
pub mod kind;
pub mod offer;
pub mod pods;
pub mod price;
pub mod requirements;

pub use allocatable::Allocatable;
pub use claim::{Claim, ClaimPhase, ClaimRecord, ClaimedInstance, End, EndCause, Notice, NoticeKind, PodRef, Refusal, RefusalCode, Serves, Slot};
pub use kind::CapacityKind;
pub use offer::{InstanceType, Offer, Provider};
pub use pods::{PodsPolicy, RepairPolicy};
pub use price::{PriceSegment, PriceSource};
pub use requirements::InstanceRequirements;
