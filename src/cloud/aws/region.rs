//! One region: its clients, and what was learnt there lately.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use aws_config::{Region, SdkConfig};
use chrono::{DateTime, TimeDelta, Utc};

use super::MarketClock;
use super::cached::{Cached, Lifetime};
use super::failure::Optional;
use super::limits::{Quota, VcpusInUse};
use super::machines::{Machine, Offerings};
use super::prices::{OnDemandPrices, SpotPrices};
use super::reservations::Reservation;

const DAY: Lifetime = Lifetime::real(Duration::from_secs(24 * 3600));
/// List prices change a few times a year; an hour is prompt.
const HOUR: Lifetime = Lifetime::real(Duration::from_secs(3600));
const FIVE_MINUTES: Lifetime = Lifetime::real(Duration::from_secs(300));
const TEN_SECONDS: Lifetime = Lifetime::real(Duration::from_secs(10));
/// Whichever is over first: against a fast market clock the first, against AWS the second.
const SPOT: Lifetime = Lifetime { real: Duration::from_secs(10), market: Some(TimeDelta::minutes(5)) };

/// The pricing service answers for all regions, but in few places only.
const PRICING_REGION: &str = "us-east-1";

pub(super) struct AwsRegion {
    pub name: String,
    clock: MarketClock,
    pub ec2: aws_sdk_ec2::Client,
    pub sqs: aws_sdk_sqs::Client,
    pub s3: aws_sdk_s3::Client,
    pub quotas: aws_sdk_servicequotas::Client,
    pub pricing: aws_sdk_pricing::Client,
    pub known: Known,
}

/// What was learnt, each kind for as long as it tends to hold.
pub(super) struct Known {
    pub machines: Cached<(), Arc<BTreeMap<String, Machine>>>,
    /// Unknown where the call is refused.
    pub offerings: Cached<(), Optional<Arc<Offerings>>>,
    pub spot_prices: Cached<Vec<String>, Arc<SpotPrices>>,
    pub on_demand_prices: Cached<(), Optional<Arc<OnDemandPrices>>>,
    pub quotas: Cached<(), Optional<Arc<Vec<Quota>>>>,
    pub vcpus_in_use: Cached<(), Optional<Arc<VcpusInUse>>>,
    /// Free addresses by subnet.
    pub addresses: Cached<Vec<String>, Optional<Arc<HashMap<String, u32>>>>,
    pub reservations: Cached<(), Optional<Arc<Vec<Reservation>>>>,
    /// Launch templates that exist, by name.
    pub templates: Cached<String, ()>,
    /// Queue URLs by name.
    pub queues: Cached<String, String>,
}

impl AwsRegion {
    pub fn new(name: &str, base: &SdkConfig, clock: MarketClock) -> AwsRegion {
        let config = base.to_builder().region(Region::new(name.to_owned())).build();
        let pricing = base.to_builder().region(Region::from_static(PRICING_REGION)).build();
        // Virtual-host addressing needs DNS under the endpoint's name, which only AWS's own endpoints have.
        let s3 = aws_sdk_s3::config::Builder::from(&config).force_path_style(config.endpoint_url().is_some()).build();
        AwsRegion {
            name: name.to_owned(),
            ec2: aws_sdk_ec2::Client::new(&config),
            sqs: aws_sdk_sqs::Client::new(&config),
            s3: aws_sdk_s3::Client::from_conf(s3),
            quotas: aws_sdk_servicequotas::Client::new(&config),
            pricing: aws_sdk_pricing::Client::new(&pricing),
            known: Known {
                machines: Cached::new(&clock, DAY),
                offerings: Cached::new(&clock, DAY),
                spot_prices: Cached::new(&clock, SPOT),
                on_demand_prices: Cached::new(&clock, HOUR),
                quotas: Cached::new(&clock, FIVE_MINUTES),
                vcpus_in_use: Cached::new(&clock, TEN_SECONDS),
                addresses: Cached::new(&clock, TEN_SECONDS),
                reservations: Cached::new(&clock, TEN_SECONDS),
                templates: Cached::new(&clock, HOUR),
                queues: Cached::new(&clock, HOUR),
            },
            clock,
        }
    }

    pub fn market_now(&self) -> DateTime<Utc> {
        (self.clock)()
    }

    /// Called after each launch and release: how much is left has changed.
    pub fn forget_what_is_left(&self) {
        self.known.vcpus_in_use.forget();
        self.known.addresses.forget();
        self.known.reservations.forget();
    }
}

/// AWS's time as ours; absent where AWS left it out or it is no time.
pub(super) fn time_of(time: Option<&aws_smithy_types::DateTime>) -> Option<DateTime<Utc>> {
    time.and_then(|time| DateTime::from_timestamp(time.secs(), time.subsec_nanos()))
}

pub(super) fn aws_time(time: DateTime<Utc>) -> aws_smithy_types::DateTime {
    aws_smithy_types::DateTime::from_secs_and_nanos(time.timestamp(), time.timestamp_subsec_nanos())
}
