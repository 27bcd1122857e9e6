//! The queue that EventBridge fills: notices of interruption, rebalance recommendations, changes of state.
//!
//! A queue is a name, found in the pool's region. A message that is not understood is handed on as
//! [`CloudEventKind::Other`], so that it is acknowledged and does not come back for days.

use aws_sdk_ec2::error::ProvideErrorMetadata;
use aws_sdk_sqs::types::DeleteMessageBatchRequestEntry;
use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::failure::failed;
use super::region::AwsRegion;
use crate::capacity::NoticeKind;
use crate::cloud::{CloudError, CloudEvent, CloudEventKind, Retry, pool_check};

/// SQS gives and deletes ten messages at most.
const BATCH: usize = 10;
/// SQS waits no longer.
const WAIT_SECONDS_MAX: u32 = 20;
/// Time to record what a message says before it is delivered again.
const HIDDEN_SECONDS: i32 = 60;

impl AwsRegion {
    pub(super) async fn events(&self, queue: &str, wait_seconds: u32) -> Result<Vec<CloudEvent>, CloudError> {
        let url = self.queue_url(queue).await?;
        let wait = i32::try_from(wait_seconds.min(WAIT_SECONDS_MAX)).unwrap_or_default();
        let request = self.sqs.receive_message().queue_url(url).max_number_of_messages(BATCH as i32).wait_time_seconds(wait).visibility_timeout(HIDDEN_SECONDS);
        let answer = request.send().await.map_err(|error| {
            self.known.queues.forget();
            failed(format!("receive messages of queue {queue} in {}", self.name), error)
        })?;
        let now = self.market_now();
        Ok(answer.messages().iter().filter_map(|message| Some(event_of(message.body().unwrap_or_default(), message.receipt_handle()?, now))).collect())
    }

    pub(super) async fn acknowledge(&self, queue: &str, receipts: &[String]) -> Result<(), CloudError> {
        if receipts.is_empty() {
            return Ok(());
        }
        let url = self.queue_url(queue).await?;
        let doing = || format!("delete messages of queue {queue} in {}", self.name);
        for batch in receipts.chunks(BATCH) {
            let entries: Result<Vec<_>, _> = batch.iter().enumerate().map(|(index, receipt)| DeleteMessageBatchRequestEntry::builder().id(index.to_string()).receipt_handle(receipt).build()).collect();
            let entries = entries.map_err(|error| CloudError { doing: doing(), message: error.to_string(), retry: Retry::Never, source: Some(Box::new(error)) })?;
            let answer = self.sqs.delete_message_batch().queue_url(&url).set_entries(Some(entries)).send().await.map_err(|error| failed(doing(), error))?;
            // It comes again, is found recorded, and is deleted then.
            for left in answer.failed() {
                tracing::debug!(queue, code = left.code(), "a message was not deleted and will come again");
            }
        }
        Ok(())
    }

    async fn queue_url(&self, queue: &str) -> Result<String, CloudError> {
        let doing = format!("find queue {:?} in {}", queue.chars().take(80).collect::<String>(), self.name);
        if !pool_check::is_queue_name(queue) {
            return Err(CloudError { doing, message: "a queue is given by its name, not by a URL".into(), retry: Retry::Never, source: None });
        }
        self.known.queues.get(queue.to_owned(), || self.load_queue_url(queue, doing)).await
    }

    async fn load_queue_url(&self, queue: &str, doing: String) -> Result<String, CloudError> {
        let answer = self.sqs.get_queue_url().queue_name(queue).send().await.map_err(|error| {
            tracing::debug!(queue, code = error.code(), "no queue");
            failed(doing.clone(), error)
        })?;
        answer.queue_url.ok_or_else(|| CloudError { doing, message: "SQS answered without a URL".into(), retry: Retry::AfterBackoff, source: None })
    }
}

