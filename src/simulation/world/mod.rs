//! A whole world in memory for the planner to run in: jobs, claims, a cloud, nodes, pods, a meter. One seed is one history.
//!
//! ```text
//!  evolve (machines boot, join, are taken; programs work) ─► observe (maybe stale) ─► plan ─► audit
//!     ▲                                                                                        │
//!     └──── check invariants ◄──── apply one action after another (maybe die in between) ◄─────┘
//! ```
//! It is harsher than life: caches of different kinds are stale independently, the process dies between any two effects, also
//! between the cloud's answer and its recording; clouds refuse, give too few, interrupt with and without notice; machines do
//! not join; programs fail. What it applies is what `kubernetes::apply` promises: see the preconditions in
//! [`crate::scheduling::Action`]. Prices do not move here (the market and the twin are for that).

mod cloud;
mod cluster;
mod effects;
mod invariants;
pub mod seeded;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::capacity::billing::hour_of;
use crate::capacity::{CapacityKind, Claim, Provider};
use crate::scheduling::snapshot::{ExperimentView, JobView, NodeView, Observed, PoolView, Snapshot, WorkloadView};
use crate::scheduling::{Plan, audit, explain, plan};
use crate::training::PodRecord;
use crate::units::Money;
use cloud::Cloud;
use cluster::Workload;

/// How hostile the world is; probabilities are per occasion, rates per hour of market time.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// The process dies before an effect.
    pub crash: f64,
    /// The cloud has answered and the process dies before that is recorded.
    pub lost_answer: f64,
    /// The cloud says yes to ending a machine, and does not.
    pub lost_terminate: f64,
    /// Somebody deletes a claim by hand, finalizer and all (per hour).
    pub vandals: f64,
    /// Caches lag, each by its own number of steps.
    pub stale: bool,
    /// The clouds cannot be listed in this step.
    pub blind: f64,
    pub refused_spot: f64,
    pub refused_on_demand: f64,
    pub partial: f64,
    pub never_joins: f64,
    pub interruptions: f64,
    /// Interruptions without notice.
    pub unannounced: f64,
    pub program_failures: f64,
}

impl Faults {
    pub const NONE: Faults = Faults {
        crash: 0.0,
        lost_answer: 0.0,
        lost_terminate: 0.0,
        vandals: 0.0,
        stale: false,
        blind: 0.0,
        refused_spot: 0.0,
        refused_on_demand: 0.0,
        partial: 0.0,
        never_joins: 0.0,
        interruptions: 0.0,
        unannounced: 0.0,
        program_failures: 0.0,
    };
    pub const HARSH: Faults = Faults {
        crash: 0.05,
        lost_answer: 0.2,
        lost_terminate: 0.1,
        vandals: 0.05,
        stale: true,
        blind: 0.1,
        refused_spot: 0.3,
        refused_on_demand: 0.1,
        partial: 0.1,
        never_joins: 0.05,
        interruptions: 0.5,
        unannounced: 0.2,
        program_failures: 0.05,
    };
}

/// The most steps that the views of jobs, claims, nodes, workloads and machines lag behind. The shell lists jobs, claims and
/// machines anew for every cycle and watches the rest.
const LAGS: [usize; 5] = [2, 2, 8, 8, 2];
const LAG_MAX: usize = 8;

/// One history from a seed.
pub struct World {
    pub now: DateTime<Utc>,
    pub real_now: DateTime<Utc>,
    /// Market seconds per real second.
    pub speed: i64,
    pub faults: Faults,
    pub jobs: BTreeMap<String, JobView>,
    /// Jobs whose finalizer was let go, and all they came to.
    pub departed: BTreeMap<String, JobView>,
    pub experiments: BTreeMap<String, Option<Money>>,
    pub pools: Vec<PoolView>,
    pub claims: BTreeMap<String, Claim>,
    pub cloud: Cloud,
    pub nodes: BTreeMap<String, NodeView>,
    workloads: BTreeMap<String, Workload>,
    /// What is in the ledger, by claim.
    ledger: BTreeMap<String, LedgerEntry>,
    random: ChaCha12Rng,
    frames: VecDeque<Snapshot>,
    caches: [usize; 5],
    steps: usize,
    orphans_seen: BTreeMap<String, DateTime<Utc>>,
    versions: u64,
    /// Machines without claim, and since when.
    ownerless_since: BTreeMap<String, DateTime<Utc>>,
    pub log: Vec<String>,
}

