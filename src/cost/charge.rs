//! One charge: a row of the ledger, with the column names of FOCUS 1.2 (<https://focus.finops.org/focus-specification/v1-2/>).
//!
//! [`COLUMNS`] is the ledger's schema: name, kind and how a charge fills it. Columns that FOCUS does not know begin with
//! `x_`, as it asks. Columns are only ever added; what a later issue imports from bills uses the same ones.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, TimeDelta, TimeZone, Utc};

use crate::capacity::{CapacityKind, Offer, Provider};
use crate::training::JobRef;
use crate::units::Money;

/// Whom a charge is for. A machine belongs wholly to the claim it was launched for, idle time included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payer {
    /// `namespace/name`: names of experiments repeat between namespaces.
    pub experiment: String,
    pub team: Option<String>,
    pub job: JobRef,
    pub attempt: u32,
    pub claim: String,
}

/// A correction mends what an earlier, closed window booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Regular,
    Correction { of: DateTime<Utc> },
}

/// What was used, at which price; corrections are bare differences and have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub seconds: i64,
    /// Money for one hour.
    pub unit_price: Money,
}

/// One row. All four costs of a metered machine are the same: no discount is known before the bill comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    pub payer: Payer,
    pub offer: Offer,
    /// The instance, or the node.
    pub resource: String,
    /// The clock hour that booked it.
    pub window: DateTime<Utc>,
    pub class: Class,
    /// Within `window`; a correction covers the whole of it.
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    pub cost: Money,
    pub usage: Option<Usage>,
    /// Rests on a start or an end that nobody saw.
    pub estimated: bool,
    pub description: String,
}

impl Charge {
    /// The window whose sum this row counts to.
    pub fn counts_to(&self) -> DateTime<Utc> {
        match self.class {
            Class::Regular => self.window,
            Class::Correction { of } => of,
        }
    }

    fn hours(&self) -> Option<i128> {
        // Exact where the seconds allow it, else half to even at 18 decimals; costs are never computed from it.
        let usage = self.usage.as_ref()?;
        crate::units::MoneyPerHour(Money::usd_atoms(crate::units::money::ATOMS_PER_UNIT)).for_seconds(usage.seconds).ok().map(|hours| hours.atoms())
    }
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    Text,
    /// Decimal(38,18).
    Decimal,
    /// UTC, microseconds.
    Time,
    Integer,
    Flag,
}

/// A value for a column; `None` is null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(Option<String>),
    Decimal(Option<i128>),
    Time(Option<DateTime<Utc>>),
    Integer(Option<i64>),
    Flag(Option<bool>),
}

/// A column of the table `charges`.
pub struct Column {
    pub name: &'static str,
    pub kind: ColumnKind,
    pub nullable: bool,
    pub of: fn(&Charge) -> Value,
}

const fn text(name: &'static str, of: fn(&Charge) -> Value) -> Column {
    Column { name, kind: ColumnKind::Text, nullable: true, of }
}

const fn decimal(name: &'static str, of: fn(&Charge) -> Value) -> Column {
    Column { name, kind: ColumnKind::Decimal, nullable: true, of }
}

const fn time(name: &'static str, of: fn(&Charge) -> Value) -> Column {
    Column { name, kind: ColumnKind::Time, nullable: true, of }
}

const fn required(column: Column) -> Column {
    Column { nullable: false, ..column }
}

fn say(text: impl Into<String>) -> Value {
    Value::Text(Some(text.into()))
}

fn cost(charge: &Charge) -> Value {
    Value::Decimal(Some(charge.cost.atoms()))
}

fn unit_price(charge: &Charge) -> Value {
    Value::Decimal(charge.usage.map(|usage| usage.unit_price.atoms()))
}

fn hours(charge: &Charge) -> Value {
    Value::Decimal(charge.hours())
}

fn hours_unit(charge: &Charge) -> Value {
    Value::Text(charge.usage.map(|_| "Hours".to_owned()))
}

