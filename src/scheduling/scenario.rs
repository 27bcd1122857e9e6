//! Builders for tests: a small world in a few words.
//!
//! `scenario().job(job("bert").workers(4).deadline_in(hours(6))).plan()` renders the plan as text, so that a test reads like
//! what `purser plan` would print.

use chrono::{DateTime, TimeDelta, Utc};

use super::snapshot::{
    CloudInstance, ExperimentView, InstanceState, JobView, NodeView, Observed, PoolView, Snapshot, TeamView, WorkloadEnd, WorkloadView,
};
use super::{Plan, audit, explain, plan};
use crate::capacity::claim::{ClaimStatus, claim_name};
use crate::capacity::offer::QuotedOffer;
use crate::capacity::{
    CapacityKind, Claim, ClaimPhase, ClaimRecord, ClaimedInstance, InstanceRequirements, InstanceType, Notice, NoticeKind, Offer,
    PriceSource, Provider, Refusal, RefusalCode,
};
use crate::training::{Attempt, Checkpoint, CheckpointMark, Job, JobPhase, JobRef, JobStatus, PodRecord, Progress};
use crate::units::{Money, MoneyPerHour, Span};

/// 2026-03-01 12:00 UTC, a Sunday.
pub fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_772_366_400, 0).expect("a valid time")
}

pub fn hours(hours: i64) -> TimeDelta {
    TimeDelta::hours(hours)
}

pub fn minutes(minutes: i64) -> TimeDelta {
    TimeDelta::minutes(minutes)
}

pub fn usd(text: &str) -> Money {
    Money::usd(text).expect("an amount")
}

/// A job of one worker, two hours of work, no deadline, all kinds allowed, in namespace `lab`, experiment `vision`.
pub fn job(name: &str) -> JobBuilder {
    let job = Job {
        id: JobRef { namespace: "lab".into(), name: name.into(), uid: format!("uid-{name}") },
        generation: 1,
        submitted_at: noon(),
        experiment: "vision".into(),
        workers: 1,
        expected_duration: Span::hours(2),
        deadline: None,
        checkpoint: Checkpoint::default(),
        capacity_kinds: CapacityKind::ALL.to_vec(),
        requirements: InstanceRequirements::default(),
        pool: None,
        budget: None,
        retries_max: 1,
        priority: 0,
        cancelled: false,
    };
    JobBuilder(JobView {
        job,
        status: JobStatus::default(),
        progress: None,
        checkpoint: None,
        version: "1".into(),
        metered: Money::ZERO_USD,
        deleting: false,
        invalid: None,
    })
}

#[derive(Clone)]
pub struct JobBuilder(pub JobView);

impl JobBuilder {
    pub fn workers(mut self, workers: u32) -> Self {
        self.0.job.workers = workers;
        self
    }

    pub fn gpus(mut self, gpus: u32) -> Self {
        self.0.job.requirements.gpus = gpus;
        self
    }

    pub fn takes(mut self, duration: TimeDelta) -> Self {
        self.0.job.expected_duration = Span::from_delta(duration);
        self
    }

    pub fn deadline_in(mut self, from_noon: TimeDelta) -> Self {
        self.0.job.deadline = Some(noon() + from_noon);
        self
    }

    pub fn only(mut self, kinds: &[CapacityKind]) -> Self {
        self.0.job.capacity_kinds = kinds.to_vec();
        self
    }

    pub fn budget(mut self, amount: &str) -> Self {
        self.0.job.budget = Some(usd(amount));
        self
    }

    pub fn priority(mut self, priority: i32) -> Self {
        self.0.job.priority = priority;
        self
    }

    pub fn pool(mut self, pool: &str) -> Self {
        self.0.job.pool = Some(pool.into());
        self
    }

    pub fn retries(mut self, retries_max: u32) -> Self {
        self.0.job.retries_max = retries_max;
        self
    }

    pub fn cancelled(mut self) -> Self {
        self.0.job.cancelled = true;
        self
    }

    pub fn deleting(mut self) -> Self {
        self.0.deleting = true;
        self
    }

    pub fn invalid(mut self, reason: &str, message: &str) -> Self {
        self.0.invalid = Some((reason.into(), message.into()));
        self
    }

    pub fn phase(mut self, phase: JobPhase) -> Self {
        self.0.status.phase = phase;
        self
    }

    pub fn checkpoint_at(mut self, fraction: f64) -> Self {
        self.0.checkpoint = Some(CheckpointMark { fraction, at: noon(), uri: None });
        self
    }

    pub fn progress(mut self, fraction: f64) -> Self {
        self.0.progress = Some(Progress { fraction, at: noon() });
        self
    }

