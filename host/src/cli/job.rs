//! `innkeeper job …`

use std::time::Duration;

use clap::Subcommand;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::table::table;
use super::{CliError, Exit, Global, Report, execution};
use crate::engine::submit::submit;
use crate::execution::{State, Trigger};
use crate::job::Name;
use crate::store::{ExecutionRecord, JobRecord, NewExecution, Store, StoreError};
use crate::wire;

/// How often `--wait` looks.
const POLL: Duration = Duration::from_millis(200);

#[derive(Debug, Subcommand)]
pub(super) enum JobCommand {
    /// List the jobs that the hosts have written to the store.
    List,
    /// Show one job.
    Show {
        /// The job's name.
        job: Name,
    },
    /// Enqueue an execution of a job.
    Run {
        /// The job's name.
        job: Name,
        /// Its arguments, as JSON; left out: those of the job.
        #[arg(long, value_name = "JSON", value_parser = parse_json)]
        args: Option<Value>,
        /// Wait until it has ended; exit with 1 if it did not succeed.
        #[arg(long)]
        wait: bool,
    },
    /// Show when a job fires next.
    Next {
        /// The job's name.
        job: Name,
        /// How many fire times.
        #[arg(short = 'n', long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        count: u32,
    },
}

/// One fire time, as `--json` prints it.
#[derive(Serialize)]
struct Fire {
    utc: String,
    local: String,
}

pub(super) async fn run(global: &Global, command: JobCommand) -> Result<Report, CliError> {
    let store = global.open_store().await?;
    match command {
        JobCommand::List => list(&store).await,
        JobCommand::Show { job } => show(&store, &job).await,
        JobCommand::Run { job, args, wait } => run_job(&store, &job, args.as_ref(), wait).await,
        JobCommand::Next { job, count } => next(&store, &job, count).await,
    }
}

fn parse_json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}

async fn list(store: &Store) -> Result<Report, CliError> {
    let jobs = store.jobs().await?;
    let text = table(
        ["JOB", "PLUGIN", "HANDLER", "SCHEDULE", "NEXT", "LAST"],
        jobs.iter().map(|record| {
            let job = &record.job;
            let next = record.next_fire_at.map_or_else(|| "-".to_owned(), |at| at.to_string());
            let last = record.last.map_or("-", |last| last.state.as_str());
            let (plugin, handler) = (job.plugin.to_string(), job.handler.clone());
            [job.name.to_string(), plugin, handler, schedule(record), next, last.to_owned()]
        }),
    );
    let jobs = jobs.into_iter().map(wire::Job::from).collect::<Vec<_>>();
    Ok(Report::new(&json!({ "jobs": jobs }), text))
}

fn schedule(record: &JobRecord) -> String {
    match &record.job.schedule {
        _ if record.retired_at.is_some() => "retired".to_owned(),
        Some(schedule) if record.job.enabled => schedule.to_string(),
        Some(schedule) => format!("disabled ({schedule})"),
        None => "by hand".to_owned(),
    }
}

async fn show(store: &Store, name: &Name) -> Result<Report, CliError> {
    let record = store.job(name).await?;
    let job = &record.job;
    let at = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
    let lines = [
        ("name", job.name.to_string()),
        ("plugin", job.plugin.to_string()),
        ("handler", job.handler.clone()),
        ("args", job.args.to_string()),
        ("schedule", schedule(&record)),
        ("next fire", at(record.next_fire_at)),
        ("timeout", humantime::format_duration(job.timeout).to_string()),
        ("attempts", format!("at most {}", job.retry.max_attempts)),
        ("owner", record.owner.clone()),
        (
            "last execution",
            record.last.map_or_else(|| "-".to_owned(), |l| format!("{} {}", l.id, l.state.as_str())),
        ),
    ];
    let text = lines.map(|(name, value)| format!("{name:15} {value}\n")).concat();
    Ok(Report::new(&wire::Job::from(record), text))
}

async fn run_job(store: &Store, name: &Name, args: Option<&Value>, wait: bool) -> Result<Report, CliError> {
    let job = store.job(name).await?.job;
    if wait {
        need_host(store, &job.plugin, name).await?;
    }
    let execution = NewExecution {
        job: name,
        args,
        triggered_by: Trigger::Manual,
        run_at: None,
        unique_key: None,
        by: None,
    };
    let id = submit(store, &execution).await?.id;
    if !wait {
        let record = find(store, id).await?;
        return Ok(Report::new(&wire::Execution::from(record), format!("enqueued {id}")));
    }
    let record = wait_for_end(store, id, &job.plugin).await?;
    let exit = if record.state == State::Succeeded { Exit::Done } else { Exit::JobFailed };
    let text = execution::describe(&record);
    Ok(Report { exit, ..Report::new(&wire::Execution::from(record), text) })
}

async fn need_host(store: &Store, plugin: &Name, job: &Name) -> Result<(), CliError> {
    if store.live_hosts_with_plugin(plugin).await?.is_empty() {
        return Err(CliError::unreachable(format!(
            "no live host has plugin `{plugin}`, so nothing would run job `{job}`: start `innkeeper serve`, or \
             leave `--wait` out to enqueue it for later"
        )));
    }
    Ok(())
}

/// Looks again and again; the store is the truth. Gives up when the last host that could run
/// it is gone.
async fn wait_for_end(store: &Store, id: Uuid, plugin: &Name) -> Result<ExecutionRecord, CliError> {
    loop {
        let record = find(store, id).await?;
        if record.state.is_final() {
            return Ok(record);
        }
        if store.live_hosts_with_plugin(plugin).await?.is_empty() {
            return Err(CliError::unreachable(format!(
                "execution {id} is {}, and no live host has plugin `{plugin}` any more; it stays in the store, \
                 and a host that starts will go on with it",
                record.state.as_str()
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn find(store: &Store, id: Uuid) -> Result<ExecutionRecord, CliError> {
    let record = store.execution(id).await?;
    record.ok_or_else(|| StoreError::Corrupt(format!("execution {id} is gone")).into())
}

async fn next(store: &Store, name: &Name, count: u32) -> Result<Report, CliError> {
    let record = store.job(name).await?;
    let Some(schedule) = record.job.schedule.as_ref().filter(|_| record.job.enabled) else {
        let why =
            if record.job.schedule.is_some() { "its schedule is disabled" } else { "it has no schedule" };
        return Ok(Report::new(
            &json!({ "job": name, "fires": [] }),
            format!("{name} does not fire: {why}."),
        ));
    };
    let mut fires = Vec::new();
    let mut time = crate::clock::now();
    while fires.len() < count as usize {
        let Some(fire) = schedule.next_after(time) else { break };
        fires.push(Fire {
            utc: fire.to_string(),
            local: fire.to_zoned(schedule.zone().clone()).strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string(),
        });
        time = fire;
    }
    let zone = zone_name(schedule.zone());
    let text = if fires.is_empty() {
        format!("{name} does not fire any more.")
    } else {
        table(["LOCAL", "UTC"], fires.iter().map(|fire| [format!("{} {zone}", fire.local), fire.utc.clone()]))
    };
    Ok(Report::new(&json!({ "job": name, "fires": fires }), text))
}

fn zone_name(zone: &TimeZone) -> &str {
    zone.iana_name().unwrap_or("UTC")
}
