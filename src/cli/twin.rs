//! `purser twin`: an AWS endpoint on this machine, over a simulated market.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{CliError, Exit, Global, output};
use crate::simulation::market::fleet::Timing;
use crate::twin::nodes::{self, Kubelet, Kwok, NodeBackend, NodeError};
use crate::twin::{self, MarketSource, Settings, Twin};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  purser twin --speed 60
  purser twin --market seed:7 --speed 120 --state demo-state/twin
  purser twin --market trace:spot.csv#availability/1-node/aws-02-15-2023 --prices prices.csv
  AWS_ENDPOINT_URL=http://127.0.0.1:4566 AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=x AWS_REGION=us-east-1 purser operator

It answers EC2, SQS, STS, S3, pricing and quotas on one address, and does not verify signatures.
Its own pages: /purser/clock, /purser/ledger (what everything cost), /purser/events (everything that happened).
With --kubeconfig its instances become simulated nodes of that cluster (kwok keeps them alive), whose pods work at the
job's stated rate. With --real-nodes they become real ones, whose pods really run; keep --speed at 10 or below there.")]
pub struct Args {
    /// Where to listen; port 0 takes a free one. The address is printed on stdout.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4566")]
    listen: SocketAddr,
    /// demo, seed:N, trace:FILE[#GROUP] (GROUP being kind/nodes/trace), or catalogue:FILE: instance types and prices in the JSON
    /// that Karpenter's kwok provider reads, as many machines as are asked for.
    #[arg(long, value_name = "MARKET", default_value = "demo")]
    market: Market,
    /// Prices for a trace; without them spot costs about a third of on-demand.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Market seconds per real second.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    speed: f64,
    /// Folder that a restart continues from; without it everything is forgotten at the end.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Market time at the first start [default: now].
    #[arg(long, value_name = "RFC3339")]
    market_epoch: Option<DateTime<Utc>>,
    /// Market seconds from launch to running.
    #[arg(long, value_name = "SECONDS", default_value_t = Timing::default().boot_seconds)]
    boot: u32,
    /// Describe calls show the world as it was so many real seconds ago.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    lag: f64,
    /// vCPUs of a quota, for example L-DB2E81BA=64 (on-demand G); may be repeated.
    #[arg(long = "quota", value_name = "CODE=VCPUS", value_parser = quota)]
    quotas: Vec<(String, u32)>,
    /// Free addresses of each zone's subnet.
    #[arg(long, value_name = "COUNT", default_value_t = 4_091)]
    subnet_addresses: u32,
    /// EC2 calls a second; more are answered with RequestLimitExceeded [default: any number].
    #[arg(long, value_name = "COUNT")]
    calls_per_second: Option<u32>,
    /// A machine image that there is; may be repeated [default: ami-0123456789abcdef0].
    #[arg(long = "image", value_name = "ID")]
    images: Vec<String>,
    /// Folder of a local cluster (`purser cluster up --real-nodes`) in which instances become real nodes.
    #[arg(long, value_name = "DIR")]
    real_nodes: Option<PathBuf>,
    /// Image archive that every real node gets; may be repeated.
    #[arg(long = "node-image", value_name = "FILE", requires = "real_nodes")]
    node_images: Vec<PathBuf>,
    /// The queue that gets EC2's events.
    #[arg(long, value_name = "NAME", default_value = "purser-interruptions")]
    queue: String,
}

/// `--market`, before `--prices` is known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Market(MarketSource);

impl FromStr for Market {
    type Err = String;

    fn from_str(text: &str) -> Result<Market, String> {
        let wrong = || format!("{text:?} is no market; write demo, seed:N, trace:FILE[#GROUP] or catalogue:FILE");
        let source = match text.split_once(':') {
            None if text == "demo" => MarketSource::Demo,
            Some(("seed", seed)) => MarketSource::Seed(seed.parse().map_err(|_| wrong())?),
            Some(("catalogue", file)) if !file.is_empty() => MarketSource::Catalogue { file: file.into() },
            Some(("trace", file)) if !file.is_empty() => {
                let (file, group) = file.split_once('#').map_or((file, None), |(file, group)| (file, Some(group.to_owned())));
                MarketSource::Trace { file: file.into(), group, prices: None }
            }
            _ => return Err(wrong()),
        };
        Ok(Market(source))
    }
}

