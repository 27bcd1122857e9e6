//! How commands reach the cluster: the kubeconfig, context and namespace asked for, or what kubectl would use.

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::{CliError, Global};

impl Global {
    /// A client for the cluster that the options name.
    pub async fn client(&self) -> Result<Client, CliError> {
        let config = self.config().await?;
        Client::try_from(config).map_err(|error| CliError::failed("cannot speak to the cluster").because(error))
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
