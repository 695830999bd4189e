//! What a component needs and offers, for whoever is about to write its configuration.

use serde::Serialize;
use wasmparser::{Parser, Payload};

use super::load::{self, Form, LoadError};
use super::{CompileIn, Compiler, Runtime};
use crate::limits::Limits;
use crate::plugin::{Handler, Source};

/// What was found out about a component.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// What the file is.
    pub form: Form,
    /// How it is called.
    pub offers: Offered,
    /// What it asks of its host, in the order of the file.
    pub imports: Vec<Import>,
    /// What it exports.
    pub exports: Vec<String>,
    /// What it says that it can do; none where it could not be asked.
    pub handlers: Vec<Handler>,
    /// What it was made with: language, tools and SDKs, each with its version.
    pub made_with: Vec<Producer>,
    /// Bytes of memory that it has to begin with.
    pub initial_memory: u64,
    /// Core modules that are instantiated for each execution.
    pub core_instances: u64,
    /// Why this host does not load it.
    pub problem: Option<String>,
}

/// How a component is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Offered {
    /// It has handlers of its own.
    Handlers,
    /// It is a program, which runs as the handler `run`.
    Program,
    /// Nothing that this host calls.
    Nothing,
}

/// Something that a component asks of its host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Import {
    /// As the component names it.
    pub name: String,
    /// Whether it gets it.
    pub given: Given,
    /// The lines that grant it, or what to do where this host does not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Whether a component gets what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Given {
    /// Every plugin has it.
    Always,
    /// It is there, and refuses until the configuration grants it.
    Granted,
    /// It is there, and always refuses.
    Never,
    /// This host does not have it.
    Missing,
}

/// A tool, a language or an SDK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Producer {
    /// `language`, `processed-by` or `sdk`.
    pub field: String,
    /// What.
    pub name: String,
    /// Which version.
    pub version: String,
}

/// Bytes that a component may use to describe itself while it is only looked at.
const MEMORY: u64 = 1 << 30;

impl Runtime {
    /// For [`Self::inspect`] alone, and with the room that it takes. Components are compiled in a child
    /// process of this program, as hosts do it, and nothing is kept.
    ///
    /// # Errors
    /// See [`Self::new`].
    pub fn to_inspect() -> anyhow::Result<Self> {
        Ok(Self::new(1, MEMORY)?.with_compiler(Compiler::new(CompileIn::this_program())))
    }

    /// Finds out what a component needs and offers. What keeps this host from loading it is part
    /// of the answer.
    ///
    /// # Errors
    /// Where the file is no WebAssembly, or so damaged that nothing can be said of it.
    pub async fn inspect(&self, source: &Source) -> Result<Inspection, LoadError> {
        let prepared = load::prepare(source).await?;
        let made_with = producers(&source.bytes);
        let names = names(&prepared.bytes).map_err(|error| LoadError::Invalid(error.to_string()))?;
        let offers = if names.exports.iter().any(|name| name == load::HANDLERS) {
            Offered::Handlers
        } else if names.exports.iter().any(|name| name.starts_with(load::PROGRAM)) {
            Offered::Program
        } else {
            Offered::Nothing
        };
        let totals = prepared.measured.totals;
        // Its memory is shown, and the plugin's limit is not known here.
        let limits = Limits { memory: MEMORY, ..Limits::default() };
        let loaded = match prepared.measured.check(MEMORY) {
            Ok(()) => self.load_prepared(&prepared, limits).await,
            Err(error) => Err(error),
        };
        let mut imports = names.imports.into_iter().map(import).collect::<Vec<_>>();
        let (handlers, problem) = match loaded {
            Ok(loaded) => (loaded.handlers, None),
            Err(error) => {
                if let LoadError::Imports(lacks) = &error {
                    for lack in lacks.iter() {
                        let lacked = imports.iter_mut().filter(|import| import.name == lack.import);
                        for import in lacked {
                            (import.given, import.hint) = (Given::Missing, Some(lack.hint.clone()));
                        }
                    }
                }
                (Vec::new(), Some(error.to_string()))
            }
        };
        Ok(Inspection {
            form: prepared.form,
            offers,
            imports,
            exports: names.exports,
            handlers,
            made_with,
            initial_memory: totals.memory_bytes,
            core_instances: totals.core_instances,
            problem,
        })
    }
}

