//! CapacityPool status: whether it can be used, what it offers, what runs from it.

use kube::ResourceExt;
use kube::api::Api;

use super::super::observe::{Observation, Observer};
use super::super::observe::pools::SeenPool;
use super::write_status;
use crate::api::conditions::condition;
use crate::api::pool::CapacityPoolStatus;
use crate::api::{CapacityPool, ConditionReason, ConditionType};
use crate::capacity::PriceSource;
use crate::scheduling::Snapshot;

pub(super) async fn report(observer: &Observer, observation: &Observation) {
    let api: Api<CapacityPool> = Api::all(observer.client.clone());
    for object in observer.stores.pools.state() {
        let Ok(object) = &object.0 else { continue };
        let Some(seen) = observation.pools.iter().find(|pool| pool.view.name == object.name_any()) else { continue };
        let status = status(object, seen, &observation.snapshot);
        write_status(api.clone(), &object.name_any(), object.status.as_ref(), &status).await;
    }
}

fn status(object: &CapacityPool, seen: &SeenPool, snapshot: &Snapshot) -> CapacityPoolStatus {
    let previous = object.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let offers = seen.view.offers.len();
    let (ready, reason, message) = match &seen.view.state {
        Err((reason, message)) => (false, reason.clone(), message.clone()),
        Ok(()) if offers == 0 => {
            (false, ConditionReason::NoMachineFits.to_string(), "no machine meets the pool's requirements; widen spec.requirements or its zones".to_owned())
        }
        Ok(()) => (true, ConditionReason::Accepted.to_string(), format!("{offers} offers")),
    };
    let running = snapshot.claims.iter().filter(|claim| claim.record.pool == seen.view.name).flat_map(|claim| claim.open_instances()).count();
    CapacityPoolStatus {
        offers: u32::try_from(offers).ok(),
        machines: u32::try_from(running).ok(),
        price_source: seen.view.state.is_ok().then(|| source(&seen.view.price_source)),
        warnings: seen.warnings.clone(),
        conditions: vec![condition(previous, ConditionType::Ready, Some(ready), reason, message, object.metadata.generation, snapshot.real_now)],
        observed_generation: object.metadata.generation,
    }
}

fn source(source: &PriceSource) -> String {
    match source {
        PriceSource::Live => "live".to_owned(),
        PriceSource::Catalogue { as_of } => format!("catalogue {as_of}"),
        PriceSource::Pool => "pool".to_owned(),
    }
}
