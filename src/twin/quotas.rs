//! Service Quotas: how many vCPUs of each class may run at once.

use serde_json::{Value, json};

use super::protocol::AwsError;
use super::world::{ACCOUNT, World};

const QUOTAS: [(&str, &str); 6] = [
    ("L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances"),
    ("L-34B43A08", "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests"),
    ("L-DB2E81BA", "Running On-Demand G and VT instances"),
    ("L-3819A6DF", "All G and VT Spot Instance Requests"),
    ("L-417A185B", "Running On-Demand P instances"),
    ("L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests"),
];

pub fn answer(world: &World, operation: &str, region: &str, request: &Value) -> Result<Value, AwsError> {
    match operation {
        "GetServiceQuota" | "GetAWSDefaultServiceQuota" => {
            let code = request["QuotaCode"].as_str().unwrap_or_default();
            let found = QUOTAS.iter().find(|(known, _)| *known == code && request["ServiceCode"] == "ec2");
            let (code, name) = found.ok_or_else(|| AwsError::client("NoSuchResourceException", format!("The twin knows no quota {code}; it has those of EC2's vCPUs")))?;
            Ok(json!({"Quota": quota(world, region, code, name)}))
        }
        "ListServiceQuotas" | "ListAWSDefaultServiceQuotas" => {
            let quotas: Vec<Value> = QUOTAS.iter().map(|(code, name)| quota(world, region, code, name)).collect();
            Ok(json!({"Quotas": if request["ServiceCode"] == "ec2" { quotas } else { Vec::new() }}))
        }
        other => Err(AwsError::client("UnknownOperationException", format!("The twin does not know the Service Quotas operation {other}"))),
    }
}

fn quota(world: &World, region: &str, code: &str, name: &str) -> Value {
    json!({
        "ServiceCode": "ec2",
        "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
        "QuotaArn": format!("arn:aws:servicequotas:{region}:{ACCOUNT}:ec2/{code}"),
        "QuotaCode": code,
        "QuotaName": name,
        "Value": f64::from(world.quota(code)),
        "Unit": "None",
        "Adjustable": true,
        "GlobalQuota": false,
    })
}
