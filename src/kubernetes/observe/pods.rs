//! Pods with the label of a pool → [`PodView`]: who waits, who is where, what each asks of a node. Pure.
//!
//! Preferences are not read: only what would keep kube-scheduler from a node. What cannot be honoured is said instead, and
//! the pod waits with that reason.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim, Pod, PodAffinityTerm, PodSpec, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;

use super::super::apply::is_gated;
use super::nodes::ZONE;
use super::quantity::Amount;
use crate::api::conditions::core_time;
use crate::api::labels;
use crate::capacity::PodRef;
use crate::scheduling::packing::{self, Operator, PodTerm, Requirement, Resources, Selector, Spread, Topology};
use crate::scheduling::pods::HOSTNAME;
use crate::scheduling::snapshot::{DisruptionBudget, PodView};
use crate::units::Span;

/// Counted by nodes, but not known of a machine before it is there.
const EPHEMERAL: &str = "ephemeral-storage";
/// A pod that says nothing of it starts within a minute.
const RESTART_USUAL: Span = Span::minutes(1);
const ZONE_KEYS: [&str; 3] = [ZONE, "topology.ebs.csi.aws.com/zone", "failure-domain.beta.kubernetes.io/zone"];

/// Zones of bound volume claims, by (namespace, name).
pub struct VolumeZones(BTreeMap<(String, String), BTreeSet<String>>);

impl VolumeZones {
    pub fn of(claims: &[PersistentVolumeClaim], volumes: &[PersistentVolume]) -> VolumeZones {
        let by_name: BTreeMap<String, BTreeSet<String>> = volumes.iter().filter_map(|volume| Some((volume.name_any(), zones_of(volume)?))).collect();
        let bound = |claim: &PersistentVolumeClaim| {
            let zones = by_name.get(claim.spec.as_ref()?.volume_name.as_ref()?)?;
            Some(((claim.namespace().unwrap_or_default(), claim.name_any()), zones.clone()))
        };
        VolumeZones(claims.iter().filter_map(bound).collect())
    }
}

/// `None`: it can be attached anywhere.
fn zones_of(volume: &PersistentVolume) -> Option<BTreeSet<String>> {
    let terms = &volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?.node_selector_terms;
    let zones = |term: &NodeSelectorTerm| {
        let expressions = term.match_expressions.clone().unwrap_or_default();
        expressions.into_iter().find(|one| ZONE_KEYS.contains(&one.key.as_str()) && one.operator == "In").and_then(|one| one.values)
    };
    let listed: Option<Vec<Vec<String>>> = terms.iter().map(zones).collect();
    listed.map(|zones| zones.into_iter().flatten().collect())
}

/// Pods of DaemonSets and of jobs are not for a pool's fleet, whatever their labels.
pub fn views<'a>(pods: impl IntoIterator<Item = &'a Pod>, volumes: &VolumeZones) -> Vec<PodView> {
    let is_for_a_pool = |pod: &&Pod| !pod.labels().contains_key(labels::JOB_UID) && !is_of_daemon_set(pod);
    let mut views: Vec<PodView> = pods.into_iter().filter(is_for_a_pool).filter_map(|pod| view(pod, volumes)).collect();
    // The same pods make the same plan, in whatever order a cache tells them.
    views.sort_by(|left, right| left.id.cmp(&right.id));
    views
}

pub fn is_of_daemon_set(pod: &Pod) -> bool {
    pod.owner_references().iter().any(|owner| owner.kind == "DaemonSet" && owner.controller.unwrap_or(false))
}

