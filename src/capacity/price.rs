//! Prices over time.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::units::MoneyPerHour;

/// From `from` on (until the next segment) one machine costs `price`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceSegment {
    pub from: DateTime<Utc>,
    pub price: MoneyPerHour,
}

/// Where a price came from; shown wherever the price is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PriceSource {
    /// Answered by the cloud just now.
    Live,
    /// The catalogue in the binary, with its date.
    Catalogue { as_of: String },
    /// Stated by the administrator in the pool.
    Pool,
}
