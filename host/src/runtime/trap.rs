//! A call that ended without a return: whose fault it is, and why.

use std::fmt::Write as _;
use std::time::Duration;

use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::limits::MOST_HANDLES;
use super::reason::reason;
use crate::execution::{Failure, FailureKind};
use crate::limits::{Limits, grouped};

/// What is known of a call besides how it ended.
pub(super) struct Circumstances {
    pub(super) timeout: Duration,
    pub(super) limits: Limits,
    /// Memory was refused. It need not be why the guest ended.
    pub(super) complaint: Option<String>,
    /// This machine had no memory for what the guest may have.
    pub(super) shortage: Option<String>,
    /// What it printed last on standard error.
    pub(super) last_words: String,
}

/// A call that ended with this error, before or after it was `instantiated`.
pub(super) fn broken_off(error: &wasmtime::Error, instantiated: bool, found: &Circumstances) -> Failure {
    let trap = error.downcast_ref::<Trap>();
    let exit = error.downcast_ref::<I32Exit>();
    // Code runs while it is instantiated, too: what that does wrong has a backtrace.
    let runs_code = instantiated || trap.is_some() || exit.is_some() || error.is::<WasmBacktrace>();
    if error.is::<PoolConcurrencyLimitError>() {
        return not_run(error);
    }
    // An allocation that was refused ends as a trap that says nothing of memory; one that the
    // instance itself needs, as an error of wasmtime's.
    let looks_out_of_memory = match trap {
        Some(trap) => *trap == Trap::UnreachableCodeReached && tells_of_memory(&found.last_words),
        None => !runs_code,
    };
    if let Some(complaint) = found.complaint.as_ref().filter(|_| looks_out_of_memory) {
        return Failure::new(FailureKind::Memory, with_last_words(complaint.clone(), &found.last_words));
    }
    if let Some(why) = found.shortage.as_ref().filter(|_| looks_out_of_memory) {
        let message = format!("this host had no memory for the handler, which is within its limit: {why}");
        return Failure::new(FailureKind::Host, with_last_words(message, &found.last_words));
    }
    if !runs_code {
        return not_run(error);
    }
    if trap == Some(&Trap::OutOfFuel) {
        return Failure::new(FailureKind::Fuel, out_of_fuel(found.limits) + &backtrace(error));
    }
    let message = match (exit, trap) {
        (Some(I32Exit(code)), _) => {
            format!("the handler ended its program with exit code {code} instead of returning")
        }
        (None, Some(trap)) => trapped(*trap, error),
        (None, None) => forbidden(error),
    };
    let backtrace = if exit.is_none() { backtrace(error) } else { String::new() };
    Failure::new(FailureKind::Trap, with_last_words(message, &found.last_words) + &backtrace)
}

/// Not the guest's doing.
fn not_run(error: &wasmtime::Error) -> Failure {
    Failure::new(FailureKind::Host, format!("the host could not run the handler: {error:#}"))
}

/// A guest that dies of memory says so, in every language, or says nothing at all.
fn tells_of_memory(last_words: &str) -> bool {
    let words = last_words.to_lowercase();
    words.is_empty() || words.contains("memory") || words.contains("alloc")
}

fn out_of_fuel(limits: Limits) -> String {
    let fuel = limits.fuel.map_or_else(|| "its".to_owned(), |fuel| format!("{} of {0}", grouped(fuel)));
    format!("out of fuel: {fuel} units used; raise `limits.fuel` of the plugin if it needs more")
}

fn trapped(trap: Trap, error: &wasmtime::Error) -> String {
    match trap {
        Trap::StackOverflow => "stack overflow: the handler's calls within each other took more than the 512 \
                                KiB of stack that there are; look for a recursion without an end"
            .to_owned(),
        // The stack of a guest's own, in its memory.
        Trap::MemoryOutOfBounds if most_in_a_row(error) >= DEEP => {
            "the handler trapped: out of bounds memory access, deep in a recursion: its stack may have overflowed"
                .to_owned()
        }
        trap => {
            let trap = trap.to_string();
            format!("the handler trapped: {}", trap.strip_prefix("wasm trap: ").unwrap_or(&trap))
        }
    }
}

