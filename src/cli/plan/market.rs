//! The market's own offers in place of the catalogue's: what AWS answers now, with its quotas and reservations.

use std::sync::Arc;

use super::world::World;
use crate::capacity::Provider;
use crate::cli::CliError;
use crate::cli::documents::{Document, Object};
use crate::cloud::aws::Aws;
use crate::cloud::{Cloud, Quote};
use crate::kubernetes::clock::MarketClock;
use crate::kubernetes::observe::pools;

/// The installation id of a plan; nothing is bought under it.
const CLUSTER_ID: &str = "purser-plan";

pub async fn at_live_prices(mut world: World, documents: &[Document], clock: MarketClock) -> Result<World, CliError> {
    let cloud = Aws::new(Arc::new(move || clock.now()));
    for document in documents {
        let Object::Pool(pool) = &document.object else { continue };
        let (Provider::Aws, Some(aws)) = (pool.spec.provider, &pool.spec.aws) else { continue };
        let name = document.object.name();
        let config = pools::config(&name, CLUSTER_ID, &pool.spec.requirements, aws);
        let quote = cloud.quote(&config).await.map_err(|error| {
            CliError::failed(format!("AWS quotes nothing for pool {name}")).because(error).hint("leave --live out to plan with the catalogue's prices")
        })?;
        let Quote { offers, source, warnings } = quote;
        let views = world.snapshot.pools.iter_mut().filter(|view| view.name == name);
        views.for_each(|view| (view.offers, view.price_source) = (offers.clone(), source.clone()));
        world.notes.extend(warnings);
    }
    Ok(world)
}
