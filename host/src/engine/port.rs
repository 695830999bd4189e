//! What a running handler may ask of the host's own records.
//!
//! Everything that writes is a task of its own: a guest that is stopped in the middle of a
//! call does not interrupt the host's transaction, and the executor waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use serde_json::Value;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::Engine;
use super::canceller::Cancellation;
use super::registry::Plugin;
use super::session::LiveSession;
use super::submit::{SubmitError, submit};
use crate::execution::{Attempt, LogLine, Progress, Trigger};
use crate::interfaces::{EnqueueError, EnqueueRequest, Port};
use crate::job::Name;
use crate::store::{Holder, NewExecution, Store, StoreError};

pub(super) struct EnginePort {
    engine: Arc<Engine>,
    plugin: Arc<Plugin>,
    session: Arc<LiveSession>,
    holder: Holder,
    writes: TaskTracker,
    cancellation: Arc<Cancellation>,
    /// The host's log tells that something of this attempt was lost.
    told: AtomicBool,
}

impl EnginePort {
    pub(super) fn new(
        engine: Arc<Engine>,
        session: Arc<LiveSession>,
        plugin: Arc<Plugin>,
        attempt: &Attempt,
        cancellation: Arc<Cancellation>,
    ) -> Self {
        let holder = Holder { session: session.id, lease: attempt.lease, execution: attempt.execution };
        Self {
            engine,
            plugin,
            session,
            holder,
            writes: TaskTracker::new(),
            cancellation,
            told: AtomicBool::new(false),
        }
    }

    /// Waits until every transaction that the handler caused has ended.
    pub(super) async fn settle(&self) {
        self.writes.close();
        self.writes.wait().await;
    }

    /// Runs a write to its end, whoever still waits for it, and not in line with handlers.
    async fn write<T: Send + 'static>(
        &self,
        write: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.writes.spawn_on(write, &self.engine.own_threads).await {
            Ok(result) => result,
            Err(panic) => Err(StoreError::Unavailable(format!("the write failed: {panic}"))),
        }
    }

    /// Warns once of an attempt: a handler may go on writing while the store is away.
    fn tell(&self, what: &str, error: &StoreError) {
        let execution = self.holder.execution;
        if self.told.swap(true, Ordering::Relaxed) {
            tracing::debug!(%execution, %error, "{what}");
        } else {
            tracing::warn!(%execution, %error, "{what}");
        }
    }

    fn store(&self) -> Store {
        self.engine.store.clone()
    }
}

#[async_trait]
impl Port for EnginePort {
    async fn log(&self, lines: Vec<LogLine>) {
        let (store, holder) = (self.store(), self.holder);
        let result = self.write(async move { store.append_log(holder, &lines).await }).await;
        if let Err(error) = result {
            self.tell("log lines were lost", &error);
        }
    }

    async fn progress(&self, progress: Progress) {
        let (store, holder) = (self.store(), self.holder);
        let result = self.write(async move { store.save_progress(holder, &progress).await }).await;
        if let Err(error) = result {
            self.tell("progress was not recorded", &error);
        }
    }

    async fn save_checkpoint(&self, state: Value) -> Result<(), String> {
        let (store, holder) = (self.store(), self.holder);
        let result = self.write(async move { store.save_checkpoint(holder, &state).await }).await;
        result.map_err(|error| format!("the checkpoint was not recorded: {error}"))
    }

    fn cancelled(&self) -> bool {
        self.cancellation.is_requested()
            || self.engine.drain.is_cancelled()
            || self.session.stop.is_cancelled()
    }

    async fn enqueue(&self, request: EnqueueRequest) -> Result<Uuid, EnqueueError> {
        let job = granted(&self.plugin, &request.job)?;
        let (store, holder) = (self.store(), self.holder);
        let submitted = async move {
            let execution = NewExecution {
                job: &job,
                args: request.args.as_ref(),
                triggered_by: Trigger::Handler,
                run_at: request.run_at,
                unique_key: request.unique_key.as_deref(),
                by: Some(holder),
            };
            submit(&store, &execution).await
        };
        let submitted = self.writes.spawn_on(submitted, &self.engine.own_threads);
        let submitted = submitted.await;
        let id = match submitted {
            Ok(Ok(enqueued)) => enqueued.id,
            Ok(Err(error)) => return Err(to_enqueue_error(error)),
            Err(panic) => return Err(EnqueueError::Other(format!("the host failed: {panic}"))),
        };
        self.engine.due.notify_one();
        self.engine.ready.notify_one();
        self.engine.others.notify_one();
        Ok(id)
    }
}

fn granted(plugin: &Plugin, job: &str) -> Result<Name, EnqueueError> {
    let granted = plugin.jobs.iter().find(|granted| granted.as_str() == job);
    granted.cloned().ok_or_else(|| {
        EnqueueError::Denied(format!(
            "plugin `{}` may not enqueue job `{job}`; to allow it, add `jobs = [\"{job}\"]` to \
             [plugins.{}] in the configuration",
            plugin.name, plugin.name
        ))
    })
}

fn to_enqueue_error(error: SubmitError) -> EnqueueError {
    match error {
        SubmitError::UnknownJob(message) => EnqueueError::UnknownJob(message),
        SubmitError::InvalidArgs(message) => EnqueueError::InvalidArgs(message),
        SubmitError::Store(error) => EnqueueError::Other(error.to_string()),
    }
}
