//! The operator's own promises against a real API server: what is refused at admission, who may report progress, nodes that
//! exist already, the rights it needs, and who leads.

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use purser::training::JobPhase;
use serde_json::{Value, json};

use crate::end_to_end::{aws_pool, experiment, job, phase};
use crate::harness::{NAMESPACE, Setup, World};

fn team(name: &str, namespaces: &[&str]) -> Value {
    json!({"apiVersion": "purser.dev/v1alpha1", "kind": "Team", "metadata": {"name": name}, "spec": {"namespaces": namespaces}})
}

fn nodes_pool(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "purser.dev/v1alpha1", "kind": "CapacityPool", "metadata": {"name": name},
        "spec": {"provider": "nodes", "nodes": {"matchLabels": labels, "pricePerHour": "2"}}})
}

fn fake_node(name: &str, team: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": {
        "team": team, "kubernetes.io/hostname": name, "node.kubernetes.io/instance-type": "g5.xlarge", "topology.kubernetes.io/zone": "us-east-1a"}},
        "status": {"allocatable": {"cpu": "4", "memory": "16Gi", "pods": "110"}, "capacity": {"cpu": "4", "memory": "16Gi", "pods": "110"}}})
}

/// The operator gets the rights of `manifests/install` and no others.
pub async fn with_installed_rights(world: &mut World) {
    world.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "purser-system"}})).await;
    for text in [include_str!("../../manifests/install/rbac.yaml"), include_str!("../../manifests/install/webhook.yaml")] {
        let objects: Vec<Value> = serde_saphyr::from_multiple(text).expect("YAML");
        for mut object in objects {
            // Until the operator announces itself nobody could be asked.
            if object["kind"].as_str().is_some_and(|kind| kind.ends_with("WebhookConfiguration")) {
                object["webhooks"] = json!([]);
            }
            world.apply(&object).await;
        }
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), "purser-system");
    let request = TokenRequest {
        spec: Some(TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() }),
        ..TokenRequest::default()
    };
    let answer = accounts.create_token_request("purser", &PostParams::default(), &request).await.expect("an answer");
    let token = answer.status.and_then(|status| status.token).expect("a token");
    let mut kubeconfig: Value = serde_json::from_str(&std::fs::read_to_string(world.kubeconfig()).expect("the owner's kubeconfig")).expect("JSON");
    kubeconfig["users"][0]["user"] = json!({"token": token});
    let path = world.folder().join("operator.kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).expect("a file");
    world.operator_kubeconfig = Some(path);
}

