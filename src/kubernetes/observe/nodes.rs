//! Nodes → [`NodeView`], and the offers that pools of existing nodes make. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Taint};
use kube::ResourceExt;

use super::pods;
use super::quantity::Amount;
use crate::api::labels;
use crate::api::pool::{CapacityPoolSpec, NodesPool};
use crate::capacity::catalogue;
use crate::capacity::offer::QuotedOffer;
use crate::capacity::{CapacityKind, InstanceType, Offer, PriceSource, Provider};
use crate::cloud::Quote;
use crate::scheduling::packing;
use crate::scheduling::snapshot::{NodeRoom, NodeView};
use crate::units::MoneyPerHour;

pub const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";
pub const ZONE: &str = "topology.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";
const ARCHITECTURE: &str = "kubernetes.io/arch";
const GPU_RESOURCE: &str = "nvidia.com/gpu";
/// Set by the NVIDIA GPU operator's feature discovery.
const GPU_NAME: &str = "nvidia.com/gpu.product";

/// `pool_of` names the pool whose selector the node matches.
pub fn view(node: &Node, pool_of: impl Fn(&Node) -> Option<String>) -> NodeView {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let tainted = |key: &str| taints.into_iter().flatten().any(|taint| taint.key == key);
    let ready = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    NodeView {
        name: node.name_any(),
        provider_id: node.spec.as_ref().and_then(|spec| spec.provider_id.clone()),
        ready: ready.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        schedulable: !node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false) && node.metadata.deletion_timestamp.is_none(),
        unclaimed_taint: tainted(labels::UNCLAIMED_TAINT),
        leaving_taint: tainted(labels::LEAVING_TAINT),
        claim: node.labels().get(labels::CLAIM).cloned(),
        labels: node.labels().clone(),
        pool: pool_of(node),
        room: room(node),
    }
}

pub fn is_selected(node: &Node, pool: &NodesPool) -> bool {
    pool.match_labels.iter().all(|(key, value)| node.labels().get(key) == Some(value))
}

/// Two pools that select one node, by pool name: each with the other's name and the node's.
pub fn claimed_twice(pools: &BTreeMap<&str, &NodesPool>, nodes: &[Node]) -> BTreeMap<String, String> {
    let mut conflicts = BTreeMap::new();
    for node in nodes {
        let owners: Vec<&str> = pools.iter().filter(|(_, pool)| is_selected(node, pool)).map(|(name, _)| *name).collect();
        if let [first, second, ..] = owners[..] {
            for (name, other) in [(first, second), (second, first)] {
                conflicts.entry(name.to_owned()).or_insert_with(|| {
                    format!("node {} is selected by this pool and by pool {other}; narrow nodes.matchLabels of one of them", node.name_any())
                });
            }
        }
    }
    conflicts
}

/// One offer for each (type, zone, kind) among the pool's nodes.
pub fn quote(spec: &CapacityPoolSpec, pool: &NodesPool, nodes: &[Node]) -> Quote {
    let mut offers: BTreeMap<(String, String, CapacityKind), QuotedOffer> = BTreeMap::new();
    let mut warnings = Vec::new();
    let mut as_of = None;
    for node in nodes.iter().filter(|node| is_selected(node, pool)) {
        let machine = machine(node);
        let (zone, kind) = (label(node, ZONE), CapacityKind::of_node(node.labels()));
        if !spec.requirements.admits(&machine) || !spec.requirements.admits_zone(&zone) {
            continue;
        }
        let Some(price) = price(pool, node, &machine.name, kind, &mut as_of) else {
            warnings.push(format!("no price is known for node {} ({} {kind}); set nodes.pricePerHour in the pool", node.name_any(), machine.name));
            continue;
        };
        let free = u32::from(!node.labels().contains_key(labels::CLAIM));
        let offer = Offer { provider: Provider::Nodes, instance_type: machine.name.clone(), zone: zone.clone(), kind, price, reservation: None };
        let quoted = QuotedOffer { offer, machine, available_max: Some((0, "nodes of the pool that are free".to_owned())) };
        let entry = offers.entry((quoted.offer.instance_type.clone(), zone, kind)).or_insert(quoted);
        if let Some((count, _)) = &mut entry.available_max {
            *count += free;
        }
    }
    warnings.dedup();
    let source = match (pool.price_per_hour, as_of) {
        (None, Some(as_of)) => PriceSource::Catalogue { as_of },
        (Some(_), _) | (None, None) => PriceSource::Pool,
    };
    Quote { offers: offers.into_values().collect(), source, warnings }
}

