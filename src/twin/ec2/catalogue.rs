//! What there is to buy: types, zones, prices.

use chrono::TimeDelta;

use super::{Call, page_size};
use crate::simulation::market::{MachineType, PoolKey, region_of};
use crate::twin::protocol::{AwsError, Filters, Xml, page, timestamp};
use crate::twin::world::World;

pub fn instance_types(world: &World, call: &Call) -> Result<String, AwsError> {
    let wanted = call.params.list("InstanceType");
    let offered = offered_in(world, call.region);
    if let Some(unknown) = wanted.iter().find(|name| !offered.iter().any(|machine| machine.machine.name == **name)) {
        return Err(AwsError::client("InvalidInstanceType", format!("The following supplied instance types do not exist: [{unknown}]")));
    }
    let named = offered.into_iter().filter(|machine| wanted.is_empty() || wanted.contains(&machine.machine.name.as_str()));
    let kept = Filters::of(call.params).keep(named, |machine, name| match name {
        "instance-type" => Some(vec![machine.machine.name.clone()]),
        "current-generation" => Some(vec!["true".into()]),
        "processor-info.supported-architecture" => Some(vec![ec2_architecture(machine).into()]),
        "supported-usage-class" => Some(vec!["on-demand".into(), "spot".into()]),
        "vcpu-info.default-vcpus" => Some(vec![machine.machine.vcpu.to_string()]),
        "memory-info.size-in-mib" => Some(vec![machine.machine.memory_mib.to_string()]),
        "bare-metal" => Some(vec!["false".into()]),
        "hypervisor" => Some(vec!["nitro".into()]),
        _ => None,
    })?;
    let (page, next) = page(kept, call.params.text("NextToken"), page_size(call, 100)?)?;
    let mut xml = Xml::default();
    xml.items("instanceTypeSet", page, instance_type);
    xml.optional("nextToken", next);
    Ok(xml.into_text())
}

fn instance_type(xml: &mut Xml, machine: &MachineType) {
    let facts = &machine.machine;
    xml.field("instanceType", &facts.name);
    xml.field("currentGeneration", true);
    xml.field("freeTierEligible", false);
    xml.texts("supportedUsageClasses", ["on-demand", "spot"]);
    xml.texts("supportedRootDeviceTypes", ["ebs"]);
    xml.texts("supportedVirtualizationTypes", ["hvm"]);
    xml.field("bareMetal", false);
    xml.field("hypervisor", "nitro");
    xml.node("processorInfo", |xml| xml.texts("supportedArchitectures", [ec2_architecture(machine)]));
    xml.node("vCpuInfo", |xml| {
        xml.field("defaultVCpus", facts.vcpu);
        xml.field("defaultCores", facts.vcpu / 2);
        xml.field("defaultThreadsPerCore", 2);
    });
    xml.node("memoryInfo", |xml| xml.field("sizeInMiB", facts.memory_mib));
    if facts.pods > 2 {
        // One interface with addresses for so many pods; two more use the host's own.
        xml.node("networkInfo", |xml| {
            xml.field("maximumNetworkInterfaces", 1);
            xml.field("ipv4AddressesPerInterface", facts.pods - 1);
        });
    }
    if let Some(name) = facts.gpu_name.as_ref().filter(|_| facts.gpus > 0) {
        xml.node("gpuInfo", |xml| {
            xml.items("gpus", [()], |xml, ()| {
                xml.field("name", name);
                xml.field("manufacturer", "NVIDIA");
                xml.field("count", facts.gpus);
                xml.node("memoryInfo", |xml| xml.field("sizeInMiB", machine.gpu_memory_mib));
            });
            xml.field("totalGpuMemoryInMiB", facts.gpus * machine.gpu_memory_mib);
        });
    }
    xml.field("burstablePerformanceSupported", false);
}

pub fn offerings(world: &World, call: &Call) -> Result<String, AwsError> {
    let location_type = call.params.text("LocationType").unwrap_or("region");
    let offered: Vec<(String, String)> = match location_type {
        "region" => offered_in(world, call.region).into_iter().map(|machine| (machine.machine.name.clone(), call.region.to_owned())).collect(),
        "availability-zone" => pools_in(world, call.region).map(|key| (key.instance_type.clone(), key.zone.clone())).collect(),
        other => return Err(AwsError::invalid(format!("The twin knows the location types region and availability-zone, not {other}"))),
    };
    let kept = Filters::of(call.params).keep(offered, |(instance_type, location), name| match name {
        "instance-type" => Some(vec![instance_type.clone()]),
        "location" => Some(vec![location.clone()]),
        _ => None,
    })?;
    let (page, next) = page(kept, call.params.text("NextToken"), page_size(call, 1_000)?)?;
    let mut xml = Xml::default();
    xml.items("instanceTypeOfferingSet", page, |xml, (instance_type, location)| {
        xml.field("instanceType", instance_type);
        xml.field("locationType", location_type);
        xml.field("location", location);
    });
    xml.optional("nextToken", next);
    Ok(xml.into_text())
}

