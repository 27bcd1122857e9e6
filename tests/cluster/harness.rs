//! One whole world for a test: a real control plane, the AWS twin, the operator, each a process of its own.
//!
//! Everything listens on loopback, has dummy credentials and no configuration files, and is ended when the world is dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::pinned_kind;
use purser::api::TrainingJob;
use purser::testbed::{LocalCluster, Options};
use serde_json::Value;

pub const NAMESPACE: &str = "default";

/// What a world is made of besides the control plane.
pub struct Setup {
    /// `--market` of the twin.
    pub market: String,
    pub prices: Option<PathBuf>,
    pub speed: f64,
    /// Image archives for real nodes; without any the nodes are simulated.
    pub node_images: Vec<PathBuf>,
    pub twin_args: Vec<String>,
    pub operator_args: Vec<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Setup { market: "demo".into(), prices: None, speed: 120.0, node_images: Vec::new(), twin_args: Vec::new(), operator_args: Vec::new() }
    }
}

pub struct World {
    pub client: kube::Client,
    pub cluster: Option<LocalCluster>,
    setup: Setup,
    twin: Option<Child>,
    operator: Option<Child>,
    operator_starts: u32,
    twin_port: u16,
    /// Whose rights the operator has; the owner's unless a test says otherwise.
    pub operator_kubeconfig: Option<PathBuf>,
    http_port: u16,
    webhook_port: u16,
    folder: tempfile::TempDir,
}

