//! What a platform engineer pages on, counted where it happens; `crate::http` serves it at `/metrics`. Names begin with
//! `purser_`.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::apply::{self, Applied};
use crate::scheduling::{Plan, Snapshot};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CycleLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ActionLabels {
    action: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PhaseLabels {
    phase: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PoolLabels {
    pool: String,
}

pub struct Metrics {
    registry: Registry,
    cycles: Family<CycleLabels, Counter>,
    cycle_seconds: Histogram,
    actions: Family<ActionLabels, Counter>,
    decisions: Family<ReasonLabels, Gauge>,
    jobs: Family<PhaseLabels, Gauge>,
    claims: Family<PhaseLabels, Gauge>,
    machines: Family<PoolLabels, Gauge>,
    pool_ready: Family<PoolLabels, Gauge>,
    metered: Gauge<f64, AtomicU64>,
    alerts: Gauge,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// In the OpenMetrics text format.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry).map(|()| text)
    }

    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("purser");
        let metrics = Metrics {
            cycles: Family::default(),
            cycle_seconds: Histogram::new([0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]),
            actions: Family::default(),
            decisions: Family::default(),
            jobs: Family::default(),
            claims: Family::default(),
            machines: Family::default(),
            pool_ready: Family::default(),
            metered: Gauge::default(),
            alerts: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("cycles", "Scheduling cycles by outcome (ok, failed)", metrics.cycles.clone());
        registry.register("cycle_seconds", "How long a cycle took", metrics.cycle_seconds.clone());
        registry.register("actions", "Actions by kind and outcome (done, dropped, failed)", metrics.actions.clone());
        registry.register("decisions", "Jobs by the reason of their last decision", metrics.decisions.clone());
        registry.register("jobs", "TrainingJobs by phase", metrics.jobs.clone());
        registry.register("claims", "CapacityClaims by phase", metrics.claims.clone());
        registry.register("machines", "Machines that are or may be alive, by pool", metrics.machines.clone());
        registry.register("pool_ready", "1 where a pool can be used", metrics.pool_ready.clone());
        registry.register("metered_cost", "Charges in the ledger, all experiments, approximate", metrics.metered.clone());
        registry.register("alerts", "Things that need a person's look; the log names them", metrics.alerts.clone());
        Metrics { registry, ..metrics }
    }

    pub fn cycle(&self, took: Duration, succeeded: bool) {
        self.cycles.get_or_create(&CycleLabels { outcome: if succeeded { "ok" } else { "failed" } }).inc();
        self.cycle_seconds.observe(took.as_secs_f64());
    }

    pub fn action(&self, action: &'static str, outcome: &apply::Result) {
        let outcome = match outcome {
            Ok(Applied::Done) => "done",
            Ok(Applied::Dropped(_)) => "dropped",
            Err(_) => "failed",
        };
        self.actions.get_or_create(&ActionLabels { action, outcome }).inc();
    }

    /// Everything that is a state is counted anew.
    pub fn observed(&self, snapshot: &Snapshot, plan: &Plan, metered: f64, alerts: usize) {
        self.decisions.clear();
        for decision in plan.decisions.values() {
            self.decisions.get_or_create(&ReasonLabels { reason: decision.because.code.to_string() }).inc();
        }
        self.jobs.clear();
        for job in &snapshot.jobs {
            self.jobs.get_or_create(&PhaseLabels { phase: job.status.phase.to_string() }).inc();
        }
        self.claims.clear();
        for claim in &snapshot.claims {
            self.claims.get_or_create(&PhaseLabels { phase: format!("{:?}", claim.status.phase) }).inc();
        }
        self.machines.clear();
        self.pool_ready.clear();
        for pool in &snapshot.pools {
            let labels = PoolLabels { pool: pool.name.clone() };
            self.pool_ready.get_or_create(&labels).set(i64::from(pool.state.is_ok()));
            self.machines.get_or_create(&labels).set(0);
        }
        for claim in &snapshot.claims {
            let open = i64::try_from(claim.open_instances().count()).unwrap_or(i64::MAX);
            self.machines.get_or_create(&PoolLabels { pool: claim.record.pool.clone() }).inc_by(open);
        }
        self.metered.set(metered);
        self.alerts.set(i64::try_from(alerts).unwrap_or(i64::MAX));
    }
}


#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_can_be_read_by_prometheus() {
        let metrics = Metrics::new();
        metrics.cycle(Duration::from_millis(80), true);
        metrics.action("AskCloud", &Ok(Applied::Done));
        let text = metrics.text().unwrap();
        assert!(text.contains(r#"purser_cycles_total{outcome="ok"} 1"#), "{text}");
        assert!(text.contains(r#"purser_actions_total{action="AskCloud",outcome="done"} 1"#), "{text}");
    }
}
