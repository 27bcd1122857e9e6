//! What became of the machines: listing them by tag, and ending them.

use std::collections::BTreeSet;

use aws_sdk_ec2::error::ProvideErrorMetadata;
use aws_sdk_ec2::types::{Instance, InstanceStateName};
use chrono::{DateTime, NaiveDateTime, Utc};

use super::failure::failed;
use super::fleet::{CLAIM_TAG, CLUSTER_TAG, POOL_TAG};
use super::machines::filter;
use super::region::{AwsRegion, time_of};
use crate::capacity::{End, EndCause};
use crate::cloud::CloudError;
use crate::scheduling::snapshot::{CloudInstance, InstanceState};

/// EC2's largest page.
const PAGE: i32 = 1000;
/// EC2 advises against larger requests to terminate.
const TERMINATE_MAX: usize = 500;

impl AwsRegion {
    /// Every machine with this installation's tag, ended ones as long as EC2 lists them (about an hour).
    pub(super) async fn instances(&self, cluster_id: &str) -> Result<Vec<CloudInstance>, CloudError> {
        let request = self.ec2.describe_instances().filters(filter(&format!("tag:{CLUSTER_TAG}"), [cluster_id]));
        let answer: Result<Vec<_>, _> = request.into_paginator().page_size(PAGE).items().send().collect().await;
        let answer = answer.map_err(|error| failed(format!("list the machines of {cluster_id} in {}", self.name), error))?;
        let now = self.market_now();
        // Checked again: filters know wildcards, and other clusters' machines are never touched.
        let ours = |instance: &&Instance| tag_of(instance, CLUSTER_TAG) == Some(cluster_id);
        Ok(answer.iter().flat_map(|reservation| reservation.instances()).filter(ours).filter_map(|instance| instance_of(instance, now)).collect())
    }

    /// Machines by id; as EC2 does it, all or an error.
    pub(super) async fn described(&self, ids: &[String]) -> Result<Vec<Instance>, CloudError> {
        let answer: Result<Vec<_>, _> = self.ec2.describe_instances().set_instance_ids(Some(ids.to_vec())).into_paginator().items().send().collect().await;
        let answer = answer.map_err(|error| failed(format!("describe {}", ids.join(", ")), error))?;
        Ok(answer.into_iter().flat_map(|reservation| reservation.instances.unwrap_or_default()).collect())
    }

    pub(super) async fn terminate(&self, instances: &[String]) -> Result<(), CloudError> {
        for batch in instances.chunks(TERMINATE_MAX) {
            self.terminate_batch(batch.iter().cloned().collect()).await?;
        }
        self.forget_what_is_left();
        Ok(())
    }

    /// EC2 refuses the whole batch for one id that it has forgotten; the rest is asked for again without it.
    async fn terminate_batch(&self, mut ids: BTreeSet<String>) -> Result<(), CloudError> {
        while !ids.is_empty() {
            let answer = self.ec2.terminate_instances().set_instance_ids(Some(ids.iter().cloned().collect())).send().await;
            let Err(error) = answer else { return Ok(()) };
            let gone = if error.code() == Some("InvalidInstanceID.NotFound") { named_in(error.message().unwrap_or_default(), &ids) } else { Vec::new() };
            if gone.is_empty() {
                return Err(failed(format!("terminate {} machines in {}", ids.len(), self.name), error));
            }
            ids.retain(|id| !gone.contains(id));
        }
        Ok(())
    }
}

/// Ids of the set that the message names: `The instance IDs 'i-1, i-2' do not exist`.
fn named_in(message: &str, ids: &BTreeSet<String>) -> Vec<String> {
    message.split(|separator: char| !separator.is_ascii_alphanumeric() && separator != '-').filter(|word| ids.contains(*word)).map(str::to_owned).collect()
}

fn tag_of<'a>(instance: &'a Instance, key: &str) -> Option<&'a str> {
    instance.tags().iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value())
}