/// EventBridge's envelope, as far as Purser reads it.
#[derive(Deserialize)]
struct Envelope {
    source: String,
    #[serde(rename = "detail-type")]
    kind: String,
    time: DateTime<Utc>,
    detail: Detail,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Detail {
    instance_id: String,
    state: String,
}

fn event_of(body: &str, receipt: &str, now: DateTime<Utc>) -> CloudEvent {
    match serde_json::from_str::<Envelope>(body) {
        Ok(envelope) => CloudEvent { what: what_of(&envelope), instance: envelope.detail.instance_id, at: envelope.time, receipt: receipt.to_owned() },
        Err(error) => {
            let beginning: String = body.chars().take(200).collect();
            tracing::warn!(%error, beginning, "a message in the interruption queue is not an EventBridge event; it is dropped");
            CloudEvent { instance: String::new(), at: now, what: CloudEventKind::Other, receipt: receipt.to_owned() }
        }
    }
}

fn what_of(envelope: &Envelope) -> CloudEventKind {
    if envelope.source != "aws.ec2" || envelope.detail.instance_id.is_empty() {
        return CloudEventKind::Other;
    }
    match (envelope.kind.as_str(), envelope.detail.state.as_str()) {
        ("EC2 Spot Instance Interruption Warning", _) => CloudEventKind::Notice(NoticeKind::Interruption),
        ("EC2 Instance Rebalance Recommendation", _) => CloudEventKind::Notice(NoticeKind::Rebalance),
        ("EC2 Instance State-change Notification", "running") => CloudEventKind::Running,
        // Charging ends when it leaves `running`, whether to be ended or only stopped.
        ("EC2 Instance State-change Notification", "shutting-down" | "stopping") => CloudEventKind::ShuttingDown,
        ("EC2 Instance State-change Notification", "terminated") => CloudEventKind::Terminated,
        _ => CloudEventKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, detail: serde_json::Value) -> CloudEvent {
        let body = serde_json::json!({
            "version": "0", "id": "1e5527d7", "detail-type": kind, "source": "aws.ec2", "account": "123456789012", "time": "2026-11-24T22:01:33Z",
            "region": "us-east-1", "resources": ["arn:aws:ec2:us-east-1a:123456789012:instance/i-1"], "detail": detail,
        });
        event_of(&body.to_string(), "receipt", DateTime::UNIX_EPOCH)
    }

    #[test]
    fn each_message_of_ec2_is_understood() {
        let what = |kind: &str, detail| event(kind, detail).what;
        let id = "i-1";
        assert_eq!(what("EC2 Spot Instance Interruption Warning", serde_json::json!({"instance-id": id, "instance-action": "terminate"})), CloudEventKind::Notice(NoticeKind::Interruption));
        assert_eq!(what("EC2 Instance Rebalance Recommendation", serde_json::json!({"instance-id": id})), CloudEventKind::Notice(NoticeKind::Rebalance));
        for (state, kind) in [("running", CloudEventKind::Running), ("shutting-down", CloudEventKind::ShuttingDown), ("terminated", CloudEventKind::Terminated), ("pending", CloudEventKind::Other)] {
            let event = event("EC2 Instance State-change Notification", serde_json::json!({"instance-id": id, "state": state}));
            assert_eq!((event.what, event.instance.as_str(), event.at.to_rfc3339().as_str()), (kind, id, "2026-11-24T22:01:33+00:00"));
        }
    }

    #[test]
    fn what_is_not_understood_is_handed_on_to_be_dropped() {
        for body in ["", "{", "[]", "\"text\"", "{\"Records\":[]}", "{\"source\":\"aws.ec2\",\"detail-type\":\"x\",\"time\":\"soon\",\"detail\":{}}"] {
            let event = event_of(body, "receipt", DateTime::UNIX_EPOCH);
            assert_eq!((event.what, event.receipt.as_str()), (CloudEventKind::Other, "receipt"), "{body}");
        }
        assert_eq!(event("AWS Health Event", serde_json::json!({"service": "EC2"})).what, CloudEventKind::Other);
    }
}
