//! The dated catalogue of instance types and prices in the binary, for where the cloud does not answer.
//!
//! Made from public data by `catalogue/make.py`; sources, dates and licences stand in `catalogue/NOTICE.md`. Every entry
//! carries its date: whoever shows a price from here shows [`CatalogueEntry::as_of`] and [`warnings`] with it.
//! Spot prices are one average over a region's zones, an estimate and never a price to charge by.

use std::collections::HashMap;
use std::sync::LazyLock;

use chrono::NaiveDate;

use super::{InstanceRequirements, InstanceType};
use crate::units::MoneyPerHour;

const TABLE: &str = include_str!("catalogue/ec2.csv");
/// The date of every row that names none.
const DATE: NaiveDate = NaiveDate::from_ymd_opt(2025, 5, 28).expect("a date that exists");
/// AWS cut the prices of these families on this day (announced 2025-06-05); older entries are too high.
const CUT_FAMILIES: [&str; 4] = ["p4d", "p4de", "p5", "p5en"];
const CUT_ON: NaiveDate = NaiveDate::from_ymd_opt(2025, 6, 1).expect("a date that exists");

/// One instance type in one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueEntry {
    pub machine: InstanceType,
    pub on_demand: MoneyPerHour,
    /// The average over 30 days and all zones of the region; absent where spot is not sold or not known.
    pub spot_average: Option<MoneyPerHour>,
    /// Zone ids such as `use1-az4` (the same place in every account, unlike `us-east-1a`); empty where not known.
    pub zones: Vec<String>,
    pub as_of: NaiveDate,
}

/// What is known of a type in a region.
pub fn lookup(region: &str, instance_type: &str) -> Option<&'static CatalogueEntry> {
    ENTRIES.get(region)?.get(instance_type)
}

/// The entries of a region that serve the requirements, by name. Zones are asked separately.
pub fn matching<'a>(region: &str, requirements: &'a InstanceRequirements) -> impl Iterator<Item = &'static CatalogueEntry> + use<'a> {
    let mut entries: Vec<&'static CatalogueEntry> =
        ENTRIES.get(region).into_iter().flat_map(HashMap::values).filter(|entry| requirements.admits(&entry.machine) && is_meant(requirements, &entry.machine)).collect();
    entries.sort_by(|left, right| left.machine.name.cmp(&right.machine.name));
    entries.into_iter()
}

/// Regions the catalogue knows.
pub fn regions() -> Vec<&'static str> {
    let mut regions: Vec<&str> = ENTRIES.keys().copied().collect();
    regions.sort_unstable();
    regions
}

/// What a person should know before trusting this entry; empty where the entry's date says it all.
pub fn warnings(region: &str, instance_type: &str) -> Vec<String> {
    let Some(entry) = lookup(region, instance_type) else { return Vec::new() };
    let family = instance_type.split('.').next().unwrap_or_default();
    if CUT_FAMILIES.contains(&family) && entry.as_of < CUT_ON {
        return vec![format!("the catalogue's {family} prices in {region} are of {} and predate the cut of June 2025: the real ones are lower", entry.as_of)];
    }
    Vec::new()
}

/// Whether "some GPU" may mean this machine: most programs want CUDA, so AMD's GPUs serve only who names them or their types.
pub fn is_meant(requirements: &InstanceRequirements, machine: &InstanceType) -> bool {
    let is_cuda = machine.gpu_name.as_ref().is_none_or(|name| !name.starts_with("Radeon"));
    is_cuda || requirements.gpu_name.is_some() || !requirements.instance_types.is_empty()
}

type Entries = HashMap<&'static str, HashMap<&'static str, CatalogueEntry>>;

static ENTRIES: LazyLock<Entries> = LazyLock::new(|| {
    let mut entries = Entries::new();
    for row in rows() {
        let row = row.expect("the embedded table is the one that the test every_row_parses reads");
        entries.entry(row.region).or_default().insert(row.instance_type, row.entry);
    }
    entries
});

struct Row {
    region: &'static str,
    instance_type: &'static str,
    entry: CatalogueEntry,
}

fn rows() -> impl Iterator<Item = Result<Row, String>> {
    TABLE.lines().skip(1).map(|line| row(line).map_err(|what| format!("line {line:?} of the catalogue: {what}")))
}

