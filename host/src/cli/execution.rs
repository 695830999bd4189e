//! `innkeeper execution …`

use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::table::table;
use super::{CliError, Global, Report};
use crate::execution::{Failure, FailureKind, State};
use crate::job::Name;
use crate::store::{ExecutionFilter, ExecutionRecord, Store};
use crate::wire;

mod change;
mod logs;
mod show;
mod usage;

pub(super) use show::describe;

#[derive(Debug, Subcommand)]
pub(super) enum ExecutionCommand {
    /// List executions, the newest first.
    List {
        /// Of this job only.
        #[arg(long)]
        job: Option<Name>,
        /// In this state only.
        #[arg(long, value_parser = PossibleValuesParser::new(State::ALL.map(State::as_str)))]
        state: Option<String>,
        /// This many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Show one execution.
    Show {
        /// Its id.
        #[arg(value_parser = parse_id)]
        id: Uuid,
    },
    /// Show what an execution's handler has logged and printed.
    Logs {
        /// Its id.
        #[arg(value_parser = parse_id)]
        id: Uuid,
        /// Go on until it has ended, all its attempts; with --json, one document in each line.
        #[arg(long, short)]
        follow: bool,
    },
    /// Cancel executions: what has not started never will, and what runs is told to end.
    Cancel {
        /// Their ids.
        #[arg(value_parser = parse_id, required = true, value_name = "ID")]
        ids: Vec<Uuid>,
        /// Why, for whoever looks at them later.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Repeat executions that failed, were cancelled or skipped, each as a new one.
    Retry {
        /// Their ids.
        #[arg(value_parser = parse_id, required = true, value_name = "ID")]
        ids: Vec<Uuid>,
        /// Also those that succeeded.
        #[arg(long)]
        force: bool,
    },
}

fn parse_id(text: &str) -> Result<Uuid, String> {
    text.parse().map_err(|_| {
        "an execution's id is a UUID, all of it, as `innkeeper execution list` shows it".to_owned()
    })
}

pub(super) async fn run(global: &Global, command: ExecutionCommand) -> Result<Report, CliError> {
    let store = global.open_store().await?;
    match command {
        ExecutionCommand::List { job, state, limit } => list(&store, job, state.as_deref(), limit).await,
        ExecutionCommand::Show { id } => {
            let record = find(&store, id).await?;
            show::show(&store, record).await
        }
        ExecutionCommand::Logs { id, follow: false } => {
            find(&store, id).await?;
            logs::all(&store, id, global.json).await
        }
        ExecutionCommand::Logs { id, follow: true } => logs::follow(&store, id, global.json).await,
        ExecutionCommand::Cancel { ids, reason } => change::cancel(&store, &ids, reason.as_deref()).await,
        ExecutionCommand::Retry { ids, force } => change::retry(&store, &ids, force).await,
    }
}

async fn list(store: &Store, job: Option<Name>, state: Option<&str>, limit: u32) -> Result<Report, CliError> {
    let state = State::ALL.into_iter().find(|known| Some(known.as_str()) == state);
    let filter = ExecutionFilter { job, state, before: None, limit };
    let records = store.executions(&filter).await?;
    if records.is_empty() {
        if let Some(job) = &filter.job {
            // A mistyped name is no empty history.
            store.job(job).await?;
        }
        let all = filter.job.is_none() && filter.state.is_none();
        let text = if all { "There are no executions yet." } else { "There are no such executions." };
        return Ok(Report::new(&json!({ "executions": [] }), text));
    }
    let text = table(
        ["ID", "JOB", "STATE", "ATTEMPT", "SCHEDULED", "DURATION", "RESULT"],
        records.iter().map(|record| {
            [
                record.id.to_string(),
                record.job.to_string(),
                record.state.as_str().to_owned(),
                format!("{}/{}", record.attempt, record.max_attempts),
                record.scheduled_at.to_string(),
                duration(record.started_at, record.finished_at),
                in_one_line(&outcome(record)),
            ]
        }),
    );
    let executions = records.into_iter().map(wire::Execution::from).collect::<Vec<_>>();
    Ok(Report::new(&json!({ "executions": executions }), text))
}

async fn find(store: &Store, id: Uuid) -> Result<ExecutionRecord, CliError> {
    let record = store.execution(id).await?;
    record.ok_or_else(|| CliError::usage(unknown(id)))
}

fn unknown(id: Uuid) -> String {
    format!("there is no execution {id}, or no longer; `innkeeper execution list` shows those there are")
}

/// The kind of a failure and what happened, where the kind says more than the state.
fn error_text(error: &Failure) -> String {
    if is_kind_of_end(error.kind) {
        return error.message.clone();
    }
    format!("{}: {}", error.kind.as_str(), error.message)
}

fn is_kind_of_end(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Cancelled | FailureKind::Skipped)
}

fn progress_text(progress: &crate::execution::Progress) -> String {
    let total = progress.total.map(|total| format!(" of {total}")).unwrap_or_default();
    let message = progress.message.as_deref().map(|message| format!(" ({message})")).unwrap_or_default();
    format!("{}{total}{message}", progress.done)
}

fn outcome(record: &ExecutionRecord) -> String {
    match (&record.error, &record.result, &record.progress) {
        (Some(error), ..) => error_text(error),
        (None, Some(result), _) => result.to_string(),
        (None, None, Some(progress)) => progress_text(progress),
        (None, None, None) => String::new(),
    }
}

fn duration(started: Option<Timestamp>, finished: Option<Timestamp>) -> String {
    match (started, finished) {
        (Some(started), Some(finished)) => {
            let seconds = finished.duration_since(started).as_secs_f64();
            format!("{seconds:.3}s")
        }
        _ => "-".to_owned(),
    }
}

/// What a list has room for.
pub(super) fn in_one_line(text: &str) -> String {
    const ROOM: usize = 80;
    let line = text.trim().lines().next().unwrap_or_default();
    if line.chars().count() > ROOM {
        let cut = line.chars().take(ROOM - 1).collect::<String>();
        format!("{cut}…")
    } else {
        line.to_owned()
    }
}
