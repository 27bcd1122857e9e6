//! Node objects: adopted by claims, kept from new pods, removed; and whole nodes taken for provider `nodes`.
//!
//! Every patch names the resourceVersion that was read, so that labels and taints of others are never lost.

use k8s_openapi::api::core::v1::{Node, Taint};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::ResourceExt;
use serde_json::json;

use super::super::effects::{Effect, perform};
use super::super::names::label_value;
use super::claims::refused;
use super::{Applied, ApplyError, Hands, Result, doing, dropped, is_conflict, is_not_found, tolerate};
use crate::api::{CapacityClaim, FIELD_MANAGER, labels};
use crate::capacity::claim::ClaimStatus;
use crate::capacity::{ClaimPhase, ClaimRecord, ClaimedInstance, RefusalCode};

const NO_SCHEDULE: &str = "NoSchedule";

impl Hands {
    pub(super) async fn adopt_node(&self, claim: &str, uid: &str, node: &str, instance: &str) -> Result {
        let Some(pool) = self.pool_of_live_claim(claim, uid).await? else { return dropped(format!("claim {claim} is gone")) };
        let Some(live) = self.live_node(node).await? else { return dropped(format!("node {node} is gone")) };
        if !is_machine(&live, instance) {
            return dropped(format!("node {node} is another machine now"));
        }
        if live.labels().get(labels::CLAIM).is_some_and(|other| other != claim) {
            return dropped(format!("node {node} belongs to another claim"));
        }
        self.mark(Effect::AdoptNode, &live, claim, &pool).await
    }

    pub(super) async fn taint_node(&self, node: &str) -> Result {
        let Some(live) = self.live_node(node).await? else { return dropped(format!("node {node} is gone")) };
        let mut taints = taints_of(&live);
        if taints.iter().any(|taint| taint.key == labels::LEAVING_TAINT) {
            return Ok(Applied::Done);
        }
        taints.push(taint(labels::LEAVING_TAINT, None));
        self.patch_node(Effect::TaintNode, &live, json!({"spec": {"taints": taints}})).await
    }

    pub(super) async fn remove_node(&self, node: &str, instance: &str) -> Result {
        let Some(live) = self.live_node(node).await? else { return Ok(Applied::Done) };
        if !is_machine(&live, instance) {
            return dropped(format!("node {node} is another machine now"));
        }
        let params = DeleteParams::default().preconditions(Preconditions { uid: live.uid(), resource_version: None });
        let harmless = |error: &kube::Error| is_not_found(error) || is_conflict(error);
        let removed = perform(Effect::RemoveNode, async { tolerate(self.nodes().delete(node, &params).await, harmless) });
        removed.await.map_err(doing(format!("remove node {node}")))?;
        Ok(Applied::Done)
    }

    /// AskCloud for provider `nodes`: all of the chosen nodes or none.
    pub(super) async fn take_nodes(&self, claim: &str, record: &ClaimRecord) -> Result<ClaimStatus> {
        let mut taken = Vec::new();
        for name in &record.nodes {
            match self.take_node(claim, name, &record.pool).await? {
                Ok(id) => taken.push((id, name)),
                Err(why) => {
                    for (_, name) in taken {
                        self.give_back_node(claim, name).await?;
                    }
                    return Ok(refused(RefusalCode::NodesTaken, why, self.clock.now()));
                }
            }
        }
        let now = self.clock.now();
        let instances = taken.into_iter().map(|(id, name)| ClaimedInstance {
            id,
            node: Some(name.clone()),
            launched_at: now,
            running_at: Some(now),
            notice: None,
            seen_alive_at: Some(now),
            release_asked_at: None,
            end: None,
        });
        Ok(ClaimStatus { phase: ClaimPhase::Granted, instances: instances.collect(), ..ClaimStatus::default() })
    }

