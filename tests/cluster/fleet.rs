//! A fleet for pods on the real API server and scheduler: bought once, every pod where it was planned, given back, paid.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use purser::api::CapacityClaim;
use serde_json::{Value, json};

use crate::end_to_end::{assert_books_agree, aws_pool};
use crate::harness::{NAMESPACE, Setup, World};
use crate::operator::with_installed_rights;

const POOL: &str = "general";
const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];

/// A price list of a few types in three zones, in the shape that Karpenter's kwok provider reads.
fn catalogue(folder: &std::path::Path) -> String {
    let offering = |price: f64| {
        json!({"Price": price, "Available": true, "Requirements": [
            {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
            {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ZONES}]})
    };
    let listed = |(name, cpu, memory, gpus, price): (&str, &str, &str, u32, f64)| {
        let mut resources = json!({"cpu": cpu, "memory": memory, "pods": "29"});
        if gpus > 0 {
            resources["nvidia.com/gpu"] = json!(gpus.to_string());
        }
        json!({"name": name, "architecture": "amd64", "operatingSystems": ["linux"], "resources": resources, "offerings": [offering(price)]})
    };
    let types = [
        ("m7i.large", "2030m", "6903Mi", 0, 0.1008),
        ("m7i.xlarge", "4020m", "14162Mi", 0, 0.2016),
        ("c7i.2xlarge", "8010m", "14162Mi", 0, 0.357),
        ("r7i.xlarge", "4020m", "29317Mi", 0, 0.2646),
        ("g5.xlarge", "4020m", "14162Mi", 1, 1.006),
    ];
    let path = folder.join("catalogue.json");
    let text = Value::Array(types.map(listed).to_vec()).to_string();
    std::fs::write(&path, text).expect("a catalogue is written");
    format!("catalogue:{}", path.display())
}

fn deployment(name: &str, replicas: u32, cpu: &str, memory: &str, more: Value) -> Value {
    let labels = json!({"app": name, "purser.dev/pool": POOL});
    let mut spec = json!({"containers": [{"name": "main", "image": "app:1", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]});
    for (key, value) in more.as_object().expect("fields of a pod") {
        spec[key] = value.clone();
    }
    if let Some(extended) = more.get("extended") {
        spec.as_object_mut().expect("a pod").remove("extended");
        spec["containers"][0]["resources"] = json!({"requests": {"cpu": cpu, "memory": memory, "nvidia.com/gpu": extended}, "limits": {"nvidia.com/gpu": extended}});
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": labels}, "spec": spec}}})
}

/// Sixty pods of six kinds.
fn workloads() -> Vec<Value> {
    let spread = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]});
    let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "db"}}}]}}});
    let in_zone = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["us-east-1b"]}]}]}}}});
    vec![
        deployment("web", 20, "400m", "700Mi", spread),
        deployment("db", 4, "900m", "5Gi", apart),
        deployment("api", 16, "250m", "256Mi", json!({})),
        deployment("train", 3, "2", "8Gi", json!({"extended": "1"})),
        deployment("batch", 12, "1500m", "2Gi", json!({"nodeSelector": {"kubernetes.io/arch": "amd64"}})),
        deployment("near", 5, "600m", "1Gi", in_zone),
    ]
}

const PODS: usize = 60;

async fn start(folder: &std::path::Path) -> World {
    World::start(Setup { market: catalogue(folder), speed: 600.0, ..Setup::default() }).await
}

async fn apply_all(world: &World) {
    let mut pool = aws_pool(POOL, &[]);
    pool["spec"]["pods"] = json!({});
    world.apply(&pool).await;
    for object in workloads() {
        world.apply(&object).await;
    }
}

pub async fn pods(world: &World) -> Option<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(world.client.clone(), NAMESPACE);
    Some(api.list(&ListParams::default()).await.ok()?.items)
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

async fn all_run(world: &World, seconds: u64) -> Vec<Pod> {
    world
        .wait("every pod to run", seconds, async |world| {
            let pods = pods(world).await?;
            (pods.len() == PODS && pods.iter().all(is_running)).then_some(pods)
        })
        .await
}

pub async fn claims(world: &World) -> Vec<CapacityClaim> {
    let api: Api<CapacityClaim> = Api::all(world.client.clone());
    api.list(&ListParams::default()).await.expect("the claims").items
}

/// Every pod is on the node that was bought for it, and there is no other node.
pub async fn assert_as_planned(world: &World, pods: &[Pod]) {
    let by_uid: BTreeMap<String, &Pod> = pods.iter().filter_map(|pod| Some((pod.uid()?, pod))).collect();
    let mut planned = BTreeSet::new();
    let claims = claims(world).await;
    for claim in &claims {
        let record = &claim.spec.record;
        let machines = claim.status.as_ref().map(|status| status.instances.clone()).unwrap_or_default();
        assert_eq!(record.slots.len(), machines.len(), "{record:?}");
        for (slot, machine) in record.slots.iter().zip(&machines) {
            for pod in &slot.pods {
                let live = by_uid.get(&pod.uid).unwrap_or_else(|| panic!("{pod} was planned and is gone"));
                assert_eq!(node_of(live), machine.node.as_deref(), "{pod} is not where it was planned\n{}", world.logs());
                planned.insert(pod.uid.clone());
            }
        }
    }
    assert_eq!(planned.len(), pods.len(), "every pod was planned once");
    let nodes: Api<Node> = Api::all(world.client.clone());
    let standing = nodes.list(&ListParams::default()).await.expect("the nodes").items.len();
    let bought: u32 = claims.iter().map(|claim| claim.spec.record.count).sum();
    assert_eq!(standing, bought as usize, "no node more than planned");
    assert_eq!(launches(world).await, standing, "no machine more was ever launched");
}

