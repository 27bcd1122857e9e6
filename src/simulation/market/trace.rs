//! Markets from measured traces, in run-length coded CSV.
//!
//! `kind,nodes,trace,zone,device,gap_s,start_tick,ticks,value`: from tick `start_tick` on, for `ticks` ticks of `gap_s`
//! seconds, `value` machines of `device` could be had in `zone`. The rows of one series (kind, nodes, trace, zone, device)
//! follow each other without gaps from tick 0. One series group (kind/nodes/trace) makes one market; its zones become pools, its
//! devices EC2 types ([`super::machines::of_trace_device`]); when a series ends it begins again.
//!
//! Prices, optional: `trace,zone,device,gap_s,start_tick,ticks,spot_usd_h,on_demand_usd_h`. A pool without prices costs what
//! [`super::MachineType::spot_usual`] says.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{Market, Pool, PoolKey, Steps, machines};
use crate::units::{MoneyError, MoneyPerHour};

pub const TRACE_COLUMNS: &str = "kind,nodes,trace,zone,device,gap_s,start_tick,ticks,value";
pub const PRICE_COLUMNS: &str = "trace,zone,device,gap_s,start_tick,ticks,spot_usd_h,on_demand_usd_h";

/// What is wrong with a trace or price file, in which line, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    #[error("the file holds no rows; it must begin with the line {expected} and have at least one row")]
    Empty { expected: &'static str },
    #[error("line 1: the columns are {found:?}; write {expected}")]
    Header { found: String, expected: &'static str },
    #[error("line {line}: {found} columns where {expected} are expected; compare it with its neighbours")]
    Columns { line: usize, found: usize, expected: usize },
    #[error("line {line}: the file ends in the middle of a row; fetch or write it again")]
    CutOff { line: usize },
    #[error("line {line}: column {column} is {text:?}; write {expected}")]
    Value { line: usize, column: &'static str, text: String, expected: &'static str },
    #[error("line {line}: {series} jumps to tick {found} where tick {expected} should follow; add the missing ticks")]
    Gap { line: usize, series: String, expected: u64, found: u64 },
    #[error("line {line}: {series} goes back to tick {found} where tick {expected} should follow; sort the rows of each series by start_tick, without overlaps")]
    Unsorted { line: usize, series: String, expected: u64, found: u64 },
    #[error("line {line}: {series} changes its tick from {expected} s to {found} s; a series has one gap_s")]
    TickLength { line: usize, series: String, expected: u64, found: u64 },
    #[error("line {line}: no instance type stands for device {device:?}; known are {known}", known = machines::TRACE_DEVICES)]
    Device { line: usize, device: String },
    #[error("line {line}: the on-demand price in {region} is {found} where an earlier row says {expected}; EC2 has one price a region")]
    OnDemand { line: usize, region: String, expected: MoneyPerHour, found: MoneyPerHour },
    #[error("the file holds several trace groups; choose one with FILE#GROUP: {groups}")]
    Groups { groups: String },
    #[error("the file holds no trace group {wanted:?}; it has {groups}")]
    NoSuchGroup { wanted: String, groups: String },
}

/// Makes a market of one group (`kind/nodes/trace`) of a trace file; the group may be left out where there is only one.
pub fn market(name: &str, trace: &str, group: Option<&str>, prices: Option<&str>, epoch: DateTime<Utc>) -> Result<Market, TraceError> {
    let series = read_series(trace)?;
    let group = choose(&series, group)?;
    let prices = prices.map(read_prices).transpose()?.unwrap_or_default();
    let mut market = Market { name: name.to_owned(), epoch, types: BTreeMap::new(), pools: BTreeMap::new(), reservations: Vec::new() };
    for (key, run) in series.into_iter().filter(|(key, _)| key.group() == group) {
        let machine = machines::of_trace_device(&key.device).ok_or(TraceError::Device { line: run.line, device: key.device.clone() })?;
        let price = prices.get(&(key.trace, key.zone.clone(), key.device));
        let pool = Pool {
            spot_capacity: run.steps(),
            on_demand_capacity: None,
            spot_price: price.map_or_else(|| Steps::constant(machine.spot_usual()), |found| found.spot.steps()),
            on_demand_price: price.map_or(machine.on_demand, |found| found.on_demand),
        };
        market.pools.insert(PoolKey::new(machine.machine.name.clone(), key.zone), pool);
        market.types.insert(machine.machine.name.clone(), machine);
    }
    Ok(market)
}

/// What a zone had of a device, tick by tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    pub key: SeriesKey,
    pub gap_seconds: u32,
    /// Machines that could be had (or were still alive) in each tick.
    pub values: Vec<u32>,
}

