//! Which price was in force when, for every offer that metering meets.
//!
//! Spot needs its history: without it nothing is charged and the window waits. On demand costs what was quoted at the
//! decision until the history knows better. Reserved capacity and existing nodes never change their price.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::capacity::{CapacityKind, Claim, Offer, PriceSegment, Provider};

/// What makes two offers share a price history.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Market {
    provider: Provider,
    instance_type: String,
    zone: String,
    kind: CapacityKind,
}

impl Market {
    fn of(offer: &Offer) -> Market {
        Market { provider: offer.provider, instance_type: offer.instance_type.clone(), zone: offer.zone.clone(), kind: offer.kind }
    }
}

/// Price histories by market.
#[derive(Clone, Debug, Default)]
pub struct PriceBook {
    histories: BTreeMap<Market, Vec<PriceSegment>>,
}

impl PriceBook {
    pub fn record(&mut self, offer: &Offer, history: Vec<PriceSegment>) {
        self.histories.insert(Market::of(offer), history);
    }

    /// The prices of an offer over time, `None` while they are unknown.
    pub fn of(&self, offer: &Offer) -> Option<Vec<PriceSegment>> {
        let quoted = PriceSegment { from: DateTime::<Utc>::MIN_UTC, price: offer.price };
        let history = self.histories.get(&Market::of(offer));
        match (offer.provider, offer.kind) {
            (Provider::Nodes, _) | (_, CapacityKind::Reserved) => Some(vec![quoted]),
            (Provider::Aws, CapacityKind::OnDemand) => Some(std::iter::once(quoted).chain(history.into_iter().flatten().cloned()).collect()),
            (Provider::Aws, CapacityKind::Spot) => history.cloned(),
        }
    }
}

/// A history to fetch before metering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceNeed {
    pub pool: String,
    pub offer: Offer,
    pub from: DateTime<Utc>,
}

/// The histories that metering these claims needs, one for each market, each from its first launch on.
pub fn needs(claims: &[Claim]) -> Vec<PriceNeed> {
    let mut needs: BTreeMap<Market, PriceNeed> = BTreeMap::new();
    for claim in claims {
        let offer = &claim.record.offer;
        let first_launch = claim.status.instances.iter().map(|instance| instance.launched_at).min();
        let (Some(from), Provider::Aws) = (first_launch, offer.provider) else { continue };
        if offer.kind == CapacityKind::Reserved {
            continue;
        }
        needs
            .entry(Market::of(offer))
            .and_modify(|need| need.from = need.from.min(from))
            .or_insert_with(|| PriceNeed { pool: claim.record.pool.clone(), offer: offer.clone(), from });
    }
    needs.into_values().collect()
}
