//! Messages of the cloud about machines: from a pool's queue into the claim's status, then acknowledged.
//!
//! ```text
//!  SQS ──► CloudEvent ──merge──► claim status ──► acknowledge ──► the cycle looks again at once
//! ```
//! A message is acknowledged only after what it says is recorded; one that comes twice changes nothing the second time; one
//! about a machine that no claim knows *yet* (the answer is still being recorded) waits here and is delivered again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::apply::{ApplyError, Hands};
use super::chain::chain;
use super::effects::{Effect, perform};
use crate::api::CapacityClaim;
use crate::api::claim::core_claim;
use crate::capacity::claim::ClaimStatus;
use crate::capacity::{Claim, ClaimedInstance, End, EndCause, Notice, NoticeKind};
use crate::cloud::{Cloud, CloudError, CloudEvent, CloudEventKind};

const POLL_SECONDS: u32 = 10;
/// While messages wait for their claim.
const POLL_SECONDS_SHORT: u32 = 1;
/// Less than the time for which a queue hides a message that was received.
const HELD_FOR: Duration = Duration::from_secs(45);
/// A machine that no claim knows after so long (real time) is not ours, or its claim is settled and deleted.
const FOREIGN_AFTER: TimeDelta = TimeDelta::minutes(10);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
enum PumpError {
    #[error(transparent)]
    Cloud(#[from] CloudError),
    #[error(transparent)]
    Record(#[from] ApplyError),
    #[error("could not list the claims")]
    Claims(#[source] Box<kube::Error>),
}

/// One queue of one region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Queue {
    pub region: String,
    pub name: String,
}

/// A running pump for each queue that a pool names.
#[derive(Default)]
pub struct Pumps {
    running: BTreeMap<Queue, JoinHandle<()>>,
}

impl Pumps {
    /// Starts pumps for new queues and stops those that no pool names any more.
    pub fn keep(&mut self, wanted: &BTreeSet<Queue>, hands: &Hands, cluster_id: &str, changed: &Arc<Notify>) {
        self.running.retain(|queue, task| {
            let keep = wanted.contains(queue);
            if !keep {
                task.abort();
            }
            keep
        });
        let Some(cloud) = &hands.cloud else { return };
        for queue in wanted {
            self.running.entry(queue.clone()).or_insert_with(|| {
                let pump = Pump {
                    cloud: Arc::clone(cloud),
                    hands: hands.clone(),
                    cluster_id: cluster_id.to_owned(),
                    queue: queue.clone(),
                    changed: Arc::clone(changed),
                    held: Vec::new(),
                };
                tokio::spawn(pump.run())
            });
        }
    }
}

impl Drop for Pumps {
    fn drop(&mut self) {
        self.running.values().for_each(JoinHandle::abort);
    }
}

struct Pump {
    cloud: Arc<dyn Cloud>,
    hands: Hands,
    cluster_id: String,
    queue: Queue,
    changed: Arc<Notify>,
    /// Messages about machines that no claim knows yet, with when they were received.
    held: Vec<(Instant, CloudEvent)>,
}

impl Pump {
    async fn run(mut self) {
        let mut pause = Duration::from_secs(1);
        loop {
            match self.turn().await {
                Ok(()) => pause = Duration::from_secs(1),
                Err(error) => {
                    tracing::warn!(queue = %self.queue.name, region = %self.queue.region, error = %chain(&error), "messages could not be read or recorded; they will come again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    async fn turn(&mut self) -> Result<(), PumpError> {
        let wait = if self.held.is_empty() { POLL_SECONDS } else { POLL_SECONDS_SHORT };
        let received = self.cloud.events(&self.queue.region, &self.queue.name, wait).await?;
        self.held.retain(|(at, _)| at.elapsed() < HELD_FOR);
        let now = Instant::now();
        let batch: Vec<(Instant, CloudEvent)> = self.held.drain(..).chain(received.into_iter().map(|event| (now, event))).collect();
        if batch.is_empty() {
            return Ok(());
        }
        let claims = self.claims().await?;
        let causes = self.causes(&batch).await;
        let mut done = Vec::new();
        for (at, event) in batch {
            match self.record(&claims, &causes, &event).await? {
                true => done.push(event.receipt),
                false => self.held.push((at, event)),
            }
        }
        if !done.is_empty() {
            perform(Effect::AcknowledgeEvents, self.cloud.acknowledge(&self.queue.region, &self.queue.name, &done)).await?;
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Whether the message may be forgotten.
    async fn record(&self, claims: &[Claim], causes: &BTreeMap<String, EndCause>, event: &CloudEvent) -> Result<bool, PumpError> {
        if event.what == CloudEventKind::Other {
            return Ok(true);
        }
        let owner = claims.iter().find(|claim| claim.status.instances.iter().any(|instance| instance.id == event.instance));
        let Some(claim) = owner else { return Ok(self.is_foreign(event)) };
        let cause = causes.get(&event.instance).copied();
        self.hands
            .change_claim(Effect::RecordEvent, &claim.name, &claim.uid, |status| merge_into(status, event, cause))
            .await?;
        Ok(true)
    }

    fn is_foreign(&self, event: &CloudEvent) -> bool {
        self.hands.clock.real_span(self.hands.clock.now() - event.at) > FOREIGN_AFTER
    }

    async fn claims(&self) -> Result<Vec<Claim>, PumpError> {
        let api: Api<DeserializeGuard<CapacityClaim>> = Api::all(self.hands.client.clone());
        let list = api.list(&ListParams::default()).await.map_err(|error| PumpError::Claims(Box::new(error)))?;
        Ok(list.items.into_iter().filter_map(|item| core_claim(&item.0.ok()?)).collect())
    }

    /// Who ended the machines of this batch: a message tells when, only the cloud's list tells why.
    async fn causes(&self, batch: &[(Instant, CloudEvent)]) -> BTreeMap<String, EndCause> {
        if !batch.iter().any(|(_, event)| is_end(event.what)) {
            return BTreeMap::new();
        }
        match self.cloud.instances(&self.queue.region, &self.cluster_id).await {
            Ok(machines) => machines.into_iter().filter_map(|machine| Some((machine.id, machine.ended?.cause))).collect(),
            Err(error) => {
                tracing::debug!(%error, "why machines ended is guessed from their notices");
                BTreeMap::new()
            }
        }
    }
}

fn is_end(what: CloudEventKind) -> bool {
    matches!(what, CloudEventKind::ShuttingDown | CloudEventKind::Terminated)
}

/// Whether the status changed.
fn merge_into(status: &mut ClaimStatus, event: &CloudEvent, cause: Option<EndCause>) -> bool {
    let found = status.instances.iter_mut().find(|instance| instance.id == event.instance);
    found.is_some_and(|instance| {
        let before = instance.clone();
        merge(instance, event, cause);
        *instance != before
    })
}

/// Messages may come twice and in any order; the result is the same.
fn merge(instance: &mut ClaimedInstance, event: &CloudEvent, cause: Option<EndCause>) {
    match event.what {
        CloudEventKind::Other => {}
        CloudEventKind::Notice(kind) => {
            if instance.notice.as_ref().is_none_or(|notice| notice.kind < kind) {
                instance.notice = Some(Notice { kind, at: event.at });
            }
        }
        CloudEventKind::Running => {
            instance.running_at = Some(event.at);
            if let Some(end) = instance.end.as_mut().filter(|end| end.cause == EndCause::NeverRan) {
                end.cause = cause_by_notice(instance.notice.as_ref(), instance.release_asked_at.is_some());
            }
        }
        // Charging ends here.
        CloudEventKind::ShuttingDown => {
            if instance.end.as_ref().is_none_or(|end| end.estimated) {
                instance.end = Some(End { at: event.at, cause: end_cause(instance, cause), estimated: false });
            }
        }
        // The message before was missed or is late: later than the true end, so it may still be mended.
        CloudEventKind::Terminated => {
            if instance.end.is_none() {
                instance.end = Some(End { at: event.at, cause: end_cause(instance, cause), estimated: true });
            }
        }
    }
}

fn end_cause(instance: &ClaimedInstance, told: Option<EndCause>) -> EndCause {
    match (instance.running_at, told) {
        // Only what runs is interrupted, or it is free anyway; the message that it ran may be late.
        (_, Some(EndCause::Interrupted)) => EndCause::Interrupted,
        (None, _) => EndCause::NeverRan,
        (Some(_), Some(cause)) => cause,
        (Some(_), None) => cause_by_notice(instance.notice.as_ref(), instance.release_asked_at.is_some()),
    }
}

fn cause_by_notice(notice: Option<&Notice>, release_asked: bool) -> EndCause {
    match notice {
        Some(notice) if notice.kind == NoticeKind::Interruption && !release_asked => EndCause::Interrupted,
        _ => EndCause::Terminated,
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn event(what: CloudEventKind, second: i64) -> CloudEvent {
        CloudEvent { instance: "i-1".to_owned(), at: DateTime::from_timestamp(second, 0).unwrap(), what, receipt: String::new() }
    }

    fn machine() -> ClaimedInstance {
        ClaimedInstance {
            id: "i-1".to_owned(),
            node: None,
            launched_at: DateTime::UNIX_EPOCH,
            running_at: None,
            notice: None,
            seen_alive_at: None,
            release_asked_at: None,
            end: None,
        }
    }

    fn after(events: &[CloudEvent]) -> ClaimedInstance {
        events.iter().fold(machine(), |mut machine, event| {
            merge(&mut machine, event, None);
            machine
        })
    }

    #[test]
    fn an_interrupted_life_is_told_in_any_order_and_twice() {
        let told = [
            event(CloudEventKind::Running, 40),
            event(CloudEventKind::Notice(NoticeKind::Rebalance), 500),
            event(CloudEventKind::Notice(NoticeKind::Interruption), 600),
            event(CloudEventKind::ShuttingDown, 720),
            event(CloudEventKind::Terminated, 750),
        ];
        let expected = after(&told);
        assert_eq!(expected.end, Some(End { at: told[3].at, cause: EndCause::Interrupted, estimated: false }));
        let mut shuffled: Vec<CloudEvent> = told.iter().chain(&told).cloned().collect();
        shuffled.swap(0, 4);
        shuffled.swap(2, 7);
        let late = after(&shuffled);
        assert_eq!((late.running_at, late.end.as_ref().map(|end| end.at)), (expected.running_at, expected.end.map(|end| end.at)));
    }

    #[test]
    fn a_machine_that_never_ran_is_not_charged_and_a_late_message_mends_that() {
        let never = after(&[event(CloudEventKind::ShuttingDown, 30)]);
        assert_eq!(never.end.unwrap().cause, EndCause::NeverRan);
        let ran = after(&[event(CloudEventKind::ShuttingDown, 300), event(CloudEventKind::Running, 40)]);
        assert_eq!(ran.end.unwrap().cause, EndCause::Terminated);
    }

    #[test]
    fn an_interruption_that_the_cloud_tells_stays_one_when_the_start_is_told_last() {
        let mut machine = machine();
        merge(&mut machine, &event(CloudEventKind::ShuttingDown, 720), Some(EndCause::Interrupted));
        merge(&mut machine, &event(CloudEventKind::Running, 40), None);
        assert_eq!((machine.running_at.map(|at| at.timestamp()), machine.end.unwrap().cause), (Some(40), EndCause::Interrupted));
    }

    #[test]
    fn what_purser_ended_after_a_notice_was_not_interrupted() {
        let mut machine = after(&[event(CloudEventKind::Running, 40), event(CloudEventKind::Notice(NoticeKind::Interruption), 600)]);
        machine.release_asked_at = DateTime::from_timestamp(650, 0);
        merge(&mut machine, &event(CloudEventKind::ShuttingDown, 650), None);
        assert_eq!(machine.end.unwrap().cause, EndCause::Terminated);
    }
}
