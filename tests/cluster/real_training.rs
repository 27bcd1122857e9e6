//! A real program on real nodes: trained, interrupted by the market, resumed elsewhere, and in the end the very model that an
//! uninterrupted run gives.

use std::path::PathBuf;
use std::process::Command;

use purser::testbed::real_nodes_possible;
use purser::training::{AttemptOutcome, JobPhase};
use serde_json::{Value, json};

use crate::end_to_end::{assert_books_agree, aws_pool, experiment, job, phase, wait_until_over};
use crate::harness::{NAMESPACE, Setup, World};

/// Spot is to be had in one zone for nine minutes of market time, and then only in the next one.
const MARKET: &str = "kind,nodes,trace,zone,device,gap_s,start_tick,ticks,value
availability,1-node,moving,us-east-1a,v100_1,60,0,9,4
availability,1-node,moving,us-east-1a,v100_1,60,9,1000,0
availability,1-node,moving,us-east-1b,v100_1,60,0,9,0
availability,1-node,moving,us-east-1b,v100_1,60,9,1000,4
";

/// So that the first hour of market time ends, and is metered, soon after the programs do.
const EPOCH: &str = "2026-03-02T08:20:00Z";

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_training_ends_with_the_model_of_an_uninterrupted_one() {
    if let Err(why) = real_nodes_possible() {
        println!("skipped: no real nodes here: {why}");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let market = folder.path().join("market.csv");
    std::fs::write(&market, MARKET).expect("a file");
    let setup = Setup { market: format!("trace:{}", market.display()), speed: 10.0, node_images: vec![image()], twin_args: vec!["--market-epoch".into(), EPOCH.into()], ..Setup::default() };
    let mut world = World::start(setup).await;
    let bucket = format!("{}/checkpoints", world.twin_url());
    reqwest::Client::new().put(&bucket).send().await.and_then(|answer| answer.error_for_status()).expect("a bucket");
    world.start_operator(None);
    world.operator_is_ready().await;
    world.apply(&experiment("spirals", "50")).await;
    world.apply(&aws_pool("v100", &["p3.2xlarge"])).await;
    world.create_job(training(&world, "moved", "spot")).await.expect("admitted");
    let mut steady = training(&world, "steady", "on-demand");
    steady["spec"]["template"]["metadata"] = json!({"annotations": {"purser.dev/progress-metric": "training_progress@9090"}});
    steady["spec"]["template"]["spec"]["containers"][0]["env"].as_array_mut().expect("a list").push(json!({"name": "METRICS_PORT", "value": "9090"}));
    world.create_job(steady).await.expect("admitted");

    let kubeconfig = world.kubeconfig().display().to_string();
    world
        .wait("the program's own words", 120, async |world| {
            let (code, stdout, _) = world.purser(&["job", "logs", "steady", "--kubeconfig", &kubeconfig, "--namespace", NAMESPACE]);
            (code == 0 && stdout.contains("starts from nothing")).then_some(())
        })
        .await;
    let jobs = wait_until_over(&world, 420).await;
    assert!(jobs.iter().all(|job| phase(job) == JobPhase::Succeeded), "{jobs:#?}");
    let outcomes = |name: &str| -> Vec<Option<AttemptOutcome>> {
        let job = jobs.iter().find(|job| job.metadata.name.as_deref() == Some(name)).expect("the job");
        job.status.iter().flat_map(|status| &status.job.attempts).map(|attempt| attempt.outcome).collect()
    };
    assert_eq!(outcomes("steady"), [Some(AttemptOutcome::Succeeded)]);
    assert_eq!(outcomes("moved"), [Some(AttemptOutcome::Interrupted), Some(AttemptOutcome::Succeeded)]);
    let told = jobs.iter().all(|job| job.status.as_ref().and_then(|status| status.progress.as_ref()).is_some_and(|progress| progress.fraction > 0.1));
    assert!(told, "one posts its progress, the other exposes it as a metric: {jobs:#?}");
    let (moved, steady) = (model(&world, "moved").await, model(&world, "steady").await);
    assert_eq!(moved, steady, "the same model, bit for bit");
    assert!(moved["accuracy"].as_f64().is_some_and(|accuracy| accuracy > 0.8), "{moved}");
    let resumed = jobs.iter().flat_map(|job| &job.status).flat_map(|status| &status.job.attempts).find(|attempt| attempt.number == 2);
    assert!(resumed.is_some_and(|attempt| attempt.from_fraction > 0.0), "it resumed from nothing: {resumed:?}");
    assert_books_agree(&world, 480).await;
}

fn training(world: &World, name: &str, kind: &str) -> Value {
    let mut job = job(name, "spirals", 1, "15m");
    job["spec"]["capacityKinds"] = json!([kind]);
    job["spec"]["checkpoint"] = json!({"interval": "2m", "restartOverhead": "1m", "uri": format!("s3://checkpoints/{name}")});
    job["spec"]["template"] = json!({"spec": {"containers": [{
        "name": "train", "image": "purser.dev/testbed/python:local", "imagePullPolicy": "Never", "command": ["python3", "train.py"],
        "env": [{"name": "AWS_ENDPOINT_URL", "value": world.twin_url()}, {"name": "EPOCHS", "value": "50000"}, {"name": "CHECKPOINT_EVERY", "value": "1000"}],
        "resources": {"requests": {"cpu": "500m"}}}]}});
    job
}

async fn model(world: &World, name: &str) -> Value {
    world.twin_json(&format!("/checkpoints/{name}/model.json")).await.expect("a model")
}

/// The image with the program and its data.
fn image() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cluster");
    let made = Command::new("bash")
        .arg(here.join("python-image.sh"))
        .args([here.join("training/train.py"), here.join("training/spirals.json")])
        .output()
        .expect("bash runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    PathBuf::from(String::from_utf8_lossy(&made.stdout).trim())
}
