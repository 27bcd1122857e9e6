//! The clouds, in our own words. [`Cloud`] has eight verbs; typed errors decide how to go on.
//!
//! `aws/` speaks to EC2 through the SDK (feature `aws`; no SDK type leaves that folder). Existing nodes need no cloud: see
//! the `nodes` provider in `crate::kubernetes::observe`.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::capacity::offer::QuotedOffer;
use crate::capacity::{InstanceRequirements, NoticeKind, Offer, PriceSegment, PriceSource, Refusal};
use crate::scheduling::snapshot::CloudInstance;

#[cfg(feature = "aws")]
pub mod aws;
pub mod pool_check;

/// What a pool says about how its machines are made; checked once at the edge, used as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolConfig {
    pub pool: String,
    /// This installation's id, the value of the tag `purser.dev/cluster`.
    pub cluster_id: String,
    pub region: String,
    pub requirements: InstanceRequirements,
    /// Subnet by zone name.
    pub subnets: BTreeMap<String, String>,
    pub ami: String,
    pub instance_profile: Option<String>,
    pub security_groups: Vec<String>,
    /// Customer-managed key for the root volume; EBS's default key where absent. Volumes are always encrypted.
    pub kms_key: Option<String>,
    pub volume_gib: u32,
    pub user_data: Option<String>,
    /// Name (never a URL) of the queue that EventBridge rules feed with interruption, rebalance and state-change events.
    pub interruption_queue: Option<String>,
    pub tags: BTreeMap<String, String>,
}

/// Everything a launch needs, stored in the claim as JSON before the cloud is asked; the same bytes are sent again after a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaunchRequest {
    pub config: PoolConfig,
    pub offer: Offer,
    pub count: u32,
    /// Also a tag, with job and attempt, so that claims can be rebuilt.
    pub claim: String,
    pub job: crate::training::JobRef,
    pub attempt: u32,
}

/// What the cloud gave: possibly fewer than asked (the caller gives partial gangs back), with why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchAnswer {
    pub instances: Vec<LaunchedInstance>,
    pub refusal: Option<Refusal>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchedInstance {
    pub id: String,
    pub launched_at: DateTime<Utc>,
}

/// What the market offers a pool right now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    pub offers: Vec<QuotedOffer>,
    pub source: PriceSource,
    /// Things a person should know, for example "p5 prices outside us-east-1 predate the cut of 2025-06".
    pub warnings: Vec<String>,
}

/// A message about one machine, from the queue. Acknowledge only after what it says is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudEvent {
    pub instance: String,
    /// When it happened, as EventBridge says (`time`).
    pub at: DateTime<Utc>,
    pub what: CloudEventKind,
    /// Opaque receipt for [`Cloud::acknowledge`].
    pub receipt: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloudEventKind {
    Notice(NoticeKind),
    Running,
    ShuttingDown,
    Terminated,
    /// Not about us or not understood: acknowledge and forget.
    Other,
}

/// How the caller should go on after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The answer is unknown: repeat the same request with the same token.
    Same,
    /// Throttled or down: the same, after a pause.
    AfterBackoff,
    /// A person must act (credentials, permissions, wrong region).
    Never,
}

#[derive(Debug, thiserror::Error)]
#[error("could not {doing}: {message}")]
pub struct CloudError {
    /// What was being attempted, for example `describe spot prices in us-east-1`.
    pub doing: String,
    /// The cloud's code and message.
    pub message: String,
    pub retry: Retry,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A region of a cloud, seen from one pool's configuration.
#[async_trait]
pub trait Cloud: Send + Sync {
    /// Instance types that the pool admits, priced by kind and zone, bounded by quotas, reservations and subnets.
    async fn quote(&self, pool: &PoolConfig) -> Result<Quote, CloudError>;
    /// Asks for all machines of a claim. A refusal is an answer, not an error; after an error nobody knows, and the same
    /// request with the same token finds out.
    async fn launch(&self, request: &LaunchRequest, client_token: &str) -> Result<LaunchAnswer, CloudError>;
    /// Ends machines; those that are gone already are no error.
    async fn terminate(&self, region: &str, instances: &[String]) -> Result<(), CloudError>;
    /// Every machine that carries this installation's tag, with ended ones as long as the cloud lists them.
    async fn instances(&self, region: &str, cluster_id: &str) -> Result<Vec<CloudInstance>, CloudError>;
    /// What one machine of the offer cost over time: the segment in force at `from` and all that begin before `to`.
    async fn price_history(&self, region: &str, offer: &Offer, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Vec<PriceSegment>, CloudError>;
    /// Waits up to `wait_seconds` for messages of a queue, named without its URL (names come from custom resources).
    async fn events(&self, region: &str, queue: &str, wait_seconds: u32) -> Result<Vec<CloudEvent>, CloudError>;
    async fn acknowledge(&self, region: &str, queue: &str, receipts: &[String]) -> Result<(), CloudError>;
}
