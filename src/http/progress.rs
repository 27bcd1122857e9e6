//! `POST /v1/progress`: a pod says how far its program is.
//!
//! The pod proves itself with a projected token of audience `purser.dev`; the API server says which pod it is, and the pod's
//! labels say which job and attempt it works for. A pod can so speak only of its own job.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use kube::Client;
use serde_json::json;

use super::Pages;
use crate::api::labels;
use crate::kubernetes::chain::chain;
use crate::kubernetes::progress::{self, ProgressError, Report, Speaker};

const BODY_MAX: usize = 4 * 1024;
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

pub fn routes() -> Router<Pages> {
    Router::new().route("/v1/progress", post(report)).layer(DefaultBodyLimit::max(BODY_MAX))
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("no bearer token; send the file $PURSER_TOKEN_FILE as \"Authorization: Bearer …\"")]
    NoToken,
    #[error("the token is not valid here: {why}")]
    Token { why: String },
    #[error("the token is not of a pod that works for a TrainingJob")]
    Stranger,
    #[error("the body is not a report: {why}; send {{\"fraction\": 0.42, \"checkpoint\": {{\"fraction\": 0.4, \"uri\": \"s3://…\"}}}}")]
    Body { why: String },
    #[error(transparent)]
    Progress(#[from] ProgressError),
    #[error("the API server could not be asked")]
    Kubernetes(#[source] Box<kube::Error>),
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let code = match &self {
            Refused::NoToken | Refused::Token { .. } => StatusCode::UNAUTHORIZED,
            Refused::Stranger => StatusCode::FORBIDDEN,
            Refused::Body { .. } | Refused::Progress(ProgressError::Fraction { .. } | ProgressError::Uri { .. }) => StatusCode::BAD_REQUEST,
            Refused::Progress(ProgressError::OldAttempt { .. }) => StatusCode::CONFLICT,
            Refused::Progress(ProgressError::Gone { .. }) => StatusCode::GONE,
            Refused::Progress(ProgressError::Kubernetes { .. }) | Refused::Kubernetes(_) => {
                tracing::warn!(error = %chain(&self), "progress was not recorded");
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        (code, Json(json!({"error": self.to_string()}))).into_response()
    }
}

async fn report(State(pages): State<Pages>, headers: HeaderMap, body: Bytes) -> Result<Json<serde_json::Value>, Refused> {
    let token = bearer(&headers).ok_or(Refused::NoToken)?;
    let speaker = speaker(&pages.client, token).await?;
    let report: Report = serde_json::from_slice(&body).map_err(|error| Refused::Body { why: error.to_string() })?;
    progress::record(&pages.client, &pages.clock, &speaker, &report).await?;
    Ok(Json(json!({"recorded": true})))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::trim).filter(|token| !token.is_empty())
}

/// The API server says whose token it is; the pod, read live, says what it works for.
async fn speaker(client: &Client, token: &str) -> Result<Speaker, Refused> {
    let review = TokenReview {
        spec: TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![labels::TOKEN_AUDIENCE.to_owned()]) },
        ..TokenReview::default()
    };
    let kubernetes = |error| Refused::Kubernetes(Box::new(error));
    let answer = Api::<TokenReview>::all(client.clone()).create(&PostParams::default(), &review).await.map_err(kubernetes)?;
    let pod = pod_of(&answer.status.unwrap_or_default())?;
    let live = Api::<Pod>::namespaced(client.clone(), &pod.namespace).get_opt(&pod.name).await.map_err(kubernetes)?;
    let live = live.filter(|live| live.metadata.uid.as_ref() == Some(&pod.uid)).ok_or(Refused::Stranger)?;
    Speaker::of_pod(&live).ok_or(Refused::Stranger)
}

#[derive(Debug, PartialEq)]
struct PodId {
    namespace: String,
    name: String,
    uid: String,
}

fn pod_of(status: &TokenReviewStatus) -> Result<PodId, Refused> {
    let right_audience = status.audiences.iter().flatten().any(|audience| audience == labels::TOKEN_AUDIENCE);
    if status.authenticated != Some(true) || !right_audience {
        let why = status.error.clone().unwrap_or_else(|| format!("it is not for the audience {}", labels::TOKEN_AUDIENCE));
        return Err(Refused::Token { why });
    }
    let user = status.user.clone().unwrap_or_default();
    let extra = user.extra.unwrap_or_default();
    let one = |key: &str| extra.get(key).and_then(|values| values.first().cloned());
    let namespace = user.username.as_deref().and_then(|name| name.strip_prefix("system:serviceaccount:")?.split(':').next().map(str::to_owned));
    match (namespace, one(POD_NAME), one(POD_UID)) {
        (Some(namespace), Some(name), Some(uid)) => Ok(PodId { namespace, name, uid }),
        _ => Err(Refused::Stranger),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reviewed(audience: &str, extra: serde_json::Value) -> TokenReviewStatus {
        serde_json::from_value(json!({
            "authenticated": true, "audiences": [audience],
            "user": {"username": "system:serviceaccount:vision:default", "extra": extra}
        }))
        .unwrap()
    }

    #[test]
    fn only_a_pods_own_token_for_purser_speaks() {
        let pod = json!({POD_NAME: ["bert-0"], POD_UID: ["u"]});
        let id = pod_of(&reviewed("purser.dev", pod.clone())).unwrap();
        assert_eq!((id.namespace.as_str(), id.name.as_str()), ("vision", "bert-0"));
        assert!(matches!(pod_of(&reviewed("https://kubernetes.default.svc", pod)), Err(Refused::Token { .. })));
        assert!(matches!(pod_of(&reviewed("purser.dev", json!({}))), Err(Refused::Stranger)));
        assert!(matches!(pod_of(&TokenReviewStatus::default()), Err(Refused::Token { .. })));
    }
}
