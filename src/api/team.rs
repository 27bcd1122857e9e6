//! `Team`: the namespaces that share a monthly budget.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Money;

/// A team: namespaces and what they may spend in a calendar month.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "purser.dev",
    version = "v1alpha1",
    kind = "Team",
    status = "TeamStatus",
    category = "purser",
    doc = "A team: the namespaces that share a monthly budget. A namespace belongs to one team at most.",
    printcolumn(name = "Namespaces", type_ = "string", json_path = ".spec.namespaces"),
    printcolumn(name = "Month", type_ = "string", json_path = ".status.costThisMonthRounded"),
    printcolumn(name = "Budget", type_ = "string", json_path = ".spec.monthlyBudget"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TeamSpec {
    /// The team's namespaces, 1 to 100. No other team may name them.
    #[schemars(length(min = 1, max = 100))]
    pub namespaces: Vec<String>,
    /// What its jobs may cost in a calendar month (UTC), for example `"10000"` (US dollars). Default unbounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.startsWith('-') && !self.matches('^[0.]+( [A-Z]{3})?$')").message("monthlyBudget must be more than zero"))]
    pub monthly_budget: Option<Money>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TeamStatus {
    /// Charges of this month in the ledger, exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_this_month: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_this_month_rounded: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
