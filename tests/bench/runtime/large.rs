//! A component as large as those that bring an interpreter along: from its code on disk to its use.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Result, ensure};
use innkeeper::plugin::Digest;
use innkeeper::runtime::{Cache, CompileIn, Compiler};
use wasmtime::Engine;

use crate::Selection;
use crate::figure::{Figure, Report};
use crate::rounds::{quantile, sorted};

/// Compiled, and from the cache.
const NAMES: [&str; 3] = ["large_compiled", "large_from_cache", "large_code"];

pub async fn measure(selection: &Selection, report: &mut Report) {
    if !NAMES.iter().any(|name| selection.wants(name)) {
        return;
    }
    match load(selection).await {
        Ok(figures) => {
            for figure in figures.into_iter().filter(|figure| selection.wants(&figure.name)) {
                let name = figure.name.clone();
                report.add(&name, Ok(figure));
            }
        }
        Err(error) => report.add(NAMES[0], Err(error)),
    }
}

async fn load(selection: &Selection) -> Result<[Figure; 3]> {
    let component = component(if selection.quick { 2_000 } else { 40_000 })?;
    let digest = Digest::of(&component);
    let dir = tempfile::tempdir()?;
    // Another engine than the host's: what is measured does not depend on how instances are made.
    let engine = Engine::default();
    let cache = Cache::new(dir.path().join("compiled"), 1 << 40);
    let compiler = Compiler::new(CompileIn::Process).with_cache(cache);
    let (_, compiled) = compiler.component(&engine, &digest, &component).await?;
    ensure!(!compiled.cached, "it was compiled before");
    let mut times = Vec::new();
    for _ in 0..selection.rounds(11) {
        let begun = Instant::now();
        let (_, found) = compiler.component(&engine, &digest, &component).await?;
        ensure!(found.cached, "it was not kept");
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    #[expect(clippy::cast_precision_loss, reason = "far less than any disk has")]
    let mebibytes = compiled.bytes.unwrap_or_default() as f64 / f64::from(1 << 20);
    Ok([
        Figure::alone(NAMES[0], compiled.took.as_secs_f64() * 1e3, "ms"),
        Figure::alone(NAMES[1], quantile(&sorted(times.into_iter()), 0.5), "ms"),
        Figure::alone(NAMES[2], mebibytes, "MiB"),
    ])
}

/// So many functions with some hundred bytes of code each.
fn component(functions: u32) -> Result<Vec<u8>> {
    let mut text = "(component (core module (memory 1)".to_owned();
    for function in 0..functions {
        write!(text, "(func (export \"f{function}\") (param i32) (result i32) local.get 0")?;
        for step in 0..16 {
            let offset = (function * 16 + step) % 65_000;
            write!(text, " i32.load offset={offset} i32.const {offset} i32.xor i32.const 4095 i32.and")?;
        }
        text.push(')');
    }
    text.push_str("))");
    Ok(wat::parse_str(text)?)
}
