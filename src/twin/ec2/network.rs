//! Subnets (one a zone), security groups and images: as much as a launch needs.

use super::launch::{free_addresses, subnet_of, zone_of_subnet};
use super::{Call, catalogue};
use crate::twin::protocol::{AwsError, Filters, Xml};
use crate::twin::world::{ACCOUNT, World};

pub const VPC: &str = "vpc-00000000000000001";

pub fn subnets(world: &World, call: &Call) -> Result<String, AwsError> {
    let ids = call.params.list("SubnetId");
    ids.iter().try_for_each(|id| zone_of_subnet(world, id).map(drop))?;
    let zones = catalogue::zones_in(world, call.region).into_iter().filter(|zone| ids.is_empty() || ids.contains(&subnet_of(zone).as_str()));
    let kept = Filters::of(call.params).keep(zones, |zone, name| match name {
        "availability-zone" => Some(vec![zone.clone()]),
        "subnet-id" => Some(vec![subnet_of(zone)]),
        "vpc-id" => Some(vec![VPC.into()]),
        "state" => Some(vec!["available".into()]),
        _ => None,
    })?;
    let mut xml = Xml::default();
    xml.items("subnetSet", kept, |xml, zone| {
        let subnet = subnet_of(&zone);
        xml.field("subnetId", &subnet);
        xml.field("state", "available");
        xml.field("vpcId", VPC);
        xml.field("cidrBlock", "10.0.0.0/20");
        xml.field("availableIpAddressCount", free_addresses(world, &subnet));
        xml.field("availabilityZone", &zone);
        xml.field("availabilityZoneId", &zone);
        xml.field("ownerId", ACCOUNT);
        xml.field("defaultForAz", true);
        xml.field("mapPublicIpOnLaunch", false);
    });
    Ok(xml.into_text())
}

/// Whatever group is asked for is there.
pub fn security_groups(call: &Call) -> Result<String, AwsError> {
    let mut ids = call.params.list("GroupId");
    if ids.is_empty() {
        ids.push("sg-00000000000000001");
    }
    let mut xml = Xml::default();
    xml.items("securityGroupInfo", ids, |xml, id| {
        xml.field("groupId", id);
        xml.field("groupName", "default");
        xml.field("groupDescription", "default VPC security group");
        xml.field("ownerId", ACCOUNT);
        xml.field("vpcId", VPC);
    });
    Ok(xml.into_text())
}

/// What `--image` names, and one that is always there.
pub fn images(world: &World, call: &Call) -> Result<String, AwsError> {
    let ids = call.params.list("ImageId");
    ids.iter().try_for_each(|id| existing_image(world, Some(id)))?;
    let kept = world.settings.images.iter().filter(|id| ids.is_empty() || ids.contains(&id.as_str()));
    let mut xml = Xml::default();
    xml.items("imagesSet", kept, |xml, id| {
        xml.field("imageId", id);
        xml.field("imageState", "available");
        xml.field("imageOwnerId", ACCOUNT);
        xml.field("isPublic", true);
        xml.field("architecture", "x86_64");
        xml.field("imageType", "machine");
        xml.field("name", "twin");
        xml.field("rootDeviceType", "ebs");
        xml.field("rootDeviceName", "/dev/xvda");
        xml.field("virtualizationType", "hvm");
        xml.field("creationDate", "2025-01-01T00:00:00.000Z");
    });
    Ok(xml.into_text())
}

/// Nothing can be launched from an image that is not there.
pub fn existing_image(world: &World, id: Option<&str>) -> Result<(), AwsError> {
    let Some(id) = id else { return Err(AwsError::missing("ImageId")) };
    let is_there = world.settings.images.iter().any(|image| image == id);
    let missing = || AwsError::client("InvalidAMIID.NotFound", format!("The image id '[{id}]' does not exist; the twin has {} (purser twin --image)", world.settings.images.join(", ")));
    is_there.then_some(()).ok_or_else(missing)
}
