//! The network of real nodes: a namespace of its own, joined to this machine by one virtual cable.
//!
//! ```text
//!   this machine                      │  namespace of the cluster (its own iptables, its own addresses)
//!   kube-apiserver, operator, twin    │  kube-proxy, CoreDNS, kubelets and containerds
//!   purser0  10.77.0.1 ───────────────┼── eth0 10.77.0.2 (CoreDNS), 10.77.0.11 (node 1) …
//!   routes to pods and services ──────┼──▶ pods 10.128.NODE.0/24, services 10.192.0.0/16
//! ```
//! The machine's own iptables, bridges and forwarding settings stay untouched, and the namespace has no way out: a pod
//! reaches other pods, services and servers on [`LocalCluster::host_address`], and nothing else. When the last process in the
//! namespace ends, the kernel removes namespace, cable, addresses and routes. A second cluster gets the next number (10.77.1.1).

use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::process::{POLL_INTERVAL, Process, Surroundings, run};
use super::{LocalCluster, TestbedError, control_plane};

/// Clusters with real nodes that one machine can hold at once; the address plan ends there.
const CLUSTERS_MAX: u8 = 60;
/// Where kube-proxy and CoreDNS say that they are ready, inside the namespace.
const PROXY_HEALTH_PORT: u16 = 10256;
const DNS_PORT: u16 = 53;

/// The network of one cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Network {
    /// The number of the cluster on this machine.
    index: u8,
    /// The process that keeps the namespace alive.
    holder: u32,
}

impl Network {
    /// Makes the namespace and the cable; the process that holds them is added to `processes`.
    pub fn create(surroundings: &Surroundings, processes: &mut Vec<Process>) -> Result<Self, TestbedError> {
        super::real_nodes_possible().map_err(|why| TestbedError::RealNodesImpossible { why })?;
        let mut command = surroundings.command("unshare");
        command.args(["--net", "sh", "-c", "ip link set lo up && echo 1 >/proc/sys/net/ipv4/ip_forward && exec sleep infinity"]);
        let mut process = surroundings.spawn("network", command)?;
        let holder = process.pid();
        wait_for_namespace(&mut process, holder)?;
        processes.push(process);
        let network = Self { index: connect(surroundings, holder)?, holder };
        network.assign_addresses(surroundings)?;
        Ok(network)
    }

    /// This machine's address on the cable.
    pub fn host_address(&self) -> IpAddr {
        Ipv4Addr::new(10, 77, self.index, 1).into()
    }

    /// The name server's address.
    pub fn dns_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.index, 2)
    }

    pub fn node_address(&self, node: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.index, 10 + node)
    }

    /// The addresses of one node's pods.
    pub fn node_pod_range(&self, node: u8) -> String {
        format!("10.{}.{node}.0/24", 128 + self.index)
    }

    pub fn service_range(&self) -> String {
        format!("10.{}.0.0/16", 192 + self.index)
    }

    fn pod_range(&self) -> String {
        format!("10.{}.0.0/16", 128 + self.index)
    }

    /// A command that runs inside the network namespace.
    pub fn command(&self, surroundings: &Surroundings, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = surroundings.command("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder)).arg("--").arg(program);
        command
    }

    fn assign_addresses(&self, surroundings: &Surroundings) -> Result<(), TestbedError> {
        let cable = format!("purser{}", self.index);
        let (host, inner) = (self.host_address(), self.dns_address());
        let outside = |line: &str| words(surroundings.command("ip"), line);
        let inside = |line: &str| words(self.command(surroundings, "ip"), line);
        for command in [
            outside(&format!("addr add {host}/24 dev {cable}")),
            outside(&format!("link set {cable} up")),
            inside(&format!("addr add {inner}/24 dev eth0")),
            inside("link set eth0 up"),
            // Without this a process in the namespace has no route to a service, and iptables never sees the packet.
            inside(&format!("route add {} dev eth0", self.service_range())),
            outside(&format!("route add {} via {inner} dev {cable}", self.pod_range())),
            outside(&format!("route add {} via {inner} dev {cable}", self.service_range())),
        ] {
            run(command)?;
        }
        Ok(())
    }
}

/// Starts what the pods' network needs: the name server and the proxy for services.
pub(super) async fn start_services(cluster: &LocalCluster) -> Result<(), TestbedError> {
    let Some(network) = cluster.facts.network.clone() else { return Ok(()) };
    cluster.start_process("coredns", coredns(cluster, &network)?)?;
    // kube-proxy waits half a minute for the Node it runs on before it goes on without. It serves all nodes and has none, so
    // it is shown one for as long as it looks.
    let nodes: Api<Node> = Api::all(cluster.client().await?);
    show_proxy_node(&nodes, &network).await.map_err(|source| TestbedError::Api { source: source.into() })?;
    cluster.start_process("kube-proxy", kube_proxy(cluster, &network)?)?;
    let is_open = |port| TcpStream::connect_timeout(&(network.dns_address(), port).into(), Duration::from_millis(200)).is_ok();
    cluster.wait_for("kube-proxy", async |_: &LocalCluster| is_open(PROXY_HEALTH_PORT)).await?;
    let deleted = nodes.delete(PROXY_NODE, &DeleteParams::default()).await;
    deleted.map_err(|source| TestbedError::Api { source: source.into() })?;
    cluster.wait_for("coredns", async |_: &LocalCluster| is_open(DNS_PORT)).await
}

