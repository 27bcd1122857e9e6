//! The EC2 Query protocol: one function an action, XML out.

mod catalogue;
mod fleet;
mod instances;
mod launch;
mod network;
mod reservations;
mod templates;

pub use instances::private_dns_name;

use super::protocol::{AwsError, Params};
use super::world::World;

/// One call: what was asked, and for which region (the one of its signature).
pub struct Call<'a> {
    pub action: &'a str,
    pub region: &'a str,
    pub params: &'a Params,
}

/// The whole answer as XML text.
pub fn answer(world: &mut World, call: &Call) -> Result<String, AwsError> {
    let body = match call.action {
        "DescribeInstanceTypes" => catalogue::instance_types(world, call)?,
        "DescribeInstanceTypeOfferings" => catalogue::offerings(world, call)?,
        "DescribeAvailabilityZones" => catalogue::zones(world, call)?,
        "DescribeRegions" => catalogue::regions(world)?,
        "DescribeSpotPriceHistory" => catalogue::spot_prices(world, call)?,
        "CreateLaunchTemplate" => templates::create(world, call)?,
        "CreateLaunchTemplateVersion" => templates::create_version(world, call)?,
        "DescribeLaunchTemplates" => templates::describe(world, call)?,
        "DescribeLaunchTemplateVersions" => templates::describe_versions(world, call)?,
        "DeleteLaunchTemplate" => templates::delete(world, call)?,
        // These keep their own whole answers, to be given again to the same token.
        "CreateFleet" => return fleet::create(world, call),
        "RunInstances" => return instances::run(world, call),
        "TerminateInstances" => instances::terminate(world, call)?,
        "DescribeInstances" => instances::describe(world, call)?,
        "DescribeSpotInstanceRequests" => instances::spot_requests(world, call)?,
        "CreateTags" => instances::create_tags(world, call)?,
        "DescribeCapacityReservations" => reservations::describe(world, call)?,
        "DescribeSubnets" => network::subnets(world, call)?,
        "DescribeSecurityGroups" => network::security_groups(call)?,
        "DescribeImages" => network::images(world, call)?,
        other => return Err(AwsError::client("InvalidAction", format!("The action {other} is not known to the twin. It plays a part of EC2 only; see `purser twin --help`."))),
    };
    Ok(envelope(call.action, &body))
}

pub fn envelope(action: &str, body: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>00000000-0000-0000-0000-000000000000</requestId>{body}</{action}Response>"
    )
}

/// Size of a page: `MaxResults`, or all that fit in EC2's largest page.
fn page_size(call: &Call, most: usize) -> Result<usize, AwsError> {
    Ok(call.params.count("MaxResults")?.map_or(most, |size| (size as usize).clamp(1, most)))
}