/// Every series of a trace file, by kind, nodes, trace, zone and device.
pub fn series(trace: &str) -> Result<Vec<Series>, TraceError> {
    let found = read_series(trace)?;
    Ok(found.into_iter().map(|(key, run)| Series { key, gap_seconds: run.gap_seconds as u32, values: run.ticks() }).collect())
}

/// What a zone asked for a device, tick by tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceSeries {
    pub trace: String,
    pub zone: String,
    pub device: String,
    pub gap_seconds: u32,
    pub spot: Vec<MoneyPerHour>,
    pub on_demand: MoneyPerHour,
}

/// Every series of a price file.
pub fn prices(text: &str) -> Result<Vec<PriceSeries>, TraceError> {
    let found = read_prices(text)?;
    let one = |((trace, zone, device), Prices { spot, on_demand }): (PriceKey, Prices)| PriceSeries {
        trace,
        zone,
        device,
        gap_seconds: spot.gap_seconds as u32,
        spot: spot.ticks(),
        on_demand,
    };
    Ok(found.into_iter().map(one).collect())
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeriesKey {
    pub kind: String,
    pub nodes: String,
    pub trace: String,
    pub zone: String,
    pub device: String,
}

impl SeriesKey {
    /// `kind/nodes/trace`.
    pub fn group(&self) -> String {
        format!("{}/{}/{}", self.kind, self.nodes, self.trace)
    }
}

/// The runs of one series as they were read.
struct Run<T> {
    name: String,
    /// Where it begins.
    line: usize,
    gap_seconds: u64,
    next_tick: u64,
    values: Vec<(u64, T)>,
}

impl<T: PartialEq> Run<T> {
    fn begin(name: String, line: usize, gap_seconds: u64) -> Run<T> {
        Run { name, line, gap_seconds, next_tick: 0, values: Vec::new() }
    }

    fn add(&mut self, line: usize, ticks: Ticks, value: T) -> Result<(), TraceError> {
        let series = || self.name.clone();
        if ticks.gap_seconds != self.gap_seconds {
            return Err(TraceError::TickLength { line, series: series(), expected: self.gap_seconds, found: ticks.gap_seconds });
        }
        match ticks.start.cmp(&self.next_tick) {
            std::cmp::Ordering::Greater => Err(TraceError::Gap { line, series: series(), expected: self.next_tick, found: ticks.start }),
            std::cmp::Ordering::Less => Err(TraceError::Unsorted { line, series: series(), expected: self.next_tick, found: ticks.start }),
            std::cmp::Ordering::Equal => {
                self.values.push((ticks.start * self.gap_seconds, value));
                self.next_tick = ticks.start + ticks.count;
                Ok(())
            }
        }
    }

    /// The value of every tick.
    fn ticks(&self) -> Vec<T>
    where
        T: Copy,
    {
        let starts = self.values.iter().map(|(second, _)| second / self.gap_seconds);
        let ends = starts.clone().skip(1).chain([self.next_tick]);
        self.values.iter().zip(starts.zip(ends)).flat_map(|((_, value), (start, end))| (start..end).map(|_| *value)).collect()
    }

    fn steps(&self) -> Steps<T>
    where
        T: Copy,
    {
        let mut values = self.values.iter();
        let (_, first) = values.next().expect("a run is begun by its first row");
        let mut steps = Steps::constant(*first);
        for (second, value) in values {
            steps.push(*second as i64, *value);
        }
        steps.repeating((self.next_tick * self.gap_seconds) as i64)
    }
}

#[derive(Clone, Copy)]
struct Ticks {
    gap_seconds: u64,
    start: u64,
    count: u64,
}

struct Prices {
    spot: Run<MoneyPerHour>,
    on_demand: MoneyPerHour,
}

fn choose(series: &BTreeMap<SeriesKey, Run<u32>>, wanted: Option<&str>) -> Result<String, TraceError> {
    let mut groups: Vec<String> = series.keys().map(SeriesKey::group).collect();
    groups.dedup();
    match (wanted, groups.as_slice()) {
        (Some(wanted), groups) if groups.iter().any(|group| group == wanted) => Ok(wanted.to_owned()),
        (Some(wanted), groups) => Err(TraceError::NoSuchGroup { wanted: wanted.to_owned(), groups: groups.join(", ") }),
        (None, [only]) => Ok(only.clone()),
        (None, groups) => Err(TraceError::Groups { groups: groups.join(", ") }),
    }
}

fn read_series(text: &str) -> Result<BTreeMap<SeriesKey, Run<u32>>, TraceError> {
    let mut series: BTreeMap<SeriesKey, Run<u32>> = BTreeMap::new();
    for row in rows::<9>(text, TRACE_COLUMNS)? {
        let (line, [kind, nodes, trace, zone, device, gap, start, count, value]) = row?;
        let ticks = ticks(line, gap, start, count)?;
        let value = number(line, "value", value, "the number of machines, 0 or more")?;
        let value = u32::try_from(value).map_err(|_| wrong(line, "value", &value.to_string(), "a number of machines below four thousand million"))?;
        let key = SeriesKey { kind: kind.into(), nodes: nodes.into(), trace: trace.into(), zone: zone.into(), device: device.into() };
        let name = format!("{}/{zone}/{device}", key.group());
        series.entry(key).or_insert_with(|| Run::begin(name, line, ticks.gap_seconds)).add(line, ticks, value)?;
    }
    Ok(series)
}

type PriceKey = (String, String, String);

fn read_prices(text: &str) -> Result<BTreeMap<PriceKey, Prices>, TraceError> {
    let mut prices: BTreeMap<PriceKey, Prices> = BTreeMap::new();
    let mut regional: BTreeMap<PriceKey, MoneyPerHour> = BTreeMap::new();
    for row in rows::<8>(text, PRICE_COLUMNS)? {
        let (line, [trace, zone, device, gap, start, count, spot, on_demand]) = row?;
        let ticks = ticks(line, gap, start, count)?;
        let spot = price(line, "spot_usd_h", spot)?;
        let on_demand = price(line, "on_demand_usd_h", on_demand)?;
        let region = super::region_of(zone).to_owned();
        let expected = *regional.entry((trace.into(), region.clone(), device.into())).or_insert(on_demand);
        if expected != on_demand {
            return Err(TraceError::OnDemand { line, region, expected, found: on_demand });
        }
        let key = (trace.to_owned(), zone.to_owned(), device.to_owned());
        let name = format!("{trace}/{zone}/{device}");
        let found = prices.entry(key).or_insert_with(|| Prices { spot: Run::begin(name, line, ticks.gap_seconds), on_demand });
        found.spot.add(line, ticks, spot)?;
    }
    Ok(prices)
}

type RowResult<'a, const N: usize> = Result<(usize, [&'a str; N]), TraceError>;

