//! Core modules, made into components.
//!
//! What Go, C and older toolchains build is a core module that asks for WASI preview 1
//! (`wasm32-wasip1`). wasmtime's adapter stands between it and what this host has: for a program
//! (it has a `_start`) the one that offers it as `wasi:cli/run`, for a library the other, and then
//! the module has to carry the type of its component, as the bindings of our world put it in.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME as PREVIEW1, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER as COMMAND,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER as REACTOR,
};
use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

use super::LoadError;
use super::imports::{Lack, Lacks};

/// Raised with the crates that adapt: part of what compiled code is kept under.
pub(super) const VERSION: &str = "preview1 48.0.8, wit-component 0.254";

/// What of a module decides what becomes of it.
#[derive(Default)]
struct Outline {
    has_start: bool,
    has_world: bool,
    /// Module and name, as written.
    imports: Vec<(String, String)>,
}

/// Makes a component of a core module.
///
/// # Errors
/// Where the module is neither a program nor a plugin, or asks for what there is no adapter for.
pub(super) fn adapt(module: &[u8]) -> Result<Bytes, LoadError> {
    // The encoder trusts what it is given more than a stranger's file deserves.
    wasmparser::Validator::new()
        .validate_all(module)
        .map_err(|error| LoadError::Invalid(error.to_string()))?;
    let outline = outline(module).map_err(|error| LoadError::Invalid(error.to_string()))?;
    if !outline.has_start && !outline.has_world {
        return Err(LoadError::CoreModule);
    }
    if !outline.has_world {
        check_imports(&outline)?;
    }
    let adapter = if outline.has_start { COMMAND } else { REACTOR };
    let encoded = catch_unwind(AssertUnwindSafe(|| {
        let mut encoder =
            ComponentEncoder::default().validate(true).module(module)?.adapter(PREVIEW1, adapter)?;
        encoder.encode()
    }));
    match encoded {
        Ok(Ok(component)) => Ok(component.into()),
        Ok(Err(error)) => Err(LoadError::Adapt(format!("{error:#}"))),
        Err(_) => Err(LoadError::Adapt("the encoder broke off".to_owned())),
    }
}

fn outline(module: &[u8]) -> wasmparser::Result<Outline> {
    let mut outline = Outline::default();
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    outline.imports.push((import.module.to_owned(), import.name.to_owned()));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    outline.has_start |= export?.name == "_start";
                }
            }
            Payload::CustomSection(section) => {
                outline.has_world |= section.name().starts_with("component-type");
            }
            _ => {}
        }
    }
    Ok(outline)
}

/// A program that knows nothing of components can ask for WASI preview 1, and nothing else.
fn check_imports(outline: &Outline) -> Result<(), LoadError> {
    let lacks = outline.imports.iter().filter(|(module, _)| module != PREVIEW1);
    let lacks = lacks.map(|(module, name)| {
        let hint = match module.as_str() {
            "wasi_unstable" => "WASI preview 0, which nothing makes any more: build for `wasm32-wasip1`",
            "env" => {
                "a function that nothing defined when it was linked, or that a web page would offer: build for \
                 `wasm32-wasip1`"
            }
            _ => "core modules can ask for `wasi_snapshot_preview1` alone",
        };
        Lack { import: format!("{module}.{name}"), hint: hint.to_owned() }
    });
    Lacks::of(lacks.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::load::form::{self, Form};

    fn module(wat: &str) -> Vec<u8> {
        wat::parse_str(wat).expect("it is WAT")
    }

    #[test]
    fn a_program_becomes_a_component() {
        let bytes = module(
            "(module
               (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))
               (memory (export \"memory\") 1)
               (func (export \"_start\") (call $exit (i32.const 0))))",
        );
        let component = adapt(&bytes).unwrap();
        assert_eq!(form::of_file(&component), Ok(Form::Component));
    }

    #[test]
    fn a_module_that_is_neither_program_nor_plugin_is_refused() {
        assert!(matches!(adapt(&module("(module (func (export \"f\")))")), Err(LoadError::CoreModule)));
    }

    #[test]
    fn every_import_that_there_is_no_adapter_for_is_named() {
        let error = adapt(&module(
            "(module (import \"env\" \"emscripten_run\" (func)) (import \"wasi_unstable\" \"fd_write\" (func))
               (import \"wasi_snapshot_preview1\" \"sched_yield\" (func (result i32)))
               (func (export \"_start\")))",
        ));
        let message = error.unwrap_err().to_string();
        assert!(message.contains("`env.emscripten_run`") && message.contains("`wasi_unstable.fd_write`"));
        assert!(!message.contains("sched_yield"), "{message}");
    }

    #[test]
    fn a_damaged_module_is_refused_and_nothing_panics() {
        let good = module(
            "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func (param i32)))
               (memory (export \"memory\") 1) (func (export \"_start\")))",
        );
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let _ = adapt(&bytes);
            }
        }
    }
}
