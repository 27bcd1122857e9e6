//! The world → [`Snapshot`]. Reads everything, decides nothing.
//!
//! ```text
//!  API server ──lists, anew in every cycle──► jobs, claims      (the records that Purser itself writes)
//!             ──watches──────────────────────► experiments, teams, pools, nodes, Jobs, pods, volumes
//!  clouds     ───────────────────────────────► quotes, machines
//!  ledger     ──sums, kept in memory─────────► what was charged
//! ```
//! **No plan is made on a view older than Purser's own last writes**: jobs and claims are listed from etcd at the start of
//! each cycle, two requests whatever their number. What comes from watches may be older; every action that relies on it is
//! harmless when it was done before (AlreadyExists, resourceVersion), and `StartAttempt` reads live.

pub mod jobs;
pub mod nodes;
pub mod pods;
pub mod pools;
pub mod quantity;
pub mod stores;
pub mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use kube::{Client, ResourceExt};
use tokio::sync::Mutex;

use self::pods::VolumeZones;
use self::pools::{Quoter, SeenPool};
use self::stores::{Stores, parsed};
use self::workloads::Attempts;
use super::apply::{Seen, is_gated, region_of};
use super::clock::MarketClock;
use super::meter::Sums;
use crate::api::claim::core_claim;
use crate::api::{CapacityClaim, TrainingJob};
use crate::capacity::{Claim, Provider};
use crate::cloud::Cloud;
use crate::scheduling::{Snapshot, boot};
use crate::scheduling::snapshot::{CloudInstance, NodeView, Observed, PodView};

/// Events in the cluster come in bursts; the clouds are not asked for their machines more often than this (market time).
const MACHINES_LISTED_EVERY: TimeDelta = TimeDelta::seconds(1);

#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    #[error("could not list {what}")]
    List { what: &'static str, #[source] source: Box<kube::Error> },
}

pub struct Observer {
    pub client: Client,
    pub stores: Stores,
    pub cloud: Option<Arc<dyn Cloud>>,
    pub clock: MarketClock,
    pub cluster_id: String,
    machines: Mutex<Option<(Instant, Observed<Vec<CloudInstance>>)>>,
}

/// What only the cycle itself knows of the cycles before.
pub struct Known {
    pub orphans_seen: BTreeMap<String, DateTime<Utc>>,
    /// Market time from one plan to the next.
    pub reaction: TimeDelta,
    /// It is time to look for cheaper fleets.
    pub repair_due: bool,
}

/// A snapshot, and what applying and reporting need of the same moment.
pub struct Observation {
    pub snapshot: Snapshot,
    pub seen: Seen,
    pub pools: Vec<SeenPool>,
    /// Stored objects that do not parse, and the like.
    pub alerts: Vec<String>,
}

impl Observer {
    pub fn new(client: Client, stores: Stores, cloud: Option<Arc<dyn Cloud>>, clock: MarketClock, cluster_id: String) -> Observer {
        Observer { client, stores, cloud, clock, cluster_id, machines: Mutex::new(None) }
    }

    /// The next look asks the clouds again, however short a time ago the last one was.
    pub async fn forget_machines(&self) {
        *self.machines.lock().await = None;
    }

    pub async fn observe(&self, sums: &Sums, known: Known) -> Result<Observation, ObserveError> {
        let (claims, mut alerts) = self.claims().await?;
        let jobs = self.jobs().await?;
        let nodes = parsed(&self.stores.nodes);
        let pool_objects = self.stores.pools.state();
        let quoter = Quoter { cloud: self.cloud.as_ref(), cluster_id: &self.cluster_id, nodes: &nodes };
        let pools = quoter.views(&pool_objects).await;
        let instances = self.instances(&pools, &claims, &mut alerts).await;
        let teams = parsed(&self.stores.teams);
        let disputed = jobs::disputed_namespaces(&teams);
        let pool_pods = self.stores.pool_pods.state();
        let seen = Seen {
            claims: claims.readable.iter().map(|claim| (claim.name_any(), claim.resource_version().unwrap_or_default())).collect(),
            regions: pools.iter().filter_map(|pool| Some((pool.view.name.clone(), pool.config.as_ref()?.region.clone()))).collect(),
            held_back: held_back(&pool_pods),
        };
        let experiments = jobs::experiment_views(&parsed(&self.stores.experiments), sums);
        let mut snapshot = Snapshot {
            now: self.clock.now(),
            real_now: self.clock.real_now(),
            jobs: jobs::job_views(jobs, &experiments, &disputed, sums),
            experiments,
            teams: jobs::team_views(&teams, sums),
            pools: pools.iter().map(|pool| pool.view.clone()).collect(),
            claims: claims.readable.iter().filter_map(core_claim).collect(),
            nodes: node_views(&nodes, &pool_objects),
            workloads: self.workloads(&nodes),
            pods: self.pods(&pool_pods),
            disruption_budgets: pods::disruption_budgets(&parsed(&self.stores.disruption_budgets)),
            repair_due: known.repair_due,
            instances,
            orphans_seen: known.orphans_seen,
            reaction: known.reaction,
        };
        boot::learn(&mut snapshot);
        Ok(Observation { snapshot, seen, pools, alerts })
    }

