//! The HTTP endpoint: finds out which service a call is for, and puts its answer into that service's protocol.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use chrono::Utc;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::protocol::{AwsError, Params, escaped};
use super::{Twin, ec2, ledger, pricing, quotas, sqs, sts};

/// Larger than any part of a multipart upload that SDKs send by themselves.
const BODY_BYTES_MAX: usize = 512 << 20;

/// Serves until `stop` ends; calls that are under way then get a second to finish.
pub async fn serve(twin: Arc<Twin>, listener: TcpListener, stop: impl Future<Output = ()>) -> std::io::Result<()> {
    let stopping = Arc::new(tokio::sync::Notify::new());
    let told = stopping.clone();
    let server = axum::serve(listener, router(twin.clone())).with_graceful_shutdown(async move { told.notified().await });
    let end = async {
        stop.await;
        stopping.notify_one();
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    tokio::select! {
        result = async { server.await } => result,
        () = end => Ok(()),
        () = twin.run_market() => Ok(()),
    }
}

fn router(twin: Arc<Twin>) -> Router {
    Router::new()
        .route("/purser/clock", get(clock))
        .route("/purser/ledger", get(read_ledger))
        .route("/purser/events", get(events))
        .fallback(dispatch)
        .with_state(twin)
}

async fn clock(State(twin): State<Arc<Twin>>) -> Json<Value> {
    Json(twin.with(|world| {
        let mut clock = json!(world.clock);
        clock["marketNow"] = json!(world.now());
        clock
    }))
}

async fn read_ledger(State(twin): State<Arc<Twin>>) -> Json<ledger::Ledger> {
    Json(twin.with(|world| ledger::ledger(world.entries(), world.now())))
}

/// Everything that happened, as it is in the journal.
async fn events(State(twin): State<Arc<Twin>>) -> Json<Value> {
    Json(twin.with(|world| json!(world.entries())))
}

async fn dispatch(State(twin): State<Arc<Twin>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        return (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large for the twin").into_response();
    };
    if let Some(target) = parts.headers.get("x-amz-target").and_then(|value| value.to_str().ok()) {
        return json_call(&twin, target, &parts, &body).await;
    }
    let in_query = Params::parse(parts.uri.query().unwrap_or_default().as_bytes());
    let params = if parts.method == Method::POST && is_form(&parts.headers) { Params::parse(&body) } else { in_query };
    match params.text("Action") {
        Some(action) => query_call(&twin, action, &params, &parts.headers),
        None => object_call(&twin, &parts, body),
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    headers.get("content-type").and_then(|value| value.to_str().ok()).is_some_and(|text| text.starts_with("application/x-www-form-urlencoded"))
}

fn query_call(twin: &Twin, action: &str, params: &Params, headers: &HeaderMap) -> Response {
    if params.text("Version") == Some("2011-06-15") {
        return match sts::answer(action, params) {
            Ok(body) => xml(StatusCode::OK, body),
            Err(error) => xml(status(&error), format!("<ErrorResponse><Error><Type>Sender</Type>{}</Error></ErrorResponse>", code_and_message(&error))),
        };
    }
    let answer = twin.with(|world| {
        let first = world.fleet.market().regions().first().copied().unwrap_or("us-east-1").to_owned();
        let region = signed_region(headers).unwrap_or(first);
        if !world.admits_call(Utc::now()) {
            return Err(AwsError::new(503, "RequestLimitExceeded", "Request limit exceeded."));
        }
        ec2::answer(world, &ec2::Call { action, region: &region, params })
    });
    match answer {
        Ok(body) => xml(StatusCode::OK, body),
        Err(error) => {
            tracing::info!(action, code = error.code, message = error.message, "refused");
            let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error>{}</Error></Errors><RequestID>00000000-0000-0000-0000-000000000000</RequestID></Response>", code_and_message(&error));
            xml(status(&error), body)
        }
    }
}

async fn json_call(twin: &Twin, target: &str, parts: &Parts, body: &Bytes) -> Response {
    let (service, operation) = target.split_once('.').unwrap_or((target, ""));
    let request = if body.is_empty() { Ok(json!({})) } else { serde_json::from_slice::<Value>(body) };
    let Ok(request) = request else { return json_error(&AwsError::client("SerializationException", "the body is not JSON")) };
    let host = parts.headers.get("host").and_then(|value| value.to_str().ok()).unwrap_or("127.0.0.1");
    let answer = match service {
        "AmazonSQS" => sqs::answer(twin, operation, host, &request).await,
        "AWSPriceListService" => twin.with(|world| pricing::answer(world, operation, &request)),
        "ServiceQuotasV20190624" => {
            let region = signed_region(&parts.headers).unwrap_or_else(|| "us-east-1".into());
            twin.with(|world| quotas::answer(world, operation, &region, &request))
        }
        other => Err(AwsError::client("UnknownOperationException", format!("The twin does not know the service {other}; it plays EC2, SQS, STS, S3, pricing and quotas"))),
    };
    match answer {
        Ok(body) => json_answer(StatusCode::OK, &body, None),
        Err(error) => json_error(&error),
    }
}

fn object_call(twin: &Twin, parts: &Parts, body: Bytes) -> Response {
    let (status, headers, body) = match twin.objects.answer(parts, body) {
        Ok(answer) => (answer.status, answer.headers, answer.body),
        Err(error) => {
            let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>{}</Error>", code_and_message(&error));
            (error.status, vec![("content-type", "application/xml".to_owned())], if parts.method == Method::HEAD { Bytes::new() } else { body.into() })
        }
    };
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(Body::from(body)).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

fn json_error(error: &AwsError) -> Response {
    let query_error = format!("{};{}", error.code, if error.status < 500 { "Sender" } else { "Receiver" });
    let kind = if error.code == "AWS.SimpleQueueService.NonExistentQueue" { "com.amazonaws.sqs#QueueDoesNotExist" } else { &error.code };
    json_answer(status(error), &json!({"__type": kind, "message": error.message}), Some(&query_error))
}

fn json_answer(status: StatusCode, body: &Value, query_error: Option<&str>) -> Response {
    let mut response = (status, [("content-type", "application/x-amz-json-1.1")], body.to_string()).into_response();
    if let Some(value) = query_error.and_then(|text| text.parse().ok()) {
        response.headers_mut().insert("x-amzn-query-error", value);
    }
    response
}

fn xml(status: StatusCode, body: String) -> Response {
    (status, [("content-type", "text/xml;charset=UTF-8")], body).into_response()
}

fn status(error: &AwsError) -> StatusCode {
    StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn code_and_message(error: &AwsError) -> String {
    format!("<Code>{}</Code><Message>{}</Message>", escaped(&error.code), escaped(&error.message))
}

/// `Credential=KEY/DATE/REGION/SERVICE/aws4_request` in the signature, which nobody verifies.
fn signed_region(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("authorization")?.to_str().ok()?;
    let scope = text.split("Credential=").nth(1)?.split([',', ' ']).next()?;
    scope.split('/').nth(2).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt;

    use super::*;
    use crate::twin::{MarketSource, Settings};

    fn twin(settings: Settings) -> Arc<Twin> {
        Twin::open(settings).unwrap()
    }

    async fn call(twin: &Arc<Twin>, request: axum::http::request::Builder, body: &str) -> (u16, String) {
        let response = router(twin.clone()).oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), BODY_BYTES_MAX).await.unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn ec2(twin: &Arc<Twin>, form: &str) -> (u16, String) {
        let request = axum::http::Request::post("/").header("content-type", "application/x-www-form-urlencoded; charset=utf-8");
        call(twin, request, &format!("Version=2016-11-15&{form}")).await
    }

    async fn sqs(twin: &Arc<Twin>, operation: &str, body: Value) -> (u16, Value) {
        let request = axum::http::Request::post("/").header("x-amz-target", format!("AmazonSQS.{operation}")).header("host", "127.0.0.1:1");
        let (status, text) = call(twin, request, &body.to_string()).await;
        (status, serde_json::from_str(&text).unwrap())
    }

    #[tokio::test]
    async fn a_long_poll_ends_when_the_market_moves() {
        let twin = twin(Settings { speed: 600.0, ..Settings::new(MarketSource::Demo) });
        let market = tokio::spawn({
            let twin = twin.clone();
            async move { twin.run_market().await }
        });
        let launched = ec2(&twin, "Action=RunInstances&ImageId=ami-0123456789abcdef0&InstanceType=g5.xlarge&MinCount=1&MaxCount=1").await;
        assert_eq!(launched.0, 200, "{}", launched.1);
        let url = sqs(&twin, "GetQueueUrl", json!({"QueueName": "purser-interruptions"})).await.1["QueueUrl"].clone();
        let begun = std::time::Instant::now();
        let mut states = Vec::new();
        while states.len() < 2 && begun.elapsed() < Duration::from_secs(10) {
            let answer = sqs(&twin, "ReceiveMessage", json!({"QueueUrl": url, "MaxNumberOfMessages": 1, "WaitTimeSeconds": 5})).await.1;
            let bodies = answer["Messages"].as_array().into_iter().flatten().filter_map(|message| serde_json::from_str::<Value>(message["Body"].as_str()?).ok());
            states.extend(bodies.map(|event| event["detail"]["state"].clone()));
        }
        assert_eq!(states, ["pending", "running"]);
        assert!(begun.elapsed() < Duration::from_secs(3), "a boot of a tenth of a second was told after {:?}", begun.elapsed());
        market.abort();
    }

    #[tokio::test]
    async fn too_many_calls_are_throttled_and_unknown_services_are_named() {
        let twin = twin(Settings { calls_per_second_max: Some(1), ..Settings::new(MarketSource::Demo) });
        let answers = [ec2(&twin, "Action=DescribeRegions").await, ec2(&twin, "Action=DescribeRegions").await, ec2(&twin, "Action=DescribeRegions").await];
        assert!(answers.iter().any(|(status, body)| *status == 503 && body.contains("<Code>RequestLimitExceeded</Code>")), "{answers:?}");
        let request = axum::http::Request::post("/").header("x-amz-target", "DynamoDB_20120810.ListTables");
        let (status, body) = call(&twin, request, "{}").await;
        assert!(status == 400 && body.contains("does not know the service DynamoDB_20120810"), "{body}");
    }

    #[tokio::test]
    async fn a_checkpoint_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { state: Some(folder.path().to_owned()), ..Settings::new(MarketSource::Demo) };
        let first = twin(settings.clone());
        let put = |path: &'static str| axum::http::Request::put(path);
        assert_eq!(call(&first, put("/runs"), "").await.0, 200);
        assert_eq!(call(&first, put("/runs/bert/step%2010"), "weights").await.0, 200);
        drop(first);
        let second = twin(settings);
        assert_eq!(call(&second, axum::http::Request::get("/runs/bert/step%2010"), "").await, (200, "weights".into()));
        assert!(call(&second, axum::http::Request::get("/runs?list-type=2&prefix=bert/"), "").await.1.contains("<Key>bert/step 10</Key>"));
        assert_eq!(call(&second, axum::http::Request::get("/runs/none"), "").await.0, 404);
    }
}