fn provider(charge: &Charge) -> Value {
    match charge.offer.provider {
        Provider::Aws => say("AWS"),
        Provider::Nodes => say("Existing nodes"),
    }
}

fn nothing(_: &Charge) -> Value {
    Value::Text(None)
}

fn no_quantity(_: &Charge) -> Value {
    Value::Decimal(None)
}

/// The schema of the ledger's table, in this order.
pub const COLUMNS: &[Column] = &[
    required(decimal("BilledCost", cost)),
    required(decimal("EffectiveCost", cost)),
    required(decimal("ListCost", cost)),
    required(decimal("ContractedCost", cost)),
    required(text("BillingCurrency", |charge| say(charge.cost.currency().as_str()))),
    text("BillingAccountId", nothing),
    text("SubAccountId", nothing),
    text("InvoiceId", nothing),
    text("InvoiceIssuerName", provider),
    required(time("BillingPeriodStart", |charge| Value::Time(Some(month_of(charge.window))))),
    required(time("BillingPeriodEnd", |charge| Value::Time(Some(next_month(charge.window))))),
    required(time("ChargePeriodStart", |charge| Value::Time(Some(charge.from)))),
    required(time("ChargePeriodEnd", |charge| Value::Time(Some(charge.to)))),
    required(text("ChargeCategory", |_| say("Usage"))),
    text("ChargeClass", |charge| Value::Text(matches!(charge.class, Class::Correction { .. }).then(|| "Correction".to_owned()))),
    text("ChargeDescription", |charge| say(&charge.description)),
    text("ChargeFrequency", |_| say("Usage-Based")),
    text("PricingCategory", pricing_category),
    decimal("PricingQuantity", hours),
    text("PricingUnit", hours_unit),
    decimal("ListUnitPrice", unit_price),
    decimal("ContractedUnitPrice", unit_price),
    decimal("ConsumedQuantity", hours),
    text("ConsumedUnit", hours_unit),
    text("ProviderName", provider),
    text("PublisherName", provider),
    text("ServiceName", service_name),
    text("ServiceCategory", |_| say("Compute")),
    text("ServiceSubcategory", |_| say("Virtual Machines")),
    text("ResourceId", |charge| say(&charge.resource)),
    text("ResourceName", |charge| say(&charge.resource)),
    text("ResourceType", |_| say("Instance")),
    text("RegionId", |charge| Value::Text(region_of(&charge.offer.zone))),
    text("AvailabilityZone", |charge| say(&charge.offer.zone)),
    text("SkuId", |charge| say(sku(&charge.offer))),
    text("SkuMeter", |_| say("Compute Usage")),
    text("SkuPriceId", nothing),
    text("CapacityReservationId", |charge| Value::Text(charge.offer.reservation.clone())),
    text("CapacityReservationStatus", |charge| Value::Text(charge.offer.reservation.as_ref().map(|_| "Used".to_owned()))),
    text("CommitmentDiscountId", nothing),
    text("CommitmentDiscountName", nothing),
    text("CommitmentDiscountCategory", nothing),
    text("CommitmentDiscountType", nothing),
    text("CommitmentDiscountStatus", nothing),
    decimal("CommitmentDiscountQuantity", no_quantity),
    text("CommitmentDiscountUnit", nothing),
    text("Tags", tags),
    text("x_Experiment", |charge| say(&charge.payer.experiment)),
    text("x_Team", |charge| Value::Text(charge.payer.team.clone())),
    text("x_Job", |charge| say(charge.payer.job.to_string())),
    text("x_JobUid", |charge| say(&charge.payer.job.uid)),
    Column { name: "x_Attempt", kind: ColumnKind::Integer, nullable: true, of: |charge| Value::Integer(Some(i64::from(charge.payer.attempt))) },
    text("x_Claim", |charge| say(&charge.payer.claim)),
    text("x_CapacityKind", |charge| say(charge.offer.kind.as_str())),
    text("x_InstanceType", |charge| say(&charge.offer.instance_type)),
    time("x_Window", |charge| Value::Time(Some(charge.window))),
    time("x_Corrects", |charge| Value::Time(match charge.class {
        Class::Regular => None,
        Class::Correction { of } => Some(of),
    })),
    Column { name: "x_Estimated", kind: ColumnKind::Flag, nullable: true, of: |charge| Value::Flag(Some(charge.estimated)) },
];

