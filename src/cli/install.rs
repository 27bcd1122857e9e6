//! `purser install`: everything a cluster needs for Purser, printed or applied. The manifests are those of
//! `manifests/install`, embedded; image, replicas, namespace and ledger are filled in.

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt, discovery};
use serde_json::{Value, json};

use super::cluster_access::api_error;
use super::{CliError, Exit, Global, crds, output};

/// Without rbac.yaml an operator could do nothing, so the order is that of need.
const MANIFESTS: [(&str, &str); 7] = [
    ("namespace.yaml", include_str!("../../manifests/install/namespace.yaml")),
    ("rbac.yaml", include_str!("../../manifests/install/rbac.yaml")),
    ("service.yaml", include_str!("../../manifests/install/service.yaml")),
    ("deployment.yaml", include_str!("../../manifests/install/deployment.yaml")),
    ("poddisruptionbudget.yaml", include_str!("../../manifests/install/poddisruptionbudget.yaml")),
    ("networkpolicy.yaml", include_str!("../../manifests/install/networkpolicy.yaml")),
    ("webhook.yaml", include_str!("../../manifests/install/webhook.yaml")),
];

const NAMESPACE: &str = "purser-system";
const FIELD_MANAGER: &str = "purser-install";
/// Where a volume with the ledger is mounted.
const LEDGER_PATH: &str = "/var/lib/purser/ledger";

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  purser install --image registry.example.com/purser:0.1.0 --ledger s3://finance/purser > purser.yaml\n  purser install --image registry.example.com/purser:0.1.0 --ledger-claim purser-ledger --replicas 1 --apply\n\nThe namespace is purser-system unless --namespace says otherwise.")]
pub struct Args {
    /// The image of Purser, as the cluster's nodes can pull it (`make image` builds one).
    #[arg(long)]
    image: String,
    /// The ledger in an object store, s3://bucket/prefix.
    #[arg(long, value_name = "URL", conflicts_with = "ledger_claim", required_unless_present = "ledger_claim")]
    ledger: Option<String>,
    /// The ledger on a volume: a PersistentVolumeClaim of the namespace.
    #[arg(long, value_name = "NAME")]
    ledger_claim: Option<String>,
    /// The claim's volume can be written from several nodes (ReadWriteMany).
    #[arg(long, requires = "ledger_claim")]
    ledger_shared: bool,
    /// Replicas; one leads, the others wait and answer the webhook.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=5))]
    replicas: u32,
    /// This installation's id: the value of the tag purser.dev/cluster on its machines. Keep it over a restore
    /// [default: kept in the ConfigMap purser-installation].
    #[arg(long, value_name = "ID")]
    cluster_id: Option<String>,
    /// Apply it (server-side) instead of printing it.
    #[arg(long)]
    apply: bool,
}

pub async fn run(args: &Args, global: &Global) -> Result<Exit, CliError> {
    let namespace = global.namespace.clone().unwrap_or_else(|| NAMESPACE.to_owned());
    let objects = objects(args, &namespace)?;
    if !args.apply {
        output::print(&yaml_stream(&objects)?)?;
        return Ok(Exit::Done);
    }
    let client = global.client().await?;
    for object in &objects {
        output::print(&(apply(&client, object).await? + "\n"))?;
    }
    eprintln!("next: kubectl -n {namespace} rollout status deployment/purser, then apply a CapacityPool (manifests/samples/pools.yaml)");
    Ok(Exit::Done)
}

/// Every object of an installation, in the order in which they can be applied.
fn objects(args: &Args, namespace: &str) -> Result<Vec<Value>, CliError> {
    refuse_private_disk(args)?;
    let mut objects = kinds()?;
    for manifest in MANIFESTS {
        objects.extend(embedded(manifest)?);
    }
    for object in &mut objects {
        rename_namespace(object, namespace);
        if object["kind"] == "Deployment" {
            fill_in(object, args);
        }
    }
    Ok(objects)
}

fn embedded((name, text): (&str, &str)) -> Result<Vec<Value>, CliError> {
    serde_saphyr::from_multiple(text).map_err(|error| CliError::failed(format!("the embedded {name} is broken")).because(error.to_string()))
}

fn kinds() -> Result<Vec<Value>, CliError> {
    let to_value = |crd| serde_json::to_value(crd).map_err(|error| CliError::failed("could not write a CRD").because(error));
    crate::api::crds().iter().map(to_value).collect()
}

/// Two writers on two private disks would keep two ledgers, each with half of the truth.
fn refuse_private_disk(args: &Args) -> Result<(), CliError> {
    if let Some(ledger) = args.ledger.as_ref().filter(|ledger| !ledger.starts_with("s3://")) {
        return Err(CliError::usage(format!("{ledger:?} would be the pod's own disk, which is lost with the pod"))
            .hint("give --ledger s3://bucket/prefix, or --ledger-claim NAME for a volume"));
    }
    if args.ledger_claim.is_some() && !args.ledger_shared && args.replicas > 1 {
        return Err(CliError::usage(format!("{} replicas cannot share a ledger on a private disk", args.replicas))
            .hint("give --ledger s3://bucket/prefix, or --replicas 1, or --ledger-shared if the volume is ReadWriteMany"));
    }
    Ok(())
}

