//! The ledger on a real folder: exactly once under crashes and rivals, exact answers, nothing but questions.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::capacity::billing::is_settled;
use crate::capacity::claim::ClaimStatus;
use crate::capacity::{CapacityKind, Claim, ClaimPhase, ClaimRecord, ClaimedInstance, End, EndCause, Offer, PriceSegment, Provider};
use crate::cost::charge::{Charge, Class, Payer, Usage};
use crate::cost::report::{CostKind, Dimension, UNALLOCATED};
use crate::cost::{NotYet, PriceBook};
use crate::training::JobRef;
use crate::units::{Currency, Money, MoneyPerHour};

fn at(text: &str) -> DateTime<Utc> {
    format!("2026-03-02T{text}Z").parse().unwrap()
}

fn usd(text: &str) -> Money {
    Money::usd(text).unwrap()
}

fn offer(kind: CapacityKind) -> Offer {
    let price = MoneyPerHour::usd("3.6").unwrap();
    Offer { provider: Provider::Aws, instance_type: "g5.xlarge".into(), zone: "us-east-1a".into(), kind, price, reservation: None }
}

fn job() -> JobRef {
    JobRef { namespace: "vision".into(), name: "bert".into(), uid: "u-1".into() }
}

fn charge(experiment: &str, team: Option<&str>, window: DateTime<Utc>, amount: &str) -> Charge {
    Charge {
        payer: Payer { experiment: experiment.into(), team: team.map(str::to_owned), job: job(), attempt: 1, claim: "claim-1".into() },
        offer: offer(CapacityKind::Spot),
        resource: "i-1".into(),
        window,
        class: Class::Regular,
        from: window,
        to: window + TimeDelta::minutes(30),
        cost: usd(amount),
        usage: Some(Usage { seconds: 1800, unit_price: usd("3.6") }),
        estimated: false,
        description: "it's a test".into(),
    }
}

fn running(id: &str, from: &str) -> ClaimedInstance {
    ClaimedInstance {
        id: id.into(),
        node: None,
        launched_at: at(from) - TimeDelta::seconds(40),
        running_at: Some(at(from)),
        notice: None,
        seen_alive_at: None,
        release_asked_at: None,
        end: None,
    }
}

fn claim(name: &str, instances: Vec<ClaimedInstance>) -> Claim {
    let record = ClaimRecord {
        job: job(),
        generation: 1,
        experiment: "sweep".into(),
        team: Some("research".into()),
        attempt: 1,
        ask: 1,
        pool: "gpu".into(),
        offer: offer(CapacityKind::Spot),
        count: 1,
        decided_at: at("10:20:00"),
        nodes: Vec::new(),
        slots: Vec::new(),
        request: String::new(),
    };
    let status = ClaimStatus { phase: ClaimPhase::Granted, instances, ..ClaimStatus::default() };
    Claim { name: name.into(), uid: "c-1".into(), written_at_real: at("10:20:00"), record, status }
}

/// 3.6 an hour: a second costs 0.001.
fn prices() -> PriceBook {
    let mut prices = PriceBook::default();
    prices.record(&offer(CapacityKind::Spot), vec![PriceSegment { from: at("00:00:00"), price: MoneyPerHour::usd("3.6").unwrap() }]);
    prices
}

async fn ledger_in(folder: &tempfile::TempDir) -> Ledger {
    Ledger::open_or_create(folder.path().to_str().unwrap()).await.unwrap()
}

async fn single(ledger: &Ledger, sql: &str) -> String {
    let answer = ledger.query(sql).await.unwrap();
    assert_eq!((answer.rows.len(), answer.columns.len()), (1, 1), "{answer:?}");
    answer.rows[0][0].text()
}

#[tokio::test]
async fn every_column_of_a_charge_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger_in(&folder).await;
    ledger.commit_window(at("10:00:00"), &[charge("vision/sweep", None, at("10:00:00"), "0.123456789012345678")]).await.unwrap();
    let answer = ledger.query("SELECT * FROM charges").await.unwrap();
    let cell = |name: &str| answer.rows[0][answer.columns.iter().position(|column| column == name).unwrap()].text();
    assert_eq!(answer.columns, crate::cost::charge::COLUMNS.iter().map(|column| column.name).collect::<Vec<_>>());
    assert_eq!(cell("BilledCost"), "0.123456789012345678");
    assert_eq!(cell("PricingQuantity"), "0.5");
    assert_eq!((cell("ChargePeriodStart").as_str(), cell("BillingPeriodEnd").as_str()), ("2026-03-02T10:00:00Z", "2026-04-01T00:00:00Z"));
    assert_eq!((cell("x_Team").as_str(), cell("x_Attempt").as_str(), cell("x_Estimated").as_str()), ("", "1", "false"));
    assert_eq!(cell("x_Job"), "vision/bert");
    assert!(crate::cost::charge::COLUMNS.iter().filter(|column| !column.nullable).all(|column| !cell(column.name).is_empty()));
}

