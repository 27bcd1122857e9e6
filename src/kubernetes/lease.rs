//! Leader election on a `coordination.k8s.io` Lease, by the rules of client-go: a lease is expired when *we* have not seen
//! it change for its duration, so that clocks of different machines need not agree.
//!
//! Losing the lease ends the process: no two may act, and starting afresh is the one way that is always right.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};

/// Share of the duration after which the holder renews.
const RENEW_PARTS: u32 = 3;
/// How often one who waits looks.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("could not read or write the lease {namespace}/{name}")]
    Kubernetes { namespace: String, name: String, #[source] source: Box<kube::Error> },
    #[error("the lease {name} was lost to {holder}; another purser acts now")]
    Lost { name: String, holder: String },
    #[error("the lease {name} could not be renewed for {seconds} s; another purser may act now")]
    Expired { name: String, seconds: u64 },
}

pub struct LeaderLease {
    api: Api<Lease>,
    namespace: String,
    name: String,
    /// Who we are; another start of the same pod is somebody else.
    identity: String,
    duration: Duration,
    /// What was seen last (holder, renew time) and since when it is unchanged.
    seen: Option<(String, Option<MicroTime>, Instant)>,
}

impl LeaderLease {
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, duration: Duration) -> LeaderLease {
        LeaderLease {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            duration,
            seen: None,
        }
    }

    /// Waits until the lease is ours.
    pub async fn acquire(&mut self) {
        loop {
            match self.try_hold().await {
                Ok(None) => return,
                Ok(Some(holder)) => tracing::debug!(%holder, "another purser leads"),
                Err(error) => tracing::warn!(error = %super::chain::chain(&error), "the lease cannot be had yet"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Renews until that fails; returns why.
    pub async fn keep(&mut self) -> LeaseError {
        let mut renewed = Instant::now();
        // A little early, so that we have stopped before another may begin.
        let deadline = self.duration * 2 / RENEW_PARTS;
        loop {
            tokio::time::sleep(self.duration / RENEW_PARTS / 2).await;
            match tokio::time::timeout(self.duration / RENEW_PARTS, self.try_hold()).await {
                Ok(Ok(None)) => renewed = Instant::now(),
                Ok(Ok(Some(holder))) => return LeaseError::Lost { name: self.name.clone(), holder },
                Ok(Err(error)) => tracing::warn!(error = %super::chain::chain(&error), "the lease was not renewed"),
                Err(_) => tracing::warn!("the lease was not renewed in time"),
            }
            if renewed.elapsed() >= deadline {
                return LeaseError::Expired { name: self.name.clone(), seconds: renewed.elapsed().as_secs() };
            }
        }
    }

    /// Gives the lease up, so that the next leader need not wait for its end.
    pub async fn release(&self) -> Result<(), LeaseError> {
        let Some(mut lease) = self.read().await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return Ok(());
        }
        spec.holder_identity = None;
        self.replace(&lease).await.map(drop)
    }

    /// Takes or renews; says who holds it where that is another.
    async fn try_hold(&mut self) -> Result<Option<String>, LeaseError> {
        let Some(mut lease) = self.read().await? else { return self.create().await };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder != self.identity && !holder.is_empty() && !self.is_expired(&holder, &spec) {
            return Ok(Some(holder));
        }
        let now = Some(MicroTime(Timestamp::now()));
        let changes_hands = holder != self.identity;
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            acquire_time: if changes_hands { now.clone() } else { spec.acquire_time },
            renew_time: now,
            lease_transitions: Some(spec.lease_transitions.unwrap_or_default() + i32::from(changes_hands)),
            ..LeaseSpec::default()
        });
        match self.replace(&lease).await? {
            true => Ok(None),
            false => Ok(Some("somebody who was quicker".to_owned())),
        }
    }

    fn is_expired(&mut self, holder: &str, spec: &LeaseSpec) -> bool {
        let unchanged = self.seen.as_ref().filter(|(known, renewed, _)| known == holder && *renewed == spec.renew_time);
        match unchanged {
            Some((_, _, since)) => {
                let theirs = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
                since.elapsed() >= theirs.unwrap_or(self.duration)
            }
            None => {
                self.seen = Some((holder.to_owned(), spec.renew_time.clone(), Instant::now()));
                false
            }
        }
    }

    async fn create(&self) -> Result<Option<String>, LeaseError> {
        let now = Some(MicroTime(Timestamp::now()));
        let lease = Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
                acquire_time: now.clone(),
                renew_time: now,
                ..LeaseSpec::default()
            }),
        };
        match self.api.create(&PostParams::default(), &lease).await {
            Ok(_) => Ok(None),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Some("somebody who was quicker".to_owned())),
            Err(source) => Err(self.failed(source)),
        }
    }

    async fn read(&self) -> Result<Option<Lease>, LeaseError> {
        self.api.get_opt(&self.name).await.map_err(|source| self.failed(source))
    }

    /// `false` where somebody came between.
    async fn replace(&self, lease: &Lease) -> Result<bool, LeaseError> {
        match self.api.replace(&self.name, &PostParams::default(), lease).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(source) => Err(self.failed(source)),
        }
    }

    fn failed(&self, source: kube::Error) -> LeaseError {
        LeaseError::Kubernetes { namespace: self.namespace.clone(), name: self.name.clone(), source: Box::new(source) }
    }
}
