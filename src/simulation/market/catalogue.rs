//! Markets from a price list: instance types with their resources and prices, as many machines as are asked for.
//!
//! JSON in the shape that Karpenter's kwok provider reads (`name`, `architecture`, `resources`, `offerings` with
//! `Requirements` on `topology.kubernetes.io/zone` and `karpenter.sh/capacity-type`). Its resources are what a node has for
//! pods, plus the [`KWOK_OVERHEAD`] that the provider takes off again; the machine behind it is the one of which
//! [`InstanceType::allocatable`] says just that.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::{MachineType, Market, Pool, PoolKey, Steps};
use crate::capacity::{InstanceType, catalogue};
use crate::units::MoneyPerHour;

/// Millicores and MiB that the kwok provider takes off every type.
const KWOK_OVERHEAD: (u64, u64) = (100, 10);
/// Machines of a type that a zone has on spot where it offers spot at all.
const SPOT_CAPACITY: u32 = 10_000;
const ZONE: &str = "topology.kubernetes.io/zone";
const KIND: &str = "karpenter.sh/capacity-type";
const GPU: &str = "nvidia.com/gpu";

#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("it is not the JSON list of instance types that Karpenter's kwok provider reads: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{instance_type}: {resource} is {text:?}; write a quantity such as 4, 3920m, 512Mi or 8Gi")]
    Quantity { instance_type: String, resource: &'static str, text: String },
    #[error("{instance_type}: the price {text} is no amount of dollars")]
    Price { instance_type: String, text: String },
    #[error("it lists no instance type that can be had")]
    Empty,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    #[serde(default)]
    architecture: String,
    resources: BTreeMap<String, String>,
    offerings: Vec<Offering>,
}

#[derive(Deserialize)]
struct Offering {
    #[serde(rename = "Price")]
    price: serde_json::Number,
    #[serde(rename = "Available", default)]
    available: bool,
    #[serde(rename = "Requirements", default)]
    requirements: Vec<Requirement>,
}

#[derive(Deserialize)]
struct Requirement {
    key: String,
    #[serde(default)]
    values: Vec<String>,
}

impl Offering {
    fn values(&self, key: &str) -> &[String] {
        self.requirements.iter().find(|one| one.key == key).map_or(&[], |one| &one.values)
    }

    fn is_of_kind(&self, kind: &str) -> bool {
        self.values(KIND).iter().any(|value| value == kind)
    }
}

pub fn market(name: &str, text: &str, epoch: DateTime<Utc>) -> Result<Market, CatalogueError> {
    let listed: Vec<Listed> = serde_json::from_str(text)?;
    let mut market = Market { name: name.to_owned(), epoch, types: BTreeMap::new(), pools: BTreeMap::new(), reservations: Vec::new() };
    for one in &listed {
        let Some(on_demand) = one.offerings.iter().find(|offering| offering.available && offering.is_of_kind("on-demand")) else { continue };
        let machine = MachineType { machine: machine(one)?, gpu_memory_mib: 0, on_demand: price(one, on_demand)? };
        for zone in on_demand.values(ZONE) {
            market.pools.insert(PoolKey::new(&one.name, zone), pool(one, &machine, zone)?);
        }
        market.types.insert(one.name.clone(), machine);
    }
    if market.pools.is_empty() { Err(CatalogueError::Empty) } else { Ok(market) }
}

fn pool(one: &Listed, machine: &MachineType, zone: &str) -> Result<Pool, CatalogueError> {
    let in_zone = |offering: &&Offering| offering.is_of_kind("spot") && offering.values(ZONE).iter().any(|value| value == zone);
    let spot = one.offerings.iter().filter(|offering| offering.available).find(in_zone);
    Ok(Pool {
        spot_capacity: Steps::constant(if spot.is_some() { SPOT_CAPACITY } else { 0 }),
        on_demand_capacity: None,
        spot_price: Steps::constant(spot.map_or(Ok(machine.spot_usual()), |spot| price(one, spot))?),
        on_demand_price: machine.on_demand,
    })
}

/// JSON numbers are told as the shortest decimal that they can mean.
fn price(one: &Listed, offering: &Offering) -> Result<MoneyPerHour, CatalogueError> {
    let text = offering.price.to_string();
    MoneyPerHour::usd(&text).map_err(|_| CatalogueError::Price { instance_type: one.name.clone(), text })
}

