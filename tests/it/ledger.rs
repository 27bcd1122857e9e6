//! `purser report` and `purser ledger query` over a ledger that metering filled, as finance sees them.

use std::process::{Command, Output};

use chrono::{DateTime, TimeDelta, Utc};
use purser::capacity::claim::ClaimStatus;
use purser::capacity::{CapacityKind, Claim, ClaimPhase, ClaimRecord, ClaimedInstance, End, EndCause, Offer, PriceSegment, Provider};
use purser::cost::PriceBook;
use purser::ledger::{Ledger, close_windows};
use purser::training::JobRef;
use purser::units::MoneyPerHour;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

fn offer(kind: CapacityKind, usd: &str) -> Offer {
    Offer {
        provider: Provider::Aws,
        instance_type: "g5.xlarge".into(),
        zone: "us-east-1a".into(),
        kind,
        price: MoneyPerHour::usd(usd).expect("a price"),
        reservation: (kind == CapacityKind::Reserved).then(|| "cr-0123".to_owned()),
    }
}

fn claim(name: &str, experiment: &str, team: Option<&str>, offer: Offer, running: &str, end: (&str, EndCause)) -> Claim {
    let instance = ClaimedInstance {
        id: format!("i-{name}"),
        node: None,
        launched_at: at(running) - TimeDelta::seconds(45),
        running_at: Some(at(running)),
        notice: None,
        seen_alive_at: None,
        release_asked_at: None,
        end: Some(End { at: at(end.0), cause: end.1, estimated: false }),
    };
    let record = ClaimRecord {
        job: JobRef { namespace: "vision".into(), name: format!("train-{name}"), uid: format!("uid-{name}") },
        generation: 1,
        experiment: experiment.into(),
        team: team.map(str::to_owned),
        attempt: 1,
        ask: 1,
        pool: "gpu".into(),
        offer,
        count: 1,
        decided_at: at(running) - TimeDelta::minutes(2),
        nodes: Vec::new(),
        slots: Vec::new(),
        request: String::new(),
    };
    let status = ClaimStatus { phase: ClaimPhase::Ended, instances: vec![instance], ..ClaimStatus::default() };
    Claim { name: name.into(), uid: format!("claim-uid-{name}"), written_at_real: at(running), record, status }
}

/// Two days, four kinds of charge: spot over midnight, on demand, reserved, and a free first hour.
async fn fill(folder: &str) {
    let spot = || offer(CapacityKind::Spot, "0.35");
    let claims = [
        claim("a", "resnet", Some("research"), spot(), "2026-11-23T22:10:00Z", ("2026-11-24T01:40:07Z", EndCause::Interrupted)),
        claim("b", "resnet", Some("research"), offer(CapacityKind::OnDemand, "1.006"), "2026-11-24T01:50:11Z", ("2026-11-24T03:20:00Z", EndCause::Terminated)),
        claim("c", "ablation", None, offer(CapacityKind::Reserved, "1.006"), "2026-11-24T00:00:00Z", ("2026-11-24T02:00:00Z", EndCause::Terminated)),
        claim("d", "ablation", None, spot(), "2026-11-24T02:00:00Z", ("2026-11-24T02:00:05Z", EndCause::Terminated)),
        claim("e", "ablation", None, spot(), "2026-11-24T02:30:00Z", ("2026-11-24T03:29:59Z", EndCause::Interrupted)),
    ];
    let mut prices = PriceBook::default();
    let segment = |from: &str, usd: &str| PriceSegment { from: at(from), price: MoneyPerHour::usd(usd).expect("a price") };
    prices.record(&spot(), vec![segment("2026-11-23T00:00:00Z", "0.3517"), segment("2026-11-24T00:20:00Z", "0.4021")]);
    let ledger = Ledger::open_or_create(folder).await.expect("a ledger");
    let closed = close_windows(&ledger, &claims, &prices, at("2026-11-24T06:00:00Z"), TimeDelta::minutes(10), &|_| ()).await.expect("closed hours");
    assert_eq!(closed.until, Some(at("2026-11-24T06:00:00Z")));
}

fn purser(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_purser")).args(arguments).env_remove("PURSER_LEDGER").output().expect("purser runs")
}

fn stdout(arguments: &[&str]) -> String {
    let output = purser(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The same total in three forms; every expected number is computed by hand:
///
/// a: 22:10–24:00 6600 s and 00:00–00:20 1200 s at 0.3517: 7800 × 0.3517 / 3600 = 0.762016666…;
///    00:20–01:40:07 4807 s at 0.4021: in 2400 s, 2407 s: 0.268066666…, 0.268848527…
/// b: 01:50:11–02:00 589 s, 3600 s, 1200 s at 1.006. c: already paid. d: a minute at 0.4021 / 60. e: free.
#[tokio::test(flavor = "multi_thread")]
async fn a_filled_ledger_is_reported_in_every_form() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = folder.path().to_str().expect("a path");
    fill(ledger).await;

    assert_eq!(
        stdout(&["report", "--ledger", ledger, "--by", "experiment,capacity-kind"]),
        "EXPERIMENT       CAPACITY-KIND  BILLED (USD)\n\
         vision/resnet    on-demand              1.50\n\
         vision/resnet    spot                   1.30\n\
         vision/ablation  spot                   0.01\n\
         vision/ablation  reserved               0.00\n\
         ---------------  -------------  ------------\n\
         total                                   2.81\n"
    );
    let json: serde_json::Value = serde_json::from_str(&stdout(&["report", "--ledger", ledger, "--by", "day,team", "--output", "json"])).expect("JSON");
    assert_eq!(json["difference"], "0");
    assert_eq!(json["total"], json["bill_total"]);
    assert_eq!(json["rows"][0], serde_json::json!({"day": "2026-11-23", "team": "research", "amount": "0.644783333333333333"}));
    let csv = stdout(&["report", "--ledger", ledger, "--by", "job", "--from", "2026-11-24", "--output", "csv"]);
    assert!(csv.starts_with("job,amount,currency\nvision/train-b,"), "{csv}");

    let query = ["ledger", "query", "SELECT x_Claim, SUM(BilledCost) AS cost FROM charges GROUP BY x_Claim ORDER BY x_Claim", "--ledger", ledger, "--output"];
    let rows = stdout(&[&query[..], &["json"]].concat());
    let rows: serde_json::Value = serde_json::from_str(&rows).expect("JSON");
    assert_eq!(rows[3], serde_json::json!({"x_Claim": "d", "cost": "0.006701666666666667"}));
    assert_eq!(rows.as_array().map(Vec::len), Some(4), "what was free has no row: {rows}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_refused_with_a_hint() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = folder.path().to_str().expect("a path");
    let refused = |arguments: &[&str], code: i32, words: &[&str]| {
        let output = purser(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(output.stdout.is_empty());
        assert!(words.iter().all(|word| stderr.contains(word)), "{stderr}");
    };
    refused(&["report", "--ledger", ledger], 1, &["there is no ledger at", "hint:"]);
    fill(ledger).await;
    refused(&["ledger", "query", "DELETE FROM charges", "--ledger", ledger], 2, &["only questions", "hint:"]);
    refused(&["ledger", "query", "SELECT cost FROM charges", "--ledger", ledger], 1, &["could not answer", "DESCRIBE charges"]);
    refused(&["report", "--ledger", ledger, "--by", "sweep"], 2, &["is no dimension", "capacity-kind"]);
    refused(&["report", "--ledger", ledger, "--from", "2026-11-25", "--to", "2026-11-23"], 2, &["before it begins"]);
}