#[tokio::test]
async fn an_hour_is_written_once_and_empty_hours_stay_closed() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger_in(&folder).await;
    assert_eq!(ledger.closed_until().await.unwrap(), None);
    let rows = [charge("vision/sweep", None, at("10:00:00"), "1")];
    assert_eq!(ledger.commit_window(at("10:00:00"), &rows).await.unwrap(), Commit::Written);
    assert_eq!(ledger.commit_window(at("10:00:00"), &rows).await.unwrap(), Commit::AlreadyClosed);
    assert_eq!(ledger.commit_window(at("13:00:00"), &[]).await.unwrap(), Commit::Written);
    assert_eq!(ledger.commit_window(at("12:00:00"), &rows).await.unwrap(), Commit::AlreadyClosed);

    let reopened = ledger_in(&folder).await;
    assert_eq!(reopened.closed_until().await.unwrap(), Some(at("14:00:00")));
    assert_eq!(single(&reopened, "SELECT COUNT(*) FROM charges").await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_leaders_that_close_the_same_hours_each_hour_is_written_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let leaders: Vec<_> = (0..4)
        .map(|leader: i64| {
            let path = folder.path().to_str().unwrap().to_owned();
            tokio::spawn(async move {
                let ledger = Ledger::open_or_create(&path).await.unwrap();
                let mut written = 0;
                for hour in 0..5 {
                    let window = at("10:00:00") + TimeDelta::hours(hour);
                    let rows = if (hour + leader) % 4 == 3 { Vec::new() } else { vec![charge("vision/sweep", None, window, "1")] };
                    written += usize::from(ledger.commit_window(window, &rows).await.unwrap() == Commit::Written);
                }
                written
            })
        })
        .collect();
    let mut written = 0;
    for leader in leaders {
        written += leader.await.unwrap();
    }
    assert!(written <= 5, "{written} commits for five hours");
    let ledger = ledger_in(&folder).await;
    assert_eq!(ledger.closed_until().await.unwrap(), Some(at("15:00:00")));
    assert_eq!(single(&ledger, "SELECT COALESCE(MAX(n), 1) FROM (SELECT COUNT(*) AS n FROM charges GROUP BY x_Window)").await, "1");
}

#[tokio::test]
async fn checkpoints_and_compaction_keep_every_row_and_the_last_hour() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger_in(&folder).await;
    for hour in 0..105 {
        let window = at("00:00:00") + TimeDelta::hours(hour);
        ledger.commit_window(window, &[charge("vision/sweep", None, window, "0.000000000000000001")]).await.unwrap();
    }
    let reopened = ledger_in(&folder).await;
    assert_eq!(reopened.closed_until().await.unwrap(), Some(at("00:00:00") + TimeDelta::hours(105)));
    assert_eq!(single(&reopened, "SELECT SUM(BilledCost) FROM charges").await, "0.000000000000000105");
    let files = reopened.latest().await.unwrap().snapshot().unwrap().log_data().num_files();
    assert!(files < 20, "{files} files");
    let log: Vec<String> = std::fs::read_dir(folder.path().join("_delta_log")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(log.iter().any(|name| name.contains("checkpoint")), "{log:?}");
}

#[tokio::test]
async fn only_questions_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger_in(&folder).await;
    let outside = folder.path().join("out.csv");
    for sql in [
        "DELETE FROM charges",
        "INSERT INTO charges SELECT * FROM charges",
        "UPDATE charges SET BilledCost = 0",
        "DROP TABLE charges",
        "CREATE TABLE other AS SELECT 1",
        "CREATE EXTERNAL TABLE passwords STORED AS CSV LOCATION '/etc/passwd'",
        &format!("COPY charges TO '{}' STORED AS CSV", outside.display()),
        "SET datafusion.execution.batch_size = 1",
    ] {
        assert!(matches!(ledger.query(sql).await, Err(LedgerError::NotReadOnly { .. } | LedgerError::Query { .. })), "{sql}");
    }
    assert!(matches!(ledger.query("COPY charges TO 'x.csv' STORED AS CSV").await, Err(LedgerError::NotReadOnly { .. })));
    assert!(matches!(ledger.query("DROP TABLE charges").await, Err(LedgerError::NotReadOnly { .. })));
    assert!(ledger.query("SELECT * FROM '/etc/passwd'").await.is_err());
    assert!(ledger.query("SELECT 1; DROP TABLE charges").await.is_err());
    assert!(!outside.exists());
    assert!(ledger.query("DESCRIBE charges").await.unwrap().rows.len() > 50);
    assert_eq!(single(&ledger, "WITH c AS (SELECT 1) SELECT COUNT(*) FROM charges").await, "0");
}