fn view(pod: &Pod, volumes: &VolumeZones) -> Option<PodView> {
    let spec = pod.spec.as_ref()?;
    let gated = is_gated(pod);
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let hostname = spec.node_selector.as_ref().and_then(|selector| selector.get(HOSTNAME)).cloned();
    let needs = match &hostname {
        Some(node) if gated => Err(format!("its node selector names the node {node}; leave {HOSTNAME} to purser")),
        _ => needs(pod, spec, volumes),
    };
    Some(PodView {
        id: PodRef { namespace: pod.namespace()?, name: pod.name_any(), uid: pod.uid()? },
        pool: pod.labels().get(labels::POOL)?.clone(),
        gated,
        bound_to: spec.node_name.clone().filter(|node| !node.is_empty()),
        pinned_to: hostname,
        finished: matches!(phase, Some("Succeeded" | "Failed")),
        deleting: pod.metadata.deletion_timestamp.is_some(),
        created_at_real: pod.creation_timestamp().as_ref().map(core_time)?,
        needs,
        move_loses: move_loses(pod),
    })
}

/// The time that is lost when the pod has to start elsewhere; `None` where it must stay: nobody would make another, somebody said
/// so, or all its work since the start would be lost.
fn move_loses(pod: &Pod) -> Option<Span> {
    let controller = pod.owner_references().iter().find(|owner| owner.controller.unwrap_or(false))?;
    let said = |key: &str, value: &str| pod.annotations().get(key).is_some_and(|found| found == value);
    if said("karpenter.sh/do-not-disrupt", "true") || said("cluster-autoscaler.kubernetes.io/safe-to-evict", "false") {
        return None;
    }
    let stated = |key: &str| pod.annotations().get(key).and_then(|text| text.parse::<Span>().ok());
    let between_saves = stated(labels::CHECKPOINT_INTERVAL);
    if controller.kind == "Job" && between_saves.is_none() {
        return None;
    }
    let restart = stated(labels::RESTART_OVERHEAD).unwrap_or(RESTART_USUAL).delta();
    // On average half the time between two saves.
    Some(Span::from_delta(restart + between_saves.map(|span| span.delta() / 2).unwrap_or_default()))
}

/// Budgets that select pods in words that are understood; the Eviction API knows them all.
pub fn disruption_budgets(budgets: &[PodDisruptionBudget]) -> Vec<DisruptionBudget> {
    let of = |budget: &PodDisruptionBudget| {
        let selected = selector(budget.spec.as_ref()?.selector.as_ref()?).ok()?;
        let left = budget.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or_default();
        Some(DisruptionBudget { namespace: budget.namespace()?, selector: selected, left: u32::try_from(left).unwrap_or_default() })
    };
    budgets.iter().filter_map(of).collect()
}

fn needs(pod: &Pod, spec: &PodSpec, volumes: &VolumeZones) -> Result<packing::Pod, String> {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    if containers.flat_map(|container| container.ports.iter().flatten()).any(|port| port.host_port.is_some_and(|port| port > 0)) {
        return Err("it asks for a port of its node, which purser does not plan; use a Service".to_owned());
    }
    let affinity = spec.affinity.clone().unwrap_or_default();
    let near = affinity.pod_affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution).unwrap_or_default();
    let apart = affinity.pod_anti_affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution).unwrap_or_default();
    let terms = affinity.node_affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution);
    let terms = terms.map(|selector| selector.node_selector_terms).unwrap_or_default();
    let selector = spec.node_selector.iter().flatten().filter(|(key, _)| *key != HOSTNAME);
    let namespace = pod.namespace().unwrap_or_default();
    Ok(packing::Pod {
        requests: requests(spec)?,
        node_selector: Selector::labels(selector.map(|(key, value)| (key.as_str(), value.as_str()))),
        node_affinity: terms.iter().map(node_term).collect::<Result<_, _>>()?,
        tolerations: spec.tolerations.iter().flatten().map(toleration).collect(),
        volume_zones: volume_zones(spec, &namespace, volumes),
        spread: spread(pod, spec)?,
        affinity: near.iter().filter_map(|term| pod_term(term).transpose()).collect::<Result<_, _>>()?,
        anti_affinity: apart.iter().filter_map(|term| pod_term(term).transpose()).collect::<Result<_, _>>()?,
        labels: pod.labels().clone(),
        name: pod.name_any(),
        namespace,
    })
}

// — resources —

type Quantities = BTreeMap<String, Quantity>;

