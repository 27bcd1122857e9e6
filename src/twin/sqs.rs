//! SQS in its JSON 1.0 protocol, with real long polls.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Twin;
use super::eventbridge::id_of;
use super::journal::Entry;
use super::protocol::AwsError;
use super::queues::Message;
use super::world::ACCOUNT;

const VISIBILITY_DEFAULT: u64 = 30;

/// `host` is how the caller reached us: queue URLs begin with it.
pub async fn answer(twin: &Twin, operation: &str, host: &str, request: &Value) -> Result<Value, AwsError> {
    match operation {
        "CreateQueue" => create(twin, host, request),
        "GetQueueUrl" => {
            let queue = existing(twin, request["QueueName"].as_str().unwrap_or_default())?;
            Ok(json!({"QueueUrl": url(host, &queue)}))
        }
        "ListQueues" => Ok(json!({"QueueUrls": twin.with(|world| world.queues.names().map(|queue| url(host, queue)).collect::<Vec<_>>())})),
        "ReceiveMessage" => receive(twin, &queue_of(twin, request)?, request).await,
        "DeleteMessage" => delete(twin, &queue_of(twin, request)?, request).map(|()| json!({})),
        "DeleteMessageBatch" => delete_batch(twin, &queue_of(twin, request)?, request),
        "ChangeMessageVisibility" => change_visibility(twin, &queue_of(twin, request)?, request),
        "SendMessage" => send(twin, &queue_of(twin, request)?, request),
        "GetQueueAttributes" => attributes(twin, &queue_of(twin, request)?),
        other => Err(AwsError::client("UnsupportedOperation", format!("The twin does not know the SQS operation {other}"))),
    }
}

fn create(twin: &Twin, host: &str, request: &Value) -> Result<Value, AwsError> {
    let queue = request["QueueName"].as_str().filter(|name| !name.is_empty()).ok_or_else(|| AwsError::missing("QueueName"))?;
    twin.with(|world| {
        if !world.queues.exists(queue) {
            world.record(Entry::QueueCreated { queue: queue.to_owned() });
        }
    });
    Ok(json!({"QueueUrl": url(host, queue)}))
}

async fn receive(twin: &Twin, queue: &str, request: &Value) -> Result<Value, AwsError> {
    let most = request["MaxNumberOfMessages"].as_u64().unwrap_or(1).clamp(1, 10) as usize;
    let hidden_for = Duration::from_secs(request["VisibilityTimeout"].as_u64().unwrap_or(VISIBILITY_DEFAULT));
    let until = Instant::now() + Duration::from_secs(request["WaitTimeSeconds"].as_u64().unwrap_or(0).min(20));
    loop {
        let changed = twin.changed();
        let messages = twin.with(|world| world.queues.receive(queue, most, hidden_for, Instant::now()));
        let now = Instant::now();
        if !messages.is_empty() || now >= until {
            return Ok(json!({"Messages": messages.iter().map(message).collect::<Vec<_>>()}));
        }
        // Messages also become visible by time alone, which nobody announces: look once a second.
        let pause = (until - now).min(Duration::from_secs(1));
        let _ = tokio::time::timeout(pause, changed).await;
    }
}

fn message(message: &Message) -> Value {
    json!({
        "MessageId": message.id,
        "ReceiptHandle": message.receipt(),
        "Body": message.body,
        "Attributes": {
            "SentTimestamp": message.sent_at.timestamp_millis().to_string(),
            "ApproximateReceiveCount": message.receives.to_string(),
        },
    })
}

fn delete(twin: &Twin, queue: &str, request: &Value) -> Result<(), AwsError> {
    let receipt = request["ReceiptHandle"].as_str().ok_or_else(|| AwsError::missing("ReceiptHandle"))?;
    twin.with(|world| {
        // One that is gone already is no error.
        if let Some(id) = world.queues.by_receipt(queue, receipt).map(str::to_owned) {
            world.record(Entry::MessageDeleted { queue: queue.to_owned(), id });
        }
    });
    Ok(())
}

fn delete_batch(twin: &Twin, queue: &str, request: &Value) -> Result<Value, AwsError> {
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for entry in request["Entries"].as_array().into_iter().flatten() {
        match delete(twin, queue, entry) {
            Ok(()) => successful.push(json!({"Id": entry["Id"]})),
            Err(error) => failed.push(json!({"Id": entry["Id"], "SenderFault": true, "Code": error.code, "Message": error.message})),
        }
    }
    Ok(json!({"Successful": successful, "Failed": failed}))
}

fn change_visibility(twin: &Twin, queue: &str, request: &Value) -> Result<Value, AwsError> {
    let receipt = request["ReceiptHandle"].as_str().ok_or_else(|| AwsError::missing("ReceiptHandle"))?;
    let hidden_for = Duration::from_secs(request["VisibilityTimeout"].as_u64().unwrap_or(0));
    twin.with(|world| {
        let id = world.queues.by_receipt(queue, receipt).map(str::to_owned);
        let id = id.ok_or_else(|| AwsError::client("MessageNotInflight", "The message referred to isn't in flight."))?;
        world.queues.hide(queue, &id, hidden_for, Instant::now());
        Ok(json!({}))
    })
}

fn send(twin: &Twin, queue: &str, request: &Value) -> Result<Value, AwsError> {
    let body = request["MessageBody"].as_str().ok_or_else(|| AwsError::missing("MessageBody"))?.to_owned();
    let id = twin.with(|world| {
        let id = id_of(&format!("{queue}/{}/{body}", world.entries().len()));
        world.record(Entry::MessageSent { at: world.now(), queue: queue.to_owned(), id: id.clone(), body });
        id
    });
    twin.changed.notify_waiters();
    Ok(json!({"MessageId": id}))
}

fn attributes(twin: &Twin, queue: &str) -> Result<Value, AwsError> {
    let (waiting, in_flight) = twin.with(|world| world.queues.counts(queue, Instant::now()));
    Ok(json!({"Attributes": {
        "QueueArn": format!("arn:aws:sqs:us-east-1:{ACCOUNT}:{queue}"),
        "ApproximateNumberOfMessages": waiting.to_string(),
        "ApproximateNumberOfMessagesNotVisible": in_flight.to_string(),
        "VisibilityTimeout": VISIBILITY_DEFAULT.to_string(),
    }}))
}

fn url(host: &str, queue: &str) -> String {
    format!("http://{host}/{ACCOUNT}/{queue}")
}

fn queue_of(twin: &Twin, request: &Value) -> Result<String, AwsError> {
    let url = request["QueueUrl"].as_str().ok_or_else(|| AwsError::missing("QueueUrl"))?;
    existing(twin, url.rsplit('/').next().unwrap_or_default())
}

fn existing(twin: &Twin, queue: &str) -> Result<String, AwsError> {
    let exists = twin.with(|world| world.queues.exists(queue));
    let missing = || AwsError::client("AWS.SimpleQueueService.NonExistentQueue", format!("The specified queue {queue:?} does not exist."));
    exists.then(|| queue.to_owned()).ok_or_else(missing)
}
