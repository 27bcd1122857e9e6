//! Capacity that is already paid for: On-Demand Capacity Reservations which carry this installation's tag.
//!
//! Others' reservations are never used: a targeted one belongs to whoever made it, and an open one would be used up in
//! silence. Whoever wants Purser to fill a reservation tags it `purser.dev/cluster=<id>` (`*`: any installation of the
//! account), and with `purser.dev/pool=<name>` when one pool alone may.

use std::sync::Arc;

use aws_sdk_ec2::types::{CapacityReservation, CapacityReservationInstancePlatform, CapacityReservationState};

use super::failure::{Optional, optional};
use super::fleet::{CLUSTER_TAG, POOL_TAG};
use super::machines::filter;
use super::region::AwsRegion;
use crate::cloud::PoolConfig;

/// The value of the cluster tag that lends a reservation to every installation.
const ANY_CLUSTER: &str = "*";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reservation {
    pub id: String,
    pub instance_type: String,
    pub zone: String,
    pub available: u32,
    /// The installation that may use it.
    pub cluster: String,
    /// The only pool that may use it.
    pub pool: Option<String>,
}

impl Reservation {
    pub fn is_for(&self, pool: &PoolConfig) -> bool {
        (self.cluster == ANY_CLUSTER || self.cluster == pool.cluster_id) && self.pool.as_ref().is_none_or(|name| *name == pool.pool)
    }
}

impl AwsRegion {
    /// Active reservations that are lent to some installation.
    pub(super) async fn reservations(&self) -> Optional<Arc<Vec<Reservation>>> {
        self.known.reservations.get_optional((), || self.load_reservations()).await
    }

    async fn load_reservations(&self) -> Optional<Arc<Vec<Reservation>>> {
        let answer: Result<Vec<_>, _> = self.ec2.describe_capacity_reservations().filters(filter("state", ["active"])).into_paginator().items().send().collect().await;
        Ok(Arc::new(optional("capacity reservations", answer)?.iter().filter_map(reservation_of).collect()))
    }
}

/// Nothing for what carries no tag of ours, is not active, or runs another system.
fn reservation_of(described: &CapacityReservation) -> Option<Reservation> {
    let tag = |key: &str| described.tags().iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value()).map(str::to_owned);
    let runs_linux = described.instance_platform().is_none_or(|platform| *platform == CapacityReservationInstancePlatform::LinuxUnix);
    if !runs_linux || described.state() != Some(&CapacityReservationState::Active) {
        return None;
    }
    Some(Reservation {
        id: described.capacity_reservation_id()?.to_owned(),
        instance_type: described.instance_type()?.to_owned(),
        zone: described.availability_zone()?.to_owned(),
        available: u32::try_from(described.available_instance_count()?).ok()?,
        cluster: tag(CLUSTER_TAG)?,
        pool: tag(POOL_TAG),
    })
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::Tag;

    use super::*;
    use crate::capacity::CapacityKind;

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
    fn a_reservation_of_another_installation_or_of_nobody_is_left_alone() {
        let pool = super::super::fleet::tests::request(CapacityKind::Reserved).config;
        let is_used = |cluster: &str| reservation_of(&described(cluster)).unwrap().is_for(&pool);
        assert_eq!((is_used("cluster-1"), is_used("*"), is_used("another")), (true, true, false));
        let untagged = CapacityReservation::builder().capacity_reservation_id("cr-1").instance_type("g5.xlarge").availability_zone("us-east-1a").available_instance_count(3).state(CapacityReservationState::Active).build();
        assert_eq!(reservation_of(&untagged), None);
    }
}
