//! Child processes that leave nothing behind: each has a log file, a process group of its own and a record on disk.
//!
//! ```text
//! DIR/logs/etcd.log       what it printed
//! DIR/processes/etcd      pid, start time, boot: enough for another process to end it, and never anything else
//! ```
//! A process id alone is not an identity, since the kernel reuses it. The record therefore also holds when the process
//! started, in ticks since the boot, and which boot that was; only a process that matches all three is ever signalled.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::TestbedError;

/// How long killed processes may take to be gone.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a state that cannot be waited for is looked at.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Where the processes of one cluster keep their logs and records, and what they may see.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    pub dir: PathBuf,
}

/// A running child; dropping it ends it and everything in its process group.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Option<Child>,
    identity: Identity,
    record: PathBuf,
    log: PathBuf,
}

/// What makes a process this very process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub pid: u32,
    started_ticks: u64,
    boot: String,
}

impl Surroundings {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    fn records(&self) -> PathBuf {
        self.dir.join("processes")
    }

    /// A command that sees nothing of the caller's environment: no kubeconfig, no proxy, no credentials.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()))
            .env("HOME", &self.dir)
            .env("TMPDIR", std::env::temp_dir())
            .env("AWS_ACCESS_KEY_ID", "purser-testbed")
            .env("AWS_SECRET_ACCESS_KEY", "purser-testbed")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .current_dir(&self.dir)
            .stdin(Stdio::null());
        command
    }

    /// Starts `command` under `name`; its output goes to the log of that name.
    pub fn spawn(&self, name: &str, mut command: Command) -> Result<Process, TestbedError> {
        let log = self.log(name);
        let record = self.records().join(name);
        let failed = |source| TestbedError::Spawn { name: name.to_owned(), source };
        for folder in [&log, &record] {
            fs::create_dir_all(folder.parent().unwrap_or(&self.dir)).map_err(failed)?;
        }
        let output = File::create(&log).map_err(failed)?;
        command.stdout(output.try_clone().map_err(failed)?).stderr(output).process_group(0);
        let child = command.spawn().map_err(failed)?;
        let identity = Identity::of(child.id()).unwrap_or(Identity { pid: child.id(), started_ticks: 0, boot: boot_id() });
        let process = Process { name: name.to_owned(), child: Some(child), identity, record, log };
        fs::write(&process.record, process.identity.to_string()).map_err(failed)?;
        Ok(process)
    }

    /// The processes recorded here that still run, by name.
    pub fn running(&self) -> Vec<(String, Identity)> {
        let Ok(entries) = fs::read_dir(self.records()) else { return Vec::new() };
        let mut running: Vec<_> = entries
            .flatten()
            .filter_map(|entry| {
                let identity = Identity::parse(&fs::read_to_string(entry.path()).ok()?)?;
                identity.is_running().then(|| (entry.file_name().to_string_lossy().into_owned(), identity))
            })
            .collect();
        running.sort_by(|left, right| left.0.cmp(&right.0));
        running
    }

    /// Ends every recorded process, from whichever process this is called.
    pub fn end_recorded(&self) {
        let running: Vec<Identity> = self.running().into_iter().map(|(_, identity)| identity).collect();
        // Nothing here is worth a goodbye: the data is thrown away, and a component that finds its peers gone waits for them.
        running.iter().for_each(|identity| identity.signal(libc::SIGKILL));
        let deadline = Instant::now() + END_TIMEOUT;
        while running.iter().any(Identity::is_running) && Instant::now() < deadline {
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.identity.pid
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Fails when the process has ended, with the last lines that it printed.
    pub fn check(&mut self) -> Result<(), TestbedError> {
        let ended = match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(status)) => status.map(|status| status.to_string()),
            Some(Err(error)) => Some(error.to_string()),
            None => Some("stopped".to_owned()),
        };
        match ended {
            None => Ok(()),
            Some(status) => Err(TestbedError::Ended { name: self.name.clone(), status, log: last_lines(&self.log) }),
        }
    }

    /// Lets the process outlive this one; its record stays.
    pub fn detach(&mut self) {
        self.child = None;
    }

    /// Ends the process and its group at once.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        signal_group(self.identity.pid, libc::SIGKILL);
        // Reaps it. A child that ended before is still known to `Child`, so this cannot wait for a stranger.
        let _ = child.wait();
        let _ = fs::remove_file(&self.record);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Identity {
    /// Reads who `pid` is now; nothing when there is no such process or it only waits to be reaped.
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses and may itself hold spaces and parentheses.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let (state, started) = (fields.first()?, fields.get(19)?);
        (*state != "Z").then_some(())?;
        Some(Self { pid, started_ticks: started.parse().ok()?, boot: boot_id() })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let (pid, started_ticks) = (lines.next()?.parse().ok()?, lines.next()?.parse().ok()?);
        Some(Self { pid, started_ticks, boot: lines.next()?.to_owned() })
    }

    pub fn is_running(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Signals the group of this process, if it is still this process.
    fn signal(&self, signal: i32) {
        if self.is_running() {
            signal_group(self.pid, signal);
        }
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(formatter, "{}\n{}\n{}", self.pid, self.started_ticks, self.boot)
    }
}

