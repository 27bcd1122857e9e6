//! What running programs say of themselves, into the job's status: `progress` and `checkpoint`, fields that nobody else
//! writes. Told by an authenticated POST ([`crate::http`]) or by annotations of the pod of rank 0.

use chrono::{DateTime, Utc};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use kube::Client;
use serde::Deserialize;
use serde_json::json;

use super::apply::manifest::INDEX;
use super::clock::MarketClock;
use super::observe::Observation;
use crate::api::training_job::TrainingJobStatus;
use crate::api::{TrainingJob, labels};
use crate::training::{CheckpointMark, Progress};

/// Its own field manager, so that Purser's status never overwrites it.
const FIELD_MANAGER: &str = "purser-progress";
const TRIES: u32 = 5;

/// What a program may say.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// How far it is, 0 to 1.
    #[serde(default)]
    pub fraction: Option<f64>,
    #[serde(default)]
    pub checkpoint: Option<CheckpointReport>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointReport {
    pub fraction: f64,
    #[serde(default)]
    pub uri: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ProgressError {
    #[error("fraction is {fraction}; it goes from 0 (nothing done) to 1 (all done)")]
    Fraction { fraction: f64 },
    #[error("the checkpoint's uri has {length} characters; 1024 at most")]
    Uri { length: usize },
    #[error("attempt {told} is not the job's current one ({current})")]
    OldAttempt { told: u32, current: u32 },
    #[error("the job {namespace}/{name} is gone")]
    Gone { namespace: String, name: String },
    #[error("could not write the progress of {namespace}/{name}")]
    Kubernetes { namespace: String, name: String, #[source] source: Box<kube::Error> },
}

impl Report {
    pub fn validate(&self) -> Result<(), ProgressError> {
        let fractions = self.fraction.into_iter().chain(self.checkpoint.as_ref().map(|checkpoint| checkpoint.fraction));
        for fraction in fractions {
            if !(0.0..=1.0).contains(&fraction) {
                return Err(ProgressError::Fraction { fraction });
            }
        }
        let uri = self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.uri.as_ref());
        match uri.map(String::len).filter(|length| *length > 1024) {
            Some(length) => Err(ProgressError::Uri { length }),
            None => Ok(()),
        }
    }

    /// From the annotations of a pod; what does not parse is not said.
    fn of_pod(pod: &Pod) -> Option<Report> {
        let fraction = |key: &str| pod.annotations().get(key).and_then(|text| text.parse::<f64>().ok());
        let checkpoint = fraction(labels::CHECKPOINT).map(|fraction| CheckpointReport { fraction, uri: None });
        let report = Report { fraction: fraction(labels::PROGRESS), checkpoint };
        (report != Report::default() && report.validate().is_ok()).then_some(report)
    }
}

/// Who speaks: the job and attempt of a pod, by its labels and owner.
#[derive(Clone, Debug)]
pub struct Speaker {
    pub namespace: String,
    pub job: String,
    pub job_uid: String,
    pub attempt: u32,
}

/// Records a report, if it moves anything forward.
pub async fn record(client: &Client, clock: &MarketClock, speaker: &Speaker, report: &Report) -> Result<(), ProgressError> {
    report.validate()?;
    let api: Api<TrainingJob> = Api::namespaced(client.clone(), &speaker.namespace);
    let gone = || ProgressError::Gone { namespace: speaker.namespace.clone(), name: speaker.job.clone() };
    let failed = |source| ProgressError::Kubernetes { namespace: speaker.namespace.clone(), name: speaker.job.clone(), source: Box::new(source) };
    for tries_left in (0..TRIES).rev() {
        let live = api.get_opt(&speaker.job).await.map_err(failed)?.ok_or_else(gone)?;
        if live.metadata.uid.as_deref() != Some(&speaker.job_uid) {
            return Err(gone());
        }
        let status = live.status.clone().unwrap_or_default();
        let current = status.job.attempts.last().map_or(0, |attempt| attempt.number);
        if current != speaker.attempt {
            return Err(ProgressError::OldAttempt { told: speaker.attempt, current });
        }
        let Some(moved) = moved(&status, report, clock.now()) else { return Ok(()) };
        let patch = json!({"metadata": {"resourceVersion": live.resource_version()}, "status": moved});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch_status(&speaker.job, &params, &Patch::Merge(&patch)).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(answer)) if answer.code == 409 && tries_left > 0 => continue,
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// The fields to write: only what moves forward. A new attempt may fall back to where it resumed, its checkpoints may not.
fn moved(status: &TrainingJobStatus, report: &Report, now: DateTime<Utc>) -> Option<serde_json::Value> {
    let began = status.job.attempts.last().map(|attempt| attempt.started_at);
    let of_this_attempt = |at: DateTime<Utc>| began.is_none_or(|began| at >= began);
    let known = status.progress.as_ref().filter(|progress| of_this_attempt(progress.at)).map(|progress| progress.fraction);
    let mut fields = serde_json::Map::new();
    if let Some(fraction) = report.fraction.filter(|fraction| known.is_none_or(|known| *fraction > known)) {
        fields.insert("progress".to_owned(), json!(Progress { fraction, at: now }));
    }
    let saved = status.checkpoint.as_ref().map(|mark| mark.fraction);
    if let Some(checkpoint) = report.checkpoint.as_ref().filter(|told| saved.is_none_or(|saved| told.fraction > saved)) {
        let uri = checkpoint.uri.clone();
        fields.insert("checkpoint".to_owned(), json!(CheckpointMark { fraction: checkpoint.fraction, at: now, uri }));
    }
    (!fields.is_empty()).then_some(serde_json::Value::Object(fields))
}

/// Folds the annotations of rank-0 pods into the statuses of their jobs.
pub async fn fold_annotations(client: &Client, clock: &MarketClock, observation: &Observation, pods: &[Pod]) {
    for pod in pods.iter().filter(|pod| pod.annotations().get(INDEX).is_some_and(|index| index == "0")) {
        let Some(report) = Report::of_pod(pod) else { continue };
        let Some(speaker) = Speaker::of_pod(pod).filter(|speaker| is_news(speaker, &report, observation)) else { continue };
        match record(client, clock, &speaker, &report).await {
            Ok(()) | Err(ProgressError::OldAttempt { .. } | ProgressError::Gone { .. }) => {}
            Err(error) => tracing::warn!(job = %speaker.job, error = %super::chain::chain(&error), "progress was not recorded"),
        }
    }
}

impl Speaker {
    /// `None` for a pod that no attempt made.
    pub fn of_pod(pod: &Pod) -> Option<Speaker> {
        Some(Speaker {
            namespace: pod.namespace()?,
            job: pod.annotations().get(labels::JOB_NAME)?.clone(),
            job_uid: pod.labels().get(labels::JOB_UID)?.clone(),
            attempt: pod.labels().get(labels::ATTEMPT)?.parse().ok()?,
        })
    }
}

/// Whether the annotations say anything that the status does not, which costs no request to find out.
fn is_news(speaker: &Speaker, report: &Report, observation: &Observation) -> bool {
    let Some(job) = observation.snapshot.jobs.iter().find(|job| job.job.id.uid == speaker.job_uid) else { return false };
    let status = TrainingJobStatus {
        job: job.status.clone(),
        progress: job.progress.clone(),
        checkpoint: job.checkpoint.clone(),
        ..TrainingJobStatus::default()
    };
    moved(&status, report, observation.snapshot.now).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(fraction: f64) -> TrainingJobStatus {
        let now = DateTime::UNIX_EPOCH;
        TrainingJobStatus {
            progress: Some(Progress { fraction, at: now }),
            checkpoint: Some(CheckpointMark { fraction, at: now, uri: None }),
            ..TrainingJobStatus::default()
        }
    }

    fn told(fraction: f64, checkpoint: f64) -> Report {
        Report { fraction: Some(fraction), checkpoint: Some(CheckpointReport { fraction: checkpoint, uri: None }) }
    }

    #[test]
    fn progress_only_moves_forward() {
        assert!(moved(&at(0.5), &told(0.5, 0.5), DateTime::UNIX_EPOCH).is_none());
        assert!(moved(&at(0.5), &told(0.4, 0.3), DateTime::UNIX_EPOCH).is_none());
        let fields = moved(&at(0.5), &told(0.6, 0.4), DateTime::UNIX_EPOCH).unwrap();
        assert!(fields.get("progress").is_some() && fields.get("checkpoint").is_none());
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [r#"{"fraction": 1.5}"#, r#"{"fraction": -0.1}"#, r#"{"checkpoint": {"fraction": 2}}"#] {
            let report: Report = serde_json::from_str(text).unwrap();
            assert!(report.validate().is_err(), "{text}");
        }
        assert!(serde_json::from_str::<Report>(r#"{"percent": 50}"#).is_err());
    }
}
