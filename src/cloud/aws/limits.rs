//! How many more machines could be had: vCPU quotas less what runs, and free addresses of subnets.
//!
//! EC2 counts vCPUs by class of family and by market: `Running On-Demand G and VT instances`, `All P5 Spot Instance
//! Requests`. The classes are read from the quotas' names, because AWS adds and splits them now and then.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_ec2::types::{Instance, InstanceLifecycleType};
use aws_sdk_servicequotas::types::ServiceQuota;

use super::failure::{Optional, optional};
use super::machines::filter;
use super::region::AwsRegion;
use crate::capacity::CapacityKind;

/// vCPUs that may run at once, of a class of families in one market.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Quota {
    pub name: String,
    market: QuotaMarket,
    /// Family prefixes in small letters: `g`, `vt`, `p5`.
    families: Vec<String>,
    pub vcpus_max: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum QuotaMarket {
    OnDemand,
    Spot,
}

impl QuotaMarket {
    /// The market whose quota a launch counts against. Reserved machines count nowhere again: their reservation already does.
    pub fn of(kind: CapacityKind) -> Option<QuotaMarket> {
        match kind {
            CapacityKind::Reserved => None,
            CapacityKind::OnDemand => Some(QuotaMarket::OnDemand),
            CapacityKind::Spot => Some(QuotaMarket::Spot),
        }
    }
}

/// vCPUs that run or start, by type and market, whoever runs them.
pub(super) type VcpusInUse = HashMap<(String, QuotaMarket), u32>;

impl AwsRegion {
    pub(super) async fn quotas(&self) -> Optional<Arc<Vec<Quota>>> {
        self.known.quotas.get_optional((), || self.load_quotas()).await
    }

    async fn load_quotas(&self) -> Optional<Arc<Vec<Quota>>> {
        let answer: Result<Vec<_>, _> = self.quotas.list_service_quotas().service_code("ec2").into_paginator().items().send().collect().await;
        Ok(Arc::new(optional("vCPU quotas", answer)?.iter().filter_map(quota_of).collect()))
    }

    pub(super) async fn vcpus_in_use(&self) -> Optional<Arc<VcpusInUse>> {
        self.known.vcpus_in_use.get_optional((), || self.load_vcpus_in_use()).await
    }

    async fn load_vcpus_in_use(&self) -> Optional<Arc<VcpusInUse>> {
        let machines = self.machines().await.map_err(|error| error.to_string())?;
        let request = self.ec2.describe_instances().filters(filter("instance-state-name", ["pending", "running"]));
        let answer: Result<Vec<_>, _> = request.into_paginator().items().send().collect().await;
        let mut in_use = VcpusInUse::new();
        for instance in optional("vCPUs in use", answer)?.iter().flat_map(|reservation| reservation.instances()) {
            let Some(name) = instance.instance_type().map(|name| name.as_str()) else { continue };
            let vcpu = machines.get(name).map_or(0, |machine| machine.what.vcpu);
            *in_use.entry((name.to_owned(), market_of(instance))).or_default() += vcpu;
        }
        Ok(Arc::new(in_use))
    }

    /// Free addresses by subnet.
    pub(super) async fn free_addresses(&self, subnets: Vec<String>) -> Optional<Arc<HashMap<String, u32>>> {
        self.known.addresses.get_optional(subnets.clone(), || self.load_free_addresses(subnets)).await
    }

    async fn load_free_addresses(&self, subnets: Vec<String>) -> Optional<Arc<HashMap<String, u32>>> {
        let answer: Result<Vec<_>, _> = self.ec2.describe_subnets().set_subnet_ids(Some(subnets)).into_paginator().items().send().collect().await;
        let free = |subnet: &aws_sdk_ec2::types::Subnet| Some((subnet.subnet_id()?.to_owned(), u32::try_from(subnet.available_ip_address_count()?).ok()?));
        Ok(Arc::new(optional("free addresses of the subnets", answer)?.iter().filter_map(free).collect()))
    }
}

fn market_of(instance: &Instance) -> QuotaMarket {
    if instance.instance_lifecycle() == Some(&InstanceLifecycleType::Spot) { QuotaMarket::Spot } else { QuotaMarket::OnDemand }
}

