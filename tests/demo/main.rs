//! The demo: makes a database full of sessions, lets the daemon clean it up on a schedule, and
//! shows what happens. `cargo xtask demo` builds and runs it.
//!
//! Everything that it knows of Innkeeper is what an operator knows: the binary's commands and
//! their JSON. What the plugin has done to the application's database it checks with SQL of
//! its own.

mod check;
mod daemon;
mod data;
mod database;
mod example;
mod screen;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior};

use check::Verdict;
use daemon::{Daemon, Execution};
use data::Data;
use database::{Application, create_on_server};
use example::{Databases, Folder, JOBS};
use screen::Screen;

const SESSIONS: i64 = 100_000;
const AUDIT_RECORDS: i64 = 20_000;
const SEED: u64 = 2;

/// How often the executions are asked for.
const INTERVAL: Duration = Duration::from_millis(500);

/// Executions that are asked for while the demo runs. The jobs make about twenty a minute.
const RECENT: u32 = 50;

/// After this many failures in a row to read the executions, the demo gives up.
const MOST_FAILURES: u32 = 20;

/// Cleans up 100,000 sessions on a schedule, and shows each execution as it is recorded.
#[derive(Parser)]
struct Options {
    /// Stop once every job has succeeded on its schedule, and check what it did
    #[arg(long)]
    once: bool,
    /// Where both databases are
    #[arg(long, value_enum, default_value_t = Engine::Sqlite)]
    store: Engine,
    /// A superuser's URL of a PostgreSQL server; the databases innkeeper_demo_store and
    /// innkeeper_demo_app on it are replaced
    #[arg(long, env = "INNKEEPER_DEMO_POSTGRES_URL", hide_env_values = true)]
    postgres_url: Option<String>,
    /// The folder for the example configuration, the databases and the log; it is emptied
    #[arg(long, default_value = "demo-data")]
    folder: PathBuf,
    /// With --once: how many seconds the jobs may take
    #[arg(long, default_value_t = 120)]
    time_limit: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Engine {
    Sqlite,
    Postgres,
}

/// One thread, which lives as long as the program: the daemon ends with the thread that
/// started it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("The demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let (innkeeper, guests) = programs()?;
    let folder = Folder::prepare(&options.folder)?;
    let now = innkeeper::clock::now();
    let data = Data::generate(SEED, now, SESSIONS, AUDIT_RECORDS);
    let databases = prepare(options, &folder, &data, &guests).await?;
    describe(&data, now, &folder);

    let mut daemon = Daemon::start(&innkeeper, &folder)?;
    println!("The daemon runs, and its jobs fire every few seconds. Ctrl-C stops it.\n");
    let mut screen = Screen::new();
    let limit = options.once.then(|| Duration::from_secs(options.time_limit));
    let end = tokio::select! {
        end = watch(&mut daemon, &mut screen, limit) => end,
        () = signals.received() => Ok(End::Interrupted),
    };
    screen.end_line();
    let end = match end {
        Ok(end) => end,
        Err(error) => {
            // The first problem is the one to tell. The daemon may be gone already.
            let _ = daemon.stop().await;
            return Err(error);
        }
    };
    println!("Stopping the daemon …");
    daemon.stop().await?;
    match end {
        End::Interrupted if options.once => Ok(ExitCode::from(130)),
        End::Interrupted => {
            println!("Stopped. What it did is in {}.", folder.config().with_file_name("").display());
            Ok(ExitCode::SUCCESS)
        }
        End::AllSucceeded => {
            println!("\n{}", screen::table(&daemon.executions(1000).await?));
            let application = Application::open(&databases).await?;
            let verdicts = check::check(&application, &data, now).await?;
            application.close().await;
            verdict(&verdicts)
        }
    }
}

/// Where the binary and the plugins are: named by the environment, or where cargo puts them
/// beside this program.
fn programs() -> Result<(PathBuf, PathBuf)> {
    let this = std::env::current_exe()?;
    let beside = this.parent().context("this program is in a folder")?;
    let target = beside.parent().unwrap_or(beside);
    let named = |variable: &str, default: PathBuf| std::env::var_os(variable).map_or(default, PathBuf::from);
    Ok((
        named("INNKEEPER_BIN", beside.join("innkeeper")),
        named("INNKEEPER_GUESTS", target.join("wasm32-wasip2").join("plugin")),
    ))
}

