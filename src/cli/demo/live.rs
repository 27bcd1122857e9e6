//! The jobs as they go: a table that is redrawn where stderr is a terminal, else one line for each change.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use kube::{Api, Client};

use super::stage::Stage;
use crate::api::TrainingJob;
use crate::cli::cluster_access::api_error;
use crate::cli::job::{JobRow, job_rows, job_table};
use crate::cli::CliError;
use crate::kubernetes::clock::MarketClock;
use crate::training::JobPhase;

const LOOK_AGAIN: Duration = Duration::from_millis(700);
/// A job may be refused for a moment, until the operator has seen the objects that were applied with it.
const SETTLED_LOOKS: u32 = 5;

/// Shows the jobs until each is over or refused for good.
pub async fn watch(client: &Client, stage: &Stage, patience: Duration) -> Result<(), CliError> {
    let api: Api<TrainingJob> = Api::all(client.clone());
    let market = MarketClock::fetch(&stage.clock_url()).await.map_err(|error| CliError::failed("cannot read the market's clock").because(error))?;
    let deadline = Instant::now() + patience;
    let mut view = View::new(std::io::stderr().is_terminal());
    let mut settled = 0;
    loop {
        let rows = job_rows(&api).await.map_err(|error| api_error("could not list jobs", error))?;
        view.show(&market.now().format("%a %H:%M").to_string(), &rows);
        settled = if !rows.is_empty() && rows.iter().all(is_settled) { settled + 1 } else { 0 };
        if settled == SETTLED_LOOKS {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(CliError::failed(format!("the jobs were not done after {} minutes", patience.as_secs() / 60)));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Over, or refused: nothing more will happen by itself.
fn is_settled(row: &JobRow) -> bool {
    row.phase.is_over() || (row.phase == JobPhase::Waiting && row.decision.as_deref() == Some("Refuse"))
}

struct View {
    is_terminal: bool,
    /// Lines of the last table, to be drawn over.
    lines: usize,
    seen: BTreeMap<String, String>,
}

impl View {
    fn new(is_terminal: bool) -> View {
        View { is_terminal, lines: 0, seen: BTreeMap::new() }
    }

    fn show(&mut self, market_time: &str, rows: &[JobRow]) {
        if self.is_terminal { self.redraw(market_time, rows) } else { self.report_changes(market_time, rows) }
    }

    fn redraw(&mut self, market_time: &str, rows: &[JobRow]) {
        let text = format!("market time {market_time}\n{}", job_table(rows, true).text());
        // A terminal that went away is no reason to stop the demo.
        let _ = write!(std::io::stderr(), "{}{text}", up_and_clear(self.lines));
        self.lines = text.lines().count();
    }

    fn report_changes(&mut self, market_time: &str, rows: &[JobRow]) {
        for row in rows {
            let name = format!("{}/{}", row.namespace, row.name);
            let state = described(row);
            if self.seen.get(&name) != Some(&state) {
                eprintln!("{market_time}  {name}: {state}");
                self.seen.insert(name, state);
            }
        }
    }
}

/// Moves up over what was drawn and clears it.
fn up_and_clear(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\x1b[J") }
}

/// Phase, capacity and why, without what changes every second.
fn described(row: &JobRow) -> String {
    let capacity = row.capacity.as_ref().map(|capacity| format!(" on {capacity}")).unwrap_or_default();
    let why = match row.phase {
        JobPhase::Pending | JobPhase::Waiting | JobPhase::Interrupted | JobPhase::Failed => row.why.as_ref().map(|why| format!(" – {why}")).unwrap_or_default(),
        JobPhase::Provisioning | JobPhase::Running | JobPhase::Succeeded | JobPhase::Cancelled => String::new(),
    };
    format!("{}{capacity}{why}", row.phase)
}
