//! How many machines a launch may give, and which of EC2's reasons says why not more.

use std::collections::BTreeMap;

use sha2::Digest;

use crate::capacity::CapacityKind;
use crate::simulation::market::machines::QuotaClass;
use crate::simulation::market::{PoolKey, region_of};
use crate::twin::protocol::AwsError;
use crate::twin::world::World;
use crate::units::MoneyPerHour;

/// One way to launch: a pool, a kind, and what bounds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub pool: PoolKey,
    pub kind: CapacityKind,
    pub reservation: Option<String>,
    pub subnet: String,
    pub price_max: Option<MoneyPerHour>,
    pub priority: u32,
    /// Which launch template config and override it came from, for the answer.
    pub source: (usize, usize),
}

/// What would be launched, added up so that no bound is passed twice.
#[derive(Clone, Default)]
pub struct Draft {
    pools: BTreeMap<(PoolKey, CapacityKind), u32>,
    vcpus: BTreeMap<(QuotaClass, bool), u32>,
    addresses: BTreeMap<String, u32>,
}

impl Draft {
    /// Takes up to `wanted` machines; says what refused the rest.
    pub fn take(&mut self, world: &World, candidate: &Candidate, wanted: u32) -> (u32, Option<AwsError>) {
        let (room, refusal) = self.room(world, candidate);
        let taken = wanted.min(room);
        let vcpu = vcpu_of(world, &candidate.pool.instance_type);
        *self.pools.entry((candidate.pool.clone(), candidate.kind)).or_default() += taken;
        *self.addresses.entry(candidate.subnet.clone()).or_default() += taken;
        *self.vcpus.entry(quota_key(candidate)).or_default() += taken * vcpu;
        (taken, (taken < wanted).then_some(refusal))
    }

    /// How many more there is room for, and the tightest bound's refusal.
    pub fn room(&self, world: &World, candidate: &Candidate) -> (u32, AwsError) {
        let bounds = [self.market(world, candidate), self.quota(world, candidate), self.addresses(world, candidate), price(world, candidate)];
        // The first of equals: EC2 names capacity before quota only where capacity is what lacks.
        bounds.into_iter().min_by_key(|(room, _)| *room).expect("there are four bounds")
    }

    fn market(&self, world: &World, candidate: &Candidate) -> (u32, AwsError) {
        let Candidate { pool, kind, reservation, .. } = candidate;
        let planned = self.pools.get(&(pool.clone(), *kind)).copied().unwrap_or(0);
        let room = world.fleet.room(pool, *kind, reservation.as_deref()).saturating_sub(planned);
        let refusal = match kind {
            CapacityKind::Reserved => AwsError::client(
                "ReservationCapacityExceeded",
                format!("The requested reservation {} does not have sufficient compatible and available capacity for this request.", reservation.as_deref().unwrap_or("")),
            ),
            CapacityKind::Spot => AwsError::new(500, "InsufficientInstanceCapacity", "There is no Spot capacity available that matches your request."),
            CapacityKind::OnDemand => AwsError::new(
                500,
                "InsufficientInstanceCapacity",
                format!("We currently do not have sufficient {} capacity in the Availability Zone you requested ({}). Our system will be working on provisioning additional capacity.", pool.instance_type, pool.zone),
            ),
        };
        (room, refusal)
    }

    fn quota(&self, world: &World, candidate: &Candidate) -> (u32, AwsError) {
        let (class, is_spot) = quota_key(candidate);
        let (on_demand_code, spot_code) = class.codes();
        let code = if is_spot { spot_code } else { on_demand_code };
        let limit = world.quota(code);
        let used = vcpus_used(world, region_of(&candidate.pool.zone), class, is_spot) + self.vcpus.get(&(class, is_spot)).copied().unwrap_or(0);
        let room = match candidate.kind {
            CapacityKind::Reserved => u32::MAX,
            CapacityKind::Spot | CapacityKind::OnDemand => limit.saturating_sub(used) / vcpu_of(world, &candidate.pool.instance_type).max(1),
        };
        let refusal = if is_spot {
            AwsError::client("MaxSpotInstanceCountExceeded", format!("Max spot instance count exceeded (quota {code}: {limit} vCPUs, {used} in use)"))
        } else {
            AwsError::client(
                "VcpuLimitExceeded",
                format!("You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the instance bucket that the specified instance type belongs to (quota {code}, {used} in use). Please visit http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit."),
            )
        };
        (room, refusal)
    }

    fn addresses(&self, world: &World, candidate: &Candidate) -> (u32, AwsError) {
        let free = free_addresses(world, &candidate.subnet).saturating_sub(self.addresses.get(&candidate.subnet).copied().unwrap_or(0));
        let message = format!("There are not enough free addresses in subnet '{}' to satisfy the requested number of instances.", candidate.subnet);
        (free, AwsError::client("InsufficientFreeAddressesInSubnet", message))
    }
}

fn price(world: &World, candidate: &Candidate) -> (u32, AwsError) {
    let price = world.fleet.market().spot_price(&candidate.pool, world.now());
    let is_low = candidate.kind == CapacityKind::Spot && candidate.price_max.zip(price).is_some_and(|(most, price)| most < price);
    let message = match (candidate.price_max, price) {
        (Some(most), Some(price)) => format!(
            "Your Spot request price of {} is lower than the minimum required Spot request fulfillment price of {}.",
            most.per_hour().decimal(),
            price.per_hour().decimal()
        ),
        _ => String::new(),
    };
    (if is_low { 0 } else { u32::MAX }, AwsError::client("SpotMaxPriceTooLow", message))
}

fn quota_key(candidate: &Candidate) -> (QuotaClass, bool) {
    (QuotaClass::of(&candidate.pool.instance_type), candidate.kind == CapacityKind::Spot)
}

fn vcpus_used(world: &World, region: &str, class: QuotaClass, is_spot: bool) -> u32 {
    let counted = world.fleet.live().filter(|found| {
        let order = &found.order;
        order.kind != CapacityKind::Reserved
            && (order.kind == CapacityKind::Spot) == is_spot
            && order.pool.region() == region
            && QuotaClass::of(&order.pool.instance_type) == class
    });
    counted.map(|found| vcpu_of(world, &found.order.pool.instance_type)).sum()
}

fn vcpu_of(world: &World, instance_type: &str) -> u32 {
    world.fleet.market().types.get(instance_type).map_or(1, |machine| machine.machine.vcpu)
}

/// Each zone has one subnet, with an id of the form that EC2's have: it follows from the zone's name.
pub fn subnet_of(zone: &str) -> String {
    let digest = sha2::Sha256::digest(zone);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).take(9).collect();
    format!("subnet-{}", &hex[..17])
}

pub fn zone_of_subnet<'a>(world: &'a World, subnet: &str) -> Result<&'a str, AwsError> {
    let zone = world.fleet.market().zones().into_iter().find(|zone| subnet_of(zone) == subnet);
    zone.ok_or_else(|| AwsError::client("InvalidSubnetID.NotFound", format!("The subnet ID '{subnet}' does not exist; the twin has one for each zone, DescribeSubnets lists them")))
}

pub fn free_addresses(world: &World, subnet: &str) -> u32 {
    let used = world.fleet.live().filter(|found| found.order.subnet == subnet).count() as u32;
    world.settings.subnet_addresses.saturating_sub(used)
}