fn price(pool: &NodesPool, node: &Node, instance_type: &str, kind: CapacityKind, as_of: &mut Option<String>) -> Option<MoneyPerHour> {
    if let Some(price) = pool.price_per_hour {
        return Some(price);
    }
    let entry = catalogue::lookup(&label(node, REGION), instance_type)?;
    *as_of = Some(entry.as_of.to_string());
    match kind {
        CapacityKind::Spot => entry.spot_average,
        CapacityKind::OnDemand | CapacityKind::Reserved => Some(entry.on_demand),
    }
}

/// What the catalogue says of the type, else what the node says of itself.
fn machine(node: &Node) -> InstanceType {
    let (region, name) = (label(node, REGION), label(node, INSTANCE_TYPE));
    if let Some(entry) = catalogue::lookup(&region, &name) {
        return entry.machine.clone();
    }
    let capacity = node.status.as_ref().and_then(|status| status.capacity.clone()).unwrap_or_default();
    let count = |resource: &str| capacity.get(resource).and_then(Amount::of).map(Amount::down).unwrap_or_default();
    InstanceType {
        name,
        vcpu: u32::try_from(count("cpu")).unwrap_or(u32::MAX),
        memory_mib: count("memory") / (1024 * 1024),
        gpus: u32::try_from(count(GPU_RESOURCE)).unwrap_or(u32::MAX),
        gpu_name: node.labels().get(GPU_NAME).cloned(),
        architecture: label(node, ARCHITECTURE),
        pods: u32::try_from(count("pods")).unwrap_or(u32::MAX),
    }
}

fn label(node: &Node, key: &str) -> String {
    node.labels().get(key).cloned().unwrap_or_default()
}

/// What it has for pods, and who is kept away besides.
fn room(node: &Node) -> Option<NodeRoom> {
    let (allocatable, pods_max) = pods::allocatable(node.status.as_ref()?.allocatable.as_ref()?);
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let keeps_away = |taint: &&Taint| taint.effect != "PreferNoSchedule" && !taint.key.starts_with("purser.dev/");
    let taint = |taint: &Taint| packing::Taint { key: taint.key.clone(), value: taint.value.clone().unwrap_or_default(), effect: taint.effect.clone() };
    Some(NodeRoom { allocatable, pods_max, taints: taints.into_iter().flatten().filter(keeps_away).map(taint).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, extra: serde_json::Value) -> Node {
        let mut labels = json!({"team": "ml", "node.kubernetes.io/instance-type": "g5.xlarge", "topology.kubernetes.io/zone": "us-east-1a",
            "topology.kubernetes.io/region": "us-east-1"});
        labels.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap()
    }

    fn pool(labels: serde_json::Value) -> NodesPool {
        serde_json::from_value(json!({"matchLabels": labels})).unwrap()
    }

    fn spec(pool: &NodesPool) -> CapacityPoolSpec {
        serde_json::from_value(json!({"provider": "nodes", "nodes": pool})).unwrap()
    }

    #[test]
    fn nodes_of_karpenter_are_offered_as_what_they_are() {
        let pool = pool(json!({"team": "ml"}));
        let nodes = [
            node("a", json!({"karpenter.sh/capacity-type": "spot"})),
            node("b", json!({"karpenter.sh/capacity-type": "spot", "purser.dev/claim": "claim-1"})),
            node("c", json!({"eks.amazonaws.com/capacityType": "ON_DEMAND"})),
            node("d", json!({"team": "web"})),
        ];
        let quote = quote(&spec(&pool), &pool, &nodes);
        let seen: Vec<(CapacityKind, u32)> =
            quote.offers.iter().map(|one| (one.offer.kind, one.available_max.as_ref().unwrap().0)).collect();
        assert_eq!(seen, [(CapacityKind::Spot, 1), (CapacityKind::OnDemand, 1)]);
        assert!(quote.offers[0].offer.price < quote.offers[1].offer.price, "the catalogue knows g5.xlarge");
        assert!(matches!(quote.source, PriceSource::Catalogue { .. }));
    }

    #[test]
    fn a_node_without_a_price_is_named_instead_of_being_free() {
        let pool = pool(json!({"team": "ml"}));
        let quote = quote(&spec(&pool), &pool, &[node("a", json!({"node.kubernetes.io/instance-type": "home-made"}))]);
        assert!(quote.offers.is_empty());
        assert!(quote.warnings[0].contains("pricePerHour"));
    }

    #[test]
    fn two_pools_that_select_one_node_are_both_told_so() {
        let (first, second) = (pool(json!({"team": "ml"})), pool(json!({"topology.kubernetes.io/zone": "us-east-1a"})));
        let conflicts = claimed_twice(&[("first", &first), ("second", &second)].into(), &[node("a", json!({}))]);
        assert!(conflicts["first"].contains("second") && conflicts["second"].contains("first"));
    }
}
