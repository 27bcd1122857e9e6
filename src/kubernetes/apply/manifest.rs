//! The headless Service and the Indexed Job of one attempt, built from the TrainingJob's template. Pure.
//!
//! ```text
//!  template ─► + selector, labels, annotations ─► + rendezvous environment ─► + token volume ─► batch/v1 Job
//! ```
//! What Purser adds wins over what the template says; all else of the template stays as it is.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Affinity, Container, EnvVar, EnvVarSource, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, ObjectFieldSelector,
    PodAffinityTerm, PodAntiAffinity, PodSpec, PodTemplateSpec, ProjectedVolumeSource, Service, ServiceAccountTokenProjection, ServicePort,
    ServiceSpec, Toleration, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::api::ObjectMeta;
use kube::Resource;

use super::super::names::{label_value, workload_name};
use crate::api::{TrainingJob, labels};
use crate::api::training_job::TrainingJobSpec;
use crate::training::JobRef;

/// Where torchrun's workers meet.
const MASTER_PORT: i32 = 29500;
const TOKEN_VOLUME: &str = "purser-token";
const TOKEN_FOLDER: &str = "/var/run/purser";
/// The API server renews nothing under ten minutes; the kubelet renews at 80 % of it.
const TOKEN_SECONDS: i64 = 3600;
/// Kubernetes' own annotation with a worker's index.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// All that an attempt needs besides the job's own spec.
#[derive(Clone, Debug)]
pub struct AttemptPlan<'a> {
    pub job: &'a JobRef,
    pub attempt: u32,
    pub claims: &'a [String],
    pub resume_fraction: f64,
    /// Real seconds between SIGTERM and SIGKILL.
    pub grace_seconds: i64,
    pub progress_url: &'a str,
}

impl AttemptPlan<'_> {
    pub fn workload(&self) -> String {
        workload_name(&self.job.name, &self.job.uid, self.attempt)
    }

    fn labels(&self) -> BTreeMap<String, String> {
        [
            (labels::JOB.to_owned(), label_value(&self.job.name)),
            (labels::JOB_UID.to_owned(), self.job.uid.clone()),
            (labels::ATTEMPT.to_owned(), self.attempt.to_string()),
        ]
        .into()
    }

    fn metadata(&self) -> ObjectMeta {
        let owner = OwnerReference {
            api_version: TrainingJob::api_version(&()).into_owned(),
            kind: TrainingJob::kind(&()).into_owned(),
            name: self.job.name.clone(),
            uid: self.job.uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        };
        ObjectMeta {
            name: Some(self.workload()),
            namespace: Some(self.job.namespace.clone()),
            labels: Some(self.labels()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        }
    }
}