    /// The machine's id, or why the node cannot be had.
    async fn take_node(&self, claim: &str, name: &str, pool: &str) -> Result<std::result::Result<String, String>> {
        let Some(live) = self.live_node(name).await? else { return Ok(Err(format!("node {name} is gone"))) };
        match live.labels().get(labels::CLAIM) {
            Some(owner) if owner == claim => return Ok(Ok(machine_id(&live))),
            Some(owner) => return Ok(Err(format!("node {name} belongs to claim {owner}"))),
            None => {}
        }
        if live.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false) {
            return Ok(Err(format!("node {name} is cordoned")));
        }
        match self.mark(Effect::AskCloud, &live, claim, pool).await? {
            Applied::Done => Ok(Ok(machine_id(&live))),
            Applied::Dropped(why) => Ok(Err(why)),
        }
    }

    /// Release for provider `nodes`.
    pub(super) async fn give_back_nodes(&self, name: &str, claim: &CapacityClaim, instances: &[String]) -> Result<()> {
        let status = claim.status.clone().unwrap_or_default();
        for instance in status.instances.iter().filter(|instance| instances.contains(&instance.id)) {
            if let Some(node) = &instance.node {
                self.give_back_node(name, node).await?;
            }
        }
        Ok(())
    }

    async fn give_back_node(&self, claim: &str, node: &str) -> Result<()> {
        let Some(live) = self.live_node(node).await? else { return Ok(()) };
        if live.labels().get(labels::CLAIM).is_none_or(|owner| owner != claim) {
            return Ok(());
        }
        let ours = [labels::CLAIM, labels::LEAVING_TAINT];
        let taints: Vec<Taint> = taints_of(&live).into_iter().filter(|taint| !ours.contains(&taint.key.as_str())).collect();
        let patch = json!({"metadata": {"labels": {labels::CLAIM: null, labels::POOL: null}}, "spec": {"taints": taints}});
        match self.patch_node(Effect::ReleaseMachines, &live, patch).await? {
            Applied::Done => Ok(()),
            Applied::Dropped(why) => Err(ApplyError::Contended { doing: format!("give node {node} back ({why})") }),
        }
    }

    /// Label and taint in one patch: the scheduler never sees the one without the other.
    async fn mark(&self, effect: Effect, live: &Node, claim: &str, pool: &str) -> Result {
        let ours = [labels::CLAIM, labels::UNCLAIMED_TAINT];
        let mut taints: Vec<Taint> = taints_of(live).into_iter().filter(|taint| !ours.contains(&taint.key.as_str())).collect();
        taints.push(taint(labels::CLAIM, Some(claim)));
        let marks = json!({labels::CLAIM: claim, labels::POOL: label_value(pool)});
        self.patch_node(effect, live, json!({"metadata": {"labels": marks}, "spec": {"taints": taints}})).await
    }

    async fn patch_node(&self, effect: Effect, live: &Node, mut patch: serde_json::Value) -> Result {
        let name = live.name_any();
        patch["metadata"]["resourceVersion"] = json!(live.resource_version());
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match perform(effect, self.nodes().patch(&name, &params, &Patch::Merge(&patch))).await {
            Ok(_) => Ok(Applied::Done),
            Err(error) if is_conflict(&error) || is_not_found(&error) => dropped(format!("node {name} changed meanwhile")),
            Err(error) => Err(doing(format!("mark node {name}"))(error)),
        }
    }

    async fn live_node(&self, name: &str) -> Result<Option<Node>> {
        self.nodes().get_opt(name).await.map_err(doing(format!("read node {name}")))
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }
}

/// `aws:///us-east-1a/i-…` is machine `i-…`.
fn is_machine(node: &Node, instance: &str) -> bool {
    let id = machine_id(node);
    id == instance || id.rsplit('/').next() == Some(instance)
}

/// A node's providerID, or its name where it has none.
pub(in crate::kubernetes) fn machine_id(node: &Node) -> String {
    node.spec.as_ref().and_then(|spec| spec.provider_id.clone()).unwrap_or_else(|| node.name_any())
}

fn taints_of(node: &Node) -> Vec<Taint> {
    node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default()
}

fn taint(key: &str, value: Option<&str>) -> Taint {
    Taint { key: key.to_owned(), value: value.map(str::to_owned), effect: NO_SCHEDULE.to_owned(), time_added: None }
}
