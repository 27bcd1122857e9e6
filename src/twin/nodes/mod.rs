//! Nodes for the twin's instances: what runs in the simulated EC2 joins a Kubernetes cluster.
//!
//! [`run`] compares what should be there with what the backend has, again and again, so that it does not matter when the
//! twin or the backend was away. Backends: [`Kwok`] (fake nodes whose pods work at their stated rate) and [`Kubelet`] (a
//! real kubelet and containerd an instance, whose pods really run).

mod kubelet;
mod kwok;
mod pods;
mod registry;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};

pub use kubelet::Kubelet;
pub use kwok::Kwok;
use pods::Occasion;
use registry::Registry;
use tokio::time::MissedTickBehavior;

use super::Twin;
use super::world::World;
use crate::capacity::{CapacityKind, InstanceType};
use crate::scheduling::snapshot::InstanceState;
use crate::testbed::TestbedError;

/// How often programs report; also the pause after an error.
const TICK: Duration = Duration::from_millis(500);
/// Pods change in bursts; this much is waited for the rest of one.
const BURST: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("could not use the kubeconfig {path}; is it there, and does it name a cluster?")]
    Kubeconfig { path: String, #[source] source: Box<dyn std::error::Error + Send + Sync> },
    #[error("could not {doing}")]
    Kubernetes { doing: String, #[source] source: Box<kube::Error> },
    #[error("could not run the machine of {node}")]
    Machine { node: String, #[source] source: Box<TestbedError> },
}

/// Who makes nodes of instances.
pub enum NodeBackend {
    Kwok(Box<Kwok>),
    Kubelet(Box<Kubelet>),
}

impl NodeBackend {
    fn registry(&self) -> &Registry {
        match self {
            NodeBackend::Kwok(kwok) => &kwok.registry,
            NodeBackend::Kubelet(kubelet) => &kubelet.registry,
        }
    }

    /// Makes the nodes that are missing, all at once, and removes those whose instance is gone.
    async fn reconcile(&self, wanted: &BTreeMap<String, Machine>) -> Result<(), NodeError> {
        let known = self.registry().nodes().await?;
        let running = match self {
            NodeBackend::Kwok(_) => known.clone(),
            NodeBackend::Kubelet(kubelet) => kubelet.running().await,
        };
        let gone: BTreeSet<&String> = known.union(&running).filter(|node| !wanted.contains_key(*node)).collect();
        for node in gone {
            self.leave(node).await?;
        }
        let missing = wanted.values().filter(|machine| machine.ended_at.is_none() && !running.contains(&machine.node));
        futures::future::join_all(missing.map(|machine| self.join(machine))).await.into_iter().collect()
    }

    async fn join(&self, machine: &Machine) -> Result<(), NodeError> {
        match self {
            NodeBackend::Kwok(kwok) => kwok.registry.create(machine).await?,
            NodeBackend::Kubelet(kubelet) => kubelet.start(machine).await?,
        }
        tracing::info!(node = machine.node, instance = machine.instance, "joined");
        Ok(())
    }

    async fn leave(&self, node: &str) -> Result<(), NodeError> {
        if let NodeBackend::Kubelet(kubelet) = self {
            kubelet.stop(node).await;
        }
        self.registry().remove(node).await?;
        tracing::info!(node, "gone");
        Ok(())
    }
}

/// An instance that is, or was a moment ago, a machine of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub instance: String,
    /// Its private DNS name, as EC2 would name it.
    pub node: String,
    pub zone: String,
    pub region: String,
    pub kind: CapacityKind,
    pub facts: InstanceType,
    /// When it stopped working (shutting-down), if it has.
    pub ended_at: Option<DateTime<Utc>>,
}

impl Machine {
    pub fn provider_id(&self) -> String {
        format!("aws:///{}/{}", self.zone, self.instance)
    }
}

/// Instances from `running` until `terminated`, by node name.
pub fn machines(world: &World) -> BTreeMap<String, Machine> {
    let now = world.now();
    let mut machines = BTreeMap::new();
    for (number, found) in world.fleet.instances().iter().enumerate() {
        let has_run = found.running_at.is_some() && matches!(found.state_at(now), Some(InstanceState::Running | InstanceState::ShuttingDown));
        let Some(kind) = world.fleet.market().types.get(&found.order.pool.instance_type).filter(|_| has_run) else { continue };
        let machine = Machine {
            instance: found.id.clone(),
            node: super::ec2::private_dns_name(number, found.order.pool.region()),
            zone: found.order.pool.zone.clone(),
            region: found.order.pool.region().to_owned(),
            kind: found.order.kind,
            facts: kind.machine.clone(),
            ended_at: found.ending.map(|(at, _)| at),
        };
        machines.insert(machine.node.clone(), machine);
    }
    machines
}

/// Keeps the backend's nodes and their pods in step with the fleet, for as long as it is polled.
pub async fn run(twin: &Twin, backend: &NodeBackend) {
    match backend {
        NodeBackend::Kubelet(_) => keep_nodes(twin, backend).await,
        NodeBackend::Kwok(kwok) => tokio::select! {
            () = keep_nodes(twin, backend) => {}
            () = keep_pods(twin, kwok) => {}
            () = kwok.watch_pods() => {}
        },
    }
}

async fn keep_nodes(twin: &Twin, backend: &NodeBackend) {
    loop {
        let changed = twin.changed();
        let wanted = twin.with(|world| machines(world));
        match backend.reconcile(&wanted).await {
            // Somebody else may have deleted a node: look again after a while even if nothing happens here.
            Ok(()) => drop(tokio::time::timeout(Duration::from_secs(10), changed).await),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "nodes are behind; trying again");
                tokio::time::sleep(TICK).await;
            }
        }
    }
}

async fn keep_pods(twin: &Twin, kwok: &Kwok) {
    let mut gangs = pods::Gangs::default();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let occasion = tokio::select! {
            _ = ticks.tick() => Occasion::Time,
            // A program that is told to stop saves at once: its pod may not be there for long.
            () = kwok.pods_changed() => Occasion::Change,
        };
        let (machines, now) = twin.with(|world| (machines(world), world.now()));
        for order in gangs.look(&kwok.pods(), &machines, now, occasion) {
            if let Err(error) = kwok.obey(&order).await {
                tracing::warn!(pod = %order.pod, error = &error as &dyn std::error::Error, "a pod's report was not written; trying again");
                gangs.forget_report(&order);
            }
        }
        tokio::time::sleep(BURST).await;
    }
}
