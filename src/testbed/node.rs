//! A real node: containerd and a kubelet that register with the cluster, and pods whose programs really run.
//!
//! ```text
//!   DIR/nodes/NAME/          what the node sees           why
//!     lib/               →   /var/lib                     images, volumes, pods; kubelet and containerd keep their usual paths
//!     log/               →   /var/log                     container logs
//!     (memory)           →   /run                         sockets, network namespaces
//!     tunables/…         →   /proc/sys/…                  the kubelet finds the kernel settings it wants and changes none
//!     identity                                            marks the node's mounts and control groups
//! ```
//! A node is a mount namespace in the cluster's network namespace ([`super::network`]), so several run side by side, and
//! containerd, CNI and kubelet state of the machine itself is neither seen nor touched. Ending a node ([`RealNode::stop`]) is
//! pulling its plug: every process in its control groups and its mount namespace is killed, and with the last of them the
//! kernel drops mounts and interfaces. The Node object stays, as it does when a machine dies.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Taint};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::certificates::Authority;
use super::image::{self, SANDBOX_IMAGE};
use super::network::{Network, words};
use super::process::{POLL_INTERVAL, Process, Surroundings, last_lines, run, send};
use super::{LocalCluster, TestbedError, control_plane};

/// How long containerd or a kubelet may take to be ready on a loaded machine.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long killed processes may take to be gone.
const END_TIMEOUT: Duration = Duration::from_secs(15);
/// Nodes that one cluster's address plan holds.
const NODES_MAX: u8 = 200;
/// Where Debian's containernetworking-plugins and the upstream packages put the CNI programs.
const CNI_FOLDERS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
/// What else must be installed.
const PROGRAMS: [&str; 9] = ["containerd", "ctr", "runc", "ip", "iptables", "nsenter", "unshare", "mount", "tar"];
/// The kernel settings a kubelet insists on. Where they differ it would change them for the whole machine.
const TUNABLES: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// A node to be started.
#[derive(Debug, Clone, Default)]
pub struct RealNodeRequest {
    pub name: String,
    /// For example `aws:///us-east-1a/i-0123456789abcdef0`.
    pub provider_id: String,
    /// A kubelet may not set labels under `kubernetes.io` and `k8s.io` other than the well-known ones of its machine.
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    /// What the node offers beside its processors and memory, as a device plugin would: `nvidia.com/gpu` → `1`.
    pub extended_resources: BTreeMap<String, String>,
}

/// A running node; dropping it ends it.
#[derive(Debug)]
pub struct RealNode {
    name: String,
    surroundings: Surroundings,
    place: Place,
    network: Network,
    number: u8,
    machine: Process,
    containerd: Option<Process>,
    kubelet: Option<Process>,
}

/// A node's folder and the mark by which its mounts and control groups are known.
#[derive(Debug, Clone)]
struct Place {
    folder: PathBuf,
    identity: String,
}

/// Says plainly why this machine cannot run real nodes, if it cannot.
pub fn real_nodes_possible() -> Result<(), String> {
    if !is_root() {
        return Err("it needs root, for mounts and network namespaces".to_owned());
    }
    let missing: Vec<&str> = PROGRAMS.into_iter().filter(|program| !is_on_path(program)).collect();
    if !missing.is_empty() {
        let packages = "apt-get install containerd runc containernetworking-plugins iptables iproute2 busybox-static";
        return Err(format!("not installed: {} ({packages})", missing.join(", ")));
    }
    cni_folder()?;
    image::busybox_path().map(drop)
}