#[tokio::test]
async fn a_ledger_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("nothing");
    let error = Ledger::open(missing.to_str().unwrap()).await.err().unwrap();
    assert!(matches!(error, LedgerError::NotFound { .. }), "{error:?}");
    assert!(!missing.exists(), "looking must not create");
    assert!(matches!(Ledger::open(folder.path().to_str().unwrap()).await.err().unwrap(), LedgerError::NotFound { .. }));
}

#[tokio::test]
async fn reports_sum_what_the_ledger_holds_to_the_last_digit() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger_in(&folder).await;
    let rows = [
        charge("vision/sweep", Some("research"), at("10:00:00"), "0.333333333333333333"),
        charge("vision/sweep", Some("research"), at("10:00:00"), "0.333333333333333334"),
        charge("speech/asr", None, at("10:00:00"), "2"),
    ];
    ledger.commit_window(at("10:00:00"), &rows).await.unwrap();
    let tomorrow = at("10:00:00") + TimeDelta::days(1);
    ledger.commit_window(tomorrow, &[charge("vision/sweep", Some("research"), tomorrow, "-0.25")]).await.unwrap();

    let request = |by: &[Dimension]| ReportRequest { by: by.to_vec(), cost: CostKind::Billed, from: None, to: None, currency: None };
    let shown = |report: &crate::cost::report::Report| -> Vec<String> {
        report.rows.iter().map(|row| format!("{} {}", row.values.join(" "), row.amount.decimal())).collect()
    };
    let report = ledger.report(&request(&[Dimension::Experiment, Dimension::Day])).await.unwrap();
    assert_eq!(
        shown(&report),
        ["speech/asr 2026-03-02 2", "vision/sweep 2026-03-02 0.666666666666666667", "vision/sweep 2026-03-03 -0.25"]
    );
    assert_eq!((report.total.decimal(), report.difference.decimal()), ("2.416666666666666667".into(), "0".into()));
    let report = ledger.report(&request(&[Dimension::Team])).await.unwrap();
    assert_eq!(shown(&report), ["research 0.416666666666666667".to_owned(), format!("{UNALLOCATED} 2")]);
    let bounded = ReportRequest { from: Some(tomorrow), to: Some(tomorrow + TimeDelta::hours(1)), ..request(&[Dimension::CapacityKind]) };
    assert_eq!(shown(&ledger.report(&bounded).await.unwrap()), ["spot -0.25"]);
    let nothing = ReportRequest { from: Some(at("23:00:00")), to: Some(at("23:30:00")), ..request(&[Dimension::Job]) };
    assert_eq!(ledger.report(&nothing).await.unwrap().total, Money::ZERO_USD);
    let euros = ReportRequest { currency: Some("EUR".parse().unwrap()), ..request(&[]) };
    assert_eq!(ledger.report(&euros).await.unwrap().total, Money::zero("EUR".parse().unwrap()));

    let sums = ledger.sums().await.unwrap();
    assert_eq!(sums.by_experiment["vision/sweep"], usd("0.416666666666666667"));
    assert_eq!(sums.by_claim["claim-1"], usd("2.416666666666666667"));
    assert_eq!(sums.by_team_and_month[&("research".to_owned(), "2026-03-01T00:00:00Z".parse().unwrap())], usd("0.416666666666666667"));
    assert!(std::sync::Arc::ptr_eq(&sums, &ledger.sums().await.unwrap()), "unchanged tables are not summed again");
}

#[tokio::test]
async fn currencies_are_never_added() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger_in(&folder).await;
    let mut yuan = charge("vision/sweep", None, at("10:00:00"), "7");
    yuan.cost = Money::parse("7", "CNY".parse().unwrap()).unwrap();
    ledger.commit_window(at("10:00:00"), &[charge("vision/sweep", None, at("10:00:00"), "1"), yuan]).await.unwrap();
    let request = ReportRequest { by: vec![Dimension::Experiment], cost: CostKind::List, from: None, to: None, currency: None };
    let error = ledger.report(&request).await.unwrap_err();
    assert!(error.to_string().contains("CNY, USD"), "{error}");
    let dollars = ReportRequest { currency: Some(Currency::USD), ..request };
    assert_eq!(ledger.report(&dollars).await.unwrap().total, usd("1"));
}

