//! A throwaway Kubernetes on this machine: the real binaries, without a container engine, a registry or kubectl.
//!
//! ```text
//!  LocalCluster ── etcd ── kube-apiserver ─┬─ kube-controller-manager
//!    (a folder)             TLS, RBAC,     ├─ kube-scheduler
//!                           tokens         └─ kwok: Nodes annotated kwok.x-k8s.io/node=fake become ready, their pods "run"
//!        │
//!        └── with real nodes (root only), in network and mount namespaces of their own:
//!              kube-proxy, CoreDNS ── RealNode × n: containerd + kubelet, pods that really run
//! ```
//! Everything a cluster has lies under one folder: data, logs, certificates, the admin's `kubeconfig`, and a record of each
//! process. [`down`] ends what a folder's records name and removes it. `KUBECONFIG` is never read, children see dummy AWS
//! credentials and nothing else of the caller's environment, and servers listen on loopback or on an address made for them.
//!
//! The binaries are built by `tests/cluster/build.sh` ([`binaries`]); how each is started is in [`control_plane`]; real nodes
//! are in [`node`] and their network in [`network`]. Used by the demo, by `purser cluster` and by the tests.

mod binaries;
mod certificates;
mod control_plane;
pub mod image;
mod network;
pub mod node;
mod process;
mod watchdog;

use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::binaries::Binaries;
use self::network::Network;
use self::process::{Process, Surroundings};
use self::watchdog::Watchdog;

pub use self::node::{RealNode, RealNodeRequest, real_nodes_possible};

/// How long a component may take to become ready; a loaded two-core machine needs a tenth of it.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// A running local cluster. Unless it was started detached, dropping it (or the death of this process) ends it.
#[derive(Debug)]
pub struct LocalCluster {
    surroundings: Surroundings,
    binaries: Binaries,
    facts: Facts,
    processes: Mutex<Vec<Process>>,
    /// Declared after the processes: they end first.
    watchdog: Option<Watchdog>,
}

/// Which parts of a cluster to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub controller_manager: bool,
    pub scheduler: bool,
    pub kwok: bool,
    /// Prepares for [`RealNode`]s: a network of their own, kube-proxy and CoreDNS. Needs root.
    pub real_nodes: bool,
    /// The cluster outlives this process; [`down`] ends it.
    pub detached: bool,
}

/// What another process must know to use the cluster of a folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Facts {
    server: String,
    address: IpAddr,
    network: Option<Network>,
}

/// One component of a cluster, for `purser cluster status`.
#[derive(Debug, Clone, Serialize)]
pub struct Component {
    pub name: String,
    pub pid: u32,
}