/// The rows under the right heading, each with its line number and N columns.
fn rows<'a, const N: usize>(text: &'a str, expected: &'static str) -> Result<impl Iterator<Item = RowResult<'a, N>>, TraceError> {
    let mut lines = text.lines().enumerate();
    let (_, header) = lines.next().ok_or(TraceError::Empty { expected })?;
    if header.trim_end() != expected {
        return Err(TraceError::Header { found: header.to_owned(), expected });
    }
    let count = text.lines().count();
    if count == 1 {
        return Err(TraceError::Empty { expected });
    }
    let ends_in_a_row = !text.ends_with('\n');
    Ok(lines.map(move |(index, row)| {
        let line = index + 1;
        let columns: Vec<&str> = row.trim_end().split(',').collect();
        let found = columns.len();
        // A last row without its line end cannot be trusted even if its columns are there: 12 may have been 125.
        if ends_in_a_row && line == count {
            return Err(TraceError::CutOff { line });
        }
        columns.try_into().map(|columns| (line, columns)).map_err(|_| TraceError::Columns { line, found, expected: N })
    }))
}

fn ticks(line: usize, gap: &str, start: &str, count: &str) -> Result<Ticks, TraceError> {
    Ok(Ticks {
        gap_seconds: positive(line, "gap_s", gap, "the seconds of a tick, 1 to 86400", 86_400)?,
        start: number(line, "start_tick", start, "a tick number, 0 or more")?,
        count: positive(line, "ticks", count, "how many ticks the row covers, 1 or more", u64::from(u32::MAX))?,
    })
}

