//! One call of a handler: from an attempt to its outcome.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wasmtime::{Store, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_config::WasiConfigVariables;

use super::Runtime;
use super::load::LoadedComponent;
use super::state::{self, GuestState};
use crate::execution::{Attempt, Failure, FailureKind, LogLevel, LogLine, Outcome, Trigger};
use crate::interfaces::Port;
use crate::interfaces::bindings::innkeeper::plugin::types;
use crate::interfaces::db::Session;
use crate::interfaces::stdio::Output;

/// What a call needs besides the component.
pub struct Call<'a> {
    /// What to run.
    pub attempt: &'a Attempt,
    /// The plugin's configuration, as `wasi:config` serves it.
    pub config: Arc<WasiConfigVariables>,
    /// The execution's own transactions; ended before this call returns.
    pub session: Arc<Session>,
    /// The host's side.
    pub port: Arc<dyn Port>,
    /// Bytes.
    pub memory: u64,
    /// Ends the call before it is done.
    pub stop: &'a Stop,
}

/// Ends a call from outside: the guest is stopped wherever it is.
pub type Stop = CancellationToken;

/// How the guest's part of a call ended.
enum Ending {
    Returned(Result<String, types::Failure>),
    Trapped(wasmtime::Error),
    TimedOut,
    Stopped,
}

impl Runtime {
    /// Runs a handler in a fresh instance and says how it went.
    ///
    /// Whatever happens, in this order: the guest is ended, its transactions are ended, its
    /// instance is dropped; then this returns. The caller records the completion.
    pub async fn call(&self, component: &LoadedComponent, call: Call<'_>) -> Outcome {
        let output = Output::default();
        let state = GuestState::new(
            call.config.clone(),
            call.session.clone(),
            call.port.clone(),
            output.clone(),
            call.memory,
        );
        let mut store = state::store(&self.engine, state);
        let ending = run_guest(component, &mut store, &call).await;
        let ended = call.session.end().await;
        let complaint = store.data().memory.complaint();
        drop(store);

        let rest = output.finish();
        let last_words = last_words(&rest);
        if !rest.is_empty() {
            call.port.log(rest).await;
        }
        if ended.unconfirmed > 0 {
            tracing::warn!(
                execution = %call.attempt.execution,
                transactions = ended.unconfirmed,
                "a rollback was not confirmed in time, and its connection was closed"
            );
        }
        classify(ending, call.attempt.job.timeout, complaint, &last_words)
    }
}

async fn run_guest(component: &LoadedComponent, store: &mut Store<GuestState>, call: &Call<'_>) -> Ending {
    let attempt = call.attempt;
    let deadline = Instant::now() + attempt.job.timeout;
    let args = attempt.args.to_string();
    let execution = to_wit(attempt);
    let guest = async {
        let instance = component.pre.instantiate_async(&mut *store).await?;
        let handlers = instance.innkeeper_plugin_handlers();
        handlers.call_run(&mut *store, &attempt.job.handler, &args, &execution).await
    };
    tokio::select! {
        result = guest => match result {
            Ok(returned) => Ending::Returned(returned),
            Err(error) => Ending::Trapped(error),
        },
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
    let failure = match ending {
        Ending::Returned(Ok(result)) => match serde_json::from_str(&result) {
            Ok(result) => return Outcome::Succeeded(result),
            Err(error) => Failure::new(
                FailureKind::Permanent,
                format!("the handler returned a result that is not JSON: {error}"),
            ),
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
        // An allocation that the limit refused ends as a trap that says nothing of memory.
        Ending::Trapped(error) => match complaint {
            Some(complaint) => Failure::new(FailureKind::Memory, complaint),
            None => trap(&error, last_words),
        },
    };
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

fn trap(error: &wasmtime::Error, last_words: &str) -> Failure {
    if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
        let message = format!("the handler ended its program with exit code {code} instead of returning");
        return Failure::new(FailureKind::Trap, with_last_words(message, last_words));
    }
    let Some(trap) = error.downcast_ref::<Trap>() else {
        // Not the guest's doing: no instance could be had, or a host function failed.
        return Failure::new(FailureKind::Host, format!("the host could not run the handler: {error:#}"));
    };
    let mut message = with_last_words(format!("the handler trapped: {trap}"), last_words);
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        for frame in backtrace.frames().iter().take(20) {
            let name = frame.func_name().map(|name| format!("{:#}", rustc_demangle::demangle(name)));
            let _ = write!(
                message,
                "\n    at {}",
                name.unwrap_or_else(|| format!("function {}", frame.func_index()))
            );
        }
    }
    Failure::new(FailureKind::Trap, message)
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

    #[test]
    fn a_result_that_is_not_json_is_a_permanent_failure() {
        let outcome = classify(Ending::Returned(Ok("{".to_owned())), Duration::from_secs(1), None, "");
        assert!(
            matches!(outcome, Outcome::Failed(Failure { kind: FailureKind::Permanent, .. })),
            "{outcome:?}"
        );
    }

    #[test]
    fn a_stopped_call_is_released_and_one_that_ran_out_of_memory_says_so() {
        let stopped = classify(Ending::Stopped, Duration::from_secs(1), Some("out of memory".to_owned()), "");
        assert_eq!(stopped, Outcome::Released);
        let trap = Ending::Trapped(Trap::UnreachableCodeReached.into());
        let outcome = classify(trap, Duration::from_secs(1), Some("out of memory: …".to_owned()), "");
        assert!(matches!(outcome, Outcome::Failed(Failure { kind: FailureKind::Memory, .. })), "{outcome:?}");
    }

    #[test]
    fn a_wait_that_a_handler_asks_for_is_bounded() {
        let failure = handler_failure(types::Failure::RetryAfter(("later".to_owned(), u64::MAX)));
        assert_eq!(failure.retry_after, Some(Duration::from_millis(MOST_RETRY_AFTER)));
    }
}
