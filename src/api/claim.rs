//! `CapacityClaim`: one launch decision and its life. Purser writes it before it asks the cloud; people only read it.

use kube::{CustomResource, KubeSchema, ResourceExt};
use serde::{Deserialize, Serialize};

use crate::capacity::claim::ClaimStatus;
use crate::capacity::{Claim, ClaimRecord};

/// One launch decision: what was asked for, for whom, at what price. Immutable.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "purser.dev",
    version = "v1alpha1",
    kind = "CapacityClaim",
    status = "ClaimStatus",
    shortname = "cclaim",
    category = "purser",
    doc = "One launch decision and its life. Written by Purser before the cloud is asked, kept until its cost is in the ledger. Do not write one by hand.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Job", type_ = "string", json_path = ".spec.job.name"),
    printcolumn(name = "Attempt", type_ = "integer", json_path = ".spec.attempt"),
    printcolumn(name = "Count", type_ = "integer", json_path = ".spec.count"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.offer.instanceType"),
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.offer.kind"),
    printcolumn(name = "Zone", type_ = "string", json_path = ".spec.offer.zone"),
    printcolumn(name = "Price", type_ = "string", json_path = ".spec.offer.price"),
    printcolumn(name = "Metered", type_ = "string", json_path = ".status.metered"),
    printcolumn(name = "Refused", type_ = "string", json_path = ".status.refusal.code", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("self == oldSelf").message("a claim is a record and cannot change"))]
pub struct CapacityClaimSpec {
    #[serde(flatten)]
    pub record: ClaimRecord,
}

/// A stored claim always has a UID and a creation time.
pub fn core_claim(object: &CapacityClaim) -> Option<Claim> {
    Some(Claim {
        name: object.name_any(),
        uid: object.uid()?,
        written_at_real: super::conditions::core_time(&object.creation_timestamp()?),
        record: object.spec.record.clone(),
        status: object.status.clone().unwrap_or_default(),
    })
}
