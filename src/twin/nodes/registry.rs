//! The Kubernetes side of machines that come and go: Node objects, and pods that are lost with them.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::{Machine, NodeError};
use crate::api::labels;

/// Nodes that the twin made; the only ones that it touches.
pub const OURS: &str = "purser.dev/twin";

/// A cluster's nodes.
pub struct Registry {
    pub client: Client,
}

impl Registry {
    /// Names of the nodes that the twin made.
    pub async fn nodes(&self) -> Result<BTreeSet<String>, NodeError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let found = nodes.list(&ListParams::default().labels(OURS)).await.map_err(failed("list nodes"))?;
        Ok(found.iter().map(ResourceExt::name_any).collect())
    }

    /// Makes a node that nobody but kwok keeps alive.
    pub async fn create(&self, machine: &Machine) -> Result<(), NodeError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let created = nodes.create(&PostParams::default(), &fake_node(machine)).await;
        unless(409, created).map_err(failed(&format!("create node {}", machine.node)))
    }

    /// Takes a node away, with its pods, as the cloud's node controller and the pod collector do once a machine is gone.
    pub async fn remove(&self, node: &str) -> Result<(), NodeError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        self.lose_pods(node).await?;
        unless(404, nodes.delete(node, &DeleteParams::default()).await).map_err(failed(&format!("delete node {node}")))
    }

    async fn lose_pods(&self, node: &str) -> Result<(), NodeError> {
        let doing = format!("end the pods of node {node}");
        let all: Api<Pod> = Api::all(self.client.clone());
        let lost = all.list(&ListParams::default().fields(&format!("spec.nodeName={node}"))).await.map_err(failed(&doing))?;
        for pod in lost {
            let (api, name): (Api<Pod>, String) = (Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default()), pod.name_any());
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            if !matches!(phase, Some("Succeeded" | "Failed")) {
                let patched = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(lost_with_its_node())).await;
                unless(404, patched).map_err(failed(&doing))?;
            }
            unless(404, api.delete(&name, &DeleteParams::default().grace_period(0)).await).map_err(failed(&doing))?;
        }
        Ok(())
    }
}

/// The words of Kubernetes' own pod collector, by which a lost machine is told from a broken program.
fn lost_with_its_node() -> serde_json::Value {
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": "PodGC: node no longer exists"});
    json!({"status": {"phase": "Failed", "conditions": [condition]}})
}

/// Labels that kubelets may set for themselves.
pub fn node_labels(machine: &Machine) -> [(&'static str, &str); 5] {
    [
        (OURS, "true"),
        ("node.kubernetes.io/instance-type", &machine.facts.name),
        ("topology.kubernetes.io/region", &machine.region),
        ("topology.kubernetes.io/zone", &machine.zone),
        ("karpenter.sh/capacity-type", machine.kind.as_str()),
    ]
}

pub fn unclaimed() -> Taint {
    Taint { key: labels::UNCLAIMED_TAINT.to_owned(), effect: "NoExecute".to_owned(), ..Taint::default() }
}

fn fake_node(machine: &Machine) -> Node {
    let facts = &machine.facts;
    let allocatable = facts.allocatable();
    let resources = |cpu_milli: u64, memory_mib: u64| {
        let mut resources = json!({
            "cpu": format!("{cpu_milli}m"),
            "memory": format!("{memory_mib}Mi"),
            "ephemeral-storage": "100Gi",
            "pods": allocatable.pods.to_string(),
        });
        if facts.gpus > 0 {
            resources["nvidia.com/gpu"] = json!(facts.gpus.to_string());
        }
        resources
    };
    let mut labels = json!({"kubernetes.io/hostname": machine.node, "kubernetes.io/os": "linux", "kubernetes.io/arch": facts.architecture});
    for (key, value) in node_labels(machine) {
        labels[key] = json!(value);
    }
    let node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": machine.node, "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": labels},
        "spec": {"providerID": machine.provider_id(), "taints": [unclaimed()]},
        "status": {
            "capacity": resources(u64::from(facts.vcpu) * 1000, facts.memory_mib),
            "allocatable": resources(allocatable.cpu_milli, allocatable.memory_mib),
        },
    });
    serde_json::from_value(node).expect("the manifest above is a Node")
}

pub fn failed(doing: &str) -> impl Fn(kube::Error) -> NodeError + use<> {
    let doing = doing.to_owned();
    move |source| NodeError::Kubernetes { doing: doing.clone(), source: Box::new(source) }
}

/// A status code that means somebody else has done it already.
pub fn unless<T>(code: u16, result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(answer)) if answer.code == code => Ok(()),
        other => other.map(drop),
    }
}