/// As the scheduler counts: containers and sidecars together, or the largest moment of the start, whichever is more; and the
/// runtime's overhead. What the pod asks for as a whole takes the place of its containers' sum.
fn requests(spec: &PodSpec) -> Result<Resources, String> {
    let mut running = Resources::default();
    for container in &spec.containers {
        running = running.plus(&of_container(container)?);
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for init in spec.init_containers.iter().flatten() {
        let own = of_container(init)?;
        if init.restart_policy.as_deref() == Some("Always") {
            sidecars = sidecars.plus(&own);
            starting = larger(&starting, &sidecars);
        } else {
            starting = larger(&starting, &sidecars.plus(&own));
        }
    }
    let mut all = larger(&running.plus(&sidecars), &starting);
    if let Some(whole) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        let stated = resources(whole)?;
        all.cpu_milli = if whole.contains_key("cpu") { stated.cpu_milli } else { all.cpu_milli };
        all.memory_bytes = if whole.contains_key("memory") { stated.memory_bytes } else { all.memory_bytes };
    }
    Ok(all.plus(&spec.overhead.as_ref().map(resources).transpose()?.unwrap_or_default()))
}

fn of_container(container: &Container) -> Result<Resources, String> {
    container.resources.as_ref().and_then(|wanted| wanted.requests.as_ref()).map_or_else(|| Ok(Resources::default()), resources)
}

fn resources(quantities: &Quantities) -> Result<Resources, String> {
    let mut sum = Resources::default();
    for (name, quantity) in quantities {
        let amount = Amount::of(quantity).ok_or_else(|| format!("its request of {name} is {:?}, which is no quantity", quantity.0))?;
        match name.as_str() {
            "cpu" => sum.cpu_milli = amount.milli_up(),
            "memory" => sum.memory_bytes = amount.up(),
            EPHEMERAL => {}
            _ => drop(sum.extended.insert(name.clone(), amount.up())),
        }
    }
    Ok(sum)
}

/// A node's allocatable, in the same words; and how many pods it takes.
pub fn allocatable(quantities: &Quantities) -> (Resources, u32) {
    let mut sum = Resources::default();
    let mut pods = u32::MAX;
    for (name, quantity) in quantities {
        let Some(amount) = Amount::of(quantity) else { continue };
        match name.as_str() {
            "cpu" => sum.cpu_milli = amount.milli_down(),
            "memory" => sum.memory_bytes = amount.down(),
            "pods" => pods = u32::try_from(amount.down()).unwrap_or(u32::MAX),
            EPHEMERAL => {}
            _ => drop(sum.extended.insert(name.clone(), amount.down())),
        }
    }
    (sum, pods)
}

fn larger(left: &Resources, right: &Resources) -> Resources {
    let mut most = left.clone();
    most.cpu_milli = most.cpu_milli.max(right.cpu_milli);
    most.memory_bytes = most.memory_bytes.max(right.memory_bytes);
    for (name, amount) in &right.extended {
        let entry = most.extended.entry(name.clone()).or_default();
        *entry = (*entry).max(*amount);
    }
    most
}

// — places —

fn volume_zones(spec: &PodSpec, namespace: &str, volumes: &VolumeZones) -> Option<BTreeSet<String>> {
    let claims = spec.volumes.iter().flatten().filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.clone()));
    let bound = claims.filter_map(|name| volumes.0.get(&(namespace.to_owned(), name)).cloned());
    bound.reduce(|left, right| left.intersection(&right).cloned().collect())
}

fn node_term(term: &NodeSelectorTerm) -> Result<Selector, String> {
    if term.match_fields.as_ref().is_some_and(|fields| !fields.is_empty()) {
        return Err("its node affinity names nodes (matchFields); let it name labels".to_owned());
    }
    let expressions = term.match_expressions.iter().flatten();
    let requirements = expressions.map(|one| Ok(Requirement { key: one.key.clone(), operator: operator(&one.operator)?, values: one.values.clone().unwrap_or_default() }));
    Ok(Selector { requirements: requirements.collect::<Result<_, String>>()? })
}

