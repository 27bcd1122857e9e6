//! Container images without a registry: a folder becomes an archive that containerd imports.
//!
//! The archive is what `docker save` writes: a configuration, one layer and a manifest in a tar file. A program that is
//! linked statically needs nothing else in its image; [`busybox`] is such an image, and also serves as the pods' sandbox.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};

use super::TestbedError;
use super::process::{Surroundings, run};

/// The name of the image made by [`busybox`]; it has a shell and the usual tools. Use `imagePullPolicy: Never`.
pub const BUSYBOX_IMAGE: &str = "purser.dev/testbed/busybox:local";
/// The image that holds a pod's namespaces; the same files under another name.
pub(super) const SANDBOX_IMAGE: &str = "purser.dev/testbed/sandbox:local";
/// Where Debian's busybox-static and its peers put the program.
const BUSYBOX_PATHS: [&str; 3] = ["/bin/busybox", "/usr/bin/busybox", "/sbin/busybox"];

/// Packs the folder `root` as an image with these names into the archive `target`.
pub fn pack(root: &Path, names: &[&str], command: &[&str], target: &Path) -> Result<(), TestbedError> {
    let work = target.with_extension("parts");
    let failed = |source| TestbedError::File { path: work.clone(), source };
    fs::create_dir_all(&work).map_err(failed)?;
    let layer = work.join("layer.tar");
    tar(root, &layer, ".")?;
    let digest = Sha256::digest(fs::read(&layer).map_err(failed)?);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let configuration = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": { "Cmd": command, "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
        "history": [{ "created_by": "purser" }],
    });
    let manifest = json!([{ "Config": "config.json", "RepoTags": names, "Layers": ["layer.tar"] }]);
    fs::write(work.join("config.json"), configuration.to_string()).map_err(failed)?;
    fs::write(work.join("manifest.json"), manifest.to_string()).map_err(failed)?;
    tar(&work, target, "manifest.json config.json layer.tar")?;
    fs::remove_dir_all(&work).map_err(failed)
}

/// Packs this machine's static busybox, with a link for each of its tools.
pub fn busybox(target: &Path) -> Result<(), TestbedError> {
    let program = busybox_path().map_err(|why| TestbedError::RealNodesImpossible { why })?;
    let root = target.with_extension("root");
    let failed = |source| TestbedError::File { path: root.clone(), source };
    for folder in ["bin", "tmp", "etc", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(folder)).map_err(failed)?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).map_err(failed)?;
    fs::copy(&program, root.join("bin/busybox")).map_err(failed)?;
    let mut list = Surroundings::new(Path::new("/")).command(&program);
    list.arg("--list");
    for tool in run(list)?.lines().filter(|tool| *tool != "busybox") {
        symlink("busybox", root.join("bin").join(tool)).map_err(failed)?;
    }
    pack(&root, &[BUSYBOX_IMAGE, SANDBOX_IMAGE], &["sleep", "2147483647"], target)?;
    fs::remove_dir_all(&root).map_err(failed)
}

/// Where a cluster with real nodes keeps [`busybox`]'s archive.
pub(super) fn busybox_archive(dir: &Path) -> PathBuf {
    dir.join("busybox.tar")
}

/// Where busybox is, or why it cannot be used.
pub(super) fn busybox_path() -> Result<PathBuf, String> {
    let found = BUSYBOX_PATHS.iter().map(PathBuf::from).find(|path| path.is_file());
    found.ok_or_else(|| "there is no busybox; install the package busybox-static".to_owned())
}

fn tar(folder: &Path, target: &Path, members: &str) -> Result<(), TestbedError> {
    let mut command = Surroundings::new(Path::new("/")).command("tar");
    command.args(["--numeric-owner", "--owner=0", "--group=0", "-C"]).arg(folder).arg("-cf").arg(target);
    command.args(members.split(' '));
    run(command).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_holds_configuration_layer_and_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::write(root.join("bin/hello"), "#!/bin/sh\n").unwrap();
        let archive = dir.path().join("hello.tar");
        pack(&root, &["example.org/hello:1"], &["/bin/hello"], &archive).unwrap();
        let mut list = Surroundings::new(Path::new("/")).command("tar");
        list.arg("-tf").arg(&archive);
        assert_eq!(run(list).unwrap(), "manifest.json\nconfig.json\nlayer.tar\n");
    }
}
