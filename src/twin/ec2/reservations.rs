//! Capacity reservations.

use std::collections::BTreeMap;

use super::{Call, page_size};
use crate::simulation::market::Reservation;
use crate::twin::protocol::{AwsError, Filters, Xml, page, timestamp};
use crate::twin::world::{ACCOUNT, World};

pub fn describe(world: &World, call: &Call) -> Result<String, AwsError> {
    let ids = call.params.list("CapacityReservationId");
    let market = world.fleet.market();
    if let Some(unknown) = ids.iter().find(|id| market.reservation(id).is_none()) {
        return Err(AwsError::client("InvalidCapacityReservationId.NotFound", format!("The capacity reservation ID '{unknown}' does not exist")));
    }
    let here = market.reservations.iter().filter(|found| found.pool.region() == call.region && (ids.is_empty() || ids.contains(&found.id.as_str())));
    let kept = Filters::of(call.params).keep(here, |found, name| match name {
        "instance-type" => Some(vec![found.pool.instance_type.clone()]),
        "availability-zone" => Some(vec![found.pool.zone.clone()]),
        "state" => Some(vec!["active".into()]),
        "instance-match-criteria" => Some(vec!["targeted".into()]),
        _ => None,
    })?;
    let (page, next) = page(kept, call.params.text("NextToken"), page_size(call, 1_000)?)?;
    let mut xml = Xml::default();
    xml.items("capacityReservationSet", page, |xml, found: &Reservation| {
        xml.field("capacityReservationId", &found.id);
        xml.field("ownerId", ACCOUNT);
        xml.field("capacityReservationArn", format!("arn:aws:ec2:{}:{ACCOUNT}:capacity-reservation/{}", call.region, found.id));
        xml.field("instanceType", &found.pool.instance_type);
        xml.field("instancePlatform", "Linux/UNIX");
        xml.field("availabilityZone", &found.pool.zone);
        xml.field("tenancy", "default");
        xml.field("totalInstanceCount", found.count);
        xml.field("availableInstanceCount", world.fleet.reservation_available(&found.id));
        xml.field("state", "active");
        xml.field("startDate", timestamp(market.epoch));
        xml.field("createDate", timestamp(market.epoch));
        xml.field("endDateType", "unlimited");
        xml.field("instanceMatchCriteria", "targeted");
        // Lent to every installation: Purser uses no reservation that nobody lends it.
        xml.tag_set(&BTreeMap::from([("purser.dev/cluster".to_owned(), "*".to_owned())]));
    });
    xml.optional("nextToken", next);
    Ok(xml.into_text())
}
