//! Logs on stderr: quiet for commands that end, one line an event for servers. `PURSER_LOG` sets what is logged
//! (`purser=debug,kube=warn`), `PURSER_LOG_FORMAT=json` makes it structured.

use tracing_subscriber::EnvFilter;

use super::Command;

pub fn start(command: &Command) {
    let default = if is_server(command) { "info,kube_runtime=warn,deltalake_core=warn,buoyant_kernel=warn,datafusion=warn" } else { "warn,kube_client=off" };
    // What kube_client logs, a command says as its error.
    let filter = EnvFilter::try_from_env("PURSER_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let json = std::env::var("PURSER_LOG_FORMAT").is_ok_and(|format| format == "json");
    // Only a test harness can have set a subscriber before; then its own stays.
    let _ = if json { builder.json().try_init() } else { builder.with_ansi(false).try_init() };
}

/// Servers say what they do; the others only what goes wrong. A server gets an arm of its own here.
const fn is_server(command: &Command) -> bool {
    matches!(command, Command::Operator(_) | Command::Twin(_))
}
