//! `purser ledger`: SQL over the charges. Needs no cluster.

use crate::ledger::{Answer, Cell, Ledger};

use super::output::{self, Format, Table};
use super::report::explained;
use super::{CliError, Exit};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Answer an SQL question over the table `charges`.
    Query(QueryArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  purser ledger query 'DESCRIBE charges' --ledger ./ledger
  purser ledger query 'SELECT x_Experiment, SUM(BilledCost) AS cost FROM charges GROUP BY 1 ORDER BY 2 DESC' --ledger ./ledger
  purser ledger query \"SELECT * FROM charges WHERE ChargeClass = 'Correction'\" --ledger s3://finance/purser --output csv

Columns carry the names of FOCUS 1.2, those of Purser's own begin with x_. Only questions are answered: the ledger is never
edited. In JSON decimals are strings, so that none becomes a float.")]
struct QueryArgs {
    /// One SQL statement that asks (SELECT, WITH, EXPLAIN, DESCRIBE)
    sql: String,
    /// The ledger: a folder, or s3://bucket/prefix
    #[arg(long, env = "PURSER_LEDGER", value_name = "DIR")]
    ledger: String,
    /// The form
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

pub async fn run(args: &Args) -> Result<Exit, CliError> {
    let Command::Query(args) = &args.command;
    let ledger = Ledger::open(&args.ledger).await.map_err(|error| explained(error, "cannot query"))?;
    let answer = ledger.query(&args.sql).await.map_err(|error| explained(error, "cannot query"))?;
    output::emit(args.output, &table(&answer), &answer.as_json())?;
    Ok(Exit::Done)
}

fn table(answer: &Answer) -> Table {
    let names: Vec<String> = answer.columns.iter().zip(&answer.numeric).map(|(name, numeric)| if *numeric { format!(">{name}") } else { name.clone() }).collect();
    let mut table = Table::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    answer.rows.iter().for_each(|row| table.row(row.iter().map(Cell::text)));
    table
}