fn positive(line: usize, column: &'static str, text: &str, expected: &'static str, most: u64) -> Result<u64, TraceError> {
    let value = number(line, column, text, expected)?;
    if value == 0 || value > most { Err(wrong(line, column, text, expected)) } else { Ok(value) }
}

fn number(line: usize, column: &'static str, text: &str, expected: &'static str) -> Result<u64, TraceError> {
    text.parse::<u32>().map(u64::from).map_err(|_| wrong(line, column, text, expected))
}

fn price(line: usize, column: &'static str, text: &str) -> Result<MoneyPerHour, TraceError> {
    let expected = "a price in USD an hour, 0 or more, for example 0.9731";
    let price = MoneyPerHour::usd(text).map_err(|_: MoneyError| wrong(line, column, text, expected))?;
    if price.per_hour().is_negative() { Err(wrong(line, column, text, expected)) } else { Ok(price) }
}

fn wrong(line: usize, column: &'static str, text: &str, expected: &'static str) -> TraceError {
    TraceError::Value { line, column, text: text.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "availability,1-node,t,us-east-1a,v100_1,60,0,5,1\navailability,1-node,t,us-east-1a,v100_1,60,5,5,0\n";

    fn read(rows: &str) -> Result<Market, TraceError> {
        market("trace:t", &format!("{TRACE_COLUMNS}\n{rows}"), None, None, DateTime::UNIX_EPOCH)
    }

    fn message(rows: &str) -> String {
        read(rows).unwrap_err().to_string()
    }

    #[test]
    fn a_trace_becomes_pools_that_repeat() {
        let market = read(GOOD).unwrap();
        let pool = &market.pools[&PoolKey::new("p3.2xlarge", "us-east-1a")];
        assert_eq!((*pool.spot_capacity.at(299), *pool.spot_capacity.at(300), *pool.spot_capacity.at(600)), (1, 0, 1));
        assert_eq!(pool.on_demand_price.to_string(), "3.06 USD/h");
    }

    #[test]
    fn prices_move_and_name_the_line_of_an_error() {
        let trace = format!("{TRACE_COLUMNS}\n{GOOD}");
        let with = |rows: &str| market("t", &trace, None, Some(&format!("{PRICE_COLUMNS}\n{rows}")), DateTime::UNIX_EPOCH);
        let market = with("t,us-east-1a,v100_1,60,0,2,1.7379,3.06\nt,us-east-1a,v100_1,60,2,8,1.5,3.06\n").unwrap();
        let pool = &market.pools[&PoolKey::new("p3.2xlarge", "us-east-1a")];
        assert_eq!((pool.spot_price.at(119).to_string().as_str(), pool.spot_price.at(120).to_string().as_str()), ("1.7379 USD/h", "1.5 USD/h"));
        assert!(with("t,us-east-1a,v100_1,60,0,2,-1,3.06\n").unwrap_err().to_string().starts_with("line 2: column spot_usd_h is \"-1\""));
        let two = with("t,us-east-1a,v100_1,60,0,2,1,3.06\nt,us-east-1b,v100_1,60,0,2,1,3.07\n");
        assert!(matches!(two, Err(TraceError::OnDemand { line: 3, .. })));
    }

    #[test]
    fn an_empty_file_is_refused() {
        for text in ["", TRACE_COLUMNS, &format!("{TRACE_COLUMNS}\n")] {
            assert_eq!(market("t", text, None, None, DateTime::UNIX_EPOCH), Err(TraceError::Empty { expected: TRACE_COLUMNS }));
        }
    }

    #[test]
    fn wrong_columns_are_refused_by_name_and_line() {
        let other = market("t", "zone,value\na,1\n", None, None, DateTime::UNIX_EPOCH).unwrap_err();
        assert_eq!(other.to_string(), format!("line 1: the columns are \"zone,value\"; write {TRACE_COLUMNS}"));
        assert_eq!(message(&format!("{GOOD}a,b,c\n{GOOD}")), "line 4: 3 columns where 9 are expected; compare it with its neighbours");
    }

    #[test]
    fn half_a_line_is_refused_even_if_its_columns_are_there() {
        assert_eq!(message(GOOD.trim_end()), "line 3: the file ends in the middle of a row; fetch or write it again");
        assert_eq!(message(&GOOD[..GOOD.len() - 9]), "line 3: the file ends in the middle of a row; fetch or write it again");
    }

    #[test]
    fn ticks_must_follow_each_other() {
        let row = |start: u32| format!("availability,1-node,t,us-east-1a,v100_1,60,{start},5,0\n");
        assert_eq!(
            message(&(row(0) + &row(6))),
            "line 3: availability/1-node/t/us-east-1a/v100_1 jumps to tick 6 where tick 5 should follow; add the missing ticks"
        );
        assert!(matches!(read(&(row(0) + &row(4))), Err(TraceError::Unsorted { line: 3, expected: 5, found: 4, .. })));
        assert!(matches!(read(&row(3)), Err(TraceError::Gap { line: 2, expected: 0, found: 3, .. })));
        let slower = "availability,1-node,t,us-east-1a,v100_1,30,5,5,0\n";
        assert!(matches!(read(&(row(0) + slower)), Err(TraceError::TickLength { line: 3, expected: 60, found: 30, .. })));
    }

    #[test]
    fn numbers_are_refused_by_column() {
        for (row, column) in [
            ("availability,1-node,t,us-east-1a,v100_1,60,0,5,-1", "value"),
            ("availability,1-node,t,us-east-1a,v100_1,60,0,5,1.5", "value"),
            ("availability,1-node,t,us-east-1a,v100_1,0,0,5,1", "gap_s"),
            ("availability,1-node,t,us-east-1a,v100_1,60,-3,5,1", "start_tick"),
            ("availability,1-node,t,us-east-1a,v100_1,60,0,0,1", "ticks"),
            ("availability,1-node,t,us-east-1a,v100_1,60,0,many,1", "ticks"),
        ] {
            assert!(message(&format!("{row}\n")).starts_with(&format!("line 2: column {column} is ")), "{row}");
        }
    }

    #[test]
    fn unknown_devices_and_ambiguous_groups_are_told_what_there_is() {
        assert!(message("availability,1-node,t,us-east-1a,tpu_1,60,0,5,1\n").contains("known are v100_1"));
        let two = format!("{GOOD}availability,4-node,t,us-east-1a,v100_1,60,0,5,1\n");
        assert_eq!(message(&two), "the file holds several trace groups; choose one with FILE#GROUP: availability/1-node/t, availability/4-node/t");
        let text = format!("{TRACE_COLUMNS}\n{two}");
        assert!(market("t", &text, Some("availability/4-node/t"), None, DateTime::UNIX_EPOCH).is_ok());
        assert!(matches!(market("t", &text, Some("x"), None, DateTime::UNIX_EPOCH), Err(TraceError::NoSuchGroup { .. })));
    }

    #[test]
    fn the_published_traces_are_read() {
        let Ok(folder) = std::env::var("PURSER_DATA_DIR") else {
            println!("skipped: PURSER_DATA_DIR is not set");
            return;
        };
        let read = |file: &str| std::fs::read_to_string(format!("{folder}/traces/spot/{file}")).unwrap();
        let (spot, h100, prices) = (read("spot-traces.csv"), read("h100-traces.csv"), read("prices.csv"));
        let groups = match market("t", &spot, None, None, DateTime::UNIX_EPOCH) {
            Err(TraceError::Groups { groups }) => groups,
            other => panic!("{other:?}"),
        };
        for group in groups.split(", ") {
            assert!(!market("t", &spot, Some(group), Some(&prices), DateTime::UNIX_EPOCH).unwrap().pools.is_empty());
        }
        let h100 = market("t", &h100, None, Some(&prices), DateTime::UNIX_EPOCH).unwrap();
        assert_eq!(h100.pools.len(), 13);
    }
}