impl RealNode {
    /// Starts a node and returns when the cluster reports it ready.
    pub async fn start(cluster: &LocalCluster, request: RealNodeRequest) -> Result<Self, TestbedError> {
        let impossible = |why| TestbedError::RealNodesImpossible { why };
        real_nodes_possible().map_err(impossible)?;
        let Some(network) = cluster.facts.network.clone() else {
            return Err(impossible("the cluster was started without real nodes".to_owned()));
        };
        let place = Place::create(cluster.dir(), &request.name)?;
        let mut node = Self::power_on(cluster, &request, &place, network).inspect_err(|_| place.remove(cluster.dir()))?;
        let ready = place.folder.join("ready");
        wait(&mut node.machine, || ready.is_file()).await?;
        node.start_containerd().await?;
        node.start_kubelet(cluster, &request)?;
        node.wait_until_registered(cluster).await?;
        node.offer(cluster, &request.extended_resources).await?;
        Ok(node)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Imports an image archive (docker or OCI style) into the node's containerd.
    pub async fn import_image(&self, archive: &Path) -> Result<(), TestbedError> {
        let file = fs::File::open(archive).map_err(|source| TestbedError::File { path: archive.to_owned(), source })?;
        // Through standard input: the archive's path may not exist in the node's view of the file system.
        let mut command = words(self.command("ctr"), "--namespace k8s.io images import --all-platforms -");
        command.stdin(Stdio::from(file));
        let imported = tokio::task::spawn_blocking(move || run(command).map(drop)).await;
        imported.unwrap_or_else(|source| Err(TestbedError::Api { source: source.into() }))
    }

    /// Pulls the plug: nothing in the node gets a chance to say goodbye. The Node object stays.
    pub async fn stop(self) {
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }

    /// Lets the node outlive this process; [`super::down`] ends it.
    pub fn detach(self) {
        let mut node = std::mem::ManuallyDrop::new(self);
        node.containerd.take().into_iter().chain(node.kubelet.take()).for_each(|mut process| process.detach());
        node.machine.detach();
    }

    fn power_on(cluster: &LocalCluster, request: &RealNodeRequest, place: &Place, network: Network) -> Result<Self, TestbedError> {
        let surroundings = cluster.surroundings.clone();
        let number = place.choose_number(cluster.dir())?;
        let address = network.node_address(number);
        run(words(network.command(&surroundings, "ip"), &format!("addr add {address}/32 dev eth0")))?;
        place.write_files(&network, number)?;
        let mut command = network.command(&surroundings, "unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", MACHINE, "machine"]);
        command.arg(&place.folder).arg(place.mark());
        let name = request.name.clone();
        let machine = surroundings.spawn(&format!("node-{name}"), command)?;
        Ok(Self { name, surroundings, place: place.clone(), network, number, machine, containerd: None, kubelet: None })
    }