pub fn zones(world: &World, call: &Call) -> Result<String, AwsError> {
    let wanted = call.params.list("ZoneName");
    let zones = zones_in(world, call.region).into_iter().filter(|zone| wanted.is_empty() || wanted.contains(&zone.as_str()));
    let kept = Filters::of(call.params).keep(zones, |zone, name| match name {
        "zone-name" => Some(vec![zone.clone()]),
        "region-name" => Some(vec![call.region.to_owned()]),
        "state" => Some(vec!["available".into()]),
        "zone-type" => Some(vec!["availability-zone".into()]),
        "opt-in-status" => Some(vec!["opt-in-not-required".into()]),
        _ => None,
    })?;
    let mut xml = Xml::default();
    xml.items("availabilityZoneInfo", kept, |xml, zone| {
        xml.field("zoneName", &zone);
        xml.field("zoneId", &zone);
        xml.field("zoneState", "available");
        xml.field("zoneType", "availability-zone");
        xml.field("optInStatus", "opt-in-not-required");
        xml.field("regionName", call.region);
        xml.field("groupName", call.region);
        xml.field("networkBorderGroup", call.region);
    });
    Ok(xml.into_text())
}

pub fn regions(world: &World) -> Result<String, AwsError> {
    let mut xml = Xml::default();
    xml.items("regionInfo", world.fleet.market().regions(), |xml, region| {
        xml.field("regionName", region);
        xml.field("regionEndpoint", format!("ec2.{region}.amazonaws.com"));
        xml.field("optInStatus", "opt-in-not-required");
    });
    Ok(xml.into_text())
}

/// Newest first, with the price that was in force at StartTime; never a price of the future.
pub fn spot_prices(world: &World, call: &Call) -> Result<String, AwsError> {
    let params = call.params;
    let until = params.time("EndTime")?.unwrap_or(world.now()).min(world.now());
    let from = params.time("StartTime")?.unwrap_or(until - TimeDelta::days(90)).min(until);
    let (types, products, zone) = (params.list("InstanceType"), params.list("ProductDescription"), params.text("AvailabilityZone"));
    let is_linux = products.is_empty() || products.iter().any(|product| product.starts_with("Linux/UNIX"));
    let named = pools_in(world, call.region)
        .filter(|key| is_linux && (types.is_empty() || types.contains(&key.instance_type.as_str())))
        .filter(|key| zone.is_none_or(|zone| key.zone == zone));
    let kept = Filters::of(params).keep(named, |key, name| match name {
        "instance-type" => Some(vec![key.instance_type.clone()]),
        "availability-zone" => Some(vec![key.zone.clone()]),
        "product-description" => Some(vec!["Linux/UNIX".into()]),
        _ => None,
    })?;
    let mut history: Vec<_> = kept.into_iter().flat_map(|key| prices_of(world, key, from, until)).collect();
    history.sort_by(|(at, key, _), (other_at, other, _)| other_at.cmp(at).then(key.cmp(other)));
    let (page, next) = page(history, params.text("NextToken"), page_size(call, 1_000)?)?;
    let mut xml = Xml::default();
    xml.items("spotPriceHistorySet", page, |xml, (at, key, price)| {
        xml.field("instanceType", &key.instance_type);
        xml.field("productDescription", "Linux/UNIX");
        xml.field("spotPrice", price);
        xml.field("timestamp", timestamp(at));
        xml.field("availabilityZone", &key.zone);
        xml.field("availabilityZoneId", &key.zone);
    });
    xml.field("nextToken", next.unwrap_or_default());
    Ok(xml.into_text())
}

type Price<'a> = (chrono::DateTime<chrono::Utc>, &'a PoolKey, String);

fn prices_of<'a>(world: &'a World, key: &'a PoolKey, from: chrono::DateTime<chrono::Utc>, until: chrono::DateTime<chrono::Utc>) -> Vec<Price<'a>> {
    let market = world.fleet.market();
    let Some(pool) = market.pool(key) else { return Vec::new() };
    let (first, last) = (market.second(from), market.second(until));
    let in_force = (pool.spot_price.since(first), pool.spot_price.at(first));
    std::iter::once(in_force)
        .chain(pool.spot_price.changes(first, last))
        .map(|(second, price)| (market.time(second), key, price.per_hour().decimal()))
        .collect()
}

pub fn pools_in<'a>(world: &'a World, region: &'a str) -> impl Iterator<Item = &'a PoolKey> {
    world.fleet.market().pools.keys().filter(move |key| key.region() == region)
}

pub fn zones_in(world: &World, region: &str) -> Vec<String> {
    world.fleet.market().zones().into_iter().filter(|zone| region_of(zone) == region).map(str::to_owned).collect()
}

fn offered_in<'a>(world: &'a World, region: &str) -> Vec<&'a MachineType> {
    let is_here = |name: &str| pools_in(world, region).any(|key| key.instance_type == name);
    world.fleet.market().types.values().filter(|machine| is_here(&machine.machine.name)).collect()
}

fn ec2_architecture(machine: &MachineType) -> &'static str {
    if machine.machine.architecture == "arm64" { "arm64" } else { "x86_64" }
}
