//! `purser operator`: everything that runs beside a cluster, in one process: webhook, HTTP pages, lease, cycle.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{CliError, Exit, Global};
use crate::cloud::Cloud;
use crate::http::{self, Pages};
use crate::kubernetes::admission::{self, Checks, Reached};
use crate::kubernetes::apply::Hands;
use crate::kubernetes::clock::MarketClock;
use crate::kubernetes::cycle::{Cycle, Memory};
use crate::kubernetes::health::Health;
use crate::kubernetes::lease::LeaderLease;
use crate::kubernetes::meter::Metering;
use crate::kubernetes::metrics::Metrics;
use crate::kubernetes::observe::Observer;
use crate::kubernetes::observe::stores::Stores;
use crate::kubernetes::report::Announcer;
use crate::kubernetes::scrape::Scraper;
use crate::kubernetes::{failpoint, installation};
use crate::ledger::Ledger;

const NAMESPACE: &str = "purser-system";
/// Watches of a large cluster take their time at the first start.
const STORES_READY: Duration = Duration::from_secs(120);
/// A cycle that is under way is given this long to finish its effect.
const STOP_WITHIN: Duration = Duration::from_secs(45);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  purser operator --ledger s3://finance/purser\n  purser operator --kubeconfig dev.kubeconfig --ledger ./ledger --market-clock http://127.0.0.1:4566/purser/clock \\\n    --webhook-listen 127.0.0.1:9443 --webhook-url https://127.0.0.1:9443\n\nAWS credentials, region and endpoint come from the usual AWS environment. PURSER_LOG sets what is logged.")]
pub struct Args {
    /// Where charges are kept: a folder, or s3://bucket/prefix.
    #[arg(long, value_name = "URL", env = "PURSER_LEDGER")]
    ledger: String,
    /// The Lease by which replicas agree who acts.
    #[arg(long, value_name = "NAME", default_value = "purser")]
    lease_name: String,
    /// How long a leader that vanished is waited for.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(3..=300))]
    lease_seconds: u64,
    /// The value of the tag purser.dev/cluster on its machines [default: kept in the ConfigMap purser-installation].
    #[arg(long, value_name = "ID")]
    cluster_id: Option<String>,
    /// The market's clock, where it is not the real one: the twin's /purser/clock.
    #[arg(long, value_name = "URL")]
    market_clock: Option<String>,
    /// Plan at least so often, besides whenever something changes.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    cycle_seconds: u64,
    /// Health, metrics and the progress of pods.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    http: SocketAddr,
    /// Where pods report their progress [default: the Service purser of the namespace].
    #[arg(long, value_name = "URL")]
    progress_url: Option<String>,
    /// The admission webhook.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9443")]
    webhook_listen: SocketAddr,
    /// Where the API server reaches the webhook, for an operator outside the cluster [default: the Service purser;
    /// outside the cluster none, and no webhook].
    #[arg(long, value_name = "URL")]
    webhook_url: Option<url::Url>,
    /// Run without the admission webhook; objects are then checked by their schema and by the planner only.
    #[arg(long, conflicts_with = "webhook_url")]
    no_webhook: bool,
}

pub async fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    failpoint::arm().map_err(|error| CliError::usage("cannot arm the failpoint").because(error))?;
    let stop = stop_on_signals()?;
    let world = World::meet(&args, global).await?;
    let reached = reached(&args, &world.namespace);
    let health = Arc::new(Health::default());
    let metrics = Arc::new(Metrics::new());
    let pages = Pages { client: world.client.clone(), clock: world.clock, health: health.clone(), metrics: metrics.clone(), needs_webhook: reached.is_some() };
    http::serve(args.http, pages, stop.clone()).await.map_err(|error| CliError::failed("cannot serve HTTP").because(error))?;
    if let Some(reached) = reached {
        start_webhook(&args, reached, &world, &health, &stop).await?;
    }
    lead(&args, world, health, metrics, stop).await
}

/// What is needed before anything can be done.
struct World {
    client: Client,
    clock: MarketClock,
    namespace: String,
    cluster_id: String,
    ledger: Ledger,
    cloud: Option<Arc<dyn Cloud>>,
    /// This process among replicas and restarts.
    identity: String,
}

impl World {
    async fn meet(args: &Args, global: &Global) -> Result<World, CliError> {
        let client = global.client().await?;
        let namespace = global.namespace.clone().or_else(|| std::env::var("POD_NAMESPACE").ok()).unwrap_or_else(|| NAMESPACE.to_owned());
        let clock = match &args.market_clock {
            Some(url) => MarketClock::fetch(url).await.map_err(|error| CliError::failed("no market clock").because(error))?,
            None => MarketClock::identity(),
        };
        if !is_in_cluster() {
            let made = installation::ensure_namespace(&client, &namespace).await;
            made.map_err(|error| CliError::failed("purser has no namespace").because(error))?;
        }
        let cluster_id = installation::cluster_id(&client, &namespace, args.cluster_id.as_deref())
            .await
            .map_err(|error| CliError::failed("this installation has no id").because(error))?;
        let ledger = Ledger::open_or_create(&args.ledger).await.map_err(|error| CliError::failed("cannot open the ledger").because(error))?;
        let host = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_else(|_| "purser".to_owned());
        let identity = format!("{host}_{}", uuid::Uuid::new_v4());
        tracing::info!(%namespace, %cluster_id, ledger = %args.ledger, market_speed = clock.speed(), "purser starts");
        Ok(World { client, clock, namespace, cluster_id, ledger, cloud: cloud(clock), identity })
    }
}

