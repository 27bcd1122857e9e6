//! Pods that wait for capacity: let go to the node that was planned for them, or asked to leave one.
//!
//! While a pod is gated Kubernetes lets its node selector be narrowed, and nothing schedules it; so pin and gate change in one
//! patch, and there is no moment at which the scheduler could put the pod elsewhere.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodSchedulingGate, Toleration};
use kube::api::{Api, DeleteParams, EvictParams, Patch, PatchParams, Preconditions};
use kube::core::DeserializeGuard;
use serde_json::json;

use super::super::effects::{Effect, perform};
use super::{Applied, Hands, Result, doing, dropped, is_conflict, is_not_found, status_of};
use crate::api::{FIELD_MANAGER, labels};
use crate::capacity::PodRef;
use crate::scheduling::pods::HOSTNAME;

impl Hands {
    /// Holds only against the pod that the plan was made from.
    pub(super) async fn place_pod(&self, pod: &PodRef, claim: &str, node: &str, hostname: &str, seen: Option<&Arc<DeserializeGuard<Pod>>>) -> Result {
        let Some(Ok(seen)) = seen.map(|seen| &seen.0) else { return dropped(format!("pod {pod} waits no more")) };
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = placement(seen, claim, hostname);
        match perform(Effect::PlacePod, self.pods_of(pod).patch_metadata(&pod.name, &params, &Patch::Merge(&patch))).await {
            Ok(_) => Ok(Applied::Done),
            Err(error) if is_conflict(&error) || is_not_found(&error) => dropped(format!("pod {pod} changed meanwhile")),
            Err(error) => Err(doing(format!("place pod {pod} on node {node}"))(error)),
        }
    }

    pub(super) async fn evict_pod(&self, pod: &PodRef, node: &str) -> Result {
        let only_this = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
        let params = EvictParams { delete_options: Some(DeleteParams::default().preconditions(only_this)), ..EvictParams::default() };
        match perform(Effect::EvictPod, self.pods_of(pod).evict(&pod.name, &params)).await {
            Ok(_) => Ok(Applied::Done),
            Err(error) if is_conflict(&error) || is_not_found(&error) => dropped(format!("pod {pod} is gone")),
            Err(error) if status_of(&error).is_some_and(|status| status.code == 429) => dropped(format!("the disruption budget of pod {pod} keeps it on {node}")),
            Err(error) => Err(doing(format!("evict pod {pod} from node {node}"))(error)),
        }
    }

    fn pods_of(&self, pod: &PodRef) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace)
    }
}

fn gates(pod: &Pod) -> &[PodSchedulingGate] {
    pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_deref()).unwrap_or_default()
}

pub fn is_gated(pod: &Pod) -> bool {
    gates(pod).iter().any(|gate| gate.name == labels::GATE)
}

/// The gates of others stay: each has its own reason.
fn placement(seen: &Pod, claim: &str, hostname: &str) -> serde_json::Value {
    let others: Vec<&PodSchedulingGate> = gates(seen).iter().filter(|gate| gate.name != labels::GATE).collect();
    let mut tolerations: Vec<Toleration> = seen.spec.as_ref().and_then(|spec| spec.tolerations.clone()).unwrap_or_default();
    tolerations.push(Toleration {
        key: Some(labels::CLAIM.to_owned()),
        operator: Some("Equal".to_owned()),
        value: Some(claim.to_owned()),
        effect: Some("NoSchedule".to_owned()),
        ..Toleration::default()
    });
    json!({
        "metadata": {"resourceVersion": seen.metadata.resource_version, "uid": seen.metadata.uid},
        "spec": {"nodeSelector": {HOSTNAME: hostname}, "tolerations": tolerations, "schedulingGates": others},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placed_pod_keeps_what_its_owner_wrote_and_the_gates_of_others() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7"},
            "spec": {"containers": [], "nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "gpu", "operator": "Exists"}],
                     "schedulingGates": [{"name": "purser.dev/capacity"}, {"name": "example.com/quota"}]}
        }))
        .unwrap();
        assert!(is_gated(&pod));
        let patch = placement(&pod, "claim-1", "ip-10-0-0-1");
        assert_eq!(patch["spec"]["schedulingGates"], json!([{"name": "example.com/quota"}]));
        assert_eq!(patch["spec"]["nodeSelector"], json!({"kubernetes.io/hostname": "ip-10-0-0-1"}), "a merge patch leaves the others");
        assert_eq!(patch["spec"]["tolerations"].as_array().unwrap().len(), 2);
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
    }
}
