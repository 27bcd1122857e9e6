//! EC2, SQS, pricing, quotas and S3 through the AWS SDK. No SDK type leaves this folder.
//!
//! ```text
//!  quote ──► machines (what there is) · prices (what it costs) · reservations · limits (how many) ──► quote.rs (pure)
//!  launch ─► fleet (CreateFleet, all or nothing) ─► launch_template (encrypted volumes, IMDSv2)
//!  instances, events ─► what became of the machines
//! ```
//! Everything learnt is kept for a while (see [`region`]), so that a quote every few seconds costs a few calls a minute.
//! One code path serves production, the demo and the tests: credentials and endpoints come from the usual AWS environment,
//! the global `AWS_ENDPOINT_URL` among it. What a role may not read (quotas, price lists, reservations) is unknown, never
//! an error: it ends as a warning in the quote.

mod cached;
mod failure;
mod fleet;
mod instances;
mod interruptions;
mod launch_template;
mod limits;
mod machines;
mod prices;
mod quote;
mod region;
mod reservations;
mod storage;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use chrono::{DateTime, Utc};
use tokio::sync::{Mutex, OnceCell};

pub use self::storage::{Storage, StorageError};

use self::region::AwsRegion;
use super::{Cloud, CloudError, CloudEvent, LaunchAnswer, LaunchRequest, PoolConfig, Quote, Retry, pool_check};
use crate::capacity::{Offer, PriceSegment};
use crate::scheduling::snapshot::CloudInstance;

/// Tells market time.
pub type MarketClock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// How long one try of a call may take; EC2's slowest answers (large fleets) come within half a minute.
const ATTEMPT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(45);
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// AWS, with one set of clients and one memory per region.
pub struct Aws {
    clock: MarketClock,
    config: OnceCell<SdkConfig>,
    regions: Mutex<HashMap<String, Arc<AwsRegion>>>,
}

impl Aws {
    /// Asks nothing yet: credentials and endpoint are read with the first call.
    pub fn new(clock: MarketClock) -> Aws {
        Aws { clock, config: OnceCell::new(), regions: Mutex::default() }
    }

    /// Objects in S3, seen from a region.
    pub async fn storage(&self, region: &str) -> Result<Storage, CloudError> {
        Ok(Storage::new(self.region(region).await?.s3.clone()))
    }

    async fn region(&self, name: &str) -> Result<Arc<AwsRegion>, CloudError> {
        if !pool_check::is_region(name) {
            return Err(CloudError { doing: "choose the region".into(), message: format!("{name:?} is not a region such as us-east-1"), retry: Retry::Never, source: None });
        }
        let config = self.config.get_or_init(load_config).await;
        let mut regions = self.regions.lock().await;
        let region = regions.entry(name.to_owned()).or_insert_with(|| Arc::new(AwsRegion::new(name, config, self.clock.clone())));
        Ok(Arc::clone(region))
    }
}

async fn load_config() -> SdkConfig {
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(ATTEMPT_TIMEOUT).build();
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("us-east-1"))
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(3))
        .load()
        .await
}

#[async_trait]
impl Cloud for Aws {
    async fn quote(&self, pool: &PoolConfig) -> Result<Quote, CloudError> {
        checked(pool, "quote the pool")?;
        self.region(&pool.region).await?.quote(pool).await
    }

    async fn launch(&self, request: &LaunchRequest, client_token: &str) -> Result<LaunchAnswer, CloudError> {
        checked(&request.config, "launch")?;
        self.region(&request.config.region).await?.launch(request, client_token).await
    }

    async fn terminate(&self, region: &str, instances: &[String]) -> Result<(), CloudError> {
        self.region(region).await?.terminate(instances).await
    }

    async fn instances(&self, region: &str, cluster_id: &str) -> Result<Vec<CloudInstance>, CloudError> {
        self.region(region).await?.instances(cluster_id).await
    }

    async fn price_history(&self, region: &str, offer: &Offer, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Vec<PriceSegment>, CloudError> {
        self.region(region).await?.price_history(offer, from, to).await
    }

    async fn events(&self, region: &str, queue: &str, wait_seconds: u32) -> Result<Vec<CloudEvent>, CloudError> {
        self.region(region).await?.events(queue, wait_seconds).await
    }

    async fn acknowledge(&self, region: &str, queue: &str, receipts: &[String]) -> Result<(), CloudError> {
        self.region(region).await?.acknowledge(queue, receipts).await
    }
}

/// The last gate before the cloud, whatever was checked before: a stored claim may be older than a rule.
fn checked(pool: &PoolConfig, doing: &str) -> Result<(), CloudError> {
    pool.validate().map_err(|message| CloudError { doing: format!("{doing} {:?}", pool.pool), message, retry: Retry::Never, source: None })
}
