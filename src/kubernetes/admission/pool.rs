//! Whether a CapacityPool is usable: its AWS section has the right shapes, its nodes belong to no other pool.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;

use super::super::observe::{nodes, pools};
use super::Checks;
use super::review::{Denial, Verdict, unsure};
use crate::api::CapacityPool;
use crate::api::pool::NodesPool;

pub async fn judge(checks: &Checks, pool: &CapacityPool) -> Verdict {
    if let Some(pods) = &pool.spec.pods {
        pods.validate().map_err(|why| Denial::new(why, "kubectl explain capacitypool.spec.pods shows each field"))?;
    }
    if let Some(aws) = &pool.spec.aws {
        let config = pools::config(&pool.name_any(), &checks.cluster_id, &pool.spec.requirements, aws);
        config.validate().map_err(|why| Denial::new(why, "kubectl explain capacitypool.spec.aws shows each field"))?;
    }
    match &pool.spec.nodes {
        Some(selector) => overlap(checks, &pool.name_any(), selector).await,
        None => Ok(Vec::new()),
    }
}

/// Only nodes that exist can be compared; of those that come later the pools' conditions tell.
async fn overlap(checks: &Checks, name: &str, selector: &NodesPool) -> Verdict {
    let others = match Api::<DeserializeGuard<CapacityPool>>::all(checks.client.clone()).list(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(error) => return unsure("spec.nodes.matchLabels", &error),
    };
    let nodes = match Api::<Node>::all(checks.client.clone()).list(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(error) => return unsure("spec.nodes.matchLabels", &error),
    };
    let others = others.iter().filter_map(|other| other.0.as_ref().ok());
    let others: BTreeMap<&str, &NodesPool> = others.filter_map(|other| Some((other.metadata.name.as_deref()?, other.spec.nodes.as_ref()?))).collect();
    let all: BTreeMap<&str, &NodesPool> = others.into_iter().chain([(name, selector)]).collect();
    match nodes::claimed_twice(&all, &nodes).remove(name) {
        Some(conflict) => Err(Denial::new(conflict, "a node belongs to one pool at most")),
        None => Ok(Vec::new()),
    }
}
