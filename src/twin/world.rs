//! Everything the twin knows, behind one lock: the fleet, launch templates, answers given, queues, and the journal.
//!
//! Whoever touches it goes through `Twin::with`, which lets the market catch up first and writes down what happened after.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

use super::clock::Clock;
use super::eventbridge;
use super::journal::{Answer, Entry, Journal, JournalError, Template};
use super::queues::Queues;
use crate::simulation::market::fleet::{Fact, Timing};
use crate::simulation::market::catalogue::{self, CatalogueError};
use crate::simulation::market::trace::{self, TraceError};
use crate::simulation::market::{Fleet, Market, demo, seeded};

/// The account that the twin says it is.
pub const ACCOUNT: &str = "000000000000";

/// Where the market comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarketSource {
    Demo,
    Seed(u64),
    /// A trace file, one of its groups, and prices for it.
    Trace { file: PathBuf, group: Option<String>, prices: Option<PathBuf> },
    /// Instance types with their prices, without limit.
    Catalogue { file: PathBuf },
}

impl MarketSource {
    /// As it is written on the command line.
    pub fn name(&self) -> String {
        match self {
            MarketSource::Demo => "demo".into(),
            MarketSource::Seed(seed) => format!("seed:{seed}"),
            MarketSource::Trace { file, group: None, .. } => format!("trace:{}", file.display()),
            MarketSource::Trace { file, group: Some(group), .. } => format!("trace:{}#{group}", file.display()),
            MarketSource::Catalogue { file } => format!("catalogue:{}", file.display()),
        }
    }

    fn build(&self, epoch: DateTime<Utc>) -> Result<Market, OpenError> {
        let read = |path: &PathBuf| std::fs::read_to_string(path).map_err(|source| OpenError::Read { path: path.clone(), source });
        match self {
            MarketSource::Demo => Ok(demo::market(epoch)),
            MarketSource::Seed(seed) => Ok(seeded::market(*seed, epoch)),
            MarketSource::Trace { file, group, prices } => {
                let prices = prices.as_ref().map(read).transpose()?;
                let market = trace::market(&self.name(), &read(file)?, group.as_deref(), prices.as_deref(), epoch);
                market.map_err(|source| OpenError::Trace { path: file.clone(), source })
            }
            MarketSource::Catalogue { file } => {
                let text = read_compressed(file).map_err(|source| OpenError::Read { path: file.clone(), source })?;
                let market = catalogue::market(&self.name(), &text, epoch);
                market.map_err(|source| OpenError::Catalogue { path: file.clone(), source })
            }
        }
    }
}

/// Plain, or compressed with zstd where the name ends so.
fn read_compressed(path: &Path) -> std::io::Result<String> {
    let file = std::fs::File::open(path)?;
    match path.extension().is_some_and(|extension| extension == "zst") {
        true => std::io::read_to_string(zstd::Decoder::new(file)?),
        false => std::io::read_to_string(file),
    }
}

/// How the twin behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    pub market: MarketSource,
    /// Market seconds per real second.
    pub speed: f64,
    /// Market time at the first start; now where absent.
    pub market_epoch: Option<DateTime<Utc>>,
    /// Folder of the journal and the objects; in memory only where absent.
    pub state: Option<PathBuf>,
    pub timing: Timing,
    /// Describe calls show the world as it was so many real seconds ago.
    pub lag_seconds: f64,
    /// vCPUs by quota code; what is not named is [`QUOTA_DEFAULT`].
    pub quotas: BTreeMap<String, u32>,
    /// Free addresses of each subnet when nothing runs.
    pub subnet_addresses: u32,
    /// EC2 calls a real second; more are answered with RequestLimitExceeded.
    pub calls_per_second_max: Option<u32>,
    /// Machine images that there are.
    pub images: Vec<String>,
    /// The queue that gets EC2's events, made at the start.
    pub queue: String,
}

/// vCPUs of a quota that is not set.
pub const QUOTA_DEFAULT: u32 = 100_000;

/// The image that there is where none is named.
pub const IMAGE: &str = "ami-0123456789abcdef0";