/// Everywhere where the manifests say `purser-system`.
fn rename_namespace(object: &mut Value, namespace: &str) {
    match object {
        Value::String(text) if text == NAMESPACE => namespace.clone_into(text),
        Value::Array(items) => items.iter_mut().for_each(|item| rename_namespace(item, namespace)),
        Value::Object(fields) => fields.values_mut().for_each(|field| rename_namespace(field, namespace)),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn fill_in(deployment: &mut Value, args: &Args) {
    deployment["spec"]["replicas"] = json!(args.replicas);
    let pod = &mut deployment["spec"]["template"]["spec"];
    let mut command = vec!["operator".to_owned(), "--ledger".to_owned(), args.ledger.clone().unwrap_or_else(|| LEDGER_PATH.to_owned())];
    if let Some(id) = &args.cluster_id {
        command.extend(["--cluster-id".to_owned(), id.clone()]);
    }
    let container = &mut pod["containers"][0];
    container["image"] = json!(args.image);
    container["args"] = json!(command);
    if let Some(claim) = &args.ledger_claim {
        push(&mut container["volumeMounts"], json!({"name": "ledger", "mountPath": LEDGER_PATH}));
        push(&mut pod["volumes"], json!({"name": "ledger", "persistentVolumeClaim": {"claimName": claim}}));
    }
}

fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        _ => *list = json!([item]),
    }
}

fn yaml_stream(objects: &[Value]) -> Result<String, CliError> {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(object).map_err(|error| CliError::failed("could not write YAML").because(error.to_string()))?);
    }
    Ok(text)
}

async fn apply(client: &Client, object: &Value) -> Result<String, CliError> {
    let broken = |error: serde_json::Error| CliError::failed("an embedded manifest is no Kubernetes object").because(error);
    let parsed: DynamicObject = serde_json::from_value(object.clone()).map_err(broken)?;
    let (kind, name) = (parsed.types.clone().unwrap_or_default(), parsed.name_any());
    let failed = |error| api_error(format!("could not apply {} {name}", kind.kind), error);
    let gvk = GroupVersionKind::try_from(&kind).map_err(|error| CliError::failed("an embedded manifest is no Kubernetes object").because(error))?;
    let (resource, _) = discovery::pinned_kind(client, &gvk).await.map_err(failed)?;
    let api: Api<DynamicObject> = match &parsed.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    api.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(object)).await.map_err(failed)?;
    Ok(format!("{} {name} applied", kind.kind.to_lowercase()))
}

/// Applies the kinds and the namespace alone, and waits until the API server serves them: for an operator outside the cluster.
pub async fn install_kinds(client: &Client) -> Result<(), CliError> {
    for object in kinds()?.into_iter().chain(embedded(MANIFESTS[0])?) {
        apply(client, &object).await?;
    }
    let api: Api<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> = Api::all(client.clone());
    for crd in crate::api::crds() {
        let established = kube::runtime::conditions::is_crd_established();
        let name = crd.name_any();
        let wait = kube::runtime::wait::await_condition(api.clone(), &name, established);
        let in_time = tokio::time::timeout(std::time::Duration::from_secs(30), wait).await;
        in_time
            .map_err(|_| CliError::failed(format!("{} was not served after 30 s", crds::file_name(&crd))))?
            .map_err(|error| CliError::failed("could not wait for the kinds").because(error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(more: &[&str]) -> Args {
        #[derive(clap::Parser)]
        struct Parsed {
            #[command(flatten)]
            args: Args,
        }
        let line = ["install", "--image", "purser:1"].into_iter().chain(more.iter().copied());
        <Parsed as clap::Parser>::parse_from(line).args
    }

    #[test]
    fn two_replicas_on_a_private_disk_are_refused() {
        let error = objects(&args(&["--ledger-claim", "ledger"]), NAMESPACE).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        assert!(error.to_string().contains("--replicas 1"), "{error}");
        assert!(objects(&args(&["--ledger", "/data"]), NAMESPACE).is_err());
        assert!(objects(&args(&["--ledger-claim", "ledger", "--replicas", "1"]), NAMESPACE).is_ok());
        assert!(objects(&args(&["--ledger-claim", "ledger", "--ledger-shared"]), NAMESPACE).is_ok());
    }

    #[test]
    fn image_ledger_and_namespace_reach_every_place() {
        let objects = objects(&args(&["--ledger", "s3://finance/purser", "--cluster-id", "prod-1"]), "money").unwrap();
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], "purser:1");
        assert_eq!(container["args"], json!(["operator", "--ledger", "s3://finance/purser", "--cluster-id", "prod-1"]));
        assert!(!yaml_stream(&objects).unwrap().contains(NAMESPACE));
    }
}
