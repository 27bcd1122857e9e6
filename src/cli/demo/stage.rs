//! The demo's stage: the local cluster, the twin and the operator, each with a log and an end.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use kube::api::ListParams;
use kube::{Api, Client};

use crate::api::CapacityPool;
use crate::cli::CliError;
use crate::cli::cluster_access::api_error;
use crate::kubernetes::clock::MarketClock;
use crate::testbed::{LocalCluster, Options};

/// The tag value of the demo's machines.
const CLUSTER_ID: &str = "purser-demo";
const READY_TIMEOUT: Duration = Duration::from_secs(60);

pub struct Stage {
    cluster: LocalCluster,
    /// This very binary: the demo shows what it is made of.
    purser: PathBuf,
    speed: f64,
    market_epoch: &'static str,
    twin_port: u16,
    http_port: u16,
    webhook_port: u16,
}

impl Stage {
    /// Starts the cluster; it outlives this process.
    pub async fn set(dir: &Path, speed: f64, market_epoch: &'static str) -> Result<Stage, CliError> {
        let purser = std::env::current_exe().map_err(|error| CliError::failed("cannot find this program's own file").because(error))?;
        let failed = |error| CliError::failed("cannot start a local cluster").because(error);
        let ports = LocalCluster::free_ports(3).map_err(failed)?;
        let options = Options { detached: true, ..Options::default() };
        let cluster = LocalCluster::start(dir, options).await.map_err(failed)?;
        Ok(Stage { cluster, purser, speed, market_epoch, twin_port: ports[0], http_port: ports[1], webhook_port: ports[2] })
    }

    pub async fn client(&self) -> Result<Client, CliError> {
        self.cluster.client().await.map_err(|error| CliError::failed("cannot speak to the local cluster").because(error))
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.cluster.kubeconfig_path()
    }

    pub fn dir(&self) -> &Path {
        self.cluster.dir()
    }

    /// This very binary.
    pub fn program(&self) -> &Path {
        &self.purser
    }

    pub fn ledger(&self) -> PathBuf {
        self.dir().join("ledger")
    }

    pub fn twin_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.twin_port)
    }

    pub fn http_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    pub fn clock_url(&self) -> String {
        format!("{}/purser/clock", self.twin_url())
    }

    /// Starts the twin, then the operator on it, and returns when both answer.
    pub async fn start_servers(&self) -> Result<(), CliError> {
        let twin = self.start("twin", self.twin())?;
        wait_until_answers("the twin", &self.clock_url(), &twin).await?;
        let operator = self.start("operator", self.operator())?;
        wait_until_answers("the operator", &format!("{}/readyz", self.http_url()), &operator).await
    }

    fn start(&self, name: &str, command: Command) -> Result<PathBuf, CliError> {
        self.cluster.start_companion(name, command).map_err(|error| CliError::failed(format!("cannot start the {name}")).because(error))
    }

    fn twin(&self) -> Command {
        let mut command = self.cluster.companion(&self.purser);
        command
            .args(["twin", "--market", "demo", "--market-epoch", self.market_epoch])
            .args(["--speed", &self.speed.to_string()])
            .args(["--listen", &format!("127.0.0.1:{}", self.twin_port)])
            .arg("--state")
            .arg(self.dir().join("twin"))
            .arg("--kubeconfig")
            .arg(self.kubeconfig());
        command
    }

    fn operator(&self) -> Command {
        let mut command = self.aws_command();
        command
            .args(["operator", "--cluster-id", CLUSTER_ID, "--market-clock", &self.clock_url()])
            .args(["--http", &format!("127.0.0.1:{}", self.http_port)])
            .args(["--webhook-listen", &format!("127.0.0.1:{}", self.webhook_port)])
            .args(["--webhook-url", &format!("https://127.0.0.1:{}", self.webhook_port)])
            .args(["--progress-url", &format!("{}/v1/progress", self.http_url())])
            .arg("--ledger")
            .arg(self.ledger())
            .arg("--kubeconfig")
            .arg(self.kubeconfig());
        command
    }

    /// A command for which AWS is the twin.
    fn aws_command(&self) -> Command {
        let mut command = self.cluster.companion(&self.purser);
        command.env("AWS_ENDPOINT_URL", self.twin_url()).env("AWS_REGION", "us-east-1");
        command
    }

    /// `purser plan` of these files at the market's prices, as a user would call it.
    pub async fn show_plan(&self, files: &[(&str, &str)]) -> Result<(), CliError> {
        let folder = self.dir().join("samples");
        let failed = |error| CliError::failed(format!("could not write the samples to {}", folder.display())).because(error);
        std::fs::create_dir_all(&folder).map_err(failed)?;
        for (name, text) in files {
            std::fs::write(folder.join(name), text).map_err(failed)?;
        }
        let mut command = self.aws_command();
        command.args(["plan", "--live", "--market-clock", &self.clock_url(), "-f"]).arg(&folder);
        command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
        let ended = tokio::task::spawn_blocking(move || command.status()).await;
        let status = ended.map_err(|error| CliError::failed("cannot show the plan").because(error))?;
        let status = status.map_err(|error| CliError::failed("cannot show the plan").because(error))?;
        // 3: a job of the samples cannot run, which is what one of them is for.
        match status.code() {
            Some(0 | 3) => Ok(()),
            _ => Err(CliError::failed(format!("purser plan ended with {status}"))),
        }
    }

    /// How much market time has passed since its clock began.
    pub async fn market_time_passed(&self) -> Result<TimeDelta, CliError> {
        let clock = MarketClock::fetch(&self.clock_url()).await.map_err(|error| CliError::failed("cannot read the market's clock").because(error))?;
        let begun: DateTime<Utc> = self.market_epoch.parse().map_err(|error| CliError::failed("the market's epoch is no time").because(error))?;
        Ok(clock.now() - begun)
    }

    /// Waits until a pool has something to offer.
    pub async fn wait_for_offers(&self, client: &Client) -> Result<(), CliError> {
        let pools: Api<CapacityPool> = Api::all(client.clone());
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let all = pools.list(&ListParams::default()).await.map_err(|error| api_error("could not list pools", error))?;
            if all.items.iter().filter_map(|pool| pool.status.as_ref()?.offers).any(|offers| offers > 0) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(CliError::failed("no pool has anything to offer"));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What somebody may type to look further, without the addresses they would have to know.
    pub fn environment(&self) -> String {
        format!("AWS_ENDPOINT_URL={} AWS_ACCESS_KEY_ID=demo AWS_SECRET_ACCESS_KEY=demo AWS_REGION=us-east-1", self.twin_url())
    }
}

async fn wait_until_answers(what: &str, url: &str, log: &Path) -> Result<(), CliError> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        if is_answered(url).await {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(CliError::failed(format!("{what} did not answer at {url} after {} s", READY_TIMEOUT.as_secs())).hint(format!("read {}", log.display())));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn is_answered(url: &str) -> bool {
    let Ok(client) = local_http() else { return false };
    client.get(url).send().await.is_ok_and(|answer| answer.status().is_success())
}

/// A client that asks no proxy: everything is on this machine.
pub fn local_http() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()
}
