//! Files that people write: YAML or JSON, many documents in one, read with the position of every mistake.

use std::io::Read;
use std::path::{Path, PathBuf};

use kube::ResourceExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::api::{CapacityPool, Experiment, GROUP, Team, TrainingJob, VERSION};

/// More than any hand-written file has; a wrong path given to `-f` must not fill the memory.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// One object of a file.
#[derive(Clone, Debug)]
pub struct Document {
    /// Where it stands, for messages: `jobs.yaml, line 12`.
    pub place: String,
    /// As it was written, without the defaults: what is applied.
    pub value: serde_json::Value,
    pub object: Object,
}

/// In the order in which they are applied: what is named comes before what names it.
#[derive(Clone, Debug)]
pub enum Object {
    Namespace(Box<k8s_openapi::api::core::v1::Namespace>),
    Pool(Box<CapacityPool>),
    Team(Box<Team>),
    Experiment(Box<Experiment>),
    Job(Box<TrainingJob>),
}

impl Object {
    /// The kind in lower case, as commands name it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Object::Namespace(_) => "namespace",
            Object::Pool(_) => "capacitypool",
            Object::Team(_) => "team",
            Object::Experiment(_) => "experiment",
            Object::Job(_) => "trainingjob",
        }
    }

    pub fn name(&self) -> String {
        match self {
            Object::Namespace(object) => object.name_any(),
            Object::Pool(object) => object.name_any(),
            Object::Team(object) => object.name_any(),
            Object::Experiment(object) => object.name_any(),
            Object::Job(object) => object.name_any(),
        }
    }

    pub fn namespace(&self) -> Option<String> {
        match self {
            Object::Namespace(_) | Object::Pool(_) | Object::Team(_) => None,
            Object::Experiment(object) => object.namespace(),
            Object::Job(object) => object.namespace(),
        }
    }

    pub const fn rank(&self) -> u8 {
        match self {
            Object::Namespace(_) => 0,
            Object::Pool(_) => 1,
            Object::Team(_) => 2,
            Object::Experiment(_) => 3,
            Object::Job(_) => 4,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("could not read {}", path.display())]
    Read { path: PathBuf, #[source] source: std::io::Error },
    #[error("{} is larger than 16 MiB", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} holds no object", path.display())]
    Empty { path: PathBuf },
    #[error("{place}: {message}")]
    Syntax { place: String, message: String },
    #[error("{place}: {found} is none of the kinds that Purser reads here (TrainingJob, Experiment, CapacityPool, Team, Namespace)")]
    Kind { place: String, found: String },
    #[error("{place}: the object has no metadata.name")]
    Nameless { place: String },
    #[error("{place}: {kind} {name:?} cannot be: {message}")]
    Invalid { place: String, kind: &'static str, name: String, message: String },
}

/// Reads a file, a folder's files, or standard input for `-`, and checks all that can be said about each object alone. Objects come back in
/// the order in which they can be applied.
pub fn read(path: &Path) -> Result<Vec<Document>, DocumentError> {
    if path.is_dir() {
        return read_folder(path);
    }
    let text = read_text(path)?;
    parse(&path.display().to_string(), &text, path)
}

fn read_folder(folder: &Path) -> Result<Vec<Document>, DocumentError> {
    let failed = |source| DocumentError::Read { path: folder.to_owned(), source };
    let entries = std::fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>()).map_err(failed)?;
    let is_wanted = |path: &PathBuf| path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).filter(is_wanted).collect();
    paths.sort();
    if paths.is_empty() {
        return Err(DocumentError::Empty { path: folder.to_owned() });
    }
    let read_one = |path: &PathBuf| parse(&path.display().to_string(), &read_text(path)?, path);
    let mut documents = paths.iter().map(read_one).collect::<Result<Vec<_>, _>>()?.concat();
    documents.sort_by_key(|document| document.object.rank());
    Ok(documents)
}

/// Objects of a text that is at hand, for example the samples in the binary.
pub fn parse_text(name: &str, text: &str) -> Result<Vec<Document>, DocumentError> {
    parse(name, text, Path::new(name))
}

fn parse(name: &str, text: &str, path: &Path) -> Result<Vec<Document>, DocumentError> {
    let mut documents = Vec::new();
    for (line, part) in split(text) {
        documents.extend(document(format!("{name}, line {}", line + 1), line, part)?);
    }
    if documents.is_empty() {
        return Err(DocumentError::Empty { path: path.to_owned() });
    }
    documents.sort_by_key(|document| document.object.rank());
    Ok(documents)
}

fn read_text(path: &Path) -> Result<String, DocumentError> {
    let failed = |source| DocumentError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let reader: Box<dyn Read> = if path == Path::new("-") { Box::new(std::io::stdin().lock()) } else { Box::new(std::fs::File::open(path).map_err(failed)?) };
    reader.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(DocumentError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

/// The documents of a stream with the number of the line each begins on. A `---` in the first column always separates.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if line.trim_end() == "---" || line.starts_with("--- ") {
            parts.push((start_line, &text[start..at]));
            (start, start_line) = (at + line.len(), number + 1);
        }
        at += line.len();
    }
    parts.push((start_line, &text[start..]));
    parts
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "apiVersion", default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    items: Vec<serde_json::Value>,
}

