//! CreateFleet, type `instant`: all that can be had at once, and an error for each pool that could not give.

use std::collections::BTreeMap;

use super::launch::{Candidate, Draft, subnet_of, zone_of_subnet};
use super::{Call, catalogue, envelope, network, templates};
use crate::capacity::CapacityKind;
use crate::simulation::market::PoolKey;
use crate::simulation::market::fleet::Order;
use crate::twin::eventbridge::id_of;
use crate::twin::journal::{Answer, Entry, Template};
use crate::twin::protocol::{AwsError, Params, Xml, tags_for};
use crate::twin::world::World;
use crate::units::MoneyPerHour;

/// The same token with the same parameters gives the same answer; with others it is refused.
pub fn create(world: &mut World, call: &Call) -> Result<String, AwsError> {
    let name = format!("{}/CreateFleet", call.region);
    if let Some(answer) = answered(world, &name, call.params)? {
        return Ok(answer);
    }
    let request = Request::parse(world, call)?;
    let fleet_id = format!("fleet-{}", id_of(&format!("{}/{name}/{}", request.token, world.entries().len())));
    let outcomes = launch(world, &request, &fleet_id);
    let body = envelope(call.action, &answer_text(&request, &fleet_id, &outcomes));
    remember(world, name, call.params, &body);
    Ok(body)
}

/// The answer that was given to this token before.
pub fn answered(world: &World, call: &str, params: &Params) -> Result<Option<String>, AwsError> {
    let Some(answer) = params.text("ClientToken").and_then(|token| world.answer(call, token)) else { return Ok(None) };
    if answer.fingerprint == params.fingerprint_without("ClientToken") {
        return Ok(Some(answer.body.clone()));
    }
    Err(AwsError::client("IdempotentParameterMismatch", "The client token was used before in a request with other parameters; take a new token for another request"))
}

pub fn remember(world: &mut World, call: String, params: &Params, body: &str) {
    if let Some(token) = params.text("ClientToken") {
        let (at, fingerprint) = (world.now(), params.fingerprint_without("ClientToken"));
        world.record(Entry::Answered(Answer { at, call, token: token.to_owned(), fingerprint, body: body.to_owned() }));
    }
}

struct Request {
    token: String,
    tags: BTreeMap<String, String>,
    templates: Vec<Template>,
    candidates: Vec<Candidate>,
    spot: Target,
    on_demand: Target,
}

/// How many of one kind, and under which conditions.
struct Target {
    count: u32,
    /// Fewer than this many is nothing.
    count_min: u32,
    is_single_type: bool,
    is_single_zone: bool,
    strategy: String,
}

impl Request {
    fn parse(world: &World, call: &Call) -> Result<Request, AwsError> {
        let params = call.params;
        match params.text("Type") {
            Some("instant") => {}
            other => return Err(AwsError::invalid(format!("The twin knows fleets of type instant only, not {}", other.unwrap_or("maintain (the default)")))),
        }
        let target = params.under("TargetCapacitySpecification");
        let total = target.count("TotalTargetCapacity")?.ok_or_else(|| AwsError::missing("TargetCapacitySpecification.TotalTargetCapacity"))?;
        let (spot, on_demand) = (target.count("SpotTargetCapacity")?, target.count("OnDemandTargetCapacity")?);
        let is_spot_default = target.text("DefaultTargetCapacityType") == Some("spot");
        let (spot, on_demand) = match (spot, on_demand, is_spot_default) {
            (Some(spot), Some(on_demand), _) => (spot, on_demand),
            (Some(spot), None, _) => (spot, total.saturating_sub(spot)),
            (None, Some(on_demand), true) => (total.saturating_sub(on_demand), on_demand),
            (None, None, true) => (total, 0),
            (None, _, false) => (0, total),
        };
        let templates = params.children("LaunchTemplateConfigs").iter().map(|config| templates::find(world, call.region, &config.under("LaunchTemplateSpecification"))).collect::<Result<Vec<_>, _>>()?;
        if templates.is_empty() {
            return Err(AwsError::missing("LaunchTemplateConfigs"));
        }
        let mut tags = tags_for(params, "instance");
        for template in &templates {
            // The request's own tags win.
            let from_template = tags_for(&Params::from_map(template.data.clone()), "instance");
            tags = from_template.into_iter().chain(tags).collect();
        }
        Ok(Request {
            token: params.text("ClientToken").unwrap_or_default().to_owned(),
            tags,
            candidates: candidates(world, call, &templates)?,
            templates,
            spot: Target::parse(&params.under("SpotOptions"), spot)?,
            on_demand: Target::parse(&params.under("OnDemandOptions"), on_demand)?,
        })
    }
}

