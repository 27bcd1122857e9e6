//! How commands reach the cluster: the kubeconfig, context and namespace asked for, or what kubectl would use; and how what
//! the API server refuses is told.

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::{CliError, Global};

impl Global {
    /// A client for the cluster that the options name.
    pub async fn client(&self) -> Result<Client, CliError> {
        let config = self.config().await?;
        Client::try_from(config).map_err(|error| match error {
            error @ (kube::Error::ProxyProtocolDisabled { .. } | kube::Error::ProxyProtocolUnsupported { .. }) => {
                CliError::failed("cannot speak to the cluster").because(error).hint("Purser speaks to the API server directly: unset HTTPS_PROXY, or name the server in NO_PROXY")
            }
            error => CliError::failed("cannot speak to the cluster").because(error),
        })
    }

    /// The namespace asked for, else the context's.
    pub async fn namespace(&self) -> Result<String, CliError> {
        match &self.namespace {
            Some(namespace) => Ok(namespace.clone()),
            None => Ok(self.config().await?.default_namespace),
        }
    }

    async fn config(&self) -> Result<Config, CliError> {
        let no_cluster = |error: Box<dyn std::error::Error + Send + Sync>| {
            CliError::failed("no cluster to speak to").because(error).hint("give --kubeconfig FILE, or start a local cluster: purser demo up")
        };
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        match &self.kubeconfig {
            Some(path) => {
                let kubeconfig = Kubeconfig::read_from(path).map_err(|error| no_cluster(error.into()))?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| no_cluster(error.into()))
            }
            None if self.context.is_some() => Config::from_kubeconfig(&options).await.map_err(|error| no_cluster(error.into())),
            None => Config::infer().await.map_err(|error| no_cluster(error.into())),
        }
    }
}

/// What the API server said, in its words, with the step that usually helps.
pub fn api_error(what: impl Into<String>, error: kube::Error) -> CliError {
    match error {
        kube::Error::Api(status) => {
            let hint = hint_for(status.code, &status.message);
            let error = CliError::failed(what).because(status.message.clone());
            hint.into_iter().fold(error, |error, hint| error.hint(hint))
        }
        error @ (kube::Error::HyperError(_) | kube::Error::Service(_)) => {
            CliError::failed(what).because(error).hint("is the cluster up, and does the kubeconfig point at it?")
        }
        error => CliError::failed(what).because(error),
    }
}

fn hint_for(code: u16, message: &str) -> Option<&'static str> {
    match code {
        404 if message.contains("could not find the requested resource") || message.contains("page not found") => {
            Some("Purser's kinds are not installed: purser install --apply")
        }
        404 => Some("list what is there: purser job list -A"),
        401 | 403 => Some("ask for the role purser-user in this namespace, or use another --context"),
        409 => Some("somebody else manages these fields; look with kubectl get -o yaml --show-managed-fields"),
        422 => Some("kubectl explain says what each field means, for example: kubectl explain trainingjob.spec"),
        _ => None,
    }
}