/// Why the test bed could not do what was asked; [`TestbedError::hint`] says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum TestbedError {
    #[error("these binaries are missing in {}: {}", folder.display(), names.join(", "))]
    MissingBinaries { names: Vec<String>, folder: PathBuf },
    #[error("a cluster already runs in {}", dir.display())]
    AlreadyRunning { dir: PathBuf },
    #[error("no cluster runs in {}", dir.display())]
    NotRunning { dir: PathBuf },
    #[error("{} holds files that are not a cluster's", dir.display())]
    ForeignFolder { dir: PathBuf },
    #[error("this machine cannot run real nodes: {why}")]
    RealNodesImpossible { why: String },
    #[error("could not start {name}")]
    Spawn { name: String, #[source] source: std::io::Error },
    #[error("`{command}` failed ({status}): {said}")]
    Command { command: String, status: String, said: String },
    #[error("{name} ended ({status}); it said last:{log}")]
    Ended { name: String, status: String, log: String },
    #[error("{what} was not ready after {} s; it said last:{log}", waited.as_secs())]
    NotReady { what: String, waited: Duration, log: String },
    #[error("could not use {}", path.display())]
    File { path: PathBuf, #[source] source: std::io::Error },
    #[error("could not make the cluster's certificates")]
    Certificate { #[source] source: rcgen::Error },
    #[error("the cluster's API did not answer as it should")]
    Api { #[source] source: Box<dyn std::error::Error + Send + Sync> },
}

impl TestbedError {
    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::MissingBinaries { names, .. } => Some(format!("tests/cluster/build.sh {}", names.join(" "))),
            Self::AlreadyRunning { dir } => Some(format!("purser cluster down --dir {}", dir.display())),
            Self::NotRunning { dir } => Some(format!("purser cluster up --dir {}", dir.display())),
            Self::ForeignFolder { .. } => Some("name a folder that is empty or does not exist".into()),
            Self::RealNodesImpossible { .. } => Some("mend that, or do without real nodes: simulated ones need nothing".into()),
            Self::Ended { .. } | Self::NotReady { .. } => Some("the log says more; if the machine is busy, try again".into()),
            Self::Spawn { .. } | Self::Command { .. } | Self::File { .. } | Self::Certificate { .. } | Self::Api { .. } => None,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { controller_manager: true, scheduler: true, kwok: true, real_nodes: false, detached: false }
    }
}

impl LocalCluster {
    /// Starts a cluster in `dir` and returns when every component is ready.
    pub async fn start(dir: &Path, options: Options) -> Result<Self, TestbedError> {
        let dir = prepare(dir)?;
        let surroundings = Surroundings::new(&dir);
        let binaries = require_binaries(&options).await?;
        let mut processes = Vec::new();
        let network = match options.real_nodes {
            true => Some(Network::create(&surroundings, &mut processes)?),
            false => None,
        };
        let facts = Facts::choose(network)?;
        let watchdog = if options.detached { None } else { Some(Watchdog::start(&surroundings)?) };
        let mut cluster = Self { surroundings, binaries, facts, processes: Mutex::new(processes), watchdog };
        cluster.start_components(&options).await?;
        if options.detached {
            cluster.let_go();
        }
        Ok(cluster)
    }

    /// The cluster that already runs in `dir`; dropping it ends nothing.
    pub fn attach(dir: &Path) -> Result<Self, TestbedError> {
        let not_running = || TestbedError::NotRunning { dir: dir.to_owned() };
        let dir = dir.canonicalize().map_err(|_| not_running())?;
        let surroundings = Surroundings::new(&dir);
        let text = std::fs::read_to_string(facts_path(&dir)).map_err(|_| not_running())?;
        let facts = serde_json::from_str(&text).map_err(|_| not_running())?;
        if surroundings.running().is_empty() {
            return Err(not_running());
        }
        let binaries = Binaries::from_environment();
        Ok(Self { surroundings, binaries, facts, processes: Mutex::default(), watchdog: None })
    }

    /// A client with the admin's rights, made from this cluster's own kubeconfig and from nothing else.
    pub async fn client(&self) -> Result<kube::Client, TestbedError> {
        control_plane::client(&self.kubeconfig_path()).await
    }

    pub fn kubeconfig_path(&self) -> PathBuf {
        self.surroundings.dir.join("kubeconfig")
    }

    pub fn dir(&self) -> &Path {
        &self.surroundings.dir
    }

    /// The API server's address, `https://…`.
    pub fn server(&self) -> &str {
        &self.facts.server
    }

    /// The address on which servers of this machine must listen to be reached from the cluster's pods:
    /// one of the cluster's own with real nodes, loopback otherwise (kwok's pods call nobody).
    pub fn host_address(&self) -> IpAddr {
        self.facts.address
    }

    /// A command for a program that belongs to the cluster, such as a twin or an operator: it sees nothing of the caller's
    /// environment, no kubeconfig and no credentials.
    pub fn companion(&self, program: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
        self.surroundings.command(program)
    }

    /// Starts such a program under a name; it is ended with the cluster. Returns its log.
    pub fn start_companion(&self, name: &str, command: std::process::Command) -> Result<PathBuf, TestbedError> {
        let mut process = self.surroundings.spawn(name, command)?;
        let log = process.log().to_owned();
        match self.watchdog {
            Some(_) => self.lock_processes().push(process),
            // The cluster outlives this process, and so does what belongs to it.
            None => process.detach(),
        }
        Ok(log)
    }

    /// Ports on loopback that nobody uses yet.
    pub fn free_ports(count: usize) -> Result<Vec<u16>, TestbedError> {
        free_ports(std::net::Ipv4Addr::LOCALHOST.into(), count)
    }

    /// Ends the cluster and everything in it; the folder with its logs stays.
    pub async fn stop(self) {
        // Ending processes means waiting for them, which must not hold up the runtime.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }

    async fn start_components(&mut self, options: &Options) -> Result<(), TestbedError> {
        control_plane::prepare(self)?;
        let ports = free_ports(self.facts.address, 6)?;
        self.start_process("etcd", control_plane::etcd(self, ports[0], ports[1]))?;
        self.start_process("kube-apiserver", control_plane::api_server(self, ports[0])?)?;
        self.wait_for("kube-apiserver", async |cluster: &Self| cluster.is_api_ready().await).await?;
        if options.controller_manager {
            self.start_process("kube-controller-manager", control_plane::controller_manager(self, ports[2])?)?;
        }
        if options.scheduler {
            self.start_process("kube-scheduler", control_plane::scheduler(self, ports[3])?)?;
            self.wait_for("kube-scheduler", async |_: &Self| is_listening(ports[3])).await?;
        }
        if options.kwok {
            self.start_process("kwok", control_plane::kwok(self, ports[4])?)?;
            self.wait_for("kwok", async |_: &Self| is_listening(ports[4])).await?;
        }
        if options.controller_manager {
            // Pods are refused until the controller-manager has made the account they run as.
            self.wait_for("kube-controller-manager", async |cluster: &Self| cluster.has_default_account().await).await?;
        }
        if options.real_nodes {
            image::busybox(&image::busybox_archive(self.dir()))?;
            network::start_services(self).await?;
        }
        self.write_facts()
    }

    fn start_process(&self, name: &str, command: std::process::Command) -> Result<(), TestbedError> {
        let process = self.surroundings.spawn(name, command)?;
        self.lock_processes().push(process);
        Ok(())
    }

    /// Polls `is_ready` until it holds, the component ends, or the time is up.
    async fn wait_for(&self, name: &str, is_ready: impl AsyncFn(&Self) -> bool) -> Result<(), TestbedError> {
        let deadline = Instant::now() + READY_TIMEOUT;
        while !is_ready(self).await {
            if let Some(process) = self.lock_processes().iter_mut().find(|process| process.name() == name) {
                process.check()?;
            }
            if Instant::now() > deadline {
                let log = process::last_lines(&self.surroundings.log(name));
                return Err(TestbedError::NotReady { what: name.to_owned(), waited: READY_TIMEOUT, log });
            }
            tokio::time::sleep(process::POLL_INTERVAL).await;
        }
        Ok(())
    }

    async fn is_api_ready(&self) -> bool {
        let Ok(client) = self.client().await else { return false };
        let Ok(request) = http_get("/readyz") else { return false };
        client.request_text(request).await.is_ok_and(|answer| answer == "ok")
    }

    async fn has_default_account(&self) -> bool {
        let Ok(client) = self.client().await else { return false };
        let accounts: kube::Api<k8s_openapi::api::core::v1::ServiceAccount> = kube::Api::namespaced(client, "default");
        accounts.get("default").await.is_ok()
    }

    fn write_facts(&self) -> Result<(), TestbedError> {
        let path = facts_path(&self.surroundings.dir);
        let text = serde_json::to_string_pretty(&self.facts).map_err(|source| TestbedError::Api { source: source.into() })?;
        std::fs::write(&path, text).map_err(|source| TestbedError::File { path, source })
    }

    fn let_go(&mut self) {
        self.lock_processes().drain(..).for_each(|mut process| process.detach());
    }

    fn lock_processes(&self) -> std::sync::MutexGuard<'_, Vec<Process>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        if self.lock_processes().is_empty() {
            return;
        }
        // Nodes first: pods must not be restarted. Then the processes, newest first.
        node::end_all(&self.surroundings);
        let mut processes = std::mem::take(&mut *self.lock_processes());
        while let Some(mut process) = processes.pop() {
            process.kill();
        }
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.dismiss();
        }
    }
}

