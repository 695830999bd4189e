//! One call of a handler: from an attempt to its outcome.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wasmtime::{Store, Trap, WasmBacktrace};
use wasmtime_wasi_config::WasiConfigVariables;

use super::load::{LoadedComponent, reason};
use super::state::{self, GuestState};
use super::Runtime;
use crate::execution::{Attempt, Failure, FailureKind, Outcome, Trigger};
use crate::interfaces::bindings::innkeeper::plugin::types;
use crate::interfaces::db::Session;
use crate::interfaces::stdio::Output;
use crate::interfaces::Port;

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
        let last_printed = rest.last().map(|line| line.message.clone());
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
        classify(ending, call.attempt.job.timeout, complaint, last_printed)
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

fn classify(
    ending: Ending,
    timeout: Duration,
    complaint: Option<String>,
    last_printed: Option<String>,
) -> Outcome {
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
            None => trap(&error, last_printed),
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

fn trap(error: &wasmtime::Error, last_printed: Option<String>) -> Failure {
    let Some(trap) = error.downcast_ref::<Trap>() else {
        // Not the guest's doing: no instance could be had, or a host function failed.
        return Failure::new(FailureKind::Host, format!("the host could not run the handler: {error:#}"));
    };
    let mut message = match last_printed.filter(|line| !line.trim().is_empty()) {
        Some(line) => format!("the handler stopped ({trap}); the last that it printed: {line}"),
        None => format!("the handler stopped: {trap}"),
    };
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        for frame in backtrace.frames().iter().take(20) {
            let name = frame.func_name().map(|name| format!("{:#}", rustc_demangle::demangle(name)));
            let _ = write!(message, "\n    at {}", name.unwrap_or_else(|| format!("function {}", frame.func_index())));
        }
    }
    Failure::new(FailureKind::Trap, message)
}
