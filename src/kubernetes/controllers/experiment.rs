//! Experiment status: how many jobs name it, and what they cost.

use kube::ResourceExt;
use kube::api::Api;

use super::super::meter::Sums;
use super::super::observe::stores::parsed;
use super::super::observe::{Observation, Observer};
use super::super::report::rounded;
use super::write_status;
use crate::api::conditions::condition;
use crate::api::experiment::ExperimentStatus;
use crate::api::{ConditionReason, ConditionType, Experiment};

pub(super) async fn report(observer: &Observer, observation: &Observation, sums: &Sums) {
    for experiment in parsed(&observer.stores.experiments) {
        let (name, namespace) = (experiment.name_any(), experiment.namespace().unwrap_or_default());
        let names_it = |job: &&crate::scheduling::snapshot::JobView| job.job.id.namespace == namespace && job.job.experiment == name;
        let cost = sums.of_experiment(&namespace, &name);
        let previous = experiment.status.as_ref().map_or(&[][..], |status| &status.conditions);
        let generation = experiment.metadata.generation;
        let now = observation.snapshot.real_now;
        let status = ExperimentStatus {
            jobs: u32::try_from(observation.snapshot.jobs.iter().filter(names_it).count()).ok(),
            cost: Some(cost),
            cost_rounded: Some(rounded(&cost)),
            conditions: vec![condition(previous, ConditionType::Ready, Some(true), ConditionReason::Accepted, "", generation, now)],
            observed_generation: generation,
        };
        let api: Api<Experiment> = Api::namespaced(observer.client.clone(), &namespace);
        write_status(api, &name, experiment.status.as_ref(), &status).await;
    }
}
