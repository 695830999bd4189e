//! How long a host with a hundred plugins takes until it can run any of them.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use innkeeper::config::Config;
use innkeeper::engine::registry::Registry;
use innkeeper::interfaces::db::Databases;
use innkeeper::runtime::{Cache, CompileIn, Compiler, Runtime};
use innkeeper_tests::host::guest;

use crate::Selection;
use crate::figure::{Figure, Goal, Report};
use crate::rounds::{quantile, sorted};

const COLD: &str = "plugins_100_cold";
const WARM: &str = "plugins_100_warm";

/// Seconds from a cache that has everything.
const GOAL: f64 = 1.0;

pub async fn measure(selection: &Selection, report: &mut Report) {
    if ![COLD, WARM].iter().any(|name| selection.wants(name)) {
        return;
    }
    match load(selection).await {
        Ok((cold, warm)) => {
            if selection.wants(COLD) {
                report.add(COLD, Ok(Figure::alone(COLD, cold, "s")));
            }
            if selection.wants(WARM) {
                let figure = Figure {
                    against: Some("a second"),
                    ratio: Some(warm / GOAL),
                    goal: Some(Goal::AtMost(GOAL)),
                    ..Figure::alone(WARM, warm, "s")
                };
                report.add(WARM, Ok(figure));
            }
        }
        Err(error) => report.add(WARM, Err(error)),
    }
}

/// Seconds with an empty cache, once, and with one that has everything, the median of some.
async fn load(selection: &Selection) -> Result<(f64, f64)> {
    // As many as are compiled in a few seconds, where it is only to be seen that it works.
    let plugins = if selection.quick { 10 } else { 100 };
    let dir = tempfile::tempdir()?;
    let config = write_plugins(dir.path(), plugins)?;
    let cold = start(&config, plugins).await?;
    let mut warm = Vec::new();
    for _ in 0..selection.rounds(11) {
        warm.push(start(&config, plugins).await?.as_secs_f64());
    }
    Ok((cold.as_secs_f64(), quantile(&sorted(warm.into_iter()), 0.5)))
}

/// Sets up a runtime and loads every plugin, as a host does when it starts.
async fn start(config: &Config, plugins: usize) -> Result<Duration> {
    let databases = Databases::open(&config.databases);
    let begun = Instant::now();
    let cache = Cache::new(config.compiled_folder(), config.host.compiled_cache);
    let compiler = Compiler::new(CompileIn::this_program()).with_cache(cache);
    let runtime = Runtime::new(config.host.concurrency, config.largest_memory())?.with_compiler(compiler);
    let (registry, problems) = Registry::load(config, &runtime, &databases).await;
    let took = begun.elapsed();
    ensure!(problems.is_empty(), "{problems:?}");
    ensure!(registry.plugins().count() == plugins, "not every plugin was loaded");
    Ok(took)
}

/// Components that differ in nothing but a section that nobody reads, so that each has a digest of its
/// own.
fn write_plugins(dir: &Path, plugins: usize) -> Result<Config> {
    let component = std::fs::read(guest("bench")).context("the guest of the benchmarks is not built")?;
    let mut text = String::new();
    for plugin in 0..plugins {
        let path = dir.join(format!("plugin-{plugin}.wasm"));
        std::fs::write(&path, [&component[..], &custom_section(plugin)].concat())?;
        writeln!(text, "[plugins.plugin-{plugin}]\ncomponent = {path:?}")?;
    }
    Config::parse(&text, &dir.join("innkeeper.toml"), &|_| None)
        .map_err(|errors| anyhow!("{}", errors.iter().map(ToString::to_string).collect::<String>()))
}

/// Id 0, length, and the name `n` with the number behind it; all shorter than 128 bytes, so that
/// each length is one byte.
fn custom_section(number: usize) -> Vec<u8> {
    let content = [&[1, b'n'][..], number.to_string().as_bytes()].concat();
    [&[0, u8::try_from(content.len()).unwrap_or(u8::MAX)][..], &content].concat()
}