struct LedgerEntry {
    job: String,
    experiment: String,
    amount: Money,
}

impl World {
    pub fn new(seed: u64, start: DateTime<Utc>, speed: i64) -> World {
        World {
            now: start,
            real_now: start,
            speed,
            faults: Faults::NONE,
            jobs: BTreeMap::new(),
            departed: BTreeMap::new(),
            experiments: BTreeMap::new(),
            pools: Vec::new(),
            claims: BTreeMap::new(),
            cloud: Cloud::default(),
            nodes: BTreeMap::new(),
            workloads: BTreeMap::new(),
            ledger: BTreeMap::new(),
            random: ChaCha12Rng::seed_from_u64(seed),
            frames: VecDeque::new(),
            caches: [0; 5],
            steps: 0,
            orphans_seen: BTreeMap::new(),
            versions: 0,
            ownerless_since: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    /// Time passes, one cycle runs, and the invariants are checked. Returns the plan that was made.
    pub fn step(&mut self, passes: TimeDelta) -> Result<Plan, String> {
        self.evolve(passes);
        let snapshot = self.observe();
        let made = plan(&snapshot);
        let approved = audit(&snapshot, made.clone());
        if approved != made {
            return Err(format!("the audit dropped something: {:#?}", approved.alerts));
        }
        self.orphans_seen = made.orphans_seen.clone();
        if !made.actions.is_empty() {
            self.log.push(format!("— {} —", self.now));
            self.log.extend(explain::plan_lines(&made));
        }
        for action in &made.actions {
            if self.dies() {
                self.restart();
                break;
            }
            self.apply(action, &snapshot)?;
            self.check()?;
        }
        self.check()?;
        Ok(made)
    }

    fn evolve(&mut self, passes: TimeDelta) {
        self.now += passes;
        self.real_now += passes / i32::try_from(self.speed).unwrap_or(1);
        let taken = self.cloud.evolve(self.now, passes, self.faults, &mut self.random);
        self.log.extend(taken);
        self.evolve_cluster(passes);
        self.lose_a_claim(passes);
        self.meter();
    }

    fn lose_a_claim(&mut self, passes: TimeDelta) {
        if self.chance((self.faults.vandals * passes.num_seconds() as f64 / 3600.0).min(1.0)) {
            let granted = self.claims.values().filter(|claim| claim.is_granted() && claim.record.offer.provider == Provider::Aws);
            let name = granted.map(|claim| claim.name.clone()).next();
            if let Some(name) = name {
                self.log.push(format!("‡ somebody deletes {name}"));
                self.claims.remove(&name);
            }
        }
    }

    fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.random.random_bool(probability)
    }

    fn dies(&mut self) -> bool {
        self.chance(self.faults.crash)
    }

    /// A new process lists everything afresh and remembers nothing.
    fn restart(&mut self) {
        self.log.push("† the process dies".to_owned());
        self.orphans_seen.clear();
        self.caches = [self.steps + 1; 5];
    }

    fn next_version(&mut self) -> String {
        self.versions += 1;
        self.versions.to_string()
    }

    // — observe —

    /// Everything as it is, or each kind as it was some steps ago; a cache never goes back.
    pub fn observe(&mut self) -> Snapshot {
        self.steps += 1;
        let fresh = self.snapshot();
        self.frames.push_back(fresh.clone());
        if self.frames.len() > LAG_MAX + 1 {
            self.frames.pop_front();
        }
        let oldest = self.steps + 1 - self.frames.len();
        let (stale, steps) = (self.faults.stale, self.steps);
        for (cache, lag) in self.caches.iter_mut().zip(LAGS) {
            let from = (*cache).max(steps.saturating_sub(lag)).clamp(oldest, steps);
            let hangs = self.random.random_bool(0.5);
            *cache = match (stale, hangs) {
                (false, _) => steps,
                (true, true) => from,
                (true, false) => self.random.random_range(from..=steps),
            };
        }
        let frame = |cache: usize| &self.frames[cache - oldest];
        let [jobs, claims, nodes, workloads, instances] = self.caches;
        let mut snapshot = Snapshot {
            jobs: frame(jobs).jobs.clone(),
            claims: frame(claims).claims.clone(),
            nodes: frame(nodes).nodes.clone(),
            workloads: frame(workloads).workloads.clone(),
            pods: Vec::new(),
            disruption_budgets: Vec::new(),
            repair_due: false,
            instances: frame(instances).instances.clone(),
            ..fresh
        };
        if self.chance(self.faults.blind) {
            snapshot.instances = Observed::Unknown;
        }
        snapshot
    }

    fn snapshot(&self) -> Snapshot {
        let metered = |belongs: &dyn Fn(&LedgerEntry) -> bool| {
            let entries = self.ledger.values().filter(|entry| belongs(entry)).map(|entry| entry.amount);
            entries.fold(Money::ZERO_USD, |sum, amount| sum.checked_add(amount).unwrap_or(sum))
        };
        let job = |view: &JobView| JobView { metered: metered(&|entry| entry.job == view.job.id.uid), ..view.clone() };
        let experiment = |(name, budget): (&String, &Option<Money>)| ExperimentView {
            namespace: seeded::NAMESPACE.to_owned(),
            name: name.clone(),
            owner: "ada".to_owned(),
            budget: *budget,
            metered: metered(&|entry| entry.experiment == *name),
        };
        Snapshot {
            now: self.now,
            real_now: self.real_now,
            jobs: self.jobs.values().map(job).collect(),
            experiments: self.experiments.iter().map(experiment).collect(),
            teams: Vec::new(),
            pools: self.pools.clone(),
            claims: self.claims.values().cloned().collect(),
            nodes: self.nodes.values().cloned().collect(),
            workloads: self.workloads.values().map(|workload| self.seen_workload(&workload.view)).collect(),
            pods: Vec::new(),
            disruption_budgets: Vec::new(),
            repair_due: false,
            instances: Observed::Known(self.cloud.list(self.now)),
            orphans_seen: self.orphans_seen.clone(),
            reaction: Default::default(),
        }
    }

    /// A pod whose node has gone has ended, "now" for want of a better time, whenever one looks.
    fn seen_workload(&self, view: &WorkloadView) -> WorkloadView {
        let mut view = view.clone();
        let lost = |pod: &PodRecord| pod.exit_code.is_none() && pod.node.as_ref().is_some_and(|node| !self.nodes.contains_key(node));
        for pod in view.pods.iter_mut().filter(|pod| lost(pod)) {
            pod.finished_at = Some(self.now);
        }
        view
    }

    // — the meter —

    /// Closes hours: what the claims' records say of them goes into the ledger.
    fn meter(&mut self) {
        let closed_at = hour_of(self.now);
        for claim in self.claims.values_mut() {
            let known = |until: DateTime<Utc>| {
                claim.status.instances.iter().all(|instance| {
                    instance.end.is_some() || (instance.running_at.is_some() && instance.seen_alive_at.is_some_and(|seen| seen >= until))
                })
            };
            if claim.status.instances.is_empty() || !known(closed_at) || claim.status.metered_until >= Some(closed_at) {
                continue;
            }
            let amount = charge(claim, closed_at);
            claim.status.metered_until = Some(closed_at);
            claim.status.metered = Some(amount);
            let (job, experiment) = (claim.record.job.uid.clone(), claim.record.experiment.clone());
            self.ledger.insert(claim.name.clone(), LedgerEntry { job, experiment, amount });
        }
    }

    /// Everything that runs or ran, charged from the cloud's own truth.
    pub fn spent(&self, experiment: &str) -> Money {
        let machines = self.cloud.machines.values().filter(|machine| machine.experiment == experiment);
        machines.fold(Money::ZERO_USD, |sum, machine| sum.checked_add(machine.cost(self.now)).unwrap_or(sum))
    }

    /// Pools' nodes that belong to whoever runs the cluster.
    fn standing_nodes(&self) -> BTreeSet<&String> {
        self.nodes.iter().filter(|(_, node)| node.pool.as_deref() == Some(seeded::NODE_POOL)).map(|(name, _)| name).collect()
    }
}

fn charge(claim: &Claim, until: DateTime<Utc>) -> Money {
    let price = claim.record.offer.price;
    let seconds = claim.status.instances.iter().filter_map(|instance| {
        let from = instance.running_at?;
        let to = instance.end.as_ref().map_or(until, |end| end.at.min(until));
        Some((to - from).num_seconds().max(0))
    });
    let free = claim.record.offer.kind == CapacityKind::Reserved;
    let charges = seconds.filter(|_| !free).filter_map(|seconds| price.for_seconds(seconds).ok());
    charges.fold(Money::ZERO_USD, |sum, amount| sum.checked_add(amount).unwrap_or(sum))
}
