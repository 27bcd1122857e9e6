//! The local cluster keeps its promises: simulated nodes, tokens, and an end that leaves nothing.

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReview};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use purser::testbed::{self, LocalCluster, Options};
use serde_json::json;

use crate::eventually;

#[tokio::test]
async fn a_simulated_node_runs_pods_and_replaces_a_deleted_one() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(dir.path(), Options::default()).await.unwrap();
    let client = cluster.client().await.unwrap();
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.create(&PostParams::default(), &simulated_node("sim-1")).await.unwrap();
    let jobs: Api<Job> = Api::default_namespaced(client.clone());
    jobs.create(&PostParams::default(), &job_that_replaces_failed_pods_only()).await.unwrap();

    let pods: Api<Pod> = Api::default_namespaced(client);
    let first = eventually("the pod runs", || running_pod(&pods, None)).await;
    pods.delete(&first, &DeleteParams::default()).await.unwrap();
    eventually("another pod takes its place", || running_pod(&pods, Some(&first))).await;
    assert!(pods.get_opt(&first).await.unwrap().is_none(), "the deleted pod is gone");

    // Simulated pods run until somebody says that their work is done.
    let second = running_pod(&pods, Some(&first)).await.unwrap();
    let done = json!({ "status": { "phase": "Succeeded" } });
    pods.patch_status(&second, &PatchParams::default(), &Patch::Merge(done)).await.unwrap();
    eventually("the job is complete", || async {
        let status = jobs.get_status("train").await.unwrap().status?;
        (status.succeeded == Some(1)).then_some(())
    })
    .await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_projected_token_is_valid_for_its_audience_only() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { kwok: false, scheduler: false, ..Options::default() };
    let cluster = LocalCluster::start(dir.path(), options).await.unwrap();
    let client = cluster.client().await.unwrap();
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    let request: TokenRequest = serde_json::from_value(json!({ "metadata": {}, "spec": { "audiences": ["purser"] } })).unwrap();
    let token = accounts.create_token_request("default", &PostParams::default(), &request).await.unwrap().status.unwrap().token;

    let reviews: Api<TokenReview> = Api::all(client);
    for (audience, is_valid) in [("purser", true), ("somebody-else", false)] {
        let review = serde_json::from_value(json!({ "metadata": {}, "spec": { "token": token, "audiences": [audience] } })).unwrap();
        let status = reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap();
        assert_eq!(status.authenticated == Some(true), is_valid, "{audience}: {status:?}");
    }
}

#[tokio::test]
async fn a_detached_cluster_outlives_its_owner_until_it_is_ended_by_its_folder() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("cluster");
    let options = Options { detached: true, kwok: false, scheduler: false, controller_manager: false, ..Options::default() };
    drop(LocalCluster::start(&dir, options.clone()).await.unwrap());
    assert_eq!(testbed::status(&dir).len(), 2, "etcd and the API server still run");

    let again = LocalCluster::start(&dir, options).await.expect_err("one cluster a folder");
    assert!(again.to_string().contains("already runs"), "{again}");
    let attached = LocalCluster::attach(&dir).unwrap();
    let nodes: Api<Node> = Api::all(attached.client().await.unwrap());
    assert!(nodes.list(&ListParams::default()).await.unwrap().items.is_empty());
    drop(attached);

    testbed::down(&dir).await.unwrap();
    assert!(testbed::status(&dir).is_empty() && !dir.exists());
    assert!(LocalCluster::attach(&dir).is_err());
}

fn simulated_node(name: &str) -> Node {
    let allocatable = json!({ "cpu": "8", "memory": "64Gi", "pods": "110", "nvidia.com/gpu": "1" });
    serde_json::from_value(json!({
        "metadata": { "name": name, "annotations": { "kwok.x-k8s.io/node": "fake" } },
        "status": { "allocatable": allocatable, "capacity": allocatable },
    }))
    .unwrap()
}

fn job_that_replaces_failed_pods_only() -> Job {
    serde_json::from_value(json!({
        "metadata": { "name": "train" },
        "spec": {
            "podReplacementPolicy": "Failed",
            "template": { "spec": {
                "restartPolicy": "Never",
                "containers": [{ "name": "train", "image": "none", "resources": { "limits": { "nvidia.com/gpu": "1" } } }],
            } },
        },
    }))
    .unwrap()
}

async fn running_pod(pods: &Api<Pod>, other_than: Option<&str>) -> Option<String> {
    let list = pods.list(&ListParams::default()).await.unwrap();
    let is_running = |pod: &&Pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
    let names = list.items.iter().filter(is_running).filter_map(|pod| pod.metadata.name.clone());
    names.into_iter().find(|name| Some(name.as_str()) != other_than)
}
