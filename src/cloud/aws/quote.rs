//! What a pool can buy right now: what was learnt, put together into offers.
//!
//! Gathering is asynchronous and above; [`Market`] is plain data, and what follows from it is pure.

use std::collections::{BTreeSet, HashMap};

use super::failure::Optional;
use super::limits::{Quota, QuotaMarket, VcpusInUse, machines_under, quota_for};
use super::machines::{Machine, Offerings};
use super::prices::{OnDemandPrices, SpotPrices};
use super::region::AwsRegion;
use super::reservations::Reservation;
use crate::capacity::offer::QuotedOffer;
use crate::capacity::{CapacityKind, Offer, PriceSource, Provider, catalogue};
use crate::cloud::{CloudError, PoolConfig, Quote};
use crate::units::{Money, MoneyPerHour};

/// All that bears on one pool's offers.
struct Market<'a> {
    pool: &'a PoolConfig,
    machines: Vec<&'a Machine>,
    /// Zones by type; without it, any zone may offer any type.
    offerings: Option<&'a Offerings>,
    spot: &'a SpotPrices,
    on_demand: Option<&'a OnDemandPrices>,
    reservations: &'a [Reservation],
    quotas: Option<(&'a [Quota], &'a VcpusInUse)>,
    /// Free addresses by subnet.
    addresses: Option<&'a HashMap<String, u32>>,
}

/// The most that could be had, and what stands in the way of more.
type Bound = Option<(u32, String)>;

impl AwsRegion {
    pub(super) async fn quote(&self, pool: &PoolConfig) -> Result<Quote, CloudError> {
        let all = self.machines().await?;
        let requirements = &pool.requirements;
        let machines: Vec<&Machine> = all.values().filter(|machine| requirements.admits(&machine.what) && catalogue::is_meant(requirements, &machine.what)).collect();
        if machines.is_empty() {
            let warning = format!("no instance type in {} meets the requirements of pool {}", self.name, pool.pool);
            return Ok(Quote { offers: Vec::new(), source: PriceSource::Live, warnings: vec![warning] });
        }
        let types: Vec<String> = machines.iter().map(|machine| machine.what.name.clone()).collect();
        let subnets: BTreeSet<String> = pool.subnets.values().cloned().collect();
        let (spot, on_demand, offerings, reservations, quotas, in_use, addresses) = tokio::join!(
            self.spot_prices(types),
            self.on_demand_prices(),
            self.offerings(),
            self.reservations(),
            self.quotas(),
            self.vcpus_in_use(),
            self.free_addresses(subnets.into_iter().collect()),
        );
        let spot = spot?;
        let mut unknown = Unknown::default();
        let (on_demand, offerings, reservations) = (unknown.note(on_demand), unknown.note(offerings), unknown.note(reservations));
        let quotas = unknown.note(quotas).zip(unknown.note(in_use));
        let addresses = unknown.note(addresses);
        let market = Market {
            pool,
            machines,
            offerings: offerings.as_deref(),
            spot: &spot,
            on_demand: on_demand.as_deref(),
            reservations: reservations.as_deref().map_or(&[], Vec::as_slice),
            quotas: quotas.as_ref().map(|(quotas, in_use)| (quotas.as_slice(), in_use.as_ref())),
            addresses: addresses.as_deref(),
        };
        Ok(market.quote(unknown.warnings))
    }
}

/// Collects why something is not known.
#[derive(Default)]
struct Unknown {
    warnings: Vec<String>,
}

impl Unknown {
    fn note<T>(&mut self, answer: Optional<T>) -> Option<T> {
        answer.map_err(|warning| self.warnings.push(warning)).ok()
    }
}

