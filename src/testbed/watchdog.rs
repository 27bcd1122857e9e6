//! Ends a cluster whose owner died without doing so itself: a killed test, Ctrl-C, a panic that aborts.
//!
//! A small shell waits at the end of a pipe that only this process holds open. When the pipe closes, the owner is gone, and
//! the shell ends every recorded process that still works in the cluster's folder.

use std::process::{Child, Stdio};

use super::TestbedError;
use super::process::Surroundings;

/// `$1` is the cluster's folder. A process is ours if it is recorded and its working directory is that folder;
/// what runs in a real node is known by the mark on the node's mounts and control groups.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
cat >/dev/null
for record in "$1"/processes/*; do
    read -r pid <"$record" && [ "$(readlink "/proc/$pid/cwd")" = "$1" ] && kill -s KILL -- "-$pid"
done
for node in "$1"/nodes/*; do
    mark=purser-node-$(cat "$node/identity") && [ "${#mark}" = 44 ] || continue
    grep -l " $mark " /proc/[0-9]*/mountinfo | while IFS=/ read -r _ _ pid _; do kill -s KILL "$pid"; done
    find /sys/fs/cgroup -path "*/$mark*" -name cgroup.procs -exec cat {} + | while read -r pid; do kill -s KILL "$pid"; done
    sleep 1
    find /sys/fs/cgroup -depth -path "*/$mark*" -type d -exec rmdir {} +
done
"#;

/// The waiting shell.
#[derive(Debug)]
pub(super) struct Watchdog {
    shell: Child,
}

impl Watchdog {
    pub fn start(surroundings: &Surroundings) -> Result<Self, TestbedError> {
        use std::os::unix::process::CommandExt;
        let mut command = surroundings.command("sh");
        command.args(["-c", SCRIPT, "watchdog"]).arg(&surroundings.dir);
        // A group of its own, or Ctrl-C would end it before it can do its work; and not in the folder that it may outlive.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).current_dir("/");
        let shell = command.spawn().map_err(|source| TestbedError::Spawn { name: "the watchdog".into(), source })?;
        Ok(Self { shell })
    }

    /// The cluster has ended in good order.
    pub fn dismiss(mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_cluster_ends_when_its_owner_dies() {
        let dir = tempfile::tempdir().unwrap();
        let surroundings = Surroundings::new(&dir.path().canonicalize().unwrap());
        let mut command = surroundings.command("sleep");
        command.arg("1000");
        let mut orphan = surroundings.spawn("orphan", command).unwrap();
        let mut watchdog = Watchdog::start(&surroundings).unwrap();
        assert_eq!(surroundings.running().len(), 1);
        // What the kernel does to our end of the pipe when we die.
        drop(watchdog.shell.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(20);
        while orphan.check().is_ok() {
            assert!(Instant::now() < deadline, "the orphan still runs");
            std::thread::sleep(Duration::from_millis(20));
        }
        watchdog.dismiss();
    }
}