/// Gives every worker a name in DNS before it is ready, which is when they look for each other.
pub fn service(plan: &AttemptPlan<'_>) -> Service {
    Service {
        metadata: plan.metadata(),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            selector: Some(plan.labels()),
            publish_not_ready_addresses: Some(true),
            ports: Some(vec![ServicePort { name: Some("rendezvous".to_owned()), port: MASTER_PORT, ..ServicePort::default() }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// The Indexed Job: `workers` pods, one a machine, none replaced; any failure ends the attempt.
pub fn workload(plan: &AttemptPlan<'_>, spec: &TrainingJobSpec) -> Result<Job, String> {
    let workers = i32::try_from(spec.workers).map_err(|_| format!("{} workers are too many", spec.workers))?;
    Ok(Job {
        metadata: plan.metadata(),
        spec: Some(JobSpec {
            completion_mode: Some("Indexed".to_owned()),
            completions: Some(workers),
            parallelism: Some(workers),
            backoff_limit: Some(0),
            pod_replacement_policy: Some("Failed".to_owned()),
            pod_failure_policy: Some(failure_policy()),
            template: template(plan, spec)?,
            ..JobSpec::default()
        }),
        ..Job::default()
    })
}

/// A lost machine and a broken program both end the attempt at once, with different words: the first rule that matches
/// is named in the Job's condition, and only the second counts as a failure of the program.
fn failure_policy() -> PodFailurePolicy {
    let lost = PodFailurePolicyRule {
        action: "FailJob".to_owned(),
        on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern { type_: "DisruptionTarget".to_owned(), status: Some("True".to_owned()) }]),
        ..PodFailurePolicyRule::default()
    };
    let broken = PodFailurePolicyRule {
        action: "FailJob".to_owned(),
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement { operator: "NotIn".to_owned(), values: vec![0], container_name: None }),
        ..PodFailurePolicyRule::default()
    };
    PodFailurePolicy { rules: vec![lost, broken] }
}

fn template(plan: &AttemptPlan<'_>, spec: &TrainingJobSpec) -> Result<PodTemplateSpec, String> {
    let mut template: PodTemplateSpec = serde_json::from_value(spec.template.clone()).map_err(|error| error.to_string())?;
    let metadata = template.metadata.get_or_insert_default();
    metadata.labels.get_or_insert_default().extend(plan.labels());
    metadata.annotations.get_or_insert_default().extend(annotations(plan, spec));
    metadata.finalizers.get_or_insert_default().push(labels::FINALIZER.to_owned());
    let pod = template.spec.get_or_insert_default();
    place(plan, pod);
    equip(plan, spec, pod);
    Ok(template)
}

fn annotations(plan: &AttemptPlan<'_>, spec: &TrainingJobSpec) -> BTreeMap<String, String> {
    [
        (labels::JOB_NAME.to_owned(), plan.job.name.clone()),
        (labels::EXPECTED_DURATION.to_owned(), spec.expected_duration.to_string()),
        (labels::RESTART_OVERHEAD.to_owned(), spec.checkpoint.restart_overhead.to_string()),
        (labels::CHECKPOINT_INTERVAL.to_owned(), spec.checkpoint.interval.to_string()),
        (labels::RESUME_FRACTION.to_owned(), plan.resume_fraction.to_string()),
        (labels::WORKERS.to_owned(), spec.workers.to_string()),
    ]
    .into()
}

/// On the claim's machines only, one worker a machine. The startup taint is never tolerated: a machine that no claim has
/// adopted stays empty.
fn place(plan: &AttemptPlan<'_>, pod: &mut PodSpec) {
    pod.restart_policy = Some("Never".to_owned());
    pod.termination_grace_period_seconds = Some(plan.grace_seconds);
    pod.subdomain = Some(plan.workload());
    let tolerations = plan.claims.iter().map(|claim| Toleration {
        key: Some(labels::CLAIM.to_owned()),
        operator: Some("Equal".to_owned()),
        value: Some(claim.clone()),
        effect: Some("NoSchedule".to_owned()),
        toleration_seconds: None,
    });
    pod.tolerations.get_or_insert_default().extend(tolerations);
    let affinity = pod.affinity.get_or_insert_default();
    require_claims(plan.claims, affinity);
    let apart = PodAffinityTerm {
        label_selector: Some(LabelSelector { match_labels: Some(plan.labels()), match_expressions: None }),
        topology_key: "kubernetes.io/hostname".to_owned(),
        ..PodAffinityTerm::default()
    };
    let apart_from = affinity.pod_anti_affinity.get_or_insert_with(PodAntiAffinity::default);
    apart_from.required_during_scheduling_ignored_during_execution.get_or_insert_default().push(apart);
}

/// Terms of a node selector are alternatives, so the claims go into every one of them.
fn require_claims(claims: &[String], affinity: &mut Affinity) {
    let ours = NodeSelectorRequirement { key: labels::CLAIM.to_owned(), operator: "In".to_owned(), values: Some(claims.to_vec()) };
    let nodes = affinity.node_affinity.get_or_insert_with(NodeAffinity::default);
    let selector = nodes.required_during_scheduling_ignored_during_execution.get_or_insert_with(NodeSelector::default);
    if selector.node_selector_terms.is_empty() {
        selector.node_selector_terms.push(NodeSelectorTerm::default());
    }
    for term in &mut selector.node_selector_terms {
        term.match_expressions.get_or_insert_default().push(ours.clone());
    }
}

fn equip(plan: &AttemptPlan<'_>, spec: &TrainingJobSpec, pod: &mut PodSpec) {
    let environment = environment(plan, spec);
    for container in pod.containers.iter_mut().chain(pod.init_containers.iter_mut().flatten()) {
        equip_container(container, &environment);
    }
    let token = ServiceAccountTokenProjection {
        audience: Some(labels::TOKEN_AUDIENCE.to_owned()),
        expiration_seconds: Some(TOKEN_SECONDS),
        path: "token".to_owned(),
    };
    let source = VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() };
    let volumes = pod.volumes.get_or_insert_default();
    volumes.retain(|volume| volume.name != TOKEN_VOLUME);
    volumes.push(Volume {
        name: TOKEN_VOLUME.to_owned(),
        projected: Some(ProjectedVolumeSource { default_mode: None, sources: Some(vec![source]) }),
        ..Volume::default()
    });
}