#[cfg(feature = "aws")]
fn cloud(clock: MarketClock) -> Option<Arc<dyn Cloud>> {
    Some(Arc::new(crate::cloud::aws::Aws::new(Arc::new(move || clock.now()))))
}

#[cfg(not(feature = "aws"))]
fn cloud(_: MarketClock) -> Option<Arc<dyn Cloud>> {
    None
}

/// How the API server gets to the webhook; `None` for none. An operator outside the cluster announces nothing by itself: the
/// API server would ask in vain, and refuse everything.
fn reached(args: &Args, namespace: &str) -> Option<Reached> {
    match &args.webhook_url {
        Some(url) => Some(Reached::ByUrl(url.clone())),
        None if args.no_webhook => None,
        None if is_in_cluster() => Some(Reached::ByService { namespace: namespace.to_owned() }),
        None => {
            tracing::warn!("runs outside the cluster without --webhook-url: no admission webhook");
            None
        }
    }
}

/// The kubelet tells every pod where the API server is.
fn is_in_cluster() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

async fn start_webhook(args: &Args, reached: Reached, world: &World, health: &Arc<Health>, stop: &CancellationToken) -> Result<(), CliError> {
    let checks = Checks { client: world.client.clone(), clock: world.clock, cluster_id: world.cluster_id.clone() };
    admission::start(checks, args.webhook_listen, &world.namespace, reached, health.clone(), stop.clone())
        .await
        .map_err(|error| CliError::failed("cannot serve the admission webhook").because(error))
}

/// Waits for the lease, acts while it holds, and gives it back.
async fn lead(args: &Args, world: World, health: Arc<Health>, metrics: Arc<Metrics>, stop: CancellationToken) -> Result<Exit, CliError> {
    let mut lease =
        LeaderLease::new(world.client.clone(), &world.namespace, &args.lease_name, &world.identity, Duration::from_secs(args.lease_seconds));
    tokio::select! {
        () = lease.acquire() => {}
        () = stop.cancelled() => return Ok(Exit::Done),
    }
    health.leads();
    tracing::info!(identity = %world.identity, "leads");
    let cycle = tokio::spawn(act(args.cycle_seconds, progress_url(args, &world), world, health, metrics, stop.clone()));
    let outcome = tokio::select! {
        lost = lease.keep() => {
            // No two may act: whatever is under way ends with this process.
            return Err(CliError::failed("the lease is lost").because(lost));
        }
        done = finished(cycle, &stop) => done,
    };
    if let Err(error) = lease.release().await {
        tracing::warn!(%error, "the lease was not given back; the next leader waits for its end");
    }
    outcome.map(|()| Exit::Done)
}

fn progress_url(args: &Args, world: &World) -> String {
    args.progress_url.clone().unwrap_or_else(|| format!("http://purser.{}.svc:8080/v1/progress", world.namespace))
}

/// Waits for the cycle; once asked to stop, not for ever.
async fn finished(mut cycle: tokio::task::JoinHandle<Result<(), CliError>>, stop: &CancellationToken) -> Result<(), CliError> {
    let broken = |error: tokio::task::JoinError| CliError::failed("the cycle broke down").because(error);
    tokio::select! {
        done = &mut cycle => return done.map_err(broken)?,
        () = stop.cancelled() => {}
    }
    match tokio::time::timeout(STOP_WITHIN, cycle).await {
        Ok(done) => done.map_err(broken)?,
        Err(_) => Err(CliError::failed(format!("the cycle did not stop within {} s", STOP_WITHIN.as_secs()))),
    }
}

async fn act(cycle_seconds: u64, progress_url: String, world: World, health: Arc<Health>, metrics: Arc<Metrics>, stop: CancellationToken) -> Result<(), CliError> {
    let changed = Arc::new(Notify::new());
    let stores = Stores::start(&world.client, &changed);
    tokio::select! {
        ready = stores.ready(STORES_READY) => ready.map_err(|error| CliError::failed("cannot watch the cluster").because(error))?,
        () = stop.cancelled() => return Ok(()),
    }
    let scraper = Scraper::new().map_err(|error| CliError::failed("cannot read the metrics of pods").because(error))?;
    let hands = Hands { client: world.client.clone(), cloud: world.cloud.clone(), clock: world.clock, progress_url };
    let cycle = Cycle {
        observer: Observer::new(world.client.clone(), stores, world.cloud, world.clock, world.cluster_id),
        hands,
        metering: Metering::new(world.ledger),
        announcer: Announcer::new(world.client, &world.identity),
        scraper,
        metrics,
        health,
        changed,
        period: Duration::from_secs(cycle_seconds),
        memory: Memory::default(),
    };
    cycle.run(stop).await;
    Ok(())
}

/// SIGTERM and Ctrl-C ask to stop; a second one is not waited for by anybody.
fn stop_on_signals() -> Result<CancellationToken, CliError> {
    let failed = |error: std::io::Error| CliError::failed("cannot listen for signals").because(error);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate()).map_err(failed)?, signal(SignalKind::interrupt()).map_err(failed)?);
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stops: the effect under way is finished, then the lease is given back");
        told.cancel();
    });
    Ok(stop)
}