impl Market<'_> {
    fn quote(&self, mut warnings: Vec<String>) -> Quote {
        let mut offers = Vec::new();
        let mut from_catalogue = Vec::new();
        for machine in &self.machines {
            let list_price = if machine.sold_on_demand { self.list_price(machine, &mut from_catalogue) } else { None };
            for zone in self.zones(machine) {
                offers.extend(self.reserved(machine, zone));
                offers.extend(self.spot(machine, zone));
                offers.extend(list_price.map(|price| self.offer(machine, zone, CapacityKind::OnDemand, price, None)));
            }
        }
        let source = self.source(&from_catalogue, &mut warnings);
        offers.sort_by(|left, right| left.offer.price.cmp(&right.offer.price).then_with(|| left.offer.cmp(&right.offer)));
        Quote { offers, source, warnings }
    }

    /// Zones with a subnet, that the pool admits and where the type is offered.
    fn zones(&self, machine: &Machine) -> impl Iterator<Item = &str> {
        let offered = self.offerings.map(|offerings| offerings.get(&machine.what.name));
        self.pool.subnets.keys().map(String::as_str).filter(move |zone| {
            let is_offered = offered.is_none_or(|zones| zones.is_some_and(|zones| zones.contains(*zone)));
            is_offered && self.pool.requirements.admits_zone(zone)
        })
    }

    /// From the price list, else from the catalogue (then the type is noted).
    fn list_price(&self, machine: &Machine, from_catalogue: &mut Vec<String>) -> Option<MoneyPerHour> {
        let name = &machine.what.name;
        if let Some(price) = self.on_demand.and_then(|prices| prices.get(name)) {
            return Some(*price);
        }
        let entry = catalogue::lookup(&self.pool.region, name)?;
        from_catalogue.push(name.clone());
        Some(entry.on_demand)
    }

    fn source(&self, from_catalogue: &[String], warnings: &mut Vec<String>) -> PriceSource {
        warnings.extend(from_catalogue.iter().flat_map(|name| catalogue::warnings(&self.pool.region, name)));
        let oldest = from_catalogue.iter().filter_map(|name| catalogue::lookup(&self.pool.region, name)).map(|entry| entry.as_of).min();
        match oldest {
            Some(date) => {
                let types = from_catalogue.len();
                warnings.push(format!("on-demand prices of {types} instance types come from the catalogue of {date}; spot prices are live"));
                PriceSource::Catalogue { as_of: date.to_string() }
            }
            None => PriceSource::Live,
        }
    }

    fn spot(&self, machine: &Machine, zone: &str) -> Option<QuotedOffer> {
        let price = self.spot.get(&(machine.what.name.clone(), zone.to_owned())).filter(|_| machine.sold_on_spot)?;
        Some(self.offer(machine, zone, CapacityKind::Spot, *price, None))
    }

    fn reserved(&self, machine: &Machine, zone: &str) -> Vec<QuotedOffer> {
        let is_usable = |reservation: &&Reservation| {
            reservation.instance_type == machine.what.name && reservation.zone == zone && reservation.is_for(self.pool)
        };
        let free = MoneyPerHour(Money::ZERO_USD);
        self.reservations.iter().filter(is_usable).map(|reservation| self.offer(machine, zone, CapacityKind::Reserved, free, Some(reservation))).collect()
    }

    fn offer(&self, machine: &Machine, zone: &str, kind: CapacityKind, price: MoneyPerHour, reservation: Option<&Reservation>) -> QuotedOffer {
        let offer = Offer { provider: Provider::Aws, instance_type: machine.what.name.clone(), zone: zone.to_owned(), kind, price, reservation: reservation.map(|reservation| reservation.id.clone()) };
        let bounds = [reservation.map(|reservation| (reservation.available, format!("reservation {}", reservation.id))), self.quota_bound(machine, kind), self.address_bound(zone)];
        QuotedOffer { offer, machine: machine.what.clone(), available_max: bounds.into_iter().flatten().min_by_key(|(machines, _)| *machines) }
    }

    fn quota_bound(&self, machine: &Machine, kind: CapacityKind) -> Bound {
        let (quotas, in_use) = self.quotas?;
        let quota = quota_for(quotas, &machine.what.name, QuotaMarket::of(kind)?)?;
        Some((machines_under(quota, quotas, in_use, machine.what.vcpu), quota.name.clone()))
    }

    fn address_bound(&self, zone: &str) -> Bound {
        let subnet = self.pool.subnets.get(zone)?;
        Some((*self.addresses?.get(subnet)?, format!("free addresses of {subnet}")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fleet::tests::request;
    use super::*;
    use crate::capacity::InstanceType;

    fn machine(name: &str) -> Machine {
        let what = InstanceType { name: name.into(), vcpu: 4, memory_mib: 16384, gpus: 1, gpu_name: Some("A10G".into()), architecture: "amd64".into(), pods: 0 };
        Machine { what, sold_on_spot: true, sold_on_demand: true }
    }

    fn price(text: &str) -> MoneyPerHour {
        MoneyPerHour::usd(text).unwrap()
    }

    /// The offers as text, cheapest first.
    fn offers(quote: &Quote) -> Vec<String> {
        quote.offers.iter().map(|quoted| format!("{} {} {:?}", quoted.offer, quoted.offer.price, quoted.available_max.as_ref().map(|(machines, why)| format!("{machines} {why}")))).collect()
    }

    #[test]
    fn offers_are_priced_and_bounded_and_the_paid_ones_come_first() {
        let pool = request(CapacityKind::Spot).config;
        let g5 = machine("g5.xlarge");
        let spot = SpotPrices::from([(("g5.xlarge".into(), "us-east-1a".into()), price("0.4")), (("g5.xlarge".into(), "us-east-1b".into()), price("0.1"))]);
        let list = OnDemandPrices::from([("g5.xlarge".into(), price("1.006"))]);
        let reservation = |id: &str, pool: Option<&str>| Reservation { id: id.into(), cluster: "cluster-1".into(), instance_type: "g5.xlarge".into(), zone: "us-east-1a".into(), available: 2, pool: pool.map(str::to_owned) };
        let reservations = [reservation("cr-1", None), reservation("cr-2", Some("another"))];
        let addresses = HashMap::from([("subnet-01234567".to_owned(), 11)]);
        let market = Market { pool: &pool, machines: vec![&g5], offerings: None, spot: &spot, on_demand: Some(&list), reservations: &reservations, quotas: None, addresses: Some(&addresses) };
        let quote = market.quote(Vec::new());
        assert_eq!(
            offers(&quote),
            [
                r#"g5.xlarge reserved us-east-1a 0 USD/h Some("2 reservation cr-1")"#,
                r#"g5.xlarge spot us-east-1a 0.4 USD/h Some("11 free addresses of subnet-01234567")"#,
                r#"g5.xlarge on-demand us-east-1a 1.006 USD/h Some("11 free addresses of subnet-01234567")"#,
            ]
        );
        assert_eq!((quote.source, quote.warnings), (PriceSource::Live, Vec::new()));
    }

    #[test]
    fn catalogue_prices_say_their_date_and_what_is_wrong_with_them() {
        let mut pool = request(CapacityKind::Spot).config;
        pool.region = "us-west-2".into();
        pool.subnets = [("us-west-2a".to_owned(), "subnet-01234567".to_owned())].into();
        let p5 = machine("p5.48xlarge");
        let market = Market { pool: &pool, machines: vec![&p5], offerings: None, spot: &SpotPrices::new(), on_demand: None, reservations: &[], quotas: None, addresses: None };
        let quote = market.quote(Vec::new());
        assert_eq!(offers(&quote), ["p5.48xlarge on-demand us-west-2a 98.32 USD/h None"]);
        assert_eq!(quote.source, PriceSource::Catalogue { as_of: "2025-05-28".into() });
        assert!(quote.warnings[0].contains("predate the cut"), "{:?}", quote.warnings);
    }

    #[test]
    fn a_type_is_not_offered_where_ec2_does_not_offer_it() {
        let pool = request(CapacityKind::Spot).config;
        let g5 = machine("g5.xlarge");
        let elsewhere = Offerings::from([("g5.xlarge".to_owned(), BTreeSet::from(["us-east-1c".to_owned()]))]);
        let market = Market { pool: &pool, machines: vec![&g5], offerings: Some(&elsewhere), spot: &SpotPrices::new(), on_demand: None, reservations: &[], quotas: None, addresses: None };
        assert!(market.quote(Vec::new()).offers.is_empty());
    }
}