fn document(place: String, line: usize, text: &str) -> Result<Vec<Document>, DocumentError> {
    let is_blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(is_blank) {
        return Ok(Vec::new());
    }
    // Empty lines before it, so that a mistake is reported on the line of the file.
    let text = "\n".repeat(line) + text;
    let value: serde_json::Value = from_yaml(&place, &text)?;
    let head: Head = serde_json::from_value(value.clone()).map_err(|error| DocumentError::Syntax { place: place.clone(), message: error.to_string() })?;
    if head.kind == "List" || head.kind.ends_with("List") && !head.items.is_empty() {
        return head.items.iter().map(|item| one(place.clone(), &item.to_string(), item.clone())).collect();
    }
    one(place, &text, value).map(|document| vec![document])
}

fn one(place: String, text: &str, value: serde_json::Value) -> Result<Document, DocumentError> {
    let head: Head = serde_json::from_value(value.clone()).map_err(|error| DocumentError::Syntax { place: place.clone(), message: error.to_string() })?;
    let ours = format!("{GROUP}/{VERSION}");
    let object = match (head.api_version.as_str(), head.kind.as_str()) {
        ("v1", "Namespace") => Object::Namespace(Box::new(from_yaml(&place, text)?)),
        (version, "CapacityPool") if version == ours => Object::Pool(Box::new(from_yaml(&place, text)?)),
        (version, "Team") if version == ours => Object::Team(Box::new(from_yaml(&place, text)?)),
        (version, "Experiment") if version == ours => Object::Experiment(Box::new(from_yaml(&place, text)?)),
        (version, "TrainingJob") if version == ours => Object::Job(Box::new(from_yaml(&place, text)?)),
        (version, kind) => return Err(DocumentError::Kind { place, found: format!("{kind:?} of {version:?}") }),
    };
    if object.name().is_empty() {
        return Err(DocumentError::Nameless { place });
    }
    let invalid = |message: String| DocumentError::Invalid { place: place.clone(), kind: object.kind(), name: object.name(), message };
    if let Object::Job(job) = &object {
        job.spec.validate().map_err(|error| invalid(error.to_string()))?;
    }
    Ok(Document { place, value, object })
}

fn from_yaml<T: DeserializeOwned>(place: &str, text: &str) -> Result<T, DocumentError> {
    let syntax = |error: serde_saphyr::Error| DocumentError::Syntax { place: place.to_owned(), message: error.to_string().trim_start_matches("error: ").trim_end().to_owned() };
    serde_saphyr::from_str(text).map_err(syntax)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "apiVersion: purser.dev/v1alpha1\nkind: TrainingJob\nmetadata: {name: bert, namespace: language}\nspec:\n  experiment: bert\n  expectedDuration: 1h\n  template: {spec: {containers: [{name: train, image: trainer}]}}\n";

    #[test]
    fn what_is_named_comes_before_what_names_it() {
        let text = format!("# two\n---\n{JOB}---\napiVersion: purser.dev/v1alpha1\nkind: Experiment\nmetadata: {{name: bert, namespace: language}}\nspec: {{owner: ada}}\n");
        let documents = parse_text("two.yaml", &text).unwrap();
        assert_eq!(documents.iter().map(|document| document.object.kind()).collect::<Vec<_>>(), ["experiment", "trainingjob"]);
        assert!(documents[1].value["spec"].get("capacityKinds").is_none(), "defaults are the server's to add");
    }

    #[test]
    fn a_mistake_is_found_on_its_line() {
        let text = format!("---\n{JOB}---\n{}", JOB.replace("expectedDuration: 1h", "expectedDuration: soon"));
        let message = parse_text("jobs.yaml", &text).unwrap_err().to_string();
        assert!(message.contains("soon") && message.contains("14"), "{message}");
    }

    #[test]
    fn a_field_that_does_not_exist_is_refused() {
        let message = parse_text("jobs.yaml", &JOB.replace("experiment:", "expirement:")).unwrap_err().to_string();
        assert!(message.contains("expirement"), "{message}");
    }

    #[test]
    fn json_lists_are_read_too() {
        let job: serde_json::Value = serde_saphyr::from_str(JOB).unwrap();
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [job]}).to_string();
        assert_eq!(parse_text("-", &list).unwrap().len(), 1);
    }

    #[test]
    fn foreign_kinds_and_empty_files_are_refused_by_name() {
        assert!(matches!(parse_text("x", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n"), Err(DocumentError::Kind { .. })));
        assert!(matches!(parse_text("x", "# nothing\n---\n"), Err(DocumentError::Empty { .. })));
    }
}
