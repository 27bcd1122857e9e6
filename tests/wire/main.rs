//! The wire between Purser and AWS: one list of calls through [`purser::cloud::aws::Aws`], run against moto (not ours: the
//! referee for wire format) and against Purser's own twin (the referee for behaviour).
//!
//! What AWS does, as documented, stands in [`expected::AWS`]; where an endpoint is known to do otherwise,
//! [`expected::DIFFERENCES`] says so with the reason. Anything else is a failure, and so is a difference that has gone.
//!
//! Harmless by construction: the calls run in a child process of this test, which gets dummy credentials, no AWS
//! configuration, no metadata service, and the global endpoint on the loopback interface.

#![allow(clippy::unwrap_used)]

mod calls;
mod endpoint;
mod expected;
mod scripted;

use std::collections::BTreeMap;
use std::process::Command;

use endpoint::{Endpoint, Started};

#[test]
fn moto_speaks_as_aws_does_but_for_known_differences() {
    match endpoint::moto() {
        Started::Running(endpoint) => compare(&endpoint),
        Started::Missing(why) => eprintln!("skipped: {why}"),
    }
}

#[test]
fn the_twin_speaks_as_aws_does_but_for_known_differences() {
    match endpoint::twin() {
        Started::Running(endpoint) => compare(&endpoint),
        Started::Missing(why) => eprintln!("skipped: {why}"),
    }
}

/// Runs in the child, with the environment of [`observe`]; alone it would have no endpoint.
#[test]
#[ignore = "run by the tests above in a process of its own"]
fn child() {
    let Ok(endpoint) = std::env::var("AWS_ENDPOINT_URL") else { return };
    assert!(endpoint.starts_with("http://127.0.0.1:"), "the calls are for the loopback interface only");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (call, seen) in runtime.block_on(calls::run()) {
        println!("{}{call}\t{seen}", endpoint::MARK);
    }
}

#[test]
fn refusals_are_told_at_once_lost_answers_are_repeated_and_what_is_forbidden_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let port = endpoint::free_port();
    let (succeeded, text) = in_child("scripted_child", endpoint::harmless(port, folder.path()));
    assert!(succeeded, "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

/// Runs in the child, against answers that no emulator gives.
#[test]
#[ignore = "run by the test above in a process of its own"]
fn scripted_child() {
    let Ok(endpoint) = std::env::var("AWS_ENDPOINT_URL") else { return };
    let address = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(scripted::run(address));
}

fn compare(endpoint: &Endpoint) {
    let seen = observe(endpoint);
    let mut wrong = Vec::new();
    for (call, aws) in expected::AWS {
        let difference = expected::DIFFERENCES.iter().find(|difference| difference.endpoint == endpoint.name && difference.call == *call);
        let wanted = difference.map_or(*aws, |difference| difference.seen);
        match seen.get(*call) {
            Some(seen) if seen == wanted => {}
            Some(seen) => wrong.push(format!("{call}\n    wanted: {wanted}\n    seen:   {seen}")),
            None => wrong.push(format!("{call}\n    wanted: {wanted}\n    seen:   the calls did not get that far")),
        }
    }
    assert!(wrong.is_empty(), "{} answers otherwise than written down:\n  {}\n{}", endpoint.name, wrong.join("\n  "), endpoint.log());
    assert_eq!(seen.len(), expected::AWS.len(), "a call has no expectation");
}

fn observe(endpoint: &Endpoint) -> BTreeMap<String, String> {
    let (succeeded, text) = in_child("child", endpoint.environment());
    assert!(succeeded, "the calls broke off:\n{text}\n{}", endpoint.log());
    text.lines().filter_map(|line| line.split_once(endpoint::MARK)?.1.split_once('\t')).map(|(call, seen)| (call.to_owned(), seen.to_owned())).collect()
}

/// One of the ignored tests above in a process of its own, with this environment and nothing else.
fn in_child(test: &str, environment: Vec<(&'static str, String)>) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test, "--ignored", "--nocapture"]).env_clear().envs(environment).output().unwrap();
    (output.status.success(), format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}
