//! What machines cost: spot from the market's history, on-demand from the price list, or from the catalogue where that is
//! out of reach.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_ec2::types::{InstanceType as Ec2Type, SpotPrice};
use aws_sdk_pricing::error::BuildError;
use aws_sdk_pricing::types::{Filter as PricingFilter, FilterType};
use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::failure::{Optional, failed, optional};
use super::machines::filter;
use super::region::{AwsRegion, aws_time, time_of};
use crate::capacity::{CapacityKind, Offer, PriceSegment};
use crate::cloud::{CloudError, Retry};
use crate::units::{Money, MoneyPerHour};

/// EC2's word for Linux without a licence; in a VPC it is the same price.
const LINUX: &str = "Linux/UNIX";
/// Above so many names the whole region is asked for: the request would only grow longer.
const NAMES_MAX: usize = 100;

/// The spot price in force by type and zone.
pub(super) type SpotPrices = HashMap<(String, String), MoneyPerHour>;
/// The list price by type.
pub(super) type OnDemandPrices = HashMap<String, MoneyPerHour>;

impl AwsRegion {
    /// Spot prices in force now. `types` is sorted, as a key of what is known.
    pub(super) async fn spot_prices(&self, types: Vec<String>) -> Result<Arc<SpotPrices>, CloudError> {
        self.known.spot_prices.get(types.clone(), || self.load_spot_prices(types)).await
    }

    async fn load_spot_prices(&self, types: Vec<String>) -> Result<Arc<SpotPrices>, CloudError> {
        let now = self.market_now();
        let names = if types.len() <= NAMES_MAX { types } else { Vec::new() };
        let request = self.ec2.describe_spot_price_history().set_instance_types(Some(names.iter().map(|name| Ec2Type::from(name.as_str())).collect()));
        let request = request.product_descriptions(LINUX).start_time(aws_time(now));
        let answer: Result<Vec<SpotPrice>, _> = request.into_paginator().items().send().collect().await;
        let answer = answer.map_err(|error| failed(format!("describe spot prices in {}", self.name), error))?;
        Ok(Arc::new(prices_in_force(&answer)))
    }

    /// List prices from the pricing service, the region's all at once; what it does not list is missing.
    pub(super) async fn on_demand_prices(&self) -> Optional<Arc<OnDemandPrices>> {
        self.known.on_demand_prices.get_optional((), || self.load_on_demand_prices()).await
    }

    async fn load_on_demand_prices(&self) -> Optional<Arc<OnDemandPrices>> {
        let filters = self.linux_on_shared_hardware().map_err(|error| format!("list prices are not known: {error}"))?;
        let request = self.pricing.get_products().service_code("AmazonEC2").set_filters(Some(filters));
        let answer: Result<Vec<String>, _> = request.into_paginator().items().send().collect().await;
        let products = optional("list prices", answer)?;
        Ok(Arc::new(products.iter().filter_map(|json| product_price(json, &self.name)).collect()))
    }

