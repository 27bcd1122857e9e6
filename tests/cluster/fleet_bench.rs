//! Sets A and C of the packing benchmark from end to end: real pods on a real API server and scheduler, nodes of the twin with
//! the types and prices of a real catalogue. `make bench-fleet` prints what was planned, what stands, and how long it took.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use deltalake::arrow::array::AsArray;
use deltalake::arrow::compute::cast;
use deltalake::arrow::datatypes::{DataType, Int64Type};
use deltalake::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use serde_json::{Value, json};

use crate::end_to_end::aws_pool;
use crate::fleet::{assert_as_planned, claims, pods};
use crate::harness::{NAMESPACE, Setup, World};

const POOL: &str = "general";
const CREATED_AT_ONCE: usize = 16;

#[derive(Clone, Copy)]
struct Asked {
    cpu_milli: i64,
    memory_mib: i64,
    gpus: i64,
}

fn read_pods(path: &Path) -> Vec<Asked> {
    let file = File::open(path).expect("the pods of the trace");
    let batches = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build()).expect("Parquet");
    let mut asked = Vec::new();
    for batch in batches {
        let batch = batch.expect("rows");
        let column = |name: &str| cast(batch.column_by_name(name).expect("a column"), &DataType::Int64).expect("whole numbers");
        let (cpu, memory, gpus) = (column("cpu_milli"), column("memory_mib"), column("num_gpu"));
        let at = |row: usize| Asked { cpu_milli: cpu.as_primitive::<Int64Type>().value(row), memory_mib: memory.as_primitive::<Int64Type>().value(row), gpus: gpus.as_primitive::<Int64Type>().value(row) };
        asked.extend((0..batch.num_rows()).map(at));
    }
    asked
}

/// The types that the benchmark's rules allow: amd64, no metal, families c, m, r, g and p, NVIDIA or nothing.
fn allowed_types(catalogue: &Path, into: &Path) -> BTreeMap<String, f64> {
    let text = std::io::read_to_string(zstd::Decoder::new(File::open(catalogue).expect("the catalogue")).expect("zstd")).expect("text");
    let mut types: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    types.retain(|one| {
        let name = one["name"].as_str().expect("a name");
        let other = ["amd.com/gpu", "aws.amazon.com/neuron", "aws.amazon.com/neuroncore", "habana.ai/gaudi"].iter().any(|key| one["resources"].get(*key).is_some());
        one["architecture"] == "amd64" && name.starts_with(['c', 'm', 'r', 'g', 'p']) && !name.contains("metal") && !other
    });
    std::fs::write(into, Value::Array(types.clone()).to_string()).expect("a catalogue is written");
    types.iter().map(|one| (one["name"].as_str().expect("a name").to_owned(), one["offerings"][0]["Price"].as_f64().expect("a price"))).collect()
}

fn pod(number: usize, asked: &Asked) -> Value {
    let mut requests = json!({"cpu": format!("{}m", asked.cpu_milli), "memory": format!("{}Mi", asked.memory_mib)});
    let mut limits = json!({});
    if asked.gpus > 0 {
        requests["nvidia.com/gpu"] = json!(asked.gpus.to_string());
        limits["nvidia.com/gpu"] = json!(asked.gpus.to_string());
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("pod-{number}"), "namespace": NAMESPACE, "labels": {"purser.dev/pool": POOL}},
        "spec": {"automountServiceAccountToken": false, "containers": [{"name": "main", "image": "app:1", "resources": {"requests": requests, "limits": limits}}]}})
}

async fn create_all(world: &World, wanted: &[Asked]) {
    let api: Api<Pod> = Api::namespaced(world.client.clone(), NAMESPACE);
    let created = wanted.iter().enumerate().map(|(number, asked)| {
        let pod = serde_json::from_value(pod(number, asked)).expect("a pod");
        let api = api.clone();
        async move { api.create(&PostParams::default(), &pod).await.expect("admitted") }
    });
    futures::stream::iter(created).buffer_unordered(CREATED_AT_ONCE).for_each(|_| futures::future::ready(())).await;
}

async fn unbound(world: &World) -> Option<usize> {
    let api: Api<Pod> = Api::namespaced(world.client.clone(), NAMESPACE);
    Some(api.list_metadata(&ListParams::default().fields("spec.nodeName=")).await.ok()?.items.len())
}

async fn stands(world: &World, prices: &BTreeMap<String, f64>) -> (usize, f64) {
    let nodes: Api<Node> = Api::all(world.client.clone());
    let nodes = nodes.list_metadata(&ListParams::default()).await.expect("the nodes").items;
    (nodes.len(), nodes.iter().map(|node| prices[&node.labels()["node.kubernetes.io/instance-type"]]).sum())
}

async fn run(set: &str, wanted: &[Asked], data: &Path) {
    let folder = tempfile::tempdir().expect("a folder");
    let catalogue = folder.path().join("catalogue.json");
    let prices = allowed_types(&data.join("fixtures/karpenter/instance_types_us_east_1_on_demand.json.zst"), &catalogue);
    let market = format!("catalogue:{}", catalogue.display());
    let mut world = World::start(Setup { market, speed: 60.0, ..Setup::default() }).await;
    world.start_operator(None);
    world.operator_is_ready().await;
    let charge = std::env::var("PURSER_BENCH_NODE_CHARGE").unwrap_or_else(|_| "0.02".to_owned());
    let mut pool = aws_pool(POOL, &[]);
    pool["spec"]["pods"] = json!({"nodeCharge": charge, "batchMax": "60s"});
    world.apply(&pool).await;
    let began = Instant::now();
    create_all(&world, wanted).await;
    let created = began.elapsed();
    world.wait("every pod to be bound", 900, async |world| (unbound(world).await? == 0).then_some(())).await;
    let bound = began.elapsed();
    // Whoever buys more than was planned has had the time to.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let planned: f64 = claims(&world).await.iter().map(|claim| claim.spec.record.offer.price.per_hour().approximate() * f64::from(claim.spec.record.count)).sum();
    let (nodes, standing) = stands(&world, &prices).await;
    assert_as_planned(&world, &pods(&world).await.expect("the pods")).await;
    println!("| {set} | {} | {charge} | {planned:.2} | {standing:.2} | {nodes} | {:.1} | {:.1} |", wanted.len(), created.as_secs_f64(), bound.as_secs_f64());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a benchmark of minutes: make bench-fleet"]
async fn sets_a_and_c_stand_as_they_were_planned() {
    let Some(data) = std::env::var_os("PURSER_DATA_DIR") else {
        println!("skipped: PURSER_DATA_DIR is not set");
        return;
    };
    let data = Path::new(&data);
    let all = read_pods(&data.join("traces/jobs/alibaba2023_pods.parquet"));
    println!("| set | pods | node charge | planned $/h | standing $/h | nodes | s to create | s until all are bound |");
    println!("|---|---|---|---|---|---|---|---|");
    let sets = std::env::var("PURSER_BENCH_SETS").unwrap_or_else(|_| "A,C".to_owned());
    let set_a = all.iter().filter(|pod| pod.gpus == 0).copied().collect();
    let set_c = all.iter().take(2_000).copied().collect();
    for (name, set) in [("A", set_a), ("C", set_c)] {
        let set: Vec<Asked> = set;
        if sets.contains(name) {
            run(name, &set, data).await;
        }
    }
}
