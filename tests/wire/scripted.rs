//! Answers that no emulator gives: an HTTP 500 which is a refusal, an answer that is lost, a role that may not look.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use chrono::Utc;
use purser::capacity::{CapacityKind, InstanceRequirements, Offer, PriceSource, Provider, RefusalCode};
use purser::cloud::aws::Aws;
use purser::cloud::{Cloud, LaunchRequest, PoolConfig, Retry};
use purser::training::JobRef;
use purser::units::MoneyPerHour;

/// The answer to `CreateFleet`, and the tokens that came with it.
#[derive(Default)]
struct Script {
    fleet: Answer,
    tokens: Vec<String>,
}

/// Status, code and how often it is given before the fleet is; empty gives the fleet at once.
#[derive(Clone, Default)]
struct Answer {
    status: u16,
    code: &'static str,
    times: usize,
}

type Shared = Arc<Mutex<Script>>;

pub async fn run(address: SocketAddr) {
    let script = Shared::default();
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let server = Router::new().fallback(answer).with_state(Arc::clone(&script));
    tokio::spawn(async move { axum::serve(listener, server).await });
    let aws = Aws::new(Arc::new(Utc::now));

    // A refusal ends the SDK's retries.
    let tokens = set(&script, 500, "InsufficientInstanceCapacity", usize::MAX);
    let refused = aws.launch(&request(), "token-1").await.unwrap();
    assert_eq!(refused.refusal.map(|refusal| refusal.code), Some(RefusalCode::NoCapacity));
    assert_eq!(tokens(), ["token-1"], "asked once");

    // An HTTP 500 that says nothing of the outcome is repeated with the same token, and then nobody knows.
    let tokens = set(&script, 500, "InternalError", usize::MAX);
    assert_eq!(aws.launch(&request(), "token-2").await.unwrap_err().retry, Retry::Same);
    assert_eq!(tokens(), ["token-2"; 3]);

    // Throttling that passes is not seen by the caller.
    let tokens = set(&script, 503, "RequestLimitExceeded", 1);
    let launched = aws.launch(&request(), "token-3").await.unwrap();
    assert_eq!((launched.instances.len(), launched.refusal), (1, None));
    assert_eq!(tokens(), ["token-3"; 2]);

    // Credentials that are wrong are no refusal: once they are right the same request goes through.
    let tokens = set(&script, 401, "AuthFailure", usize::MAX);
    let error = aws.launch(&request(), "token-4").await.unwrap_err();
    assert_eq!(error.retry, Retry::Never);
    assert!(error.to_string().contains("AuthFailure") && error.source.is_some(), "{error}");
    assert_eq!(tokens(), ["token-4"]);

    // An answer that is no answer: short words for people, the whole of it for the log.
    let tokens = set(&script, 200, "", usize::MAX);
    let error = aws.launch(&request(), "token-5").await.unwrap_err();
    assert_eq!(error.retry, Retry::Same);
    assert!(error.to_string().len() < 600 && error.source.is_some(), "{error}");
    assert!(tokens().iter().all(|token| token == "token-5"));

    // What the role may not read is unknown, and said.
    let quote = aws.quote(&request().config).await.unwrap();
    assert_eq!(quote.offers.len(), 2, "{:?}", quote.offers);
    assert!(quote.offers.iter().all(|quoted| quoted.available_max.is_none()));
    assert_eq!(quote.source, PriceSource::Catalogue { as_of: "2026-07-20".into() });
    for unknown in ["list prices are not known: AccessDeniedException", "capacity reservations are not known: UnauthorizedOperation", "vCPU quotas are not known: AccessDeniedException"] {
        assert!(quote.warnings.iter().any(|warning| warning.contains(unknown)), "{unknown}: {:?}", quote.warnings);
    }
}

