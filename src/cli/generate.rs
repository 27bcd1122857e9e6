//! What is written from code: `manifests/crds` and `docs/reference`. `make generate` writes it, a test fails when it is stale.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSONSchemaProps};

use super::{Cli, CliError, Exit, crds};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The checkout.
    #[arg(long, default_value = ".", value_name = "DIR")]
    root: PathBuf,
}

/// One generated file, relative to the checkout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedFile {
    pub path: PathBuf,
    pub text: String,
}

pub fn run(args: &Args) -> Result<Exit, CliError> {
    for file in files()? {
        write(&args.root.join(&file.path), &file.text)?;
    }
    Ok(Exit::Done)
}

/// Everything that code says about itself.
pub fn files() -> Result<Vec<GeneratedFile>, CliError> {
    let crds = crate::api::crds();
    let mut files = Vec::new();
    for crd in &crds {
        let path = Path::new("manifests/crds").join(crds::file_name(crd));
        files.push(GeneratedFile { path, text: crds::yaml(crd)? });
    }
    files.push(GeneratedFile { path: "docs/reference/kinds.md".into(), text: kinds(&crds) });
    files.push(GeneratedFile { path: "docs/reference/cli.md".into(), text: commands() });
    Ok(files)
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let failed = |error| CliError::failed(format!("could not write {}", path.display())).because(error);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}

/// The help of every command, in the order of the command line.
fn commands() -> String {
    let mut text = "# Command line\n\nWritten by `make generate` from the code; do not edit.\n".to_owned();
    let mut root = Cli::command().term_width(100);
    root.build();
    describe(&mut root, "purser", &mut text);
    text
}

fn describe(command: &mut clap::Command, name: &str, text: &mut String) {
    let help = command.clone().bin_name(name).term_width(100).render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    // Writing to a String cannot fail.
    let _ = write!(text, "\n## `{name}`\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    let visible = |command: &&mut clap::Command| !command.is_hide_set() && command.get_name() != "help";
    for child in command.get_subcommands_mut().filter(visible) {
        let path = format!("{name} {}", child.get_name());
        describe(child, &path, text);
    }
}

/// The fields of every kind, as `kubectl explain` tells them.
fn kinds(crds: &[CustomResourceDefinition]) -> String {
    let mut text = "# Kinds of `purser.dev/v1alpha1`\n\nWritten by `make generate` from the code; do not edit.\n".to_owned();
    for crd in crds {
        let names = &crd.spec.names;
        let short = names.short_names.as_deref().unwrap_or_default().join(", ");
        let short = if short.is_empty() { String::new() } else { format!(", short name `{short}`") };
        let _ = write!(text, "\n## {}\n\n{} scope{short}.\n", names.kind, crd.spec.scope);
        let schema = crd.spec.versions.first().and_then(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref());
        let Some(schema) = schema else { continue };
        let _ = writeln!(text, "{}\n", one_line(schema.description.as_deref()));
        for section in ["spec", "status"] {
            let Some(part) = schema.properties.as_ref().and_then(|all| all.get(section)) else { continue };
            let _ = writeln!(text, "### {}.{section}\n\n| field | type | what it says |\n| --- | --- | --- |", names.kind);
            fields(part, section, &mut text);
            text.push('\n');
        }
    }
    text
}

fn fields(schema: &JSONSchemaProps, path: &str, text: &mut String) {
    let required = schema.required.as_deref().unwrap_or_default();
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        let needed = if required.contains(name) { ", required" } else { "" };
        let _ = writeln!(text, "| `{path}` | {}{needed} | {} |", type_of(field), one_line(field.description.as_deref()));
        // A condition is Kubernetes' own and described there.
        if name != "conditions" {
            fields(element(field), &path, text);
        }
    }
}

/// The schema of what a list holds, or the schema itself.
fn element(schema: &JSONSchemaProps) -> &JSONSchemaProps {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaPropsOrArray;
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => items,
        Some(JSONSchemaPropsOrArray::Schemas(_)) | None => schema,
    }
}

fn type_of(schema: &JSONSchemaProps) -> String {
    let name = |schema: &JSONSchemaProps| match &schema.enum_ {
        Some(values) => values.iter().map(|value| format!("`{}`", value.0.as_str().unwrap_or("null"))).collect::<Vec<_>>().join(" "),
        None => schema.type_.clone().unwrap_or_else(|| "any".to_owned()),
    };
    match schema.type_.as_deref() {
        Some("array") => format!("list of {}", name(element(schema))),
        _ => name(schema),
    }
}

fn one_line(text: Option<&str>) -> String {
    text.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