/// A text that is not UTF-8, a pointer out of bounds, a full table of resources.
fn forbidden(error: &wasmtime::Error) -> String {
    if let Some(ResourceTableError::Full) = error.downcast_ref::<ResourceTableError>() {
        return format!(
            "the handler had more than {} things of the host open at once (streams, timers, transactions, \
             cursors)",
            grouped(MOST_HANDLES as u64)
        );
    }
    let why = reason(error);
    // wasmtime does not give its name for this error away.
    if why.contains("fuel allocated for hostcalls") {
        return "the handler passed more to the host in one call than twice its `limits.memory`".to_owned();
    }
    format!("the handler did what the host does not allow: {why}")
}

/// The names of the functions that were running, the innermost first.
fn functions(error: &wasmtime::Error) -> impl Iterator<Item = Option<String>> {
    let frames = error.downcast_ref::<WasmBacktrace>().into_iter().flat_map(WasmBacktrace::frames);
    frames.map(|frame| frame.func_name().map(|name| format!("{:#}", rustc_demangle::demangle(name))))
}

/// So many calls of one function within each other are a recursion.
const DEEP: usize = 8;

fn most_in_a_row(error: &wasmtime::Error) -> usize {
    let (mut most, mut row, mut last) = (0, 0, None);
    for name in functions(error) {
        row = if name.is_some() && name == last { row + 1 } else { 1 };
        most = most.max(row);
        last = name;
    }
    most
}

/// Each a line, where the same is called within itself only once, with how often.
fn backtrace(error: &wasmtime::Error) -> String {
    let frames = error.downcast_ref::<WasmBacktrace>().into_iter().flat_map(WasmBacktrace::frames);
    let indices = frames.map(wasmtime::FrameInfo::func_index);
    let mut lines: Vec<(String, usize)> = Vec::new();
    let (mut named, mut nameless) = (0, 0);
    for (name, index) in functions(error).zip(indices) {
        *(if name.is_some() { &mut named } else { &mut nameless }) += 1;
        let name = name.unwrap_or_else(|| format!("function {index}"));
        match lines.last_mut() {
            Some((last, times)) if *last == name => *times += 1,
            _ => lines.push((name, 1)),
        }
    }
    let mut text = String::new();
    for (name, times) in &lines {
        let often = if *times > 1 { format!(" ({times} calls within each other)") } else { String::new() };
        let _ = write!(text, "\n    at {name}{often}");
    }
    // Some glue has no name in any component.
    if named <= 1 && nameless >= 2 {
        text.push_str(
            "\nnote: the component has no names of functions; built without `strip` (in Rust, with `strip = \
             \"debuginfo\"`) it has",
        );
    }
    text
}

fn with_last_words(message: String, last_words: &str) -> String {
    if last_words.is_empty() { message } else { format!("{message}\n{last_words}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a module comes to whose export `run` is called.
    fn run(module: &str) -> Failure {
        let engine = wasmtime::Engine::default();
        let module = wasmtime::Module::new(&engine, wat::parse_str(module).unwrap()).unwrap();
        let mut store = wasmtime::Store::new(&engine, ());
        let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
        let run = instance.get_typed_func::<(), ()>(&mut store, "run").unwrap();
        let error = run.call(&mut store, ()).unwrap_err();
        let found = Circumstances {
            timeout: Duration::from_secs(1),
            limits: Limits::default(),
            complaint: None,
            shortage: None,
            last_words: "boom".to_owned(),
        };
        broken_off(&error, true, &found)
    }

    #[test]
    fn a_backtrace_has_the_names_that_there_are() {
        let named = run("(module (func $deep unreachable) (func $outer (export \"run\") (call $deep)))");
        assert_eq!(named.kind, FailureKind::Trap);
        let expected =
            "the handler trapped: wasm `unreachable` instruction executed\nboom\n    at deep\n    at outer";
        assert_eq!(named.message, expected);
    }

    #[test]
    fn a_recursion_is_told_once_with_its_depth() {
        let deep = run("(module (func $deep (call $deep)) (func $outer (export \"run\") (call $deep)))");
        assert!(deep.message.starts_with("stack overflow: "), "{deep:?}");
        assert!(deep.message.contains("\n    at deep (20 calls within each other)"), "{deep:?}");
    }

    #[test]
    fn a_guest_without_names_is_told_how_to_have_them() {
        let unnamed = run("(module (func unreachable) (func (call 0)) (table funcref (elem 1))
             (func (export \"run\") (call_indirect (i32.const 0))))");
        assert!(
            unnamed.message.contains("\n    at function 0\n    at function 1\n    at function 2"),
            "{unnamed:?}"
        );
        assert!(unnamed.message.ends_with("(in Rust, with `strip = \"debuginfo\"`) it has"), "{unnamed:?}");
    }
}
