//! Pods that opt in to a pool's fleet get its scheduling gate, so that no scheduler sees them before their node is there.
//!
//! A pod opts in by the label `purser.dev/pool`, or by its namespace's, which the pod then gets. Pods of DaemonSets belong on
//! every node, and a pod that names its node has its place: both are left alone.

use axum::Json;
use axum::extract::State;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt;
use kube::api::Api;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use serde_json::{Value, json};

use super::super::apply::is_gated;
use super::super::observe::pods::is_of_daemon_set;
use super::Checks;
use super::review::parse;
use crate::api::{CapacityPool, labels};

pub const PATH: &str = "/mutate";

pub async fn review(State(checks): State<Checks>, Json(review): Json<AdmissionReview<DynamicObject>>) -> Json<AdmissionReview<DynamicObject>> {
    let answer = match TryInto::<AdmissionRequest<DynamicObject>>::try_into(review) {
        Ok(request) => answer(&checks, &request).await,
        Err(error) => AdmissionResponse::invalid(error),
    };
    Json(answer.into_review())
}

async fn answer(checks: &Checks, request: &AdmissionRequest<DynamicObject>) -> AdmissionResponse {
    let response = AdmissionResponse::from(request);
    let Some(object) = &request.object else { return response };
    let pod: Pod = match parse(object) {
        Ok(pod) => pod,
        Err(denial) => return response.deny(denial),
    };
    let named = pod.labels().get(labels::POOL).cloned();
    let pool = match named {
        Some(pool) => Some(pool),
        None => of_namespace(checks, request.namespace.as_deref().unwrap_or_default()).await,
    };
    let Some(pool) = pool.filter(|_| waits(&pod)) else { return response };
    let mut response = response;
    response.warnings = warning(checks, &pool).await.map(|warning| vec![warning]);
    match serde_json::from_value(Value::Array(held_back(&pod, &pool))).map(|patch| response.with_patch(patch)) {
        Ok(Ok(patched)) => patched,
        Ok(Err(error)) => AdmissionResponse::invalid(error),
        Err(error) => AdmissionResponse::invalid(error),
    }
}

async fn of_namespace(checks: &Checks, namespace: &str) -> Option<String> {
    match Api::<Namespace>::all(checks.client.clone()).get_metadata_opt(namespace).await {
        Ok(found) => found?.labels().get(labels::POOL).cloned(),
        Err(error) => {
            tracing::warn!(namespace, %error, "the pool of a namespace is not known; its pod is left to the scheduler");
            None
        }
    }
}

fn waits(pod: &Pod) -> bool {
    let has_a_node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()).is_some_and(|node| !node.is_empty());
    !has_a_node && !is_of_daemon_set(pod) && !pod.labels().contains_key(labels::JOB_UID)
}

/// The pool may come later; the pod waits for it, and whoever made it should know.
async fn warning(checks: &Checks, name: &str) -> Option<String> {
    match Api::<CapacityPool>::all(checks.client.clone()).get_opt(name).await {
        Ok(Some(pool)) if pool.spec.pods.is_some() => None,
        Ok(Some(_)) => Some(format!("CapacityPool {name} has no section spec.pods; the pod waits until it has")),
        Ok(None) => Some(format!("CapacityPool {name} does not exist; the pod waits until it does")),
        Err(_) => None,
    }
}

/// The JSON patch that adds what is missing.
fn held_back(pod: &Pod, pool: &str) -> Vec<Value> {
    let mut patch = Vec::new();
    if pod.labels().get(labels::POOL).is_none() {
        patch.push(match pod.metadata.labels {
            Some(_) => json!({"op": "add", "path": format!("/metadata/labels/{}", labels::POOL.replace('/', "~1")), "value": pool}),
            None => json!({"op": "add", "path": "/metadata/labels", "value": {labels::POOL: pool}}),
        });
    }
    if !is_gated(pod) {
        let has_gates = pod.spec.as_ref().is_some_and(|spec| spec.scheduling_gates.is_some());
        let gate = json!({"name": labels::GATE});
        patch.push(match has_gates {
            true => json!({"op": "add", "path": "/spec/schedulingGates/-", "value": gate}),
            false => json!({"op": "add", "path": "/spec/schedulingGates", "value": [gate]}),
        });
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(text: Value) -> Pod {
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn a_pod_gets_what_it_lacks_and_keeps_what_it_has() {
        let bare = pod(json!({"metadata": {}, "spec": {"containers": []}}));
        assert_eq!(
            held_back(&bare, "general"),
            [
                json!({"op": "add", "path": "/metadata/labels", "value": {"purser.dev/pool": "general"}}),
                json!({"op": "add", "path": "/spec/schedulingGates", "value": [{"name": "purser.dev/capacity"}]}),
            ]
        );
        let labelled = pod(json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [], "schedulingGates": [{"name": "other"}]}}));
        let paths: Vec<Value> = held_back(&labelled, "general").iter().map(|operation| operation["path"].clone()).collect();
        assert_eq!(paths, [json!("/metadata/labels/purser.dev~1pool"), json!("/spec/schedulingGates/-")]);
        let ready = pod(json!({"metadata": {"labels": {"purser.dev/pool": "general"}}, "spec": {"containers": [], "schedulingGates": [{"name": "purser.dev/capacity"}]}}));
        assert!(held_back(&ready, "general").is_empty());
    }

    #[test]
    fn a_pod_that_names_its_node_is_left_alone() {
        assert!(waits(&pod(json!({"metadata": {}, "spec": {"containers": []}}))));
        assert!(!waits(&pod(json!({"metadata": {}, "spec": {"containers": [], "nodeName": "n1"}}))));
    }
}
