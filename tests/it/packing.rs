//! `purser simulate packing` on the real pods and prices of `PURSER_DATA_DIR`: what the reference numbers say, and what a user who
//! recomputes the answer would find.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::run::purser;

fn data() -> Option<(String, String)> {
    let Some(folder) = std::env::var_os("PURSER_DATA_DIR") else {
        println!("skipped: PURSER_DATA_DIR is not set");
        return None;
    };
    let file = |path: &str| Path::new(&folder).join(path).display().to_string();
    Some((file("traces/jobs/alibaba2023_pods.parquet"), file("fixtures/karpenter/instance_types_us_east_1_on_demand.json.zst")))
}

fn simulate(extra: &[&str]) -> Option<Value> {
    let (pods, catalogue) = data()?;
    let ran = purser(&[&["simulate", "packing", "--output", "json", "--pods", &pods, "--catalog", &catalogue], extra].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    Some(serde_json::from_str(&ran.stdout).expect("stdout is JSON alone"))
}

fn number(run: &Value, key: &str) -> f64 {
    run[key].as_f64().unwrap_or_else(|| panic!("{key} is no number in {run}"))
}

#[test]
fn every_set_is_within_five_percent_of_the_published_bound() {
    let Some(runs) = simulate(&["--set", "A,B,C,D"]) else { return };
    let runs = runs["runs"].as_array().expect("several runs");
    for (run, (published, pods)) in runs.iter().zip([(783.0, 1088), (1794.0, 2000), (1552.0, 2000), (7116.0, 8152)]) {
        assert_eq!((run["unplaced"].as_u64(), run["pods"].as_u64()), (Some(0), Some(pods)));
        assert_eq!(number(run, "lower_bound").round(), published);
        assert!(number(run, "cost_per_hour") <= published * 1.05, "{run}");
        assert!(number(run, "configuration_bound") <= number(run, "cost_per_hour") && number(run, "configuration_bound") >= number(run, "lower_bound"));
    }
}

#[test]
fn karpenters_emulation_is_what_karpenter_planned() {
    let Some(run) = simulate(&["--set", "A", "--policy", "karpenter"]) else { return };
    assert_eq!((number(&run, "cost_per_hour").round(), run["nodes"].as_u64()), (1050.0, Some(51)));
}

#[test]
fn a_dear_node_buys_fewer_and_its_charge_is_in_the_bound() {
    let Some(runs) = simulate(&["--set", "B", "--node-charge", "0,0.2"]) else { return };
    let (free, charged) = (&runs["runs"][0], &runs["runs"][1]);
    assert!(charged["nodes"].as_u64() <= free["nodes"].as_u64());
    let with_charge = number(charged, "cost_per_hour") + 0.2 * number(charged, "nodes");
    assert!((with_charge - number(charged, "charged_per_hour")).abs() < 1e-6);
    assert!(with_charge <= 1.08 * number(charged, "lower_bound") && with_charge >= number(charged, "lower_bound"));
}

#[test]
fn placements_name_every_pod_once_and_agree_with_the_fleet() {
    let Some(run) = simulate(&["--set", "A", "--placements"]) else { return };
    let placements = run["placements"].as_array().expect("asked for");
    let mut nodes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut pods: Vec<u64> = placements.iter().map(|placement| placement["pod"].as_u64().expect("a row")).collect();
    placements.iter().for_each(|placement| *nodes.entry(placement["node"].as_str().expect("a name")).or_default() += 1);
    pods.dedup();
    assert_eq!((pods.len(), Some(nodes.len() as u64)), (1088, run["nodes"].as_u64()));
    let rows = run["fleet"].as_array().expect("a fleet");
    let total: f64 = rows.iter().map(|row| number(row, "count") * number(row, "price_per_hour")).sum();
    assert!((total - number(&run, "cost_per_hour")).abs() < 1e-6);
}

#[test]
fn files_that_are_none_are_refused_with_a_hint() {
    for (pods, catalogue, word) in [("/nonexistent.parquet", "x.json", "could not read"), ("Cargo.toml", "x.json", "no Parquet file")] {
        let ran = purser(&["simulate", "packing", "--pods", pods, "--catalog", catalogue]);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(ran.stdout.is_empty() && ran.stderr.contains(word) && ran.stderr.contains("\nhint: "), "{}", ran.stderr);
    }
    let ran = purser(&["simulate", "packing", "--pods", "x", "--catalog", "y", "--node-charge", "-1"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
}
