//! How each component of the control plane is started, and the files that it reads.
//!
//! Nothing here runs a process; these are command lines. Settings differ from a production cluster only where a test would
//! otherwise wait: etcd does not fsync, nobody elects a leader, and the controllers may ask as fast as they like.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use serde_json::json;

use super::certificates::{Authority, write_private};
use super::{LocalCluster, TestbedError};

/// kwok's behaviour: what becomes of a fake node and of the pods on it.
const KWOK_STAGES: [(&str, &str); 5] = [
    ("node-initialize", include_str!("../../tests/cluster/kwok/node-initialize.yaml")),
    ("node-heartbeat-with-lease", include_str!("../../tests/cluster/kwok/node-heartbeat-with-lease.yaml")),
    ("pod-ready", include_str!("../../tests/cluster/kwok/pod-ready.yaml")),
    ("pod-stop", include_str!("../../tests/cluster/kwok/pod-stop.yaml")),
    ("pod-delete", include_str!("../../tests/cluster/kwok/pod-delete.yaml")),
];

/// The issuer of service-account tokens, as in every cluster made by kubeadm.
const TOKEN_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// The user and the token of the cluster's owner.
const ADMIN: &str = "admin";

/// Writes what the components read: certificates, the admin's token and kubeconfig.
pub(super) fn prepare(cluster: &LocalCluster) -> Result<(), TestbedError> {
    let authority = Authority::create(&cluster.dir().join("pki"))?;
    let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
    let mut alternatives: Vec<String> = names.map(str::to_owned).to_vec();
    alternatives.extend([cluster.host_address().to_string(), "127.0.0.1".to_owned(), first_service_address(cluster)]);
    authority.server("kube-apiserver", alternatives)?;
    authority.client("kubelet-client", "kube-apiserver-kubelet-client", "system:masters")?;
    let token = uuid::Uuid::new_v4().to_string();
    write_private(&tokens_path(cluster), &format!("{token},{ADMIN},{ADMIN},\"system:masters\"\n"))?;
    write_kubeconfig(cluster, &cluster.kubeconfig_path(), json!({ "token": token }))
}

pub(super) fn etcd(cluster: &LocalCluster, client_port: u16, peer_port: u16) -> Command {
    let (client, peer) = (format!("http://127.0.0.1:{client_port}"), format!("http://127.0.0.1:{peer_port}"));
    command(cluster, "etcd", [
        ("data-dir", cluster.dir().join("etcd").into()),
        ("listen-client-urls", client.clone().into()),
        ("advertise-client-urls", client.into()),
        ("listen-peer-urls", peer.clone().into()),
        ("initial-advertise-peer-urls", peer.clone().into()),
        ("initial-cluster", format!("default={peer}").into()),
        ("unsafe-no-fsync", "true".into()),
        ("log-level", "warn".into()),
    ])
}

pub(super) fn api_server(cluster: &LocalCluster, etcd_port: u16) -> Result<Command, TestbedError> {
    let pki = Authority::open(&cluster.dir().join("pki"));
    let server = pki.files("kube-apiserver");
    let kubelet_client = pki.files("kubelet-client");
    let address = cluster.host_address().to_string();
    let port = cluster.server().rsplit_once(':').map_or("443", |(_, port)| port);
    // An endpoint may not be a loopback address; without real nodes nobody asks for one.
    let reconciler = if cluster.host_address().is_loopback() { "none" } else { "lease" };
    Ok(command(cluster, "kube-apiserver", [
        ("etcd-servers", format!("http://127.0.0.1:{etcd_port}").into()),
        ("bind-address", address.clone().into()),
        ("advertise-address", address.into()),
        ("secure-port", port.into()),
        ("cert-dir", cluster.dir().join("pki").into()),
        ("tls-cert-file", server.certificate.into()),
        ("tls-private-key-file", server.key.into()),
        ("client-ca-file", pki.authority().certificate.into()),
        ("token-auth-file", tokens_path(cluster).into()),
        ("authorization-mode", "Node,RBAC".into()),
        ("kubelet-client-certificate", kubelet_client.certificate.into()),
        ("kubelet-client-key", kubelet_client.key.into()),
        ("kubelet-certificate-authority", pki.authority().certificate.into()),
        ("kubelet-preferred-address-types", "InternalIP".into()),
        ("service-account-issuer", TOKEN_ISSUER.into()),
        ("service-account-key-file", pki.service_account().certificate.into()),
        ("service-account-signing-key-file", pki.service_account().key.into()),
        ("service-cluster-ip-range", service_range(cluster).into()),
        ("endpoint-reconciler-type", reconciler.into()),
        ("allow-privileged", "true".into()),
        ("max-requests-inflight", "2000".into()),
        ("max-mutating-requests-inflight", "1000".into()),
    ]))
}

