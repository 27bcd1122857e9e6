//! Runs the binary the way a shell does, with nothing of this process's environment.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

pub fn purser(args: &[&str]) -> Ran {
    purser_with(args, "")
}

pub fn purser_with(args: &[&str], stdin: &str) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_purser"))
        .args(args)
        .env_clear()
        .env("HOME", "/nonexistent")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    // A command that does not read its input closes it, which is no matter here.
    let _ = child.stdin.take().expect("a pipe was asked for").write_all(stdin.as_bytes());
    let output = child.wait_with_output().expect("the binary ends");
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Compares with the committed copy; `PURSER_UPDATE_SNAPSHOTS=1` writes it instead.
pub fn assert_snapshot(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/snapshots").join(name);
    if std::env::var_os("PURSER_UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, text).expect("snapshots can be written");
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "tests/it/snapshots/{name} differs; if the change is meant: PURSER_UPDATE_SNAPSHOTS=1 cargo test --release --test it\n--- committed\n{committed}\n--- now\n{text}"
    );
}
