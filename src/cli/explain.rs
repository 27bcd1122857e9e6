//! `purser explain`: why something is as it is, from the record that was made when it was decided.

use kube::{Api, ResourceExt};

use super::cluster_access::api_error;
use super::output::{self, Table};
use super::{CliError, Exit, Global, job};
use crate::api::{CapacityClaim, CapacityPool};
use crate::scheduling::explain::job_lines;
use crate::training::{Considered, DecisionRecord};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  purser explain job/detector-finetune -n vision\n  purser explain claim/claim-0b1c…\n  purser explain pool/aws-us-east-1")]
pub struct Args {
    /// What: job/NAME, claim/NAME or pool/NAME.
    #[arg(value_name = "KIND/NAME")]
    what: String,
}

pub async fn run(args: &Args, global: &Global) -> Result<Exit, CliError> {
    let unknown = || CliError::usage(format!("{:?} names nothing that can be explained", args.what)).hint("write job/NAME, claim/NAME or pool/NAME");
    let (kind, name) = args.what.split_once('/').ok_or_else(unknown)?;
    let text = match kind {
        "job" | "tj" | "trainingjob" => explain_job(global, name).await?,
        "claim" | "cclaim" | "capacityclaim" => explain_claim(global, name).await?,
        "pool" | "cpool" | "capacitypool" => explain_pool(global, name).await?,
        _ => return Err(unknown()),
    };
    output::print(&text)?;
    Ok(Exit::Done)
}

async fn explain_job(global: &Global, name: &str) -> Result<String, CliError> {
    let (client, namespace) = (global.client().await?, global.namespace().await?);
    let job = job::fetch(&client, &namespace, name).await?;
    let reference = job.job_ref().map_err(|error| CliError::failed("the API server answered with half a job").because(error))?;
    let status = job.status.unwrap_or_default();
    if status.job.decision.is_none() {
        return Ok(format!("{reference} is {}: Purser has not looked at it yet. Is the operator running?\n", status.job.phase));
    }
    Ok(job_lines(&reference, &status.job).join("\n") + "\n")
}

/// A recorded decision: what, why, and every offer that was looked at with why it won or lost.
pub fn decision_text(decision: &DecisionRecord) -> String {
    let mut text = format!("{} ({}), {}: {}\n", decision.kind, decision.reason, decision.at.to_rfc3339(), decision.message);
    if decision.considered.is_empty() {
        return text;
    }
    text.push_str("Offers that were looked at:\n");
    text.push_str(&considered_table(&decision.considered).text());
    text
}

/// Every offer that was looked at, with why it won or lost.
pub fn considered_table(all: &[Considered]) -> Table {
    let mut table = Table::new(&["offer", "pool", ">price/h", ">cost", ">expected", "verdict"]);
    for considered in all {
        table.row([
            considered.offer.to_string(),
            considered.pool.clone(),
            considered.offer.price.per_hour().decimal(),
            considered.cost.map(|cost| cost.rounded_to_cents()).unwrap_or_default(),
            considered.expected.map(|cost| cost.rounded_to_cents()).unwrap_or_default(),
            considered.verdict.clone(),
        ]);
    }
    table
}

