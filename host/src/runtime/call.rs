//! One call of a handler: from an attempt to its outcome.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wasmtime::Store;
use wasmtime_wasi_config::WasiConfigVariables;

use super::Runtime;
use super::command::Program;
use super::ending::{self, Ending, Place};
use super::load::{LoadedComponent, Start};
use super::meter::Meter;
use super::state::{self, GuestState};
use super::trap::Circumstances;
use crate::execution::{Attempt, LogLevel, LogLine, Outcome, Trigger};
use crate::interfaces::Port;
use crate::interfaces::bindings::innkeeper::plugin::types;
use crate::interfaces::db::{Ended, Session};
use crate::interfaces::granted::Granted;
use crate::interfaces::output::Output;
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

impl Runtime {
    /// Runs a handler in a fresh instance and says how it went.
    ///
    /// Whatever happens, in this order: the guest is ended, its transactions are ended, its
    /// instance is dropped; then this returns. The caller records the completion.
    pub async fn call(&self, component: &LoadedComponent, call: Call<'_>) -> Called {
        let begun = Instant::now();
        let output = Output::new(call.port.clone(), call.limits);
        let start = component.start(call.attempt, call.limits);
        let state = GuestState::new(
            call.config.clone(),
            call.capabilities.clone(),
            call.session.clone(),
            call.port.clone(),
            output.clone(),
            call.limits,
            start.program(),
        );
        let mut store = state::store(component.engine(), state, component.fuel(call.limits));
        let mut meter = Meter::default();
        let ended = Notify::new();
        let mut recording = pin!(output.keep_recording(&ended));
        let ending =
            self.run_guest(component, &start, &mut store, &call, &mut meter, recording.as_mut()).await;
        let left = call.session.end().await;
        let mut usage = Usage { wall_us: micros(begun.elapsed()), ..Usage::default() };
        (usage.cpu_us, usage.memory_peak_bytes) = (micros(meter.used()), store.data().memory.peak());
        usage.fuel = component.fuel(call.limits).map(|fuel| fuel - store.get_fuel().unwrap_or(fuel));
        usage.http_requests = store.data().requests.sent();
        let refusals = store.data().refusals.clone();
        let (complaint, shortage) = (store.data().memory.complaint(), store.data().memory.shortage());
        drop(store);

        output.close();
        ended.notify_one();
        // Before anything else is recorded: it may have stopped in the midst of a line.
        recording.await;
        refusals.finish().await;
        output.finish().await;
        output.count(&mut usage);
        call.session.count(&mut usage);
        if let Some(remark) = start.program().and_then(Program::remark) {
            call.port.log(vec![remark]).await;
        }
        let notes = notes(&ending, left);
        if !notes.is_empty() {
            for line in &notes {
                tracing::warn!(execution = %call.attempt.execution, "{}", line.message);
            }
            call.port.log(notes).await;
        }
        let found = Circumstances {
            timeout: call.attempt.job.timeout,
            limits: call.limits,
            complaint,
            shortage,
            last_words: output.last_words(),
        };
        Called { outcome: ending::outcome(ending, &found), usage: Some(usage) }
    }

    async fn run_guest(
        &self,
        component: &LoadedComponent,
        start: &Start<'_>,
        store: &mut Store<GuestState>,
        call: &Call<'_>,
        meter: &mut Meter,
        recording: Pin<&mut impl Future<Output = ()>>,
    ) -> Ending {
        let attempt = call.attempt;
        let deadline = Instant::now() + attempt.job.timeout;
        let args = attempt.args.to_string();
        let execution = to_wit(attempt);
        let activity = call.session.activity();
        let mut guest = pin!(async {
            let pre = match start {
                Start::Handler(pre) => pre,
                Start::Program(program) => return program.run(store).await,
            };
            let instance = match pre.instantiate_async(&mut *store).await {
                Ok(instance) => instance,
                Err(error) => return Ending::NotInstantiated(error),
            };
            let handlers = instance.innkeeper_plugin_handlers();
            match handlers.call_run(&mut *store, &attempt.job.handler, &args, &execution).await {
                Ok(returned) => Ending::Returned(returned),
                Err(error) => Ending::Trapped(error),
            }
        });
        let measured = poll_fn(|context| {
            activity.begin_turn();
            // An epoch that ends in the guest's own code says so.
            activity.set_computing(false);
            meter.turn(|| guest.as_mut().poll(context))
        });
        if call.stop.is_cancelled() {
            return Ending::Stopped(Place { seen: activity.look(), cpu: Duration::ZERO });
        }
        let stopped: fn(Place) -> Ending = {
            let mut in_turn = pin!(self.turns.run(&component.allowance, measured));
            let in_turn = poll_fn(|context| {
                activity.wait_for_turn();
                in_turn.as_mut().poll(context)
            });
            tokio::select! {
                // The guest first: what has returned counts as returned.
                biased;
                ending = in_turn => return ending,
                () = tokio::time::sleep_until(deadline) => Ending::TimedOut,
                () = call.stop.cancelled() => Ending::Stopped,
                () = recording => unreachable!("it goes on until it is told that the call has ended"),
            }
        };
        // The guest is still there, and so is what it notes of itself.
        stopped(Place { seen: activity.look(), cpu: meter.used() })
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What the execution's log should say of how it ended, besides the outcome: where it was stopped,
/// and which transactions the handler has not ended. Each a line.
fn notes(ending: &Ending, ended: Ended) -> Vec<LogLine> {
    let line = |message: String| LogLine {
        at: crate::clock::now(),
        level: LogLevel::Warn,
        message,
        fields: serde_json::Map::new(),
    };
    let mut lines = Vec::new();
    if let Ending::Stopped(place) = ending {
        lines.push(line(format!("the host stopped the handler: it was {}", place.then())));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interfaces::activity::Seen;

    #[test]
    fn how_a_handler_was_stopped_and_what_it_has_left_open_is_said_in_its_log() {
        let said = |ending: Ending, rolled_back, unconfirmed| {
            let lines = notes(&ending, Ended { rolled_back, unconfirmed });
            lines.into_iter().map(|line| line.message).collect::<Vec<_>>().join("\n")
        };
        let returned = || Ending::Returned(Ok("null".to_owned()));
        let place = || Place { seen: Seen::default(), cpu: Duration::ZERO };
        assert_eq!(said(returned(), 0, 0), "");
        assert!(said(returned(), 2, 0).starts_with("the handler returned with 2 transactions open"));
        assert_eq!(said(Ending::TimedOut(place()), 1, 0), "", "it could not have ended it");
        let timed_out = said(Ending::TimedOut(place()), 0, 1);
        assert!(timed_out.starts_with("the rollback of 1 transaction is unconfirmed"));
        let stopped = said(Ending::Stopped(place()), 1, 0);
        assert_eq!(stopped, "the host stopped the handler: it was waiting (asleep, or for input or output)");
    }
}
