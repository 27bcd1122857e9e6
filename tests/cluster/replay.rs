//! Measured markets, replayed: fifty jobs at high clock speed on the traces of `PURSER_DATA_DIR`.

use chrono::{DateTime, TimeDelta, Utc};
use purser::training::JobPhase;
use serde_json::json;

use crate::end_to_end::{assert_books_agree, assert_nothing_twice, aws_pool_in, experiment, job, phase, wait_until_over};
use crate::harness::{Setup, World};

const JOBS: u32 = 50;
/// The twin's subnet in us-west-2a.
const SUBNET: &str = "subnet-eb697ae731bd6971a";

#[tokio::test(flavor = "multi_thread")]
async fn fifty_jobs_on_a_measured_market_are_all_done_and_paid_once() {
    let Some(data) = std::env::var_os("PURSER_DATA_DIR") else {
        println!("skipped: PURSER_DATA_DIR is not set");
        return;
    };
    let traces = std::path::Path::new(&data).join("traces/spot");
    let market = format!("trace:{}#availability/16-node/aws-08-27-2023", traces.join("spot-traces.csv").display());
    let mut world = World::start(Setup { market, speed: 300.0, ..Setup::default() }).await;
    world.start_operator(None);
    world.operator_is_ready().await;
    world.apply(&experiment("replay", "100000")).await;
    world.apply(&aws_pool_in("us-west-2", "v100", &["p3.2xlarge"], json!({"us-west-2a": SUBNET}))).await;
    let clock = world.twin_json("/purser/clock").await.expect("the market's clock");
    let now: DateTime<Utc> = clock["marketNow"].as_str().and_then(|now| now.parse().ok()).expect("the market's time");
    for number in 0..JOBS {
        let (workers, hours) = (1 + number % 3, 1 + number % 4);
        let mut job = job(&format!("job-{number}"), "replay", workers, &format!("{hours}h"));
        // Spot is gone for days in this market, so some must fall back to on-demand.
        let spare = if number % 2 == 0 { 8 } else { 16 };
        job["spec"]["deadline"] = json!(now + TimeDelta::hours(2 * i64::from(hours) + spare));
        world.create_job(job).await.expect("admitted");
    }
    let jobs = wait_until_over(&world, 600).await;
    assert_eq!(jobs.len(), JOBS as usize);
    assert!(jobs.iter().all(|job| phase(job) == JobPhase::Succeeded), "{jobs:#?}");
    let late = jobs.iter().filter(|job| {
        let finished = job.status.as_ref().and_then(|status| status.job.finished_at);
        job.spec.deadline.is_some_and(|deadline| finished.is_none_or(|at| at > deadline))
    });
    // Said, not judged: at this speed a second of this machine's own is five minutes of the market's.
    println!("{} of {JOBS} jobs were late", late.count());
    let interruptions: usize = jobs.iter().filter_map(|job| job.status.as_ref()).map(|status| status.job.attempts.len() - 1).sum();
    println!("{JOBS} jobs done, {interruptions} interruptions survived");
    assert_books_agree(&world, 300).await;
    assert_nothing_twice(&world).await;
}
