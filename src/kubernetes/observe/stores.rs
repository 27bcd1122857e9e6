//! What is watched: one reflector a kind, each object guarded, so that one that does not parse blinds nobody.
//!
//! Jobs' and claims' records are not read from here but listed anew in every cycle (see [`super`]); their watches only say
//! that something changed.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::Api;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::api::{CapacityClaim, CapacityPool, Experiment, Team, TrainingJob, labels};

/// A kind whose objects may not parse.
pub type Guarded<K> = Store<DeserializeGuard<K>>;

pub struct Stores {
    pub experiments: Guarded<Experiment>,
    pub teams: Guarded<Team>,
    pub pools: Guarded<CapacityPool>,
    pub nodes: Guarded<Node>,
    /// Only those of attempts.
    pub workloads: Guarded<Job>,
    /// Only those of attempts.
    pub pods: Guarded<Pod>,
    /// Only those with the label of a pool.
    pub pool_pods: Guarded<Pod>,
    pub volume_claims: Guarded<PersistentVolumeClaim>,
    pub volumes: Guarded<PersistentVolume>,
    pub disruption_budgets: Guarded<PodDisruptionBudget>,
    _watches: JoinSet<()>,
}

#[derive(Debug, thiserror::Error)]
#[error("could not read the {kind} objects within {seconds} s; are the CRDs installed (purser install), and may purser list them?")]
pub struct NotReady {
    kind: &'static str,
    seconds: u64,
}

impl Stores {
    /// Starts all watches; `changed` is told whenever anything changed.
    pub fn start(client: &Client, changed: &Arc<Notify>) -> Stores {
        let mut watches = JoinSet::new();
        let of_attempts = watcher::Config::default().labels(labels::JOB_UID);
        let stores = Stores {
            experiments: reflect(&mut watches, Api::all(client.clone()), watcher::Config::default(), changed),
            teams: reflect(&mut watches, Api::all(client.clone()), watcher::Config::default(), changed),
            pools: reflect(&mut watches, Api::all(client.clone()), watcher::Config::default(), changed),
            nodes: reflect(&mut watches, Api::all(client.clone()), watcher::Config::default(), changed),
            workloads: reflect(&mut watches, Api::all(client.clone()), of_attempts.clone(), changed),
            pods: reflect(&mut watches, Api::all(client.clone()), of_attempts, changed),
            pool_pods: reflect(&mut watches, Api::all(client.clone()), watcher::Config::default().labels(labels::POOL), changed),
            volume_claims: reflect(&mut watches, Api::all(client.clone()), watcher::Config::default(), changed),
            volumes: reflect(&mut watches, Api::all(client.clone()), watcher::Config::default(), changed),
            disruption_budgets: reflect(&mut watches, Api::all(client.clone()), watcher::Config::default(), changed),
            _watches: JoinSet::new(),
        };
        notice::<TrainingJob>(&mut watches, Api::all(client.clone()), changed);
        notice::<CapacityClaim>(&mut watches, Api::all(client.clone()), changed);
        Stores { _watches: watches, ..stores }
    }

    /// Waits until each has seen everything once; before that "not there" would only mean "not looked".
    pub async fn ready(&self, limit: Duration) -> Result<(), NotReady> {
        wait("Experiment", &self.experiments, limit).await?;
        wait("Team", &self.teams, limit).await?;
        wait("CapacityPool", &self.pools, limit).await?;
        wait("Node", &self.nodes, limit).await?;
        wait("Job", &self.workloads, limit).await?;
        wait("Pod", &self.pods, limit).await?;
        wait("Pod", &self.pool_pods, limit).await?;
        wait("PersistentVolumeClaim", &self.volume_claims, limit).await?;
        wait("PersistentVolume", &self.volumes, limit).await?;
        wait("PodDisruptionBudget", &self.disruption_budgets, limit).await
    }
}

/// The objects that parse.
pub fn parsed<K: Resource<DynamicType = ()> + Clone + 'static>(store: &Guarded<K>) -> Vec<K> {
    store.state().into_iter().filter_map(|object| object.0.as_ref().ok().cloned()).collect()
}

async fn wait<K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static>(
    kind: &'static str,
    store: &Guarded<K>,
    limit: Duration,
) -> Result<(), NotReady> {
    let error = || NotReady { kind, seconds: limit.as_secs() };
    tokio::time::timeout(limit, store.wait_until_ready()).await.map_err(|_| error())?.map_err(|_| error())
}

fn reflect<K>(watches: &mut JoinSet<()>, api: Api<DeserializeGuard<K>>, config: watcher::Config, changed: &Arc<Notify>) -> Guarded<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let stream = watcher(api, config).default_backoff().modify(forget_managed_fields).reflect(writer);
    let changed = Arc::clone(changed);
    watches.spawn(stream.for_each(move |event| {
        told::<K, _>(event, &changed);
        futures::future::ready(())
    }));
    store
}

/// Watches a kind without keeping it.
fn notice<K>(watches: &mut JoinSet<()>, api: Api<PartialObjectMeta<K>>, changed: &Arc<Notify>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let stream = watcher(api, watcher::Config::default()).default_backoff();
    let changed = Arc::clone(changed);
    watches.spawn(stream.for_each(move |event: Result<watcher::Event<PartialObjectMeta<K>>, watcher::Error>| {
        told::<K, _>(event, &changed);
        futures::future::ready(())
    }));
}

fn told<K: Resource<DynamicType = ()>, T>(event: Result<watcher::Event<T>, watcher::Error>, changed: &Notify) {
    match event {
        Ok(_) => changed.notify_one(),
        Err(error) => tracing::warn!(kind = %K::kind(&()), error = %error, "the watch broke off and is started again"),
    }
}

/// Half of an object's size, and of no use here.
fn forget_managed_fields<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}
