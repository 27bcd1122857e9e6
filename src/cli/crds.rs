//! `purser crds`: the kinds as CustomResourceDefinitions, from the same code that reads the objects.

use std::path::PathBuf;

use clap::ValueEnum;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::{CliError, Exit, generate, output};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  purser crds | kubectl apply --server-side -f -\n  purser crds --dir manifests/crds   # one file a kind")]
pub struct Args {
    /// The form.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
    /// Write one YAML file a kind into this folder instead of printing.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    #[default]
    Yaml,
    Json,
}

pub fn run(args: &Args) -> Result<Exit, CliError> {
    let crds = crate::api::crds();
    match (&args.dir, args.output) {
        (Some(dir), _) => crds.iter().try_for_each(|crd| generate::write(&dir.join(file_name(crd)), &yaml(crd)?))?,
        (None, Form::Json) => output::print_json(&serde_json::json!({"apiVersion": "v1", "kind": "List", "items": crds}))?,
        (None, Form::Yaml) => output::print(&yaml_documents(&crds)?)?,
    }
    Ok(Exit::Done)
}

/// The kinds as one YAML stream.
pub fn yaml_documents(crds: &[CustomResourceDefinition]) -> Result<String, CliError> {
    let documents = crds.iter().map(yaml).collect::<Result<Vec<_>, _>>()?;
    Ok(documents.iter().map(|document| format!("---\n{document}")).collect())
}

pub fn yaml(crd: &CustomResourceDefinition) -> Result<String, CliError> {
    serde_saphyr::to_string(crd).map_err(|error| CliError::failed("could not write YAML").because(error.to_string()))
}

pub fn file_name(crd: &CustomResourceDefinition) -> String {
    format!("{}.yaml", crd.spec.names.plural)
}
