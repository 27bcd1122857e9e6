//! The price list: on-demand prices of Linux machines with shared tenancy.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::protocol::{AwsError, page};
use super::world::World;
use crate::simulation::market::{MachineType, Market};
use crate::units::MoneyPerHour;

pub fn answer(world: &World, operation: &str, request: &Value) -> Result<Value, AwsError> {
    if operation != "GetProducts" {
        return Err(AwsError::client("UnknownOperationException", format!("The twin does not know the pricing operation {operation}")));
    }
    let filters = request["Filters"].as_array().cloned().unwrap_or_default();
    let products: Vec<String> = products(world.fleet.market())
        .into_iter()
        .filter(|product| request["ServiceCode"] == "AmazonEC2" && filters.iter().all(|filter| admits(product, filter)))
        .map(|product| product.to_string())
        .collect();
    let size = request["MaxResults"].as_u64().unwrap_or(100).clamp(1, 100) as usize;
    let (page, next) = page(products, request["NextToken"].as_str().filter(|token| !token.is_empty()), size)?;
    let mut answer = json!({"FormatVersion": "aws_v1", "PriceList": page});
    if let Some(next) = next {
        answer["NextToken"] = json!(next);
    }
    Ok(answer)
}

fn admits(product: &Value, filter: &Value) -> bool {
    let (field, wanted) = (filter["Field"].as_str().unwrap_or_default(), filter["Value"].as_str().unwrap_or_default());
    match field {
        "ServiceCode" | "servicecode" => wanted == "AmazonEC2",
        "productFamily" => product["product"]["productFamily"] == wanted,
        "termType" => wanted == "OnDemand",
        _ => product["product"]["attributes"][field] == wanted,
    }
}

/// One product for each type and region.
fn products(market: &Market) -> Vec<Value> {
    let mut prices: BTreeMap<(&str, &str), MoneyPerHour> = BTreeMap::new();
    for (key, pool) in &market.pools {
        prices.entry((key.region(), &key.instance_type)).or_insert(pool.on_demand_price);
    }
    let product_of = |((region, name), price): ((&str, &str), MoneyPerHour)| Some(product(region, market.types.get(name)?, price));
    prices.into_iter().filter_map(product_of).collect()
}

fn product(region: &str, machine: &MachineType, price: MoneyPerHour) -> Value {
    let name = &machine.machine.name;
    let sku = super::eventbridge::id_of(&format!("{region}/{name}")).replace('-', "").to_uppercase()[..16].to_owned();
    let term = format!("{sku}.JRTCKXETXF");
    let rate = format!("{term}.6YS6EN2CT7");
    json!({
        "product": {
            "productFamily": "Compute Instance",
            "sku": sku,
            "attributes": {
                "servicecode": "AmazonEC2",
                "instanceType": name,
                "regionCode": region,
                "location": region,
                "locationType": "AWS Region",
                "operatingSystem": "Linux",
                "tenancy": "Shared",
                "preInstalledSw": "NA",
                "capacitystatus": "Used",
                "licenseModel": "No License required",
                "marketoption": "OnDemand",
                "operation": "RunInstances",
                "vcpu": machine.machine.vcpu.to_string(),
                "memory": format!("{} GiB", machine.machine.memory_mib / 1_024),
                "gpu": machine.machine.gpus.to_string(),
                "usagetype": format!("BoxUsage:{name}"),
            },
        },
        "serviceCode": "AmazonEC2",
        "terms": {"OnDemand": {&term: {
            "sku": sku,
            "offerTermCode": "JRTCKXETXF",
            "effectiveDate": "2025-05-01T00:00:00Z",
            "termAttributes": {},
            "priceDimensions": {&rate: {
                "rateCode": rate,
                "unit": "Hrs",
                "beginRange": "0",
                "endRange": "Inf",
                "description": format!("{price} per On Demand Linux {name} Instance Hour"),
                "appliesTo": [],
                "pricePerUnit": {"USD": price.per_hour().decimal()},
            }},
        }}},
        "version": "20250501000000",
        "publicationDate": "2025-05-01T00:00:00Z",
    })
}
