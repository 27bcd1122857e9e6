//! Jobs from submission to the last cent, with the operator killed wherever it hurts.
//!
//! The twin is the judge: what it says was spent, and which instances it granted to which token, must be what the
//! operator's ledger and claims say.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use kube::api::{Api, ListParams};
use purser::api::{CapacityClaim, TrainingJob};
use purser::capacity::ClaimPhase;
use purser::training::JobPhase;
use purser::units::Money;
use serde_json::{Value, json};

use crate::harness::{NAMESPACE, Setup, World};

pub fn experiment(name: &str, budget: &str) -> Value {
    json!({"apiVersion": "purser.dev/v1alpha1", "kind": "Experiment", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"owner": "vision@example.com", "budget": budget}})
}

/// The demo market's pool.
pub fn aws_pool(name: &str, instance_types: &[&str]) -> Value {
    let subnets = json!({"us-east-1a": "subnet-bcc3edcc1ecf38f75", "us-east-1b": "subnet-a8afda343597cec86", "us-east-1c": "subnet-3779bd2b1c61cd365"});
    aws_pool_in("us-east-1", name, instance_types, subnets)
}

pub fn aws_pool_in(region: &str, name: &str, instance_types: &[&str], subnets: Value) -> Value {
    json!({"apiVersion": "purser.dev/v1alpha1", "kind": "CapacityPool", "metadata": {"name": name}, "spec": {
        "provider": "aws", "boot": "3m", "requirements": {"instanceTypes": instance_types},
        "aws": {"region": region, "ami": "ami-0123456789abcdef0", "interruptionQueue": "purser-interruptions", "subnets": subnets}}})
}

pub fn job(name: &str, experiment: &str, workers: u32, duration: &str) -> Value {
    json!({"apiVersion": "purser.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": {
        "experiment": experiment, "workers": workers, "expectedDuration": duration, "capacityKinds": ["spot", "on-demand"],
        "checkpoint": {"interval": "10m", "restartOverhead": "5m", "uri": format!("s3://checkpoints/{name}")},
        "template": {"spec": {"containers": [{"name": "train", "image": "train:1", "resources": {"requests": {"cpu": "1"}}}]}}}})
}

pub fn phase(job: &TrainingJob) -> JobPhase {
    job.status.as_ref().map(|status| status.job.phase).unwrap_or_default()
}

pub async fn wait_until_over(world: &World, seconds: u64) -> Vec<TrainingJob> {
    world
        .wait("every job to be over", seconds, async |world| {
            let jobs = world.jobs().list(&ListParams::default()).await.ok()?.items;
            jobs.iter().all(|job| phase(job).is_over()).then_some(jobs)
        })
        .await
}

/// Waits until every granted claim is wholly in the ledger (and so gone), then compares with the twin's own books.
pub async fn assert_books_agree(world: &World, seconds: u64) {
    let claims: Api<CapacityClaim> = Api::all(world.client.clone());
    world
        .wait("every claim to be in the ledger", seconds, async |_| {
            let open = claims.list(&ListParams::default()).await.ok()?.items;
            open.iter().all(|claim| claim.status.as_ref().is_some_and(|status| status.phase == ClaimPhase::Refused)).then_some(())
        })
        .await;
    let twin = world.twin_json("/purser/ledger").await.expect("the twin's ledger");
    let judged: Money = twin["total"].as_str().expect("a total").parse().expect("an amount");
    let (code, stdout, stderr) = world.purser(&["report", "--ledger", &world.ledger().display().to_string(), "--by", "job", "--output", "json"]);
    assert_eq!(code, 0, "{stderr}");
    let report: Value = serde_json::from_str(&stdout).expect("JSON");
    let ours: Money = report["total"].as_str().expect("a total").parse().expect("an amount");
    assert_eq!(ours, judged, "the ledgers differ\ntwin: {twin:#}\nreport: {report:#}\n{}", world.logs());
    assert!(judged.atoms() > 0, "nothing was spent at all");
}

/// Per client token one launch; nothing of ours still runs; every instance belongs to a claim.
pub async fn assert_nothing_twice(world: &World) {
    let events = world.twin_json("/purser/events").await.expect("the twin's events");
    let mut granted: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    let mut alive: BTreeSet<String> = BTreeSet::new();
    for event in events.as_array().expect("a list") {
        let instance = event["instance"].as_str().unwrap_or_default().to_owned();
        match event["fact"].as_str().unwrap_or_default() {
            "launched" => {
                let text = |value: &Value| value.as_str().expect("a text").to_owned();
                let key = (text(&event["order"]["token"]), text(&event["order"]["tags"]["purser.dev/job"]));
                granted.entry(key).or_default().insert(instance.clone());
                alive.insert(instance);
            }
            "ended" => {
                alive.remove(&instance);
            }
            _ => {}
        }
    }
    assert!(alive.is_empty(), "forgotten machines: {alive:?}\n{}", world.logs());
    assert!(!granted.is_empty());
    let jobs = world.jobs().list(&ListParams::default()).await.expect("the jobs").items;
    for ((token, job), instances) in granted {
        let gang = jobs.iter().find(|object| format!("{NAMESPACE}/{}", object.name_any()) == job).map(|object| object.spec.workers);
        assert!(gang.is_some_and(|gang| instances.len() as i64 <= gang), "token {token} of {job} (gang of {gang:?}) got {instances:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_run_are_interrupted_and_the_two_ledgers_agree() {
    let mut world = World::start(Setup { speed: 600.0, ..Setup::default() }).await;
    world.start_operator(None);
    world.operator_is_ready().await;
    world.apply(&experiment("vision", "500")).await;
    world.apply(&aws_pool("gpu", &["g5.xlarge"])).await;
    for (name, workers, duration) in [("resnet", 1, "8h"), ("bert", 2, "3h"), ("small", 1, "30m")] {
        world.create_job(job(name, "vision", workers, duration)).await.expect("admitted");
    }
    let jobs = wait_until_over(&world, 240).await;
    for job in &jobs {
        assert_eq!(phase(job), JobPhase::Succeeded, "{job:#?}");
    }
    assert!(jobs.iter().any(|job| job.status.as_ref().is_some_and(|status| status.job.attempts.len() > 1)), "nobody was interrupted");
    assert_books_agree(&world, 300).await;
    assert_nothing_twice(&world).await;
}

async fn survives(failpoint: &str) {
    let mut world = World::start(Setup { speed: 600.0, ..Setup::default() }).await;
    world.start_operator(Some(failpoint));
    world.operator_is_ready().await;
    world.apply(&experiment("vision", "500")).await;
    world.apply(&aws_pool("gpu", &["g5.xlarge"])).await;
    world.create_job(job("bert", "vision", 2, "2h")).await.expect("admitted");
    world.operator_dies(90).await;
    world.start_operator(None);
    let jobs = wait_until_over(&world, 240).await;
    assert!(jobs.iter().all(|job| phase(job) == JobPhase::Succeeded), "{jobs:#?}");
    assert_books_agree(&world, 300).await;
    assert_nothing_twice(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_between_writing_the_claim_and_asking_the_cloud_buys_once() {
    survives("after:WriteClaim").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_between_the_clouds_answer_and_recording_it_buys_once() {
    survives("after:AskCloud").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_between_recording_the_attempt_and_creating_the_job_runs_one_gang() {
    survives("before:CreateWorkload").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_between_closing_a_window_and_committing_it_meters_once() {
    survives("before:CommitWindow").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_between_committing_a_window_and_noting_it_meters_once() {
    survives("after:CommitWindow").await;
}