    async fn start_containerd(&mut self) -> Result<(), TestbedError> {
        let mut command = self.command("containerd");
        command.args(["--config", "/var/lib/purser/containerd.toml"]);
        let mut containerd = self.surroundings.spawn(&format!("node-{}-containerd", self.name), command)?;
        let answers = || {
            let mut command = self.command("ctr");
            command.arg("version").stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let is_ready = wait(&mut containerd, answers).await;
        self.containerd = Some(containerd);
        is_ready?;
        self.import_image(&image::busybox_archive(&self.surroundings.dir)).await
    }

    fn start_kubelet(&mut self, cluster: &LocalCluster, request: &RealNodeRequest) -> Result<(), TestbedError> {
        let address = self.network.node_address(self.number);
        self.place.write_kubelet_files(cluster, request, &self.network, address)?;
        let labels: Vec<String> = request.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mut command = self.command(cluster.binaries.path("kubelet"));
        command.args(["--config=/var/lib/purser/kubelet.json", "--kubeconfig=/var/lib/purser/kubeconfig"]);
        command.arg(format!("--hostname-override={}", self.name)).arg(format!("--node-ip={address}"));
        command.arg(format!("--node-labels={}", labels.join(",")));
        self.kubelet = Some(self.surroundings.spawn(&format!("node-{}-kubelet", self.name), command)?);
        Ok(())
    }

    async fn wait_until_registered(&mut self, cluster: &LocalCluster) -> Result<(), TestbedError> {
        let nodes: Api<Node> = Api::all(cluster.client().await?);
        let deadline = Instant::now() + READY_TIMEOUT;
        while !nodes.get(&self.name).await.is_ok_and(|node| is_ready(&node)) {
            if let Some(kubelet) = &mut self.kubelet {
                kubelet.check()?;
            }
            if Instant::now() > deadline {
                let log = last_lines(&self.surroundings.log(&format!("node-{}-kubelet", self.name)));
                return Err(TestbedError::NotReady { what: format!("node {}", self.name), waited: READY_TIMEOUT, log });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Advertises resources that no device plugin stands for; the kubelet keeps what it does not know.
    async fn offer(&self, cluster: &LocalCluster, resources: &BTreeMap<String, String>) -> Result<(), TestbedError> {
        if resources.is_empty() {
            return Ok(());
        }
        let nodes: Api<Node> = Api::all(cluster.client().await?);
        let patch = json!({ "status": { "capacity": resources, "allocatable": resources } });
        let patched = nodes.patch_status(&self.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        patched.map(drop).map_err(|source| TestbedError::Api { source: source.into() })
    }

    /// A command inside the node: its mounts and its network.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.surroundings.command("nsenter");
        command.args(["--target", &self.machine.pid().to_string(), "--mount", "--net", "--"]).arg(program);
        command
    }
}

impl Drop for RealNode {
    fn drop(&mut self) {
        if let Some(kubelet) = &mut self.kubelet {
            kubelet.kill();
        }
        if let Some(containerd) = &mut self.containerd {
            containerd.kill();
        }
        self.place.end();
        self.machine.kill();
        let address = self.network.node_address(self.number);
        let _ = run(words(self.network.command(&self.surroundings, "ip"), &format!("addr del {address}/32 dev eth0")));
        self.place.remove(&self.surroundings.dir);
    }
}

/// Ends every node that a cluster's folder knows, whoever started it.
pub(super) fn end_all(surroundings: &Surroundings) {
    let Ok(nodes) = fs::read_dir(surroundings.dir.join("nodes")) else { return };
    for place in nodes.flatten().filter_map(|entry| Place::open(&entry.path())) {
        place.end();
        place.remove(&surroundings.dir);
    }
}

/// Makes the node's view of the file system, says so, and keeps it open. `$1`: the node's folder, `$2`: its mark.
/// Paths are relative to that folder, since the mounts may hide where it lies.
const MACHINE: &str = r#"
set -e
mount --make-rshared /
cd "$1"
for file in $(cd tunables && find * -type f); do
    if [ -e "/proc/sys/$file" ]; then mount -c --bind "./tunables/$file" "/proc/sys/$file"; fi
done
mount -t tmpfs -o mode=755 "$2" /run
mount -c --bind ./log /var/log
mount -c --bind ./lib /var/lib
touch ready
exec sleep infinity
"#;

impl Place {
    fn create(dir: &Path, name: &str) -> Result<Self, TestbedError> {
        let nodes = dir.join("nodes");
        fs::create_dir_all(&nodes).map_err(|source| file_error(&nodes, source))?;
        let folder = nodes.join(name);
        // Fails if the node is there already.
        fs::create_dir(&folder).map_err(|source| file_error(&folder, source))?;
        let identity = uuid::Uuid::new_v4().simple().to_string();
        let place = Self { folder, identity };
        place.write("identity", &place.identity)?;
        Ok(place)
    }

    fn open(folder: &Path) -> Option<Self> {
        let identity = fs::read_to_string(folder.join("identity")).ok()?;
        (identity.len() == 32).then(|| Self { folder: folder.to_owned(), identity })
    }

    /// The name of the node's control groups and of its `/run` in the list of mounts.
    fn mark(&self) -> String {
        format!("purser-node-{}", self.identity)
    }

    /// Takes the first free number of the cluster, which decides the node's addresses.
    fn choose_number(&self, dir: &Path) -> Result<u8, TestbedError> {
        let numbers = dir.join("node-numbers");
        fs::create_dir_all(&numbers).map_err(|source| file_error(&numbers, source))?;
        let is_taken = |number: &u8| {
            let link = numbers.join(number.to_string());
            // Creating a link is atomic, so two nodes that start at once never share a number.
            std::os::unix::fs::symlink(&self.folder, link).is_ok()
        };
        let full = || file_error(&numbers, std::io::Error::other("every node number is taken"));
        let number = (1..=NODES_MAX).find(is_taken).ok_or_else(full)?;
        self.write("number", &number.to_string())?;
        Ok(number)
    }

    fn write_files(&self, network: &Network, number: u8) -> Result<(), TestbedError> {
        let cni = cni_folder().map_err(|why| TestbedError::RealNodesImpossible { why })?;
        for (tunable, value) in TUNABLES {
            self.write(&format!("tunables/{tunable}"), &format!("{value}\n"))?;
        }
        self.write("log/.keep", "")?;
        self.write("lib/purser/containerd.toml", &containerd_configuration(cni))?;
        self.write("lib/purser/cni/10-purser.conflist", &format!("{:#}\n", cni_configuration(&network.node_pod_range(number))))
    }

    fn write_kubelet_files(
        &self, cluster: &LocalCluster, request: &RealNodeRequest, network: &Network, address: Ipv4Addr,
    ) -> Result<(), TestbedError> {
        let name = format!("node-{}", request.name);
        let authority = Authority::open(&cluster.dir().join("pki"));
        let serving = authority.server(&format!("{name}-serving"), vec![address.to_string(), request.name.clone()])?;
        let user = format!("system:node:{}", request.name);
        let kubeconfig = control_plane::component_kubeconfig(cluster, &name, &user, "system:nodes")?;
        let client = authority.files(&name);
        for (source, target) in [
            (&authority.authority().certificate, "ca.crt"),
            (&serving.certificate, "serving.crt"),
            (&serving.key, "serving.key"),
            (&client.certificate, "client.crt"),
            (&client.key, "client.key"),
        ] {
            let target = self.folder.join("lib/purser").join(target);
            fs::copy(source, &target).map_err(|source| file_error(&target, source))?;
        }
        // The node sees its files elsewhere than this machine does.
        let text = fs::read_to_string(&kubeconfig).map_err(|source| file_error(&kubeconfig, source))?;
        let text = text
            .replace(&*client.certificate.to_string_lossy(), "/var/lib/purser/client.crt")
            .replace(&*client.key.to_string_lossy(), "/var/lib/purser/client.key");
        self.write("lib/purser/kubeconfig", &text)?;
        self.make_control_groups();
        let configuration = kubelet_configuration(request, &self.mark(), address, network.dns_address());
        self.write("lib/purser/kubelet.json", &format!("{configuration:#}\n"))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), TestbedError> {
        let path = self.folder.join(name);
        let parent = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(parent).and_then(|()| fs::write(&path, text)).map_err(|source| file_error(&path, source))
    }

    /// The node's control group in each hierarchy (one in cgroup v2, several in v1).
    fn control_groups(&self) -> Vec<PathBuf> {
        hierarchies().into_iter().map(|hierarchy| hierarchy.join(self.mark())).collect()
    }

    fn make_control_groups(&self) {
        for group in self.control_groups() {
            let _ = fs::create_dir(&group);
            // In cgroup v1 a new cpuset is empty and takes no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Some(value) = group.parent().and_then(|parent| fs::read_to_string(parent.join(file)).ok()) {
                    let _ = fs::write(group.join(file), value);
                }
            }
        }
    }

    /// Kills whatever belongs to the node until nothing does, and removes its control groups.
    fn end(&self) {
        let deadline = Instant::now() + END_TIMEOUT;
        loop {
            let processes = self.processes();
            if processes.is_empty() || Instant::now() > deadline {
                break;
            }
            processes.into_iter().for_each(|pid| send(pid, libc::SIGKILL));
            std::thread::sleep(POLL_INTERVAL);
        }
        self.control_groups().iter().for_each(|group| remove_control_group(group));
    }

    /// The processes in the node's control groups and in its mount namespace.
    fn processes(&self) -> Vec<i32> {
        let mut processes = Vec::new();
        self.control_groups().iter().for_each(|group| collect_processes(group, &mut processes));
        let mark = format!(" {} ", self.mark());
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        // A process that is dead but not yet reaped has no mounts any more, and so does not count.
        let is_inside = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/mountinfo")).is_ok_and(|mounts| mounts.contains(&mark));
        processes.extend(pids.filter(is_inside));
        processes
    }

    fn remove(&self, dir: &Path) {
        let _ = fs::remove_dir_all(&self.folder);
        let numbers = fs::read_dir(dir.join("node-numbers")).into_iter().flatten().flatten();
        for number in numbers.filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == self.folder)) {
            let _ = fs::remove_file(number.path());
        }
    }
}