fn equip_container(container: &mut Container, environment: &[EnvVar]) {
    let variables = container.env.get_or_insert_default();
    variables.retain(|theirs| !environment.iter().any(|ours| ours.name == theirs.name));
    variables.extend(environment.iter().cloned());
    let mounts = container.volume_mounts.get_or_insert_default();
    mounts.retain(|mount| mount.name != TOKEN_VOLUME && mount.mount_path != TOKEN_FOLDER);
    mounts.push(VolumeMount { name: TOKEN_VOLUME.to_owned(), mount_path: TOKEN_FOLDER.to_owned(), read_only: Some(true), ..VolumeMount::default() });
}

/// What torchrun and its kin read, and what a program needs to resume and to report.
fn environment(plan: &AttemptPlan<'_>, spec: &TrainingJobSpec) -> Vec<EnvVar> {
    let name = plan.workload();
    let given = [
        ("MASTER_ADDR", format!("{name}-0.{name}")),
        ("MASTER_PORT", MASTER_PORT.to_string()),
        ("WORLD_SIZE", spec.workers.to_string()),
        ("PURSER_JOB", plan.job.to_string()),
        ("PURSER_ATTEMPT", plan.attempt.to_string()),
        ("PURSER_RESUME_FRACTION", plan.resume_fraction.to_string()),
        ("PURSER_CHECKPOINT_URI", spec.checkpoint.uri.clone().unwrap_or_default()),
        ("PURSER_PROGRESS_URL", plan.progress_url.to_owned()),
        ("PURSER_TOKEN_FILE", format!("{TOKEN_FOLDER}/token")),
    ];
    let plain = given.map(|(name, value)| EnvVar { name: name.to_owned(), value: Some(value), value_from: None });
    let ranks = ["RANK", "NODE_RANK"].map(|name| EnvVar { name: name.to_owned(), value: None, value_from: Some(index_source()) });
    ranks.into_iter().chain(plain).collect()
}

fn index_source() -> EnvVarSource {
    let field = ObjectFieldSelector { api_version: None, field_path: format!("metadata.annotations['{INDEX}']") };
    EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> TrainingJobSpec {
        serde_json::from_value(serde_json::json!({
            "experiment": "lm", "workers": 4, "expectedDuration": "4h",
            "template": {"spec": {
                "containers": [{"name": "train", "image": "train:1", "env": [{"name": "RANK", "value": "7"}, {"name": "LR", "value": "0.1"}]}],
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"matchExpressions": [{"key": "b", "operator": "Exists"}]}]}}}
            }}
        }))
        .unwrap()
    }

    fn job_ref() -> JobRef {
        JobRef { namespace: "vision".to_owned(), name: "bert".to_owned(), uid: "5b1f6a5e-0000-0000-0000-000000000000".to_owned() }
    }

    fn built() -> PodSpec {
        let (job, claims) = (job_ref(), ["claim-1".to_owned()]);
        let plan = AttemptPlan { job: &job, attempt: 1, claims: &claims, resume_fraction: 0.25, grace_seconds: 90, progress_url: "http://p" };
        workload(&plan, &spec()).unwrap().spec.unwrap().template.spec.unwrap()
    }

    #[test]
    fn a_worker_cannot_overwrite_its_own_rank() {
        let pod = built();
        let rank: Vec<&EnvVar> = pod.containers[0].env.iter().flatten().filter(|variable| variable.name == "RANK").collect();
        assert_eq!(rank.len(), 1);
        assert!(rank[0].value_from.is_some());
        assert!(pod.containers[0].env.iter().flatten().any(|variable| variable.name == "LR"));
    }

    #[test]
    fn every_alternative_of_the_users_node_selector_is_bound_to_the_claim() {
        let affinity = built().affinity.unwrap().node_affinity.unwrap().required_during_scheduling_ignored_during_execution.unwrap();
        assert_eq!(affinity.node_selector_terms.len(), 2);
        for term in affinity.node_selector_terms {
            assert!(term.match_expressions.unwrap().iter().any(|one| one.key == labels::CLAIM));
        }
    }

    #[test]
    fn nothing_tolerates_a_machine_that_no_claim_adopted() {
        assert!(built().tolerations.unwrap().iter().all(|one| one.key.as_deref() == Some(labels::CLAIM)));
    }
}