/// Stops the process (here: the task) at the n-th effect.
fn dies_at(effect: usize) -> impl Fn(&str) + Sync {
    let count = AtomicUsize::new(0);
    move |name| {
        if count.fetch_add(1, Ordering::SeqCst) == effect {
            std::panic::resume_unwind(Box::new(format!("killed at {name}")));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hours_are_billed_once_wherever_the_process_dies() {
    let mut short = running("i-1", "10:59:50");
    short.end = Some(End { at: at("10:59:55"), cause: EndCause::Terminated, estimated: false });
    let mut free = running("i-2", "11:30:00");
    free.end = Some(End { at: at("12:20:00"), cause: EndCause::Interrupted, estimated: false });
    let mut long = running("i-3", "10:30:00");
    long.end = Some(End { at: at("15:00:00"), cause: EndCause::Interrupted, estimated: false });
    let claims = vec![claim("claim-1", vec![short, free]), claim("claim-2", vec![long])];

    for dying in 0..12 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap().to_owned();
        let (first_claims, first_path) = (claims.clone(), path.clone());
        let first = tokio::spawn(async move {
            let ledger = Ledger::open_or_create(&first_path).await.unwrap();
            close_windows(&ledger, &first_claims, &prices(), at("17:30:00"), TimeDelta::minutes(10), &dies_at(dying)).await.map(|_| ())
        });
        let _killed = first.await;

        let ledger = Ledger::open_or_create(&path).await.unwrap();
        let closed = close_windows(&ledger, &claims, &prices(), at("17:30:00"), TimeDelta::minutes(10), &|_| ()).await.unwrap();
        assert_eq!(closed.until, Some(at("17:00:00")));
        assert_eq!(closed.waits, Some(NotYet::Open { ends: at("18:00:00") }));
        // A minute at least for the first, nothing for the second, four and a half hours for the third.
        assert_eq!(single(&ledger, "SELECT SUM(BilledCost) FROM charges").await, "16.26", "killed at effect {dying}");
        assert_eq!(closed.claims["claim-2"].amount, usd("16.2"));
        let mut settled = claims[1].clone();
        settled.status.metered_until = Some(closed.claims["claim-2"].until);
        assert!(is_settled(&settled));

        let again = close_windows(&ledger, &claims, &prices(), at("17:30:00"), TimeDelta::minutes(10), &|_| ()).await.unwrap();
        assert_eq!(again.windows, []);
    }
}

#[tokio::test]
async fn an_end_that_comes_late_mends_a_closed_hour_in_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger_in(&folder).await;
    let mut claims = vec![claim("claim-1", vec![running("i-1", "10:30:00")])];
    let close = async |claims: &[Claim], now: &str| close_windows(&ledger, claims, &prices(), at(now), TimeDelta::minutes(10), &|_| ()).await.unwrap();

    assert!(matches!(close(&claims, "11:05:00").await.waits, Some(NotYet::NotSeen { .. })));
    claims[0].status.instances[0].seen_alive_at = Some(at("11:00:00"));
    let closed = close(&claims, "11:05:00").await;
    assert_eq!((closed.windows.len(), closed.claims["claim-1"].clone().amount), (1, usd("1.8")));

    claims[0].status.instances[0].end = Some(End { at: at("10:45:00"), cause: EndCause::Terminated, estimated: false });
    close(&claims, "12:00:00").await;
    let mended = ledger.query("SELECT BilledCost, ChargeClass, x_Corrects, x_Window FROM charges WHERE ChargeClass IS NOT NULL").await.unwrap();
    let cells: Vec<String> = mended.rows[0].iter().map(Cell::text).collect();
    assert_eq!(cells, ["-0.9", "Correction", "2026-03-02T10:00:00Z", "2026-03-02T11:00:00Z"]);
    assert_eq!(single(&ledger, "SELECT SUM(BilledCost) FROM charges").await, "0.9");
}

/// Needs an S3 endpoint in AWS_ENDPOINT_URL_S3 and a bucket that exists, for example moto's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_s3_of_two_leaders_one_writes_the_hour() {
    let Ok(bucket) = std::env::var("PURSER_TEST_S3_BUCKET") else {
        println!("skipped: PURSER_TEST_S3_BUCKET is not set");
        return;
    };
    let location = format!("s3://{bucket}/ledger-{}", std::process::id());
    let (one, other) = (Ledger::open_or_create(&location).await.unwrap(), Ledger::open_or_create(&location).await.unwrap());
    let rows = [charge("vision/sweep", None, at("10:00:00"), "0.333333333333333333")];
    let (left, right) = tokio::join!(one.commit_window(at("10:00:00"), &rows), other.commit_window(at("10:00:00"), &rows));
    let mut outcomes = [left.unwrap(), right.unwrap()];
    outcomes.sort_by_key(|commit| *commit == Commit::AlreadyClosed);
    assert_eq!(outcomes, [Commit::Written, Commit::AlreadyClosed]);
    assert_eq!(single(&other, "SELECT SUM(BilledCost) FROM charges").await, "0.333333333333333333");
}
