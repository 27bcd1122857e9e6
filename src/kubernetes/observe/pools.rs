//! CapacityPools → [`PoolView`]: their configuration checked, their offers quoted.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::core::DeserializeGuard;

use super::nodes;
use crate::api::pool::{AwsPool, CapacityPoolSpec, NodesPool};
use crate::api::{CapacityPool, ConditionReason};
use crate::capacity::{InstanceRequirements, PodsPolicy, PriceSource, Provider};
use crate::cloud::{Cloud, PoolConfig, Quote};
use crate::scheduling::snapshot::PoolView;
use crate::units::Span;

/// A pool as the planner sees it, with what its status tells people besides.
#[derive(Clone, Debug)]
pub struct SeenPool {
    pub view: PoolView,
    pub warnings: Vec<String>,
    /// For provider `aws`.
    pub config: Option<PoolConfig>,
}

type State = Result<(), (String, String)>;

/// What quoting needs.
pub struct Quoter<'a> {
    pub cloud: Option<&'a Arc<dyn Cloud>>,
    pub cluster_id: &'a str,
    pub nodes: &'a [Node],
}

impl Quoter<'_> {
    /// All pools at once: one region that answers slowly does not hold up the others.
    pub async fn views(&self, pools: &[Arc<DeserializeGuard<CapacityPool>>]) -> Vec<SeenPool> {
        let twice = nodes::claimed_twice(&nodes_pools(pools), self.nodes);
        join_all(pools.iter().map(|pool| self.view(pool, &twice))).await
    }

    async fn view(&self, pool: &DeserializeGuard<CapacityPool>, twice: &BTreeMap<String, String>) -> SeenPool {
        match &pool.0 {
            Err(invalid) => unreadable(invalid.metadata.name.clone().unwrap_or_default(), &invalid.error),
            Ok(pool) => {
                let name = pool.name_any();
                match twice.get(&name) {
                    Some(conflict) => seen(&name, &pool.spec, refuse(ConditionReason::NodesClaimedTwice, conflict), None),
                    None => self.quoted(&name, &pool.spec).await,
                }
            }
        }
    }

    async fn quoted(&self, name: &str, spec: &CapacityPoolSpec) -> SeenPool {
        if let Some(Err(why)) = spec.pods.as_ref().map(PodsPolicy::validate) {
            return seen(name, spec, refuse(ConditionReason::InvalidSpec, why), None);
        }
        match (spec.provider, &spec.aws, &spec.nodes) {
            (Provider::Nodes, _, Some(pool)) => with_quote(seen(name, spec, Ok(()), None), nodes::quote(spec, pool, self.nodes)),
            (Provider::Aws, Some(aws), _) => self.quoted_by_cloud(name, spec, aws).await,
            (Provider::Nodes | Provider::Aws, _, _) => {
                let why = format!("the section {:?} of the provider is missing", spec.provider);
                seen(name, spec, refuse(ConditionReason::InvalidSpec, why), None)
            }
        }
    }

    async fn quoted_by_cloud(&self, name: &str, spec: &CapacityPoolSpec, aws: &AwsPool) -> SeenPool {
        let config = config(name, self.cluster_id, &spec.requirements, aws);
        if let Err(why) = config.validate() {
            return seen(name, spec, refuse(ConditionReason::InvalidSpec, why), None);
        }
        let Some(cloud) = self.cloud else {
            let why = "this purser was built without AWS; build it with the feature aws";
            return seen(name, spec, refuse(ConditionReason::CloudUnreachable, why), Some(config));
        };
        match cloud.quote(&config).await {
            Ok(quote) => with_quote(seen(name, spec, Ok(()), Some(config)), quote),
            Err(error) => seen(name, spec, refuse(ConditionReason::CloudUnreachable, error), Some(config)),
        }
    }
}

/// The pools of existing nodes, by name.
pub fn nodes_pools(pools: &[Arc<DeserializeGuard<CapacityPool>>]) -> BTreeMap<&str, &NodesPool> {
    let valid = pools.iter().filter_map(|pool| pool.0.as_ref().ok());
    valid.filter_map(|pool| Some((pool.metadata.name.as_deref()?, pool.spec.nodes.as_ref()?))).collect()
}

/// The pool's word to the cloud.
pub fn config(pool: &str, cluster_id: &str, requirements: &InstanceRequirements, aws: &AwsPool) -> PoolConfig {
    // A new field must not be forgotten here.
    let AwsPool { region, subnets, ami, instance_profile, security_groups, kms_key, volume_gib, user_data, interruption_queue, tags } = aws.clone();
    PoolConfig {
        pool: pool.to_owned(),
        cluster_id: cluster_id.to_owned(),
        region,
        requirements: requirements.clone(),
        subnets,
        ami,
        instance_profile,
        security_groups,
        kms_key,
        volume_gib,
        user_data,
        interruption_queue,
        tags,
    }
}

fn seen(name: &str, spec: &CapacityPoolSpec, state: State, config: Option<PoolConfig>) -> SeenPool {
    let view = PoolView {
        name: name.to_owned(),
        provider: spec.provider,
        requirements: spec.requirements.clone(),
        state,
        offers: Vec::new(),
        price_source: PriceSource::Pool,
        boot: spec.boot,
        machines_max: spec.limits.machines,
        pods: spec.pods.clone(),
        request_template: config.as_ref().and_then(|config| serde_json::to_string(config).ok()).unwrap_or_default(),
    };
    SeenPool { view, warnings: Vec::new(), config }
}

fn with_quote(seen: SeenPool, quote: Quote) -> SeenPool {
    let Quote { offers, source, warnings } = quote;
    SeenPool { view: PoolView { offers, price_source: source, ..seen.view }, warnings, ..seen }
}

/// A stored pool that does not parse: there, but of no use until somebody mends it.
fn unreadable(name: String, error: &str) -> SeenPool {
    let view = PoolView {
        name,
        provider: Provider::Nodes,
        requirements: InstanceRequirements::default(),
        state: refuse(ConditionReason::InvalidSpec, error),
        offers: Vec::new(),
        price_source: PriceSource::Pool,
        boot: Span::default(),
        machines_max: Some(0),
        pods: None,
        request_template: String::new(),
    };
    SeenPool { view, warnings: Vec::new(), config: None }
}

fn refuse(reason: ConditionReason, why: impl std::fmt::Display) -> State {
    Err((reason.to_string(), why.to_string()))
}
