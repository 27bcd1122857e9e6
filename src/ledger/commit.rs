//! Committing an hour, exactly once.
//!
//! The commit carries the Delta transaction `(meter, hour number)`, and Delta lets only one commit have the next version.
//! So: look how far the meter is; if this hour is in, do nothing; else write on top of exactly what was looked at. When
//! somebody else was quicker, look again instead of repeating. An error after the commit (a checkpoint that could not be
//! written) is found out the same way.

use std::time::Duration;

use chrono::{DateTime, Utc};
use deltalake::kernel::Transaction;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::{DeltaTable, DeltaTableError};
use tracing::warn;

use super::{Ledger, LedgerError, METER, number_of, table};
use crate::cost::Charge;

/// How often a commit is tried while others keep being quicker.
const TRIES_MAX: u32 = 10;
/// An hour makes one small file; this many are merged into one.
const FILES_MAX: usize = 100;

/// How a commit went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    Written,
    /// This hour or a later one was in the ledger already: nothing was done.
    AlreadyClosed,
}

impl Ledger {
    /// Writes the rows of a closed hour (by its start), unless it is closed already. Hours between the last one and this
    /// one are closed with it, empty. Without rows only the transaction moves, so that an hour once closed stays closed.
    pub async fn commit_window(&self, window: DateTime<Utc>, rows: &[Charge]) -> Result<Commit, LedgerError> {
        let number = number_of(window);
        let mut seen = None;
        let mut failure = None;
        for _ in 0..TRIES_MAX {
            let latest = self.latest().await?;
            if self.last_window(&latest).await?.is_some_and(|last| last >= number) {
                return Ok(Commit::AlreadyClosed);
            }
            // Nobody else moved the table: the failure is our own and repeating it is no use.
            if let Some(source) = failure.take_if(|_| seen == latest.version()) {
                return Err(LedgerError::Commit { window, source: Box::new(source) });
            }
            seen = latest.version();
            match write(latest, number, rows).await? {
                Ok(()) => {
                    self.compact().await;
                    return Ok(Commit::Written);
                }
                Err(error) => failure = Some(error),
            }
        }
        let source = Box::new(failure.unwrap_or_else(|| DeltaTableError::Generic("others kept being quicker".to_owned())));
        Err(LedgerError::Commit { window, source })
    }

    /// Merges small files once there are many. Readers see the same rows; failing is harmless and tried again next hour.
    async fn compact(&self) {
        let Ok(table) = self.latest().await else { return };
        let files = table.snapshot().map(|state| state.log_data().num_files()).unwrap_or(0);
        if files < FILES_MAX {
            return;
        }
        if let Err(error) = compacted(table).await {
            warn!(ledger = self.location(), %error, "could not compact the ledger; it stays as it is");
        }
    }
}

async fn compacted(table: DeltaTable) -> Result<(), DeltaTableError> {
    let (table, _) = table.optimize().with_min_commit_interval(Duration::from_secs(3600)).await?;
    // Files that were merged are kept for Delta's default of a week, for readers of older versions.
    table.vacuum().await?;
    Ok(())
}

/// One try, on top of exactly this version of the table.
async fn write(table: DeltaTable, number: i64, rows: &[Charge]) -> Result<Result<(), DeltaTableError>, LedgerError> {
    let once = CommitProperties::default().with_application_transaction(Transaction::new(METER, number)).with_max_retries(0);
    if rows.is_empty() {
        return Ok(move_transaction(&table, once).await);
    }
    let batch = table::batch(rows)?;
    Ok(table.write([batch]).with_save_mode(SaveMode::Append).with_commit_properties(once).await.map(|_| ()))
}

async fn move_transaction(table: &DeltaTable, once: CommitProperties) -> Result<(), DeltaTableError> {
    let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
    CommitBuilder::from(once).build(Some(table.snapshot()?), table.log_store(), operation).await.map(|_| ())
}
