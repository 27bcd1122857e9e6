//! `purser simulate packing`: a fleet for real pods on real prices, beside what Karpenter would buy.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use clap::ValueEnum;
use serde::Serialize;

use super::super::output::{self, Format, Table};
use super::super::{CliError, Exit};
use super::catalogue::{self, CatalogueError};
use super::pods::{self, PodsError};
use crate::scheduling::packing::{self, Effort, FleetPlan, NodeOffer, PackingProblem, Pod, Policy};
use crate::units::MoneyPerHour;

/// Chooses a fleet for the pods of a file. The price of a fleet is compared with two lower bounds: of the assignment relaxation
/// (which the literature quotes) and of the tighter configuration relaxation; both include the node charge.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  purser simulate packing --pods alibaba2023_pods.parquet --catalog instance_types.json.zst --set A --output json
  purser simulate packing --pods pods.parquet --catalog types.json --node-charge 0.02 --placements --output json
  purser simulate packing --pods pods.parquet --catalog types.json --set A,B --policy purser,karpenter --node-charge 0,0.2

Several sets, policies or charges make a table of runs (in JSON: {\"runs\": [...]}).
Exit code 3 when a pod finds no place.")]
pub struct Args {
    /// Pods as Parquet with columns cpu_milli, memory_mib, num_gpu
    #[arg(long, value_name = "FILE")]
    pods: PathBuf,
    /// Instance types and prices in the shape of Karpenter's kwok provider, .json or .json.zst
    #[arg(long, value_name = "FILE")]
    catalog: PathBuf,
    /// A: pods without GPUs; B: the first 2,000 with; C: the first 2,000; D, all: every pod
    #[arg(long, value_enum, value_delimiter = ',', ignore_case = true, default_value = "all", value_name = "SET")]
    set: Vec<PodSet>,
    /// What a node costs per hour besides its price, in USD
    #[arg(long, value_delimiter = ',', default_value = "0", value_parser = charge, value_name = "USD_PER_HOUR")]
    node_charge: Vec<MoneyPerHour>,
    /// Who plans
    #[arg(long, value_enum, value_delimiter = ',', default_value = "purser", value_name = "POLICY")]
    policy: Vec<PolicyName>,
    /// Also say which pod (0-based row of the file) is on which node
    #[arg(long)]
    placements: bool,
    /// The form
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PodSet {
    A,
    B,
    C,
    D,
    All,
}

/// As the command line says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PolicyName {
    /// Configuration columns, rounded and improved by search.
    Purser,
    /// Karpenter's first-fit-decreasing, emulated.
    Karpenter,
    /// A greedy on the prices of resources.
    DualGreedy,
}

fn charge(text: &str) -> Result<MoneyPerHour, String> {
    let price = MoneyPerHour::usd(text).map_err(|error| error.to_string())?;
    if price.0.is_negative() { Err("a charge is not negative".to_owned()) } else { Ok(price) }
}

/// One run, as `contracts` name its numbers. Prices are statistics of a simulation, so they are numbers.
#[derive(Debug, Serialize)]
struct Run {
    set: String,
    policy: String,
    node_charge: f64,
    /// The sum of the nodes' prices.
    cost_per_hour: f64,
    /// The same with the node charge of each node: what the bounds bound.
    charged_per_hour: f64,
    nodes: usize,
    pods: usize,
    unplaced: usize,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unplaced_because: BTreeMap<String, usize>,
    lower_bound: f64,
    configuration_bound: f64,
    plan_seconds: f64,
    fleet: Vec<FleetRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    placements: Option<Vec<Placement>>,
}

#[derive(Debug, Serialize)]
struct FleetRow {
    instance_type: String,
    count: usize,
    price_per_hour: f64,
}

#[derive(Debug, Serialize)]
struct Placement {
    pod: usize,
    node: String,
}

#[derive(Debug, Serialize)]
struct Runs {
    runs: Vec<Run>,
}

pub fn run(args: &Args) -> Result<Exit, CliError> {
    let pods = pods::read(&args.pods).map_err(unread_pods)?;
    let offers = catalogue::offers(&args.catalog).map_err(unread_catalogue)?;
    let mut runs = Vec::new();
    for set in &args.set {
        let rows = set.rows(&pods);
        for charge in &args.node_charge {
            let problem = problem(&pods, &rows, &offers, *charge);
            runs.extend(args.policy.iter().map(|policy| simulate(*set, *policy, &problem, &rows, args.placements)));
        }
    }
    let unplaced = runs.iter().any(|run| run.unplaced > 0);
    emit(args.output, runs)?;
    Ok(if unplaced { Exit::Found } else { Exit::Done })
}

fn problem(pods: &[Pod], rows: &[usize], offers: &[NodeOffer], node_charge: MoneyPerHour) -> PackingProblem {
    let pods = rows.iter().map(|row| pods[*row].clone()).collect();
    PackingProblem { pods, offers: offers.to_vec(), node_charge, ..PackingProblem::default() }
}

fn simulate(set: PodSet, policy: PolicyName, problem: &PackingProblem, rows: &[usize], placements: bool) -> Run {
    let started = Instant::now();
    let plan = packing::pack_as(policy.policy(), problem, Effort::CYCLE);
    let plan_seconds = started.elapsed().as_secs_f64();
    let mut unplaced_because = BTreeMap::new();
    plan.unplaced.iter().for_each(|(_, reason)| *unplaced_because.entry(reason.to_string()).or_default() += 1);
    Run {
        set: name(&set),
        policy: name(&policy),
        node_charge: problem.node_charge.0.approximate(),
        cost_per_hour: plan.cost.0.approximate(),
        charged_per_hour: plan.charged.0.approximate(),
        nodes: plan.nodes.len(),
        pods: problem.pods.len(),
        unplaced: plan.unplaced.len(),
        unplaced_because,
        lower_bound: plan.bounds.assignment,
        configuration_bound: plan.bounds.configuration,
        plan_seconds,
        fleet: fleet(problem, &plan),
        placements: placements.then(|| placed(problem, &plan, rows)),
    }
}

fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Types by what they cost in all, dearest first.
fn fleet(problem: &PackingProblem, plan: &FleetPlan) -> Vec<FleetRow> {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    plan.nodes.iter().for_each(|node| *counts.entry(node.offer).or_default() += 1);
    let row = |(offer, count): (usize, usize)| {
        let offer = &problem.offers[offer].offer;
        FleetRow { instance_type: offer.instance_type.clone(), count, price_per_hour: offer.price.0.approximate() }
    };
    let mut rows: Vec<FleetRow> = counts.into_iter().map(row).collect();
    rows.sort_by(|one, other| other.cost().total_cmp(&one.cost()));
    rows
}

impl FleetRow {
    fn cost(&self) -> f64 {
        self.count as f64 * self.price_per_hour
    }
}

fn placed(problem: &PackingProblem, plan: &FleetPlan, rows: &[usize]) -> Vec<Placement> {
    let on = |(number, node): (usize, &packing::PlannedNode)| {
        let name = format!("{}-{number}", problem.offers[node.offer].offer.instance_type);
        node.pods.iter().map(move |pod| Placement { pod: rows[*pod], node: name.clone() }).collect::<Vec<_>>()
    };
    let mut placements: Vec<Placement> = plan.nodes.iter().enumerate().flat_map(on).collect();
    placements.sort_by_key(|placement| placement.pod);
    placements
}

fn emit(format: Format, mut runs: Vec<Run>) -> Result<(), CliError> {
    let summary = summary(&runs);
    if runs.len() > 1 {
        return output::emit(format, &summary, &Runs { runs });
    }
    let Some(run) = runs.pop() else { return Ok(()) };
    match format {
        Format::Table => output::print(&format!("{}\n{}", summary.text(), fleet_table(&run).text())),
        Format::Json | Format::Csv => output::emit(format, &summary, &run),
    }
}

fn summary(runs: &[Run]) -> Table {
    let columns = ["set", "policy", ">node charge", ">$/h", ">with charge", ">LP bound", ">ratio", ">config. bound", ">ratio", ">nodes", ">unplaced", ">seconds"];
    let mut table = Table::new(&columns);
    for run in runs {
        let ratio = |bound: f64| if bound > 0.0 { format!("{:.4}", run.charged_per_hour / bound) } else { "–".to_owned() };
        table.row([
            run.set.to_uppercase(),
            run.policy.clone(),
            run.node_charge.to_string(),
            format!("{:.2}", run.cost_per_hour),
            format!("{:.2}", run.charged_per_hour),
            format!("{:.2}", run.lower_bound),
            ratio(run.lower_bound),
            format!("{:.2}", run.configuration_bound),
            ratio(run.configuration_bound),
            run.nodes.to_string(),
            run.unplaced.to_string(),
            format!("{:.2}", run.plan_seconds),
        ]);
    }
    table
}

fn fleet_table(run: &Run) -> Table {
    let mut table = Table::new(&["instance type", ">count", ">$/h each", ">$/h"]);
    for row in &run.fleet {
        table.row([row.instance_type.clone(), row.count.to_string(), row.price_per_hour.to_string(), format!("{:.4}", row.cost())]);
    }
    table.total(["total".to_owned(), run.nodes.to_string(), String::new(), format!("{:.4}", run.cost_per_hour)]);
    table
}

impl PodSet {
    /// Rows of the file that belong to it.
    fn rows(self, pods: &[Pod]) -> Vec<usize> {
        let has_gpu = |row: &usize| !pods[*row].requests.extended.is_empty();
        let all = 0..pods.len();
        match self {
            PodSet::A => all.filter(|row| !has_gpu(row)).collect(),
            PodSet::B => all.filter(has_gpu).take(2000).collect(),
            PodSet::C => all.take(2000).collect(),
            PodSet::D | PodSet::All => all.collect(),
        }
    }
}

impl PolicyName {
    const fn policy(self) -> Policy {
        match self {
            PolicyName::Purser => Policy::Purser,
            PolicyName::Karpenter => Policy::Karpenter,
            PolicyName::DualGreedy => Policy::DualGreedy,
        }
    }
}

fn unread_pods(error: PodsError) -> CliError {
    let hint = match &error {
        PodsError::Read { .. } => "--pods names a Parquet file",
        PodsError::Format { .. } | PodsError::Rows { .. } => "write it again as Parquet with the columns cpu_milli, memory_mib, num_gpu",
        PodsError::Column { .. } | PodsError::Cell { .. } => "each row needs cpu_milli, memory_mib and num_gpu as whole numbers from 0",
    };
    CliError::usage("cannot read the pods").because(error).hint(hint)
}

fn unread_catalogue(error: CatalogueError) -> CliError {
    let hint = match &error {
        CatalogueError::Read { .. } => "--catalog names a .json or .json.zst file",
        CatalogueError::Shape { .. } | CatalogueError::Type { .. } => "it is a JSON array of {name, architecture, resources, offerings: [{Price, Requirements}]}, as Karpenter's kwok provider reads it",
        CatalogueError::Empty { .. } => "name a catalogue of EC2 types with on-demand prices",
    };
    CliError::usage("cannot read the catalogue").because(error).hint(hint)
}