impl Target {
    fn parse(options: &Params, count: u32) -> Result<Target, AwsError> {
        let target = Target {
            count,
            count_min: options.count("MinTargetCapacity")?.unwrap_or(0).min(count),
            is_single_type: options.flag("SingleInstanceType"),
            is_single_zone: options.flag("SingleAvailabilityZone"),
            strategy: options.text("AllocationStrategy").unwrap_or("lowest-price").to_owned(),
        };
        if target.count_min > 0 && !target.is_single_type && !target.is_single_zone {
            return Err(AwsError::client("InvalidParameterCombination", "MinTargetCapacity needs SingleInstanceType or SingleAvailabilityZone"));
        }
        Ok(target)
    }
}

/// Every override (or, without overrides, its template) in every zone that it leaves open.
fn candidates(world: &World, call: &Call, templates: &[Template]) -> Result<Vec<Candidate>, AwsError> {
    let mut candidates = Vec::new();
    for (config_index, (config, template)) in call.params.children("LaunchTemplateConfigs").iter().zip(templates).enumerate() {
        let data = Params::from_map(template.data.clone());
        let mut overrides = config.children("Overrides");
        if overrides.is_empty() {
            overrides.push(Params::default());
        }
        for (override_index, one) in overrides.iter().enumerate() {
            let wrong_price = |_| AwsError::invalid("MaxPrice must be a decimal number of USD an hour");
            let price_max = one.text("MaxPrice").map(MoneyPerHour::usd).transpose().map_err(wrong_price)?;
            let instance_type = one.text("InstanceType").or_else(|| data.text("InstanceType")).ok_or_else(|| AwsError::missing("InstanceType"))?;
            for zone in zones(world, call.region, one, &data)? {
                candidates.push(Candidate {
                    pool: PoolKey::new(instance_type, &zone),
                    // Of each target's own kind; see `launch`.
                    kind: CapacityKind::OnDemand,
                    reservation: data.text("CapacityReservationSpecification.CapacityReservationTarget.CapacityReservationId").map(str::to_owned),
                    subnet: one.text("SubnetId").map_or_else(|| subnet_of(&zone), str::to_owned),
                    price_max,
                    priority: one.text("Priority").and_then(|text| text.parse::<f64>().ok()).map_or(u32::MAX, |priority| (priority * 1_000.0) as u32),
                    source: (config_index, override_index),
                });
            }
        }
    }
    Ok(candidates)
}

fn zones(world: &World, region: &str, one: &Params, data: &Params) -> Result<Vec<String>, AwsError> {
    let subnet = one.text("SubnetId").or_else(|| data.text("NetworkInterface.1.SubnetId"));
    let zone = one.text("AvailabilityZone").or_else(|| one.text("Placement.AvailabilityZone")).or_else(|| data.text("Placement.AvailabilityZone"));
    match (subnet, zone) {
        (Some(subnet), _) => Ok(vec![zone_of_subnet(world, subnet)?.to_owned()]),
        (None, Some(zone)) => Ok(zone.split(',').map(|zone| zone.trim().to_owned()).collect()),
        (None, None) => Ok(catalogue::zones_in(world, region)),
    }
}

/// What became of one candidate.
struct Outcome {
    candidate: Candidate,
    instances: Vec<String>,
    refusal: Option<AwsError>,
}

