//! The demo from its first line to its last, as a user runs it: what must happen happens, both ledgers agree, nothing leaves
//! the machine, and nothing is left behind.

#![allow(clippy::unwrap_used)]

mod install;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Ends the demo even when the test fails.
struct Demo<'a>(&'a Path);

impl Drop for Demo<'_> {
    fn drop(&mut self) {
        purser(&["demo", "down", "--dir", &self.0.display().to_string()]);
    }
}

fn purser(args: &[&str]) -> Output {
    command(args).output().expect("the binary runs")
}

/// With an environment that would do harm if it were used.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_purser"));
    command.args(args).env("KUBECONFIG", "/nonexistent/somebody-elses-cluster").env("AWS_PROFILE", "production");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_demo_tells_the_truth_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("demo");
    let dir_text = dir.display().to_string();
    let demo = Demo(&dir);

    let mut up = command(&["demo", "up", "--dir", &dir_text]);
    let up = up.env("HTTPS_PROXY", "http://192.0.2.1:3128").output().expect("the binary runs");
    let (stdout, stderr) = (text(&up.stdout), text(&up.stderr));
    assert_eq!(up.status.code(), Some(0), "{stdout}\n{stderr}\n{}", logs(&dir));
    assert!(stdout.contains("equal, to the last digit"), "{stdout}");

    let jobs = jobs(&dir);
    let job = |name: &str| jobs.iter().find(|job| job["name"] == name).unwrap_or_else(|| panic!("no job {name}")).clone();
    assert!(job("detector-finetune")["attempts"].as_u64() >= Some(2), "it was not interrupted: {jobs:?}");
    for name in ["detector-finetune", "release-candidate", "wake-word", "bert-pretrain"] {
        assert_eq!(job(name)["phase"], "Succeeded", "{jobs:?}");
    }
    assert!(job("release-candidate")["capacity"].as_str().unwrap().contains("on-demand"), "{jobs:?}");
    assert!(job("wake-word")["capacity"].as_str().unwrap().contains("reserved"), "{jobs:?}");
    assert_eq!((&job("from-scratch")["phase"], &job("from-scratch")["decision"]), (&"Waiting".into(), &"Refuse".into()));

    a_job_is_submitted_and_cancelled(&dir);

    let strangers = strangers(&dir);
    assert!(strangers.is_empty(), "connections that leave this machine: {strangers:?}");

    let pids = pids(&dir);
    assert!(pids.len() >= 7, "etcd, three of Kubernetes, kwok, the twin, the operator: {pids:?}");
    drop(demo);
    assert!(!dir.exists());
    let left: Vec<u32> = pids.into_iter().filter(|pid| is_alive(*pid)).collect();
    assert!(left.is_empty(), "a process is left: {left:?}");
}

/// Whether it runs; what only waits for somebody to read its exit code does not.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// As somebody would who goes on playing with the demo.
fn a_job_is_submitted_and_cancelled(dir: &Path) {
    const JOB: &str = "apiVersion: purser.dev/v1alpha1\nkind: TrainingJob\nmetadata: {name: endless, namespace: language}\nspec:\n  experiment: bert\n  expectedDuration: 48h\n  requirements: {instanceTypes: [m6i.xlarge]}\n  template: {spec: {containers: [{name: train, image: trainer}]}}\n";
    let kubeconfig = dir.join("kubeconfig").display().to_string();
    let file = dir.join("endless.yaml");
    fs::write(&file, JOB).expect("a file");
    let run = |args: &[&str]| {
        let ran = purser(&[args, &["--kubeconfig", &kubeconfig, "-n", "language"]].concat());
        assert!(ran.status.success(), "{args:?}: {}", text(&ran.stderr));
        text(&ran.stdout)
    };
    assert_eq!(run(&["job", "submit", "-f", &file.display().to_string()]), "trainingjob language/endless applied\n");
    wait_for_phase(dir, "endless", "Running");
    assert!(run(&["job", "describe", "endless"]).contains("m6i.xlarge"));
    assert!(run(&["explain", "job/endless"]).contains("Running"));
    assert_eq!(run(&["job", "cancel", "endless"]), "trainingjob language/endless cancelled\n");
    wait_for_phase(dir, "endless", "Cancelled");
    let again = purser(&["job", "cancel", "endless", "--kubeconfig", &kubeconfig, "-n", "language"]);
    assert!(text(&again.stderr).contains("over already"), "{}", text(&again.stderr));
}

fn wait_for_phase(dir: &Path, name: &str, phase: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let jobs = jobs(dir);
        if jobs.iter().any(|job| job["name"] == name && job["phase"] == phase) {
            return;
        }
        assert!(Instant::now() < deadline, "{name} did not become {phase}: {jobs:?}\n{}", logs(dir));
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn jobs(dir: &Path) -> Vec<serde_json::Value> {
    let kubeconfig = dir.join("kubeconfig").display().to_string();
    let list = purser(&["job", "list", "-A", "--output", "json", "--kubeconfig", &kubeconfig]);
    serde_json::from_slice(&list.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&list.stderr)))
}

/// The processes of the demo, from its own records: the first line of each is a process id.
fn pids(dir: &Path) -> Vec<u32> {
    let records = fs::read_dir(dir.join("processes")).expect("the demo records its processes");
    records.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok()?.lines().next()?.parse().ok()).collect()
}

/// Peers of the demo's TCP connections that are not on loopback.
fn strangers(dir: &Path) -> BTreeSet<String> {
    let mut strangers = BTreeSet::new();
    for pid in pids(dir) {
        let sockets = sockets(pid);
        for table in ["tcp", "tcp6"] {
            let connections = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
            for line in connections.lines().skip(1) {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let (peer, inode) = (fields[2], fields[9]);
                if sockets.contains(inode) && !is_here(peer) {
                    strangers.insert(format!("{pid} → {peer}"));
                }
            }
        }
    }
    strangers
}

/// Inode numbers of a process's sockets.
fn sockets(pid: u32) -> BTreeSet<String> {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return BTreeSet::new() };
    let targets = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    targets.filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect()
}

/// Loopback or nobody (listening), in the kernel's notation: hex, each 32-bit word in host order, then the port.
fn is_here(peer: &str) -> bool {
    let address = peer.split(':').next().unwrap_or_default();
    let is_nobody = address.bytes().all(|digit| digit == b'0');
    let is_loopback_4 = address.len() == 8 && address.ends_with("7F");
    let is_loopback_6 = address == "00000000000000000000000001000000" || (address.len() == 32 && address[16..].starts_with("FFFF0000") && address.ends_with("7F"));
    is_nobody || is_loopback_4 || is_loopback_6
}

/// The last lines of every log, for a failure's message.
fn logs(dir: &Path) -> String {
    let mut all = String::new();
    for name in ["twin", "operator"] {
        let log = fs::read_to_string(dir.join("logs").join(format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        all.push_str(&format!("— {name} —\n{}\n", lines[lines.len().saturating_sub(30)..].join("\n")));
    }
    all
}
