//! Fake nodes, kept alive by kwok: made and deleted here, their pods told what they have done.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::json;
use tokio::sync::Mutex;

use super::Machine;
use super::pods::{Order, What};
use crate::api::labels;
use crate::capacity::CapacityKind;

/// Nodes that the twin made; the only ones that it touches.
const OURS: &str = "purser.dev/twin";

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("could not use the kubeconfig {path}; is it there, and does it name a cluster?")]
    Kubeconfig { path: String, #[source] source: Box<dyn std::error::Error + Send + Sync> },
    #[error("could not {doing}")]
    Kubernetes { doing: String, #[source] source: Box<kube::Error> },
}

pub struct Kwok {
    client: Client,
    pods: Store<Pod>,
    writer: Mutex<Option<reflector::store::Writer<Pod>>>,
}

impl Kwok {
    pub async fn connect(kubeconfig: &Path) -> Result<Kwok, NodeError> {
        let path = kubeconfig.display().to_string();
        let wrong = |source: Box<dyn std::error::Error + Send + Sync>| NodeError::Kubeconfig { path: path.clone(), source };
        let file = Kubeconfig::read_from(kubeconfig).map_err(|error| wrong(error.into()))?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(|error| wrong(error.into()))?;
        Ok(Kwok::new(Client::try_from(config).map_err(|error| wrong(error.into()))?))
    }

    pub fn new(client: Client) -> Kwok {
        let (pods, writer) = reflector::store();
        Kwok { client, pods, writer: Mutex::new(Some(writer)) }
    }

    /// Follows the pods of jobs, for as long as it is polled.
    pub async fn watch_pods(&self) {
        let Some(writer) = self.writer.lock().await.take() else { return std::future::pending().await };
        let api: Api<Pod> = Api::all(self.client.clone());
        let events = watcher(api, watcher::Config::default().labels(labels::JOB)).default_backoff().reflect(writer);
        events
            .for_each(|event| async {
                if let Err(error) = event {
                    tracing::debug!(error = &error as &dyn std::error::Error, "the watch of pods begins anew");
                }
            })
            .await;
    }

    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.state()
    }

    /// Makes the nodes that are missing, and removes those whose instance is gone together with their pods.
    pub async fn reconcile(&self, wanted: &BTreeMap<String, Machine>) -> Result<(), NodeError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let failed = |doing: String| move |source| NodeError::Kubernetes { doing, source: Box::new(source) };
        let existing = nodes.list(&ListParams::default().labels(OURS)).await.map_err(failed("list nodes".into()))?;
        for machine in wanted.values().filter(|machine| machine.ended_at.is_none()) {
            if !existing.iter().any(|node| node.name_any() == machine.node) {
                let created = ignore(409, nodes.create(&PostParams::default(), &node(machine)).await.map(drop));
                created.map_err(failed(format!("create node {}", machine.node)))?;
                tracing::info!(node = machine.node, instance = machine.instance, "joined");
            }
        }
        for node in existing.iter().map(ResourceExt::name_any).filter(|name| !wanted.contains_key(name)) {
            self.end_pods(&node).await?;
            ignore(404, nodes.delete(&node, &DeleteParams::default()).await.map(drop)).map_err(failed(format!("delete node {node}")))?;
            tracing::info!(node, "gone");
        }
        Ok(())
    }

    /// A machine that is gone takes its pods along without a word.
    async fn end_pods(&self, node: &str) -> Result<(), NodeError> {
        let failed = |source| NodeError::Kubernetes { doing: format!("end the pods of node {node}"), source: Box::new(source) };
        let all: Api<Pod> = Api::all(self.client.clone());
        for pod in all.list(&ListParams::default().fields(&format!("spec.nodeName={node}"))).await.map_err(failed)? {
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
            let params = DeleteParams::default().grace_period(0);
            ignore(404, api.delete(&pod.name_any(), &params).await.map(drop)).map_err(failed)?;
        }
        Ok(())
    }

    /// Writes on a pod what its program would have said; a pod that is gone has nothing to say.
    pub async fn obey(&self, order: &Order) -> Result<(), NodeError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &order.pod.namespace);
        let params = PatchParams::default();
        let written = match &order.what {
            What::Report(standing) => {
                let fraction = |fraction: f64| format!("{fraction:.6}");
                let annotations = json!({labels::PROGRESS: fraction(standing.fraction), labels::CHECKPOINT: fraction(standing.checkpoint)});
                api.patch(&order.pod.name, &params, &Patch::Merge(json!({"metadata": {"annotations": annotations}}))).await
            }
            What::Succeed(containers) => api.patch_status(&order.pod.name, &params, &Patch::Strategic(succeeded(containers))).await,
        };
        ignore(404, written.map(drop)).map_err(|source| NodeError::Kubernetes { doing: format!("write on pod {}", order.pod), source: Box::new(source) })
    }
}

fn ignore(code: u16, result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(answer)) if answer.code == code => Ok(()),
        other => other,
    }
}

fn succeeded(containers: &[String]) -> serde_json::Value {
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let statuses = containers.iter().map(|name| {
        json!({
            "name": name,
            "ready": false,
            "started": false,
            "state": {"running": null, "terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": now, "startedAt": now}},
        })
    });
    json!({"status": {
        "phase": "Succeeded",
        "containerStatuses": statuses.collect::<Vec<_>>(),
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "PodCompleted"},
            {"type": "ContainersReady", "status": "False", "reason": "PodCompleted"},
        ],
    }})
}

fn node(machine: &Machine) -> Node {
    let facts = &machine.facts;
    let capacity_type = match machine.kind {
        CapacityKind::Spot => "spot",
        CapacityKind::OnDemand => "on-demand",
        CapacityKind::Reserved => "reserved",
    };
    // What a kubelet keeps back is small; the whole machine is what jobs ask for.
    let mut resources = json!({
        "cpu": facts.vcpu.to_string(),
        "memory": format!("{}Mi", facts.memory_mib),
        "ephemeral-storage": "100Gi",
        "pods": "110",
    });
    if facts.gpus > 0 {
        resources["nvidia.com/gpu"] = json!(facts.gpus.to_string());
    }
    let node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": machine.node,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {
                OURS: "true",
                "kubernetes.io/hostname": machine.node,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": facts.architecture,
                "node.kubernetes.io/instance-type": facts.name,
                "topology.kubernetes.io/region": machine.region,
                "topology.kubernetes.io/zone": machine.zone,
                "karpenter.sh/capacity-type": capacity_type,
            },
        },
        "spec": {
            "providerID": machine.provider_id(),
            "taints": [{"key": labels::UNCLAIMED_TAINT, "effect": "NoExecute"}],
        },
        "status": {"capacity": resources, "allocatable": resources},
    });
    serde_json::from_value(node).expect("the manifest above is a Node")
}