/// Makes the databases and the example, and fills the application's database.
async fn prepare(options: &Options, folder: &Folder, data: &Data, guests: &Path) -> Result<Databases> {
    let databases = match options.store {
        Engine::Sqlite => Databases::Sqlite { application: folder.application_file() },
        Engine::Postgres => {
            let server = options.postgres_url.as_deref().context(
                "--store postgres needs a server: `cargo xtask demo --store postgres` starts one, or name one \
                 with --postgres-url",
            )?;
            Databases::Postgres {
                store: create_on_server(server, "innkeeper_demo_store").await?,
                application: create_on_server(server, "innkeeper_demo_app").await?,
            }
        }
    };
    folder.write_example(&databases, guests)?;
    let application = Application::open(&databases).await?;
    application.fill(data).await.context("the application's database cannot be filled")?;
    application.close().await;
    Ok(databases)
}

fn describe(data: &Data, now: Timestamp, folder: &Folder) {
    let expired = data.sessions.iter().filter(|session| session.is_expired(now)).count();
    let old = data.audit_log.iter().filter(|record| record.is_old(now)).count();
    println!("{} sessions, {expired} of them expired.", data.sessions.len());
    println!(
        "{} records of the audit log, {old} of them older than {} days.",
        data.audit_log.len(),
        data::AUDIT_RETENTION_DAYS
    );
    println!("Configuration:  {}", folder.config().display());
    println!("Log:            {}", folder.log().display());
}

/// How watching ended, where nothing went wrong.
enum End {
    Interrupted,
    AllSucceeded,
}

/// Shows executions until every job has succeeded on its schedule; without a limit, for ever.
async fn watch(daemon: &mut Daemon, screen: &mut Screen, limit: Option<Duration>) -> Result<End> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    let mut succeeded = BTreeSet::new();
    let mut failures = 0;
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        daemon.check_alive()?;
        let problem = match daemon.executions(RECENT).await {
            Ok(executions) => {
                screen.update(&executions);
                failures = 0;
                if limit.is_some() {
                    fail_with_execution(&executions)?;
                    succeeded
                        .extend(executions.into_iter().filter(on_schedule).map(|execution| execution.job));
                    if JOBS.iter().all(|job| succeeded.contains(*job)) {
                        return Ok(End::AllSucceeded);
                    }
                }
                None
            }
            // At first the daemon may not have made its tables yet.
            Err(error) => {
                failures += 1;
                Some(error)
            }
        };
        if let Some(error) = problem
            && failures >= MOST_FAILURES
        {
            return Err(error.context(daemon.end_of_log()));
        }
        if deadline.is_some_and(|deadline| Instant::now() > deadline) {
            let missing: Vec<&str> = JOBS.into_iter().filter(|job| !succeeded.contains(*job)).collect();
            bail!(
                "after {} s these jobs have not succeeded on their schedule: {}\n{}",
                limit.unwrap_or_default().as_secs(),
                missing.join(", "),
                daemon.end_of_log()
            );
        }
    }
}

fn on_schedule(execution: &Execution) -> bool {
    execution.state == "succeeded" && execution.triggered_by == "schedule"
}

/// No job of the example has a reason to fail for good.
fn fail_with_execution(executions: &[Execution]) -> Result<()> {
    let Some(failed) =
        executions.iter().find(|e| matches!(e.state.as_str(), "failed" | "cancelled" | "skipped"))
    else {
        return Ok(());
    };
    let error = failed.error.clone().unwrap_or_default();
    bail!("execution {} of {} is {}: {}: {}", failed.id, failed.job, failed.state, error.kind, error.message)
}

fn verdict(verdicts: &[Verdict]) -> Result<ExitCode> {
    println!("Checked with SQL of its own, outside of the host:");
    for verdict in verdicts {
        let Verdict { table, deleted, kept, problems } = verdict;
        if problems.is_empty() {
            println!(
                "  {table:<9}  exactly the {deleted} rows that had to go are gone; the other {kept} are identical"
            );
        }
        for problem in problems {
            println!("  {table:<9}  {problem}");
        }
    }
    if verdicts.iter().any(|verdict| !verdict.problems.is_empty()) {
        bail!("the databases are not as they should be, see above");
    }
    println!("\nThe demo succeeded.");
    Ok(ExitCode::SUCCESS)
}

/// The signals that ask this program to stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
