//! `CapacityPool`: where machines come from, and what they may be.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::capacity::{InstanceRequirements, PodsPolicy, Provider};
use crate::units::{MoneyPerHour, Span};

/// A pool of capacity: a provider and the machines that may be taken from it.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "purser.dev",
    version = "v1alpha1",
    kind = "CapacityPool",
    status = "CapacityPoolStatus",
    shortname = "cpool",
    category = "purser",
    doc = "A pool of capacity: machines that Purser may buy from EC2, or nodes that exist already.",
    printcolumn(name = "Provider", type_ = "string", json_path = ".spec.provider"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Offers", type_ = "integer", json_path = ".status.offers"),
    printcolumn(name = "Machines", type_ = "integer", json_path = ".status.machines"),
    printcolumn(name = "Prices", type_ = "string", json_path = ".status.priceSource"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.provider == 'aws' ? has(self.aws) && !has(self.nodes) : has(self.nodes) && !has(self.aws)")
        .message("give the section of the provider, and only that: aws for provider aws, nodes for provider nodes"),
    validation = Rule::new("!has(self.pods) || self.provider == 'aws'").message("only a pool of provider aws can buy a fleet for pods"),
    validation = Rule::new("self.provider == oldSelf.provider").message("the provider of a pool cannot change; make another pool")
)]
pub struct CapacityPoolSpec {
    /// `aws`: Purser buys EC2 instances and ends them. `nodes`: Purser uses nodes that exist (managed node groups,
    /// Karpenter) and never ends them.
    pub provider: Provider,
    /// What the pool's machines may be. Default anything.
    #[serde(default)]
    pub requirements: InstanceRequirements,
    /// Bounds over everything that runs from this pool.
    #[serde(default)]
    pub limits: PoolLimits,
    /// Time from asking for a machine to its node being ready, used until it is learnt. Default 3m.
    #[serde(default = "three_minutes")]
    pub boot: Span,
    /// Serves pods that are not of a TrainingJob with a shared fleet, for provider `aws`; `{}` takes every default. Default:
    /// it serves TrainingJobs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodsPolicy>,
    /// For provider `aws`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsPool>,
    /// For provider `nodes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodesPool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PoolLimits {
    /// Machines at once. Default unbounded; 1 to 10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub machines: Option<u32>,
}

/// How EC2 instances are made. Volumes are always encrypted and IMDSv2 is always required.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwsPool {
    /// For example `us-east-1`.
    #[schemars(regex(pattern = r"^[a-z]{2}(-[a-z]+)+-[0-9]$"))]
    pub region: String,
    /// The subnet to use in each availability zone; zones without one are not used. 1 to 20.
    #[schemars(schema_with = "subnets_by_zone")]
    pub subnets: BTreeMap<String, String>,
    /// The machine image, `ami-…`.
    #[schemars(regex(pattern = r"^ami-[0-9a-f]{8,17}$"))]
    pub ami: String,
    /// The instance profile's name. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[A-Za-z0-9+=,.@_-]{1,128}$"))]
    pub instance_profile: Option<String>,
    /// `sg-…`, at most 5. Default the VPC's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), inner(regex(pattern = r"^sg-[0-9a-f]{8,17}$")))]
    pub security_groups: Vec<String>,
    /// KMS key (id, alias/… or ARN) for the root volume. Default EBS's default key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^(arn:[a-z0-9-]+:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/)?[A-Za-z0-9/_-]{1,256}$"))]
    pub kms_key: Option<String>,
    /// Root volume in GiB. Default 100; 8 to 16384.
    #[serde(default = "hundred")]
    #[schemars(range(min = 8, max = 16384))]
    pub volume_gib: u32,
    /// What cloud-init runs so that the machine joins this cluster. It must register the node with the taint
    /// `purser.dev/unclaimed:NoExecute`. At most 16 KiB. Default none (the image knows).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub user_data: Option<String>,
    /// The SQS queue (its name, not a URL) which EventBridge feeds with spot interruption warnings, rebalance
    /// recommendations and state changes. Without one interruptions come as a surprise. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[A-Za-z0-9_-]{1,80}$"))]
    pub interruption_queue: Option<String>,
    /// More tags for instances and volumes. At most 30; `purser.dev/…` is Purser's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 30))]
    #[x_kube(validation = Rule::new("self.all(key, !key.startsWith('purser.dev/') && !key.startsWith('aws:'))").message("no tag may begin with purser.dev/ or aws:"))]
    pub tags: BTreeMap<String, String>,
}

/// Which existing nodes belong to the pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodesPool {
    /// Labels that a node must carry, all of them. No node may belong to two pools.
    #[x_kube(validation = Rule::new("size(self) >= 1").message("a pool of nodes needs at least one label to select them by"))]
    pub match_labels: BTreeMap<String, String>,
    /// What one node costs an hour, for example `"3.06"`. Default: the catalogue's price for the node's instance type,
    /// region and `karpenter.sh/capacity-type`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.startsWith('-')").message("a price is not negative"))]
    pub price_per_hour: Option<MoneyPerHour>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CapacityPoolStatus {
    /// Offers that fit the pool right now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offers: Option<u32>,
    /// Machines that run from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machines: Option<u32>,
    /// `live`, `catalogue 2025-05-28` or `pool`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_source: Option<String>,
    /// Things to know about prices and bounds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Said by the schema alone: a CEL rule over a map costs the API server more than it allows.
fn subnets_by_zone(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 20,
        "additionalProperties": {"type": "string", "maxLength": 24, "pattern": r"^subnet-[0-9a-f]{8,17}$"}
    })
}

fn three_minutes() -> Span {
    Span::minutes(3)
}

fn hundred() -> u32 {
    100
}
