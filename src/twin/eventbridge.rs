//! What EventBridge puts into a queue when something happens to an instance.

use chrono::SecondsFormat;
use serde_json::json;

use super::world::ACCOUNT;
use crate::simulation::market::Fleet;
use crate::simulation::market::fleet::{Fact, What};

pub struct Message {
    /// The same for the same event, so that a replay posts nothing twice.
    pub id: String,
    pub body: String,
}

/// The event for a fact; none where EC2 says nothing about it.
pub fn message(fact: &Fact, fleet: &Fleet) -> Option<Message> {
    const STATE: &str = "EC2 Instance State-change Notification";
    let state = |state: &str| json!({"state": state});
    let (instance, detail_type, mut detail) = match &fact.what {
        What::Launched(launched) => (&launched.instance, STATE, state("pending")),
        What::Running { instance, .. } => (instance, STATE, state("running")),
        What::Ending { instance, .. } => (instance, STATE, state("shutting-down")),
        What::Ended { instance } => (instance, STATE, state("terminated")),
        What::Rebalance { instance } => (instance, "EC2 Instance Rebalance Recommendation", json!({})),
        What::Warned { instance, .. } => (instance, "EC2 Spot Instance Interruption Warning", json!({"instance-action": "terminate"})),
        What::Priced { .. } | What::Tagged { .. } => return None,
    };
    detail["instance-id"] = json!(instance);
    let region = fleet.instance(instance)?.order.pool.region();
    let time = fact.at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let id = id_of(&format!("{instance} {detail_type} {detail} {time}"));
    let body = json!({
        "version": "0",
        "id": id,
        "detail-type": detail_type,
        "source": "aws.ec2",
        "account": ACCOUNT,
        "time": time,
        "region": region,
        "resources": [format!("arn:aws:ec2:{region}:{ACCOUNT}:instance/{instance}")],
        "detail": detail,
    });
    Some(Message { id, body: body.to_string() })
}

/// Looks like a UUID.
pub fn id_of(text: &str) -> String {
    use sha2::Digest;
    let hex: String = sha2::Sha256::digest(text).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
