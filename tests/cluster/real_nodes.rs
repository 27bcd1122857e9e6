//! Real nodes keep their promises: programs run, pods find each other and the host, and a pulled plug leaves nothing.

use std::net::IpAddr;
use std::path::Path;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::Api;
use kube::api::{DeleteParams, LogParams, PostParams};
use purser::testbed::image::BUSYBOX_IMAGE;
use purser::testbed::{LocalCluster, Options, RealNode, RealNodeRequest, real_nodes_possible};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::eventually;

/// A job's pod reaches the name server, the API server through its service, and a server of this machine.
#[tokio::test]
async fn a_real_job_runs_to_completion_and_reaches_what_it_should() {
    let Some((_dir, cluster)) = start().await else { return };
    let node = start_node(&cluster, "real-1", vec![]).await;
    let client = cluster.client().await.unwrap();
    let address = cluster.host_address();
    let server = serve(address, "hello from the host").await;
    let script = format!(
        "wget -qO- http://{address}:{server}/ && nslookup kubernetes.default.svc.cluster.local && \
         nc -w 5 kubernetes.default.svc.cluster.local 443 </dev/null && echo service reached && \
         ! nslookup example.org && ! nc -w 2 192.0.2.1 80 </dev/null && echo no way out"
    );
    let jobs: Api<Job> = Api::default_namespaced(client.clone());
    let spec = json!({ "backoffLimit": 0, "template": { "spec": pod_spec("real-1", &script) } });
    let job = serde_json::from_value(json!({ "metadata": { "name": "hello" }, "spec": spec })).unwrap();
    jobs.create(&PostParams::default(), &job).await.unwrap();
    let status = eventually("the job ends", || async {
        let status = jobs.get_status("hello").await.unwrap().status?;
        (status.succeeded.is_some() || status.failed.is_some()).then_some(status)
    })
    .await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pod = pods.list(&Default::default()).await.unwrap().items.remove(0).metadata.name.unwrap();
    let log = pods.logs(&pod, &LogParams::default()).await.unwrap();
    assert_eq!(status.succeeded, Some(1), "{log}");
    for expected in ["hello from the host", "service reached", "no way out"] {
        assert!(log.contains(expected), "{expected}: {log}");
    }
    node.stop().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_registers_with_its_provider_id_labels_and_taints() {
    let Some((_dir, cluster)) = start().await else { return };
    let taint = Taint { key: "purser.dev/unclaimed".into(), effect: "NoExecute".into(), ..Taint::default() };
    let node = start_node(&cluster, "real-1", vec![taint]).await;
    let nodes: Api<Node> = Api::all(cluster.client().await.unwrap());
    let registered = nodes.get("real-1").await.unwrap();
    let spec = registered.spec.unwrap();
    assert_eq!(spec.provider_id.as_deref(), Some("aws:///us-east-1a/i-real-1"));
    assert!(spec.taints.unwrap().iter().any(|taint| taint.key == "purser.dev/unclaimed" && taint.effect == "NoExecute"));
    assert_eq!(registered.status.unwrap().allocatable.unwrap()["nvidia.com/gpu"].0, "1");
    assert_eq!(registered.metadata.labels.unwrap()["topology.kubernetes.io/zone"], "us-east-1a");
    node.stop().await;
}

/// A program in Python, on a GPU as far as Kubernetes knows, reaches a server of this machine.
#[tokio::test]
async fn a_python_program_trains_on_a_real_node() {
    let Some((dir, cluster)) = start().await else { return };
    let node = start_node(&cluster, "real-1", vec![]).await;
    let address = cluster.host_address();
    let server = serve(address, "step 7").await;
    let program = dir.path().join("train.py");
    let text = format!("import urllib.request as r\nprint('resumed at', r.urlopen('http://{address}:{server}/').read().decode())\n");
    std::fs::write(&program, text).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/python-image.sh");
    let made = std::process::Command::new("bash").arg(script).arg(&program).env("PURSER_CACHE_DIR", dir.path().join("images")).output();
    let made = made.unwrap();
    let archive = String::from_utf8(made.stdout).unwrap();
    node.import_image(Path::new(archive.trim())).await.unwrap();

    let pods: Api<Pod> = Api::default_namespaced(cluster.client().await.unwrap());
    let container = json!({
        "name": "main", "image": "purser.dev/testbed/python:local", "imagePullPolicy": "Never", "command": ["python3", "train.py"],
        "resources": { "limits": { "nvidia.com/gpu": "1" } },
    });
    create(&pods, "train", json!({ "restartPolicy": "Never", "containers": [container] })).await;
    eventually("the program ends", || has_phase(&pods, "train", "Succeeded")).await;
    assert_eq!(pods.logs("train", &LogParams::default()).await.unwrap(), "resumed at step 7\n\n");
    node.stop().await;
    cluster.stop().await;
}

/// Two nodes at once; a pod on one serves a pod on the other; a deleted pod gets SIGTERM and its grace; and a node whose plug
/// is pulled leaves no process, mount, interface or control group, while the other goes on.
#[tokio::test]
async fn two_nodes_work_together_and_one_ends_without_the_other() {
    let Some((dir, cluster)) = start().await else { return };
    let (first, second) = tokio::join!(start_node(&cluster, "real-1", vec![]), start_node(&cluster, "real-2", vec![]));
    let pods: Api<Pod> = Api::default_namespaced(cluster.client().await.unwrap());
    let serve = "trap 'echo saving; sleep 1; echo saved; exit 0' TERM; \
                 echo from pod one >/tmp/index.html; httpd -p 8000 -h /tmp; while :; do sleep 0.1; done";
    create(&pods, "server", pod_spec("real-1", serve)).await;
    let ip = eventually("the server has an address", || async { pods.get("server").await.unwrap().status?.pod_ip }).await;
    let ask = format!("until wget -qO- http://{ip}:8000/; do sleep 0.2; done");
    create(&pods, "client", pod_spec("real-2", &ask)).await;
    eventually("the client is done", || has_phase(&pods, "client", "Succeeded")).await;
    assert_eq!(pods.logs("client", &LogParams::default()).await.unwrap(), "from pod one\n");

    let mut said = pods.log_stream("server", &LogParams { follow: true, ..LogParams::default() }).await.unwrap();
    pods.delete("server", &DeleteParams::default()).await.unwrap();
    let mut log = String::new();
    futures::AsyncReadExt::read_to_string(&mut said, &mut log).await.unwrap();
    assert_eq!(log, "saving\nsaved\n");

    create(&pods, "sleeper", pod_spec("real-1", "exec sleep 4711")).await;
    eventually("the sleeper runs", || has_phase(&pods, "sleeper", "Running")).await;
    assert!(!command_lines_with("sleep\u{0}4711").is_empty());
    first.stop().await;
    assert!(command_lines_with("sleep\u{0}4711").is_empty(), "the pod died with its node");
    assert!(!dir.path().join("nodes/real-1").exists());
    create(&pods, "after", pod_spec("real-2", "true")).await;
    eventually("the other node still works", || has_phase(&pods, "after", "Succeeded")).await;

    second.stop().await;
    cluster.stop().await;
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(&*dir.path().to_string_lossy()), "{mounts}");
    assert!(command_lines_with(&dir.path().to_string_lossy()).is_empty());
}

