//! What selectors, tolerations and terms mean: Kubernetes' rules, as predicates.

use std::collections::BTreeMap;

use super::pod::{Operator, Pod, PodTerm, Requirement, Selector, Taint, Toleration};
use super::problem::{ExistingNode, NodeOffer};

impl Requirement {
    /// Whether a thing whose label `key` has this value satisfies it.
    pub fn allows(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|one| one == value);
        let number = |text: &str| text.parse::<i64>().ok();
        let against = || Some((number(value?)?, number(self.values.first()?)?));
        match self.operator {
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt => against().is_some_and(|(value, bound)| value > bound),
            Operator::Lt => against().is_some_and(|(value, bound)| value < bound),
        }
    }
}

impl Selector {
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| requirement.allows(label(&requirement.key)))
    }

    pub fn matches_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches(|key| labels.get(key).map(String::as_str))
    }
}

impl Toleration {
    pub fn tolerates(&self, taint: &Taint) -> bool {
        let effect = self.effect.as_ref().is_none_or(|effect| *effect == taint.effect);
        let key = match &self.key {
            None => self.value.is_none(),
            Some(key) => *key == taint.key,
        };
        effect && key && self.value.as_ref().is_none_or(|value| *value == taint.value)
    }
}

impl PodTerm {
    /// Whether it speaks of this pod, when a pod of `namespace` carries the term.
    pub fn concerns(&self, namespace: &str, other_namespace: &str, other_labels: &BTreeMap<String, String>) -> bool {
        let in_scope = if self.namespaces.is_empty() { namespace == other_namespace } else { self.namespaces.contains(other_namespace) };
        in_scope && self.selector.matches_labels(other_labels)
    }
}

impl Pod {
    /// Whether its node selector and required node affinity allow a node with these labels.
    pub fn selects<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.node_selector.matches(&label) && (self.node_affinity.is_empty() || self.node_affinity.iter().any(|term| term.matches(&label)))
    }

    /// The first taint that keeps it away.
    pub fn untolerated<'t>(&self, taints: &'t [Taint]) -> Option<&'t Taint> {
        taints.iter().find(|taint| !self.tolerations.iter().any(|toleration| toleration.tolerates(taint)))
    }

    pub fn volumes_reach(&self, zone: &str) -> bool {
        self.volume_zones.as_ref().is_none_or(|zones| zones.contains(zone))
    }

    /// Labels, taints and volumes allow this offer; room and neighbours are not looked at.
    pub fn may_use(&self, offer: &NodeOffer) -> bool {
        self.selects(|key| offer.label(key)) && self.untolerated(&offer.taints).is_none() && self.volumes_reach(&offer.offer.zone)
    }

    /// The same of a node that stands.
    pub fn may_run_on(&self, node: &ExistingNode) -> bool {
        self.selects(|key| node.label(key)) && self.untolerated(&node.taints).is_none() && self.volumes_reach(&node.zone)
    }
}

impl ExistingNode {
    pub fn label(&self, key: &str) -> Option<&str> {
        match (self.labels.get(key), key) {
            (Some(value), _) => Some(value),
            (None, "topology.kubernetes.io/zone") => Some(&self.zone),
            (None, "kubernetes.io/hostname") => Some(&self.name),
            (None, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_mean_what_kubernetes_says() {
        let requirement = |operator, value: &str| Requirement { key: "k".into(), operator, values: vec![value.into()] };
        for (operator, value, absent, equal, above) in [
            (Operator::In, "5", false, true, false),
            (Operator::NotIn, "5", true, false, true),
            (Operator::Exists, "", false, true, true),
            (Operator::DoesNotExist, "", true, false, false),
            (Operator::Gt, "5", false, false, true),
            (Operator::Lt, "5", false, false, false),
        ] {
            let requirement = requirement(operator, value);
            assert_eq!([requirement.allows(None), requirement.allows(Some("5")), requirement.allows(Some("6"))], [absent, equal, above], "{operator:?}");
        }
    }

    #[test]
    fn a_toleration_without_key_tolerates_everything() {
        let taint = Taint { key: "gpu".into(), value: "yes".into(), effect: "NoSchedule".into() };
        let toleration = |key: Option<&str>, value: Option<&str>, effect: Option<&str>| Toleration {
            key: key.map(str::to_owned),
            value: value.map(str::to_owned),
            effect: effect.map(str::to_owned),
        };
        assert!(toleration(None, None, None).tolerates(&taint));
        assert!(toleration(Some("gpu"), Some("yes"), None).tolerates(&taint));
        assert!(!toleration(Some("gpu"), Some("no"), None).tolerates(&taint));
        assert!(!toleration(Some("gpu"), None, Some("NoExecute")).tolerates(&taint));
    }
}
