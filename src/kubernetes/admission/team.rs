//! Whether a Team's namespaces are its own.

use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;

use super::Checks;
use super::review::{Denial, Verdict, unsure};
use crate::api::Team;

pub async fn judge(checks: &Checks, team: &Team) -> Verdict {
    let api: Api<DeserializeGuard<Team>> = Api::all(checks.client.clone());
    let others = match api.list(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(error) => return unsure("spec.namespaces", &error),
    };
    let others = others.iter().filter_map(|other| other.0.as_ref().ok());
    match taken(team, others) {
        None => Ok(Vec::new()),
        Some((namespace, owner)) => Err(Denial::new(
            format!("namespace {namespace} belongs to team {owner} already"),
            format!("a namespace has one team, whose budget pays; take it out of team {owner} first"),
        )),
    }
}

/// The first namespace that another team names, with that team.
fn taken<'a>(team: &Team, others: impl Iterator<Item = &'a Team>) -> Option<(String, String)> {
    others.filter(|other| other.name_any() != team.name_any()).find_map(|other| {
        let shared = team.spec.namespaces.iter().find(|namespace| other.spec.namespaces.contains(namespace))?;
        Some((shared.clone(), other.name_any()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_one_team_and_a_team_does_not_dispute_itself() {
        let team = |name: &str, namespaces: &[&str]| Team::new(name, serde_json::from_value(serde_json::json!({"namespaces": namespaces})).unwrap());
        let stored = [team("red", &["vision"]), team("blue", &["speech"])];
        assert_eq!(taken(&team("green", &["nlp", "speech"]), stored.iter()), Some(("speech".to_owned(), "blue".to_owned())));
        assert_eq!(taken(&team("red", &["vision", "nlp"]), stored.iter()), None);
    }
}