fn machine(one: &Listed) -> Result<InstanceType, CatalogueError> {
    let amount = |resource: &'static str, unit: fn(&str) -> Option<u64>| {
        let text = one.resources.get(resource).map_or("0", String::as_str);
        unit(text).ok_or_else(|| CatalogueError::Quantity { instance_type: one.name.clone(), resource, text: text.to_owned() })
    };
    let cpu_milli = amount("cpu", milli)?.saturating_sub(KWOK_OVERHEAD.0);
    let memory_mib = amount("memory", mib)?.saturating_sub(KWOK_OVERHEAD.1);
    let gpus = u32::try_from(amount(GPU, whole)?).unwrap_or(u32::MAX);
    let of_nothing = InstanceType {
        name: one.name.clone(),
        vcpu: 0,
        memory_mib: 0,
        gpus,
        gpu_name: (gpus > 0).then(|| gpu_name(&one.name)),
        architecture: if one.architecture == "arm64" { "arm64".to_owned() } else { "amd64".to_owned() },
        pods: u32::try_from(amount("pods", whole)?).unwrap_or(u32::MAX),
    };
    let with_cpu = |vcpu: u64| InstanceType { vcpu: u32::try_from(vcpu).unwrap_or(u32::MAX), ..of_nothing.clone() };
    let vcpu = most(cpu_milli / 500 + 2, |vcpu| with_cpu(vcpu).allocatable().cpu_milli <= cpu_milli);
    let with_memory = |memory_mib: u64| InstanceType { memory_mib, ..with_cpu(vcpu) };
    let memory = most(memory_mib * 2 + 16_384, |size| with_memory(size).allocatable().memory_mib <= memory_mib);
    Ok(with_memory(memory))
}

/// The largest number below `bound` that fits; what fits, fits when it is smaller.
fn most(bound: u64, fits: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, bound);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fits(middle) { low = middle } else { high = middle }
    }
    low
}

/// The list does not say it.
fn gpu_name(instance_type: &str) -> String {
    let known = catalogue::lookup("us-east-1", instance_type).and_then(|entry| entry.machine.gpu_name.clone());
    known.unwrap_or_else(|| "GPU".to_owned())
}

fn milli(text: &str) -> Option<u64> {
    match text.strip_suffix('m') {
        Some(milli) => milli.parse().ok(),
        None => text.parse::<u64>().ok().and_then(|cores| cores.checked_mul(1000)),
    }
}

fn mib(text: &str) -> Option<u64> {
    match (text.strip_suffix("Mi"), text.strip_suffix("Gi")) {
        (Some(mib), _) => mib.parse().ok(),
        (None, Some(gib)) => gib.parse::<u64>().ok().and_then(|gib| gib.checked_mul(1024)),
        (None, None) => text.parse::<u64>().ok().map(|bytes| bytes / (1024 * 1024)),
    }
}

fn whole(text: &str) -> Option<u64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(cpu: &str, memory: &str) -> String {
        serde_json::json!([{
            "name": "c6g.xlarge", "architecture": "arm64", "operatingSystems": ["linux"],
            "resources": {"cpu": cpu, "memory": memory, "pods": "58"},
            "offerings": [{"Price": 0.136, "Available": true, "Requirements": [
                {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
                {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["us-east-1a", "us-east-1b"]}]}]
        }])
        .to_string()
    }

    #[test]
    fn a_node_has_what_the_list_says_and_costs_what_it_says() {
        let market = market("catalogue:x", &listed("4020m", "6523Mi"), DateTime::UNIX_EPOCH).unwrap();
        let machine = &market.types["c6g.xlarge"];
        let has = machine.machine.allocatable();
        assert_eq!((has.cpu_milli, has.pods, machine.machine.vcpu), (3_920, 58, 4));
        assert!((6_512..=6_513).contains(&has.memory_mib), "never more than there is, and at most one MiB less: {has:?}");
        assert_eq!(machine.on_demand, MoneyPerHour::usd("0.136").unwrap());
        assert_eq!(market.zones(), ["us-east-1a", "us-east-1b"]);
        assert_eq!(market.pools[&PoolKey::new("c6g.xlarge", "us-east-1b")].spot_capacity.at(0), &0, "no spot is offered");
    }

    #[test]
    fn what_is_no_catalogue_says_what_would_be_one() {
        let told = |text: &str| market("catalogue:x", text, DateTime::UNIX_EPOCH).unwrap_err().to_string();
        assert!(told("{}").contains("kwok"));
        assert!(told("[]").contains("no instance type"));
        assert!(told(&listed("four", "8Gi")).contains("c6g.xlarge: cpu is \"four\""));
    }
}
