//! The ledger: charges in a Delta Lake table, on disk or S3, written once and never edited.
//!
//! ```text
//!  closed hour's rows ──commit──► _delta_log + Parquet ──query──► SQL answers, reports, sums for budgets
//!        └─ with transaction id (meter, hour): a crash or a second leader writes each hour exactly once
//! ```
//! Touches storage only. What a charge is says [`crate::cost::charge`]; when an hour may close, [`crate::cost::metering`].
//! [`windows::close_windows`] joins the two. DuckDB, Spark, Trino and Athena read the table as it is.

pub mod answer;
pub mod commit;
pub mod query;
pub mod report;
mod table;
pub mod windows;

use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};
use deltalake::{DeltaTable, DeltaTableError};
use tokio::sync::RwLock;

pub use answer::{Answer, Cell};
pub use commit::Commit;
pub use query::Sums;
pub use report::ReportRequest;
pub use windows::{Closed, ClosedWindow, close_windows};

use crate::units::MoneyError;

/// The application whose transaction ids number the closed hours.
const METER: &str = "meter";

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("{location} is no place for a ledger")]
    Location { location: String, #[source] source: DeltaTableError },
    #[error("there is no ledger at {location}")]
    NotFound { location: String },
    #[error("could not open the ledger at {location}")]
    Open { location: String, #[source] source: DeltaTableError },
    #[error("could not commit the hour from {window} to the ledger")]
    Commit { window: DateTime<Utc>, #[source] source: Box<DeltaTableError> },
    #[error("only questions (SELECT, WITH, EXPLAIN, DESCRIBE) may be asked of the ledger")]
    NotReadOnly { #[source] source: Box<deltalake::datafusion::error::DataFusionError> },
    #[error("could not answer the query")]
    Query { #[source] source: Box<deltalake::datafusion::error::DataFusionError> },
    #[error("the ledger's rows do not fit its schema: {what}")]
    Rows { what: String },
    #[error(transparent)]
    Amount(#[from] MoneyError),
    #[error(transparent)]
    Report(#[from] crate::cost::report::ReportError),
}

/// An open ledger. Cheap to clone; every verb first looks for what others have committed.
#[derive(Clone)]
pub struct Ledger {
    location: String,
    table: Arc<RwLock<DeltaTable>>,
    sums: Arc<Mutex<Option<SumsAsOf>>>,
}

/// The sums as they were at a version of the table.
#[derive(Clone)]
struct SumsAsOf {
    version: u64,
    sums: Arc<Sums>,
}

impl Ledger {
    /// Opens the ledger in a folder or at an `s3://bucket/prefix`, and makes it where there is none.
    pub async fn open_or_create(location: &str) -> Result<Ledger, LedgerError> {
        let table = table::open_or_create(location).await?;
        Ok(Ledger::over(location, table))
    }

    /// Opens a ledger that exists.
    pub async fn open(location: &str) -> Result<Ledger, LedgerError> {
        let table = table::open(location).await?;
        Ok(Ledger::over(location, table))
    }

    fn over(location: &str, table: DeltaTable) -> Ledger {
        Ledger { location: location.to_owned(), table: Arc::new(RwLock::new(table)), sums: Arc::default() }
    }

    pub fn location(&self) -> &str {
        &self.location
    }

    /// The end of the last closed hour; `None` before the first one.
    pub async fn closed_until(&self) -> Result<Option<DateTime<Utc>>, LedgerError> {
        let table = self.latest().await?;
        Ok(self.last_window(&table).await?.map(|number| window_of(number) + TimeDelta::hours(1)))
    }

    /// The table with everything that was committed until now.
    async fn latest(&self) -> Result<DeltaTable, LedgerError> {
        let mut table = self.table.write().await;
        table.update_state().await.map_err(|source| self.could_not_open(source))?;
        Ok(table.clone())
    }

    async fn last_window(&self, table: &DeltaTable) -> Result<Option<i64>, LedgerError> {
        let state = table.snapshot().map_err(|source| self.could_not_open(source))?;
        state.transaction_version(table.log_store().as_ref(), METER).await.map_err(|source| self.could_not_open(source))
    }

    fn could_not_open(&self, source: DeltaTableError) -> LedgerError {
        LedgerError::Open { location: self.location.clone(), source }
    }
}

/// Hours are numbered from the epoch on: the Delta transaction's version.
fn number_of(window: DateTime<Utc>) -> i64 {
    window.timestamp().div_euclid(3600)
}

fn window_of(number: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::hours(number)
}

#[cfg(test)]
mod tests;
