//! `purser simulate training` on a market of two zones, written here.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::Value;

use super::run::{Ran, purser};

const COLUMNS: &str = "kind,nodes,trace,zone,device,gap_s,start_tick,ticks,value";
const PRICE_COLUMNS: &str = "trace,zone,device,gap_s,start_tick,ticks,spot_usd_h,on_demand_usd_h";

/// A folder of its own, gone with it.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Files {
        let files = Files { folder: tempfile::tempdir().unwrap() };
        let mut traces = format!("{COLUMNS}\n");
        let mut prices = format!("{PRICE_COLUMNS}\n");
        for (zone, price) in [("us-east-1a", 2), ("us-west-2b", 3)] {
            for (turn, start) in (0..432).step_by(18).enumerate() {
                // West has what east has not; every fourth spell is for a gang of two.
                let size = if turn % 4 == 0 { 2 } else { 1 };
                let (first, then) = if zone == "us-east-1a" { (size, 0) } else { (0, size) };
                let _ = write!(traces, "availability,2-node,t,{zone},v100_1,900,{start},11,{first}\navailability,2-node,t,{zone},v100_1,900,{},7,{then}\n", start + 11);
            }
            let _ = write!(prices, "t,{zone},v100_1,900,0,200,{price},9\nt,{zone},v100_1,900,200,232,{price}.5,9\n");
        }
        files.write("traces.csv", &traces);
        files.write("prices.csv", &prices);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn simulate(&self, more: &[&str]) -> Ran {
        let traces = self.path("traces.csv");
        purser(&[&["simulate", "training", "--traces", traces.to_str().unwrap()], more].concat())
    }

    fn priced(&self, more: &[&str]) -> Ran {
        let prices = self.path("prices.csv");
        self.simulate(&[&["--prices", prices.to_str().unwrap()], more].concat())
    }
}

fn json(ran: &Ran) -> Value {
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).expect("JSON alone is on stdout")
}

#[test]
fn rows_and_means_have_the_agreed_names() {
    let told = json(&Files::new().simulate(&["--starts", "3", "--output", "json"]));
    let rows = told["rows"].as_array().unwrap();
    let policies: Vec<&String> = told["policies"].as_object().unwrap().keys().collect();
    assert_eq!(rows.len(), 15 * policies.len(), "five job fractions, three overheads");
    for name in ["on-demand", "greedy", "time-sliced", "uniform-progress", "optimal"] {
        let mean = &told["policies"][name];
        assert_eq!((mean["deadline_misses"].as_i64(), mean["runs"].as_i64()), (Some(0), Some(90)), "{name}: two zones, three starts");
        let ratios = rows.iter().filter(|row| row["policy"] == name).map(|row| row["cost_ratio_to_optimal"].as_f64().unwrap());
        let expected = ratios.sum::<f64>() / 15.0;
        assert!((mean["mean_cost_ratio_to_optimal"].as_f64().unwrap() - expected).abs() < 1e-9, "{name}");
        assert!(expected > 0.999_999, "{name}: nobody beats who knows the future");
    }
    for key in ["group", "policy", "job_fraction", "restart_overhead_s", "runs", "cost_ratio_to_optimal", "cost_ratio_to_on_demand", "deadline_misses", "interruptions"] {
        assert!(rows.iter().all(|row| !row[key].is_null()), "{key}");
    }
}

#[test]
fn only_what_is_asked_for_is_played() {
    let files = Files::new();
    let one = ["--starts", "2", "--zones", "multi", "--policy", "greedy", "--policy", "optimal", "--job-fraction", "0.8", "--restart-overhead", "360"];
    let told = json(&files.simulate(&[&one[..], &["--output", "json"]].concat()));
    let rows: Vec<(&str, &str)> = told["rows"].as_array().unwrap().iter().map(|row| (row["group"].as_str().unwrap(), row["policy"].as_str().unwrap())).collect();
    assert_eq!(rows, [("availability/2-node/t/v100_1/all", "greedy"), ("availability/2-node/t/v100_1/all", "optimal")]);
    let csv = files.simulate(&[&one[..], &["--output", "csv"]].concat());
    let greedy = told["rows"][0]["cost_ratio_to_optimal"].to_string();
    assert!(csv.stdout.lines().nth(1).is_some_and(|line| line.contains(&greedy)), "{}", csv.stdout);
}

