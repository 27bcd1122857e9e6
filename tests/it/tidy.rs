//! The rules that a compiler does not know: which way arrows point, what the pure half may not do, where a word belongs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Module → what it may use. `main`, `lib` and `cli` may use everything.
const ARROWS: &[(&str, &[&str])] = &[
    ("units", &[]),
    // A claim says for whom, a job says on what: the two know each other's leaf types.
    ("capacity", &["units", "training"]),
    ("training", &["units", "capacity"]),
    ("cost", &["units", "capacity", "training"]),
    ("scheduling", &["units", "capacity", "training"]),
    ("simulation", &["units", "capacity", "training", "scheduling"]),
    ("api", &["units", "capacity", "training", "scheduling"]),
    ("cloud", &["units", "capacity", "training", "scheduling", "api"]),
    ("ledger", &["units", "capacity", "training", "cost"]),
    // Never `cost`: its ledger is the judge of ours and must not be computed by the same code.
    ("twin", &["units", "capacity", "training", "scheduling", "simulation", "api", "testbed"]),
    ("testbed", &[]),
    ("kubernetes", &["units", "capacity", "training", "scheduling", "cost", "api", "cloud", "ledger"]),
    ("http", &["units", "capacity", "training", "scheduling", "cost", "api", "cloud", "ledger", "kubernetes"]),
];

const PURE: &[&str] = &["units", "capacity", "training", "scheduling", "cost", "simulation"];

/// What would make a decision depend on more than its arguments.
const IMPURE: &[&str] = &[
    "async fn", ".await", "tokio::", "kube::", "k8s_openapi", "reqwest", "axum::", "std::fs", "std::env", "std::net", "std::process",
    "std::thread", "Utc::now", "Local::now", "SystemTime", "Instant::now", "rand::rng", "rand::random", "thread_rng", "from_os_rng",
    "getrandom",
];

const VAGUE_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "manager", "types", "misc"];

const LINES_MAX: usize = 700;

/// One file of `src`.
struct Source {
    /// Relative to `src`, for example `cloud/aws/fleet.rs`.
    path: PathBuf,
    text: String,
    /// Without comments and without the tests at its end.
    code: String,
}

impl Source {
    /// The top-level module it belongs to.
    fn module(&self) -> String {
        let first = self.path.components().next().expect("a path has a component").as_os_str().to_string_lossy().into_owned();
        first.trim_end_matches(".rs").to_owned()
    }

    fn is_under(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }

    /// Top-level modules that its code names through `crate::`.
    fn uses(&self) -> BTreeSet<String> {
        let mut uses = BTreeSet::new();
        for (at, _) in self.code.match_indices("crate::") {
            let rest = &self.code[at + "crate::".len()..];
            match rest.strip_prefix('{') {
                Some(group) => uses.extend(group_heads(group)),
                None => uses.extend(head(rest)),
            }
        }
        uses
    }
}

fn head(path: &str) -> Option<String> {
    let name: String = path.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The first segment of every path in `a::b, c::{d, e}}…`, up to the brace that closes the group.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut start) = (0, Vec::new(), 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                heads.extend(head(group[start..at].trim_start()));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.extend(head(group[start..at].trim_start()));
                start = at + 1;
            }
            _ => {}
        }
    }
    heads
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("sources are readable");
        let code = if is_test_file(path) { String::new() } else { code_of(&text) };
        Source { path: path.strip_prefix(&root).expect("below src").to_owned(), code, text }
    };
    files.iter().map(read).collect()
}

fn is_test_file(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with("tests.rs"))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("folders are readable") {
        let path = entry.expect("entries are readable").path();
        match path.is_dir() {
            true => collect(&path, files),
            false if path.extension().is_some_and(|extension| extension == "rs") => files.push(path),
            false => {}
        }
    }
}

/// The text up to its test module, without comment lines.
fn code_of(text: &str) -> String {
    let begins_tests = |(at, _): &(usize, &str)| text[*at..].lines().nth(1).is_some_and(|line| line.contains("mod tests"));
    let end = text.match_indices("#[cfg(test)]\n").find(begins_tests).map_or(text.len(), |(at, _)| at);
    let lines = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn arrows_point_one_way() {
    let known: BTreeSet<&str> = ARROWS.iter().map(|(module, _)| *module).chain(["cli"]).collect();
    let mut found = Vec::new();
    for source in sources() {
        let module = source.module();
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == module) else {
            if !["main", "lib", "cli"].contains(&module.as_str()) {
                found.push(format!("src/{}: module {module} has no place in the map; give it one here and in src/lib.rs", source.path.display()));
            }
            continue;
        };
        let wrong = source.uses().into_iter().filter(|name| known.contains(name.as_str()) && *name != module && !allowed.contains(&name.as_str()));
        found.extend(wrong.map(|name| format!("src/{} uses crate::{name}", source.path.display())));
    }
    assert_none(&found, "an arrow points the wrong way");
}