impl Settings {
    pub fn new(market: MarketSource) -> Settings {
        Settings {
            market,
            speed: 1.0,
            market_epoch: None,
            state: None,
            timing: Timing::default(),
            lag_seconds: 1.0,
            quotas: BTreeMap::new(),
            subnet_addresses: 4_091,
            calls_per_second_max: None,
            images: vec![IMAGE.into()],
            queue: "purser-interruptions".into(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("could not read {path}; is the path right?")]
    Read { path: PathBuf, #[source] source: std::io::Error },
    #[error("{path} is no usable trace: {source}")]
    Trace { path: PathBuf, #[source] source: TraceError },
    #[error("{path} is no usable catalogue: {source}")]
    Catalogue { path: PathBuf, #[source] source: CatalogueError },
    #[error("this state folder was begun with --market {found}, not {wanted}; use that market or another folder")]
    OtherMarket { found: String, wanted: String },
    #[error("a speed of {speed} is not possible; write a number above 0, for example --speed 60")]
    Speed { speed: f64 },
    #[error(transparent)]
    Journal(#[from] JournalError),
}

pub struct World {
    pub settings: Settings,
    pub clock: Clock,
    pub fleet: Fleet,
    pub templates: Vec<Template>,
    pub queues: Queues,
    answers: BTreeMap<(String, String), Answer>,
    journal: Journal,
    unwritten: Vec<Entry>,
    /// Real seconds and calls in them, for throttling.
    calls: (i64, u32),
}

impl World {
    /// Begins a world, or continues the one of the state folder.
    pub fn open(settings: Settings, real_now: DateTime<Utc>) -> Result<World, OpenError> {
        if !settings.speed.is_finite() || settings.speed <= 0.0 {
            return Err(OpenError::Speed { speed: settings.speed });
        }
        let mut journal = Journal::open(settings.state.as_deref())?;
        if journal.entries().is_empty() {
            let market_epoch = settings.market_epoch.unwrap_or(real_now).trunc_subsecs(0);
            let clock = Clock { real_epoch: real_now, market_epoch, speed: settings.speed };
            journal.append(vec![Entry::Opened { market: settings.market.name(), market_epoch, timing: settings.timing }, Entry::Clock(clock)])?;
        }
        let mut world = World::replay(settings, journal)?;
        world.set_speed(real_now);
        world.queues.create(&world.settings.queue.clone());
        world.catch_up(real_now);
        world.commit()?;
        Ok(world)
    }

    fn replay(settings: Settings, journal: Journal) -> Result<World, OpenError> {
        let Some(Entry::Opened { market, market_epoch, timing }) = journal.entries().first() else {
            return Err(OpenError::OtherMarket { found: "nothing known".into(), wanted: settings.market.name() });
        };
        if *market != settings.market.name() {
            return Err(OpenError::OtherMarket { found: market.clone(), wanted: settings.market.name() });
        }
        let (market, timing) = (Arc::new(settings.market.build(*market_epoch)?), *timing);
        let clock = Clock { real_epoch: *market_epoch, market_epoch: *market_epoch, speed: settings.speed };
        let fleet = Fleet::replay(market, timing, journal.entries().iter().filter_map(fleet_fact));
        let mut world = World {
            queues: Queues::default(),
            clock,
            fleet,
            templates: Vec::new(),
            answers: BTreeMap::new(),
            unwritten: Vec::new(),
            calls: (0, 0),
            settings,
            journal: Journal::open(None)?,
        };
        world.queues.create(&world.settings.queue.clone());
        for entry in journal.entries() {
            world.remember(entry);
        }
        world.journal = journal;
        Ok(world)
    }

    /// What an entry changes besides the fleet.
    fn remember(&mut self, entry: &Entry) {
        match entry {
            Entry::Opened { .. } => {}
            Entry::Clock(clock) => self.clock = *clock,
            Entry::Fleet(fact) => self.post(fact),
            Entry::Answered(answer) => {
                self.answers.insert((answer.call.clone(), answer.token.clone()), answer.clone());
            }
            Entry::Template(template) => self.templates.push(template.clone()),
            Entry::TemplateDeleted { id } => self.templates.retain(|template| template.id != *id),
            Entry::QueueCreated { queue } => self.queues.create(queue),
            Entry::MessageSent { at, queue, id, body } => self.queues.send(queue, id, body.clone(), *at),
            Entry::MessageDeleted { queue, id } => self.queues.forget(queue, id),
        }
    }

    fn set_speed(&mut self, real_now: DateTime<Utc>) {
        if self.clock.speed != self.settings.speed {
            self.record(Entry::Clock(self.clock.at_speed(self.settings.speed, real_now)));
        }
    }

    /// Changes the world by an entry and keeps it for the journal.
    pub fn record(&mut self, entry: Entry) {
        self.remember(&entry);
        self.unwritten.push(entry);
    }

    /// Lets the market run until now.
    pub fn catch_up(&mut self, real_now: DateTime<Utc>) {
        self.fleet.advance(self.clock.market(real_now));
    }

    /// Writes down what happened and posts it to the queue. Returns the news of the fleet.
    pub fn commit(&mut self) -> Result<Vec<Fact>, JournalError> {
        let news = self.fleet.take_news();
        news.iter().for_each(|fact| self.post(fact));
        let mut entries: Vec<Entry> = news.iter().cloned().map(Entry::Fleet).collect();
        entries.append(&mut self.unwritten);
        self.journal.append(entries)?;
        Ok(news)
    }

    fn post(&mut self, fact: &Fact) {
        let Some(message) = eventbridge::message(fact, &self.fleet) else { return };
        let queue = self.settings.queue.clone();
        self.queues.send(&queue, &message.id, message.body, fact.at);
    }

    pub fn entries(&self) -> &[Entry] {
        self.journal.entries()
    }

    /// Market time.
    pub fn now(&self) -> DateTime<Utc> {
        self.fleet.now()
    }

    /// What describe calls see: the world as it was a little earlier.
    pub fn visible_at(&self) -> DateTime<Utc> {
        self.now() - TimeDelta::microseconds((self.settings.lag_seconds * self.clock.speed * 1e6) as i64)
    }

    pub fn answer(&self, call: &str, token: &str) -> Option<&Answer> {
        self.answers.get(&(call.to_owned(), token.to_owned()))
    }

    pub fn quota(&self, code: &str) -> u32 {
        self.settings.quotas.get(code).copied().unwrap_or(QUOTA_DEFAULT)
    }

    /// Counts a call of this real second; false where it is one too many.
    pub fn admits_call(&mut self, real_now: DateTime<Utc>) -> bool {
        let second = real_now.timestamp();
        self.calls = if self.calls.0 == second { (second, self.calls.1 + 1) } else { (second, 1) };
        self.settings.calls_per_second_max.is_none_or(|most| self.calls.1 <= most)
    }
}

fn fleet_fact(entry: &Entry) -> Option<&Fact> {
    match entry {
        Entry::Fleet(fact) => Some(fact),
        _ => None,
    }
}
