//! Answers to queries, out of Arrow: named columns, and cells that stay exact.

use chrono::{DateTime, SecondsFormat, Utc};
use deltalake::arrow::array::{Array, AsArray, RecordBatch};
use deltalake::arrow::compute::cast;
use deltalake::arrow::datatypes::{DataType, Decimal128Type, Field, Float64Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
use deltalake::arrow::error::ArrowError;
use deltalake::arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Map, Value};

use super::LedgerError;
use crate::units::{Currency, Money};

/// A value of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Null,
    Text(String),
    /// Exact: a count of 10^-scale.
    Decimal { count: i128, scale: i8 },
    Integer(i64),
    /// Statistics only; no money comes as a float.
    Float(f64),
    Flag(bool),
    Time(DateTime<Utc>),
}

/// Rows under named columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub columns: Vec<String>,
    /// Columns whose cells are numbers.
    pub numeric: Vec<bool>,
    pub rows: Vec<Vec<Cell>>,
}

impl Answer {
    pub(super) fn of(schema: &Schema, batches: &[RecordBatch]) -> Result<Answer, LedgerError> {
        let misfit = |error: ArrowError| LedgerError::Rows { what: error.to_string() };
        let mut answer = Answer {
            columns: schema.fields().iter().map(|field| field.name().clone()).collect(),
            numeric: schema.fields().iter().map(|field| is_number(field)).collect(),
            rows: Vec::new(),
        };
        for batch in batches {
            let columns = batch.columns().iter().map(|column| cells(column)).collect::<Result<Vec<_>, _>>().map_err(misfit)?;
            answer.rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|cells| cells[row].clone()).collect()));
        }
        Ok(answer)
    }

    /// One object a row. Decimals are strings, so that no reader makes floats of them.
    pub fn as_json(&self) -> Vec<Map<String, Value>> {
        let object = |row: &Vec<Cell>| self.columns.iter().cloned().zip(row.iter().map(Cell::as_json)).collect();
        self.rows.iter().map(object).collect()
    }
}

impl Cell {
    /// As people and CSV read it; null is empty.
    pub fn text(&self) -> String {
        match self {
            Cell::Null => String::new(),
            Cell::Text(text) => text.clone(),
            Cell::Decimal { count, scale } => decimal(*count, *scale),
            Cell::Integer(number) => number.to_string(),
            Cell::Float(number) => number.to_string(),
            Cell::Flag(flag) => flag.to_string(),
            Cell::Time(at) => at.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        }
    }

    pub fn as_json(&self) -> Value {
        match self {
            Cell::Null => Value::Null,
            Cell::Integer(number) => Value::from(*number),
            Cell::Float(number) => Value::from(*number),
            Cell::Flag(flag) => Value::from(*flag),
            Cell::Text(_) | Cell::Decimal { .. } | Cell::Time(_) => Value::from(self.text()),
        }
    }

    pub(super) fn into_text(self) -> Option<String> {
        if let Cell::Text(text) = self { Some(text) } else { None }
    }

    pub(super) fn time(&self) -> Option<DateTime<Utc>> {
        if let Cell::Time(at) = self { Some(*at) } else { None }
    }

    pub(super) fn money(&self, currency: Currency) -> Option<Money> {
        match self {
            Cell::Decimal { count, scale } if *scale == crate::units::money::DECIMALS as i8 => Some(Money::from_atoms(*count, currency)),
            _ => None,
        }
    }
}

fn is_number(field: &Field) -> bool {
    field.data_type().is_numeric()
}

fn cells(column: &dyn Array) -> Result<Vec<Cell>, ArrowError> {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    match column.data_type() {
        DataType::Decimal128(_, scale) => {
            let scale = *scale;
            Ok(column.as_primitive::<Decimal128Type>().iter().map(|count| count.map_or(Cell::Null, |count| Cell::Decimal { count, scale })).collect())
        }
        kind if kind.is_integer() && *kind != DataType::UInt64 => {
            let column = cast(column, &DataType::Int64)?;
            Ok(column.as_primitive::<Int64Type>().iter().map(|number| number.map_or(Cell::Null, Cell::Integer)).collect())
        }
        kind if kind.is_floating() => {
            let column = cast(column, &DataType::Float64)?;
            Ok(column.as_primitive::<Float64Type>().iter().map(|number| number.map_or(Cell::Null, Cell::Float)).collect())
        }
        DataType::Boolean => Ok(column.as_boolean().iter().map(|flag| flag.map_or(Cell::Null, Cell::Flag)).collect()),
        DataType::Timestamp(_, _) => {
            let column = cast(column, &micros)?;
            let time = |value: Option<i64>| value.and_then(DateTime::from_timestamp_micros).map_or(Cell::Null, Cell::Time);
            Ok(column.as_primitive::<TimestampMicrosecondType>().iter().map(time).collect())
        }
        _ => texts(column),
    }
}

fn texts(column: &dyn Array) -> Result<Vec<Cell>, ArrowError> {
    let options = FormatOptions::default();
    let shown = ArrayFormatter::try_new(column, &options)?;
    (0..column.len()).map(|row| if column.is_null(row) { Ok(Cell::Null) } else { shown.value(row).try_to_string().map(Cell::Text) }).collect()
}

/// Every significant digit and no more.
fn decimal(count: i128, scale: i8) -> String {
    let Ok(scale @ 1..) = usize::try_from(scale) else {
        return format!("{count}{}", "0".repeat(usize::from(scale.unsigned_abs())));
    };
    let sign = if count < 0 { "-" } else { "" };
    let digits = format!("{:0width$}", count.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_written_with_every_significant_digit_and_no_more() {
        assert_eq!(decimal(917_333_333_333_333_333, 18), "0.917333333333333333");
        assert_eq!(decimal(-2_500, 3), "-2.5");
        assert_eq!(decimal(7, 0), "7");
        assert_eq!(decimal(7, -2), "700");
        assert_eq!(decimal(0, 18), "0");
    }
}
