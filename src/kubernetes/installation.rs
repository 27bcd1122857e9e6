//! This installation's id: the tag `purser.dev/cluster` of every machine that it buys. Kept in a ConfigMap, so that a
//! restored cluster finds its machines again; made once, where there is none.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};

const CONFIG_MAP: &str = "purser-installation";
const KEY: &str = "clusterId";

#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    #[error("could not read or write the ConfigMap {CONFIG_MAP} in namespace {namespace}; does the namespace exist?")]
    Kubernetes { namespace: String, #[source] source: Box<kube::Error> },
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