    async fn jobs(&self) -> Result<Vec<DeserializeGuard<TrainingJob>>, ObserveError> {
        let api: Api<DeserializeGuard<TrainingJob>> = Api::all(self.client.clone());
        let list = api.list(&ListParams::default()).await;
        Ok(list.map_err(|source| ObserveError::List { what: "TrainingJobs", source: Box::new(source) })?.items)
    }

    async fn claims(&self) -> Result<(Claims, Vec<String>), ObserveError> {
        let api: Api<DeserializeGuard<CapacityClaim>> = Api::all(self.client.clone());
        let list = api.list(&ListParams::default()).await;
        let items = list.map_err(|source| ObserveError::List { what: "CapacityClaims", source: Box::new(source) })?.items;
        let (mut claims, mut alerts) = (Claims::default(), Vec::new());
        for item in items {
            match item.0 {
                Ok(claim) => claims.readable.push(claim),
                Err(invalid) => {
                    let name = invalid.metadata.name.unwrap_or_default();
                    alerts.push(format!("claim {name} cannot be read, its machines are left alone: {}", invalid.error));
                    claims.unreadable.insert(name);
                }
            }
        }
        Ok((claims, alerts))
    }

    fn workloads(&self, nodes: &[Node]) -> Vec<crate::scheduling::snapshot::WorkloadView> {
        let names: BTreeSet<String> = nodes.iter().map(ResourceExt::name_any).collect();
        let attempts = Attempts { clock: &self.clock, real_now: self.clock.real_now(), nodes: &names };
        attempts.views(&parsed(&self.stores.workloads), &parsed(&self.stores.pods))
    }

    fn pods(&self, objects: &[Arc<DeserializeGuard<Pod>>]) -> Vec<PodView> {
        let volumes = VolumeZones::of(&parsed(&self.stores.volume_claims), &parsed(&self.stores.volumes));
        pods::views(objects.iter().filter_map(|object| object.0.as_ref().ok()), &volumes)
    }

    /// `Unknown` as soon as one region does not answer: machines that were not looked at are not gone.
    async fn instances(&self, pools: &[SeenPool], claims: &Claims, alerts: &mut Vec<String>) -> Observed<Vec<CloudInstance>> {
        let mut kept = self.machines.lock().await;
        if let Some((at, machines)) = kept.as_ref()
            && at.elapsed() < self.clock.real_span(MACHINES_LISTED_EVERY).to_std().unwrap_or_default()
        {
            return machines.clone();
        }
        let machines = self.list_machines(regions(pools, &claims.readable), claims, alerts).await;
        *kept = Some((Instant::now(), machines.clone()));
        machines
    }

    async fn list_machines(&self, regions: BTreeSet<String>, claims: &Claims, alerts: &mut Vec<String>) -> Observed<Vec<CloudInstance>> {
        let Some(cloud) = &self.cloud else {
            return if regions.is_empty() { Observed::Absent } else { Observed::Unknown };
        };
        let mut machines = Vec::new();
        for region in regions {
            match cloud.instances(&region, &self.cluster_id).await {
                Ok(listed) => machines.extend(listed),
                Err(error) => {
                    alerts.push(format!("the machines in {region} are not known: {error}"));
                    return Observed::Unknown;
                }
            }
        }
        // Those of a claim that cannot be read are not orphans.
        machines.retain(|machine| machine.claim.as_ref().is_none_or(|claim| !claims.unreadable.contains(claim)));
        Observed::Known(machines)
    }
}

fn held_back(pods: &[Arc<DeserializeGuard<Pod>>]) -> BTreeMap<String, Arc<DeserializeGuard<Pod>>> {
    let uid = |pod: &Arc<DeserializeGuard<Pod>>| pod.0.as_ref().ok().filter(|pod| is_gated(pod))?.uid();
    pods.iter().filter_map(|pod| Some((uid(pod)?, Arc::clone(pod)))).collect()
}

#[derive(Default)]
struct Claims {
    readable: Vec<CapacityClaim>,
    unreadable: BTreeSet<String>,
}

/// Of pools, and of claims whose pool may be gone.
fn regions(pools: &[SeenPool], claims: &[CapacityClaim]) -> BTreeSet<String> {
    let of_pools = pools.iter().filter_map(|pool| Some(pool.config.as_ref()?.region.clone()));
    let open = claims.iter().filter_map(core_claim).filter(|claim| claim.record.offer.provider == Provider::Aws && may_have_machines(claim));
    of_pools.chain(open.map(|claim| region_of(&claim.record))).filter(|region| !region.is_empty()).collect()
}

fn may_have_machines(claim: &Claim) -> bool {
    claim.status.phase == crate::capacity::ClaimPhase::Written || claim.open_instances().next().is_some()
}

fn node_views(nodes: &[Node], pools: &[Arc<DeserializeGuard<crate::api::CapacityPool>>]) -> Vec<NodeView> {
    let selectors = pools::nodes_pools(pools);
    let pool_of = |node: &Node| {
        let selected = selectors.iter().find(|(_, pool)| nodes::is_selected(node, pool)).map(|(name, _)| (*name).to_owned());
        selected.or_else(|| node.labels().get(crate::api::labels::POOL).cloned())
    };
    nodes.iter().map(|node| nodes::view(node, pool_of)).collect()
}
