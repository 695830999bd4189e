//! `innkeeper execution show`: everything about one execution.

use std::fmt::Write as _;

use super::usage::used;
use super::{duration, error_text, in_one_line, is_kind_of_end, progress_text};
use crate::cli::table::table;
use crate::cli::{CliError, Report};
use crate::execution::FailureKind;
use crate::store::{AttemptOutcome, AttemptRecord, Blocker, ExecutionRecord, Store};
use crate::wire;

/// Attempts that are told. A job may have a thousand, and those that were released come on top.
const ATTEMPTS: u32 = 100;

pub(super) async fn show(store: &Store, record: ExecutionRecord) -> Result<Report, CliError> {
    let attempts = store.attempts(record.id, ATTEMPTS).await?;
    let mut text = describe(&record);
    if attempts.len() > 1 {
        let _ = write!(text, "\n{}", list(&attempts));
    }
    let json = wire::ExecutionInFull {
        execution: wire::Execution::from(record),
        attempts: attempts.into_iter().map(wire::Attempt::from).collect(),
    };
    Ok(Report::new(&json, text))
}

/// A line for each attempt.
fn list(attempts: &[AttemptRecord]) -> String {
    table(
        ["ATTEMPT", "HOST", "COMPONENT", "STARTED", "DURATION", "OUTCOME", "USED"],
        attempts.iter().map(|attempt| {
            [
                attempt.attempt.to_string(),
                attempt.host.clone().unwrap_or_else(|| "-".to_owned()),
                attempt.component_digest.as_deref().map_or_else(|| "-".to_owned(), short),
                attempt.started_at.to_string(),
                duration(Some(attempt.started_at), attempt.finished_at),
                in_one_line(&outcome(attempt)),
                attempt.usage.as_ref().map_or_else(|| "-".to_owned(), used),
            ]
        }),
    )
}

fn outcome(attempt: &AttemptRecord) -> String {
    match (attempt.outcome, &attempt.error) {
        (None, _) => "running".to_owned(),
        (Some(AttemptOutcome::Failed), Some(error)) => error_text(error),
        (Some(outcome), _) => outcome.as_str().to_owned(),
    }
}

/// As much of a digest as tells one component from another.
fn short(digest: &str) -> String {
    let hexadecimal = digest.split_once(':').map_or(digest, |(_, rest)| rest);
    hexadecimal.chars().take(12).collect()
}

/// Everything about an execution, a line each.
pub(in crate::cli) fn describe(record: &ExecutionRecord) -> String {
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
    if let Some(usage) = &record.usage {
        line("used", &used(usage));
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