fn quota_of(described: &ServiceQuota) -> Option<Quota> {
    let (name, value) = (described.quota_name()?, described.value()?);
    let on_demand = name.strip_prefix("Running On-Demand ").and_then(|rest| rest.strip_suffix(" instances"));
    let spot = name.strip_prefix("All ").and_then(|rest| rest.strip_suffix(" Spot Instance Requests"));
    let (market, class) = match (on_demand, spot) {
        (Some(class), _) => (QuotaMarket::OnDemand, class),
        (None, Some(class)) => (QuotaMarket::Spot, class),
        (None, None) => return None,
    };
    let words = class.split(|separator: char| !separator.is_ascii_alphanumeric()).filter(|word| !["", "and", "Standard"].contains(word));
    // A quota is a whole number of vCPUs; a cast of a float saturates.
    Some(Quota { name: format!("quota \"{name}\""), market, families: words.map(str::to_ascii_lowercase).collect(), vcpus_max: value as u32 })
}

/// The quota that a type counts against: the one which names the longest beginning of it (`p5` before `p`, `trn` before `t`).
pub(super) fn quota_for<'a>(quotas: &'a [Quota], instance_type: &str, market: QuotaMarket) -> Option<&'a Quota> {
    let matched = |quota: &Quota| quota.families.iter().filter(|family| instance_type.starts_with(family.as_str())).map(String::len).max();
    quotas.iter().filter(|quota| quota.market == market).filter_map(|quota| Some((matched(quota)?, quota))).max_by_key(|(length, _)| *length).map(|(_, quota)| quota)
}

/// Machines of a type that still fit under its quota.
pub(super) fn machines_under(quota: &Quota, quotas: &[Quota], in_use: &VcpusInUse, vcpu: u32) -> u32 {
    let counts = |name: &str, market: QuotaMarket| market == quota.market && quota_for(quotas, name, market).is_some_and(|other| other.name == quota.name);
    let used: u32 = in_use.iter().filter(|((name, market), _)| counts(name, *market)).map(|(_, vcpus)| *vcpus).sum();
    quota.vcpus_max.saturating_sub(used) / vcpu.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas() -> Vec<Quota> {
        let quota = |name: &str, value: f64| quota_of(&ServiceQuota::builder().quota_name(name).value(value).build());
        [
            ("Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", 100.0),
            ("Running On-Demand G and VT instances", 64.0),
            ("Running On-Demand P instances", 192.0),
            ("Running On-Demand DL instances", 96.0),
            ("Running On-Demand Trn instances", 8.0),
            ("All G and VT Spot Instance Requests", 32.0),
            ("All P4, P3 and P2 Spot Instance Requests", 96.0),
            ("All P5 Spot Instance Requests", 0.0),
            ("EC2-VPC Elastic IPs", 5.0),
        ]
        .into_iter()
        .filter_map(|(name, value)| quota(name, value))
        .collect()
    }

    fn counted(name: &str, market: QuotaMarket) -> Option<u32> {
        quota_for(&quotas(), name, market).map(|quota| quota.vcpus_max)
    }

    #[test]
    fn each_type_counts_against_the_quota_of_its_class() {
        assert_eq!(quotas().len(), 8);
        for (name, vcpus) in [("m5.large", 100), ("t3.micro", 100), ("gr6.4xlarge", 64), ("vt1.3xlarge", 64), ("p5.48xlarge", 192), ("dl1.24xlarge", 96), ("trn1.2xlarge", 8)] {
            assert_eq!(counted(name, QuotaMarket::OnDemand), Some(vcpus), "{name}");
        }
        assert_eq!(counted("p5en.48xlarge", QuotaMarket::Spot), Some(0));
        assert_eq!(counted("p4d.24xlarge", QuotaMarket::Spot), Some(96));
        assert_eq!(counted("u-6tb1.metal", QuotaMarket::OnDemand), None, "what no quota names is not bounded");
    }

    #[test]
    fn what_others_run_in_the_same_class_and_market_counts() {
        let quotas = quotas();
        let in_use = VcpusInUse::from([(("g4dn.xlarge".into(), QuotaMarket::OnDemand), 40), (("g5.xlarge".into(), QuotaMarket::Spot), 4), (("m5.large".into(), QuotaMarket::OnDemand), 90)]);
        let left = |market| machines_under(quota_for(&quotas, "g5.xlarge", market).unwrap(), &quotas, &in_use, 4);
        assert_eq!((left(QuotaMarket::OnDemand), left(QuotaMarket::Spot)), (6, 7));
    }
}
