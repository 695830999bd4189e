//! One call of a handler: from an attempt to its outcome.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_config::WasiConfigVariables;

use super::Runtime;
use super::load::{LoadedComponent, reason};
use super::state::{self, GuestState};
use crate::bounds;
use crate::execution::{Attempt, Failure, FailureKind, LogLevel, LogLine, Outcome, Trigger};
use crate::interfaces::Port;
use crate::interfaces::bindings::innkeeper::plugin::types;
use crate::interfaces::db::{Ended, Session};
use crate::interfaces::granted::Granted;
use crate::interfaces::stdio::Output;
use crate::limits::{Limits, Usage};

/// What a call needs besides the component.
pub struct Call<'a> {
    /// What to run.
    pub attempt: &'a Attempt,
    /// The plugin's configuration, as `wasi:config` serves it.
    pub config: Arc<WasiConfigVariables>,
    /// What it was granted besides databases and jobs.
    pub capabilities: Arc<Granted>,
    /// The execution's own transactions; ended before this call returns.
    pub session: Arc<Session>,
    /// The host's side.
    pub port: Arc<dyn Port>,
    /// What it may use.
    pub limits: Limits,
    /// Ends the call before it is done.
    pub stop: &'a Stop,
}

/// How a call ended, and what it has used.
#[derive(Debug)]
pub struct Called {
    /// The attempt's outcome.
    pub outcome: Outcome,
    /// None where the handler was not called.
    pub usage: Option<Usage>,
}

impl Called {
    /// The handler was not called at all.
    #[must_use]
    pub fn not(outcome: Outcome) -> Self {
        Self { outcome, usage: None }
    }
}

/// Ends a call from outside: the guest is stopped wherever it is.
pub type Stop = CancellationToken;

/// How the guest's part of a call ended.
enum Ending {
    Returned(Result<String, types::Failure>),
    /// There was no instance to call.
    NotInstantiated(wasmtime::Error),
    Trapped(wasmtime::Error),
    TimedOut,
    Stopped,
}

impl Runtime {
    /// Runs a handler in a fresh instance and says how it went.
    ///
    /// Whatever happens, in this order: the guest is ended, its transactions are ended, its
    /// instance is dropped; then this returns. The caller records the completion.
    pub async fn call(&self, component: &LoadedComponent, call: Call<'_>) -> Called {
        let begun = Instant::now();
        let output = Output::default();
        let state = GuestState::new(
            call.config.clone(),
            call.capabilities.clone(),
            call.session.clone(),
            call.port.clone(),
            output.clone(),
            call.limits,
        );
        let mut store = state::store(&self.engine, state);
        let ending = run_guest(component, &mut store, &call).await;
        let ended = call.session.end().await;
        let memory = &store.data().memory;
        let (complaint, memory_peak_bytes) = (memory.complaint(), memory.peak());
        let http_requests = store.data().requests.sent();
        store.data().refusals.finish().await;
        drop(store);

        let rest = output.finish();
        let last_words = last_words(&rest);
        if !rest.is_empty() {
            call.port.log(rest).await;
        }
        let left_open = left_open(&ending, ended);
        if !left_open.is_empty() {
            for line in &left_open {
                tracing::warn!(execution = %call.attempt.execution, "{}", line.message);
            }
            call.port.log(left_open).await;
        }
        let outcome = classify(ending, call.attempt.job.timeout, complaint, &last_words);
        let wall_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        Called {
            outcome,
            usage: Some(Usage { wall_us, memory_peak_bytes, http_requests, ..Usage::default() }),
        }
    }
}

/// What the execution's log should say of transactions that the handler has not ended: each a
/// line.
fn left_open(ending: &Ending, ended: Ended) -> Vec<LogLine> {
    let line = |message: String| LogLine {
        at: crate::clock::now(),
        level: LogLevel::Warn,
        message,
        fields: serde_json::Map::new(),
    };
    let mut lines = Vec::new();
    // Whoever was stopped could not end them.
    if let (Ending::Returned(_), 1..) = (ending, ended.rolled_back) {
        lines.push(line(format!(
            "the handler returned with {} open, rolled back by the host: what is to stay needs a `commit`",
            transactions(ended.rolled_back)
        )));
    }
    if ended.unconfirmed > 0 {
        lines.push(line(format!(
            "the rollback of {} is unconfirmed: the database did not answer in time, and the connection was \
             closed, so that the database rolls back when it notices",
            transactions(ended.unconfirmed)
        )));
    }
    lines
}