async fn launches(world: &World) -> usize {
    let events = world.twin_json("/purser/events").await.expect("the twin's events");
    events.as_array().into_iter().flatten().filter(|event| event["fact"] == "launched").count()
}

/// What the pods' own rules ask for, looked at afresh.
async fn assert_rules_hold(world: &World, pods: &[Pod]) {
    let nodes: Api<Node> = Api::all(world.client.clone());
    let nodes: BTreeMap<String, Node> = nodes.list(&ListParams::default()).await.expect("the nodes").items.into_iter().map(|node| (node.name_any(), node)).collect();
    let of = |app: &str| pods.iter().filter(|pod| pod.labels().get("app").is_some_and(|name| name == app)).filter_map(node_of).collect::<Vec<_>>();
    let zone = |node: &str| nodes[node].labels()["topology.kubernetes.io/zone"].clone();
    let by_zone = of("web").into_iter().fold(BTreeMap::<String, usize>::new(), |mut count, node| {
        *count.entry(zone(node)).or_default() += 1;
        count
    });
    let counts: Vec<usize> = ZONES.iter().map(|zone| by_zone.get(*zone).copied().unwrap_or_default()).collect();
    assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "web is spread {counts:?}");
    assert_eq!(of("db").into_iter().collect::<BTreeSet<_>>().len(), 4, "no two databases on one node");
    assert!(of("near").into_iter().all(|node| zone(node) == "us-east-1b"));
    assert!(of("train").into_iter().all(|node| nodes[node].labels()["node.kubernetes.io/instance-type"] == "g5.xlarge"));
}

async fn remove_all(world: &World) {
    let api: Api<Deployment> = Api::namespaced(world.client.clone(), NAMESPACE);
    api.delete_collection(&DeleteParams::background(), &ListParams::default()).await.expect("deployments are deleted");
    let nodes: Api<Node> = Api::all(world.client.clone());
    world.wait("every node to go", 120, async |_| nodes.list(&ListParams::default()).await.ok()?.items.is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_that_stands_is_the_fleet_that_was_planned() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = start(folder.path()).await;
    with_installed_rights(&mut world).await;
    world.start_operator(None);
    world.operator_is_ready().await;
    apply_all(&world).await;
    let pods = all_run(&world, 180).await;
    assert_as_planned(&world, &pods).await;
    assert_rules_hold(&world, &pods).await;
    remove_all(&world).await;
    assert_books_agree(&world, 300).await;
}

async fn survives(failpoint: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = start(folder.path()).await;
    world.start_operator(Some(failpoint));
    world.operator_is_ready().await;
    apply_all(&world).await;
    world.operator_dies(90).await;
    world.start_operator(None);
    let pods = all_run(&world, 180).await;
    assert_as_planned(&world, &pods).await;
    remove_all(&world).await;
    assert_books_agree(&world, 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_while_the_fleet_is_asked_for_buys_it_once() {
    survives("after:AskCloud:2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_while_pods_are_let_go_leaves_none_behind() {
    survives("after:PlacePod:20").await;
}

/// Dollars an hour that stand, by the claims of the nodes that are there.
async fn standing_price(world: &World) -> f64 {
    let nodes: Api<Node> = Api::all(world.client.clone());
    let nodes = nodes.list_metadata(&ListParams::default()).await.expect("the nodes").items;
    let prices: BTreeMap<String, f64> = claims(world).await.iter().map(|claim| (claim.name_any(), claim.spec.record.offer.price.per_hour().approximate())).collect();
    nodes.iter().filter_map(|node| prices.get(node.labels().get("purser.dev/claim")?)).sum()
}

const PAIRS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_was_thinned_out_is_replaced_by_a_cheaper_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = start(folder.path()).await;
    with_installed_rights(&mut world).await;
    world.start_operator(None);
    world.operator_is_ready().await;
    let mut pool = aws_pool(POOL, &[]);
    pool["spec"]["pods"] = json!({"repair": {"horizon": "12h"}});
    world.apply(&pool).await;
    let running = async |world: &World, wanted: usize| {
        let pods = pods(world).await?;
        (pods.len() == wanted && pods.iter().all(is_running)).then_some(())
    };
    // One after the other, so that each pair fills a machine of its own; then the large ones go.
    for number in 0..PAIRS {
        world.apply(&deployment(&format!("large-{number}"), 1, "3200m", "3Gi", json!({}))).await;
        world.apply(&deployment(&format!("small-{number}"), 1, "300m", "1Gi", json!({}))).await;
        world.wait("the pair to run", 120, async |world| running(world, 2 * (number + 1)).await).await;
    }
    let before = standing_price(&world).await;
    let api: Api<Deployment> = Api::namespaced(world.client.clone(), NAMESPACE);
    for number in 0..PAIRS {
        api.delete(&format!("large-{number}"), &DeleteParams::background()).await.expect("deleted");
    }
    world.wait("the large pods to go", 60, async |world| running(world, PAIRS).await).await;
    let homes = pods(&world).await.expect("the pods").iter().filter_map(|pod| node_of(pod).map(str::to_owned)).collect::<BTreeSet<_>>();
    assert_eq!(homes.len(), PAIRS, "each small pod has a machine of its own");
    world.wait("a cheaper fleet", 150, async |world| (standing_price(world).await < before / 2.0 && running(world, PAIRS).await.is_some()).then_some(())).await;
    println!("{before:.4} $/h with one small pod on each machine, {:.4} after the repair", standing_price(&world).await);
    remove_all(&world).await;
    assert_books_agree(&world, 300).await;
}
