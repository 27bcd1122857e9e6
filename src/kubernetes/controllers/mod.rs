//! Statuses of the kinds that people write and the cycle only reads: pools, teams, experiments.
//!
//! They are written at the end of a cycle, from the same observation, and only where something changed. That they are stale
//! or missing hurts nobody but their readers, so a failure is logged and the next cycle tries again.

mod experiment;
mod pool;
mod team;

use std::fmt::Debug;

use kube::api::{Api, Patch, PatchParams};
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::meter::Sums;
use super::observe::{Observation, Observer};
use crate::api::FIELD_MANAGER;

/// Writes what changed.
pub async fn report(observer: &Observer, observation: &Observation, sums: &Sums) {
    pool::report(observer, observation).await;
    team::report(observer, observation, sums).await;
    experiment::report(observer, observation, sums).await;
}

/// Applies a status, unless it says what the object says already.
async fn write_status<K, S>(api: Api<K>, name: &str, old: Option<&S>, new: &S)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    S: Serialize + PartialEq,
{
    if old == Some(new) {
        return;
    }
    let body = json!({"apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": {"name": name}, "status": new});
    if let Err(error) = api.patch_status(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&body)).await {
        tracing::warn!(kind = %K::kind(&()), name, error = %super::chain::chain(&error), "the status was not written");
    }
}