fn pricing_category(charge: &Charge) -> Value {
    match charge.offer.kind {
        CapacityKind::Reserved => say("Committed"),
        CapacityKind::Spot => say("Dynamic"),
        CapacityKind::OnDemand => say("Standard"),
    }
}

fn service_name(charge: &Charge) -> Value {
    match charge.offer.provider {
        Provider::Aws => say("Amazon Elastic Compute Cloud"),
        Provider::Nodes => say("Existing nodes"),
    }
}

/// AWS's usage types without their region prefix.
fn sku(offer: &Offer) -> String {
    let meter = match offer.kind {
        CapacityKind::Reserved => "Reservation",
        CapacityKind::Spot => "SpotUsage",
        CapacityKind::OnDemand => "BoxUsage",
    };
    format!("{meter}:{}", offer.instance_type)
}

/// The tags that the machine carries, as FOCUS wants them: one JSON object.
fn tags(charge: &Charge) -> Value {
    let job = charge.payer.job.to_string();
    let attempt = charge.payer.attempt.to_string();
    let tags = BTreeMap::from([
        ("purser.dev/attempt", attempt.as_str()),
        ("purser.dev/claim", &charge.payer.claim),
        ("purser.dev/job", &job),
        ("purser.dev/job-uid", &charge.payer.job.uid),
    ]);
    Value::Text(serde_json::to_string(&tags).ok())
}

/// `us-east-1` of `us-east-1a`, `us-west-2` of the local zone `us-west-2-lax-1a`; `None` for names that are not AWS's.
fn region_of(zone: &str) -> Option<String> {
    let mut region = Vec::new();
    for part in zone.split('-') {
        let digits = part.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            region.push(digits);
            return (region.len() >= 3).then(|| region.join("-"));
        }
        region.push(part);
    }
    None
}

/// The first moment of the calendar month (UTC): the billing period.
pub fn month_of(at: DateTime<Utc>) -> DateTime<Utc> {
    Utc.with_ymd_and_hms(at.year(), at.month(), 1, 0, 0, 0).single().unwrap_or(at)
}

pub fn next_month(at: DateTime<Utc>) -> DateTime<Utc> {
    // 32 days after the first of any month lie in the next one.
    month_of(month_of(at) + TimeDelta::days(32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_read_from_zones_of_every_make() {
        assert_eq!(region_of("us-east-1a").as_deref(), Some("us-east-1"));
        assert_eq!(region_of("us-gov-west-1b").as_deref(), Some("us-gov-west-1"));
        assert_eq!(region_of("us-west-2-lax-1a").as_deref(), Some("us-west-2"));
        assert_eq!(region_of("rack-7"), None);
        assert_eq!(region_of(""), None);
    }

    #[test]
    fn the_billing_period_is_the_calendar_month() {
        let at = "2026-12-31T23:00:00Z".parse().unwrap();
        assert_eq!(month_of(at).to_rfc3339(), "2026-12-01T00:00:00+00:00");
        assert_eq!(next_month(at).to_rfc3339(), "2027-01-01T00:00:00+00:00");
    }

    #[test]
    fn column_names_are_unique_and_our_own_ones_say_so() {
        let names: std::collections::BTreeSet<&str> = COLUMNS.iter().map(|column| column.name).collect();
        assert_eq!(names.len(), COLUMNS.len());
        assert!(names.iter().all(|name| name.starts_with("x_") || name.starts_with(|letter: char| letter.is_ascii_uppercase())));
    }
}
