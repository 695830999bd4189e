//! What a component asks for that this host does not have: all of it at once, and what to do.

use std::fmt;

use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, ResourceType};

use super::{LoadError, reason};
use crate::runtime::state::GuestState;

/// The version of `innkeeper:plugin` that this host has.
const OUR_VERSION: &str = "0.1.0";

/// As many are looked for. A component that lacks more will not be mended one by one.
const MOST: usize = 200;

/// Something that a component imports and this host does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::runtime) struct Lack {
    pub(in crate::runtime) import: String,
    /// What it is, and what to do.
    pub(in crate::runtime) hint: String,
}

/// Everything that a component lacks: at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacks(Vec<Lack>);

impl Lacks {
    pub(super) fn of(lacks: Vec<Lack>) -> Result<(), LoadError> {
        if lacks.is_empty() { Ok(()) } else { Err(LoadError::Imports(Self(lacks))) }
    }

    pub(in crate::runtime) fn iter(&self) -> impl Iterator<Item = &Lack> {
        self.0.iter()
    }
}

impl fmt::Display for Lacks {
    /// The same hint is said once.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left: Vec<&Lack> = self.0.iter().collect();
        while let Some(first) = left.first() {
            let hint = first.hint.clone();
            let (same, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|lack| lack.hint == hint);
            let names = same.iter().map(|lack| format!("`{}`", lack.import)).collect::<Vec<_>>();
            write!(f, "\n  {}: {hint}", names.join(", "))?;
            left = others;
        }
        Ok(())
    }
}

/// Compares what a component imports with what the linker has.
///
/// wasmtime tells of one import at a time. Each that is missing is put in place, so that it tells
/// of the next; what comes of that is thrown away.
///
/// # Errors
/// With all that is missing.
pub(super) fn check(
    engine: &Engine,
    linker: &Linker<GuestState>,
    component: &Component,
) -> Result<(), LoadError> {
    let mut missing: Vec<Missing> = Vec::new();
    let mut patched: Option<Linker<GuestState>> = None;
    let component_type = component.component_type();
    while missing.len() < MOST {
        let error = match patched.as_ref().unwrap_or(linker).instantiate_pre(component) {
            Ok(_) => break,
            Err(error) => error,
        };
        let item = component_type.imports(engine).find(|(name, _)| names(&error, name));
        let Some((import, item)) = item.map(|(name, import)| (name.to_owned(), import.ty)) else {
            missing.push(Missing { import: "an import".to_owned(), part: None, problem: reason(&error) });
            break;
        };
        let found = Missing::new(import, &error);
        let again = missing.contains(&found);
        let patch = patched.get_or_insert_with(|| {
            let mut linker = linker.clone();
            linker.allow_shadowing(true);
            linker
        });
        let put = !again && found.put_in_place(engine, patch, &item);
        if !again {
            missing.push(found);
        }
        if !put {
            break;
        }
    }
    Lacks::of(in_interfaces(missing))
}

/// An item of wasmtime's complaint.
#[derive(Debug, PartialEq, Eq)]
struct Missing {
    import: String,
    /// A function or resource of an interface.
    part: Option<String>,
    problem: String,
}

fn names(error: &wasmtime::Error, import: &str) -> bool {
    error.chain().any(|cause| {
        let text = cause.to_string();
        text.starts_with("component imports ") && text.contains(&format!("`{import}`"))
    })
}

impl Missing {
    fn new(import: String, error: &wasmtime::Error) -> Self {
        let part = error.chain().find_map(|cause| {
            let text = cause.to_string();
            let name = text.strip_prefix("instance export `")?.strip_suffix("` has the wrong type")?;
            Some(name.to_owned())
        });
        Self { import, part, problem: reason(error) }
    }

    /// False where wasmtime will go on complaining of it.
    fn put_in_place(&self, engine: &Engine, linker: &mut Linker<GuestState>, item: &ComponentItem) -> bool {
        match (item, &self.part) {
            (ComponentItem::ComponentInstance(instance), Some(part)) => {
                let Some((_, export)) = instance.exports(engine).find(|(name, _)| name == part) else {
                    return false;
                };
                linker.instance(&self.import).is_ok_and(|mut place| put(&mut place, part, &export.ty))
            }
            (item, None) => put(&mut linker.root(), &self.import, item),
            _ => false,
        }
    }
}

fn put(
    place: &mut wasmtime::component::LinkerInstance<'_, GuestState>,
    name: &str,
    item: &ComponentItem,
) -> bool {
    match item {
        ComponentItem::ComponentFunc(_) => {
            place.func_new(name, |_, _, _, _| Err(wasmtime::Error::msg("it is not there"))).is_ok()
        }
        ComponentItem::Resource(_) => {
            place.resource(name, ResourceType::host::<Missing>(), |_, _| Ok(())).is_ok()
        }
        _ => false,
    }
}

/// One line for each interface.
fn in_interfaces(missing: Vec<Missing>) -> Vec<Lack> {
    let mut lacks: Vec<(String, Vec<String>, Vec<String>)> = Vec::new();
    for Missing { import, part, problem } in missing {
        if lacks.last().is_none_or(|(last, ..)| *last != import) {
            lacks.push((import, Vec::new(), Vec::new()));
        }
        if let Some((_, parts, problems)) = lacks.last_mut() {
            parts.extend(part);
            problems.push(problem);
        }
    }
    let lack = |(import, parts, problems): (String, Vec<String>, Vec<String>)| {
        let hint = hint(&import, &parts, &problems);
        Lack { import, hint }
    };
    lacks.into_iter().map(lack).collect()
}

/// What an interface is that this host does not have, or not so.
fn hint(import: &str, parts: &[String], problems: &[String]) -> String {
    let (name, version) = import.split_once('@').unwrap_or((import, ""));
    let package = name.split('/').next().unwrap_or(name);
    let here = parts.iter().map(|part| format!("`{part}`")).collect::<Vec<_>>().join(", ");
    if package == "innkeeper:plugin" {
        return match version {
            OUR_VERSION if !parts.is_empty() && name_is_ours(name) => format!(
                "this host's is another one, without {here}: the plugin was built with a newer SDK, or with a WIT \
                 that was changed"
            ),
            OUR_VERSION => "this host is older than the SDK that the plugin was built with".to_owned(),
            _ => format!(
                "another version of the SDK: this host has `innkeeper:plugin@{OUR_VERSION}`; build the plugin with \
                 the SDK of this host's version"
            ),
        };
    }
    if package.starts_with("wasi:") && version.starts_with("0.3") {
        return "WASI 0.3, which this host does not have: build for `wasm32-wasip2`".to_owned();
    }
    if package.starts_with("wasi:") && (version.contains("-rc") || version.contains("-draft")) {
        return "a draft of WASI that this host does not have".to_owned();
    }
    let known = ["wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:io", "wasi:random", "wasi:sockets"];
    if known.contains(&package) && version.starts_with("0.2") {
        return format!("this host's WASI 0.2 has no {here}, or another one");
    }
    let wrong = problems.first().filter(|problem| !problem.ends_with("is missing"));
    wrong.map_or_else(
        || "nothing of this name is in this host".to_owned(),
        |problem| format!("this host's is another one: {problem}"),
    )
}

fn name_is_ours(name: &str) -> bool {
    ["db", "context", "jobs", "types"].iter().any(|ours| name == format!("innkeeper:plugin/{ours}"))
}
