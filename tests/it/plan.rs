//! `purser plan` on the samples: what a reader of the docs sees.

use super::run::{assert_snapshot, purser, purser_with};

const AT: &str = "2026-03-02T08:00:00Z";

#[test]
fn the_samples_are_planned_as_the_docs_say() {
    let ran = purser(&["plan", "-f", "manifests/samples", "--at", AT, "--offers"]);
    assert_snapshot("plan-samples.txt", &format!("$ purser plan -f manifests/samples --at {AT} --offers\n{}exit {}\n{}", ran.stdout, ran.code, ran.stderr));
}

#[test]
fn json_and_csv_tell_the_same_numbers() {
    let json = purser(&["plan", "-f", "manifests/samples", "--at", AT, "--output", "json"]);
    let parsed: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON alone is on stdout");
    let csv = purser(&["plan", "-f", "manifests/samples", "--at", AT, "--output", "csv"]);
    let jobs = parsed["jobs"].as_array().expect("jobs");
    assert_eq!(jobs.len(), csv.stdout.lines().count() - 1);
    for job in jobs {
        let name = format!("{}/{}", job["namespace"].as_str().unwrap(), job["name"].as_str().unwrap());
        assert!(csv.stdout.lines().any(|line| line.starts_with(&name)), "{name}");
    }
    assert_eq!((json.code, csv.code), (3, 3), "one sample cannot run");
}

#[test]
fn a_job_alone_is_planned_on_an_assumed_pool_and_says_so() {
    let job = "apiVersion: purser.dev/v1alpha1\nkind: TrainingJob\nmetadata: {name: alone, namespace: lab}\nspec:\n  experiment: none\n  expectedDuration: 2h\n  requirements: {instanceTypes: [g5.xlarge]}\n  template: {spec: {containers: [{name: train, image: trainer}]}}\n";
    let ran = purser_with(&["plan", "-f", "-", "--at", AT], job);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("1 × g5.xlarge spot"), "{}", ran.stdout);
    assert!(ran.stderr.contains("no CapacityPool") && ran.stderr.contains("assumed without a budget"), "{}", ran.stderr);
}

#[test]
fn the_same_files_and_time_give_the_same_plan() {
    let plan = || purser(&["plan", "-f", "manifests/samples", "--at", AT, "--output", "json"]).stdout;
    assert_eq!(plan(), plan());
}
