//! Team status: this month's cost, and whether its namespaces are its own.

use kube::ResourceExt;
use kube::api::Api;

use super::super::meter::Sums;
use super::super::observe::stores::parsed;
use super::super::observe::{Observation, Observer, jobs};
use super::super::report::rounded;
use super::write_status;
use crate::api::conditions::condition;
use crate::api::team::TeamStatus;
use crate::api::{ConditionReason, ConditionType, Team};

pub(super) async fn report(observer: &Observer, observation: &Observation, sums: &Sums) {
    let api: Api<Team> = Api::all(observer.client.clone());
    let teams = parsed(&observer.stores.teams);
    let disputed = jobs::disputed_namespaces(&teams);
    for team in &teams {
        let dispute = team.spec.namespaces.iter().find_map(|namespace| disputed.get(namespace));
        let previous = team.status.as_ref().map_or(&[][..], |status| &status.conditions);
        let (reason, message) = match dispute {
            Some(dispute) => (ConditionReason::NamespaceClaimedTwice, dispute.clone()),
            None => (ConditionReason::Accepted, String::new()),
        };
        let cost = sums.of_team_this_month(&team.name_any());
        let generation = team.metadata.generation;
        let status = TeamStatus {
            cost_this_month: Some(cost),
            cost_this_month_rounded: Some(rounded(&cost)),
            conditions: vec![condition(previous, ConditionType::Ready, Some(dispute.is_none()), reason, message, generation, observation.snapshot.real_now)],
            observed_generation: generation,
        };
        write_status(api.clone(), &team.name_any(), team.status.as_ref(), &status).await;
    }
}