pub(super) fn controller_manager(cluster: &LocalCluster, port: u16) -> Result<Command, TestbedError> {
    let pki = Authority::open(&cluster.dir().join("pki"));
    let kubeconfig = component_kubeconfig(cluster, "kube-controller-manager", "system:kube-controller-manager", "system:authenticated")?;
    Ok(command(cluster, "kube-controller-manager", [
        ("kubeconfig", kubeconfig.clone().into()),
        ("authentication-kubeconfig", kubeconfig.clone().into()),
        ("authorization-kubeconfig", kubeconfig.into()),
        ("bind-address", "127.0.0.1".into()),
        ("secure-port", port.to_string().into()),
        ("leader-elect", "false".into()),
        ("use-service-account-credentials", "true".into()),
        ("service-account-private-key-file", pki.service_account().key.into()),
        ("root-ca-file", pki.authority().certificate.into()),
        // It makes this folder, by default in /usr/libexec.
        ("flex-volume-plugin-dir", cluster.dir().join("volume-plugins").into()),
        ("kube-api-qps", "400".into()),
        ("kube-api-burst", "800".into()),
    ]))
}

pub(super) fn scheduler(cluster: &LocalCluster, port: u16) -> Result<Command, TestbedError> {
    let kubeconfig = component_kubeconfig(cluster, "kube-scheduler", "system:kube-scheduler", "system:authenticated")?;
    Ok(command(cluster, "kube-scheduler", [
        ("kubeconfig", kubeconfig.clone().into()),
        ("authentication-kubeconfig", kubeconfig.clone().into()),
        ("authorization-kubeconfig", kubeconfig.into()),
        ("bind-address", "127.0.0.1".into()),
        ("secure-port", port.to_string().into()),
        ("leader-elect", "false".into()),
        ("kube-api-qps", "400".into()),
        ("kube-api-burst", "800".into()),
    ]))
}

pub(super) fn kwok(cluster: &LocalCluster, port: u16) -> Result<Command, TestbedError> {
    let stages = cluster.dir().join("kwok.yaml");
    let text = KWOK_STAGES.map(|(_, stage)| stage).join("\n---\n");
    std::fs::write(&stages, text).map_err(|source| TestbedError::File { path: stages.clone(), source })?;
    Ok(command(cluster, "kwok", [
        ("kubeconfig", cluster.kubeconfig_path().into()),
        ("config", stages.into()),
        ("manage-all-nodes", "false".into()),
        ("manage-nodes-with-annotation-selector", "kwok.x-k8s.io/node=fake".into()),
        ("node-lease-duration-seconds", "40".into()),
        ("server-address", format!("127.0.0.1:{port}").into()),
    ]))
}

/// Signs a client's certificate and writes a kubeconfig that uses it; returns the kubeconfig's path.
pub(super) fn component_kubeconfig(cluster: &LocalCluster, name: &str, user: &str, group: &str) -> Result<PathBuf, TestbedError> {
    let files = Authority::open(&cluster.dir().join("pki")).client(name, user, group)?;
    let path = cluster.dir().join("pki").join(format!("{name}.kubeconfig"));
    write_kubeconfig(cluster, &path, json!({ "client-certificate": files.certificate, "client-key": files.key }))?;
    Ok(path)
}

/// A client made from one kubeconfig file; neither the environment nor a proxy plays a part.
pub(super) async fn client(kubeconfig: &Path) -> Result<kube::Client, TestbedError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| TestbedError::Api { source };
    // Two TLS back ends are compiled in, so rustls wants to be told; a second call changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let file = kube::config::Kubeconfig::read_from(kubeconfig).map_err(|source| failed(source.into()))?;
    let options = kube::config::KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(file, &options).await.map_err(|source| failed(source.into()))?;
    config.proxy_url = None;
    kube::Client::try_from(config).map_err(|source| failed(source.into()))
}

/// The range of the services' addresses; a cluster's own where pods really run.
pub(super) fn service_range(cluster: &LocalCluster) -> String {
    match &cluster.facts.network {
        Some(network) => network.service_range(),
        None => "10.96.0.0/16".to_owned(),
    }
}

fn first_service_address(cluster: &LocalCluster) -> String {
    service_range(cluster).replace(".0/16", ".1")
}

fn tokens_path(cluster: &LocalCluster) -> PathBuf {
    cluster.dir().join("pki/tokens.csv")
}

fn write_kubeconfig(cluster: &LocalCluster, path: &Path, user: serde_json::Value) -> Result<(), TestbedError> {
    let authority = Authority::open(&cluster.dir().join("pki")).authority().certificate;
    let authority = std::fs::read(&authority).map_err(|source| TestbedError::File { path: authority, source })?;
    let name = "purser-testbed";
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": name, "cluster": {
            "server": cluster.server(),
            "certificate-authority-data": base64::engine::general_purpose::STANDARD.encode(authority),
        } }],
        "users": [{ "name": name, "user": user }],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": name } }],
        "current-context": name,
    });
    // JSON is YAML, and every client reads it.
    write_private(path, &format!("{kubeconfig:#}\n"))
}

fn command<const N: usize>(cluster: &LocalCluster, binary: &str, flags: [(&str, OsString); N]) -> Command {
    let mut command = cluster.surroundings.command(cluster.binaries.path(binary));
    for (flag, value) in flags {
        let mut argument = OsString::from(format!("--{flag}="));
        argument.push(value);
        command.arg(argument);
    }
    command
}