    /// An open attempt on this claim, recorded.
    pub fn attempt_on(mut self, claim: &Claim) -> Self {
        self.0.status.phase = JobPhase::Running;
        self.0.status.attempts.push(Attempt {
            number: claim.record.attempt,
            claims: vec![claim.name.clone()],
            offer: claim.record.offer.clone(),
            started_at: noon() - minutes(60),
            from_fraction: 0.0,
            ended_at: None,
            outcome: None,
            reason: None,
            pods: Vec::new(),
        });
        self
    }
}

pub fn offer(instance_type: &str, zone: &str, kind: CapacityKind, price: &str) -> Offer {
    let price = MoneyPerHour(usd(price));
    let reservation = (kind == CapacityKind::Reserved).then(|| "cr-1".to_owned());
    Offer { provider: Provider::Aws, instance_type: instance_type.into(), zone: zone.into(), kind, price, reservation }
}

pub fn spot() -> Offer {
    offer("g5.xlarge", "us-east-1a", CapacityKind::Spot, "0.40")
}

pub fn on_demand() -> Offer {
    offer("g5.xlarge", "us-east-1a", CapacityKind::OnDemand, "1")
}

pub fn quoted(offer: Offer) -> QuotedOffer {
    let machine = InstanceType {
        name: offer.instance_type.clone(),
        vcpu: 4,
        memory_mib: 16_384,
        gpus: 1,
        gpu_name: Some("A10G".into()),
        architecture: "amd64".into(),
        pods: 0,
    };
    QuotedOffer { offer, machine, available_max: None }
}