fn operator(word: &str) -> Result<Operator, String> {
    Ok(match word {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::Gt,
        "Lt" => Operator::Lt,
        other => return Err(format!("purser does not know the operator {other}")),
    })
}

fn toleration(toleration: &Toleration) -> packing::Toleration {
    let exists = toleration.operator.as_deref() == Some("Exists");
    packing::Toleration {
        key: toleration.key.clone().filter(|key| !key.is_empty()),
        value: (!exists).then(|| toleration.value.clone().unwrap_or_default()),
        effect: toleration.effect.clone().filter(|effect| !effect.is_empty()),
    }
}

// — neighbours —

fn topology(key: &str) -> Result<Topology, String> {
    match key {
        HOSTNAME => Ok(Topology::Hostname),
        ZONE => Ok(Topology::Zone),
        other => Err(format!("purser plans over {HOSTNAME} and {ZONE}, not over {other}")),
    }
}

fn spread(pod: &Pod, spec: &PodSpec) -> Result<Vec<Spread>, String> {
    let strict = spec.topology_spread_constraints.iter().flatten().filter(|one| one.when_unsatisfiable == "DoNotSchedule");
    strict.map(|constraint| spread_of(pod, constraint)).collect()
}

fn spread_of(pod: &Pod, constraint: &TopologySpreadConstraint) -> Result<Spread, String> {
    let topology = topology(&constraint.topology_key)?;
    if topology == Topology::Zone && constraint.min_domains.is_some_and(|least| least > 1) {
        return Err("its topology spread has minDomains, which a pod that is let go to one node cannot keep; leave it out".to_owned());
    }
    let mut selector = constraint.label_selector.as_ref().map(selector).transpose()?.unwrap_or_default();
    for key in constraint.match_label_keys.iter().flatten() {
        let values: Vec<String> = pod.labels().get(key).cloned().into_iter().collect();
        selector.requirements.push(Requirement { key: key.clone(), operator: Operator::In, values });
    }
    Ok(Spread { topology, skew_max: u32::try_from(constraint.max_skew).unwrap_or(1).max(1), selector })
}

/// `None`: a term without selector matches no pod.
fn pod_term(term: &PodAffinityTerm) -> Result<Option<PodTerm>, String> {
    let Some(selected) = &term.label_selector else { return Ok(None) };
    if term.namespace_selector.is_some() {
        return Err("its pod affinity selects namespaces by label; let it name them".to_owned());
    }
    let namespaces = term.namespaces.iter().flatten().cloned().collect();
    Ok(Some(PodTerm { topology: topology(&term.topology_key)?, selector: selector(selected)?, namespaces }))
}

