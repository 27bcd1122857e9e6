//! Capacity that is already paid for: On-Demand Capacity Reservations which carry this installation's tag.
//!
//! Others' reservations are never used: a targeted one belongs to whoever made it, and an open one would be used up in
//! silence. Whoever wants Purser to fill a reservation tags it `purser.dev/cluster=<id>`, and with `purser.dev/pool=<name>`
//! when one pool alone may.

use std::sync::Arc;

use aws_sdk_ec2::types::{CapacityReservation, CapacityReservationInstancePlatform, CapacityReservationState};

use super::failure::{Optional, optional};
use super::fleet::{CLUSTER_TAG, POOL_TAG};
use super::machines::filter;
use super::region::AwsRegion;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reservation {
    pub id: String,
    pub instance_type: String,
    pub zone: String,
    pub available: u32,
    /// The only pool that may use it.
    pub pool: Option<String>,
}

impl AwsRegion {
    /// Active reservations of this installation.
    pub(super) async fn reservations(&self, cluster_id: &str) -> Optional<Arc<Vec<Reservation>>> {
        self.known.reservations.get_optional(cluster_id.to_owned(), || self.load_reservations(cluster_id)).await
    }

    async fn load_reservations(&self, cluster_id: &str) -> Optional<Arc<Vec<Reservation>>> {
        let request = self.ec2.describe_capacity_reservations().filters(filter("state", ["active"])).filters(filter(&format!("tag:{CLUSTER_TAG}"), [cluster_id]));
        let answer: Result<Vec<_>, _> = request.into_paginator().items().send().collect().await;
        Ok(Arc::new(optional("capacity reservations", answer)?.iter().filter_map(|described| reservation_of(described, cluster_id)).collect()))
    }
}

fn reservation_of(described: &CapacityReservation, cluster_id: &str) -> Option<Reservation> {
    let tag = |key: &str| described.tags().iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value());
    let runs_linux = described.instance_platform().is_none_or(|platform| *platform == CapacityReservationInstancePlatform::LinuxUnix);
    // Asked for by filter already; checked again, because another installation's reservation is another's money.
    let is_ours = tag(CLUSTER_TAG) == Some(cluster_id) && described.state() == Some(&CapacityReservationState::Active);
    if !runs_linux || !is_ours {
        return None;
    }
    Some(Reservation {
        id: described.capacity_reservation_id()?.to_owned(),
        instance_type: described.instance_type()?.to_owned(),
        zone: described.availability_zone()?.to_owned(),
        available: u32::try_from(described.available_instance_count()?).ok()?,
        pool: tag(POOL_TAG).map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::Tag;

    use super::*;

    fn described(cluster: &str) -> CapacityReservation {
        CapacityReservation::builder()
            .capacity_reservation_id("cr-1")
            .instance_type("g5.xlarge")
            .availability_zone("us-east-1a")
            .available_instance_count(3)
            .state(CapacityReservationState::Active)
            .tags(Tag::builder().key(CLUSTER_TAG).value(cluster).build())
            .build()
    }

    #[test]
    fn a_reservation_of_another_installation_is_left_alone() {
        assert_eq!(reservation_of(&described("mine"), "mine").unwrap().available, 3);
        assert_eq!(reservation_of(&described("theirs"), "mine"), None);
    }
}
