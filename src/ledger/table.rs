//! The Delta table itself: where it lies, its schema (made from [`COLUMNS`]), and charges as Arrow rows.

use std::collections::HashMap;
use std::sync::Arc;

use deltalake::arrow::array::{ArrayRef, BooleanArray, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use deltalake::arrow::datatypes::{DataType as ArrowType, Field, Schema, TimeUnit};
use deltalake::kernel::{DataType, PrimitiveType, StructField};
use deltalake::protocol::SaveMode;
use deltalake::{DeltaTable, DeltaTableBuilder, DeltaTableError, TableProperty, ensure_table_uri};

use super::LedgerError;
use crate::cost::Charge;
use crate::cost::charge::{COLUMNS, Column, ColumnKind, Value};

const PRECISION: u8 = 38;
const SCALE: u8 = crate::units::money::DECIMALS as u8;

/// Files are skipped by these when a query bounds them; Delta would take the first 32 columns, mostly texts.
const SKIP_BY: &str = "ChargePeriodStart,BillingPeriodStart,x_Window";

pub async fn open(location: &str) -> Result<DeltaTable, LedgerError> {
    if !location.contains("://") && !std::path::Path::new(location).exists() {
        return Err(LedgerError::NotFound { location: location.to_owned() });
    }
    load(location).await?.ok_or_else(|| LedgerError::NotFound { location: location.to_owned() })
}

pub async fn open_or_create(location: &str) -> Result<DeltaTable, LedgerError> {
    if let Some(table) = load(location).await? {
        return Ok(table);
    }
    let created = create(location).await;
    match (created, load(location).await?) {
        // Two processes may create at once; whoever was second opens what the first one made.
        (Ok(_) | Err(_), Some(table)) => Ok(table),
        (Err(source), None) => Err(LedgerError::Open { location: location.to_owned(), source }),
        (Ok(_), None) => Err(LedgerError::NotFound { location: location.to_owned() }),
    }
}

async fn load(location: &str) -> Result<Option<DeltaTable>, LedgerError> {
    let no_place = |source| LedgerError::Location { location: location.to_owned(), source };
    let url = ensure_table_uri(location).map_err(no_place)?;
    let builder = DeltaTableBuilder::from_url(url).map_err(no_place)?;
    match builder.with_storage_options(storage_options()).load().await {
        Ok(table) => Ok(Some(table)),
        Err(DeltaTableError::NotATable(_) | DeltaTableError::InvalidTableLocation(_)) => Ok(None),
        Err(source) => Err(LedgerError::Open { location: location.to_owned(), source }),
    }
}

async fn create(location: &str) -> Result<DeltaTable, DeltaTableError> {
    let url = ensure_table_uri(location)?;
    let table = DeltaTableBuilder::from_url(url)?.with_storage_options(storage_options()).build()?;
    // `delta.setTransactionRetentionDuration` stays unset: the last closed hour must never be forgotten.
    table
        .create()
        .with_table_name("charges")
        .with_comment("Charges in FOCUS 1.2 columns; written by Purser, hour by hour, never edited")
        .with_columns(COLUMNS.iter().map(delta_field))
        .with_configuration_property(TableProperty::AppendOnly, Some("true"))
        .with_configuration_property(TableProperty::DataSkippingStatsColumns, Some(SKIP_BY))
        .with_save_mode(SaveMode::Ignore)
        .await
}

/// The object store refuses plain http unless told otherwise, and would not know an endpoint that is meant for S3 only.
fn storage_options() -> HashMap<String, String> {
    let endpoint = std::env::var("AWS_ENDPOINT_URL_S3").or_else(|_| std::env::var("AWS_ENDPOINT_URL")).ok();
    let mut options = HashMap::new();
    if let Some(endpoint) = endpoint {
        options.insert("AWS_ALLOW_HTTP".to_owned(), endpoint.starts_with("http://").to_string());
        options.insert("AWS_ENDPOINT_URL".to_owned(), endpoint);
    }
    options
}

fn delta_field(column: &Column) -> StructField {
    let kind = match column.kind {
        ColumnKind::Text => DataType::STRING,
        ColumnKind::Decimal => DataType::decimal(PRECISION, SCALE).expect("38 and 18 are within Delta's bounds"),
        ColumnKind::Time => DataType::Primitive(PrimitiveType::Timestamp),
        ColumnKind::Integer => DataType::LONG,
        ColumnKind::Flag => DataType::BOOLEAN,
    };
    StructField::new(column.name, kind, column.nullable)
}

fn arrow_field(column: &Column) -> Field {
    let kind = match column.kind {
        ColumnKind::Text => ArrowType::Utf8,
        ColumnKind::Decimal => ArrowType::Decimal128(PRECISION, SCALE as i8),
        ColumnKind::Time => ArrowType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ColumnKind::Integer => ArrowType::Int64,
        ColumnKind::Flag => ArrowType::Boolean,
    };
    Field::new(column.name, kind, column.nullable)
}

/// The rows as one batch in the table's schema.
pub fn batch(charges: &[Charge]) -> Result<RecordBatch, LedgerError> {
    let misfit = |error: deltalake::arrow::error::ArrowError| LedgerError::Rows { what: error.to_string() };
    let schema = Arc::new(Schema::new(COLUMNS.iter().map(arrow_field).collect::<Vec<_>>()));
    let columns = COLUMNS.iter().map(|column| array(column, charges).map_err(misfit)).collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(schema, columns).map_err(misfit)
}

fn array(column: &Column, charges: &[Charge]) -> Result<ArrayRef, deltalake::arrow::error::ArrowError> {
    let values = charges.iter().map(column.of);
    // A value of another kind than its column's becomes null, which a required column refuses; a test covers all columns.
    Ok(match column.kind {
        ColumnKind::Text => Arc::new(values.map(|value| if let Value::Text(text) = value { text } else { None }).collect::<StringArray>()),
        ColumnKind::Decimal => {
            let atoms = values.map(|value| if let Value::Decimal(atoms) = value { atoms } else { None });
            Arc::new(atoms.collect::<Decimal128Array>().with_precision_and_scale(PRECISION, SCALE as i8)?)
        }
        ColumnKind::Time => {
            let micros = values.map(|value| if let Value::Time(at) = value { at.map(|at| at.timestamp_micros()) } else { None });
            Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        }
        ColumnKind::Integer => Arc::new(values.map(|value| if let Value::Integer(number) = value { number } else { None }).collect::<Int64Array>()),
        ColumnKind::Flag => Arc::new(values.map(|value| if let Value::Flag(flag) = value { flag } else { None }).collect::<BooleanArray>()),
    })
}
