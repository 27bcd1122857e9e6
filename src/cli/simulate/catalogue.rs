//! Reads an instance catalogue in the shape of Karpenter's kwok provider, plain or compressed (`.zst`), and takes from it what
//! the rules of the packing benchmark allow.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use std::collections::BTreeMap;

use crate::capacity::{CapacityKind, Offer, Provider};
use crate::scheduling::packing::{NodeOffer, Resources};
use crate::units::MoneyPerHour;

const GPU: &str = "nvidia.com/gpu";
/// A type with one of these is left out, as are other architectures, metal, and families but c, m, r, g and p.
const OTHER_ACCELERATORS: [&str; 4] = ["amd.com/gpu", "aws.amazon.com/neuron", "aws.amazon.com/neuroncore", "habana.ai/gaudi"];
const FAMILIES: [char; 5] = ['c', 'm', 'r', 'g', 'p'];
const MIB: u64 = 1 << 20;
/// What the kwok provider takes off the catalogue's numbers, and what daemons on every node take besides.
const RESERVED_CPU_MILLI: u64 = 100 + 250;
const RESERVED_MEMORY_BYTES: u64 = (10 + 512) * MIB;

#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("could not read {}", path.display())]
    Read { path: PathBuf, #[source] source: std::io::Error },
    #[error("{} is no instance catalogue", path.display())]
    Shape { path: PathBuf, #[source] source: serde_json::Error },
    #[error("{}: type {name}: {what}", path.display())]
    Type { path: PathBuf, name: String, what: String },
    #[error("{} has no type that the rules allow (amd64, no metal, families c m r g p, no other accelerators, on-demand)", path.display())]
    Empty { path: PathBuf },
}

#[derive(Deserialize)]
struct TypeRow {
    name: String,
    architecture: String,
    resources: BTreeMap<String, String>,
    offerings: Vec<Offering>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Offering {
    price: serde_json::Number,
    #[serde(default = "available")]
    available: bool,
    #[serde(default)]
    requirements: Vec<OfferingRequirement>,
}

#[derive(Deserialize)]
struct OfferingRequirement {
    key: String,
    #[serde(default)]
    values: Vec<String>,
}

fn available() -> bool {
    true
}

/// The on-demand offers of a catalogue, with what pods can have on a node.
pub fn offers(path: &Path) -> Result<Vec<NodeOffer>, CatalogueError> {
    let rows: Vec<TypeRow> = serde_json::from_str(&text(path)?).map_err(|source| CatalogueError::Shape { path: path.to_owned(), source })?;
    let mut offers = Vec::new();
    for row in rows.iter().filter(|row| is_allowed(row)) {
        let broken = |what| CatalogueError::Type { path: path.to_owned(), name: row.name.clone(), what };
        offers.extend(offers_of(row).map_err(broken)?);
    }
    if offers.is_empty() {
        return Err(CatalogueError::Empty { path: path.to_owned() });
    }
    Ok(offers)
}

fn text(path: &Path) -> Result<String, CatalogueError> {
    let unread = |source| CatalogueError::Read { path: path.to_owned(), source };
    let file = BufReader::new(File::open(path).map_err(unread)?);
    let mut reader: Box<dyn Read> = match path.extension().is_some_and(|extension| extension == "zst") {
        true => Box::new(zstd::Decoder::with_buffer(file).map_err(unread)?),
        false => Box::new(file),
    };
    let mut text = String::new();
    reader.read_to_string(&mut text).map_err(unread)?;
    Ok(text)
}

fn is_allowed(row: &TypeRow) -> bool {
    let family = row.name.starts_with(FAMILIES);
    let other = OTHER_ACCELERATORS.iter().any(|name| row.resources.contains_key(*name));
    row.architecture == "amd64" && family && !other && !row.name.contains("metal")
}

fn offers_of(row: &TypeRow) -> Result<Vec<NodeOffer>, String> {
    let resource = |name: &str| match row.resources.get(name) {
        Some(text) => quantity(text).ok_or_else(|| format!("{name} is {text:?}, which is no quantity")),
        None => Ok(0),
    };
    let (cpu, memory, gpus) = (resource("cpu")?, resource("memory")?, resource(GPU)?);
    let pods = u32::try_from(resource("pods")? / 1000).map_err(|_| "more pods than a node can have".to_owned())?;
    let allocatable = Resources {
        cpu_milli: cpu.saturating_sub(u128::from(RESERVED_CPU_MILLI)) as u64,
        memory_bytes: ((memory / 1000) as u64).saturating_sub(RESERVED_MEMORY_BYTES),
        extended: [(GPU.to_owned(), (gpus / 1000) as u64)].into_iter().filter(|(_, count)| *count > 0).collect(),
    };
    let mut offers = Vec::new();
    for offering in row.offerings.iter().filter(|offering| offering.available && says(offering, "karpenter.sh/capacity-type").is_none_or(|kind| kind == "on-demand")) {
        // The shortest decimal that reads back as the same number is the one that was written.
        let price = MoneyPerHour::usd(&offering.price.to_string()).map_err(|error| format!("Price: {error}"))?;
        let zone = says(offering, "topology.kubernetes.io/zone").unwrap_or_default().to_owned();
        let offer = Offer { provider: Provider::Aws, instance_type: row.name.clone(), zone, kind: CapacityKind::OnDemand, price, reservation: None };
        let labels = BTreeMap::from([("kubernetes.io/arch".to_owned(), row.architecture.clone())]);
        offers.push(NodeOffer { offer, allocatable: allocatable.clone(), pods_max: pods, labels, taints: Vec::new(), count_max: None });
    }
    Ok(offers)
}

fn says<'a>(offering: &'a Offering, key: &str) -> Option<&'a str> {
    offering.requirements.iter().find(|requirement| requirement.key == key).and_then(|requirement| requirement.values.first()).map(String::as_str)
}

/// A Kubernetes quantity in thousandths.
fn quantity(text: &str) -> Option<u128> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u128 = text[..digits].parse().ok()?;
    let unit: u128 = match &text[digits..] {
        "m" => 1,
        "" => 1000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_in_thousandths() {
        assert_eq!(quantity("1040m"), Some(1040));
        assert_eq!(quantity("58"), Some(58_000));
        assert_eq!(quantity("2Mi"), Some(2_097_152_000));
        assert_eq!(quantity("two"), None);
        assert_eq!(quantity("1.5"), None);
    }
}
