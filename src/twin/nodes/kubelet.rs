//! Real nodes: a kubelet and a containerd for each instance, in a local cluster that was started for real nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tokio::sync::Mutex;

use super::registry::{Registry, node_labels, unclaimed};
use super::{Machine, NodeError};
use crate::testbed::{LocalCluster, RealNode, RealNodeRequest, TestbedError};

pub struct Kubelet {
    pub(super) registry: Registry,
    cluster: LocalCluster,
    /// Image archives that each node gets, since no registry can be reached.
    images: Vec<PathBuf>,
    running: Mutex<BTreeMap<String, RealNode>>,
}

impl Kubelet {
    /// Real nodes of the cluster that runs in a folder (`purser cluster up --real-nodes`).
    pub async fn attach(cluster: &Path, images: Vec<PathBuf>) -> Result<Kubelet, NodeError> {
        let failed = |source| NodeError::Machine { node: cluster.display().to_string(), source: Box::new(source) };
        let cluster = LocalCluster::attach(cluster).map_err(failed)?;
        let registry = Registry { client: cluster.client().await.map_err(failed)? };
        Ok(Kubelet { registry, cluster, images, running: Mutex::default() })
    }

    pub async fn running(&self) -> BTreeSet<String> {
        self.running.lock().await.keys().cloned().collect()
    }

    pub async fn start(&self, machine: &Machine) -> Result<(), NodeError> {
        let node = self.power_on(machine).await.map_err(|source| NodeError::Machine { node: machine.node.clone(), source: Box::new(source) })?;
        self.running.lock().await.insert(machine.node.clone(), node);
        Ok(())
    }

    async fn power_on(&self, machine: &Machine) -> Result<RealNode, TestbedError> {
        let gpus = (machine.facts.gpus > 0).then(|| ("nvidia.com/gpu".to_owned(), machine.facts.gpus.to_string()));
        let request = RealNodeRequest {
            name: machine.node.clone(),
            provider_id: machine.provider_id(),
            labels: node_labels(machine).into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            taints: vec![unclaimed()],
            extended_resources: gpus.into_iter().collect(),
        };
        let node = RealNode::start(&self.cluster, request).await?;
        for image in &self.images {
            node.import_image(image).await?;
        }
        Ok(node)
    }

    /// Pulls the plug.
    pub async fn stop(&self, node: &str) {
        let running = self.running.lock().await.remove(node);
        if let Some(node) = running {
            node.stop().await;
        }
    }
}
