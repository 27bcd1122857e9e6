//! A cost report: sums by dimension, their total, and cents that add up to it.
//!
//! Knows nothing of tables: `crate::ledger::report` sums, this says what is shown. Amounts stay exact everywhere but in
//! [`Report::cents`], which is for people.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Days, NaiveDate, Utc};
use serde::{Serialize, Serializer};

use crate::units::{Currency, Money, MoneyError, money};

/// What stands where a charge has no value for a dimension.
pub const UNALLOCATED: &str = "(unallocated)";

/// What a report can be grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dimension {
    Experiment,
    Team,
    Job,
    CapacityKind,
    InstanceType,
    Zone,
    Claim,
    Day,
    Month,
}

impl Dimension {
    pub const ALL: [Dimension; 9] = [
        Dimension::Experiment,
        Dimension::Team,
        Dimension::Job,
        Dimension::CapacityKind,
        Dimension::InstanceType,
        Dimension::Zone,
        Dimension::Claim,
        Dimension::Day,
        Dimension::Month,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Dimension::Experiment => "experiment",
            Dimension::Team => "team",
            Dimension::Job => "job",
            Dimension::CapacityKind => "capacity-kind",
            Dimension::InstanceType => "instance-type",
            Dimension::Zone => "zone",
            Dimension::Claim => "claim",
            Dimension::Day => "day",
            Dimension::Month => "month",
        }
    }

    const fn is_time(self) -> bool {
        matches!(self, Dimension::Day | Dimension::Month)
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which of FOCUS's four costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CostKind {
    #[default]
    Billed,
    Effective,
    List,
    Contracted,
}

impl CostKind {
    pub const ALL: [CostKind; 4] = [CostKind::Billed, CostKind::Effective, CostKind::List, CostKind::Contracted];

    pub const fn as_str(self) -> &'static str {
        match self {
            CostKind::Billed => "billed",
            CostKind::Effective => "effective",
            CostKind::List => "list",
            CostKind::Contracted => "contracted",
        }
    }
}

impl fmt::Display for CostKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    #[error("{text:?} is no dimension; choose from {}", Dimension::ALL.map(Dimension::as_str).join(", "))]
    Dimension { text: String },
    #[error("{text:?} is no cost; choose from {}", CostKind::ALL.map(CostKind::as_str).join(", "))]
    Cost { text: String },
    #[error("{text:?} is no date; write 2026-11-24 or 2026-11-24T15:00:00Z")]
    Date { text: String },
    #[error("the ledger holds several currencies ({}) which do not add up; choose one", .found.iter().map(Currency::as_str).collect::<Vec<_>>().join(", "))]
    Currencies { found: Vec<Currency> },
    #[error(transparent)]
    Amount(#[from] MoneyError),
}

impl FromStr for Dimension {
    type Err = ReportError;

    fn from_str(text: &str) -> Result<Self, ReportError> {
        Dimension::ALL.into_iter().find(|dimension| dimension.as_str() == text).ok_or_else(|| ReportError::Dimension { text: text.to_owned() })
    }
}

impl FromStr for CostKind {
    type Err = ReportError;

    fn from_str(text: &str) -> Result<Self, ReportError> {
        CostKind::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| ReportError::Cost { text: text.to_owned() })
    }
}

/// A bound of the reported time: a whole UTC day, or a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Day(NaiveDate),
    Moment(DateTime<Utc>),
}

impl Bound {
    /// As the first moment that counts.
    pub fn starts(self) -> DateTime<Utc> {
        match self {
            Bound::Day(day) => day.and_time(chrono::NaiveTime::MIN).and_utc(),
            Bound::Moment(at) => at,
        }
    }

    /// As the first moment that does not count any more: a day is wholly in, a moment is out.
    pub fn ends(self) -> DateTime<Utc> {
        match self {
            Bound::Day(day) => Bound::Day(day.checked_add_days(Days::new(1)).unwrap_or(NaiveDate::MAX)).starts(),
            Bound::Moment(at) => at,
        }
    }
}

impl FromStr for Bound {
    type Err = ReportError;

    fn from_str(text: &str) -> Result<Self, ReportError> {
        let day = text.parse().map(Bound::Day);
        day.or_else(|_| text.parse().map(Bound::Moment)).map_err(|_| ReportError::Date { text: text.to_owned() })
    }
}

/// One row: a value for each dimension, and the sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportRow {
    pub values: Vec<String>,
    pub amount: Money,
}

/// Rows, what they sum to, and what the ledger holds in the same time without any grouping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub currency: Currency,
    pub cost: CostKind,
    pub dimensions: Vec<Dimension>,
    pub rows: Vec<ReportRow>,
    pub total: Money,
    pub bill_total: Money,
    /// `total − bill_total`; anything but zero means that a row was lost or counted twice.
    pub difference: Money,
}

impl Report {
    /// Orders the rows (by time where that is a dimension, else the dearest first; what is unallocated last) and sums them.
    pub fn new(cost: CostKind, dimensions: Vec<Dimension>, mut rows: Vec<ReportRow>, bill_total: Money) -> Result<Report, ReportError> {
        let currency = bill_total.currency();
        let by_time = dimensions.iter().any(|dimension| dimension.is_time());
        rows.sort_by(|left, right| {
            let unallocated = |row: &ReportRow| row.values.iter().any(|value| value == UNALLOCATED);
            let dearest = if by_time { std::cmp::Ordering::Equal } else { right.amount.cmp(&left.amount) };
            unallocated(left).cmp(&unallocated(right)).then(dearest).then_with(|| left.values.cmp(&right.values))
        });
        let total = money::sum(currency, rows.iter().map(|row| row.amount))?;
        Ok(Report { currency, cost, dimensions, rows, total, bill_total, difference: total.checked_sub(bill_total)? })
    }

