//! What is wrong with a file is said where the user sees it: what, why, and what to do next; exit code 2, nothing on stdout.

use super::run::{Ran, purser, purser_with};

const GOOD: &str = "apiVersion: purser.dev/v1alpha1\nkind: TrainingJob\nmetadata: {name: bert, namespace: language}\nspec:\n  experiment: bert\n  workers: 1\n  expectedDuration: 1h\n  budget: \"10\"\n  checkpoint: {uri: \"s3://bucket/bert\"}\n  template: {spec: {containers: [{name: train, image: trainer}]}}\n";

/// The good job with one thing changed.
fn plan_with(good: &str, bad: &str) -> Ran {
    assert!(GOOD.contains(good), "{good:?} is not in the good job");
    purser_with(&["plan", "-f", "-"], &GOOD.replace(good, bad))
}

fn assert_refused(ran: &Ran, words: &[&str]) {
    assert_eq!(ran.code, 2, "stdout {}\nstderr {}", ran.stdout, ran.stderr);
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.starts_with("error: ") && ran.stderr.contains("\nhint: "), "{}", ran.stderr);
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?} is missing in: {}", ran.stderr);
    }
}

#[test]
fn values_that_make_no_sense_are_refused_by_name() {
    for (good, bad, words) in [
        ("workers: 1", "workers: 0", ["workers", "1 to 1000"]),
        ("workers: 1", "workers: -3", ["workers", "-3"]),
        ("workers: 1", "workers: 10000", ["workers", "10000"]),
        ("budget: \"10\"", "budget: \"-10\"", ["budget", "more than zero"]),
        ("budget: \"10\"", "budget: \"0\"", ["budget", "more than zero"]),
        ("budget: \"10\"", "budget: \"ten\"", ["ten", "not an amount"]),
        ("budget: \"10\"", "budget: \"0.1234567890123456789\"", ["18 decimals", "0.1234567890123456789"]),
        ("expectedDuration: 1h", "expectedDuration: 0s", ["expectedDuration", "zero"]),
        ("expectedDuration: 1h", "expectedDuration: soon", ["soon", "not a duration"]),
        ("s3://bucket/bert", "not a uri", ["checkpoint.uri", "not a uri"]),
        ("s3://bucket/bert", "ftp://host/x", ["checkpoint.uri", "ftp"]),
        ("containers: [{name: train, image: trainer}]", "containers: []", ["containers", "empty"]),
        ("image: trainer", "command: [x]", ["no image", "train"]),
        ("experiment:", "expirement:", ["expirement", "unknown field"]),
        ("kind: TrainingJob", "kind: Pod", ["Pod", "none of the kinds"]),
        ("{name: bert, namespace: language}", "{namespace: language}", ["metadata.name", "line 1"]),
    ] {
        assert_refused(&plan_with(good, bad), &words);
    }
}

#[test]
fn files_that_are_none_are_refused() {
    assert_refused(&purser(&["plan", "-f", "/nonexistent.yaml"]), &["/nonexistent.yaml"]);
    assert_refused(&purser_with(&["plan", "-f", "-"], ""), &["no object"]);
    assert_refused(&purser_with(&["plan", "-f", "-"], "a: [1, 2"), &["line 1"]);
    assert_refused(&purser_with(&["plan", "-f", "-"], "just words"), &["-"]);
    assert_refused(&purser_with(&["plan", "-f", "-"], "apiVersion: purser.dev/v1alpha1\nkind: Team\nmetadata: {name: a}\nspec: {namespaces: [a]}\n"), &["no TrainingJob"]);
}

#[test]
fn a_deadline_in_the_past_and_names_of_every_alphabet_do_no_harm() {
    let late = purser_with(&["plan", "-f", "-"], &GOOD.replace("expectedDuration: 1h", "expectedDuration: 1h\n  deadline: \"2020-01-01T00:00:00Z\""));
    assert_eq!(late.code, 3, "{}", late.stderr);
    assert!(late.stdout.contains("Refuse"), "{}", late.stdout);
    let long = "x".repeat(253);
    for name in [long.as_str(), "\"数据-größe\""] {
        assert_eq!(purser_with(&["plan", "-f", "-"], &GOOD.replace("name: bert,", &format!("name: {name},"))).code, 0);
    }
}

#[test]
fn without_a_cluster_commands_say_how_to_get_one() {
    let ran = purser(&["job", "list", "--kubeconfig", "/nonexistent"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("no cluster to speak to") && ran.stderr.contains("hint: "), "{}", ran.stderr);
}

#[test]
fn usage_mistakes_end_with_2_and_every_command_has_examples() {
    assert_eq!(purser(&["frobnicate"]).code, 2);
    assert_eq!(purser(&["explain", "nothing", "--kubeconfig", "/nonexistent"]).code, 2);
    assert_eq!(purser(&["install", "--image", "purser:1", "--ledger-claim", "disk"]).code, 2);
    for command in [vec!["plan"], vec!["explain"], vec!["report"], vec!["ledger", "query"], vec!["job", "submit"], vec!["job", "list"], vec!["install"], vec!["crds"]] {
        let help = purser(&[command.as_slice(), &["--help"]].concat());
        assert_eq!(help.code, 0);
        assert!(help.stdout.contains("Examples:"), "purser {} has no examples", command.join(" "));
    }
}
