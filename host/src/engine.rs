//! Moves executions through their phases: START, call, COMPLETION, each committed before the
//! next begins.
//!
//! Every loop here is a task of its own and asks the store what there is to do; none keeps
//! state that a restart would lose. In the order of an execution's life: `planner` makes
//! executions of due jobs, `dispatcher` starts them, `executor` calls their handlers,
//! `completer` records how they ended, and `rescuer` ends what a dead host left open.
//! `session` keeps this host's session alive meanwhile, and [`submit`] is how anybody else asks
//! for an execution.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::runtime::Runtime;
use crate::store::{Store, StoreError};

mod completer;
mod dispatcher;
mod executor;
mod planner;
mod port;
pub mod registry;
mod rescuer;
mod session;
pub mod submit;

use registry::Registry;
use session::HostSession;

/// How long a loop sleeps when nothing wakes it. Another process may have enqueued something:
/// asking the store is the truth, waking up is a hint.
const POLL: Duration = Duration::from_millis(250);

/// How long a loop waits before it tries again what the store could not do.
const STORE_RETRY: Duration = Duration::from_millis(500);

/// How long a shutdown waits for completions that the store does not take.
const LAST_COMPLETIONS: Duration = Duration::from_secs(10);

/// What the engine needs to know of its host.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The host's name.
    pub host: String,
    /// Executions at once.
    pub concurrency: usize,
    /// How long the host session lasts without a heartbeat.
    pub session_timeout: Duration,
    /// How long a shutdown waits for running executions.
    pub drain_timeout: Duration,
}

/// One host's engine. Cheap to share between its tasks.
pub struct Engine {
    store: Store,
    runtime: Runtime,
    plugins: Registry,
    settings: Settings,
    session: HostSession,
    /// One permit for each execution that may run; held until its completion is durable.
    slots: Arc<Semaphore>,
    /// Something may be ready to start.
    ready: Notify,
    /// Something may have become due earlier than was known.
    due: Notify,
    /// Claims stop, and handlers see `cancelled`.
    drain: CancellationToken,
    /// Running calls are ended.
    stop: CancellationToken,
    executions: TaskTracker,
}

impl Engine {
    /// Registers a host session and sets the engine up. [`Engine::run`] starts it.
    ///
    /// # Errors
    /// Where the store cannot be reached.
    pub async fn new(
        store: Store,
        runtime: Runtime,
        plugins: Registry,
        settings: Settings,
    ) -> Result<Arc<Self>, StoreError> {
        let stop = CancellationToken::new();
        let session = HostSession::register(&store, &settings, &plugins, &stop).await?;
        Ok(Arc::new(Self {
            slots: Arc::new(Semaphore::new(settings.concurrency)),
            store,
            runtime,
            plugins,
            settings,
            session,
            ready: Notify::new(),
            due: Notify::new(),
            drain: CancellationToken::new(),
            stop,
            executions: TaskTracker::new(),
        }))
    }

    /// Runs until `drain` is cancelled, then drains: claims stop, running handlers have
    /// `drain_timeout` to end, and what is left goes back to the queue. `stop_now` cuts the
    /// waiting short.
    pub async fn run(self: Arc<Self>, drain: CancellationToken, stop_now: CancellationToken) {
        let finished = CancellationToken::new();
        let (completer, completions) = completer::start(self.clone());
        let loops = TaskTracker::new();
        loops.spawn(session::keep_alive(self.clone(), finished.clone()));
        loops.spawn(planner::run(self.clone()));
        loops.spawn(dispatcher::run(self.clone(), completions));
        loops.spawn(rescuer::run(self.clone()));
        loops.close();

        drain.cancelled().await;
        tracing::info!(running = self.executions.len(), "draining: nothing new is started");
        self.drain.cancel();
        self.ready.notify_waiters();
        self.end_executions(stop_now).await;
        // The completer ends when the dispatcher and every execution have dropped their ends.
        if tokio::time::timeout(LAST_COMPLETIONS, completer).await.is_err() {
            tracing::error!(
                "the store did not take the last completions; another start will retry those executions"
            );
        }
        finished.cancel();
        loops.wait().await;
        if let Err(error) = self.store.end_session(self.session.id()).await {
            tracing::warn!(%error, "the host session was not ended; it will expire");
        }
    }

    async fn end_executions(&self, stop_now: CancellationToken) {
        self.executions.close();
        tokio::select! {
            () = self.executions.wait() => return,
            () = tokio::time::sleep(self.settings.drain_timeout) => {}
            () = stop_now.cancelled() => {}
        }
        tracing::warn!(
            running = self.executions.len(),
            "stopping what still runs; it goes back to the queue"
        );
        self.stop.cancel();
        self.executions.wait().await;
    }
}

/// Says once that the store does not answer, and once that it does again.
#[derive(Default)]
struct StoreWatch {
    failing: bool,
}

impl StoreWatch {
    /// Notes how something went; returns the value where it went well.
    fn note<T>(&mut self, what: &'static str, result: Result<T, StoreError>) -> Option<T> {
        match result {
            Ok(value) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!(what, "the store answers again");
                }
                Some(value)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(what, %error, "the store failed; trying again until it works");
                }
                None
            }
        }
    }
}