fn transactions(count: usize) -> String {
    if count == 1 { "1 transaction".to_owned() } else { format!("{count} transactions") }
}

async fn run_guest(component: &LoadedComponent, store: &mut Store<GuestState>, call: &Call<'_>) -> Ending {
    let attempt = call.attempt;
    let deadline = Instant::now() + attempt.job.timeout;
    let args = attempt.args.to_string();
    let execution = to_wit(attempt);
    let guest = async {
        let instance = match component.pre.instantiate_async(&mut *store).await {
            Ok(instance) => instance,
            Err(error) => return Ending::NotInstantiated(error),
        };
        let handlers = instance.innkeeper_plugin_handlers();
        match handlers.call_run(&mut *store, &attempt.job.handler, &args, &execution).await {
            Ok(returned) => Ending::Returned(returned),
            Err(error) => Ending::Trapped(error),
        }
    };
    if call.stop.is_cancelled() {
        return Ending::Stopped;
    }
    tokio::select! {
        // The guest first: what has returned counts as returned.
        biased;
        ending = guest => ending,
        () = tokio::time::sleep_until(deadline) => Ending::TimedOut,
        () = call.stop.cancelled() => Ending::Stopped,
    }
}

fn to_wit(attempt: &Attempt) -> types::Execution {
    let timeout = jiff::SignedDuration::try_from(attempt.job.timeout).unwrap_or(jiff::SignedDuration::MAX);
    let deadline = attempt.started_at.checked_add(timeout).ok();
    types::Execution {
        id: attempt.execution.to_string(),
        job: attempt.job.name.to_string(),
        attempt: attempt.attempt,
        max_attempts: attempt.max_attempts,
        triggered_by: match attempt.triggered_by {
            Trigger::Schedule => types::Trigger::Schedule,
            Trigger::Manual => types::Trigger::Manual,
            Trigger::Dependency => types::Trigger::Dependency,
            Trigger::Handler => types::Trigger::Handler,
            Trigger::Backfill => types::Trigger::Backfill,
        },
        scheduled_at: attempt.scheduled_at.as_microsecond(),
        started_at: attempt.started_at.as_microsecond(),
        deadline: deadline.map(jiff::Timestamp::as_microsecond),
        checkpoint: attempt.checkpoint.as_ref().map(ToString::to_string),
    }
}

fn classify(ending: Ending, timeout: Duration, complaint: Option<String>, last_words: &str) -> Outcome {
    let mut failure = match ending {
        Ending::Returned(Ok(result)) => match bounds::document(&result) {
            Ok(result) => return Outcome::Succeeded(result),
            Err(why) => Failure::new(FailureKind::Permanent, format!("the handler's result {why}")),
        },
        Ending::Returned(Err(failure)) => handler_failure(failure),
        Ending::Stopped => return Outcome::Released,
        Ending::TimedOut => Failure::new(
            FailureKind::Timeout,
            format!(
                "the handler was stopped after its time-out of {}; raise `timeout` of the job or \
                 `limits.timeout` of the plugin if it needs longer",
                humantime::format_duration(timeout)
            ),
        ),
        Ending::NotInstantiated(error) => broken_off(&error, false, complaint.as_deref(), last_words),
        Ending::Trapped(error) => broken_off(&error, true, complaint.as_deref(), last_words),
    };
    failure.message = bounds::cut(failure.message, bounds::MESSAGE);
    if failure.kind != FailureKind::Memory
        && let Some(complaint) = complaint
    {
        let _ = write!(failure.message, "\nnote: memory was refused before that: {complaint}");
    }
    Outcome::Failed(failure)
}

fn handler_failure(failure: types::Failure) -> Failure {
    match failure {
        types::Failure::Retryable(message) => Failure::new(FailureKind::Handler, message),
        types::Failure::Permanent(message) => Failure::new(FailureKind::Permanent, message),
        types::Failure::RetryAfter((message, milliseconds)) => Failure {
            retry_after: Some(Duration::from_millis(milliseconds.min(MOST_RETRY_AFTER))),
            ..Failure::new(FailureKind::Handler, message)
        },
    }
}

