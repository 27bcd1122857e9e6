//! The end of the demo: books closed, the report, and the market's own account beside it.

use std::time::{Duration, Instant};

use kube::api::ListParams;
use kube::{Api, Client};

use super::stage::{Stage, local_http};
use super::{busy, say};
use crate::api::CapacityClaim;
use crate::capacity::claim::ClaimStatus;
use crate::cli::cluster_access::api_error;
use crate::cli::{CliError, Exit, output, report};
use crate::cost::report::{CostKind, Dimension};
use crate::ledger::{Ledger, ReportRequest};
use crate::units::Money;

/// Waits until every machine has ended and every hour that it ran is in the ledger.
pub async fn wait_for_books(client: &Client, patience: Duration) -> Result<(), CliError> {
    say("all jobs are settled; the last hours are metered once they are over …");
    let _busy = busy("closing the hours");
    let claims: Api<CapacityClaim> = Api::all(client.clone());
    let deadline = Instant::now() + patience;
    loop {
        let all = claims.list(&ListParams::default()).await.map_err(|error| api_error("could not list claims", error))?;
        if all.items.iter().all(|claim| claim.status.as_ref().is_some_and(is_booked)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(CliError::failed("the last machines were not metered in time"));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn is_booked(status: &ClaimStatus) -> bool {
    status.instances.iter().all(|instance| match (&instance.end, status.metered_until) {
        (Some(end), Some(until)) => until > end.at,
        _ => false,
    })
}

/// The report by experiment, by job, and the comparison.
pub async fn show(stage: &Stage) -> Result<Exit, CliError> {
    let ledger = Ledger::open(&stage.ledger().to_string_lossy()).await.map_err(|error| CliError::failed("cannot read the ledger").because(error))?;
    for (title, by) in [
        ("what each experiment cost (purser report):", vec![Dimension::Experiment]),
        ("and on what (purser report --by job,capacity-kind,instance-type,zone):", vec![Dimension::Job, Dimension::CapacityKind, Dimension::InstanceType, Dimension::Zone]),
    ] {
        say(title);
        let request = ReportRequest { by, cost: CostKind::Billed, from: None, to: None, currency: None };
        let report = ledger.report(&request).await.map_err(|error| CliError::failed("cannot report").because(error))?;
        output::print(&report::for_people(&report).text())?;
    }
    let request = ReportRequest { by: Vec::new(), cost: CostKind::Billed, from: None, to: None, currency: None };
    let ours = ledger.report(&request).await.map_err(|error| CliError::failed("cannot report").because(error))?.total;
    let theirs = market_total(stage).await?;
    let exit = compare(ours, theirs)?;
    say_how_to_look_further(stage);
    Ok(exit)
}

/// What the simulated market says it charged, from its own event log.
async fn market_total(stage: &Stage) -> Result<Money, CliError> {
    let url = format!("{}/purser/ledger", stage.twin_url());
    let failed = |error: reqwest::Error| CliError::failed(format!("cannot read the market's account at {url}")).because(error);
    let answer: serde_json::Value = local_http().map_err(failed)?.get(&url).send().await.map_err(failed)?.json().await.map_err(failed)?;
    let total = answer["total"].as_str().unwrap_or_default();
    total.parse().map_err(|error| CliError::failed(format!("the market's account at {url} has no total")).because(error))
}

fn compare(ours: Money, theirs: Money) -> Result<Exit, CliError> {
    say("the same, as the simulated AWS counted it by itself:");
    output::print(&format!("Purser's ledger   {ours}\nthe market's own  {theirs}\n"))?;
    if ours == theirs {
        output::print("equal, to the last digit\n")?;
        return Ok(Exit::Done);
    }
    let difference = ours.checked_sub(theirs).map_err(|error| CliError::failed("the ledgers cannot be compared").because(error))?;
    output::print(&format!("they differ by {difference}\n"))?;
    Ok(Exit::Found)
}

fn say_how_to_look_further(stage: &Stage) {
    let kubeconfig = stage.kubeconfig();
    let (kubeconfig, ledger, dir) = (kubeconfig.display(), stage.ledger(), stage.dir().display());
    let ledger = ledger.display();
    say("look further while it is up:");
    eprintln!(
        "  alias purser={}; export KUBECONFIG={kubeconfig}
  purser job list -A
  purser job describe detector-finetune -n vision      # interrupted, resumed, done
  purser explain job/from-scratch -n speech            # why it is refused, and what would help
  purser report --ledger {ledger} --by day,capacity-kind
  purser ledger query 'SELECT * FROM charges LIMIT 5' --ledger {ledger}
  curl -s {}/metrics
the AWS command line sees the simulated market with
  {}
end it: purser demo down --dir {dir}   (or: make demo-down)",
        stage.program().display(),
        stage.http_url(),
        stage.environment(),
    );
}