impl World {
    /// Control plane, CRDs and twin; the operator is started by the test.
    pub async fn start(setup: Setup) -> World {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::Builder::new().prefix("purser-world-").tempdir().expect("a temporary folder");
        let cluster = LocalCluster::start(&folder.path().join("cluster"), Options { real_nodes: !setup.node_images.is_empty(), ..Options::default() }).await.expect("the control plane starts");
        let client = cluster.client().await.expect("an admin client");
        let mut world = World {
            client,
            cluster: Some(cluster),
            setup,
            twin: None,
            operator: None,
            operator_starts: 0,
            twin_port: free_port(),
            operator_kubeconfig: None,
            http_port: free_port(),
            webhook_port: free_port(),
            folder,
        };
        for crd in purser::api::crds() {
            world.apply(&serde_json::to_value(crd).expect("a CRD is JSON")).await;
        }
        world.apply(&serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "purser-system"}})).await;
        world.wait("the CRDs to be served", 30, async |world| world.jobs().list(&Default::default()).await.ok().map(|_| ())).await;
        world.start_twin();
        world.wait("the twin to answer", 30, async |world| world.twin_json("/purser/clock").await).await;
        world
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn twin_url(&self) -> String {
        format!("http://{}:{}", self.host(), self.twin_port)
    }

    /// Where pods of real nodes reach this machine; loopback where nodes are simulated.
    fn host(&self) -> String {
        match &self.cluster {
            Some(cluster) if !self.setup.node_images.is_empty() => cluster.host_address().to_string(),
            _ => "127.0.0.1".to_owned(),
        }
    }

    /// Its pages: health, metrics, progress.
    pub fn operator_url(&self) -> String {
        format!("http://{}:{}", self.host(), self.http_port)
    }

    pub fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.cluster.as_ref().expect("the cluster runs").kubeconfig_path()
    }

    pub fn start_twin(&mut self) {
        let mut args = vec!["twin".to_owned(), "--listen".into(), format!("{}:{}", self.host(), self.twin_port), "--market".into(), self.setup.market.clone()];
        args.extend(["--speed".into(), self.setup.speed.to_string(), "--state".into(), self.path("twin-state")]);
        match self.setup.node_images.is_empty() {
            true => args.extend(["--kubeconfig".into(), self.kubeconfig().display().to_string()]),
            false => args.extend(["--real-nodes".into(), self.path("cluster")]),
        }
        for image in &self.setup.node_images {
            args.extend(["--node-image".into(), image.display().to_string()]);
        }
        if let Some(prices) = &self.setup.prices {
            args.extend(["--prices".into(), prices.display().to_string()]);
        }
        args.extend(self.setup.twin_args.iter().cloned());
        self.twin = Some(self.spawn("twin", &args, &[]));
    }

    /// `failpoint`: for example `after:WriteClaim`; the operator kills itself there.
    pub fn start_operator(&mut self, failpoint: Option<&str>) {
        self.operator_starts += 1;
        let kubeconfig = self.operator_kubeconfig.clone().unwrap_or_else(|| self.kubeconfig());
        let mut args = vec!["operator".to_owned(), "--kubeconfig".into(), kubeconfig.display().to_string()];
        args.extend(["--ledger".into(), self.ledger().display().to_string(), "--market-clock".into(), format!("{}/purser/clock", self.twin_url())]);
        let webhook = format!("127.0.0.1:{}", self.webhook_port);
        args.extend(["--webhook-listen".into(), webhook.clone(), "--webhook-url".into(), format!("https://{webhook}")]);
        args.extend(["--http".into(), format!("{}:{}", self.host(), self.http_port), "--cycle-seconds".into(), "1".into()]);
        args.extend(["--progress-url".into(), format!("{}/v1/progress", self.operator_url())]);
        args.extend(self.setup.operator_args.iter().cloned());
        let variables: Vec<(&str, &str)> = failpoint.map(|point| vec![("PURSER_FAILPOINTS_ENABLED", "1"), ("PURSER_FAILPOINT", point)]).unwrap_or_default();
        self.operator = Some(self.spawn(&format!("operator-{}", self.operator_starts), &args, &variables));
    }

    /// Started, leading and answering admission reviews.
    pub async fn operator_is_ready(&self) {
        let url = format!("{}/readyz", self.operator_url());
        self.wait("the operator to be ready", 60, async |_| reqwest::get(&url).await.ok().filter(|answer| answer.status().is_success())).await;
    }

    /// Waits until the operator has ended by itself (a failpoint).
    pub async fn operator_dies(&mut self, seconds: u64) {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while self.operator.as_mut().is_some_and(|child| child.try_wait().expect("a child can be asked").is_none()) {
            assert!(Instant::now() < deadline, "the failpoint was not reached in {seconds} s\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.operator = None;
        // On a busy machine a lease must be long, and a dead leader's is not waited for here: another test does.
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "purser-system");
        let _ = leases.delete("purser", &DeleteParams::default()).await;
    }

    /// SIGKILL, no farewell.
    pub fn kill_operator(&mut self) {
        end(self.operator.take());
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn spawn(&self, name: &str, args: &[String], variables: &[(&str, &str)]) -> Child {
        let log = File::create(self.folder.path().join(format!("{name}.log"))).expect("a log file");
        Command::new(env!("CARGO_BIN_EXE_purser"))
            .args(args)
            .env_clear()
            .envs(harmless_environment(&self.twin_url(), self.folder.path()))
            .envs(std::env::vars().filter(|(name, _)| name == "PURSER_LOG"))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("purser starts")
    }

    /// Runs the CLI against this world and returns (exit code, stdout, stderr).
    pub fn purser(&self, args: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_purser"))
            .args(args)
            .env_clear()
            .envs(harmless_environment(&self.twin_url(), self.folder.path()))
            .output()
            .expect("purser starts");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    pub fn jobs(&self) -> Api<TrainingJob> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Server-side apply of any object.
    pub async fn apply(&self, object: &Value) {
        self.try_apply(object).await.unwrap_or_else(|error| panic!("{object} was refused: {error}"));
    }

    pub async fn try_apply(&self, object: &Value) -> Result<DynamicObject, kube::Error> {
        let object: DynamicObject = serde_json::from_value(object.clone()).expect("an object");
        let types = object.types.clone().expect("apiVersion and kind");
        let kind = GroupVersionKind::try_from(&types).expect("a kind");
        let (resource, capabilities) = pinned_kind(&self.client, &kind).await?;
        let api: Api<DynamicObject> = match capabilities.scope {
            kube::discovery::Scope::Namespaced => Api::namespaced_with(self.client.clone(), object.metadata.namespace.as_deref().unwrap_or(NAMESPACE), &resource),
            kube::discovery::Scope::Cluster => Api::all_with(self.client.clone(), &resource),
        };
        let name = object.metadata.name.clone().expect("a name");
        api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await
    }

    pub async fn create_job(&self, job: Value) -> Result<TrainingJob, kube::Error> {
        self.jobs().create(&PostParams::default(), &serde_json::from_value(job).expect("a job")).await
    }

    pub async fn twin_json(&self, path: &str) -> Option<Value> {
        reqwest::get(format!("{}{path}", self.twin_url())).await.ok()?.json().await.ok()
    }

    /// Waits for a condition, never for a time; on failure shows what the processes said last.
    pub async fn wait<T>(&self, what: &str, seconds: u64, look: impl AsyncFn(&World) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            if let Some(found) = look(self).await {
                return found;
            }
            assert!(Instant::now() < deadline, "waited {seconds} s for {what}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub fn logs(&self) -> String {
        let mut text = String::new();
        let mut entries: Vec<_> = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for path in entries.iter().filter(|path| path.extension().is_some_and(|extension| extension == "log")) {
            let content = std::fs::read_to_string(path).unwrap_or_default();
            let tail: Vec<&str> = content.lines().rev().take(40).collect();
            text.push_str(&format!("--- {}\n", path.display()));
            tail.iter().rev().for_each(|line| text.push_str(&format!("{}\n", line.chars().take(600).collect::<String>())));
        }
        text
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        end(self.operator.take());
        end(self.twin.take());
        drop(self.cluster.take());
    }
}

fn end(child: Option<Child>) {
    if let Some(mut child) = child {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// No credentials that mean anything, no configuration files, no metadata service, and one AWS endpoint: the twin.
pub fn harmless_environment(endpoint: &str, home: &Path) -> Vec<(String, String)> {
    // Where the test bed's binaries are, for the twin's real nodes.
    let own_cache = || std::env::var("XDG_CACHE_HOME").map_or_else(|_| format!("{}/.cache/purser", std::env::var("HOME").unwrap_or_default()), |cache| format!("{cache}/purser"));
    let cache = std::env::var("PURSER_CACHE_DIR").unwrap_or_else(|_| own_cache());
    let home = home.display().to_string();
    [
        ("PATH", std::env::var("PATH").unwrap_or_default().as_str()),
        ("HOME", &home),
        ("PURSER_CACHE_DIR", &cache),
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", "purser-test"),
        ("AWS_SECRET_ACCESS_KEY", "purser-test"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("RUST_BACKTRACE", "1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}
