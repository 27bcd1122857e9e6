//! The admission webhook: refuses at once what would otherwise wait with a reason later.
//!
//! ```text
//!  kube-apiserver ──TLS──► server ──► review ──► job | team | pool ──► allowed, or why not and what would help
//!                   ▲
//!                   └── certificates: made here, kept in a Secret, rotated before they expire
//! ```
//! Pods that opt in to a pool's fleet are held back on the way in (`pods`, path `/mutate`).
//!
//! Shapes and ranges are the CRDs' business; here are the rules over several objects, and the pod template, which only the
//! API server itself can judge (a dry run of the Job made from it). Two objects that are admitted in the same moment may
//! still disagree with each other: their conditions say so then.

pub mod certificates;
mod job;
pub mod pods;
mod pool;
mod review;
mod server;
mod team;

use std::net::SocketAddr;
use std::sync::Arc;

use kube::Client;
use tokio_util::sync::CancellationToken;

use self::certificates::{CertificateError, Certificates};
use super::clock::MarketClock;
use super::health::Health;

/// What checks may look at.
#[derive(Clone)]
pub struct Checks {
    pub client: Client,
    pub clock: MarketClock,
    pub cluster_id: String,
}

/// Where the API server reaches the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// In the cluster: the Service `purser` of this namespace.
    ByService { namespace: String },
    /// On a developer's machine: a URL such as `https://127.0.0.1:9443`.
    ByUrl(url::Url),
}

#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("the webhook could not listen on {address}; is another purser running there?")]
    Listen { address: SocketAddr, #[source] source: std::io::Error },
}

/// Makes or finds the certificate, serves, and keeps the certificate fresh until told to stop.
pub async fn start(
    checks: Checks,
    listen: SocketAddr,
    namespace: &str,
    reached: Reached,
    health: Arc<Health>,
    stop: CancellationToken,
) -> Result<(), AdmissionError> {
    let certificates = Certificates::open(checks.client.clone(), namespace, reached).await?;
    server::serve(listen, review::routes(checks), certificates.resolver(), stop.clone())
        .await
        .map_err(|source| AdmissionError::Listen { address: listen, source })?;
    certificates.announce().await?;
    health.webhook_serves();
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = certificates.keep_fresh() => {}
        }
    });
    Ok(())
}
