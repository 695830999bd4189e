//! `innkeeper execution …`

use std::fmt::Write as _;

use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use serde_json::json;
use uuid::Uuid;

use super::table::table;
use super::{CliError, Global, Report};
use crate::execution::{Failure, FailureKind, State};
use crate::job::Name;
use crate::store::{Blocker, ExecutionFilter, ExecutionRecord, Store};
use crate::wire;

mod change;

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
            let text = describe(&record);
            Ok(Report::new(&wire::Execution::from(record), text))
        }
        ExecutionCommand::Logs { id } => logs(&store, id).await,
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
                duration(record),
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

/// Everything about an execution, a line each.
pub(super) fn describe(record: &ExecutionRecord) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:13} {value}");
    };
    line("id", &record.id.to_string());
    line("job", record.job.as_str());
    line("handler", &format!("{} of plugin {}", record.handler, record.plugin));
    line("state", record.state.as_str());
    if let Some(blocker) = record.blocker {
        line("waits for", waits_for(blocker));
    }
    line("attempt", &format!("{} of {}", record.attempt, record.max_attempts));
    line("scheduled", &record.scheduled_at.to_string());
    for (name, time) in
        [("due", record.due_at), ("started", record.started_at), ("finished", record.finished_at)]
    {
        if let Some(time) = time {
            line(name, &time.to_string());
        }
    }
    if let Some(retry_of) = &record.retry_of {
        line("retry of", &retry_of.to_string());
    }
    if let Some(reason) = &record.cancel_requested {
        line("to be ended", reason);
    }
    line("args", &record.args.to_string());
    if let Some(host) = &record.host {
        line("host", host);
    }
    if let Some(digest) = &record.component_digest {
        line("component", digest);
    }
    if let Some(progress) = &record.progress {
        line("progress", &progress_text(progress));
    }
    match (&record.error, &record.result) {
        (Some(error), _) => line(error_label(error.kind), &error_text(error)),
        (None, Some(result)) => line("result", &result.to_string()),
        (None, None) => {}
    }
    text
}

fn waits_for(blocker: Blocker) -> &'static str {
    match blocker {
        Blocker::Limit => "a place in the limit or the rate of its job",
        Blocker::Key => "a place in the limit of its key",
        Blocker::After => "the jobs that its job comes after",
        Blocker::Paused => "its job to be resumed",
    }
}

/// A cancellation and a skip are no errors, and their kinds are the state.
fn error_label(kind: FailureKind) -> &'static str {
    if is_kind_of_end(kind) { "reason" } else { "error" }
}

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

fn duration(record: &ExecutionRecord) -> String {
    match (record.started_at, record.finished_at) {
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

async fn logs(store: &Store, id: Uuid) -> Result<Report, CliError> {
    find(store, id).await?;
    let mut text = String::new();
    let mut lines = Vec::new();
    for record in store.logs(id).await? {
        let log = wire::Log::from(record);
        let fields = log.fields.iter().map(|(name, value)| format!(" {name}={value}")).collect::<String>();
        let _ = writeln!(text, "{} [{}] {:5} {}{fields}", log.at, log.attempt, log.level, log.message);
        lines.push(log);
    }
    if lines.is_empty() {
        "Its handler has logged nothing yet.".clone_into(&mut text);
    }
    Ok(Report::new(&json!({ "execution": id.to_string(), "logs": lines }), text))
}
