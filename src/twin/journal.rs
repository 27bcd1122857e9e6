//! The twin's memory: a file of JSON lines, from which a restart continues.
//!
//! One line is one transaction, an array of [`Entry`]; so a launch and the answer that was given to it are there together or
//! not at all. The ledger is computed from these lines and nothing else.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::clock::Clock;
use crate::simulation::market::fleet::{Fact, Timing};

const FILE: &str = "events.jsonl";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Entry {
    /// The first one.
    Opened { market: String, market_epoch: DateTime<Utc>, timing: Timing },
    /// At the first start, and again when a restart changes the speed.
    Clock(Clock),
    Fleet(Fact),
    /// An answer that must be given again to the same token.
    Answered(Answer),
    Template(Template),
    TemplateDeleted { id: String },
    QueueCreated { queue: String },
    MessageSent { at: DateTime<Utc>, queue: String, id: String, body: String },
    MessageDeleted { queue: String, id: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    pub at: DateTime<Utc>,
    /// Region and action.
    pub call: String,
    pub token: String,
    /// SHA-256 over the parameters without the token.
    pub fingerprint: String,
    pub body: String,
}

/// One version of a launch template, its data as EC2's flat parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    pub at: DateTime<Utc>,
    pub region: String,
    pub id: String,
    pub name: String,
    pub version: u32,
    pub data: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("could not open the twin's state in {path}; give another folder with --state, or mend its permissions")]
    Open { path: PathBuf, #[source] source: std::io::Error },
    #[error("line {line} of {path} is not the twin's; give another folder with --state, or remove the file to begin anew")]
    Line { path: PathBuf, line: usize, #[source] source: serde_json::Error },
    #[error("could not write the twin's state to {path}; is the disk full?")]
    Write { path: PathBuf, #[source] source: std::io::Error },
}

/// Appends to the file, or keeps everything in memory only where no folder was given.
#[derive(Debug)]
pub struct Journal {
    file: Option<(PathBuf, std::fs::File)>,
    entries: Vec<Entry>,
    /// Encoded, not yet in the file.
    unwritten: Vec<u8>,
}

impl Journal {
    /// Opens or begins the journal of a folder and reads what is in it.
    pub fn open(folder: Option<&Path>) -> Result<Journal, JournalError> {
        let Some(folder) = folder else { return Ok(Journal { file: None, entries: Vec::new(), unwritten: Vec::new() }) };
        let path = folder.join(FILE);
        let open = |source| JournalError::Open { path: path.clone(), source };
        std::fs::create_dir_all(folder).map_err(open)?;
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(open(error)),
        };
        // A line without its end was cut off by a crash: nobody was answered, so it never happened.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut entries = Vec::new();
        for (index, line) in text[..whole].split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
            let read = |source| JournalError::Line { path: path.clone(), line: index + 1, source };
            entries.extend(serde_json::from_slice::<Vec<Entry>>(line).map_err(read)?);
        }
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path).map_err(open)?;
        file.set_len(whole as u64).map_err(open)?;
        Ok(Journal { file: Some((path, file)), entries, unwritten: Vec::new() })
    }

    /// Everything that ever happened, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Writes entries that belong together. What could not be written is tried again with the next ones.
    pub fn append(&mut self, entries: Vec<Entry>) -> Result<(), JournalError> {
        if !entries.is_empty() && self.file.is_some() {
            let line = serde_json::to_vec(&entries).expect("entries have text keys only, so JSON can hold them");
            self.unwritten.extend(line);
            self.unwritten.push(b'\n');
        }
        self.entries.extend(entries);
        let Some((path, file)) = self.file.as_mut().filter(|_| !self.unwritten.is_empty()) else { return Ok(()) };
        file.write_all(&self.unwritten).map_err(|source| JournalError::Write { path: path.clone(), source })?;
        self.unwritten.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cut_off_by_a_crash_never_happened() {
        let folder = tempfile::tempdir().unwrap();
        let entry = |queue: &str| Entry::QueueCreated { queue: queue.into() };
        let mut journal = Journal::open(Some(folder.path())).unwrap();
        journal.append(vec![entry("a"), entry("b")]).unwrap();
        drop(journal);
        let file = folder.path().join(FILE);
        let mut text = std::fs::read(&file).unwrap();
        text.extend(b"[{\"entry\":\"queue-cre");
        std::fs::write(&file, text).unwrap();
        let mut journal = Journal::open(Some(folder.path())).unwrap();
        journal.append(vec![entry("c")]).unwrap();
        assert_eq!(Journal::open(Some(folder.path())).unwrap().entries(), [entry("a"), entry("b"), entry("c")]);
    }

    #[test]
    fn a_foreign_file_is_refused_by_line() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "[]\nhello\n").unwrap();
        let error = Journal::open(Some(folder.path())).unwrap_err().to_string();
        assert!(error.starts_with("line 2 of "), "{error}");
    }
}