const PROXY_NODE: &str = "purser-network";

async fn show_proxy_node(nodes: &Api<Node>, network: &Network) -> Result<(), kube::Error> {
    let mut node = Node::default();
    node.metadata.name = Some(PROXY_NODE.to_owned());
    node.spec.get_or_insert_default().unschedulable = Some(true);
    nodes.create(&PostParams::default(), &node).await?;
    let status = json!({ "status": { "addresses": [{ "type": "InternalIP", "address": network.dns_address() }] } });
    nodes.patch_status(PROXY_NODE, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

fn coredns(cluster: &LocalCluster, network: &Network) -> Result<Command, TestbedError> {
    let kubeconfig = control_plane::component_kubeconfig(cluster, "coredns", "coredns", "system:masters")?;
    let corefile = cluster.dir().join("Corefile");
    let (address, kubeconfig) = (network.dns_address(), kubeconfig.display());
    // Names outside the cluster do not exist: nothing is asked of this machine's resolver.
    let text = format!(
        "cluster.local:{DNS_PORT} in-addr.arpa:{DNS_PORT} {{
  bind {address}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {kubeconfig}
    pods insecure
    ttl 1
  }}
  cache 1
  loadbalance
}}
.:{DNS_PORT} {{
  bind {address}
  template ANY ANY . {{
    rcode NXDOMAIN
  }}
}}
"
    );
    write(&corefile, &text)?;
    let mut command = network.command(&cluster.surroundings, cluster.binaries.path("coredns"));
    command.arg("-conf").arg(corefile);
    Ok(command)
}

fn kube_proxy(cluster: &LocalCluster, network: &Network) -> Result<Command, TestbedError> {
    let kubeconfig = control_plane::component_kubeconfig(cluster, "kube-proxy", "system:kube-proxy", "system:authenticated")?;
    let address = network.dns_address();
    let configuration = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": kubeconfig },
        "hostnameOverride": PROXY_NODE,
        "bindAddress": address,
        "healthzBindAddress": format!("{address}:{PROXY_HEALTH_PORT}"),
        "metricsBindAddress": "127.0.0.1:10249",
        "mode": "iptables",
        "clusterCIDR": network.pod_range(),
        "iptables": { "minSyncPeriod": "200ms" },
        "oomScoreAdj": 0,
        // 0 leaves the machine's connection tracking as it is; a namespace may not change it anyway.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
    });
    let path = cluster.dir().join("kube-proxy.json");
    write(&path, &format!("{configuration:#}\n"))?;
    let mut command = network.command(&cluster.surroundings, cluster.binaries.path("kube-proxy"));
    command.arg("--config").arg(path);
    Ok(command)
}

/// Waits until the holder has left this machine's network namespace; before that, the cable's far end would land in ours.
fn wait_for_namespace(process: &mut Process, holder: u32) -> Result<(), TestbedError> {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let deadline = Instant::now() + Duration::from_secs(10);
    while namespace(&holder.to_string()) == namespace("self") {
        process.check()?;
        if Instant::now() > deadline {
            let log = "\n    (nothing)".to_owned();
            return Err(TestbedError::NotReady { what: "the network namespace".into(), waited: Duration::from_secs(10), log });
        }
        std::thread::sleep(POLL_INTERVAL / 5);
    }
    Ok(())
}

/// Lays the cable under the first free number and returns that.
fn connect(surroundings: &Surroundings, holder: u32) -> Result<u8, TestbedError> {
    let mut index = 0;
    loop {
        let line = format!("link add purser{index} type veth peer name eth0 netns {holder}");
        match run(words(surroundings.command("ip"), &line)) {
            Ok(_) => return Ok(index),
            // Another cluster has this number. Creating the link is atomic, so two starts never share one.
            Err(TestbedError::Command { said, .. }) if said.contains("File exists") && index + 1 < CLUSTERS_MAX => index += 1,
            Err(error) => return Err(error),
        }
    }
}

pub(super) fn words(mut command: Command, line: &str) -> Command {
    command.args(line.split_whitespace());
    command
}

fn write(path: &Path, text: &str) -> Result<(), TestbedError> {
    std::fs::write(path, text).map_err(|source| TestbedError::File { path: path.to_owned(), source })
}
