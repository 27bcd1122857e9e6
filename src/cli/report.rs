//! `purser report`: what the charges in a ledger sum to. Needs no cluster.

use crate::cost::report::{Bound, CostKind, Dimension, Report};
use crate::ledger::{Ledger, LedgerError, ReportRequest};
use crate::units::{Currency, Money};

use super::output::{self, Format, Table};
use super::{CliError, Exit};

/// Sums the charges of a ledger.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  purser report --ledger ./ledger
  purser report --ledger ./ledger --by team,capacity-kind --from 2026-11-01 --to 2026-11-30
  purser report --ledger s3://finance/purser --by day --cost effective --output csv

Tables show cents that add up; json and csv hold every digit. The total is compared with what the ledger holds without
any grouping; a difference ends with exit code 3.")]
pub struct Args {
    /// The ledger: a folder, or s3://bucket/prefix
    #[arg(long, env = "PURSER_LEDGER", value_name = "DIR")]
    ledger: String,
    /// Dimensions: experiment, team, job, capacity-kind, instance-type, zone, claim, day, month
    #[arg(long, value_delimiter = ',', default_value = "experiment", value_name = "DIMENSION")]
    by: Vec<Dimension>,
    /// First day (UTC) or moment that counts [default: the ledger's first]
    #[arg(long, value_name = "DATE")]
    from: Option<Bound>,
    /// Last day (UTC) that counts, wholly; a moment is where counting ends [default: the ledger's last]
    #[arg(long, value_name = "DATE")]
    to: Option<Bound>,
    /// Which cost: billed, effective, list or contracted
    #[arg(long, default_value_t, value_name = "COST")]
    cost: CostKind,
    /// Currency, where the ledger holds several
    #[arg(long, value_name = "CODE")]
    currency: Option<Currency>,
    /// The form
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

impl Args {
    fn request(&self) -> Result<ReportRequest, CliError> {
        let (from, to) = (self.from.map(Bound::starts), self.to.map(Bound::ends));
        if let (Some(from), Some(to)) = (from, to)
            && from >= to
        {
            return Err(CliError::usage(format!("the report would end ({to}) before it begins ({from})")).hint("swap --from and --to"));
        }
        let mut by: Vec<Dimension> = Vec::new();
        self.by.iter().for_each(|dimension| if !by.contains(dimension) { by.push(*dimension) });
        Ok(ReportRequest { by, cost: self.cost, from, to, currency: self.currency })
    }
}

pub async fn run(args: &Args) -> Result<Exit, CliError> {
    let request = args.request()?;
    let ledger = Ledger::open(&args.ledger).await.map_err(|error| explained(error, "cannot report"))?;
    let report = ledger.report(&request).await.map_err(|error| explained(error, "cannot report"))?;
    match args.output {
        Format::Table => output::print(&for_people(&report).text())?,
        Format::Json => output::print_json(&report)?,
        Format::Csv => output::print(&exact(&report).csv()?)?,
    }
    Ok(if report.difference.is_zero() { Exit::Done } else { Exit::Found })
}

/// Names what can be done about an error of the ledger.
pub(super) fn explained(error: LedgerError, what: &str) -> CliError {
    use crate::cost::report::ReportError;
    let hint = match &error {
        LedgerError::NotFound { .. } => Some("the operator writes it where its --ledger says; the demo's lies in its state folder"),
        LedgerError::NotReadOnly { .. } => Some("charges are never edited; ask with SELECT"),
        LedgerError::Query { .. } => Some("names are spelled as in FOCUS (BilledCost, x_Experiment); `purser ledger query 'DESCRIBE charges'` lists them"),
        LedgerError::Report(ReportError::Currencies { .. }) => Some("--currency CODE"),
        _ => None,
    };
    let usage = matches!(error, LedgerError::NotReadOnly { .. } | LedgerError::Report(_) | LedgerError::Location { .. });
    let shown = if usage { CliError::usage(what) } else { CliError::failed(what) }.because(error);
    match hint {
        Some(hint) => shown.hint(hint),
        None => shown,
    }
}

pub(super) fn for_people(report: &Report) -> Table {
    let amount = format!(">{} ({})", report.cost, report.currency);
    let mut table = Table::new(&columns(report, &amount));
    for (row, cents) in report.rows.iter().zip(report.cents()) {
        table.row(row.values.iter().cloned().chain([cents.rounded_to_cents()]));
    }
    if report.dimensions.is_empty() {
        return table;
    }
    table.total(total_row(report, "total", &report.total));
    table
}

fn exact(report: &Report) -> Table {
    let mut columns = columns(report, ">amount");
    columns.push("currency");
    let mut table = Table::new(&columns);
    for row in &report.rows {
        table.row(row.values.iter().cloned().chain([row.amount.decimal(), report.currency.to_string()]));
    }
    table
}

fn columns<'a>(report: &Report, amount: &'a str) -> Vec<&'a str> {
    report.dimensions.iter().map(|dimension| dimension.as_str()).chain([amount]).collect()
}

/// The word under the first dimension, the amount under the amounts.
fn total_row(report: &Report, word: &str, amount: &Money) -> Vec<String> {
    let empty = std::iter::repeat_n(String::new(), report.dimensions.len().saturating_sub(1));
    std::iter::once(word.to_owned()).chain(empty).chain([amount.rounded_to_cents()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::report::{ReportRow, UNALLOCATED};

    fn report() -> Report {
        let row = |experiment: &str, day: &str, usd: &str| ReportRow { values: vec![experiment.into(), day.into()], amount: Money::usd(usd).unwrap() };
        let rows = vec![row("vision/sweep", "2026-11-23", "1204.333333333333333333"), row("speech/asr", "2026-11-24", "0.005"), row(UNALLOCATED, "2026-11-23", "-2.33")];
        let total = Money::usd("1202.008333333333333333").unwrap();
        Report::new(CostKind::Billed, vec![Dimension::Experiment, Dimension::Day], rows, total).unwrap()
    }

    #[test]
    fn people_see_cents_that_add_up_over_a_total() {
        assert_eq!(
            for_people(&report()).text(),
            "EXPERIMENT     DAY         BILLED (USD)\n\
             speech/asr     2026-11-24          0.01\n\
             vision/sweep   2026-11-23       1204.33\n\
             (unallocated)  2026-11-23         -2.33\n\
             -------------  ----------  ------------\n\
             total                           1202.01\n"
        );
    }

    #[test]
    fn csv_holds_every_digit_and_no_total() {
        assert_eq!(
            exact(&report()).csv().unwrap(),
            "experiment,day,amount,currency\n\
             speech/asr,2026-11-24,0.005,USD\n\
             vision/sweep,2026-11-23,1204.333333333333333333,USD\n\
             (unallocated),2026-11-23,-2.33,USD\n"
        );
    }
}
