//! `innkeeper plugin inspect`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use crate::cli::{CliError, Global, Report};
use crate::component::{ComponentRef, OciRef, RegistryAccess};
use crate::config::Config;
use crate::plugin::{SourceError, Sources};
use crate::runtime::{Form, Given, Inspection, Offered, Runtime};

/// Show what a component needs and offers: its digest, its imports and what grants them, its handlers and their
/// arguments.
///
/// Where this host would not load it, that is told as well, and the exit code is 2.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Inspect {
    /// A file, or `oci://registry/name:tag`. For a registry, the configuration's [registries] are used where there
    /// is a configuration.
    #[arg(value_name = "FILE")]
    component: String,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Inspected<'a> {
    component: &'a str,
    digest: &'a str,
    manifest_digest: Option<&'a str>,
    bytes: usize,
    #[serde(flatten)]
    inspection: &'a Inspection,
}

pub(super) async fn run(global: &Global, command: &Inspect) -> Result<Report, CliError> {
    let component = match command.component.strip_prefix(OciRef::SCHEME) {
        Some(reference) => {
            let parsed = OciRef::parse(reference);
            ComponentRef::Oci(parsed.map_err(|error| CliError::usage(format!("the component {error}")))?)
        }
        None => ComponentRef::File(PathBuf::from(&command.component)),
    };
    let sources = Sources::without_cache(&registries(global, &component)?);
    let source = sources.fetch(&component, None).await.map_err(|error| match error {
        SourceError::Unreachable { .. } => CliError::unreachable(error.to_string()),
        _ => CliError::usage(error.to_string()),
    })?;
    let runtime = Runtime::to_inspect().map_err(|error| CliError::usage(format!("{error:#}")))?;
    let inspection = runtime.inspect(&source).await;
    let inspection = inspection.map_err(|error| CliError::usage(format!("{}: {error}", source.origin)))?;
    let inspected = Inspected {
        component: &source.origin,
        digest: source.digest.as_str(),
        manifest_digest: source.manifest.as_ref().map(|digest| digest.as_str()),
        bytes: source.bytes.len(),
        inspection: &inspection,
    };
    let report = Report::new(&inspected, text(&inspected));
    match &inspection.problem {
        None => Ok(report),
        Some(_) => Ok(Report { exit: crate::cli::Exit::Usage, ..report }),
    }
}

/// Only for a registry, and only where there is a configuration.
fn registries(
    global: &Global,
    component: &ComponentRef,
) -> Result<BTreeMap<String, RegistryAccess>, CliError> {
    if matches!(component, ComponentRef::File(_)) || !global.config.exists() {
        return Ok(BTreeMap::new());
    }
    Ok(Config::load(&global.config)?.registries)
}

fn text(inspected: &Inspected<'_>) -> String {
    let Inspected { inspection, .. } = inspected;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<11}{value}");
    };
    line("component", inspected.component);
    line("digest", inspected.digest);
    if let Some(digest) = inspected.manifest_digest {
        line("manifest", digest);
    }
    let size = bytesize::ByteSize::b;
    line("size", &size(inspected.bytes as u64).to_string());
    line("form", &form(inspection));
    let memory = size(inspection.initial_memory);
    line("memory", &format!("{memory} to begin with, of `limits.memory`"));
    if !inspection.made_with.is_empty() {
        let with = inspection.made_with.iter().map(|p| format!("{} {}", p.name, p.version).trim().to_owned());
        line("made with", &with.collect::<Vec<_>>().join(", "));
    }
    handlers(&mut text, inspection);
    imports(&mut text, inspection);
    let _ = writeln!(text, "\nExports: {}", listed(&inspection.exports));
    if let Some(problem) = &inspection.problem {
        let _ = writeln!(text, "\nThis host does not load it: {problem}");
    }
    text
}

fn form(inspection: &Inspection) -> String {
    let form = match inspection.form {
        Form::Component => "a component",
        Form::CoreModule => "a core module, which the host makes a component",
    };
    let offers = match inspection.offers {
        Offered::Handlers => "with handlers",
        Offered::Program => "with a program, which runs as the handler `run`",
        Offered::Nothing => "with nothing that this host calls",
    };
    format!("{form}, {offers}")
}

fn handlers(text: &mut String, inspection: &Inspection) {
    for handler in &inspection.handlers {
        let _ = writeln!(text, "\nHandler `{}`: {}", handler.name, handler.summary);
        match &handler.args_schema {
            Some(schema) => {
                for line in format!("{schema:#}").lines() {
                    let _ = writeln!(text, "    {line}");
                }
            }
            None => text.push_str("    any arguments\n"),
        }
    }
}

fn imports(text: &mut String, inspection: &Inspection) {
    let of = |given: Given| inspection.imports.iter().filter(move |import| import.given == given);
    let names = |given| of(given).map(|import| import.name.clone()).collect::<Vec<_>>();
    if inspection.imports.is_empty() {
        text.push_str("\nIt imports nothing.\n");
    }
    let always = names(Given::Always);
    if !always.is_empty() {
        let _ = writeln!(text, "\nImports that every plugin has: {}", listed(&always));
    }
    // Several interfaces may be granted by the same lines.
    let mut granted: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for import in of(Given::Granted) {
        granted.entry(import.hint.as_deref().unwrap_or_default()).or_default().push(import.name.clone());
    }
    if !granted.is_empty() {
        text.push_str(
            "\nImports that refuse until they are granted; a toolchain may import more than the plugin uses:\n",
        );
    }
    for (lines, names) in granted {
        let _ = writeln!(text, "  {}", listed(&names));
        for line in lines.lines() {
            let _ = writeln!(text, "      {line}");
        }
    }
    let never = names(Given::Never);
    if !never.is_empty() {
        let _ = writeln!(text, "\nImports that always refuse: {}", listed(&never));
    }
    if of(Given::Missing).next().is_some() {
        text.push_str("\nImports that this host does not have:\n");
    }
    for import in of(Given::Missing) {
        let _ = writeln!(text, "  {}: {}", import.name, import.hint.as_deref().unwrap_or_default());
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
