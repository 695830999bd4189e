//! One attempt, from its START to the completion that is handed over for recording.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::Engine;
use super::canceller::Cancellation;
use super::completer::{Completions, Ended};
use super::fence::{self, Commits};
use super::port::EnginePort;
use super::queues::Slot;
use super::registry::Plugin;
use super::session::LiveSession;
use crate::execution::{Attempt, Completion, Failure, FailureKind, Outcome};
use crate::interfaces::db::Session;
use crate::runtime::{Call, Called};

/// An attempt that START has recorded.
pub(super) struct Started {
    pub(super) session: Arc<LiveSession>,
    pub(super) attempt: Attempt,
    /// With the component that START has recorded. None: this host has it no more.
    pub(super) plugin: Option<Arc<Plugin>>,
    pub(super) slot: Slot,
}

/// Runs the attempt and hands its completion on, with the slot: it is free once the
/// completion is durable.
pub(super) async fn execute(engine: Arc<Engine>, started: Started, completions: Completions) {
    let Started { session, attempt, plugin, slot } = started;
    tracing::debug!(job = %attempt.job.name, execution = %attempt.execution, attempt = attempt.attempt, "started");
    let Called { outcome, usage } = match plugin {
        Some(plugin) => run_cancellable(&engine, &session, plugin, &attempt).await,
        None => Called::not(host_failure(format!(
            "this host does not have component {} of plugin `{}`",
            attempt.component, attempt.job.plugin
        ))),
    };
    let completion = Completion { usage, ..attempt.finish(outcome) };
    completions.send(Ended { session, completion, slot }).await;
}

/// As [`run`], which ends earlier where somebody wants that.
async fn run_cancellable(
    engine: &Arc<Engine>,
    session: &Arc<LiveSession>,
    plugin: Arc<Plugin>,
    attempt: &Attempt,
) -> Called {
    let entered = engine.cancellations.enter(attempt.lease, &session.stop);
    let cancellation = &entered.cancellation;
    let grace = attempt.job.policies.cancel_grace;
    let called = tokio::select! {
        biased;
        called = run(engine, session, plugin, attempt, cancellation) => called,
        never = cancellation.enforce(grace) => match never {},
    };
    Called { outcome: cancellation.judge(called.outcome, grace), usage: called.usage }
}

/// When it returns, every transaction that the handler caused has ended, its own in the
/// plugin's database and the host's.
async fn run(
    engine: &Arc<Engine>,
    session: &Arc<LiveSession>,
    plugin: Arc<Plugin>,
    attempt: &Attempt,
    cancellation: &Arc<Cancellation>,
) -> Called {
    if let Err(failure) = check(&plugin, attempt) {
        return Called::not(Outcome::Failed(failure));
    }
    let owner = format!("job `{}`, execution {}", attempt.job.name, attempt.execution);
    if let Err(outcome) = fence::raise(&plugin, &cancellation.stop, attempt).await {
        return Called::not(outcome);
    }
    let commits = Commits::new(session);
    let db = Session::of_attempt(plugin.grants.clone(), owner, commits.holder(attempt), attempt.job.timeout);
    let port =
        EnginePort::new(engine.clone(), session.clone(), plugin.clone(), attempt, cancellation.clone());
    let port = Arc::new(port);
    let call = Call {
        attempt,
        config: plugin.config.clone(),
        capabilities: plugin.capabilities.clone(),
        session: db.clone(),
        port: port.clone(),
        limits: plugin.limits,
        stop: &cancellation.stop,
    };
    let calling = AssertUnwindSafe(engine.runtime.call(&plugin.component, call));
    // What the call has changed is its own, but for the session and the port, whose locks bear
    // a panic of their holder.
    let called = calling.catch_unwind().await.unwrap_or_else(|panic| {
        let panic = panic_text(panic.as_ref());
        Called::not(host_failure(format!(
            "the host failed while it ran the handler, which is a bug: {panic}"
        )))
    });
    // After a call that ended as it should there is nothing left for these two.
    let ended = db.end().await;
    port.settle().await;
    Called { outcome: commits.judge(called.outcome, ended, &plugin), usage: called.usage }
}

/// What a panic says, as far as it is text.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it panicked")
}

/// What the configuration's own check has looked at may have changed since: another version
/// of the plugin, or arguments that were enqueued before it.
///
/// Where not even the job as it is defined goes with this component, it was defined for another one:
/// another host has it, or this one will once it has reloaded.
fn check(plugin: &Plugin, attempt: &Attempt) -> Result<(), Failure> {
    let job = &attempt.job;
    let another = |why: String| {
        let message =
            format!("this host has another version of plugin `{}` than the job is for: {why}", job.plugin);
        Failure::new(FailureKind::Host, message)
    };
    let handler = plugin.handler(&job.handler).map_err(another)?;
    let unfit = |error| format!("the arguments do not fit handler `{}`: {error}", job.handler);
    handler.check_args(&attempt.args).map_err(|error| match handler.check_args(&job.args) {
        Ok(()) => Failure::new(FailureKind::Permanent, unfit(error)),
        Err(error) => another(unfit(error)),
    })
}

fn host_failure(message: String) -> Outcome {
    Outcome::Failed(Failure::new(FailureKind::Host, message))
}
