//! Tests against a real Kubernetes, which each starts for itself ([`purser::testbed`]); it takes about three seconds.
//! The first run builds its binaries (`tests/cluster/build.sh`), which takes minutes.

#![allow(clippy::unwrap_used)]

mod end_to_end;
mod fleet;
mod fleet_bench;
mod harness;
mod local_cluster;
mod operator;
mod real_nodes;
mod real_training;
mod replay;

use std::future::Future;
use std::time::{Duration, Instant};

/// Polls until `question` has an answer; fails the test when it has none in time.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, question: impl Fn() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        if let Some(answer) = question().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