fn launch(world: &mut World, request: &Request, fleet_id: &str) -> Vec<Outcome> {
    let mut draft = Draft::default();
    let mut outcomes = Vec::new();
    for (target, is_spot) in [(&request.spot, true), (&request.on_demand, false)] {
        if target.count == 0 {
            continue;
        }
        let of_kind = request.candidates.iter().cloned().map(|candidate| Candidate { kind: kind_of(&candidate, is_spot), ..candidate });
        let (sound, unsound) = with_image(world, request, of_kind);
        outcomes.extend(unsound);
        for (candidate, count, refusal) in allocate(world, &mut draft, target, sound) {
            let template = &request.templates[candidate.source.0];
            let mut tags = request.tags.clone();
            tags.insert("aws:ec2:fleet-id".into(), fleet_id.to_owned());
            tags.insert("aws:ec2launchtemplate:id".into(), template.id.clone());
            tags.insert("aws:ec2launchtemplate:version".into(), template.version.to_string());
            let order = order(&candidate, request.token.clone(), template.data.get("ImageId"), tags);
            let instances = world.fleet.launch(&order, count);
            outcomes.push(Outcome { candidate, instances, refusal });
        }
    }
    outcomes
}

/// Candidates whose template has an image that is there, and refusals for the others.
fn with_image(world: &World, request: &Request, candidates: impl Iterator<Item = Candidate>) -> (Vec<Candidate>, Vec<Outcome>) {
    let (mut sound, mut unsound) = (Vec::new(), Vec::new());
    for candidate in candidates {
        let image = request.templates[candidate.source.0].data.get("ImageId").map(String::as_str);
        match network::existing_image(world, image) {
            Ok(()) => sound.push(candidate),
            Err(refusal) => unsound.push(Outcome { candidate, instances: Vec::new(), refusal: Some(refusal) }),
        }
    }
    (sound, unsound)
}

pub fn order(candidate: &Candidate, token: String, image: Option<&String>, tags: BTreeMap<String, String>) -> Order {
    Order {
        pool: candidate.pool.clone(),
        kind: candidate.kind,
        reservation: candidate.reservation.clone().filter(|_| candidate.kind == CapacityKind::Reserved),
        token,
        image: image.cloned().unwrap_or_else(|| "ami-00000000000000000".into()),
        subnet: candidate.subnet.clone(),
        tags,
    }
}

fn kind_of(candidate: &Candidate, is_spot: bool) -> CapacityKind {
    match (is_spot, &candidate.reservation) {
        (true, _) => CapacityKind::Spot,
        (false, Some(_)) => CapacityKind::Reserved,
        (false, None) => CapacityKind::OnDemand,
    }
}

type Allocation = Vec<(Candidate, u32, Option<AwsError>)>;

/// Spreads a target over its candidates, one group (type, zone or both the same) at a time; the first group that can give
/// all is taken, otherwise the one that gives most, if that is enough.
fn allocate(world: &World, draft: &mut Draft, target: &Target, mut candidates: Vec<Candidate>) -> Allocation {
    let (offered, unknown): (Vec<_>, Vec<_>) = candidates.drain(..).partition(|candidate| world.fleet.market().pool(&candidate.pool).is_some());
    let mut refused: Allocation = unknown.into_iter().map(|candidate| (candidate.clone(), 0, Some(not_offered(&candidate)))).collect();
    let mut candidates = offered;
    candidates.sort_by_cached_key(|candidate| rank(world, draft, target, candidate));
    let mut best: Option<(u32, Vec<Candidate>)> = None;
    for group in groups(target, &candidates) {
        let mut probe = draft.clone();
        let room = group.iter().fold(0, |sum: u32, candidate| sum + probe.take(world, candidate, target.count - sum.min(target.count)).0);
        if best.as_ref().is_none_or(|(most, _)| room > *most) {
            best = Some((room, group));
        }
        if room >= target.count {
            break;
        }
    }
    let Some((room, group)) = best else { return refused };
    if room < target.count_min.max(1) {
        let each = candidates.iter().map(|candidate| (candidate.clone(), 0, Some(draft.room(world, candidate).1)));
        return refused.into_iter().chain(each).collect();
    }
    let mut missing = target.count;
    for candidate in group {
        if missing == 0 {
            break;
        }
        let (count, refusal) = draft.take(world, &candidate, missing);
        missing -= count;
        refused.push((candidate, count, refusal));
    }
    // Only what is still missing is told as an error.
    if missing == 0 {
        refused.iter_mut().for_each(|(_, _, refusal)| *refusal = None);
    }
    refused.retain(|(_, count, refusal)| *count > 0 || refusal.is_some());
    refused
}