#[derive(Default)]
struct Names {
    imports: Vec<String>,
    exports: Vec<String>,
}

/// Of the component itself, not of its parts.
fn names(component: &[u8]) -> wasmparser::Result<Names> {
    let (mut names, mut depth) = (Names::default(), 0_usize);
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    names.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    names.exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(names)
}

/// What all parts of the file say that they were made with. What cannot be read is left out.
fn producers(bytes: &[u8]) -> Vec<Producer> {
    const MOST: usize = 50;
    let mut producers: Vec<Producer> = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        let Ok(payload) = payload else { break };
        let Payload::CustomSection(section) = payload else { continue };
        let wasmparser::KnownCustom::Producers(fields) = section.as_known() else { continue };
        for field in fields.into_iter().map_while(Result::ok) {
            for value in field.values.into_iter().map_while(Result::ok) {
                let [field, name, version] = [field.name, value.name, value.version].map(str::to_owned);
                let producer = Producer { field, name, version };
                if producers.len() < MOST && !producers.contains(&producer) {
                    producers.push(producer);
                }
            }
        }
    }
    producers
}

/// What an import means. Whether this host has it at all is known once it is linked.
fn import(name: String) -> Import {
    let interface = name.split('@').next().unwrap_or(&name);
    let package = interface.split('/').next().unwrap_or(interface);
    let (given, hint) = match (package, interface) {
        (_, "innkeeper:plugin/db") => (Given::Granted, Some("[[plugins.NAME.databases]]\nname = \"app\"")),
        (_, "innkeeper:plugin/jobs") => (Given::Granted, Some("[plugins.NAME]\njobs = [\"JOB\"]")),
        (_, "wasi:cli/environment") => {
            (Given::Granted, Some("[plugins.NAME]\nenv = { TZ = \"Europe/Berlin\" }"))
        }
        ("wasi:filesystem", _) => {
            (Given::Granted, Some("[[plugins.NAME.files]]\npath = \"/srv/reports\"\nas = \"/reports\""))
        }
        ("wasi:http", _) => {
            (Given::Granted, Some("[plugins.NAME.http]\nallow = [\"GET https://api.example/\"]"))
        }
        ("wasi:sockets", _) => (Given::Never, None),
        _ => (Given::Always, None),
    };
    Import { given, hint: hint.map(str::to_owned), name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_grant_is_told_with_the_lines_that_grant_it() {
        for (name, given, line) in [
            ("innkeeper:plugin/context@0.1.0", Given::Always, None),
            ("wasi:clocks/monotonic-clock@0.2.6", Given::Always, None),
            ("innkeeper:plugin/db@0.1.0", Given::Granted, Some("[[plugins.NAME.databases]]")),
            ("wasi:http/outgoing-handler@0.2.10", Given::Granted, Some("[plugins.NAME.http]")),
            ("wasi:filesystem/preopens@0.2.0", Given::Granted, Some("[[plugins.NAME.files]]")),
            ("wasi:sockets/tcp@0.2.0", Given::Never, None),
        ] {
            let import = import(name.to_owned());
            assert_eq!((import.given, import.hint.as_deref().and_then(|h| h.lines().next())), (given, line));
        }
    }

    #[test]
    fn what_is_only_looked_at_is_compiled_in_a_child_as_well() {
        let runtime = Runtime::to_inspect().unwrap();
        assert!(runtime.compiler.is_in_child(), "{:?}", runtime.compiler);
    }

    #[test]
    fn producers_are_read_from_all_parts_and_said_once() {
        let module = "(core module (@producers (language \"Rust\" \"2024\") (sdk \"inn\" \"1\")))";
        let bytes = wat::parse_str(format!("(component {module} {module})")).unwrap();
        let found = producers(&bytes);
        let found = found.iter().map(|p| (p.field.as_str(), p.name.as_str(), p.version.as_str()));
        assert_eq!(found.collect::<Vec<_>>(), [("language", "Rust", "2024"), ("sdk", "inn", "1")]);
        assert!(producers(b"no wasm").is_empty());
    }
}
