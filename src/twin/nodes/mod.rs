//! Nodes for the twin's instances: what runs in the simulated EC2 joins a Kubernetes cluster.
//!
//! [`run`] compares what should be there with what the backend has, again and again, so that it does not matter when the
//! twin or the backend was away. Backends: [`Kwok`] (fake nodes whose pods work at their stated rate).

mod kwok;
mod pods;
mod work;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

pub use kwok::{Kwok, NodeError};

use super::Twin;
use super::world::World;
use crate::capacity::{CapacityKind, InstanceType};
use crate::scheduling::snapshot::InstanceState;

/// How often pods are looked at; also the pause after an error.
const TICK: Duration = Duration::from_millis(500);

/// Who makes nodes of instances.
pub enum NodeBackend {
    Kwok(Kwok),
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
    let NodeBackend::Kwok(kwok) = backend;
    tokio::select! {
        () = keep_nodes(twin, kwok) => {}
        () = keep_pods(twin, kwok) => {}
        () = kwok.watch_pods() => {}
    }
}

async fn keep_nodes(twin: &Twin, kwok: &Kwok) {
    loop {
        let changed = twin.changed();
        let wanted = twin.with(|world| machines(world));
        match kwok.reconcile(&wanted).await {
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
    loop {
        tokio::time::sleep(TICK).await;
        let (machines, now) = twin.with(|world| (machines(world), world.now()));
        let orders = gangs.look(&kwok.pods(), &machines, now);
        for order in orders {
            if let Err(error) = kwok.obey(&order).await {
                tracing::warn!(pod = %order.pod, error = &error as &dyn std::error::Error, "a pod's report was not written; trying again");
                gangs.forget_report(&order);
            }
        }
    }
}
