//! The operator's HTTP server: health, metrics, progress. Each page registers its own route.
//!
//! ```text
//!  GET  /healthz      the process runs
//!  GET  /readyz       it can do its work (503 with why, if not)
//!  GET  /metrics      Prometheus
//!  POST /v1/progress  pods say how far they are, with their projected token
//! ```
//! Plain HTTP inside the cluster: nothing secret is answered, and a token is good for this audience only.

mod metrics;
pub mod progress;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::kubernetes::clock::MarketClock;
use crate::kubernetes::health::Health;
use crate::kubernetes::metrics::Metrics;

#[derive(Debug, thiserror::Error)]
#[error("could not listen on {address}; is another purser running there?")]
pub struct ListenError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// What the pages need.
#[derive(Clone)]
pub struct Pages {
    pub client: Client,
    pub clock: MarketClock,
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
    /// Whether readiness depends on the admission webhook.
    pub needs_webhook: bool,
}

pub fn routes(pages: Pages) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .merge(metrics::routes())
        .merge(progress::routes())
        .with_state(pages)
}

/// Listens; serving goes on in the background until it is told to stop.
pub async fn serve(address: SocketAddr, pages: Pages, stop: CancellationToken) -> Result<SocketAddr, ListenError> {
    let failed = |source| ListenError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let server = axum::serve(listener, routes(pages)).with_graceful_shutdown(async move { stop.cancelled().await });
    tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the HTTP server stopped");
        }
    });
    Ok(bound)
}

async fn ready(State(pages): State<Pages>) -> (StatusCode, String) {
    match pages.health.ready(pages.needs_webhook) {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}