/// The components that run in `dir`, by name.
pub fn status(dir: &Path) -> Vec<Component> {
    let running = Surroundings::new(dir).running();
    running.into_iter().map(|(name, identity)| Component { name, pid: identity.pid }).collect()
}

/// Ends everything that `dir` records, whoever started it, and removes the folder. Doing it twice is fine.
pub async fn down(dir: &Path) -> Result<(), TestbedError> {
    let Ok(dir) = dir.canonicalize() else { return Ok(()) };
    if !dir.join(MARK).is_file() {
        return Err(TestbedError::ForeignFolder { dir });
    }
    let ended = tokio::task::spawn_blocking(move || {
        let surroundings = Surroundings::new(&dir);
        node::end_all(&surroundings);
        surroundings.end_recorded();
        std::fs::remove_dir_all(&dir).map_err(|source| TestbedError::File { path: dir, source })
    });
    ended.await.unwrap_or_else(|source| Err(TestbedError::Api { source: source.into() }))
}

/// The file by which a cluster's folder is known, so that [`down`] never removes another folder.
const MARK: &str = ".purser-testbed";

impl Facts {
    fn choose(network: Option<Network>) -> Result<Self, TestbedError> {
        let address = network.as_ref().map_or(IpAddr::from([127, 0, 0, 1]), Network::host_address);
        let port = free_ports(address, 1)?[0];
        Ok(Self { server: format!("https://{address}:{port}"), address, network })
    }
}