fn selector(selector: &LabelSelector) -> Result<Selector, String> {
    let mut all = Selector::labels(selector.match_labels.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())));
    for one in selector.match_expressions.iter().flatten() {
        all.requirements.push(Requirement { key: one.key.clone(), operator: operator(&one.operator)?, values: one.values.clone().unwrap_or_default() });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
                         "labels": {"purser.dev/pool": "general", "app": "web", "pod-template-hash": "x"}},
            "spec": spec
        }))
        .unwrap()
    }

    fn seen(spec: Value) -> PodView {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({"metadata": {"name": "data", "namespace": "shop"}, "spec": {"volumeName": "pv-1"}})).unwrap();
        let volume: PersistentVolume = serde_json::from_value(json!({"metadata": {"name": "pv-1"}, "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "topology.ebs.csi.aws.com/zone", "operator": "In", "values": ["us-east-1b"]}]}]}}}}))
        .unwrap();
        views(&[pod(spec)], &VolumeZones::of(&[claim], &[volume])).remove(0)
    }

    fn container(cpu: &str, memory: &str) -> Value {
        json!({"name": format!("c{cpu}"), "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    #[test]
    fn a_pod_asks_for_its_largest_moment() {
        let mut sidecar = container("100m", "64Mi");
        sidecar["restartPolicy"] = json!("Always");
        let view = seen(json!({
            "containers": [container("500m", "128Mi"), container("0.25", "128Mi")],
            "initContainers": [sidecar, container("2", "1Mi")],
            "overhead": {"cpu": "10m"}
        }));
        let needs = view.needs.unwrap();
        assert_eq!((needs.requests.cpu_milli, needs.requests.memory_bytes), (2_110, 320 << 20), "the start needs more CPU, the run more memory");
    }

    #[test]
    fn what_keeps_a_pod_from_nodes_is_read() {
        let view = seen(json!({
            "schedulingGates": [{"name": "purser.dev/capacity"}],
            "containers": [{"name": "web", "resources": {"requests": {"nvidia.com/gpu": "1", "ephemeral-storage": "1Gi"}}}],
            "nodeSelector": {"kubernetes.io/arch": "amd64"},
            "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}],
            "tolerations": [{"operator": "Exists"}],
            "topologySpreadConstraints": [
                {"maxSkew": 2, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
                 "labelSelector": {"matchLabels": {"app": "web"}}, "matchLabelKeys": ["pod-template-hash"]},
                {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "ScheduleAnyway"}],
            "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]}}
        }));
        assert!(view.is_held_back());
        let needs = view.needs.unwrap();
        assert_eq!(needs.requests.extended, BTreeMap::from([("nvidia.com/gpu".to_owned(), 1)]));
        assert_eq!(needs.volume_zones, Some(BTreeSet::from(["us-east-1b".to_owned()])));
        assert_eq!((needs.spread.len(), needs.spread[0].skew_max, needs.spread[0].selector.requirements.len()), (1, 2, 2));
        assert_eq!(needs.anti_affinity[0].topology, Topology::Hostname);
        assert_eq!(needs.tolerations[0], packing::Toleration { key: None, value: None, effect: None });
    }

    #[test]
    fn what_cannot_be_honoured_is_said() {
        let gated = |mut spec: Value| {
            spec["schedulingGates"] = json!([{"name": "purser.dev/capacity"}]);
            spec["containers"] = spec.get("containers").cloned().unwrap_or(json!([]));
            seen(spec).needs.unwrap_err()
        };
        assert!(gated(json!({"nodeSelector": {"kubernetes.io/hostname": "n1"}})).contains("n1"));
        assert!(gated(json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]})).contains("port"));
        let spread = json!([{"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}]);
        assert!(gated(json!({"topologySpreadConstraints": spread})).contains("not over rack"));
    }

    #[test]
    fn only_what_somebody_makes_anew_without_losing_its_work_may_move() {
        let owned = |kind: &str, annotations: Value| {
            let mut owned = pod(json!({"containers": []}));
            owned.metadata.owner_references = Some(vec![serde_json::from_value(json!({"apiVersion": "v1", "kind": kind, "name": "o", "uid": "o", "controller": true})).unwrap()]);
            owned.metadata.annotations = serde_json::from_value(annotations).unwrap();
            move_loses(&owned)
        };
        assert_eq!(move_loses(&pod(json!({"containers": []}))), None, "a bare pod would be gone");
        assert_eq!(owned("ReplicaSet", json!({})), Some(Span::minutes(1)));
        assert_eq!(owned("ReplicaSet", json!({"karpenter.sh/do-not-disrupt": "true"})), None);
        assert_eq!(owned("Job", json!({})), None, "its work would be lost");
        assert_eq!(owned("Job", json!({"purser.dev/checkpoint-interval": "10m", "purser.dev/restart-overhead": "3m"})), Some(Span::minutes(8)));
    }

    #[test]
    fn pods_of_daemon_sets_are_on_every_node_and_in_no_plan() {
        let mut daemon = pod(json!({"containers": []}));
        daemon.metadata.owner_references = Some(vec![serde_json::from_value(json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "uid": "d", "controller": true})).unwrap()]);
        assert!(views(&[daemon], &VolumeZones::of(&[], &[])).is_empty());
    }
}