async fn explain_claim(global: &Global, name: &str) -> Result<String, CliError> {
    let claims: Api<CapacityClaim> = Api::all(global.client().await?);
    let claim = claims.get(name).await.map_err(|error| api_error(format!("could not read claim {name}"), error))?;
    let (record, status) = (&claim.spec.record, claim.status.clone().unwrap_or_default());
    let mut text = format!(
        "{name}: {} × {} at {} for {}, attempt {}, ask {}; decided {}; paid by experiment {}{}.\nPhase {:?}; client token {}.\n",
        record.count,
        record.offer,
        record.offer.price,
        record.job,
        record.attempt,
        record.ask,
        record.decided_at.to_rfc3339(),
        record.experiment,
        record.team.as_ref().map(|team| format!(" of team {team}")).unwrap_or_default(),
        status.phase,
        claim.uid().unwrap_or_default(),
    );
    if let Some(refusal) = &status.refusal {
        text.push_str(&format!("The cloud refused ({:?}): {}\n", refusal.code, refusal.message));
    }
    if let (Some(metered), Some(until)) = (status.metered, status.metered_until) {
        text.push_str(&format!("In the ledger until {}: {metered}.\n", until.to_rfc3339()));
    }
    let mut table = Table::new(&["instance", "node", "launched", "running", "notice", "ended"]);
    for instance in &status.instances {
        let time = |time: Option<chrono::DateTime<chrono::Utc>>| time.map(|time| time.to_rfc3339()).unwrap_or_default();
        table.row([
            instance.id.clone(),
            instance.node.clone().unwrap_or_default(),
            instance.launched_at.to_rfc3339(),
            time(instance.running_at),
            instance.notice.as_ref().map(|notice| format!("{:?} {}", notice.kind, notice.at.to_rfc3339())).unwrap_or_default(),
            instance.end.as_ref().map(|end| format!("{:?} {}", end.cause, end.at.to_rfc3339())).unwrap_or_default(),
        ]);
    }
    if !table.is_empty() {
        text.push_str(&table.text());
    }
    Ok(text)
}

async fn explain_pool(global: &Global, name: &str) -> Result<String, CliError> {
    let pools: Api<CapacityPool> = Api::all(global.client().await?);
    let pool = pools.get(name).await.map_err(|error| api_error(format!("could not read pool {name}"), error))?;
    let status = pool.status.unwrap_or_default();
    let mut text = format!(
        "{name}: provider {:?}, {} offers, {} machines, prices: {}.\n",
        pool.spec.provider,
        status.offers.map_or("unknown".to_owned(), |count| count.to_string()),
        status.machines.unwrap_or_default(),
        status.price_source.as_deref().unwrap_or("unknown"),
    );
    for condition in &status.conditions {
        text.push_str(&format!("{} is {} ({}): {}\n", condition.type_, condition.status, condition.reason, condition.message));
    }
    for warning in &status.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::{CapacityKind, Offer, Provider};
    use crate::units::{Money, MoneyPerHour};

    #[test]
    fn a_decision_names_every_offer_with_why_it_won_or_lost() {
        let offer = |kind, price| Offer {
            provider: Provider::Aws,
            instance_type: "g5.xlarge".into(),
            zone: "us-east-1a".into(),
            kind,
            price: MoneyPerHour::usd(price).unwrap(),
            reservation: None,
        };
        let considered = |offer, cost, expected, verdict: &str| Considered {
            pool: "aws".into(),
            offer,
            cost: Some(Money::usd(cost).unwrap()),
            expected: Some(Money::usd(expected).unwrap()),
            verdict: verdict.into(),
        };
        let decision = DecisionRecord {
            kind: "Launch".into(),
            reason: "SpotWithinSlack".into(),
            message: "spot is cheapest and there is time".into(),
            at: "2026-03-02T08:00:00Z".parse().unwrap(),
            considered: vec![
                considered(offer(CapacityKind::Spot, "0.3568"), "1.0704", "1.13", "chosen"),
                considered(offer(CapacityKind::OnDemand, "1.006"), "3.018", "3.02", "dearer"),
            ],
        };
        assert_eq!(
            decision_text(&decision),
            "Launch (SpotWithinSlack), 2026-03-02T08:00:00+00:00: spot is cheapest and there is time\nOffers that were looked at:\n\
             OFFER                           POOL  PRICE/H  COST  EXPECTED  VERDICT\n\
             g5.xlarge spot us-east-1a       aws    0.3568  1.07      1.13  chosen\n\
             g5.xlarge on-demand us-east-1a  aws     1.006  3.02      3.02  dearer\n"
        );
    }
}
