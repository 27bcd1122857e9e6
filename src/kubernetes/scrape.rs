//! Reads the progress of programs that expose it as a metric, beside the cycle and never holding it up.
//!
//! Asked is the pod's own address as Kubernetes knows it, at a port and for a metric that were checked; nothing else of
//! the URL comes from a custom resource, and redirects are not followed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt};

use super::apply::manifest::INDEX;
use super::chain::chain;
use super::clock::MarketClock;
use super::progress::{self, ProgressError, Report, Speaker};
use crate::api::labels;
use crate::training::ProgressMetric;

/// A pod is asked at most so often.
const EVERY: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: usize = 256 * 1024;

#[derive(Debug, thiserror::Error)]
enum ScrapeError {
    #[error("the pod did not answer")]
    Request(#[from] reqwest::Error),
    #[error("the pod's metrics are longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    #[error("the pod exposes no {name} from 0 to 1")]
    NoSample { name: String },
    #[error(transparent)]
    Record(#[from] ProgressError),
}

pub struct Scraper {
    http: reqwest::Client,
    /// By pod UID: when it was asked last.
    asked: BTreeMap<String, Instant>,
}

impl Scraper {
    pub fn new() -> Result<Scraper, reqwest::Error> {
        let http = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none()).no_proxy().build()?;
        Ok(Scraper { http, asked: BTreeMap::new() })
    }

    /// Asks those that are due, each in a task of its own.
    pub fn look(&mut self, client: &Client, clock: &MarketClock, pods: &[Pod]) {
        self.asked.retain(|uid, _| pods.iter().any(|pod| pod.uid().as_ref() == Some(uid)));
        for pod in pods {
            let (Some(target), Some(speaker), Some(uid)) = (Target::of_pod(pod), Speaker::of_pod(pod), pod.uid()) else { continue };
            if self.asked.get(&uid).is_some_and(|at| at.elapsed() < EVERY) {
                continue;
            }
            self.asked.insert(uid, Instant::now());
            let (http, client, clock) = (self.http.clone(), client.clone(), *clock);
            tokio::spawn(async move {
                match scrape(&http, &client, &clock, &target, &speaker).await {
                    Ok(()) | Err(ScrapeError::Record(ProgressError::OldAttempt { .. } | ProgressError::Gone { .. })) => {}
                    Err(error) => tracing::debug!(job = %speaker.job, error = %chain(&error), "no progress by metric"),
                }
            });
        }
    }
}

struct Target {
    address: std::net::IpAddr,
    metric: ProgressMetric,
}

impl Target {
    /// The running pod of rank 0, where it names a metric.
    fn of_pod(pod: &Pod) -> Option<Target> {
        let metric = pod.annotations().get(labels::PROGRESS_METRIC)?.parse().ok()?;
        let status = pod.status.as_ref().filter(|status| status.phase.as_deref() == Some("Running"))?;
        let address = status.pod_ip.as_ref()?.parse().ok()?;
        (pod.annotations().get(INDEX)? == "0").then_some(Target { address, metric })
    }
}

async fn scrape(http: &reqwest::Client, client: &Client, clock: &MarketClock, target: &Target, speaker: &Speaker) -> Result<(), ScrapeError> {
    let fraction = fraction(http, target).await?;
    Ok(progress::record(client, clock, speaker, &Report { fraction: Some(fraction), checkpoint: None }).await?)
}

async fn fraction(http: &reqwest::Client, target: &Target) -> Result<f64, ScrapeError> {
    let address = std::net::SocketAddr::new(target.address, target.metric.port);
    let mut answer = http.get(format!("http://{address}/metrics")).send().await?.error_for_status()?;
    let mut page = Vec::new();
    while let Some(part) = answer.chunk().await? {
        page.extend_from_slice(&part);
        if page.len() > ANSWER_BYTES_MAX {
            return Err(ScrapeError::TooLong);
        }
    }
    target.metric.read(&String::from_utf8_lossy(&page)).ok_or_else(|| ScrapeError::NoSample { name: target.metric.name.clone() })
}

#[cfg(test)]
mod tests {
    use axum::response::Redirect;
    use axum::routing::get;

    use super::*;

    async fn answer_of(router: axum::Router) -> Result<f64, ScrapeError> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let metric = ProgressMetric { name: "progress".into(), port: address.port() };
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        fraction(&Scraper::new().unwrap().http, &Target { address: address.ip(), metric }).await
    }

    #[tokio::test]
    async fn a_pods_metric_is_read_and_nothing_else_is_followed_or_swallowed() {
        let good = axum::Router::new().route("/metrics", get(|| async { "progress 0.5\n" }));
        assert_eq!(answer_of(good).await.unwrap(), 0.5);
        let elsewhere = axum::Router::new()
            .route("/metrics", get(|| async { Redirect::temporary("/other") }))
            .route("/other", get(|| async { "progress 0.5\n" }));
        assert!(matches!(answer_of(elsewhere).await, Err(ScrapeError::NoSample { .. })));
        let endless = axum::Router::new().route("/metrics", get(|| async { format!("{}\nprogress 0.5\n", "#".repeat(ANSWER_BYTES_MAX)) }));
        assert!(matches!(answer_of(endless).await, Err(ScrapeError::TooLong)));
    }
}