fn quota(text: &str) -> Result<(String, u32), String> {
    let wrong = || format!("{text:?} is no quota; write CODE=VCPUS, for example L-DB2E81BA=64");
    let (code, vcpus) = text.split_once('=').ok_or_else(wrong)?;
    Ok((code.to_owned(), vcpus.parse().map_err(|_| wrong())?))
}

impl Args {
    fn settings(&self) -> Settings {
        let market = match &self.market.0 {
            MarketSource::Trace { file, group, .. } => MarketSource::Trace { file: file.clone(), group: group.clone(), prices: self.prices.clone() },
            other => other.clone(),
        };
        Settings {
            speed: self.speed,
            market_epoch: self.market_epoch,
            state: self.state.clone(),
            timing: Timing { boot_seconds: self.boot, ..Timing::default() },
            lag_seconds: self.lag.max(0.0),
            quotas: self.quotas.iter().cloned().collect::<BTreeMap<_, _>>(),
            subnet_addresses: self.subnet_addresses,
            calls_per_second_max: self.calls_per_second,
            images: if self.images.is_empty() { vec![twin::IMAGE.to_owned()] } else { self.images.clone() },
            queue: self.queue.clone(),
            ..Settings::new(market)
        }
    }
}

pub async fn run(args: &Args, global: &Global) -> Result<Exit, CliError> {
    let twin = Twin::open(args.settings()).map_err(|error| CliError::failed("cannot open the twin").because(error))?;
    let busy = || CliError::failed(format!("cannot listen on {}", args.listen)).hint("give another address with --listen, or port 0 for a free one");
    let listener = TcpListener::bind(args.listen).await.map_err(|error| busy().because(error))?;
    let address = listener.local_addr().map_err(|error| busy().because(error))?;
    let backend = backend(args, global).await.map_err(|error| CliError::failed("cannot make nodes of the twin's instances").because(error))?;
    output::print(&format!("http://{address}\n"))?;
    tracing::info!(%address, market = args.settings().market.name(), speed = args.speed, "the twin is ready");
    let stop = stop_signal()?;
    let nodes = async {
        match backend {
            Some(backend) => nodes::run(&twin, &backend).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        served = twin::serve(twin.clone(), listener, stop) => served.map_err(|error| CliError::failed("the twin's server failed").because(error))?,
        () = nodes => {}
    }
    Ok(Exit::Done)
}

async fn backend(args: &Args, global: &Global) -> Result<Option<NodeBackend>, NodeError> {
    Ok(match (&args.real_nodes, &global.kubeconfig) {
        (Some(cluster), _) => Some(NodeBackend::Kubelet(Box::new(Kubelet::attach(cluster, args.node_images.clone()).await?))),
        (None, Some(kubeconfig)) => Some(NodeBackend::Kwok(Box::new(Kwok::connect(kubeconfig).await?))),
        (None, None) => None,
    })
}

/// Ends at SIGTERM or Ctrl-C.
fn stop_signal() -> Result<impl Future<Output = ()>, CliError> {
    let listen = |kind| signal(kind).map_err(|error| CliError::failed("cannot listen for signals").because(error));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markets_are_read_as_they_are_written() {
        for text in ["demo", "seed:7", "catalogue:a.json", "trace:a/b.csv", "trace:a/b.csv#availability/1-node/x"] {
            assert_eq!(text.parse::<Market>().unwrap().0.name(), text);
        }
        for text in ["", "demos", "seed:x", "trace:", "file:x"] {
            assert!(text.parse::<Market>().unwrap_err().contains("write demo, seed:N, trace:FILE[#GROUP] or catalogue:FILE"), "{text}");
        }
    }
}