/// No field is quoted, so that names are borrowed where they lie in the binary.
fn row(line: &'static str) -> Result<Row, String> {
    let fields: Vec<&'static str> = line.split(',').collect();
    let [instance_type, region, vcpu, memory_mib, gpus, gpu, architecture, zones, on_demand, spot_average, as_of] = fields.as_slice() else {
        return Err(format!("{} fields instead of 11", fields.len()));
    };
    let machine = InstanceType {
        name: (*instance_type).to_owned(),
        vcpu: number(vcpu)?,
        memory_mib: number(memory_mib)?,
        gpus: number(gpus)?,
        gpu_name: if gpu.is_empty() { None } else { Some((*gpu).to_owned()) },
        architecture: (*architecture).to_owned(),
        pods: 0,
    };
    let entry = CatalogueEntry {
        machine,
        on_demand: price(on_demand)?,
        spot_average: if spot_average.is_empty() { None } else { Some(price(spot_average)?) },
        zones: zone_ids(region, zones)?,
        as_of: if as_of.is_empty() { DATE } else { as_of.parse().map_err(|error| format!("{as_of:?} is no date: {error}"))? },
    };
    Ok(Row { region, instance_type, entry })
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

fn price(text: &str) -> Result<MoneyPerHour, String> {
    MoneyPerHour::usd(text).map_err(|error| error.to_string())
}

/// `us-east-1` and `14` are `use1-az1` and `use1-az4`.
fn zone_ids(region: &str, numbers: &str) -> Result<Vec<String>, String> {
    let parts: Vec<&str> = region.split('-').collect();
    let [country, direction, number] = parts.as_slice() else { return Err(format!("{region:?} is no region")) };
    // `northeast` is `ne`, `central` is `c`: the first letter of each compass word.
    let direction: String = match direction.strip_prefix("north").or_else(|| direction.strip_prefix("south")) {
        Some(rest) => direction.chars().take(1).chain(rest.chars().take(1)).collect(),
        None => direction.chars().take(1).collect(),
    };
    Ok(numbers.chars().map(|zone| format!("{country}{direction}{number}-az{zone}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_demand(region: &str, name: &str) -> String {
        lookup(region, name).unwrap().on_demand.to_string()
    }

    #[test]
    fn every_row_parses_and_costs_something() {
        let mut count = 0;
        for row in rows() {
            let Row { region, instance_type, entry } = row.unwrap();
            count += 1;
            assert!(entry.on_demand.0.atoms() > 0 && entry.machine.vcpu > 0 && entry.machine.memory_mib > 0, "{instance_type} {region}");
            assert_eq!(entry.machine.gpus > 0, entry.machine.gpu_name.is_some(), "{instance_type} {region}");
            assert!(["amd64", "arm64"].contains(&entry.machine.architecture.as_str()));
            assert_eq!(lookup(region, instance_type), Some(&entry), "each type is listed once a region");
        }
        assert_eq!(count, 5520);
        assert!(TABLE.len() < 400_000);
    }

    #[test]
    fn prices_are_exact_and_of_their_date() {
        assert_eq!(on_demand("us-east-1", "p5.48xlarge"), "55.04 USD/h");
        assert_eq!(on_demand("us-east-1", "p4d.24xlarge"), "21.957642 USD/h");
        assert_eq!(on_demand("us-west-2", "p5.48xlarge"), "98.32 USD/h");
        assert_eq!(on_demand("eu-west-1", "g5.xlarge"), "1.123 USD/h");
        let here = lookup("us-east-1", "g5.xlarge").unwrap();
        assert_eq!(here.spot_average.unwrap().to_string(), "0.37222 USD/h");
        assert_eq!(here.as_of.to_string(), "2026-07-20");
        assert_eq!(here.zones, ["use1-az1", "use1-az2", "use1-az4", "use1-az5", "use1-az6"]);
        assert_eq!(lookup("eu-west-1", "g5.xlarge").unwrap().as_of.to_string(), "2025-05-28");
    }

    #[test]
    fn machines_are_described_in_the_words_of_ec2() {
        let machine = |name| &lookup("us-east-1", name).unwrap().machine;
        assert_eq!((machine("g5.xlarge").gpu_name.as_deref(), machine("g5.xlarge").memory_mib), (Some("A10G"), 16384));
        assert_eq!((machine("p5.48xlarge").gpus, machine("p5.48xlarge").gpu_name.as_deref()), (8, Some("H100")));
        assert_eq!(machine("p3.2xlarge").gpu_name.as_deref(), Some("V100"));
        assert_eq!(machine("trn1.2xlarge").gpus, 0, "Neuron devices are no GPUs");
    }

    #[test]
    fn prices_from_before_the_cut_of_2025_are_warned_about() {
        assert!(warnings("us-west-2", "p5.48xlarge")[0].contains("predate the cut of June 2025"));
        assert!(!warnings("ap-northeast-1", "p4d.24xlarge").is_empty());
        assert!(warnings("us-east-1", "p5.48xlarge").is_empty());
        assert!(warnings("us-west-2", "g5.xlarge").is_empty());
        assert!(warnings("nowhere", "p5.48xlarge").is_empty());
    }

    #[test]
    fn some_gpu_does_not_mean_one_that_runs_no_cuda() {
        let one_gpu = InstanceRequirements { gpus: 1, ..InstanceRequirements::default() };
        let names: Vec<&str> = matching("us-east-1", &one_gpu).map(|entry| entry.machine.name.as_str()).collect();
        assert!(names.contains(&"g4dn.xlarge") && !names.contains(&"g4ad.xlarge") && !names.contains(&"m5.large"));
        let named = InstanceRequirements { instance_types: vec!["g4ad.xlarge".into()], ..one_gpu };
        assert_eq!(matching("us-east-1", &named).count(), 1);
    }

    #[test]
    fn zone_ids_follow_from_the_region() {
        for (region, id) in [("us-east-1", "use1-az4"), ("ap-northeast-1", "apne1-az4"), ("eu-central-1", "euc1-az4"), ("us-west-2", "usw2-az4")] {
            assert_eq!(zone_ids(region, "4").unwrap(), [id]);
        }
        assert_eq!(regions().len(), 6);
    }
}
