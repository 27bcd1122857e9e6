//! Quantities with their units: money, prices per hour, durations as people write them.
//!
//! Knows nothing of clouds, jobs or Kubernetes. Read [`money`] first.

pub mod duration;
pub mod money;

pub use duration::Span;
pub use money::{Currency, Money, MoneyError, MoneyPerHour};
