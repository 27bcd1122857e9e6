//! Sums for a report, grouped, and once more without grouping so that a lost row would show.

use chrono::{DateTime, SecondsFormat, Utc};

use super::query::{cells, misfit, money, text, text_literal};
use super::{Cell, Ledger, LedgerError};
use crate::cost::report::{CostKind, Dimension, Report, ReportError, ReportRow, UNALLOCATED};
use crate::units::{Currency, Money};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportRequest {
    pub by: Vec<Dimension>,
    pub cost: CostKind,
    /// By the start of the charge period.
    pub from: Option<DateTime<Utc>>,
    /// Exclusive.
    pub to: Option<DateTime<Utc>>,
    /// Must be named where the time holds several.
    pub currency: Option<Currency>,
}

impl Ledger {
    pub async fn report(&self, request: &ReportRequest) -> Result<Report, LedgerError> {
        let currency = self.currency_of(request).await?;
        let place = format!("{} AND BillingCurrency = {}", period(request), text_literal(currency.as_str()));
        let cost = column(request.cost);

        let grouped: Vec<String> = request.by.iter().map(|dimension| expression(*dimension).to_owned()).collect();
        let positions: Vec<String> = (1..=grouped.len()).map(|position| position.to_string()).collect();
        let groups = if positions.is_empty() { String::new() } else { format!("GROUP BY {}", positions.join(", ")) };
        let sql = format!("SELECT {} FROM charges WHERE {place} {groups}", [grouped, vec![format!("SUM({cost})")]].concat().join(", "));
        let rows = self.query(&sql).await?.rows.into_iter().filter_map(|row| report_row(row, currency).transpose()).collect::<Result<Vec<_>, _>>()?;

        let sql = format!("SELECT SUM({cost}) FROM charges WHERE {place}");
        let total = self.query(&sql).await?.rows.into_iter().flatten().find_map(|cell| cell.money(currency));
        Ok(Report::new(request.cost, request.by.clone(), rows, total.unwrap_or(Money::zero(currency)))?)
    }

    async fn currency_of(&self, request: &ReportRequest) -> Result<Currency, LedgerError> {
        if let Some(currency) = request.currency {
            return Ok(currency);
        }
        let sql = format!("SELECT DISTINCT BillingCurrency FROM charges WHERE {} ORDER BY 1", period(request));
        let mut found = Vec::new();
        for row in self.query(&sql).await?.rows {
            let [currency] = cells(row)?;
            found.push(text(currency)?.parse::<Currency>()?);
        }
        match found.as_slice() {
            [] => Ok(Currency::USD),
            [currency] => Ok(*currency),
            _ => Err(ReportError::Currencies { found }.into()),
        }
    }
}

/// `None` for the one row that a sum over nothing gives.
fn report_row(mut row: Vec<Cell>, currency: Currency) -> Result<Option<ReportRow>, LedgerError> {
    let amount = row.pop().ok_or_else(|| misfit("an amount"))?;
    if amount == Cell::Null {
        return Ok(None);
    }
    let amount = money(&amount, Cell::Text(currency.as_str().to_owned()))?;
    let value = |cell: Cell| cell.into_text().filter(|text| !text.is_empty()).unwrap_or_else(|| UNALLOCATED.to_owned());
    Ok(Some(ReportRow { values: row.into_iter().map(value).collect(), amount }))
}

const fn expression(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Experiment => "x_Experiment",
        Dimension::Team => "x_Team",
        Dimension::Job => "x_Job",
        Dimension::CapacityKind => "x_CapacityKind",
        Dimension::InstanceType => "x_InstanceType",
        Dimension::Zone => "AvailabilityZone",
        Dimension::Claim => "x_Claim",
        Dimension::Day => "to_char(ChargePeriodStart, '%Y-%m-%d')",
        Dimension::Month => "to_char(ChargePeriodStart, '%Y-%m')",
    }
}

const fn column(cost: CostKind) -> &'static str {
    match cost {
        CostKind::Billed => "BilledCost",
        CostKind::Effective => "EffectiveCost",
        CostKind::List => "ListCost",
        CostKind::Contracted => "ContractedCost",
    }
}

fn period(request: &ReportRequest) -> String {
    let moment = |at: DateTime<Utc>| format!("TIMESTAMP '{}'", at.to_rfc3339_opts(SecondsFormat::Micros, true));
    let from = request.from.map(|from| format!("ChargePeriodStart >= {}", moment(from)));
    let to = request.to.map(|to| format!("ChargePeriodStart < {}", moment(to)));
    let bounds: Vec<String> = [from, to].into_iter().flatten().collect();
    if bounds.is_empty() { "TRUE".to_owned() } else { bounds.join(" AND ") }
}
