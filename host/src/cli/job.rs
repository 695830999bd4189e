//! `innkeeper job …`

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::fires::Wanted;
use super::table::table;
use super::{CliError, Exit, Global, Report, execution};
use crate::bounds;
use crate::engine::submit::submit;
use crate::execution::{State, Trigger};
use crate::job::{History, Job, Name};
use crate::policy::{Policies, Queue};
use crate::schedule::Schedule;
use crate::store::{Enqueued, ExecutionRecord, JobRecord, NewExecution, Store};
use crate::wire;

mod backfill;
mod explain;
mod missed;
mod next;
mod pause;
mod wait;

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
        /// Do nothing where an execution of the job with this key has not ended: that one is told.
        #[arg(long, value_name = "KEY")]
        unique_key: Option<String>,
        /// Wait until it has ended; exit with 1 if it did not succeed.
        #[arg(long)]
        wait: bool,
    },
    /// Show when a job fires next.
    Next {
        /// The job's name.
        job: Name,
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Fire nothing and start nothing of a job until it is resumed. What runs goes on.
    Pause {
        /// The job's name.
        job: Name,
        /// Why, for whoever looks at it later.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// End the pause of a job: it fires from now on, and what waits goes on.
    Resume {
        /// The job's name.
        job: Name,
    },
    /// Run a job for times of its schedule that have passed.
    Backfill(backfill::Backfill),
    /// Explain in plain English when a job runs and how, and why it is not running right now.
    Explain {
        /// The job's name.
        job: Name,
    },
}

pub(super) async fn run(global: &Global, command: JobCommand) -> Result<Report, CliError> {
    let store = global.open_store().await?;
    match command {
        JobCommand::List => list(&store).await,
        JobCommand::Show { job } => show(&store, &job).await,
        JobCommand::Run { job, args, unique_key, wait } => {
            run_job(&store, &job, args.as_ref(), unique_key.as_deref(), wait).await
        }
        JobCommand::Next { job, wanted } => next::next(&store, &job, &wanted).await,
        JobCommand::Pause { job, reason } => pause::pause(&store, &job, reason.as_deref()).await,
        JobCommand::Resume { job } => pause::resume(&store, &job).await,
        JobCommand::Backfill(command) => backfill::backfill(&store, &command).await,
        JobCommand::Explain { job } => explain::explain(&store, &job, &global.load()?).await,
    }
}

fn parse_json(text: &str) -> Result<Value, String> {
    bounds::document(text).map_err(|why| format!("it {why}"))
}

async fn list(store: &Store) -> Result<Report, CliError> {
    let jobs = store.jobs().await?;
    if jobs.is_empty() {
        let text = "There are no jobs yet: `innkeeper serve` writes those of its configuration to the store.";
        return Ok(Report::new(&json!({ "jobs": [] }), text));
    }
    let text = table(
        ["JOB", "PLUGIN", "HANDLER", "QUEUE", "SCHEDULE", "NEXT", "LAST"],
        jobs.iter().map(|record| {
            let job = &record.job;
            let next = record.next_fire_at.filter(|_| firing(record).is_ok());
            let next = next.map_or_else(|| "-".to_owned(), |at| at.to_string());
            let last = record.last.map_or("-", |last| last.state.as_str());
            let (plugin, handler) = (job.plugin.to_string(), job.handler.clone());
            let queue = queue_name(job).to_owned();
            [job.name.to_string(), plugin, handler, queue, schedule(record), next, last.to_owned()]
        }),
    );
    let jobs = jobs.into_iter().map(wire::Job::from).collect::<Vec<_>>();
    Ok(Report::new(&json!({ "jobs": jobs }), text))
}

fn schedule(record: &JobRecord) -> String {
    match &record.job.schedule {
        _ if record.retired_at.is_some() => "retired".to_owned(),
        Some(schedule) if !record.job.enabled => format!("disabled ({schedule})"),
        Some(schedule) if record.paused_at.is_some() => format!("paused ({schedule})"),
        Some(schedule) => schedule.to_string(),
        None if record.paused_at.is_some() => "paused".to_owned(),
        None => match &record.job.policies.after {
            Some(after) => format!("after {}", names(&after.jobs)),
            None => "by hand".to_owned(),
        },
    }
}

async fn show(store: &Store, name: &Name) -> Result<Report, CliError> {
    let record = store.job(name).await?;
    let job = &record.job;
    let policies = &job.policies;
    let at = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
    let lines = [
        ("name", job.name.to_string()),
        ("plugin", job.plugin.to_string()),
        ("handler", job.handler.clone()),
        ("args", job.args.to_string()),
        ("schedule", schedule(&record)),
        ("next fire", at(record.next_fire_at.filter(|_| firing(&record).is_ok()))),
        ("paused", paused(&record)),
        ("queue", queue_name(job).to_owned()),
        ("priority", policies.priority.to_string()),
        ("at once", concurrency(policies)),
        ("rate", policies.rate.map_or_else(|| "-".to_owned(), |rate| rate.to_string())),
        ("after", policies.after.as_ref().map_or_else(|| "-".to_owned(), |after| names(&after.jobs))),
        ("on failure", policies.on_failure.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)),
        ("timeout", humantime::format_duration(job.timeout).to_string()),
        ("attempts", format!("at most {}", job.retry.max_attempts)),
        ("history", history(job.history)),
        ("owner", record.owner.clone()),
        (
            "last execution",
            record.last.map_or_else(|| "-".to_owned(), |l| format!("{} {}", l.id, l.state.as_str())),
        ),
    ];
    let text = lines.map(|(name, value)| format!("{name:15} {value}\n")).concat();
    Ok(Report::new(&wire::Job::from(record), text))
}

