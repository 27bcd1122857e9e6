//! Generated files are what the code would write now.

use std::path::Path;

#[test]
fn generated_files_are_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let stale: Vec<String> = purser::cli::generate::files()
        .expect("the code describes itself")
        .into_iter()
        .filter(|file| std::fs::read_to_string(root.join(&file.path)).ok().as_deref() != Some(file.text.as_str()))
        .map(|file| file.path.display().to_string())
        .collect();
    assert!(stale.is_empty(), "stale: {}; run `make generate` and commit what it writes", stale.join(", "));
}
