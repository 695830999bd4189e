//! Other schedulers at the same work: no-op jobs that wait in a PostgreSQL database of the same
//! server, each scheduler set up as its own documentation says to make it fast.
//!
//! Each is a program of its own, with two commands: `enqueue URL JOBS` fills an empty database;
//! `run URL JOBS` does all of them, makes sure of it, and prints how many microseconds passed
//! between its first call of a handler and the last job that it has recorded as done. Ours is
//! timed from the first recorded start, and by polling: both are to our disadvantage.

mod install;

use std::ffi::OsString;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use innkeeper::database_url::DatabaseUrl;
use innkeeper_tests::database::{Engine, TestDatabase};
use sqlx::{Connection as _, PgConnection};
use tokio::process::Command;

use super::scene::Full;
use super::{EXECUTIONS, compared_with, ours, per_second};
use crate::Selection;
use crate::figure::{Figure, Goal, Report};
use crate::rounds::{Round, alternate};

/// Rounds that count.
const ROUNDS: usize = 3;

/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(300);

/// A scheduler to be compared with.
struct Rival {
    figure: &'static str,
    name: &'static str,
    /// Makes its program runnable: what to start, and the arguments before the command.
    install: fn() -> Result<Vec<OsString>>,
    /// Settings that it takes from the environment only.
    environment: &'static [(&'static str, &'static str)],
}

const RIVALS: [Rival; 2] = [
    Rival {
        figure: "noop_vs_graphile_worker",
        name: "graphile-worker",
        install: install::graphile_worker,
        environment: &[],
    },
    Rival {
        figure: "noop_vs_awa",
        name: "awa",
        install: install::awa,
        // It has four for so many workers otherwise, which take longer on two cores.
        environment: &[("AWA_COMPLETION_SHARDS", "1")],
    },
];

/// Measures what is selected.
pub async fn measure(selection: &Selection, report: &mut Report) {
    for rival in RIVALS {
        if selection.wants(rival.figure) {
            report.add(rival.figure, rival.compare(selection).await);
        }
    }
}

impl Rival {
    async fn compare(&self, selection: &Selection) -> Result<Figure> {
        let program = (self.install)()?;
        let executions = if selection.quick { EXECUTIONS / 10 } else { EXECUTIONS };
        let full = Full::prepare(Engine::Postgres, executions).await?;
        let filled = TestDatabase::empty(Engine::Postgres).await;
        self.call(&program, "enqueue", &filled, executions).await?;
        let compared = alternate(selection.rounds(ROUNDS), async || {
            let ours = per_second(ours(&full, 1).await?.took, executions);
            let copy = copy(&filled).await?;
            let printed = self.call(&program, "run", &copy, executions).await?;
            let took =
                printed.trim().parse().with_context(|| format!("{} printed {printed:?}", self.name))?;
            Ok(Round { ours, theirs: per_second(Duration::from_micros(took), executions) })
        });
        Ok(compared_with(self.figure, compared.await?, self.name, Some(Goal::AtLeast(1.0))))
    }

    /// Runs one command of its program, and returns what that printed.
    async fn call(
        &self,
        program: &[OsString],
        command: &str,
        database: &TestDatabase,
        jobs: usize,
    ) -> Result<String> {
        let [program, args @ ..] = program else { bail!("{} has no program", self.name) };
        let mut call = Command::new(program);
        call.args(args).arg(command).arg(database.address()).arg(jobs.to_string());
        call.envs(self.environment.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
        let ended = tokio::time::timeout(PATIENCE, call.output()).await;
        let Output { status, stdout, stderr } = ended
            .with_context(|| format!("{} is not done after {PATIENCE:?}", self.name))?
            .with_context(|| format!("{} could not be started", program.display()))?;
        let stderr = String::from_utf8_lossy(&stderr);
        ensure!(status.success(), "`{command}` of {} failed ({status}):\n{}", self.name, stderr.trim_end());
        Ok(String::from_utf8(stdout)?)
    }
}

/// A copy of what a rival has enqueued, in the state in which a copy of ours is: with its
/// statistics, and its pages on disk.
async fn copy(filled: &TestDatabase) -> Result<TestDatabase> {
    let copy = TestDatabase::copy_of(filled).await;
    let DatabaseUrl::Postgres(url) = copy.url() else { bail!("it is not PostgreSQL") };
    let mut connection = PgConnection::connect(url).await?;
    let durable: String = sqlx::query_scalar("show synchronous_commit").fetch_one(&mut connection).await?;
    ensure!(durable == "on", "the server has synchronous_commit = {durable}; it has to be on");
    for statement in ["vacuum analyze", "checkpoint"] {
        sqlx::raw_sql(statement).execute(&mut connection).await?;
    }
    connection.close().await?;
    Ok(copy)
}
