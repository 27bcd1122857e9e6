//! A world made from files alone: their jobs, experiments, teams and pools, at the prices of the catalogue in the binary
//! (`super::market` puts the market's own in their place).
//!
//! What the files leave out is assumed and said: an experiment without budget, a pool of the whole region. Nodes, quotas,
//! reservations and what was spent before are only known in a cluster.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::conditions::kubernetes_time;
use crate::api::training_job::JobSpecError;
use crate::api::{CapacityPool, Experiment, Team, TrainingJob};
use crate::capacity::catalogue::{self, CatalogueEntry};
use crate::capacity::offer::QuotedOffer;
use crate::capacity::{CapacityKind, InstanceRequirements, Offer, PriceSource, Provider};
use crate::cli::documents::{Document, Object};
use crate::scheduling::Snapshot;
use crate::scheduling::snapshot::{ExperimentView, JobView, Observed, PoolView, TeamView};
use crate::training::{Job, JobStatus};
use crate::units::{Money, MoneyPerHour, Span};

/// A snapshot, and what a reader must know about how it came to be.
#[derive(Clone, Debug)]
pub struct World {
    pub snapshot: Snapshot,
    pub notes: Vec<String>,
}

/// When the plan is made, and what stands in for what the files leave out.
#[derive(Clone, Debug)]
pub struct Assumptions {
    pub at: DateTime<Utc>,
    /// Namespace of objects that name none.
    pub namespace: String,
    /// Region of the pool that is assumed where the files have none.
    pub region: String,
}

pub fn build(documents: &[Document], assume: &Assumptions) -> Result<World, JobSpecError> {
    let mut notes = BTreeSet::new();
    let mut snapshot = empty(assume.at);
    for document in documents {
        match &document.object {
            Object::Namespace(_) => {}
            Object::Pool(pool) => snapshot.pools.push(pool_view(pool, &mut notes)),
            Object::Team(team) => snapshot.teams.push(team_view(team)),
            Object::Experiment(experiment) => snapshot.experiments.push(experiment_view(experiment, assume)),
            Object::Job(job) => snapshot.jobs.push(job_view(job, snapshot.jobs.len(), assume)?),
        }
    }
    if snapshot.pools.is_empty() {
        snapshot.pools.push(assumed_pool(&assume.region, &mut notes));
    }
    assume_experiments(&mut snapshot, &mut notes);
    Ok(World { snapshot, notes: notes.into_iter().collect() })
}

fn empty(at: DateTime<Utc>) -> Snapshot {
    Snapshot {
        now: at,
        real_now: at,
        jobs: Vec::new(),
        experiments: Vec::new(),
        teams: Vec::new(),
        pools: Vec::new(),
        claims: Vec::new(),
        nodes: Vec::new(),
        workloads: Vec::new(),
        pods: Vec::new(),
        disruption_budgets: Vec::new(),
        repair_due: false,
        instances: Observed::Known(Vec::new()),
        orphans_seen: BTreeMap::new(),
        reaction: Default::default(),
    }
}

/// The job as if it had just been submitted.
fn job_view(job: &TrainingJob, number: usize, assume: &Assumptions) -> Result<JobView, JobSpecError> {
    let metadata = ObjectMeta {
        namespace: job.metadata.namespace.clone().or_else(|| Some(assume.namespace.clone())),
        uid: Some(format!("planned-{number}")),
        creation_timestamp: Some(kubernetes_time(assume.at)),
        ..job.metadata.clone()
    };
    let stored = TrainingJob { metadata, spec: job.spec.clone(), status: None };
    Ok(JobView {
        job: Job::try_from(&stored)?,
        status: JobStatus::default(),
        progress: None,
        checkpoint: None,
        version: String::new(),
        metered: Money::ZERO_USD,
        deleting: false,
        invalid: None,
    })
}

fn experiment_view(experiment: &Experiment, assume: &Assumptions) -> ExperimentView {
    ExperimentView {
        namespace: experiment.metadata.namespace.clone().unwrap_or_else(|| assume.namespace.clone()),
        name: experiment.metadata.name.clone().unwrap_or_default(),
        owner: experiment.spec.owner.clone(),
        budget: experiment.spec.budget,
        metered: Money::ZERO_USD,
    }
}

fn team_view(team: &Team) -> TeamView {
    TeamView {
        name: team.metadata.name.clone().unwrap_or_default(),
        namespaces: team.spec.namespaces.clone(),
        monthly_budget: team.spec.monthly_budget,
        metered_this_month: Money::ZERO_USD,
    }
}

