//! Instances: run, terminate, describe, tag.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::fleet::{answered, order, remember};
use super::launch::{Candidate, Draft, subnet_of, zone_of_subnet};
use super::{Call, catalogue, envelope, network, page_size, templates};
use crate::capacity::CapacityKind;
use crate::scheduling::snapshot::InstanceState;
use crate::simulation::market::PoolKey;
use crate::simulation::market::fleet::{EndReason, Instance};
use crate::twin::protocol::{AwsError, Filters, Params, Xml, page, tag_filter, tags, tags_for, timestamp};
use crate::twin::world::{ACCOUNT, World};
use crate::units::MoneyPerHour;

/// How long a terminated instance can still be described, in real seconds; about an hour on EC2.
const REMEMBERED_SECONDS: f64 = 3_600.0;

/// RunInstances: at least MinCount, at most MaxCount, or nothing and an error.
pub fn run(world: &mut World, call: &Call) -> Result<String, AwsError> {
    let name = format!("{}/RunInstances", call.region);
    if let Some(answer) = answered(world, &name, call.params)? {
        return Ok(answer);
    }
    let params = with_template(world, call)?;
    let (most, least) = (params.count("MaxCount")?.ok_or_else(|| AwsError::missing("MaxCount"))?, params.count("MinCount")?.ok_or_else(|| AwsError::missing("MinCount"))?);
    if least == 0 || most < least {
        return Err(AwsError::invalid("MinCount must be 1 or more, and MaxCount not less"));
    }
    let candidate = choose(world, call.region, &params, least)?;
    let (count, refusal) = Draft::default().take(world, &candidate, most);
    network::existing_image(world, params.text("ImageId"))?;
    if let Some(refusal) = refusal.filter(|_| count < least) {
        return Err(refusal);
    }
    let token = params.text("ClientToken").unwrap_or_default().to_owned();
    let image = params.text("ImageId").map(str::to_owned);
    let launched = world.fleet.launch(&order(&candidate, token, image.as_ref(), tags_for(&params, "instance")), count);
    let mut xml = Xml::default();
    reservation(&mut xml, launched.first().map_or("", String::as_str), |xml| {
        xml.items("instancesSet", launched.iter().filter_map(|id| world.fleet.instance(id)), |xml, found| instance(xml, world, found, world.now()));
    });
    let body = envelope(call.action, &xml.into_text());
    remember(world, name, call.params, &body);
    Ok(body)
}

/// The request over its launch template.
fn with_template(world: &World, call: &Call) -> Result<Params, AwsError> {
    let specification = call.params.under("LaunchTemplate");
    if specification == Params::default() {
        return Ok(call.params.clone());
    }
    let mut merged = templates::find(world, call.region, &specification)?.data;
    merged.extend(call.params.clone().into_map());
    Ok(Params::from_map(merged))
}

/// The zone that was asked for, or the first one that has room.
fn choose(world: &World, region: &str, params: &Params, least: u32) -> Result<Candidate, AwsError> {
    let instance_type = params.required("InstanceType")?;
    let subnet = params.text("SubnetId").or_else(|| params.text("NetworkInterface.1.SubnetId"));
    let zones = match (subnet, params.text("Placement.AvailabilityZone")) {
        (Some(subnet), _) => vec![zone_of_subnet(world, subnet)?.to_owned()],
        (None, Some(zone)) => vec![zone.to_owned()],
        (None, None) => catalogue::zones_in(world, region),
    };
    let reservation = params.text("CapacityReservationSpecification.CapacityReservationTarget.CapacityReservationId").map(str::to_owned);
    let kind = match (params.text("InstanceMarketOptions.MarketType"), &reservation) {
        (Some("spot"), _) => CapacityKind::Spot,
        (_, Some(_)) => CapacityKind::Reserved,
        (_, None) => CapacityKind::OnDemand,
    };
    let wrong_price = |_| AwsError::invalid("MaxPrice must be a decimal number of USD an hour");
    let price_max = params.text("InstanceMarketOptions.SpotOptions.MaxPrice").map(MoneyPerHour::usd).transpose().map_err(wrong_price)?;
    let candidates: Vec<Candidate> = zones
        .iter()
        .map(|zone| Candidate {
            pool: PoolKey::new(instance_type, zone),
            kind,
            reservation: reservation.clone(),
            subnet: subnet.map_or_else(|| subnet_of(zone), str::to_owned),
            price_max,
            priority: 0,
            source: (0, 0),
        })
        .filter(|candidate| world.fleet.market().pool(&candidate.pool).is_some())
        .collect();
    let has_room = |candidate: &&Candidate| Draft::default().room(world, candidate).0 >= least;
    candidates.iter().find(has_room).or(candidates.first()).cloned().ok_or_else(|| {
        AwsError::client("Unsupported", format!("Your requested instance type ({instance_type}) is not supported in your requested Availability Zone ({})", zones.join(", ")))
    })
}

