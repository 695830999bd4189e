//! The engine end to end: executions that do nothing, enqueued beforehand, run by real hosts
//! with their whole history recorded.
//!
//! Each side works through a copy of the same store, in turns. A figure is executions in a
//! second, and its ratio how many times the other's.

mod bare;
mod guest;
mod host;
mod narrow;
mod rivals;
mod scene;
mod sustained;

use std::time::Duration;

use anyhow::{Result, ensure};
use innkeeper_tests::database::Engine;

use crate::Selection;
use crate::figure::{Figure, Goal, Report};
use crate::rounds::{Comparison, Round, alternate};
use guest::BareGuest;
use scene::Full;

/// Executions of one round; a quick run has a tenth.
const EXECUTIONS: usize = 200_000;

/// Rounds that count.
const ROUNDS: usize = 5;

const BARE: &str = "a bare loop";
const NARROW: &str = "narrow tables";
const ONE_HOST: &str = "one host";

/// Measures what is selected.
///
/// # Errors
/// Where nothing can be measured at all.
pub async fn run(selection: &Selection, report: &mut Report) -> Result<()> {
    for (engine, suffix) in [(Engine::Postgres, "postgres"), (Engine::Sqlite, "sqlite")] {
        measure(engine, suffix, selection, report).await?;
    }
    rivals::measure(selection, report).await;
    sustained::measure(selection, report).await;
    Ok(())
}

async fn measure(
    engine: Engine,
    suffix: &'static str,
    selection: &Selection,
    report: &mut Report,
) -> Result<()> {
    let [noop, cpu, bare, sql_only, two, four] =
        ["noop", "noop_host_cpu", "bare_loop", "sql_only", "hosts_2", "hosts_4"]
            .map(|name| format!("{name}_{suffix}"));
    if ![&noop, &cpu, &bare, &sql_only, &two, &four].into_iter().any(|name| selection.wants(name)) {
        return Ok(());
    }
    let executions = if selection.quick { EXECUTIONS / 10 } else { EXECUTIONS };
    let full = Full::prepare(engine, executions).await?;
    let rounds = selection.rounds(ROUNDS);
    if [&noop, &cpu, &bare].into_iter().any(|name| selection.wants(name)) {
        let guest = BareGuest::load()?;
        let mut processors = Vec::new();
        let mut loops = Vec::new();
        let compared = alternate(rounds, async || {
            let ours = ours(&full, 1).await?;
            processors.push(micros(ours.processor, executions));
            let theirs = alone(&full, Some(&guest)).await?;
            loops.push(theirs);
            Ok(Round { ours: per_second(ours.took, executions), theirs })
        });
        let compared = compared.await;
        report.add(&noop, compared.map(|it| compared_with(&noop, it, BARE, Some(Goal::AtLeast(1.0)))));
        report.add(&bare, Ok(Figure::alone(&bare, median(loops), "/s")));
        report.add(&cpu, Ok(Figure::alone(&cpu, median(processors), "us")));
    }
    if selection.wants(&sql_only) {
        let measured = async {
            if engine == Engine::Sqlite {
                return Ok(Figure::alone(&sql_only, alone(&full, None).await?, "/s"));
            }
            let compared = alternate(rounds, async || {
                let theirs = per_second(narrow::run(executions).await?, executions);
                Ok(Round { ours: alone(&full, None).await?, theirs })
            });
            Ok(compared_with(&sql_only, compared.await?, NARROW, Some(Goal::AtLeast(0.5))))
        };
        report.add(&sql_only, measured.await);
    }
    // SQLite has one host.
    if engine == Engine::Postgres {
        for (name, hosts) in [(&two, 2), (&four, 4)] {
            if selection.wants(name) {
                let compared = alternate(rounds, async || {
                    let many = per_second(ours(&full, hosts).await?.took, executions);
                    Ok(Round { ours: many, theirs: per_second(ours(&full, 1).await?.took, executions) })
                });
                report.add(name, compared.await.map(|it| compared_with(name, it, ONE_HOST, None)));
            }
        }
    }
    Ok(())
}

async fn ours(full: &Full, hosts: usize) -> Result<host::Ran> {
    let store = full.copy().await?;
    host::run(&store, hosts, full.executions).await
}

async fn alone(full: &Full, guest: Option<&BareGuest>) -> Result<f64> {
    let store = full.copy().await?;
    let (took, done) = bare::run(&store, guest).await?;
    ensure!(done == full.executions, "{done} of {} executions were done", full.executions);
    Ok(per_second(took, done))
}

fn compared_with(name: &str, compared: Comparison, against: &'static str, goal: Option<Goal>) -> Figure {
    Figure {
        name: name.to_owned(),
        value: compared.value,
        unit: "/s",
        against: Some(against),
        ratio: Some(compared.ratio),
        goal,
        between: Some(compared.between),
    }
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
fn per_second(took: Duration, executions: usize) -> f64 {
    executions as f64 / took.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
fn micros(took: Duration, executions: usize) -> f64 {
    took.as_secs_f64() * 1e6 / executions as f64
}

fn median(values: Vec<f64>) -> f64 {
    crate::rounds::quantile(&crate::rounds::sorted(values.into_iter()), 0.5)
}
