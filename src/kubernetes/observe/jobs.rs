//! TrainingJobs, Experiments and Teams → the planner's views. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;

use super::super::apply::version_of;
use super::super::meter::Sums;
use crate::api::conditions::core_time;
use crate::api::{ConditionReason, Experiment, Team, TrainingJob, labels};
use crate::capacity::{CapacityKind, InstanceRequirements};
use crate::scheduling::snapshot::{ExperimentView, JobView, TeamView};
use crate::training::{Checkpoint, Job, JobRef, JobStatus};
use crate::units::{Money, Span};

/// All jobs. One whose namespace two teams claim waits until that is settled, for nobody knows whose budget pays; so does
/// one whose experiment is not there.
pub fn job_views(
    objects: Vec<DeserializeGuard<TrainingJob>>,
    experiments: &[ExperimentView],
    disputed: &BTreeMap<String, String>,
    sums: &Sums,
) -> Vec<JobView> {
    let mut views: Vec<JobView> = objects.into_iter().filter_map(|object| job_view(object.0, sums)).collect();
    for view in views.iter_mut().filter(|view| view.invalid.is_none()) {
        let (namespace, experiment) = (&view.job.id.namespace, &view.job.experiment);
        let exists = experiments.iter().any(|one| one.namespace == *namespace && one.name == *experiment);
        view.invalid = match disputed.get(namespace) {
            Some(dispute) => Some((ConditionReason::NamespaceClaimedTwice.to_string(), dispute.clone())),
            None if !exists => {
                let message = format!("experiment {experiment} does not exist in namespace {namespace}; create it, or submit the job again with another");
                Some((ConditionReason::UnknownExperiment.to_string(), message))
            }
            None => None,
        };
    }
    views
}

/// `None` for what cannot be of ours: an object without name or UID.
fn job_view(object: Result<TrainingJob, InvalidObject>, sums: &Sums) -> Option<JobView> {
    let object = match object {
        Ok(object) => object,
        Err(invalid) => return unreadable(&invalid),
    };
    let id = object.job_ref().ok()?;
    let (job, invalid) = match Job::try_from(&object) {
        Ok(job) => (job, None),
        Err(error) => (stand_in(id.clone(), &object.metadata), Some((ConditionReason::InvalidSpec.to_string(), error.to_string()))),
    };
    let status = object.status.unwrap_or_default();
    Some(JobView {
        job,
        version: version_of(&status.job),
        status: status.job,
        progress: status.progress,
        checkpoint: status.checkpoint,
        metered: sums.of_job(&id.uid),
        deleting: is_leaving(&object.metadata),
        invalid,
    })
}

fn unreadable(invalid: &InvalidObject) -> Option<JobView> {
    let metadata = &invalid.metadata;
    let id = JobRef { namespace: metadata.namespace.clone()?, name: metadata.name.clone()?, uid: metadata.uid.clone()? };
    let status = JobStatus::default();
    Some(JobView {
        job: stand_in(id, metadata),
        version: version_of(&status),
        status,
        progress: None,
        checkpoint: None,
        metered: Money::ZERO_USD,
        deleting: is_leaving(metadata),
        invalid: Some((ConditionReason::InvalidSpec.to_string(), invalid.error.clone())),
    })
}

/// Being deleted while our finalizer holds it; without one nothing was ever claimed for it.
fn is_leaving(metadata: &kube::api::ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some() && metadata.finalizers.iter().flatten().any(|name| name == labels::FINALIZER)
}

/// A job that nothing is bought for; its reason says why.
fn stand_in(id: JobRef, metadata: &kube::api::ObjectMeta) -> Job {
    Job {
        id,
        generation: metadata.generation.unwrap_or_default(),
        submitted_at: metadata.creation_timestamp.as_ref().map(core_time).unwrap_or_default(),
        experiment: String::new(),
        workers: 1,
        expected_duration: Span::hours(1),
        deadline: None,
        checkpoint: Checkpoint::default(),
        capacity_kinds: CapacityKind::ALL.to_vec(),
        requirements: InstanceRequirements::default(),
        pool: None,
        budget: None,
        retries_max: 0,
        priority: 0,
        cancelled: false,
    }
}