/// A pool of g5.xlarge: spot at 0.40, on-demand at 1, five minutes of boot.
pub fn pool(name: &str) -> PoolView {
    PoolView {
        name: name.into(),
        provider: Provider::Aws,
        requirements: InstanceRequirements::default(),
        state: Ok(()),
        offers: vec![quoted(spot()), quoted(on_demand())],
        price_source: PriceSource::Live,
        boot: Span::minutes(5),
        machines_max: None,
        pods: None,
        request_template: format!(r#"{{"pool": "{name}"}}"#),
    }
}

/// A claim of the job for `attempt`, written at noon.
pub fn claim(job: &JobBuilder, attempt: u32, ask: u32, offer: Offer) -> Claim {
    let view = &job.0.job;
    let name = claim_name(&view.id.uid, attempt, ask);
    Claim {
        uid: format!("uid-of-{name}"),
        name,
        written_at_real: noon(),
        record: ClaimRecord {
            job: view.id.clone(),
            generation: 1,
            experiment: view.experiment.clone(),
            team: None,
            attempt,
            ask,
            pool: "gpu".into(),
            offer,
            count: view.workers,
            decided_at: noon(),
            nodes: Vec::new(),
            slots: Vec::new(),
            request: r#"{"config":{"pool":"gpu"}}"#.into(),
        },
        status: ClaimStatus::default(),
    }
}

pub fn refused(mut claim: Claim, code: RefusalCode, at: DateTime<Utc>) -> Claim {
    claim.status.phase = ClaimPhase::Refused;
    claim.status.refusal = Some(Refusal { code, message: format!("{code:?} said the cloud"), at });
    claim
}

/// Granted an hour ago, its machines `i-…-0`, `i-…-1`… run and are adopted as nodes `n-i-…`.
pub fn granted(mut claim: Claim) -> Claim {
    claim.status.phase = ClaimPhase::Granted;
    claim.written_at_real = noon() - hours(1);
    claim.record.decided_at = noon() - hours(1);
    let machine = |index: u32| ClaimedInstance {
        id: format!("i-{}-{index}", claim.record.job.name),
        node: Some(format!("n-i-{}-{index}", claim.record.job.name)),
        launched_at: noon() - hours(1),
        running_at: Some(noon() - hours(1) + minutes(1)),
        notice: None,
        seen_alive_at: Some(noon()),
        release_asked_at: None,
        end: None,
    };
    claim.status.instances = (0..claim.record.count).map(machine).collect();
    claim
}

pub fn noticed(mut claim: Claim, index: usize) -> Claim {
    claim.status.instances[index].notice = Some(Notice { kind: NoticeKind::Interruption, at: noon() });
    claim
}

/// The attempt's workload, all pods running.
pub fn running(claim: &Claim) -> WorkloadView {
    let job = &claim.record.job;
    let pod = |index: u32| PodRecord {
        name: format!("{}-{index}", job.name),
        index,
        node: Some(format!("n-i-{}-{index}", job.name)),
        started_at: Some(noon() - minutes(50)),
        finished_at: None,
        exit_code: None,
        reason: None,
    };
    WorkloadView {
        namespace: job.namespace.clone(),
        name: format!("{}-{}", job.name, claim.record.attempt),
        uid: format!("uid-w-{}", job.name),
        job_uid: job.uid.clone(),
        attempt: claim.record.attempt,
        deleting_since_real: None,
        finished: None,
        pods: (0..claim.record.count).map(pod).collect(),
        pods_running: claim.record.count,
        created_at_real: noon() - minutes(55),
    }
}

pub fn finished(claim: &Claim, end: WorkloadEnd) -> WorkloadView {
    let mut workload = running(claim);
    workload.pods_running = 0;
    workload.finished = Some(end);
    for pod in &mut workload.pods {
        pod.finished_at = Some(noon());
    }
    workload
}

pub fn scenario() -> Scenario {
    Scenario(Snapshot {
        now: noon(),
        real_now: noon(),
        jobs: Vec::new(),
        experiments: vec![ExperimentView {
            namespace: "lab".into(),
            name: "vision".into(),
            owner: "ada".into(),
            budget: None,
            metered: Money::ZERO_USD,
        }],
        teams: Vec::new(),
        pools: Vec::new(),
        claims: Vec::new(),
        nodes: Vec::new(),
        workloads: Vec::new(),
        pods: Vec::new(),
        disruption_budgets: Vec::new(),
        repair_due: false,
        instances: Observed::Known(Vec::new()),
        orphans_seen: Default::default(),
        reaction: Default::default(),
    })
}

pub struct Scenario(pub Snapshot);

impl Scenario {
    pub fn job(mut self, job: JobBuilder) -> Self {
        self.0.jobs.push(job.0);
        self
    }

    pub fn pool(mut self, pool: PoolView) -> Self {
        self.0.pools.push(pool);
        self
    }

    pub fn experiment_budget(mut self, amount: &str, metered: &str) -> Self {
        self.0.experiments[0].budget = Some(usd(amount));
        self.0.experiments[0].metered = usd(metered);
        self
    }

    pub fn team_budget(mut self, amount: &str, metered: &str) -> Self {
        let (monthly_budget, metered_this_month) = (Some(usd(amount)), usd(metered));
        self.0.teams.push(TeamView { name: "lab-team".into(), namespaces: vec!["lab".into()], monthly_budget, metered_this_month });
        self
    }

    /// The claim, and its machines and nodes as the cloud and the cluster show them.
    pub fn claim(mut self, claim: &Claim) -> Self {
        for instance in &claim.status.instances {
            let machine = self.machine(claim, instance);
            if let Observed::Known(instances) = &mut self.0.instances {
                instances.push(machine);
            }
            if let Some(node) = &instance.node {
                self.0.nodes.push(node_of(node, &instance.id, Some(&claim.name)));
            }
        }
        self.0.claims.push(claim.clone());
        self
    }

    pub fn workload(mut self, workload: WorkloadView) -> Self {
        self.0.workloads.push(workload);
        self
    }

    fn machine(&self, claim: &Claim, instance: &ClaimedInstance) -> CloudInstance {
        CloudInstance {
            id: instance.id.clone(),
            pool: claim.record.pool.clone(),
            claim: Some(claim.name.clone()),
            client_token: Some(claim.uid.clone()),
            instance_type: claim.record.offer.instance_type.clone(),
            zone: claim.record.offer.zone.clone(),
            state: if instance.end.is_some() { InstanceState::Terminated } else { InstanceState::Running },
            launched_at: instance.launched_at,
            running_at: instance.running_at,
            ended: instance.end.clone(),
            notice: instance.notice.as_ref().map(|notice| (notice.kind, notice.at)),
            observed_at: self.0.now,
        }
    }

    pub fn result(&self) -> Plan {
        let plan = plan(&self.0);
        let audited = audit(&self.0, plan.clone());
        assert_eq!(plan, audited, "the audit dropped something");
        plan
    }

    /// The plan as text.
    pub fn plan(&self) -> String {
        explain::plan_lines(&self.result()).join("\n")
    }
}

pub fn node_of(name: &str, instance: &str, claim: Option<&str>) -> NodeView {
    NodeView {
        name: name.into(),
        provider_id: Some(format!("aws:///us-east-1a/{instance}")),
        ready: true,
        schedulable: true,
        unclaimed_taint: claim.is_none(),
        leaving_taint: false,
        claim: claim.map(str::to_owned),
        labels: Default::default(),
        pool: Some("gpu".into()),
        room: None,
    }
}