/// Makes the folder, marks it as a cluster's, and empties it if an earlier cluster ended there.
fn prepare(dir: &Path) -> Result<PathBuf, TestbedError> {
    let failed = |source| TestbedError::File { path: dir.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(failed)?;
    let dir = dir.canonicalize().map_err(failed)?;
    let is_empty = std::fs::read_dir(&dir).map_err(failed)?.next().is_none();
    if !is_empty && !dir.join(MARK).is_file() {
        return Err(TestbedError::ForeignFolder { dir });
    }
    if !Surroundings::new(&dir).running().is_empty() {
        return Err(TestbedError::AlreadyRunning { dir });
    }
    node::end_all(&Surroundings::new(&dir));
    for entry in std::fs::read_dir(&dir).map_err(failed)?.flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }.map_err(failed)?;
    }
    std::fs::write(dir.join(MARK), "A throwaway Kubernetes; `purser cluster down` removes this folder.\n").map_err(failed)?;
    Ok(dir)
}

async fn require_binaries(options: &Options) -> Result<Binaries, TestbedError> {
    let wanted: Vec<&'static str> = [
        ("etcd", true),
        ("kube-apiserver", true),
        ("kube-controller-manager", options.controller_manager),
        ("kube-scheduler", options.scheduler),
        ("kwok", options.kwok),
        ("kubelet", options.real_nodes),
        ("kube-proxy", options.real_nodes),
        ("coredns", options.real_nodes),
    ]
    .into_iter()
    .filter_map(|(name, is_wanted)| is_wanted.then_some(name))
    .collect();
    let binaries = Binaries::from_environment();
    let required = binaries.clone();
    let built = tokio::task::spawn_blocking(move || required.require(&wanted)).await;
    built.unwrap_or_else(|source| Err(TestbedError::Api { source: source.into() })).map(|()| binaries)
}

fn facts_path(dir: &Path) -> PathBuf {
    dir.join("cluster.json")
}

fn http_get(path: &str) -> Result<axum::http::Request<Vec<u8>>, axum::http::Error> {
    axum::http::Request::get(path).body(Vec::new())
}

fn is_listening(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Free ports, all different. They come from below the range that the kernel gives to outgoing connections, so that none of
/// those can take one before its server has started.
fn free_ports(address: IpAddr, count: usize) -> Result<Vec<u16>, TestbedError> {
    const RANGE: std::ops::Range<u32> = 20_000..32_000;
    let span = RANGE.end - RANGE.start;
    // Clusters that start at the same time begin their search at different places.
    let mut seed = std::process::id().wrapping_mul(7_919).wrapping_add(NEXT_PORT.fetch_add(61, std::sync::atomic::Ordering::Relaxed));
    let mut held: Vec<TcpListener> = Vec::new();
    for _ in 0..span {
        if held.len() == count {
            break;
        }
        let port = u16::try_from(RANGE.start + seed % span).unwrap_or(u16::MAX);
        seed = seed.wrapping_add(1);
        held.extend(TcpListener::bind((address, port)));
    }
    let ports: Result<Vec<u16>, std::io::Error> = held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect();
    match ports {
        Ok(ports) if ports.len() == count => Ok(ports),
        Ok(_) => Err(TestbedError::Spawn { name: "a server".into(), source: std::io::Error::other("no free port below 32000") }),
        Err(source) => Err(TestbedError::Spawn { name: "a server".into(), source }),
    }
}

static NEXT_PORT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_all_different() {
        let ports = free_ports([127, 0, 0, 1].into(), 20).unwrap();
        let different: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(different.len(), 20);
        assert!(ports.iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()));
    }

    #[tokio::test]
    async fn down_refuses_a_folder_that_is_not_a_cluster() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
        assert!(matches!(down(dir.path()).await, Err(TestbedError::ForeignFolder { .. })));
        assert!(matches!(prepare(dir.path()), Err(TestbedError::ForeignFolder { .. })));
        assert!(dir.path().join("thesis.tex").exists());
    }

    #[tokio::test]
    async fn down_twice_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        let inner = prepare(&dir.path().join("cluster")).unwrap();
        down(&inner).await.unwrap();
        assert!(!inner.exists());
        down(&inner).await.unwrap();
    }

    #[tokio::test]
    async fn a_new_cluster_inherits_nothing_from_the_last_one_in_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = prepare(dir.path()).unwrap();
        std::fs::create_dir(cluster.join("etcd")).unwrap();
        prepare(dir.path()).unwrap();
        assert!(!cluster.join("etcd").exists());
    }
}
