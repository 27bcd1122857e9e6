//! A claim's life: written, asked, answered, watched, released, deleted.
//!
//! The order of effects is what makes a crash harmless: the claim (with the whole request) before the cloud is asked, the
//! claim's UID as the cloud's client token, the answer recorded only while the claim is still `Written`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams, Preconditions};

use super::super::effects::{Effect, perform};
use super::super::names::label_value;
use super::{Applied, ApplyError, Hands, Result, doing, dropped, is_already_exists, is_conflict, is_not_found, tolerate};
use crate::api::claim::CapacityClaimSpec;
use crate::api::{CapacityClaim, FIELD_MANAGER, labels};
use crate::capacity::claim::ClaimStatus;
use crate::capacity::{ClaimPhase, ClaimRecord, ClaimedInstance, Provider, Refusal, RefusalCode, Serves};
use crate::cloud::{Cloud, LaunchAnswer, LaunchRequest};

/// How often a write is repeated when others changed the object in between.
const CONTENTION_TRIES: u32 = 5;

impl Hands {
    pub(super) async fn write_claim(&self, name: &str, record: &ClaimRecord) -> Result {
        let mut marks = BTreeMap::from([(labels::POOL.to_owned(), label_value(&record.pool))]);
        if let Serves::Attempt { job, attempt: _ } = record.serves() {
            if let Some(why) = self.hold_job(job).await? {
                return dropped(why);
            }
            marks.extend([(labels::JOB.to_owned(), label_value(&job.name)), (labels::JOB_UID.to_owned(), job.uid.clone())]);
        }
        let mut claim = CapacityClaim::new(name, CapacityClaimSpec { record: record.clone() });
        claim.metadata = ObjectMeta { labels: Some(marks), ..claim.metadata };
        let created = perform(Effect::WriteClaim, async {
            tolerate(self.claims().create(&written_by_purser(), &claim).await, is_already_exists)
        });
        created.await.map_err(doing(format!("write claim {name}")))?;
        Ok(Applied::Done)
    }

    pub(super) async fn ask_cloud(&self, name: &str, uid: &str) -> Result {
        let Some(claim) = self.live_claim(name, uid).await? else { return dropped(format!("claim {name} is gone")) };
        let status = claim.status.unwrap_or_default();
        if status.phase != ClaimPhase::Written {
            return dropped(format!("claim {name} is answered already"));
        }
        let record = claim.spec.record;
        let answer = match record.offer.provider {
            Provider::Aws => self.ask_aws(name, uid, &record).await?,
            Provider::Nodes => self.take_nodes(name, &record).await?,
        };
        self.change_claim(Effect::RecordAnswer, name, uid, |live| {
            let open = live.phase == ClaimPhase::Written;
            if open {
                *live = ClaimStatus { metered_until: live.metered_until, metered: live.metered, ..answer.clone() };
            }
            open
        })
        .await
    }

    async fn ask_aws(&self, name: &str, uid: &str, record: &ClaimRecord) -> Result<ClaimStatus> {
        let request: LaunchRequest = match serde_json::from_str(&record.request) {
            Ok(request) => request,
            Err(error) => return Ok(refused(RefusalCode::Invalid, format!("the stored request is unreadable: {error}"), self.clock.now())),
        };
        let cloud = self.cloud_for(name)?;
        let answer = perform(Effect::AskCloud, cloud.launch(&request, uid)).await?;
        let status = answered(record.count, answer, self.clock.now());
        if status.phase == ClaimPhase::Refused && !status.instances.is_empty() {
            let ids: Vec<String> = status.instances.iter().map(|instance| instance.id.clone()).collect();
            perform(Effect::GiveBackPartial, cloud.terminate(&request.config.region, &ids)).await?;
        }
        Ok(status)
    }

    pub(super) async fn withdraw_claim(&self, name: &str, uid: &str, because: &str) -> Result {
        let now = self.clock.now();
        self.change_claim(Effect::WithdrawClaim, name, uid, |status| {
            let open = status.phase == ClaimPhase::Written;
            if open {
                status.phase = ClaimPhase::Refused;
                status.refusal = Some(Refusal { code: RefusalCode::Withdrawn, message: because.to_owned(), at: now });
            }
            open
        })
        .await
    }