fn not_offered(candidate: &Candidate) -> AwsError {
    let PoolKey { instance_type, zone } = &candidate.pool;
    AwsError::client("Unsupported", format!("Your requested instance type ({instance_type}) is not supported in your requested Availability Zone ({zone})."))
}

fn groups(target: &Target, candidates: &[Candidate]) -> Vec<Vec<Candidate>> {
    let key = |candidate: &Candidate| {
        (target.is_single_type.then(|| candidate.pool.instance_type.clone()), target.is_single_zone.then(|| candidate.pool.zone.clone()))
    };
    let mut groups: Vec<Vec<Candidate>> = Vec::new();
    for candidate in candidates {
        match groups.iter_mut().find(|group| key(&group[0]) == key(candidate)) {
            Some(group) => group.push(candidate.clone()),
            None => groups.push(vec![candidate.clone()]),
        }
    }
    groups
}

/// Lower is taken first.
fn rank(world: &World, draft: &Draft, target: &Target, candidate: &Candidate) -> (u32, i128) {
    let price = match candidate.kind {
        CapacityKind::Spot => world.fleet.market().spot_price(&candidate.pool, world.now()),
        CapacityKind::OnDemand | CapacityKind::Reserved => world.fleet.market().pool(&candidate.pool).map(|pool| pool.on_demand_price),
    };
    let price = price.map_or(i128::MAX, |price| price.per_hour().atoms());
    match target.strategy.as_str() {
        "prioritized" | "capacity-optimized-prioritized" => (candidate.priority, price),
        "capacity-optimized" => (u32::MAX - draft.room(world, candidate).0, price),
        _ => (0, price),
    }
}

fn answer_text(request: &Request, fleet_id: &str, outcomes: &[Outcome]) -> String {
    let mut xml = Xml::default();
    xml.field("fleetId", fleet_id);
    let refused = outcomes.iter().filter_map(|outcome| Some((outcome, outcome.refusal.as_ref()?)));
    xml.items("errorSet", refused, |xml, (outcome, refusal)| {
        template_and_overrides(xml, request, outcome);
        xml.field("errorCode", &refusal.code);
        xml.field("errorMessage", &refusal.message);
    });
    let given = outcomes.iter().filter(|outcome| !outcome.instances.is_empty());
    xml.items("fleetInstanceSet", given, |xml, outcome| {
        template_and_overrides(xml, request, outcome);
        xml.texts("instanceIds", &outcome.instances);
        xml.field("instanceType", &outcome.candidate.pool.instance_type);
        xml.field("availabilityZone", &outcome.candidate.pool.zone);
        xml.field("subnetId", &outcome.candidate.subnet);
    });
    xml.into_text()
}

fn template_and_overrides(xml: &mut Xml, request: &Request, outcome: &Outcome) {
    let template = &request.templates[outcome.candidate.source.0];
    xml.node("launchTemplateAndOverrides", |xml| {
        xml.node("launchTemplateSpecification", |xml| {
            xml.field("launchTemplateId", &template.id);
            xml.field("version", template.version);
        });
        xml.node("overrides", |xml| {
            xml.field("instanceType", &outcome.candidate.pool.instance_type);
            xml.field("availabilityZone", &outcome.candidate.pool.zone);
            xml.field("subnetId", &outcome.candidate.subnet);
        });
    });
    xml.field("lifecycle", if outcome.candidate.kind == CapacityKind::Spot { "spot" } else { "on-demand" });
}