    /// The amounts rounded to cents so that they add up to the rounded total: all are rounded down, and the cents that
    /// are then missing go to those that lost most.
    pub fn cents(&self) -> Vec<Money> {
        let cent = money::ATOMS_PER_UNIT / 100;
        let mut cents: Vec<i128> = self.rows.iter().map(|row| row.amount.atoms().div_euclid(cent)).collect();
        let missing = self.total_cents() - cents.iter().sum::<i128>();
        let mut by_loss: Vec<usize> = (0..cents.len()).collect();
        by_loss.sort_by_key(|&index| std::cmp::Reverse(self.rows[index].amount.atoms().rem_euclid(cent)));
        for &index in by_loss.iter().take(usize::try_from(missing).unwrap_or(0)) {
            cents[index] += 1;
        }
        cents.into_iter().map(|count| Money::from_atoms(count * cent, self.currency)).collect()
    }

    fn total_cents(&self) -> i128 {
        let cent = money::ATOMS_PER_UNIT / 100;
        let (down, rest) = (self.total.atoms().div_euclid(cent), self.total.atoms().rem_euclid(cent));
        // Half to even, as `Money::rounded_to_cents` shows it.
        down + i128::from(rest * 2 > cent || (rest * 2 == cent && down % 2 != 0))
    }
}

/// The contract of `purser report --output json`: exact decimal strings.
impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows: Vec<serde_json::Map<String, serde_json::Value>> = self.rows.iter().map(|row| self.row_as_json(row)).collect();
        serde_json::json!({
            "currency": self.currency.as_str(),
            "cost": self.cost.as_str(),
            "rows": rows,
            "total": self.total.decimal(),
            "bill_total": self.bill_total.decimal(),
            "difference": self.difference.decimal(),
        })
        .serialize(serializer)
    }
}

impl Report {
    fn row_as_json(&self, row: &ReportRow) -> serde_json::Map<String, serde_json::Value> {
        let dimensions = self.dimensions.iter().zip(&row.values).map(|(dimension, value)| (dimension.as_str().to_owned(), value.as_str().into()));
        dimensions.chain(std::iter::once(("amount".to_owned(), row.amount.decimal().into()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(value: &str, amount: &str) -> ReportRow {
        ReportRow { values: vec![value.to_owned()], amount: Money::usd(amount).unwrap() }
    }

    fn report(rows: Vec<ReportRow>, bill_total: &str) -> Report {
        Report::new(CostKind::Billed, vec![Dimension::Experiment], rows, Money::usd(bill_total).unwrap()).unwrap()
    }

    #[test]
    fn the_dearest_comes_first_and_the_unallocated_last() {
        let report = report(vec![row(UNALLOCATED, "9"), row("a", "1"), row("b", "3")], "13");
        let order: Vec<&str> = report.rows.iter().map(|row| row.values[0].as_str()).collect();
        assert_eq!(order, ["b", "a", UNALLOCATED]);
    }

    #[test]
    fn json_is_exact_and_says_by_how_much_the_bill_differs() {
        let report = report(vec![row("a", "0.917333333333333333"), row("b", "1.5")], "2.417333333333333333");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"currency": "USD", "cost": "billed", "total": "2.417333333333333333", "bill_total": "2.417333333333333333", "difference": "0",
                "rows": [{"experiment": "b", "amount": "1.5"}, {"experiment": "a", "amount": "0.917333333333333333"}]})
        );
    }

    #[test]
    fn thirds_are_shown_so_that_they_add_up() {
        let report = report(vec![row("a", "0.333333"), row("b", "0.333333"), row("c", "0.333334")], "1");
        let shown: Vec<String> = report.cents().iter().map(Money::rounded_to_cents).collect();
        assert_eq!(shown, ["0.34", "0.33", "0.33"]);
    }

    #[test]
    fn a_day_is_wholly_in_and_a_moment_is_the_end() {
        assert_eq!("2026-11-24".parse::<Bound>().unwrap().ends().to_rfc3339(), "2026-11-25T00:00:00+00:00");
        assert_eq!("2026-11-24T15:00:00Z".parse::<Bound>().unwrap().ends().to_rfc3339(), "2026-11-24T15:00:00+00:00");
        assert!("yesterday".parse::<Bound>().is_err());
        assert!("sweep".parse::<Dimension>().unwrap_err().to_string().contains("capacity-kind"));
    }

    proptest! {
        #[test]
        fn shown_cents_add_up_to_the_shown_total_and_none_is_off_by_a_cent(amounts in proptest::collection::vec(any::<i64>(), 0..20)) {
            let rows: Vec<ReportRow> = amounts.iter().map(|atoms| ReportRow { values: vec!["a".into()], amount: Money::usd_atoms(i128::from(*atoms) * 17) }).collect();
            let total = money::sum(Currency::USD, rows.iter().map(|row| row.amount)).unwrap();
            let report = Report::new(CostKind::Billed, vec![Dimension::Job], rows, total).unwrap();
            let cents = report.cents();
            let shown = money::sum(Currency::USD, cents.iter().copied()).unwrap();
            prop_assert_eq!(shown.rounded_to_cents(), report.total.rounded_to_cents());
            for (cents, row) in cents.iter().zip(&report.rows) {
                prop_assert!((cents.atoms() - row.amount.atoms()).abs() < money::ATOMS_PER_UNIT / 100);
            }
        }
    }
}