    /// Holds only against the status that the plan was made from; nothing is repeated on a conflict.
    pub(super) async fn record_instances(
        &self,
        name: &str,
        uid: &str,
        instances: &[ClaimedInstance],
        ended: bool,
        seen: Option<&String>,
    ) -> Result {
        let Some(mut live) = self.live_claim(name, uid).await? else { return dropped(format!("claim {name} is gone")) };
        if live.metadata.resource_version.as_ref() != seen {
            return dropped(format!("claim {name} changed meanwhile"));
        }
        let status = live.status.get_or_insert_default();
        status.instances = instances.to_vec();
        if ended && status.phase == ClaimPhase::Granted {
            status.phase = ClaimPhase::Ended;
        }
        let written = perform(Effect::RecordInstances, self.claims().replace_status(name, &written_by_purser(), &live)).await;
        match written {
            Ok(_) => Ok(Applied::Done),
            Err(error) if is_conflict(&error) || is_not_found(&error) => dropped(format!("claim {name} changed meanwhile")),
            Err(error) => Err(doing(format!("record the machines of claim {name}"))(error)),
        }
    }

    pub(super) async fn release(&self, name: &str, uid: &str, instances: &[String]) -> Result {
        let Some(claim) = self.live_claim(name, uid).await? else { return dropped(format!("claim {name} is gone")) };
        let now = self.clock.now();
        match claim.spec.record.offer.provider {
            Provider::Aws => {
                let region = region_of(&claim.spec.record);
                perform(Effect::ReleaseMachines, self.cloud_for(name)?.terminate(&region, instances)).await?;
            }
            Provider::Nodes => self.give_back_nodes(name, &claim, instances).await?,
        }
        self.change_claim(Effect::RecordRelease, name, uid, |status| {
            for instance in status.instances.iter_mut().filter(|instance| instances.contains(&instance.id)) {
                instance.release_asked_at.get_or_insert(now);
            }
            true
        })
        .await
    }

    pub(super) async fn delete_claim(&self, name: &str, uid: &str) -> Result {
        let only_this = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let params = DeleteParams::default().preconditions(only_this);
        let harmless = |error: &kube::Error| is_not_found(error) || is_conflict(error);
        let deleted = perform(Effect::DeleteClaim, async { tolerate(self.claims().delete(name, &params).await, harmless) });
        deleted.await.map_err(doing(format!("delete claim {name}")))?;
        Ok(Applied::Done)
    }

    pub(super) async fn terminate_orphans(&self, region: Option<&String>, instances: &[String]) -> Result {
        let Some(region) = region else { return dropped("the orphans' pool is gone, and with it their region") };
        perform(Effect::TerminateOrphans, self.cloud_for("(none)")?.terminate(region, instances)).await?;
        Ok(Applied::Done)
    }

    /// Reads, changes and writes the status until nobody came between. `change` says whether it still applies.
    pub(in crate::kubernetes) async fn change_claim(
        &self,
        effect: Effect,
        name: &str,
        uid: &str,
        mut change: impl FnMut(&mut ClaimStatus) -> bool,
    ) -> Result {
        let what = || format!("write the status of claim {name} ({effect})");
        for _ in 0..CONTENTION_TRIES {
            let Some(mut live) = self.live_claim(name, uid).await? else { return dropped(format!("claim {name} is gone")) };
            if !change(live.status.get_or_insert_default()) {
                return dropped(format!("claim {name} moved on"));
            }
            match perform(effect, self.claims().replace_status(name, &written_by_purser(), &live)).await {
                Ok(_) => return Ok(Applied::Done),
                Err(error) if is_conflict(&error) => continue,
                Err(error) => return Err(doing(what())(error)),
            }
        }
        Err(ApplyError::Contended { doing: what() })
    }

    /// The claim as the API server has it now, if it is still the same one.
    pub(super) async fn live_claim(&self, name: &str, uid: &str) -> Result<Option<CapacityClaim>> {
        let live = self.claims().get_opt(name).await.map_err(doing(format!("read claim {name}")))?;
        Ok(live.filter(|claim| claim.metadata.uid.as_deref() == Some(uid)))
    }

