//! Starting moto and the twin, and what the child process is given.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Before each line that the child reports with.
pub const MARK: &str = "purser-wire:";
/// moto imports for several seconds on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(90);

pub enum Started {
    Running(Endpoint),
    /// Cannot run here, and why.
    Missing(String),
}

/// A server that ends with the test.
pub struct Endpoint {
    pub name: &'static str,
    port: u16,
    process: Child,
    folder: tempfile::TempDir,
}

impl Endpoint {
    fn start(name: &'static str, command: impl FnOnce(u16) -> Command) -> Endpoint {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = command(port);
        command.env("AWS_ACCESS_KEY_ID", "dummy").env("AWS_SECRET_ACCESS_KEY", "dummy").env_remove("KUBECONFIG").current_dir(folder.path());
        let process = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut endpoint = Endpoint { name, port, process, folder };
        endpoint.wait();
        endpoint
    }

    fn wait(&mut self) {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(self.process.try_wait().unwrap().is_none(), "{} has ended:\n{}", self.name, self.log());
            assert!(begun.elapsed() < READY_WITHIN, "{} does not listen:\n{}", self.name, self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn environment(&self) -> Vec<(&'static str, String)> {
        harmless(self.port, self.folder.path())
    }

    /// The end of what the server wrote.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("— the last lines of {} —\n{}", self.name, lines[lines.len().saturating_sub(30)..].join("\n"))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn moto() -> Started {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/wire/moto.sh");
    let installed = Command::new("sh").arg(script).output().unwrap();
    let server = String::from_utf8_lossy(&installed.stdout).trim().to_owned();
    if installed.status.code() == Some(3) {
        return Started::Missing(format!("moto: {}", String::from_utf8_lossy(&installed.stderr).trim()));
    }
    assert!(installed.status.success(), "moto could not be installed:\n{}", String::from_utf8_lossy(&installed.stderr));
    Started::Running(Endpoint::start("moto", |port| {
        let mut command = Command::new(server);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        command
    }))
}

pub fn twin() -> Started {
    Started::Running(Endpoint::start("twin", |port| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_purser"));
        command.args(["twin", "--listen", &format!("127.0.0.1:{port}"), "--market", "demo"]);
        command
    }))
}

/// Everything that a child's environment holds: no credentials, no configuration, and an endpoint on the loopback interface.
pub fn harmless(port: u16, home: &Path) -> Vec<(&'static str, String)> {
    let (home, url) = (home.display().to_string(), format!("http://127.0.0.1:{port}"));
    [
        ("AWS_ENDPOINT_URL", url.as_str()),
        ("AWS_ACCESS_KEY_ID", "dummy"),
        ("AWS_SECRET_ACCESS_KEY", "dummy"),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("HOME", home.as_str()),
        ("RUST_BACKTRACE", "1"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}

pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
