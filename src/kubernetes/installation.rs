//! This installation's id: the tag `purser.dev/cluster` of every machine that it buys. Kept in a ConfigMap, so that a
//! restored cluster finds its machines again; made once, where there is none.
//!
//! In a cluster the namespace is there, because this process runs in it; a developer's operator makes it.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};

const CONFIG_MAP: &str = "purser-installation";
const KEY: &str = "clusterId";

#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    #[error("could not read or write the ConfigMap {CONFIG_MAP} in namespace {namespace}")]
    Kubernetes { namespace: String, #[source] source: Box<kube::Error> },
    #[error("could not make the namespace {namespace}; create it, or name another by --namespace")]
    Namespace { namespace: String, #[source] source: Box<kube::Error> },
    #[error("the ConfigMap {CONFIG_MAP} in namespace {namespace} has no {KEY}; give --cluster-id, or restore it from a backup")]
    Empty { namespace: String },
}

/// The id that was given, else the one that is kept, else a new one.
pub async fn cluster_id(client: &Client, namespace: &str, given: Option<&str>) -> Result<String, InstallationError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let failed = |source| InstallationError::Kubernetes { namespace: namespace.to_owned(), source: Box::new(source) };
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    // Two replicas may start at once; who comes second reads what the first made.
    let made = ConfigMap {
        metadata: ObjectMeta { name: Some(CONFIG_MAP.to_owned()), ..ObjectMeta::default() },
        data: Some([(KEY.to_owned(), uuid::Uuid::new_v4().to_string())].into()),
        ..ConfigMap::default()
    };
    let kept = match api.get_opt(CONFIG_MAP).await.map_err(failed)? {
        Some(kept) => kept,
        None => match api.create(&PostParams::default(), &made).await {
            Ok(made) => made,
            Err(kube::Error::Api(status)) if status.code == 409 => api.get(CONFIG_MAP).await.map_err(failed)?,
            Err(error) => return Err(failed(error)),
        },
    };
    let id = kept.data.and_then(|mut data| data.remove(KEY)).filter(|id| !id.is_empty());
    id.ok_or_else(|| InstallationError::Empty { namespace: namespace.to_owned() })
}

/// Makes the namespace where it is missing.
pub async fn ensure_namespace(client: &Client, namespace: &str) -> Result<(), InstallationError> {
    let made = Namespace { metadata: ObjectMeta { name: Some(namespace.to_owned()), ..ObjectMeta::default() }, ..Namespace::default() };
    match Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &made).await {
        Ok(_) => Ok(()),
        // One who may not make namespaces finds it there, or is told so by the next step.
        Err(kube::Error::Api(status)) if status.code == 409 || status.is_forbidden() => Ok(()),
        Err(source) => Err(InstallationError::Namespace { namespace: namespace.to_owned(), source: Box::new(source) }),
    }
}