#[test]
fn what_decides_is_pure() {
    let pure = sources().into_iter().filter(|source| PURE.contains(&source.module().as_str()));
    let found: Vec<String> = pure
        .flat_map(|source| IMPURE.iter().filter(|word| source.code.contains(**word)).map(|word| format!("src/{}: {word}", source.path.display())).collect::<Vec<_>>())
        .collect();
    assert_none(&found, "the deciding half may not await, look at a clock, a file, the environment or a random source");
}

#[test]
fn the_twin_is_an_independent_judge() {
    let found: Vec<String> = sources()
        .iter()
        .filter(|source| source.is_under("twin"))
        .filter(|source| ["crate::cost", "billing::", "capacity::billing", "for_seconds("].iter().any(|word| source.code.contains(word)))
        .map(|source| format!("src/{}", source.path.display()))
        .collect();
    assert_none(&found, "the twin computes what was spent with its own code, or the comparison of ledgers proves nothing");
}

#[test]
fn sdk_types_stay_in_their_folder() {
    let found: Vec<String> = sources()
        .iter()
        .filter(|source| !source.is_under("cloud/aws"))
        .filter(|source| ["aws_sdk_", "aws_config", "aws_smithy", "aws_credential_types"].iter().any(|word| source.code.contains(word)))
        .map(|source| format!("src/{}", source.path.display()))
        .collect();
    assert_none(&found, "no AWS SDK type outside src/cloud/aws");
}

#[test]
fn nothing_unwraps_outside_tests() {
    let found: Vec<String> = sources()
        .iter()
        .filter(|source| source.code.contains(".unwrap()"))
        .map(|source| format!("src/{}", source.path.display()))
        .collect();
    assert_none(&found, "say why it cannot fail (`expect`), or pass the error on");
}

#[test]
fn files_hold_one_idea() {
    let long = sources().into_iter().filter(|source| source.text.lines().count() > LINES_MAX);
    let found: Vec<String> = long.map(|source| format!("src/{} has {} lines", source.path.display(), source.text.lines().count())).collect();
    assert_none(&found, "a file this long hides two nouns; split it by noun");
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let silent = sources().into_iter().filter(|source| !is_test_file(&source.path)).filter(|source| !source.text.starts_with("//!") || source.text.starts_with("//! To be"));
    let found: Vec<String> = silent.map(|source| format!("src/{}", source.path.display())).collect();
    assert_none(&found, "a file begins with //! and says what it decides or touches");
}

#[test]
fn names_say_something() {
    let vague = |source: &Source| {
        source.path.components().any(|part| VAGUE_NAMES.contains(&part.as_os_str().to_string_lossy().trim_end_matches(".rs")))
    };
    let found: Vec<String> = sources().iter().filter(|source| vague(source)).map(|source| format!("src/{}", source.path.display())).collect();
    assert_none(&found, "a module is a noun of the field");
}

#[test]
fn condition_words_are_written_once() {
    // "Ready" and "Succeeded" are also Kubernetes' own words for nodes and pods, so they cannot be searched for.
    let found: Vec<String> = sources()
        .iter()
        .filter(|source| !source.is_under("api/conditions.rs"))
        .filter(|source| ["\"Admitted\"", "\"Provisioned\""].iter().any(|word| source.code.contains(word)))
        .map(|source| format!("src/{}", source.path.display()))
        .collect();
    assert_none(&found, "use api::ConditionType");
}

#[test]
fn the_rules_see_what_they_look_for() {
    let source = |text: &str| Source { path: "units/x.rs".into(), text: text.to_owned(), code: code_of(text) };
    let uses = source("use crate::{api::labels, cost::{A, B}, units};\nfn f() { crate::twin::start() }\n// crate::http\n").uses();
    assert_eq!(uses.iter().map(String::as_str).collect::<Vec<_>>(), ["api", "cost", "twin", "units"]);
    assert!(!source("fn a() {}\n#[cfg(test)]\nmod tests { fn b() { x.unwrap() } }").code.contains("unwrap"));
}