fn instance_of(instance: &Instance, now: DateTime<Utc>) -> Option<CloudInstance> {
    let state = state_of(instance.state().and_then(|state| state.name())?)?;
    Some(CloudInstance {
        id: instance.instance_id()?.to_owned(),
        pool: tag_of(instance, POOL_TAG).unwrap_or_default().to_owned(),
        claim: tag_of(instance, CLAIM_TAG).map(str::to_owned),
        client_token: instance.client_token().filter(|token| !token.is_empty()).map(str::to_owned),
        instance_type: instance.instance_type()?.as_str().to_owned(),
        zone: instance.placement().and_then(|placement| placement.availability_zone()).unwrap_or_default().to_owned(),
        state,
        launched_at: time_of(instance.launch_time())?,
        running_at: None,
        ended: if state.is_alive() { None } else { Some(end_of(instance, now)) },
        notice: None,
        observed_at: now,
    })
}

/// A stopped machine is charged no more than one that shuts down, and Purser starts none again.
fn state_of(name: &InstanceStateName) -> Option<InstanceState> {
    match name {
        InstanceStateName::Pending => Some(InstanceState::Pending),
        InstanceStateName::Running => Some(InstanceState::Running),
        InstanceStateName::ShuttingDown | InstanceStateName::Stopping | InstanceStateName::Stopped => Some(InstanceState::ShuttingDown),
        InstanceStateName::Terminated => Some(InstanceState::Terminated),
        _ => None,
    }
}

/// When and why it ended. EC2 tells the time in words, and not always: then it is estimated as now, the first time that it
/// is seen gone, and whoever saw it alive knows the other end.
fn end_of(instance: &Instance, now: DateTime<Utc>) -> End {
    let reason = instance.state_transition_reason().unwrap_or_default();
    let code = instance.state_reason().and_then(|reason| reason.code()).unwrap_or_default();
    let at = time_in(reason);
    End { at: at.unwrap_or(now), cause: cause_of(code, reason), estimated: at.is_none() }
}

/// The time in `User initiated (2026-11-24 22:01:33 GMT)`.
fn time_in(reason: &str) -> Option<DateTime<Utc>> {
    let (_, rest) = reason.rsplit_once('(')?;
    let text = rest.strip_suffix(')')?.trim_end_matches(" GMT").trim_end_matches(" UTC");
    Some(NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").ok()?.and_utc())
}

fn cause_of(code: &str, reason: &str) -> EndCause {
    match code {
        "Server.SpotInstanceTermination" | "Server.SpotInstanceShutdown" => EndCause::Interrupted,
        // EC2 gave up while it was starting.
        "Server.InsufficientInstanceCapacity" | "Server.InternalError" | "Client.InternalError" | "Client.VolumeLimitExceeded" | "Client.InvalidSnapshot.NotFound" => EndCause::NeverRan,
        _ if reason.starts_with("Server.SpotInstanceTermination") => EndCause::Interrupted,
        _ => EndCause::Terminated,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::StateReason;

    use super::*;

    fn ended(code: &str, reason: &str) -> End {
        let instance = Instance::builder().state_reason(StateReason::builder().code(code).build()).state_transition_reason(reason).build();
        end_of(&instance, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn the_end_is_read_from_ec2s_words() {
        let end = ended("Client.UserInitiatedShutdown", "User initiated (2026-11-24 22:01:33 GMT)");
        assert_eq!((end.at.to_rfc3339().as_str(), end.cause, end.estimated), ("2026-11-24T22:01:33+00:00", EndCause::Terminated, false));
        assert_eq!(ended("Server.SpotInstanceTermination", "Server.SpotInstanceTermination (2026-11-24 22:01:33 GMT)").cause, EndCause::Interrupted);
        assert_eq!(ended("Server.InsufficientInstanceCapacity", "").cause, EndCause::NeverRan);
    }

    #[test]
    fn an_end_without_a_time_is_estimated_and_says_so() {
        for reason in ["", "User initiated", "User initiated (yesterday)", "Server.SpotInstanceTermination: no reason"] {
            let end = ended("Client.UserInitiatedShutdown", reason);
            assert!(end.estimated && end.at == DateTime::UNIX_EPOCH, "{reason}");
        }
    }

    #[test]
    fn ids_that_ec2_has_forgotten_are_found_in_its_message() {
        let ids = BTreeSet::from(["i-1a".to_owned(), "i-2b".to_owned(), "i-3c".to_owned()]);
        assert_eq!(named_in("The instance IDs 'i-1a, i-3c' do not exist", &ids), ["i-1a", "i-3c"]);
        assert!(named_in("The instance ID 'i-1ab' does not exist", &ids).is_empty());
    }
}