fn queue_name(job: &Job) -> &str {
    job.policies.queue.as_ref().map_or(Queue::DEFAULT, Name::as_str)
}

fn names(jobs: &[Name]) -> String {
    jobs.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
}

fn paused(record: &JobRecord) -> String {
    let Some(at) = record.paused_at else { return "-".to_owned() };
    let why = record.paused_reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    format!("since {at}{why}")
}

fn concurrency(policies: &Policies) -> String {
    let limits = policies.concurrency.as_ref();
    let whole = limits.and_then(|limits| limits.limit).map(|limit| format!("at most {limit}"));
    let key = limits.and_then(|limits| limits.per_key.as_ref());
    let key = key.map(|key| format!("at most {} for each {}", key.limit, key.pointer));
    let parts: Vec<String> = [whole, key].into_iter().flatten().collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
}

fn history(history: History) -> String {
    // In days, as most people would write it: a year of humantime has 365.25 of them.
    let keep = history.keep.map(|keep| match keep.as_secs() {
        secs if secs % 86_400 == 0 => format!("{} days", secs / 86_400),
        _ => humantime::format_duration(keep).to_string(),
    });
    let keep = keep.map_or_else(|| "for ever".to_owned(), |keep| format!("for {keep}"));
    history.last.map_or_else(|| keep.clone(), |last| format!("{keep}, the newest {last} at most"))
}

async fn run_job(
    store: &Store,
    name: &Name,
    args: Option<&Value>,
    unique_key: Option<&str>,
    wait: bool,
) -> Result<Report, CliError> {
    let record = store.job(name).await?;
    if let Some(at) = record.retired_at {
        return Err(CliError::usage(format!(
            "job `{name}` was retired at {at}, since no configuration named it any more: put it back into the \
             configuration and restart the host"
        )));
    }
    let job = record.job;
    if wait {
        need_host(store, &job.plugin, name).await?;
    }
    let execution =
        NewExecution { job: name, args, triggered_by: Trigger::Manual, run_at: None, unique_key, by: None };
    let Enqueued { id, created } = submit(store, &execution).await?;
    // A hint: without it, hosts find the execution a moment later.
    let _ = store.wake_hosts().await;
    if !wait {
        let record = store.execution(id).await.ok().flatten().ok_or_else(|| {
            CliError::unreachable(format!(
                "execution {id} was enqueued, and then the store did not answer; \
                 `innkeeper execution show {id}` tells what became of it"
            ))
        })?;
        let text = if created { format!("enqueued {id}") } else { key_is_taken(id, &record) };
        return Ok(Report::new(&wire::Execution::from(record), text));
    }
    let record = wait::wait_for_end(store, id, &job.plugin).await?;
    let exit = if record.state == State::Succeeded { Exit::Done } else { Exit::JobFailed };
    let text = execution::describe(&record);
    Ok(Report { exit, ..Report::new(&wire::Execution::from(record), text) })
}

fn key_is_taken(id: Uuid, record: &ExecutionRecord) -> String {
    format!("nothing was enqueued: execution {id} has this unique key, and is {}", record.state.as_str())
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

/// Whether its schedule fires, or why not.
pub(in crate::cli) fn state_of(record: &JobRecord) -> Result<(), String> {
    firing(record).map(drop)
}

/// The schedule, or why it does not fire.
fn firing(record: &JobRecord) -> Result<&Schedule, String> {
    if let Some(at) = record.retired_at {
        return Err(format!("it was retired at {at}, since no configuration named it any more"));
    }
    let schedule = record.job.schedule.as_ref().ok_or("it has no schedule")?;
    if !record.job.enabled {
        return Err("its schedule is disabled (`enabled = false`)".to_owned());
    }
    match record.paused_at {
        Some(at) => {
            let why = record.paused_reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            Err(format!("it is paused since {at}{why}"))
        }
        None => Ok(schedule),
    }
}