pub fn terminate(world: &mut World, call: &Call) -> Result<String, AwsError> {
    let ids: Vec<String> = call.params.list("InstanceId").into_iter().map(str::to_owned).collect();
    if ids.is_empty() {
        return Err(AwsError::missing("InstanceId"));
    }
    let now = world.now();
    let before = ids.iter().map(|id| Ok((id.clone(), existing(world, call.region, id)?.state_at(now).unwrap_or(InstanceState::Pending)))).collect::<Result<Vec<_>, AwsError>>()?;
    world.fleet.terminate(&ids);
    let mut xml = Xml::default();
    xml.items("instancesSet", before, |xml, (id, previous)| {
        let current = world.fleet.instance(&id).and_then(|found| found.state_at(now)).unwrap_or(previous);
        xml.field("instanceId", &id);
        xml.node("currentState", |xml| state(xml, current));
        xml.node("previousState", |xml| state(xml, previous));
    });
    Ok(xml.into_text())
}

pub fn describe(world: &World, call: &Call) -> Result<String, AwsError> {
    let found = described(world, call)?;
    let size = page_size(call, 1_000)?;
    let (page, next) = page(found, call.params.text("NextToken"), size)?;
    let mut xml = Xml::default();
    xml.items("reservationSet", page, |xml, found| {
        reservation(xml, &found.id, |xml| xml.items("instancesSet", [found], |xml, found| instance(xml, world, found, world.visible_at())));
    });
    xml.optional("nextToken", next);
    Ok(xml.into_text())
}

/// What can be seen of the instances that were asked for, oldest first.
fn described<'a>(world: &'a World, call: &Call) -> Result<Vec<&'a Instance>, AwsError> {
    let at = world.visible_at();
    let ids = call.params.list("InstanceId");
    for id in &ids {
        existing(world, call.region, id)?.state_at(at).ok_or_else(|| not_found(id))?;
    }
    let visible = world.fleet.instances().iter().filter(|found| {
        found.order.pool.region() == call.region && is_remembered(world, found, at) && (ids.is_empty() || ids.contains(&found.id.as_str()))
    });
    Filters::of(call.params).keep(visible, |found, name| filter_values(found, name, at))
}

fn filter_values(found: &Instance, name: &str, at: DateTime<Utc>) -> Option<Vec<String>> {
    if let Some(values) = tag_filter(&found.order.tags, name) {
        return Some(values);
    }
    let one = match name {
        "instance-id" => found.id.clone(),
        "instance-state-name" => state_name(found.state_at(at)?).into(),
        "instance-type" => found.order.pool.instance_type.clone(),
        "availability-zone" => found.order.pool.zone.clone(),
        "client-token" => found.order.token.clone(),
        "subnet-id" => found.order.subnet.clone(),
        "image-id" => found.order.image.clone(),
        "instance-lifecycle" => return Some((found.order.kind == CapacityKind::Spot).then(|| "spot".into()).into_iter().collect()),
        "capacity-reservation-id" => return Some(found.order.reservation.clone().into_iter().collect()),
        _ => return None,
    };
    Some(vec![one])
}

fn is_remembered(world: &World, found: &Instance, at: DateTime<Utc>) -> bool {
    let memory = TimeDelta::microseconds((REMEMBERED_SECONDS * world.clock.speed * 1e6) as i64);
    found.launched_at <= at && found.ended_at.is_none_or(|ended| ended + memory > at)
}

fn existing<'a>(world: &'a World, region: &str, id: &str) -> Result<&'a Instance, AwsError> {
    world.fleet.instance(id).filter(|found| found.order.pool.region() == region).ok_or_else(|| not_found(id))
}

fn not_found(id: &str) -> AwsError {
    AwsError::client("InvalidInstanceID.NotFound", format!("The instance ID '{id}' does not exist"))
}

fn reservation(xml: &mut Xml, first: &str, inside: impl FnOnce(&mut Xml)) {
    xml.field("reservationId", format!("r-{}", first.trim_start_matches("i-")));
    xml.field("ownerId", ACCOUNT);
    xml.node("groupSet", |_| {});
    inside(xml);
}

fn instance(xml: &mut Xml, world: &World, found: &Instance, at: DateTime<Utc>) {
    let order = &found.order;
    let seen = found.state_at(at).unwrap_or(InstanceState::Pending);
    let number = world.fleet.number(&found.id).unwrap_or(0);
    xml.field("instanceId", &found.id);
    xml.field("imageId", &order.image);
    xml.node("instanceState", |xml| state(xml, seen));
    xml.field("privateDnsName", private_dns_name(number, order.pool.region()));
    xml.field("clientToken", &order.token);
    xml.field("instanceType", &order.pool.instance_type);
    xml.field("launchTime", timestamp(found.launched_at));
    xml.node("placement", |xml| {
        xml.field("availabilityZone", &order.pool.zone);
        xml.field("tenancy", "default");
    });
    xml.field("architecture", "x86_64");
    xml.field("platformDetails", "Linux/UNIX");
    xml.field("subnetId", &order.subnet);
    xml.field("vpcId", network::VPC);
    if seen.is_alive() {
        xml.field("privateIpAddress", private_address(number));
    }
    if order.kind == CapacityKind::Spot {
        xml.field("instanceLifecycle", "spot");
        xml.field("spotInstanceRequestId", spot_request_id(found));
    }
    xml.optional("capacityReservationId", order.reservation.as_ref());
    if let Some((ended, reason)) = found.ending.filter(|(ended, _)| *ended <= at) {
        end(xml, ended, reason);
    }
    xml.tag_set(&order.tags);
}