fn containerd_configuration(cni_folder: &str) -> String {
    format!(
        r#"version = 2
# containerd's own folders are the node's; the plugins left out would look elsewhere on the machine.
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{SANDBOX_IMAGE}"
  # Lowering the score is refused in a container; without this such pods fail to start.
  restrict_oom_score_adj = true
  # Loading a profile would change the machine.
  disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{cni_folder}"
  conf_dir = "/var/lib/purser/cni"
"#
    )
}

fn cni_configuration(pods: &str) -> serde_json::Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "purser",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": { "type": "host-local", "ranges": [[{ "subnet": pods }]], "routes": [{ "dst": "0.0.0.0/0" }] },
        }],
    })
}

fn kubelet_configuration(request: &RealNodeRequest, control_group: &str, address: Ipv4Addr, dns: Ipv4Addr) -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "providerID": request.provider_id,
        "registerWithTaints": request.taints,
        "address": address,
        "healthzBindAddress": address,
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": false },
            "x509": { "clientCAFile": "/var/lib/purser/ca.crt" },
        },
        "authorization": { "mode": "AlwaysAllow" },
        "tlsCertFile": "/var/lib/purser/serving.crt",
        "tlsPrivateKeyFile": "/var/lib/purser/serving.key",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{control_group}"),
        "failCgroupV1": false,
        "failSwapOn": false,
        "enforceNodeAllocatable": [],
        "clusterDNS": [dns],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "oomScoreAdj": 0,
        // The machine's disk may be almost full for reasons that are not the cluster's.
        "evictionHard": { "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%", "imagefs.inodesFree": "0%" },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "nodeStatusUpdateFrequency": "4s",
        "syncFrequency": "5s",
    })
}

