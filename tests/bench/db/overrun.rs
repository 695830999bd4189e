//! How much later than its time-out a call has ended, with everything that it did cleaned up.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use innkeeper::execution::{FailureKind, Outcome};
use innkeeper_tests::database::Engine;
use innkeeper_tests::raw::Raw;
use serde_json::{Value, json};

use super::native::APPLICATION;
use super::{Bench, name_on};
use crate::Selection;
use crate::figure::{Figure, Report};
use crate::rounds::{quantile, sorted};

const ENDED: &str = "timeout_overshoot_p99";
/// PL/pgSQL can catch a cancelled statement and go on; then the server's process is ended.
const CAUGHT: &str = "timeout_overshoot_caught_cancel_p99";

/// The figures; the last is PostgreSQL's alone.
pub const NAMES: [&str; 2] = [ENDED, CAUGHT];

/// Executions that each figure is of, all one after the other.
const EXECUTIONS: usize = 102;
const EXECUTIONS_CAUGHT: usize = 10;

/// No call exceeds its time-out by more.
const PATIENCE: Duration = Duration::from_secs(10);

/// A way to be still at work.
struct Overrun {
    args: Value,
    /// What it waits for is locked by somebody else.
    locked: bool,
}

/// Has executions run into their time-outs, and adds by how much the calls exceeded them.
pub async fn measure(bench: &Bench, selection: &Selection, report: &mut Report) {
    let executions = |all: usize, quick: usize| if selection.quick { quick } else { all };
    let name = name_on(bench.engine, ENDED);
    if selection.wants(&name) {
        let measured = p99(&name, bench, &kinds(bench), executions(EXECUTIONS, 12)).await;
        report.add(&name, measured);
    }
    let name = name_on(bench.engine, CAUGHT);
    if bench.engine == Engine::Postgres && selection.wants(&name) {
        let catches = "do $$ begin loop begin perform pg_sleep(600); exception when query_canceled then null; \
                       end; end loop; end $$";
        let kinds = [Overrun { args: json!({ "then": "statement", "sql": catches }), locked: false }];
        let measured = p99(&name, bench, &kinds, executions(EXECUTIONS_CAUGHT, 2)).await;
        report.add(&name, measured);
    }
}

fn kinds(bench: &Bench) -> Vec<Overrun> {
    let statements = bench.statements;
    let waits = match bench.engine {
        Engine::Sqlite => statements.endless,
        Engine::Postgres => "select pg_sleep(600)",
    };
    let free = |args| Overrun { args, locked: false };
    vec![
        free(json!({ "then": "statement", "sql": waits })),
        free(json!({ "then": "statement", "sql": statements.endless, "change": statements.change })),
        free(json!({ "then": "statements", "sql": "select 1" })),
        free(json!({ "then": "spin", "change": statements.change })),
        free(json!({ "then": "sleep", "change": statements.change })),
        Overrun { args: json!({ "then": "statement", "sql": statements.change }), locked: true },
    ]
}

async fn p99(name: &str, bench: &Bench, kinds: &[Overrun], executions: usize) -> Result<Figure> {
    let mut other = Raw::connect(bench.tables.url()).await;
    let mut overshoots = Vec::with_capacity(executions);
    for number in 0..executions {
        let kind = &kinds[number % kinds.len()];
        // Not in step with anything that ticks.
        let timeout = Duration::from_millis(50 + (number as u64 * 7) % 51);
        let late = overshoot(bench, &mut other, kind, timeout).await;
        overshoots.push(late.with_context(|| kind.args.to_string())?);
    }
    Ok(Figure::alone(name, quantile(&sorted(overshoots.into_iter()), 0.99), "ms"))
}

/// By how many milliseconds one call exceeds its time-out. `other` is a connection besides the
/// host's.
async fn overshoot(bench: &Bench, other: &mut Raw, kind: &Overrun, timeout: Duration) -> Result<f64> {
    if kind.locked {
        other.try_execute(bench.statements.lock).await?;
    }
    let start = Instant::now();
    let outcome = bench.guest.call("overrun", kind.args.clone(), timeout).await?;
    let mut late = start.elapsed().saturating_sub(timeout);
    let in_use = bench.guest.connections_in_use();
    ensure!(
        matches!(&outcome, Outcome::Failed(failure) if failure.kind == FailureKind::Timeout),
        "it did not end by its time-out of {timeout:?}: {outcome:?}"
    );
    ensure!(in_use == 0, "{in_use} connections are still in use");
    if kind.locked {
        other.try_execute("rollback").await?;
    }
    // At the first look all is clean. Only a server's process that was ended may still be ending
    // its transaction, and then the call is not over before that.
    while !is_clean(bench.engine, other).await? {
        late = start.elapsed().saturating_sub(timeout);
        ensure!(late < PATIENCE, "the call has left a transaction open in the database");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(late.as_secs_f64() * 1e3)
}

/// True where the database has no transaction of the host's any more.
async fn is_clean(engine: Engine, other: &mut Raw) -> Result<bool> {
    match engine {
        // Where somebody still has a lock, this fails at once.
        Engine::Sqlite => Ok(other.try_execute("begin immediate; rollback").await.is_ok()),
        Engine::Postgres => {
            let busy = format!(
                "select count(*) from pg_stat_activity where datname = current_database() and state <> 'idle' \
                 and pid <> pg_backend_pid() and application_name <> '{APPLICATION}'"
            );
            Ok(other.count(&busy).await == 0)
        }
    }
}