fn end(xml: &mut Xml, at: DateTime<Utc>, reason: EndReason) {
    let (code, message, initiator) = match reason {
        EndReason::User => ("Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown", "User initiated"),
        EndReason::Interrupted => ("Server.SpotInstanceTermination", "Server.SpotInstanceTermination: Spot instance termination", "Server.SpotInstanceTermination"),
    };
    xml.field("reason", format!("{initiator} ({})", at.format("%Y-%m-%d %H:%M:%S GMT")));
    xml.node("stateReason", |xml| {
        xml.field("code", code);
        xml.field("message", message);
    });
}

fn state(xml: &mut Xml, state: InstanceState) {
    let code = match state {
        InstanceState::Pending => 0,
        InstanceState::Running => 16,
        InstanceState::ShuttingDown => 32,
        InstanceState::Terminated => 48,
    };
    xml.field("code", code);
    xml.field("name", state_name(state));
}

fn state_name(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Pending => "pending",
        InstanceState::Running => "running",
        InstanceState::ShuttingDown => "shutting-down",
        InstanceState::Terminated => "terminated",
    }
}

/// 10.x.y.z by order of launch; every instance its own.
fn private_address(number: usize) -> String {
    let number = number + 1;
    format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255)
}

/// Also the name of its Kubernetes node.
pub fn private_dns_name(number: usize, region: &str) -> String {
    format!("ip-{}.{region}.compute.internal", private_address(number).replace('.', "-"))
}

fn spot_request_id(found: &Instance) -> String {
    format!("sir-{}", found.id.trim_start_matches("i-").get(..8).unwrap_or(""))
}

pub fn spot_requests(world: &World, call: &Call) -> Result<String, AwsError> {
    let (at, ids) = (world.visible_at(), call.params.list("SpotInstanceRequestId"));
    let spot = world.fleet.instances().iter().filter(|found| {
        found.order.kind == CapacityKind::Spot
            && found.order.pool.region() == call.region
            && is_remembered(world, found, at)
            && (ids.is_empty() || ids.contains(&spot_request_id(found).as_str()))
    });
    let kept = Filters::of(call.params).keep(spot, |found, name| match name {
        "spot-instance-request-id" => Some(vec![spot_request_id(found)]),
        "instance-id" => Some(vec![found.id.clone()]),
        "state" => Some(vec![spot_request_state(found, at).0.into()]),
        "status-code" => Some(vec![spot_request_state(found, at).1.into()]),
        _ => tag_filter(&found.order.tags, name),
    })?;
    let (page, next) = page(kept, call.params.text("NextToken"), page_size(call, 1_000)?)?;
    let mut xml = Xml::default();
    xml.items("spotInstanceRequestSet", page, |xml, found| {
        let (state, code) = spot_request_state(found, at);
        xml.field("spotInstanceRequestId", spot_request_id(found));
        xml.field("type", "one-time");
        xml.field("state", state);
        xml.node("status", |xml| {
            xml.field("code", code);
            xml.field("updateTime", timestamp(found.warned_at.unwrap_or(found.launched_at)));
            xml.field("message", code);
        });
        xml.field("instanceId", &found.id);
        xml.field("createTime", timestamp(found.launched_at));
        xml.field("productDescription", "Linux/UNIX");
        xml.field("launchedAvailabilityZone", &found.order.pool.zone);
        xml.field("instanceInterruptionBehavior", "terminate");
        xml.tag_set(&found.order.tags);
    });
    xml.optional("nextToken", next);
    Ok(xml.into_text())
}

fn spot_request_state(found: &Instance, at: DateTime<Utc>) -> (&'static str, &'static str) {
    match found.ending.filter(|(ended, _)| *ended <= at) {
        Some((_, EndReason::Interrupted)) => ("closed", "instance-terminated-no-capacity"),
        Some((_, EndReason::User)) => ("closed", "instance-terminated-by-user"),
        None if found.warned_at.is_some_and(|warned| warned <= at) => ("active", "marked-for-termination"),
        None => ("active", "fulfilled"),
    }
}

pub fn create_tags(world: &mut World, call: &Call) -> Result<String, AwsError> {
    let tags: BTreeMap<String, String> = tags(call.params).into_iter().collect();
    for id in call.params.list("ResourceId") {
        if id.starts_with("i-") {
            existing(world, call.region, id)?;
            world.fleet.tag(id, tags.clone());
        }
    }
    Ok("<return>true</return>".to_owned())
}
