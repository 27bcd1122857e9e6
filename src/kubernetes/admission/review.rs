//! One AdmissionReview in, one out.

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Json, Router};
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation};
use serde::de::DeserializeOwned;

use super::{Checks, job, pods, pool, team};
use crate::api::{CapacityPool, Team, TrainingJob};

pub const PATH: &str = "/validate";
/// etcd takes 1.5 MiB an object; a review holds two.
const BODY_MAX: usize = 4 * 1024 * 1024;

/// Why an object is not admitted: what is wrong, and what would help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    pub what: String,
    pub hint: String,
}

impl Denial {
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Denial {
        Denial { what: what.into(), hint: hint.into() }
    }
}

impl std::fmt::Display for Denial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (hint: {})", self.what, self.hint)
    }
}

/// `Ok` admits, with what the user should know.
pub type Verdict = Result<Vec<String>, Denial>;

pub fn routes(checks: Checks) -> Router {
    Router::new().route(PATH, post(review)).route(pods::PATH, post(pods::review)).layer(DefaultBodyLimit::max(BODY_MAX)).with_state(checks)
}

async fn review(State(checks): State<Checks>, Json(review): Json<AdmissionReview<DynamicObject>>) -> Json<AdmissionReview<DynamicObject>> {
    let answer = match TryInto::<AdmissionRequest<DynamicObject>>::try_into(review) {
        Ok(request) => answer(&checks, &request).await,
        Err(error) => AdmissionResponse::invalid(error),
    };
    Json(answer.into_review())
}

async fn answer(checks: &Checks, request: &AdmissionRequest<DynamicObject>) -> AdmissionResponse {
    let mut response = AdmissionResponse::from(request);
    match judge(checks, request).await {
        Ok(warnings) => {
            response.warnings = Some(warnings).filter(|warnings| !warnings.is_empty());
            response
        }
        Err(denial) => {
            tracing::info!(kind = %request.kind.kind, name = %request.name, namespace = request.namespace.as_deref(), why = %denial, "not admitted");
            response.result.code = 422;
            response.deny(denial)
        }
    }
}

async fn judge(checks: &Checks, request: &AdmissionRequest<DynamicObject>) -> Verdict {
    let Some(object) = &request.object else { return Ok(Vec::new()) };
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Vec::new());
    }
    let is_new = request.operation == Operation::Create;
    match request.kind.kind.as_str() {
        "TrainingJob" => job::judge(checks, &parse::<TrainingJob>(object)?, is_new).await,
        "Team" => team::judge(checks, &parse::<Team>(object)?).await,
        "CapacityPool" => pool::judge(checks, &parse::<CapacityPool>(object)?).await,
        _ => Ok(Vec::new()),
    }
}

pub fn parse<K: DeserializeOwned>(object: &DynamicObject) -> Result<K, Denial> {
    let parsed = serde_json::to_value(object).and_then(serde_json::from_value);
    parsed.map_err(|error| Denial::new(format!("the object does not parse: {error}"), "kubectl explain shows each field"))
}

/// The API server or a cloud could not be asked: the object's conditions will tell later what is not known now.
pub fn unsure(what: &str, error: &kube::Error) -> Verdict {
    tracing::warn!(what, %error, "a check of the webhook was skipped");
    Ok(vec![format!("{what} could not be checked now; the object's conditions will say whether it is right")])
}
