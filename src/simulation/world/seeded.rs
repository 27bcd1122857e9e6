//! Worlds from a seed: a pool of cloud machines, a few standing nodes, a handful of jobs of every sort.

use chrono::{DateTime, TimeDelta, Utc};
use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use super::{Faults, World};
use crate::capacity::offer::QuotedOffer;
use crate::capacity::{CapacityKind, InstanceRequirements, InstanceType, Offer, PriceSource, Provider};
use crate::scheduling::snapshot::{JobView, NodeView, PoolView};
use crate::training::{Checkpoint, Job, JobRef, JobStatus};
use crate::units::{Money, MoneyPerHour, Span};

pub const NAMESPACE: &str = "lab";
pub const CLOUD_POOL: &str = "gpu";
pub const NODE_POOL: &str = "standing";

/// 2026-03-01 12:00 UTC.
fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_772_366_400, 0).unwrap_or_default()
}

/// A world full of faults, with all its jobs submitted.
pub fn world(seed: u64) -> World {
    let speed = if seed.is_multiple_of(2) { 1 } else { 60 };
    let mut world = World::new(seed, start(), speed);
    world.faults = Faults::HARSH;
    world.pools = vec![cloud_pool(), node_pool()];
    world.experiments.insert("vision".into(), None);
    world.experiments.insert("speech".into(), Some(Money::usd_atoms(8 * crate::units::money::ATOMS_PER_UNIT)));
    for index in 0..2 {
        let node = standing_node(index);
        world.nodes.insert(node.name.clone(), node);
    }
    for index in 0..world.random.random_range(2..6) {
        let job = job(index, &mut world.random);
        world.jobs.insert(job.id.uid.clone(), view(job));
    }
    world
}

impl World {
    /// Users change their minds.
    pub fn meddle(&mut self) {
        let uids: Vec<String> = self.jobs.keys().cloned().collect();
        let index = self.random.random_range(0..uids.len().max(1));
        let cancels = self.random.random_bool(0.5);
        if let Some(view) = uids.get(index).and_then(|uid| self.jobs.get_mut(uid)) {
            if cancels {
                view.job.cancelled = true;
            } else {
                view.deleting = true;
            }
        }
    }
}

fn view(job: Job) -> JobView {
    JobView {
        job,
        status: JobStatus::default(),
        progress: None,
        checkpoint: None,
        version: "0".into(),
        metered: Money::ZERO_USD,
        deleting: false,
        invalid: None,
    }
}

fn job(index: u32, random: &mut ChaCha12Rng) -> Job {
    let minutes = random.random_range(5..60);
    let deadline = random.random_bool(0.5).then(|| start() + TimeDelta::minutes(random.random_range(10..400)));
    let kinds = match random.random_range(0..4) {
        0 => vec![CapacityKind::Spot],
        1 => vec![CapacityKind::OnDemand],
        _ => CapacityKind::ALL.to_vec(),
    };
    Job {
        id: JobRef { namespace: NAMESPACE.into(), name: format!("job-{index}"), uid: format!("uid-{index}") },
        generation: 1,
        submitted_at: start(),
        experiment: if random.random_bool(0.7) { "vision".into() } else { "speech".into() },
        workers: random.random_range(1..4),
        expected_duration: Span::minutes(minutes),
        deadline,
        checkpoint: Checkpoint { interval: Span::minutes(5), restart_overhead: Span::minutes(1), uri: None },
        capacity_kinds: kinds,
        requirements: InstanceRequirements::default(),
        pool: None,
        budget: None,
        retries_max: 2,
        priority: random.random_range(0..3),
        cancelled: false,
    }
}

fn quoted(provider: Provider, instance_type: &str, zone: &str, kind: CapacityKind, cents: i128) -> QuotedOffer {
    let price = MoneyPerHour(Money::usd_atoms(cents * crate::units::money::ATOMS_PER_UNIT / 100));
    let offer = Offer { provider, instance_type: instance_type.into(), zone: zone.into(), kind, price, reservation: None };
    let machine = InstanceType {
        name: instance_type.into(),
        vcpu: 4,
        memory_mib: 16_384,
        gpus: 1,
        gpu_name: Some("A10G".into()),
        architecture: "amd64".into(),
        pods: 0,
    };
    QuotedOffer { offer, machine, available_max: None }
}

fn pool(name: &str, provider: Provider, offers: Vec<QuotedOffer>) -> PoolView {
    PoolView {
        name: name.into(),
        provider,
        requirements: InstanceRequirements::default(),
        state: Ok(()),
        offers,
        price_source: PriceSource::Live,
        boot: Span::minutes(3),
        machines_max: Some(8),
        pods: None,
        request_template: "{}".into(),
    }
}

fn cloud_pool() -> PoolView {
    let quoted = |zone, kind, cents| quoted(Provider::Aws, "g5.xlarge", zone, kind, cents);
    let offers = vec![
        quoted("us-east-1a", CapacityKind::Spot, 40),
        quoted("us-east-1b", CapacityKind::Spot, 45),
        quoted("us-east-1a", CapacityKind::OnDemand, 101),
        quoted("us-east-1b", CapacityKind::OnDemand, 101),
    ];
    pool(CLOUD_POOL, Provider::Aws, offers)
}

fn node_pool() -> PoolView {
    pool(NODE_POOL, Provider::Nodes, vec![quoted(Provider::Nodes, "metal", "hall-1", CapacityKind::OnDemand, 90)])
}

fn standing_node(index: u32) -> NodeView {
    NodeView {
        name: format!("standing-{index}"),
        provider_id: None,
        ready: true,
        schedulable: true,
        unclaimed_taint: false,
        leaving_taint: false,
        claim: None,
        labels: [("node.kubernetes.io/instance-type".to_owned(), "metal".to_owned())].into(),
        pool: Some(NODE_POOL.into()),
        room: None,
    }
}
