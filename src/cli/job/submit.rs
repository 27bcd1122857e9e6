//! `purser job submit`: checks every object of a file before the first one is applied.

use std::path::PathBuf;

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use kube::{Client, Resource};

use crate::api::{CapacityPool, Experiment, Team, TrainingJob};
use crate::cli::cluster_access::api_error;
use crate::cli::documents::{self, Document, Object};
use crate::cli::{CliError, Exit, Global, output};

/// People's own field manager: Purser's operator never owns what they wrote.
const FIELD_MANAGER: &str = "purser-cli";

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  purser job submit -f job.yaml\n  purser job submit -f job.yaml -n vision\n  generate-jobs | purser job submit -f -\n\nSee what would be bought first: purser plan -f job.yaml")]
pub struct Args {
    /// YAML or JSON, one or many objects; - reads standard input.
    #[arg(short, long, required = true, value_name = "FILE")]
    file: Vec<PathBuf>,
}

pub async fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let documents = read_all(&args.file)?;
    let client = global.client().await?;
    let namespace = global.namespace().await?;
    if let Some(asked) = &global.namespace {
        refuse_other_namespaces(&documents, asked)?;
    }
    for line in apply_documents(&client, &namespace, &documents).await? {
        output::print(&(line + "\n"))?;
    }
    say_what_is_next(&documents, &namespace);
    Ok(Exit::Done)
}

/// The objects of all files, each checked by itself.
pub fn read_all(files: &[PathBuf]) -> Result<Vec<Document>, CliError> {
    let mut all = Vec::new();
    for file in files {
        let usage = |error| CliError::usage("cannot use this file").because(error).hint("docs/reference/kinds.md lists every field; manifests/samples has examples");
        all.extend(documents::read(file).map_err(usage)?);
    }
    all.sort_by_key(|document| document.object.rank());
    Ok(all)
}

fn refuse_other_namespaces(documents: &[Document], asked: &str) -> Result<(), CliError> {
    let other = documents.iter().find(|document| document.object.namespace().is_some_and(|namespace| namespace != asked));
    match other {
        Some(document) => Err(CliError::usage(format!(
            "{}: {} {} is of namespace {}, but --namespace says {asked}",
            document.place,
            document.object.kind(),
            document.object.name(),
            document.object.namespace().unwrap_or_default(),
        ))),
        None => Ok(()),
    }
}

/// Applies the objects in their order; one line an object.
pub async fn apply_documents(client: &Client, namespace: &str, documents: &[Document]) -> Result<Vec<String>, CliError> {
    let mut lines = Vec::new();
    for document in documents {
        lines.push(apply(client, namespace, document).await?);
    }
    Ok(lines)
}

async fn apply(client: &Client, namespace: &str, document: &Document) -> Result<String, CliError> {
    let object = &document.object;
    let own_namespace = object.namespace();
    let namespace = own_namespace.as_deref().unwrap_or(namespace);
    let api = match object {
        Object::Namespace(_) => cluster_api::<k8s_openapi::api::core::v1::Namespace>(client),
        Object::Pool(_) => cluster_api::<CapacityPool>(client),
        Object::Team(_) => cluster_api::<Team>(client),
        Object::Experiment(_) => namespaced_api::<Experiment>(client, namespace),
        Object::Job(_) => namespaced_api::<TrainingJob>(client, namespace),
    };
    let path = match object {
        Object::Namespace(_) | Object::Pool(_) | Object::Team(_) => object.name(),
        Object::Experiment(_) | Object::Job(_) => format!("{namespace}/{}", object.name()),
    };
    let failed = |error| api_error(format!("{}: {} {path} was refused", document.place, object.kind()), error);
    api.patch(&object.name(), &PatchParams::apply(FIELD_MANAGER), &Patch::Apply(&document.value)).await.map_err(failed)?;
    Ok(format!("{} {path} applied", object.kind()))
}

fn cluster_api<K: Resource<DynamicType = ()>>(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &ApiResource::erase::<K>(&()))
}

fn namespaced_api<K: Resource<DynamicType = ()>>(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<K>(&()))
}

fn say_what_is_next(documents: &[Document], namespace: &str) {
    let jobs: Vec<(String, String)> = documents
        .iter()
        .filter(|document| matches!(document.object, Object::Job(_)))
        .map(|document| (document.object.namespace().unwrap_or_else(|| namespace.to_owned()), document.object.name()))
        .collect();
    match jobs.as_slice() {
        [] => {}
        [(namespace, name)] => {
            eprintln!("Purser looks at it within seconds. How far it is: purser job list -n {namespace}; why: purser explain job/{name} -n {namespace}");
        }
        [..] => eprintln!("Purser looks at them within seconds. How far they are: purser job list -A"),
    }
}