    /// By its label: a claim for many pods is large, and is not needed whole for each of its nodes.
    pub(super) async fn pool_of_live_claim(&self, name: &str, uid: &str) -> Result<Option<String>> {
        let live = self.claims().get_metadata_opt(name).await.map_err(doing(format!("read claim {name}")))?;
        let live = live.filter(|claim| claim.metadata.uid.as_deref() == Some(uid));
        Ok(live.map(|claim| claim.metadata.labels.unwrap_or_default().remove(labels::POOL).unwrap_or_default()))
    }

    fn claims(&self) -> Api<CapacityClaim> {
        Api::all(self.client.clone())
    }

    fn cloud_for(&self, claim: &str) -> Result<&dyn Cloud> {
        self.cloud.as_deref().ok_or_else(|| ApplyError::NoCloud { claim: claim.to_owned() })
    }
}

fn written_by_purser() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

/// The region that the stored request names; the claim outlives its pool.
pub(in crate::kubernetes) fn region_of(record: &ClaimRecord) -> String {
    serde_json::from_str(&record.request).map(|request: LaunchRequest| request.config.region).unwrap_or_default()
}

/// All machines or none: what a partial answer gave is being given back, and stays in the record until it has ended.
fn answered(count: u32, answer: LaunchAnswer, now: DateTime<Utc>) -> ClaimStatus {
    let LaunchAnswer { instances, refusal } = answer;
    let granted = instances.len();
    let complete = granted >= count as usize;
    let machines = instances.into_iter().map(|instance| ClaimedInstance {
        id: instance.id,
        node: None,
        launched_at: instance.launched_at,
        running_at: None,
        notice: None,
        seen_alive_at: None,
        release_asked_at: (!complete).then_some(now),
        end: None,
    });
    let instances: Vec<ClaimedInstance> = machines.collect();
    if complete {
        return ClaimStatus { phase: ClaimPhase::Granted, instances, ..ClaimStatus::default() };
    }
    let said = refusal.unwrap_or_else(|| Refusal { code: RefusalCode::NoCapacity, message: "the cloud gave no reason".to_owned(), at: now });
    let refusal = match granted {
        0 => said,
        _ => Refusal {
            code: RefusalCode::Partial,
            message: format!("{granted} of {count} machines were given, and given back: {}", said.message),
            at: now,
        },
    };
    ClaimStatus { phase: ClaimPhase::Refused, refusal: Some(refusal), instances, ..ClaimStatus::default() }
}

pub(super) fn refused(code: RefusalCode, message: String, at: DateTime<Utc>) -> ClaimStatus {
    ClaimStatus { phase: ClaimPhase::Refused, refusal: Some(Refusal { code, message, at }), ..ClaimStatus::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::LaunchedInstance;

    fn machine(id: &str) -> LaunchedInstance {
        LaunchedInstance { id: id.to_owned(), launched_at: DateTime::UNIX_EPOCH }
    }

    fn no_capacity() -> Refusal {
        Refusal { code: RefusalCode::NoCapacity, message: "InsufficientInstanceCapacity".to_owned(), at: DateTime::UNIX_EPOCH }
    }

    #[test]
    fn a_whole_gang_is_granted() {
        let status = answered(2, LaunchAnswer { instances: vec![machine("i-1"), machine("i-2")], refusal: None }, DateTime::UNIX_EPOCH);
        assert_eq!(status.phase, ClaimPhase::Granted);
        assert!(status.instances.iter().all(|instance| instance.release_asked_at.is_none()));
    }

    #[test]
    fn a_partial_gang_is_refused_but_its_machines_are_never_forgotten() {
        let answer = LaunchAnswer { instances: vec![machine("i-1")], refusal: Some(no_capacity()) };
        let status = answered(2, answer, DateTime::UNIX_EPOCH);
        assert_eq!(status.phase, ClaimPhase::Refused);
        assert_eq!(status.refusal.unwrap().code, RefusalCode::Partial);
        assert_eq!(status.instances.len(), 1);
        assert!(status.instances[0].release_asked_at.is_some());
    }

    #[test]
    fn an_empty_answer_without_a_reason_is_still_a_refusal() {
        let status = answered(1, LaunchAnswer { instances: vec![], refusal: None }, DateTime::UNIX_EPOCH);
        assert_eq!(status.refusal.unwrap().code, RefusalCode::NoCapacity);
    }
}