/// The last lines of a log, indented, for an error message.
pub(super) fn last_lines(log: &Path) -> String {
    const BYTES_MAX: u64 = 16 * 1024;
    const LINES_MAX: usize = 12;
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(log) {
        let length = file.metadata().map(|metadata| metadata.len()).unwrap_or(0);
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(BYTES_MAX)));
        let _ = file.read_to_end(&mut text);
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines[lines.len().saturating_sub(LINES_MAX)..].iter();
    let indented: String = shown.map(|line| format!("\n    {line}")).collect();
    format!("{indented}\n  the whole log: {}", log.display())
}

/// Runs a short command to its end and returns what it printed.
pub(super) fn run(mut command: Command) -> Result<String, TestbedError> {
    let shown = format!("{command:?}").replace('"', "");
    // The environment that Debug prints before the program says nothing to the reader.
    let shown = shown.rsplit_once("= ").map_or(shown.as_str(), |(_, rest)| rest).to_owned();
    let output = command.output().map_err(|source| TestbedError::Spawn { name: shown.clone(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(TestbedError::Command { command: shown, status: output.status.to_string(), said })
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn signal_group(pid: u32, signal: i32) {
    if let Ok(pid) = i32::try_from(pid) {
        send(-pid, signal);
    }
}

/// Signals one process, or a group when the number is negative.
#[allow(unsafe_code)]
pub(super) fn send(pid: i32, signal: i32) {
    // 0, 1 and -1 would mean our own group, init and everybody.
    if pid.unsigned_abs() > 1 {
        // SAFETY: kill(2) takes two integers and touches no memory of ours.
        unsafe {
            libc::kill(pid, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(dir: &Path) -> Process {
        let surroundings = Surroundings::new(dir);
        let mut command = surroundings.command("sleep");
        command.arg("1000");
        surroundings.spawn("sleeper", command).unwrap()
    }

    #[test]
    fn a_recorded_process_is_ended_by_another_that_only_knows_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let process = sleeper(dir.path());
        let surroundings = Surroundings::new(dir.path());
        assert_eq!(surroundings.running().len(), 1);
        surroundings.end_recorded();
        assert!(surroundings.running().is_empty());
        drop(process);
    }

    #[test]
    fn a_reused_process_id_is_not_mistaken_for_ours() {
        let dir = tempfile::tempdir().unwrap();
        let process = sleeper(dir.path());
        let stranger = Identity { started_ticks: process.identity.started_ticks + 1, ..process.identity.clone() };
        assert!(process.identity.is_running());
        assert!(!stranger.is_running());
        stranger.signal(libc::SIGKILL);
        assert!(process.identity.is_running());
    }

    #[test]
    fn dropping_a_process_ends_it_and_forgets_it() {
        let dir = tempfile::tempdir().unwrap();
        let process = sleeper(dir.path());
        let identity = process.identity.clone();
        drop(process);
        assert!(!identity.is_running());
        assert!(Surroundings::new(dir.path()).running().is_empty());
    }

    #[test]
    fn a_child_sees_none_of_our_credentials() {
        let dir = tempfile::tempdir().unwrap();
        let seen = run(Surroundings::new(dir.path()).command("env")).unwrap();
        assert!(seen.contains("AWS_CONFIG_FILE=/dev/null") && !seen.contains("KUBECONFIG"), "{seen}");
        assert!(!seen.contains("CARGO"), "{seen}");
    }
}