#[test]
fn wrong_durations_are_told_apart_from_avoidable_misses() {
    let told = json(&Files::new().simulate(&["--starts", "5", "--duration-error", "0.3", "--job-fraction", "0.9", "--restart-overhead", "720", "--output", "json"]));
    let on_demand = &told["policies"]["on-demand"];
    assert_eq!(on_demand["deadline_misses"], 4, "two of five starts, in two zones, have 1.15 and 1.3 times the work of a job that needs 0.9 of its time");
    for (name, mean) in told["policies"].as_object().unwrap() {
        assert_eq!(mean["avoidable_misses"], 0, "{name}");
    }
}

#[test]
fn prices_make_gangs_and_dollars() {
    let files = Files::new();
    let told = json(&files.priced(&["--starts", "2", "--job-fraction", "0.7", "--restart-overhead", "360", "--output", "json"]));
    let mut groups: Vec<&str> = told["rows"].as_array().unwrap().iter().map(|row| row["group"].as_str().unwrap()).collect();
    groups.dedup();
    assert_eq!(groups, ["availability/2-node/t/v100_1/all/gang-1", "availability/2-node/t/v100_1/all/gang-2"]);
    let near = json(&files.priced(&["--starts", "2", "--policy", "optimal", "--data", "0", "--output", "json"]));
    let far = json(&files.priced(&["--starts", "2", "--policy", "optimal", "--data", "5000", "--output", "json"]));
    let cost = |told: &Value| told["policies"]["optimal"]["mean_cost_ratio_to_on_demand"].as_f64().unwrap();
    assert!(cost(&near) < cost(&far), "moving data costs");
}

#[test]
fn a_life_is_drawn() {
    let files = Files::new();
    let plot = files.path("life.svg");
    let ran = files.simulate(&["--starts", "2", "--job-fraction", "0.8", "--restart-overhead", "360", "--plot", plot.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let svg = std::fs::read_to_string(plot).unwrap();
    for word in ["us-east-1a", "greedy", "uniform-progress", "optimal", "deadline", "hours since the job was submitted", "even progress", "× optimum"] {
        assert!(svg.contains(word), "{word}");
    }
}

#[test]
fn bad_input_is_told_what_is_wrong_and_what_to_do() {
    let files = Files::new();
    let says = |ran: Ran, words: &[&str]| {
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{}", ran.stderr);
        for word in words {
            assert!(ran.stderr.contains(word), "{word:?} is missing in {}", ran.stderr);
        }
    };
    says(files.simulate(&["--policy", "best"]), &["no policy is called \"best\"", "uniform-progress"]);
    says(files.simulate(&["--job-fraction", "1.5"]), &["above 0 and up to 1"]);
    says(files.simulate(&["--duration-error", "1"]), &["from 0 to below 1"]);
    says(files.simulate(&["--group", "nowhere"]), &["no group's name holds \"nowhere\"", "hint: there are availability/2-node/t"]);
    says(files.simulate(&["--plot", "x.svg", "--plot-run", "99"]), &["there is no run 99", "hint:"]);
    says(files.simulate(&["--data", "5"]), &["--prices"]);
    says(purser(&["simulate", "training", "--traces", "/nonexistent.csv"]), &["cannot read /nonexistent.csv", "hint:"]);
    files.write("traces.csv", &format!("{COLUMNS}\navailability,1-node,t,us-east-1a,v100_1,900,0,5,1\navailability,1-node,t,us-east-1a,v100_1,900,6,5,1\n"));
    says(files.simulate(&[]), &["line 3", "jumps to tick 6 where tick 5 should follow", "hint: its columns are"]);
    files.write("traces.csv", &format!("{COLUMNS}\navailability,1-node,t,us-east-1a,v100_1,900,0,500,1\n"));
    says(files.simulate(&["--zones", "multi"]), &["no two zones of one trace and device", "--zones single"]);
    files.write("traces.csv", &format!("{COLUMNS}\navailability,1-node,t,us-east-1a,v100_1,900,0,500,1\navailability,1-node,t,us-east-1b,v100_1,600,0,500,1\n"));
    says(files.simulate(&["--zones", "multi"]), &["us-east-1a has ticks of 900 s and us-east-1b of 600 s", "hint:"]);
    files.write("traces.csv", &format!("{COLUMNS}\navailability,1-node,t,us-east-1a,v100_1,900,0,500,1\n"));
    files.write("prices.csv", &format!("{PRICE_COLUMNS}\nt,us-east-1a,v100_1,900,0,200,cheap,9\n"));
    says(files.priced(&[]), &["--prices", "line 2: column spot_usd_h is \"cheap\""]);
    files.write("prices.csv", &format!("{PRICE_COLUMNS}\nother,us-east-1a,v100_1,900,0,200,1,9\n"));
    says(files.priced(&["--zones", "single"]), &["no series", "has a price", "hint: trace, zone and device must be the same"]);
}