/// The mounted control-group hierarchies: one folder in cgroup v2, one for each controller in v1.
fn hierarchies() -> Vec<PathBuf> {
    let root = PathBuf::from("/sys/fs/cgroup");
    if root.join("cgroup.controllers").is_file() {
        return vec![root];
    }
    let entries = fs::read_dir(&root).into_iter().flatten().flatten().map(|entry| entry.path());
    // Names such as `cpu` and `cpuacct` may be links to one hierarchy.
    let is_hierarchy = |path: &PathBuf| path.join("cgroup.procs").is_file() && !path.is_symlink();
    entries.filter(is_hierarchy).collect()
}

fn collect_processes(group: &Path, into: &mut Vec<i32>) {
    let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    into.extend(listed.lines().filter_map(|line| line.parse::<i32>().ok()));
    for child in child_groups(group) {
        collect_processes(&child, into);
    }
}

fn remove_control_group(group: &Path) {
    child_groups(group).iter().for_each(|child| remove_control_group(child));
    // A control group is busy for a moment after its last process has died.
    for _ in 0..20 {
        if fs::remove_dir(group).is_ok() || !group.exists() {
            return;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn child_groups(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Polls `is_ready` until it holds, the process ends, or the time is up.
async fn wait(process: &mut Process, is_ready: impl Fn() -> bool) -> Result<(), TestbedError> {
    let deadline = Instant::now() + READY_TIMEOUT;
    while !is_ready() {
        process.check()?;
        if Instant::now() > deadline {
            let log = last_lines(process.log());
            return Err(TestbedError::NotReady { what: process.name().to_owned(), waited: READY_TIMEOUT, log });
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|conditions| conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
}

fn cni_folder() -> Result<&'static str, String> {
    let has_plugins = |folder: &&str| ["ptp", "host-local", "loopback"].iter().all(|plugin| Path::new(folder).join(plugin).is_file());
    CNI_FOLDERS.into_iter().find(has_plugins).ok_or_else(|| "no CNI plugins; install the package containernetworking-plugins".to_owned())
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn file_error(path: &Path, source: std::io::Error) -> TestbedError {
    TestbedError::File { path: path.to_owned(), source }
}