async fn start() -> Option<(tempfile::TempDir, LocalCluster)> {
    if let Err(why) = real_nodes_possible() {
        eprintln!("skipped, since this machine cannot run real nodes: {why}");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let options = Options { real_nodes: true, kwok: false, ..Options::default() };
    let cluster = LocalCluster::start(dir.path(), options).await.unwrap();
    Some((dir, cluster))
}

async fn start_node(cluster: &LocalCluster, name: &str, taints: Vec<Taint>) -> RealNode {
    let labels = [("topology.kubernetes.io/zone".to_owned(), "us-east-1a".to_owned())].into();
    let extended_resources = [("nvidia.com/gpu".to_owned(), "1".to_owned())].into();
    let provider_id = format!("aws:///us-east-1a/i-{name}");
    let request = RealNodeRequest { name: name.into(), provider_id, labels, taints, extended_resources };
    RealNode::start(cluster, request).await.unwrap()
}

fn pod_spec(node: &str, script: &str) -> Value {
    json!({
        "restartPolicy": "Never",
        "nodeSelector": { "kubernetes.io/hostname": node },
        "containers": [{ "name": "main", "image": BUSYBOX_IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", script] }],
    })
}

async fn create(pods: &Api<Pod>, name: &str, spec: Value) {
    let pod = serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
}

async fn has_phase(pods: &Api<Pod>, name: &str, phase: &str) -> Option<()> {
    (pods.get(name).await.unwrap().status?.phase.as_deref() == Some(phase)).then_some(())
}

/// Answers every request to this machine's address with one line; returns the port.
async fn serve(address: IpAddr, answer: &'static str) -> u16 {
    let listener = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{answer}\n").as_bytes()).await;
        }
    });
    port
}

fn command_lines_with(text: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read_to_string(Path::new(&process.path()).join("cmdline")).ok());
    lines.filter(|line| line.contains(text)).collect()
}