pub fn experiment_views(objects: &[Experiment], sums: &Sums) -> Vec<ExperimentView> {
    let view = |object: &Experiment| {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let metered = sums.of_experiment(&namespace, &name);
        ExperimentView { namespace, name, owner: object.spec.owner.clone(), budget: object.spec.budget, metered }
    };
    objects.iter().map(view).collect()
}

pub fn team_views(objects: &[Team], sums: &Sums) -> Vec<TeamView> {
    let view = |object: &Team| {
        let name = object.name_any();
        let metered_this_month = sums.of_team_this_month(&name);
        TeamView { name, namespaces: object.spec.namespaces.clone(), monthly_budget: object.spec.monthly_budget, metered_this_month }
    };
    objects.iter().map(view).collect()
}

/// Namespaces that more than one team names, with the sentence to show.
pub fn disputed_namespaces<'a>(teams: impl IntoIterator<Item = &'a Team>) -> BTreeMap<String, String> {
    let mut owners: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for team in teams {
        for namespace in &team.spec.namespaces {
            owners.entry(namespace).or_default().push(team.name_any());
        }
    }
    let sentence = |namespace: &str, teams: &[String]| {
        format!("namespace {namespace} is claimed by the teams {}; take it out of all but one", teams.join(" and "))
    };
    owners.into_iter().filter(|(_, teams)| teams.len() > 1).map(|(name, teams)| (name.to_owned(), sentence(name, &teams))).collect()
}

/// The valid objects of a guarded store's state.
pub fn valid<K: Clone>(objects: &[Arc<DeserializeGuard<K>>]) -> Vec<K> {
    objects.iter().filter_map(|object| object.0.as_ref().ok().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stored(spec: serde_json::Value) -> DeserializeGuard<TrainingJob> {
        serde_json::from_value(json!({
            "apiVersion": "purser.dev/v1alpha1", "kind": "TrainingJob",
            "metadata": {"name": "bert", "namespace": "vision", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 3},
            "spec": spec
        }))
        .unwrap()
    }

    #[test]
    fn a_job_that_does_not_parse_is_seen_and_says_why() {
        let views = job_views(vec![stored(json!({"experiment": "lm", "expectedDuration": "soon", "template": {}}))], &[], &BTreeMap::new(), &Sums::default());
        let (reason, message) = views[0].invalid.clone().unwrap();
        assert_eq!(reason, "InvalidSpec");
        assert!(message.contains("soon"), "{message}");
    }

    #[test]
    fn a_job_in_a_disputed_namespace_waits_for_people() {
        let team = |name: &str| Team::new(name, serde_json::from_value(json!({"namespaces": ["vision"]})).unwrap());
        let disputed = disputed_namespaces(&[team("red"), team("blue")]);
        let good = json!({"experiment": "lm", "expectedDuration": "1h", "template": {"spec": {"containers": [{"name": "t", "image": "i"}]}}});
        let views = job_views(vec![stored(good)], &[], &disputed, &Sums::default());
        let (reason, message) = views[0].invalid.clone().unwrap();
        assert_eq!(reason, "NamespaceClaimedTwice");
        assert!(message.contains("red and blue"), "{message}");
    }

    #[test]
    fn a_job_without_its_experiment_waits_for_it() {
        let good = json!({"experiment": "lm", "expectedDuration": "1h", "template": {"spec": {"containers": [{"name": "t", "image": "i"}]}}});
        let experiment = ExperimentView { namespace: "vision".to_owned(), name: "lm".to_owned(), owner: "ada".to_owned(), budget: None, metered: Money::ZERO_USD };
        let views = |experiments: &[ExperimentView]| job_views(vec![stored(good.clone())], experiments, &BTreeMap::new(), &Sums::default());
        assert_eq!(views(&[])[0].invalid.as_ref().unwrap().0, "UnknownExperiment");
        assert_eq!(views(&[experiment])[0].invalid, None);
    }
}