fn assume_experiments(snapshot: &mut Snapshot, notes: &mut BTreeSet<String>) {
    for view in &snapshot.jobs {
        let (namespace, name) = (&view.job.id.namespace, &view.job.experiment);
        if snapshot.experiments.iter().any(|known| known.namespace == *namespace && known.name == *name) {
            continue;
        }
        notes.insert(format!("experiment {namespace}/{name} is not in the files; assumed without a budget"));
        let assumed = ExperimentView { namespace: namespace.clone(), name: name.clone(), owner: String::new(), budget: None, metered: Money::ZERO_USD };
        snapshot.experiments.push(assumed);
    }
}

fn pool_view(pool: &CapacityPool, notes: &mut BTreeSet<String>) -> PoolView {
    let name = pool.metadata.name.clone().unwrap_or_default();
    let spec = &pool.spec;
    let (state, offers) = match (&spec.provider, &spec.aws) {
        (Provider::Aws, Some(aws)) => (Ok(()), offers(&aws.region, aws.subnets.keys().map(String::as_str), &spec.requirements, notes)),
        (Provider::Aws, None) => (Err(("InvalidSpec".to_owned(), "spec.aws is missing".to_owned())), Vec::new()),
        (Provider::Nodes, _) => {
            notes.insert(format!("pool {name} is of existing nodes, which only a cluster knows; it is left out"));
            (Err(("PoolNotReady".to_owned(), "its nodes are only known in a cluster".to_owned())), Vec::new())
        }
    };
    view(name, spec.provider, spec.requirements.clone(), state, offers, spec.boot, spec.limits.machines)
}

fn assumed_pool(region: &str, notes: &mut BTreeSet<String>) -> PoolView {
    notes.insert(format!("the files have no CapacityPool; assumed is one over zones a, b and c of {region}"));
    let zones: Vec<String> = ["a", "b", "c"].iter().map(|zone| format!("{region}{zone}")).collect();
    let requirements = InstanceRequirements::default();
    let offers = offers(region, zones.iter().map(String::as_str), &requirements, notes);
    view("(assumed)".to_owned(), Provider::Aws, requirements, Ok(()), offers, Span::minutes(3), None)
}

fn view(
    name: String,
    provider: Provider,
    requirements: InstanceRequirements,
    state: Result<(), (String, String)>,
    offers: Vec<QuotedOffer>,
    boot: Span,
    machines_max: Option<u32>,
) -> PoolView {
    let as_of = offers.iter().filter_map(|quoted| catalogue::lookup(&region_of(&quoted.offer.zone), &quoted.offer.instance_type)).map(|entry| entry.as_of).min();
    let price_source = PriceSource::Catalogue { as_of: as_of.map(|date| date.to_string()).unwrap_or_default() };
    PoolView { name, provider, requirements, state, offers, price_source, boot, machines_max, pods: None, request_template: "{}".to_owned() }
}

/// `us-east-1a` → `us-east-1`.
fn region_of(zone: &str) -> String {
    zone.trim_end_matches(|letter: char| letter.is_ascii_lowercase()).to_owned()
}

fn offers<'a>(region: &str, zones: impl Iterator<Item = &'a str> + Clone, requirements: &InstanceRequirements, notes: &mut BTreeSet<String>) -> Vec<QuotedOffer> {
    if !catalogue::regions().contains(&region) {
        notes.insert(format!("the catalogue knows no region {region}; there are no offers from it"));
    }
    let mut offers = Vec::new();
    for entry in catalogue::matching(region, requirements) {
        for zone in zones.clone().filter(|zone| requirements.admits_zone(zone)) {
            offers.extend(quoted(entry, zone, CapacityKind::OnDemand, Some(entry.on_demand)));
            offers.extend(quoted(entry, zone, CapacityKind::Spot, entry.spot_average));
        }
    }
    offers
}

fn quoted(entry: &CatalogueEntry, zone: &str, kind: CapacityKind, price: Option<MoneyPerHour>) -> Option<QuotedOffer> {
    let offer = Offer { provider: Provider::Aws, instance_type: entry.machine.name.clone(), zone: zone.to_owned(), kind, price: price?, reservation: None };
    Some(QuotedOffer { offer, machine: entry.machine.clone(), available_max: None })
}

/// Warnings about the prices of the offers that a decision names.
pub fn price_warnings<'a>(offers: impl Iterator<Item = &'a Offer>) -> BTreeSet<String> {
    offers.flat_map(|offer| catalogue::warnings(&region_of(&offer.zone), &offer.instance_type)).collect()
}