/// Sets the answer to the next launches; what is given back tells the tokens that came since.
fn set(script: &Shared, status: u16, code: &'static str, times: usize) -> impl Fn() -> Vec<String> {
    *script.lock().unwrap() = Script { fleet: Answer { status, code, times }, tokens: Vec::new() };
    let script = Arc::clone(script);
    move || script.lock().unwrap().tokens.clone()
}

async fn answer(State(script): State<Shared>, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    if headers.contains_key("x-amz-target") {
        return (StatusCode::BAD_REQUEST, r#"{"__type": "AccessDeniedException", "message": "not authorized"}"#.to_owned());
    }
    let params: BTreeMap<String, String> = form_urlencoded::parse(&body).into_owned().collect();
    let found = |body: &str| found(&params["Action"], body);
    match params["Action"].as_str() {
        "CreateFleet" => fleet(&mut script.lock().unwrap(), &params["ClientToken"]),
        "DescribeImages" => found("<imagesSet><item><imageId>ami-01234567</imageId><rootDeviceName>/dev/xvda</rootDeviceName></item></imagesSet>"),
        "CreateLaunchTemplate" => found("<launchTemplate><launchTemplateId>lt-1</launchTemplateId></launchTemplate>"),
        "DescribeInstanceTypes" => found(
            "<instanceTypeSet><item><instanceType>g5.xlarge</instanceType><vCpuInfo><defaultVCpus>4</defaultVCpus></vCpuInfo><memoryInfo><sizeInMiB>16384</sizeInMiB></memoryInfo>\
             <processorInfo><supportedArchitectures><item>x86_64</item></supportedArchitectures></processorInfo></item></instanceTypeSet>",
        ),
        "DescribeSpotPriceHistory" => found(
            "<spotPriceHistorySet><item><instanceType>g5.xlarge</instanceType><availabilityZone>us-east-1a</availabilityZone><spotPrice>0.4</spotPrice>\
             <timestamp>2026-11-24T00:00:00Z</timestamp></item></spotPriceHistorySet><nextToken></nextToken>",
        ),
        _ => refused(403, "UnauthorizedOperation"),
    }
}

fn fleet(script: &mut Script, token: &str) -> (StatusCode, String) {
    script.tokens.push(token.to_owned());
    match script.tokens.len() <= script.fleet.times {
        true => refused(script.fleet.status, script.fleet.code),
        false => found("CreateFleet", "<fleetId>fleet-1</fleetId><fleetInstanceSet><item><instanceIds><item>i-1</item></instanceIds></item></fleetInstanceSet>"),
    }
}

fn found(action: &str, body: &str) -> (StatusCode, String) {
    (StatusCode::OK, format!("<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">{body}</{action}Response>"))
}

fn refused(status: u16, code: &str) -> (StatusCode, String) {
    (StatusCode::from_u16(status).unwrap(), format!("<Response><Errors><Error><Code>{code}</Code><Message>scripted</Message></Error></Errors><RequestID>1</RequestID></Response>"))
}

fn request() -> LaunchRequest {
    let config = PoolConfig {
        pool: "gpu".into(),
        cluster_id: "wire-test".into(),
        region: "us-east-1".into(),
        requirements: InstanceRequirements::default(),
        subnets: BTreeMap::from([("us-east-1a".into(), "subnet-01234567".into())]),
        ami: "ami-01234567".into(),
        instance_profile: None,
        security_groups: Vec::new(),
        kms_key: None,
        volume_gib: 50,
        user_data: None,
        interruption_queue: None,
        tags: BTreeMap::new(),
    };
    let offer = Offer {
        provider: Provider::Aws,
        instance_type: "g5.xlarge".into(),
        zone: "us-east-1a".into(),
        kind: CapacityKind::Spot,
        price: MoneyPerHour::usd("0.4").unwrap(),
        reservation: None,
    };
    let job = JobRef { namespace: "ml".into(), name: "bert".into(), uid: "uid-1".into() };
    LaunchRequest { config, offer, count: 1, claim: "claim-1".into(), job, attempt: 1 }
}
