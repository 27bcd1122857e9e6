//! Fake nodes, kept alive by kwok: their pods are told what their programs have done.

use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::sync::{Mutex, Notify};

use super::NodeError;
use super::pods::{Order, What};
use super::registry::{Registry, failed, unless};
use crate::api::labels;

pub struct Kwok {
    pub(super) registry: Registry,
    pods: Store<Pod>,
    writer: Mutex<Option<reflector::store::Writer<Pod>>>,
    /// A pod came, went or changed.
    seen: Notify,
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
        Kwok { registry: Registry { client }, pods, writer: Mutex::new(Some(writer)), seen: Notify::new() }
    }

    /// Follows the pods of jobs, for as long as it is polled.
    pub async fn watch_pods(&self) {
        let Some(writer) = self.writer.lock().await.take() else { return std::future::pending().await };
        let api: Api<Pod> = Api::all(self.registry.client.clone());
        let events = watcher(api, watcher::Config::default().labels(labels::JOB)).default_backoff().reflect(writer);
        events
            .for_each(|event| async {
                match event {
                    Ok(_) => self.seen.notify_one(),
                    Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "the watch of pods begins anew"),
                }
            })
            .await;
    }

    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.state()
    }

    /// Ends when a pod has changed since the last call.
    pub async fn pods_changed(&self) {
        self.seen.notified().await;
    }

    /// Writes on a pod what its program would have said; a pod that is gone has nothing to say.
    pub async fn obey(&self, order: &Order) -> Result<(), NodeError> {
        let api: Api<Pod> = Api::namespaced(self.registry.client.clone(), &order.pod.namespace);
        let params = PatchParams::default();
        let written = match &order.what {
            What::Report(standing) => {
                let fraction = |fraction: f64| format!("{fraction:.6}");
                let annotations = json!({labels::PROGRESS: fraction(standing.fraction), labels::CHECKPOINT: fraction(standing.checkpoint)});
                api.patch(&order.pod.name, &params, &Patch::Merge(json!({"metadata": {"annotations": annotations}}))).await
            }
            What::Succeed(containers) => api.patch_status(&order.pod.name, &params, &Patch::Strategic(succeeded(containers))).await,
        };
        unless(404, written).map_err(failed(&format!("write on pod {}", order.pod)))
    }
}

/// What a kubelet writes when every program has ended with 0.
fn succeeded(containers: &[k8s_openapi::api::core::v1::ContainerStatus]) -> serde_json::Value {
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let statuses = containers.iter().map(|container| {
        let mut status = json!(container);
        let started = status["state"]["running"]["startedAt"].take();
        let started = if started.is_null() { json!(now) } else { started };
        status["ready"] = json!(false);
        status["started"] = json!(false);
        status["state"] = json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": started, "finishedAt": now}});
        status
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
