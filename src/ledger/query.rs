//! Questions to the ledger: SQL from people, and the few that metering and budgets ask.
//!
//! Read-only: whatever would define, change or copy anything is refused before it runs, and no file but the ledger's own
//! can be named.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use deltalake::DeltaTable;
use deltalake::datafusion::error::DataFusionError;
use deltalake::datafusion::execution::context::SQLOptions;
use deltalake::datafusion::prelude::{SessionConfig, SessionContext};

use super::{Answer, Cell, Ledger, LedgerError, SumsAsOf};
use crate::cost::Bookings;
use crate::cost::metering::BookingKey;
use crate::units::Money;

/// What budgets and claims need to know; the ledger's billed cost, exact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub by_claim: BTreeMap<String, Money>,
    /// By the job's UID: a name may come again.
    pub by_job: BTreeMap<String, Money>,
    /// By `namespace/name`.
    pub by_experiment: BTreeMap<String, Money>,
    /// By team and the first moment of the month.
    pub by_team_and_month: BTreeMap<(String, DateTime<Utc>), Money>,
}

impl Ledger {
    /// Answers SQL over the table `charges` (FOCUS column names, spelled as they are: `SELECT SUM(BilledCost) FROM charges`).
    pub async fn query(&self, sql: &str) -> Result<Answer, LedgerError> {
        let table = self.latest().await?;
        let session = session(&table).await?;
        let plan = session.state().create_logical_plan(sql).await.map_err(failed)?;
        let questions = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        questions.verify_plan(&plan).map_err(|source| LedgerError::NotReadOnly { source: Box::new(source) })?;
        let frame = session.execute_logical_plan(plan).await.map_err(failed)?;
        let schema = frame.schema().as_arrow().clone();
        Answer::of(&schema, &frame.collect().await.map_err(failed)?)
    }

    /// What is booked for these claims, by machine and window.
    pub async fn bookings(&self, claims: &[&str]) -> Result<Bookings, LedgerError> {
        let mut bookings = Bookings::default();
        if claims.is_empty() {
            return Ok(bookings);
        }
        let names: Vec<String> = claims.iter().map(|name| text_literal(name)).collect();
        let sql = format!(
            "SELECT x_Claim, ResourceId, COALESCE(x_Corrects, x_Window), BillingCurrency, SUM(BilledCost) FROM charges \
             WHERE x_Claim IN ({}) GROUP BY 1, 2, 3, 4",
            names.join(", ")
        );
        for row in self.query(&sql).await?.rows {
            let [claim, instance, window, currency, amount] = cells(row)?;
            let key = BookingKey { claim: text(claim)?, instance: text(instance)?, window: window.time().ok_or_else(|| misfit("x_Window"))? };
            bookings.add(key, money(&amount, currency)?)?;
        }
        Ok(bookings)
    }

    /// The sums as they stand; computed again only when the table has changed.
    pub async fn sums(&self) -> Result<Arc<Sums>, LedgerError> {
        let version = self.latest().await?.version().unwrap_or_default();
        let known = self.sums.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        if let Some(known) = known.filter(|known| known.version == version) {
            return Ok(known.sums);
        }
        // A commit in between makes the sums newer than `version`, and they are merely computed once more.
        let sums = Arc::new(self.sum_up().await?);
        *self.sums.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(SumsAsOf { version, sums: sums.clone() });
        Ok(sums)
    }

    async fn sum_up(&self) -> Result<Sums, LedgerError> {
        let sql = "SELECT x_Claim, x_JobUid, x_Experiment, x_Team, BillingPeriodStart, BillingCurrency, SUM(BilledCost) FROM charges \
                   GROUP BY 1, 2, 3, 4, 5, 6";
        let mut sums = Sums::default();
        for row in self.query(sql).await?.rows {
            let [claim, job, experiment, team, month, currency, amount] = cells(row)?;
            let amount = money(&amount, currency)?;
            let month = month.time().ok_or_else(|| misfit("BillingPeriodStart"))?;
            add(&mut sums.by_claim, claim.into_text(), amount)?;
            add(&mut sums.by_job, job.into_text(), amount)?;
            add(&mut sums.by_experiment, experiment.into_text(), amount)?;
            add(&mut sums.by_team_and_month, team.into_text().map(|team| (team, month)), amount)?;
        }
        Ok(sums)
    }
}

async fn session(table: &DeltaTable) -> Result<SessionContext, LedgerError> {
    // FOCUS names are mixed case; without this every one would have to be quoted.
    let config = SessionConfig::new().with_information_schema(true).set_bool("datafusion.sql_parser.enable_ident_normalization", false);
    let session = SessionContext::new_with_config(config);
    let foreign = |error: deltalake::DeltaTableError| failed(DataFusionError::External(Box::new(error)));
    table.update_datafusion_session(&session.state()).map_err(foreign)?;
    let provider = table.table_provider().await.map_err(failed)?;
    session.register_table("charges", provider).map_err(failed)?;
    Ok(session)
}

/// A text as an SQL literal.
pub(super) fn text_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn failed(source: DataFusionError) -> LedgerError {
    LedgerError::Query { source: Box::new(source) }
}

pub(super) fn misfit(what: &str) -> LedgerError {
    LedgerError::Rows { what: format!("{what} is missing or of another kind") }
}

pub(super) fn cells<const N: usize>(row: Vec<Cell>) -> Result<[Cell; N], LedgerError> {
    row.try_into().map_err(|_| misfit("a column"))
}

pub(super) fn text(cell: Cell) -> Result<String, LedgerError> {
    cell.into_text().ok_or_else(|| misfit("a text"))
}

pub(super) fn money(amount: &Cell, currency: Cell) -> Result<Money, LedgerError> {
    amount.money(text(currency)?.parse()?).ok_or_else(|| misfit("an amount"))
}

fn add<K: Ord>(sums: &mut BTreeMap<K, Money>, key: Option<K>, amount: Money) -> Result<(), LedgerError> {
    let Some(key) = key else { return Ok(()) };
    let sum = sums.get(&key).map_or(Ok(amount), |sum| sum.checked_add(amount))?;
    sums.insert(key, sum);
    Ok(())
}
