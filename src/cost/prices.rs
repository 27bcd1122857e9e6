//! Which price was in force when, for every offer that metering meets.
//!
//! Only spot has a history: without it nothing is charged and the window waits. Everything else costs what was quoted at the
//! decision: AWS keeps no history of list prices that could be asked for, and reserved capacity and existing nodes never
//! change theirs.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::capacity::{CapacityKind, Claim, Offer, PriceSegment, Provider};

/// What makes two spot offers share a price history.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Market {
    instance_type: String,
    zone: String,
}

impl Market {
    fn of(offer: &Offer) -> Market {
        Market { instance_type: offer.instance_type.clone(), zone: offer.zone.clone() }
    }
}

/// Spot price histories by market.
#[derive(Clone, Debug, Default)]
pub struct PriceBook {
    histories: BTreeMap<Market, Vec<PriceSegment>>,
}

impl PriceBook {
    /// Histories of other offers than spot ones are of no use and are dropped.
    pub fn record(&mut self, offer: &Offer, history: Vec<PriceSegment>) {
        if (offer.provider, offer.kind) == (Provider::Aws, CapacityKind::Spot) {
            self.histories.insert(Market::of(offer), history);
        }
    }

    /// The prices of an offer over time, `None` while they are unknown.
    pub fn of(&self, offer: &Offer) -> Option<Vec<PriceSegment>> {
        match (offer.provider, offer.kind) {
            (Provider::Aws, CapacityKind::Spot) => self.histories.get(&Market::of(offer)).cloned(),
            (Provider::Nodes, _) | (_, CapacityKind::Reserved | CapacityKind::OnDemand) => {
                Some(vec![PriceSegment { from: DateTime::<Utc>::MIN_UTC, price: offer.price }])
            }
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
        let (Some(from), Provider::Aws, CapacityKind::Spot) = (first_launch, offer.provider, offer.kind) else { continue };
        needs
            .entry(Market::of(offer))
            .and_modify(|need| need.from = need.from.min(from))
            .or_insert_with(|| PriceNeed { pool: claim.record.pool.clone(), offer: offer.clone(), from });
    }
    needs.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::MoneyPerHour;

    #[test]
    fn on_demand_costs_what_was_quoted_for_it_whatever_others_were_quoted() {
        let price = |usd: &str| MoneyPerHour::usd(usd).unwrap();
        let offer = |usd: &str| Offer {
            provider: Provider::Aws,
            instance_type: "p5.48xlarge".into(),
            zone: "us-east-1a".into(),
            kind: CapacityKind::OnDemand,
            price: price(usd),
            reservation: None,
        };
        let mut book = PriceBook::default();
        book.record(&offer("98.32"), vec![PriceSegment { from: "2025-06-01T00:00:00Z".parse().unwrap(), price: price("98.32") }]);
        assert_eq!(book.of(&offer("55.04")).unwrap()[0].price, price("55.04"));
    }
}