/// What the API server says when this job is submitted.
async fn refusal(world: &World, change: impl FnOnce(&mut Value)) -> String {
    let mut job = job("refused", "vision", 1, "1h");
    change(&mut job);
    match world.try_apply(&job).await {
        Ok(_) => panic!("{job} was admitted\n{}", world.logs()),
        Err(kube::Error::Api(status)) => status.message.clone(),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_where_it_is_written() {
    let mut world = World::start(Setup::default()).await;
    world.start_operator(None);
    world.operator_is_ready().await;
    world.apply(&experiment("vision", "500")).await;
    let said = refusal(&world, |job| job["spec"]["deadline"] = json!("2001-01-01T00:00:00Z")).await;
    assert!(said.contains("in the past"), "{said}");
    for workers in [json!(0), json!(-1), json!(10_000)] {
        let said = refusal(&world, |job| job["spec"]["workers"] = workers.clone()).await;
        assert!(said.contains("spec.workers"), "{said}");
    }
    for budget in ["-5", "0", "0.00"] {
        let said = refusal(&world, |job| job["spec"]["budget"] = json!(budget)).await;
        assert!(said.contains("budget"), "{said}");
    }
    let said = refusal(&world, |job| job["spec"]["experiment"] = json!("visoin")).await;
    assert!(said.contains("visoin") && said.contains("there are vision"), "{said}");
    let said = refusal(&world, |job| job["spec"]["pool"] = json!("nowhere")).await;
    assert!(said.contains("nowhere"), "{said}");
    let said = refusal(&world, |job| job["spec"]["checkpoint"]["uri"] = json!("my bucket")).await;
    assert!(said.contains("checkpoint"), "{said}");
    let said = refusal(&world, |job| job["spec"]["template"]["spec"]["containers"][0]["name"] = json!("Not A Name")).await;
    assert!(said.contains("containers[0].name"), "the API server's own words: {said}");
    let said = refusal(&world, |job| job["spec"]["template"] = json!({"spec": {"containers": []}})).await;
    assert!(said.contains("containers"), "{said}");
    let said = refusal(&world, |job| job["metadata"]["name"] = json!("größe")).await;
    assert!(said.contains("größe") || said.contains("name"), "{said}");
    // What is unusual but right is admitted.
    let mut long = job(&format!("0{}", "x".repeat(252)), "vision", 1, "1h");
    long["spec"]["template"]["metadata"] = json!({"annotations": {"note": "Größe 模型 🚀"}});
    world.apply(&long).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_has_one_team_and_a_node_one_pool() {
    let mut world = World::start(Setup::default()).await;
    world.apply(&fake_node("node-a", "ml")).await;
    world.start_operator(None);
    world.operator_is_ready().await;
    world.apply(&team("red", &["vision", "speech"])).await;
    let refused = |answer: Result<_, kube::Error>| match answer {
        Err(kube::Error::Api(status)) => status.message.clone(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("admitted\n{}", world.logs()),
    };
    let said = refused(world.try_apply(&team("blue", &["nlp", "speech"])).await);
    assert!(said.contains("speech") && said.contains("red"), "{said}");
    world.apply(&nodes_pool("first", json!({"team": "ml"}))).await;
    let said = refused(world.try_apply(&nodes_pool("second", json!({"topology.kubernetes.io/zone": "us-east-1a"}))).await);
    assert!(said.contains("node-a") && said.contains("first"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_on_nodes_that_exist_and_tells_its_progress() {
    let mut world = World::start(Setup::default()).await;
    with_installed_rights(&mut world).await;
    for name in ["node-a", "node-b", "node-c"] {
        world.apply(&fake_node(name, "ml")).await;
    }
    world.start_operator(None);
    world.operator_is_ready().await;
    world.apply(&experiment("vision", "500")).await;
    world.apply(&nodes_pool("own", json!({"team": "ml"}))).await;
    world.create_job(job("bert", "vision", 2, "1h")).await.expect("admitted");
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), NAMESPACE);
    let gang = world
        .wait("the gang to run", 60, async |_| {
            let running = pods.list(&ListParams::default()).await.ok()?.items;
            let on_nodes = running.iter().filter(|pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running")));
            (on_nodes.count() == 2).then_some(running)
        })
        .await;
    let hosts: std::collections::BTreeSet<_> = gang.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect();
    assert_eq!(hosts.len(), 2, "one worker a node");
    only_its_own_token_speaks(&world, &gang[0]).await;
    for pod in &gang {
        let ended = json!({"status": {"phase": "Succeeded", "containerStatuses": [{"name": "train", "image": "train:1", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:10Z"}}}]}});
        pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&ended)).await.expect("the program ends");
    }
    world.wait("the job to succeed", 60, async |world| world.jobs().get("bert").await.ok().filter(|job| phase(job) == JobPhase::Succeeded)).await;
    let nodes: Api<Node> = Api::all(world.client.clone());
    world
        .wait("the nodes to be free again", 60, async |_| {
            let all = nodes.list(&ListParams::default()).await.ok()?.items;
            all.iter().all(|node| !node.labels().contains_key("purser.dev/claim")).then_some(())
        })
        .await;
}

/// A pod speaks of its own job, with a token made for Purser, and only forward.
async fn only_its_own_token_speaks(world: &World, pod: &Pod) {
    let url = format!("{}/v1/progress", world.operator_url());
    let client = reqwest::Client::new();
    let post = async |token: &str, body: Value| client.post(&url).bearer_auth(token).json(&body).send().await.expect("an answer").status().as_u16();
    let token = pod_token(world, pod, "purser.dev").await;
    assert_eq!(post(&token, json!({"fraction": 0.5, "checkpoint": {"fraction": 0.4, "uri": "s3://checkpoints/bert/4"}})).await, 200);
    assert_eq!(post(&token, json!({"fraction": 0.3})).await, 200, "going back is no error, and no news");
    assert_eq!(post(&token, json!({"fraction": 1.5})).await, 400);
    assert_eq!(post(&token, json!({"percent": 50})).await, 400);
    assert_eq!(post(&pod_token(world, pod, "https://example.com").await, json!({"fraction": 0.9})).await, 401);
    assert_eq!(post("nonsense", json!({"fraction": 0.9})).await, 401);
    assert_eq!(client.post(&url).json(&json!({"fraction": 0.9})).send().await.expect("an answer").status().as_u16(), 401);
    assert_eq!(client.post(&url).bearer_auth(&token).body(vec![b'x'; 10_000]).send().await.expect("an answer").status().as_u16(), 413);
    let status = world.jobs().get("bert").await.expect("the job").status.expect("a status");
    assert_eq!(status.progress.map(|progress| progress.fraction), Some(0.5));
    assert_eq!(status.checkpoint.and_then(|mark| mark.uri).as_deref(), Some("s3://checkpoints/bert/4"));
}

async fn pod_token(world: &World, pod: &Pod, audience: &str) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), NAMESPACE);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec![audience.to_owned()]),
            bound_object_ref: Some(BoundObjectReference { api_version: Some("v1".into()), kind: Some("Pod".into()), name: Some(pod.name_any()), uid: pod.uid() }),
            expiration_seconds: Some(600),
        }),
        ..TokenRequest::default()
    };
    let answer = accounts.create_token_request("default", &PostParams::default(), &request).await.expect("an answer");
    answer.status.and_then(|status| status.token).expect("a token")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_cancelled_or_deleted_gives_its_machines_back() {
    let mut world = World::start(Setup::default()).await;
    world.start_operator(None);
    world.operator_is_ready().await;
    world.apply(&experiment("vision", "500")).await;
    world.apply(&aws_pool("gpu", &["g5.xlarge"])).await;
    for name in ["cancelled", "deleted"] {
        world.create_job(job(name, "vision", 1, "20h")).await.expect("admitted");
    }
    let in_phase = async |world: &World, name: &str, wanted: JobPhase| world.jobs().get(name).await.ok().filter(|job| phase(job) == wanted);
    for name in ["cancelled", "deleted"] {
        world.wait("both jobs to run", 90, async |world| in_phase(world, name, JobPhase::Running).await).await;
    }
    let cancel = json!({"spec": {"cancelled": true}});
    world.jobs().patch("cancelled", &PatchParams::default(), &Patch::Merge(&cancel)).await.expect("cancelled");
    world.jobs().delete("deleted", &DeleteParams::default()).await.expect("deleted");
    world.wait("the one to be cancelled", 90, async |world| in_phase(world, "cancelled", JobPhase::Cancelled).await).await;
    world.wait("the other to go", 90, async |world| world.jobs().get_opt("deleted").await.ok()?.is_none().then_some(())).await;
    world.wait("every machine to end", 60, async |world| alive(world).await?.is_empty().then_some(())).await;
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), NAMESPACE);
    world.wait("every pod to go", 60, async |_| pods.list(&ListParams::default()).await.ok()?.items.is_empty().then_some(())).await;
}

/// Machines that run, as the twin itself says.
async fn alive(world: &World) -> Option<std::collections::BTreeSet<String>> {
    let events = world.twin_json("/purser/events").await?;
    let of = |fact: &str| -> std::collections::BTreeSet<String> {
        let told = events.as_array().into_iter().flatten().filter(|event| event["fact"] == fact);
        told.filter_map(|event| event["instance"].as_str().map(str::to_owned)).collect()
    };
    Some(&of("launched") - &of("ended"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_operator_waits_and_takes_over() {
    let mut world = World::start(Setup { operator_args: vec!["--lease-seconds".to_owned(), "4".to_owned()], ..Setup::default() }).await;
    world.start_operator(None);
    world.operator_is_ready().await;
    let holder = async |world: &World| {
        let leases: Api<k8s_openapi::api::coordination::v1::Lease> = Api::namespaced(world.client.clone(), "purser-system");
        leases.get("purser").await.ok()?.spec?.holder_identity
    };
    let first = world.wait("somebody to lead", 30, async |world| holder(world).await).await;
    world.kill_operator();
    world.start_operator(None);
    world.wait("the next to lead", 30, async |world| holder(world).await.filter(|now| *now != first)).await;
}