/// A hundred years in milliseconds: later than any retry, and within every engine's times.
const MOST_RETRY_AFTER: u64 = 100 * 366 * 86_400_000;

/// The end of what a guest printed on standard error, where the languages' runtimes explain a
/// panic.
fn last_words(printed: &[LogLine]) -> String {
    const MOST_LINES: usize = 10;
    let errors = printed.iter().filter(|line| line.level == LogLevel::Error);
    let lines = errors
        .map(|line| line.message.as_str())
        // Rust's hint on a variable that a guest does not have.
        .filter(|line| !line.trim().is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE"))
        .collect::<Vec<_>>();
    lines[lines.len().saturating_sub(MOST_LINES)..].join("\n")
}

/// A call that ended without a return: whose fault it is, and why.
fn broken_off(
    error: &wasmtime::Error,
    instantiated: bool,
    complaint: Option<&str>,
    last_words: &str,
) -> Failure {
    let trap = error.downcast_ref::<Trap>();
    let exit = error.downcast_ref::<I32Exit>();
    // An allocation that was refused ends as a trap that says nothing of memory; one that the
    // instance itself needs, as an error of wasmtime's.
    let looks_out_of_memory = match trap {
        Some(trap) => *trap == Trap::UnreachableCodeReached,
        None => !instantiated && exit.is_none(),
    };
    let runs_code = instantiated || trap.is_some() || exit.is_some();
    if error.is::<PoolConcurrencyLimitError>() {
        return not_run(error);
    }
    if let Some(complaint) = complaint.filter(|_| looks_out_of_memory) {
        return Failure::new(FailureKind::Memory, with_last_words(complaint.to_owned(), last_words));
    }
    if !runs_code {
        return not_run(error);
    }
    let message = match (exit, trap) {
        (Some(I32Exit(code)), _) => {
            format!("the handler ended its program with exit code {code} instead of returning")
        }
        (None, Some(trap)) => format!("the handler trapped: {trap}"),
        // A text that is not UTF-8, a pointer out of bounds, a full table of resources.
        (None, None) => format!("the handler did what the host does not allow: {}", reason(error)),
    };
    let backtrace = if exit.is_none() { backtrace(error) } else { String::new() };
    Failure::new(FailureKind::Trap, with_last_words(message, last_words) + &backtrace)
}

/// Not the guest's doing.
fn not_run(error: &wasmtime::Error) -> Failure {
    Failure::new(FailureKind::Host, format!("the host could not run the handler: {error:#}"))
}

fn backtrace(error: &wasmtime::Error) -> String {
    const MOST_FRAMES: usize = 20;
    let mut text = String::new();
    for frame in
        error.downcast_ref::<WasmBacktrace>().iter().flat_map(|trace| trace.frames()).take(MOST_FRAMES)
    {
        let name = frame.func_name().map(|name| format!("{:#}", rustc_demangle::demangle(name)));
        let name = name.unwrap_or_else(|| format!("function {}", frame.func_index()));
        let _ = write!(text, "\n    at {name}");
    }
    text
}

fn with_last_words(message: String, last_words: &str) -> String {
    if last_words.is_empty() { message } else { format!("{message}\n{last_words}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: LogLevel, message: &str) -> LogLine {
        LogLine {
            at: jiff::Timestamp::UNIX_EPOCH,
            level,
            message: message.to_owned(),
            fields: serde_json::Map::new(),
        }
    }

    #[test]
    fn what_a_handler_has_left_open_is_said_in_its_log() {
        let said = |ending: Ending, rolled_back, unconfirmed| {
            let lines = left_open(&ending, Ended { rolled_back, unconfirmed });
            lines.into_iter().map(|line| line.message).collect::<Vec<_>>().join("\n")
        };
        let returned = || Ending::Returned(Ok("null".to_owned()));
        assert_eq!(said(returned(), 0, 0), "");
        assert!(said(returned(), 2, 0).starts_with("the handler returned with 2 transactions open"));
        assert_eq!(said(Ending::TimedOut, 1, 0), "", "it could not have ended it");
        assert!(said(Ending::TimedOut, 0, 1).starts_with("the rollback of 1 transaction is unconfirmed"));
    }

    #[test]
    fn last_words_are_the_end_of_standard_error_without_rusts_hint() {
        let printed = [
            line(LogLevel::Info, "working"),
            line(LogLevel::Error, "thread '<unnamed>' panicked at src/lib.rs:3:5:"),
            line(LogLevel::Error, "boom"),
            line(
                LogLevel::Error,
                "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace",
            ),
        ];
        assert_eq!(last_words(&printed), "thread '<unnamed>' panicked at src/lib.rs:3:5:\nboom");
        assert_eq!(last_words(&[]), "");
    }

    fn classified(ending: Ending, complaint: Option<&str>) -> Failure {
        match classify(ending, Duration::from_secs(1), complaint.map(str::to_owned), "") {
            Outcome::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_result_that_is_not_json_or_too_much_is_a_permanent_failure() {
        let large = format!("\"{}\"", "x".repeat(bounds::DOCUMENT));
        for (result, why) in [
            ("{".to_owned(), "is not JSON"),
            (large, "has 1048578 bytes, and at most 1048576 are kept"),
            ("[".repeat(65) + &"]".repeat(65), "65 deep"),
        ] {
            let failure = classified(Ending::Returned(Ok(result)), None);
            assert_eq!(failure.kind, FailureKind::Permanent);
            assert!(
                failure.message.starts_with("the handler's result") && failure.message.contains(why),
                "{why}"
            );
        }
    }

    #[test]
    fn a_failures_message_is_cut() {
        let long = types::Failure::Retryable("x".repeat(10 * bounds::MESSAGE));
        let failure = classified(Ending::Returned(Err(long)), None);
        assert!(failure.message.len() < bounds::MESSAGE + 100, "{}", failure.message.len());
        assert!(failure.message.ends_with("more bytes were cut off]"));
    }

    #[test]
    fn a_stopped_call_is_released() {
        let stopped = classify(Ending::Stopped, Duration::from_secs(1), Some("out of memory".to_owned()), "");
        assert_eq!(stopped, Outcome::Released);
    }

    #[test]
    fn refused_memory_is_the_cause_of_a_failed_allocation_and_a_note_on_any_other_end() {
        let refused = Some("out of memory: …");
        let minimum = || wasmtime::Error::msg("memory minimum size of 9 pages exceeds memory limits");
        for ending in
            [Ending::Trapped(Trap::UnreachableCodeReached.into()), Ending::NotInstantiated(minimum())]
        {
            let failure = classified(ending, refused);
            assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::Memory, "out of memory: …"));
        }
        let by_itself = || Ending::Returned(Err(types::Failure::Permanent("no such customer".to_owned())));
        for (ending, kind) in [
            (Ending::Trapped(Trap::StackOverflow.into()), FailureKind::Trap),
            (Ending::TimedOut, FailureKind::Timeout),
            (by_itself(), FailureKind::Permanent),
        ] {
            let failure = classified(ending, refused);
            assert_eq!(failure.kind, kind);
            assert!(
                failure.message.ends_with("memory was refused before that: out of memory: …"),
                "{failure:?}"
            );
        }
        assert_eq!(classified(by_itself(), None).message, "no such customer");
    }

    #[test]
    fn what_the_guest_does_wrong_is_not_blamed_on_the_host() {
        let odd = || wasmtime::Error::msg("incomplete utf-8 byte sequence from index 0");
        let failure = classified(Ending::Trapped(odd()), None);
        assert_eq!(failure.kind, FailureKind::Trap);
        assert!(failure.message.contains("utf-8"), "{failure:?}");
        assert_eq!(classified(Ending::Trapped(I32Exit(3).into()), None).kind, FailureKind::Trap);
        let start = Ending::NotInstantiated(Trap::IntegerDivisionByZero.into());
        assert_eq!(classified(start, None).kind, FailureKind::Trap);
        assert_eq!(classified(Ending::NotInstantiated(odd()), None).kind, FailureKind::Host);
    }

    #[test]
    fn a_wait_that_a_handler_asks_for_is_bounded() {
        let failure = handler_failure(types::Failure::RetryAfter(("later".to_owned(), u64::MAX)));
        assert_eq!(failure.retry_after, Some(Duration::from_millis(MOST_RETRY_AFTER)));
    }
}