    fn linux_on_shared_hardware(&self) -> Result<Vec<PricingFilter>, BuildError> {
        let terms = [
            ("regionCode", self.name.as_str()),
            ("operatingSystem", "Linux"),
            ("preInstalledSw", "NA"),
            ("tenancy", "Shared"),
            ("capacitystatus", "Used"),
            ("marketoption", "OnDemand"),
        ];
        terms.into_iter().map(|(field, value)| PricingFilter::builder().field(field).value(value).r#type(FilterType::TermMatch).build()).collect()
    }

    /// What one machine of the offer cost: the segment in force at `from` and all that begin before `to`, oldest first.
    pub(super) async fn price_history(&self, offer: &Offer, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Vec<PriceSegment>, CloudError> {
        match offer.kind {
            // The reservation is paid for whether it is used or not.
            CapacityKind::Reserved => Ok(vec![PriceSegment { from, price: MoneyPerHour(Money::zero(offer.price.per_hour().currency())) }]),
            // The list price of the day it was decided; AWS keeps no history that could be asked for.
            CapacityKind::OnDemand => Ok(vec![PriceSegment { from, price: offer.price }]),
            CapacityKind::Spot => self.spot_history(offer, from, to).await,
        }
    }

    async fn spot_history(&self, offer: &Offer, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Vec<PriceSegment>, CloudError> {
        let doing = || format!("describe the spot price of {offer} from {} to {}", from.to_rfc3339(), to.to_rfc3339());
        let request = self.ec2.describe_spot_price_history().instance_types(Ec2Type::from(offer.instance_type.as_str())).product_descriptions(LINUX);
        let request = request.filters(filter("availability-zone", [offer.zone.as_str()])).start_time(aws_time(from)).end_time(aws_time(to));
        let answer: Result<Vec<SpotPrice>, _> = request.into_paginator().items().send().collect().await;
        let answer = answer.map_err(|error| failed(doing(), error))?;
        let changes = answer.iter().filter(|price| price.availability_zone() == Some(offer.zone.as_str())).filter_map(change_of).collect();
        segments(changes, from, to).map_err(|message| CloudError { doing: doing(), message, retry: Retry::AfterBackoff, source: None })
    }
}

/// The newest price of each type and zone.
fn prices_in_force(answer: &[SpotPrice]) -> SpotPrices {
    let mut newest: HashMap<(String, String), PriceSegment> = HashMap::new();
    for price in answer {
        let (Some(name), Some(zone), Some(change)) = (price.instance_type(), price.availability_zone(), change_of(price)) else { continue };
        let kept = newest.entry((name.as_str().to_owned(), zone.to_owned())).or_insert_with(|| change.clone());
        if change.from > kept.from {
            *kept = change;
        }
    }
    newest.into_iter().map(|(market, change)| (market, change.price)).collect()
}

fn change_of(price: &SpotPrice) -> Option<PriceSegment> {
    Some(PriceSegment { from: time_of(price.timestamp())?, price: MoneyPerHour::usd(price.spot_price()?).ok()? })
}

/// Orders changes (EC2 tells the newest first), drops what is not asked for, and insists on a price for the first second:
/// a guess would end in somebody's bill.
fn segments(mut changes: Vec<PriceSegment>, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Vec<PriceSegment>, String> {
    changes.sort_by_key(|change| change.from);
    changes.dedup();
    let Some(first) = changes.iter().rposition(|change| change.from <= from) else {
        return Err("EC2 told no price that was in force at the beginning".into());
    };
    Ok(changes.into_iter().skip(first).filter(|change| change.from < to || change.from <= from).collect())
}

#[derive(Deserialize)]
struct Product {
    product: ProductDetails,
    terms: Terms,
}

#[derive(Deserialize)]
struct ProductDetails {
    attributes: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Terms {
    #[serde(rename = "OnDemand", default)]
    on_demand: HashMap<String, Term>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Term {
    price_dimensions: HashMap<String, PriceDimension>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PriceDimension {
    unit: String,
    price_per_unit: HashMap<String, String>,
}

/// Type and hourly price of one entry of the price list; nothing for what is not sold by the hour or not the region's.
fn product_price(json: &str, region: &str) -> Option<(String, MoneyPerHour)> {
    let product: Product = serde_json::from_str(json).ok()?;
    let attribute = |name: &str| product.product.attributes.get(name).map(String::as_str);
    // Emulators and new kinds of filters may let more through than was asked for.
    let is_asked_for = attribute("regionCode") == Some(region) && attribute("operatingSystem") == Some("Linux") && attribute("tenancy") == Some("Shared");
    let dimension = product.terms.on_demand.values().flat_map(|term| term.price_dimensions.values()).find(|dimension| dimension.unit == "Hrs")?;
    let price = MoneyPerHour::usd(dimension.price_per_unit.get("USD")?).ok()?;
    (is_asked_for && !price.per_hour().is_zero()).then(|| Some((attribute("instanceType")?.to_owned(), price)))?
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes)
    }

    fn change(minutes: i64, price: &str) -> PriceSegment {
        PriceSegment { from: at(minutes), price: MoneyPerHour::usd(price).unwrap() }
    }

    #[test]
    fn history_starts_with_the_price_in_force_and_ends_before_the_end() {
        let newest_first = vec![change(60, "0.4"), change(30, "0.3"), change(10, "0.2"), change(5, "0.1"), change(10, "0.2")];
        assert_eq!(segments(newest_first, at(20), at(60)).unwrap(), [change(10, "0.2"), change(30, "0.3")]);
    }

    #[test]
    fn a_change_at_the_very_beginning_is_the_price_in_force() {
        assert_eq!(segments(vec![change(5, "0.1"), change(20, "0.2")], at(20), at(21)).unwrap(), [change(20, "0.2")]);
        assert_eq!(segments(vec![change(5, "0.1")], at(20), at(20)).unwrap(), [change(5, "0.1")]);
    }

    #[test]
    fn no_price_is_made_up_for_a_time_that_the_history_does_not_cover() {
        assert!(segments(vec![change(30, "0.3")], at(20), at(60)).is_err());
        assert!(segments(Vec::new(), at(20), at(60)).is_err());
    }

    #[test]
    fn the_newest_price_of_each_zone_is_in_force() {
        let price = |zone: &str, minutes: i64, price: &str| SpotPrice::builder().instance_type("g5.xlarge".into()).availability_zone(zone).timestamp(aws_time(at(minutes))).spot_price(price).build();
        let prices = prices_in_force(&[price("us-east-1a", 3, "0.3"), price("us-east-1a", 1, "0.1"), price("us-east-1b", 2, "0.25"), price("us-east-1b", 9, "cheap")]);
        assert_eq!(prices[&("g5.xlarge".into(), "us-east-1a".into())], MoneyPerHour::usd("0.3").unwrap());
        assert_eq!(prices[&("g5.xlarge".into(), "us-east-1b".into())], MoneyPerHour::usd("0.25").unwrap(), "what is no price is left out");
    }

    fn product(region: &str, unit: &str, usd: &str) -> String {
        serde_json::json!({
            "product": {"sku": "S", "attributes": {"instanceType": "g5.xlarge", "regionCode": region, "operatingSystem": "Linux", "tenancy": "Shared"}},
            "serviceCode": "AmazonEC2",
            "terms": {"OnDemand": {"S.T": {"priceDimensions": {"S.T.D": {"unit": unit, "pricePerUnit": {"USD": usd}}}, "sku": "S"}}},
        })
        .to_string()
    }

    #[test]
    fn the_price_list_is_read_to_the_last_digit_and_only_where_it_is_meant() {
        assert_eq!(product_price(&product("us-east-1", "Hrs", "1.0060000000"), "us-east-1"), Some(("g5.xlarge".into(), MoneyPerHour::usd("1.006").unwrap())));
        assert_eq!(product_price(&product("eu-west-1", "Hrs", "1.1230000000"), "us-east-1"), None);
        assert_eq!(product_price(&product("us-east-1", "Quantity", "1"), "us-east-1"), None);
        assert_eq!(product_price(&product("us-east-1", "Hrs", "0.0000000000"), "us-east-1"), None, "a free line is a reservation's");
        assert_eq!(product_price("{}", "us-east-1"), None);
    }
}
