//! Where the cluster's binaries come from: `KUBEBUILDER_ASSETS`, the cache that `tests/cluster/build.sh` fills, or that
//! script itself when this source tree is at hand.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::TestbedError;

/// The Kubernetes that `tests/cluster/go/kubernetes/go.mod` pins; the cache is kept by this version.
const KUBERNETES_VERSION: &str = "v1.36.3";
/// Binaries that the kubebuilder tools ship too.
const KUBEBUILDER: [&str; 2] = ["etcd", "kube-apiserver"];

/// The folders in which binaries are looked for.
#[derive(Debug, Clone)]
pub(super) struct Binaries {
    cache: PathBuf,
    kubebuilder: Option<PathBuf>,
}

impl Binaries {
    /// Reads the caller's environment; done once, at the edge.
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = variable("PURSER_CACHE_DIR")
            .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("purser")))
            .or_else(|| Some(variable("HOME")?.join(".cache/purser")))
            .unwrap_or_else(|| std::env::temp_dir().join("purser"));
        Self { cache: cache.join("testbed").join(KUBERNETES_VERSION).join("bin"), kubebuilder: variable("KUBEBUILDER_ASSETS") }
    }

    /// The path of a binary, whether or not it is there yet.
    pub fn path(&self, name: &str) -> PathBuf {
        let provided = self.kubebuilder.as_ref().filter(|_| KUBEBUILDER.contains(&name)).map(|folder| folder.join(name));
        provided.filter(|path| path.is_file()).unwrap_or_else(|| self.cache.join(name))
    }

    /// Makes sure that `names` are there, by building what is missing.
    pub fn require(&self, names: &[&str]) -> Result<(), TestbedError> {
        if self.missing(names).is_empty() {
            return Ok(());
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/build.sh");
        if script.is_file() {
            let status = Command::new("bash").arg(&script).args(names).stdin(Stdio::null()).stdout(Stdio::null()).status();
            tracing::debug!(?status, "built the cluster's binaries");
        }
        match self.missing(names) {
            missing if missing.is_empty() => Ok(()),
            missing => Err(TestbedError::MissingBinaries { names: missing, folder: self.cache.clone() }),
        }
    }

    fn missing(&self, names: &[&str]) -> Vec<String> {
        names.iter().filter(|name| !self.path(name).is_file()).map(ToString::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubebuilder_assets_serve_only_what_they_hold() {
        let assets = tempfile::tempdir().unwrap();
        std::fs::write(assets.path().join("etcd"), "").unwrap();
        let binaries = Binaries { cache: "/cache".into(), kubebuilder: Some(assets.path().to_owned()) };
        assert_eq!(binaries.path("etcd"), assets.path().join("etcd"));
        assert_eq!(binaries.path("kube-apiserver"), Path::new("/cache/kube-apiserver"));
        assert_eq!(binaries.path("kwok"), Path::new("/cache/kwok"));
    }
}
