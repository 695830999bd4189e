//! Moves executions through their phases: START, call, COMPLETION, each committed before the
//! next begins.
//!
//! Every loop here is a task of its own and asks the store what there is to do; none keeps
//! state that a restart would lose. In the order of an execution's life: `planner` makes
//! executions of due jobs, `dispatcher` starts them, `executor` calls their handlers,
//! `completer` records how they ended, `rescuer` ends what a dead host left open, and `pruner`
//! removes what has been kept for long enough.
//! `session` keeps this host's session alive meanwhile, [`submit`] is how anybody else asks for an
//! execution, `canceller` ends what somebody wants to end, and `waker` tells other hosts of both. `fence` keeps late handlers from committing,
//! `floor` keeps scans from what they have seen, and [`health`] is what the loops tell of the
//! store.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::config::Config;
use crate::runtime::Runtime;
use crate::store::{Pooler, Store, StoreError, StoreOptions};

mod canceller;
pub mod change;
mod completer;
mod dispatcher;
mod executor;
mod fence;
mod floor;
pub mod health;
mod planner;
mod port;
mod pruner;
mod queues;
pub mod registry;
mod rescuer;
pub mod rollback;
mod rooms;
mod session;
pub mod submit;
mod versions;
mod waker;

use canceller::Cancellations;
use health::Health;
use registry::Registry;
use session::HostSession;
use versions::Versions;

/// How long a loop sleeps when nothing wakes it. Another process may have enqueued something:
/// asking the store is the truth, being woken (`waker`) is a hint.
const POLL: Duration = Duration::from_millis(250);

/// How long a loop waits before it tries again what the store could not do.
const STORE_RETRY: Duration = Duration::from_millis(500);

/// The bounds of [`Engine::batch`].
const SMALL_BATCH: usize = 32;
const LARGE_BATCH: usize = 500;

/// How long a shutdown waits for completions that the store does not take.
const LAST_COMPLETIONS: Duration = Duration::from_secs(10);

/// How long a shutdown waits for the end of the host session to be recorded.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long a shutdown takes at most after the request to stop at once. That long only where the store
/// does not answer: what was stopped is to go back to the queue.
const AT_ONCE: Duration = Duration::from_secs(10);

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

/// How the store is connected to, by the configuration.
#[must_use]
pub fn store_options(config: &Config) -> StoreOptions {
    let defaults = StoreOptions::default();
    StoreOptions {
        max_connections: config.store.max_connections,
        timeout: config.store.timeout,
        idle_in_transaction_timeout: defaults.idle_in_transaction_timeout.min(config.store.timeout),
        pooler: if config.store.transaction_pooler { Pooler::Transaction } else { Pooler::None },
        ..defaults
    }
}

/// One host's engine. Cheap to share between its tasks.
pub struct Engine {
    store: Store,
    runtime: Runtime,
    plugins: Versions,
    settings: Settings,
    /// How long a shutdown waits for running executions; it may change.
    drain_timeout: Mutex<Duration>,
    session: HostSession,
    health: Arc<Health>,
    /// One permit for each execution that may run; held until its completion is durable.
    slots: Arc<Semaphore>,
    /// Something may be ready to start.
    ready: Notify,
    /// Something may have become due earlier than was known.
    due: Notify,
    /// Other hosts may find something to do.
    others: Notify,
    /// The end of an execution may let one start that its queue or its plugin held back.
    ends_are_awaited: AtomicBool,
    /// Somebody may want something that runs to end.
    cancels: Notify,
    /// Somebody wants this host to load anew.
    reloads: Notify,
    /// What runs here.
    cancellations: Cancellations,
    /// Claims stop, and handlers see `cancelled`.
    drain: CancellationToken,
    /// Running calls are ended.
    stop: CancellationToken,
    executions: TaskTracker,
    /// The threads of everything but handlers.
    own_threads: Handle,
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
        health: Arc<Health>,
    ) -> Result<Arc<Self>, StoreError> {
        let stop = CancellationToken::new();
        let session = HostSession::register(&store, &settings, plugins.digests(), &stop).await?;
        Ok(Arc::new(Self {
            slots: Arc::new(Semaphore::new(settings.concurrency)),
            store,
            runtime,
            plugins: Versions::new(plugins),
            drain_timeout: Mutex::new(settings.drain_timeout),
            settings,
            session,
            health,
            ready: Notify::new(),
            due: Notify::new(),
            others: Notify::new(),
            ends_are_awaited: AtomicBool::new(false),
            cancels: Notify::new(),
            reloads: Notify::new(),
            cancellations: Cancellations::default(),
            drain: CancellationToken::new(),
            stop,
            executions: TaskTracker::new(),
            own_threads: Handle::current(),
        }))
    }

    /// Runs until `drain` is cancelled or the answer to a heartbeat asks for it, then drains: claims
    /// stop, running handlers have
    /// `drain_timeout` to end, and what is left goes back to the queue. `stop_now` cuts the
    /// waiting short, whatever is waited for.
    pub async fn run(self: Arc<Self>, drain: CancellationToken, stop_now: CancellationToken) {
        let finished = CancellationToken::new();
        let (completer, completions) = completer::start(self.clone());
        let keepers = TaskTracker::new();
        keepers.spawn(self.watched("heartbeat", session::keep_alive(self.clone(), finished.clone())));
        keepers.spawn(self.watched("session watch", session::watch_over(self.clone(), finished.clone())));
        keepers.spawn(self.watched("canceller", canceller::run(self.clone(), finished.clone())));
        let loops = TaskTracker::new();
        loops.spawn(self.watched("planner", planner::run(self.clone())));
        loops.spawn(self.watched("dispatcher", dispatcher::run(self.clone(), completions)));
        loops.spawn(self.watched("rescuer", rescuer::run(self.clone())));
        loops.spawn(self.watched("waker", waker::run(self.clone())));
        loops.spawn(self.watched("pruner", pruner::run(self.clone())));
        self.health.serving();

        tokio::select! {
            () = drain.cancelled() => {}
            () = self.drain.cancelled() => {}
        }
        tracing::info!(running = self.executions.len(), "draining: nothing new is started");
        self.health.draining();
        self.drain.cancel();
        loops.close();
        let too_long = async {
            stop_now.cancelled().await;
            tokio::time::sleep(AT_ONCE).await;
        };
        let ending = async {
            self.end_executions(&loops, &stop_now).await;
            self.record_the_last(completer).await;
            finished.cancel();
            self.end_session(&keepers).await;
        };
        tokio::select! {
            () = ending => {}
            () = too_long => tracing::error!(
                "the store did not answer in time; another host takes over when the host session has expired"
            ),
        }
        finished.cancel();
    }

    /// The plugins that executions start with.
    #[must_use]
    pub fn plugins(&self) -> Arc<Registry> {
        self.plugins.current()
    }

    /// Where plugins are compiled.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// What tells this process from every other in the store.
    #[must_use]
    pub fn boot(&self) -> Uuid {
        self.session.boot()
    }

    /// Waits until the answer to a heartbeat says that somebody wants this host to load anew.
    pub async fn reload_requested(&self) {
        self.reloads.notified().await;
    }

    /// Waits until nothing new is started any more.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// A shutdown waits for so long from now on.
    pub fn set_drain_timeout(&self, timeout: Duration) {
        *self.drain_timeout.lock().unwrap_or_else(PoisonError::into_inner) = timeout;
    }

    fn drain_timeout(&self) -> Duration {
        *self.drain_timeout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the host session, once nothing renews it any more.
    async fn end_session(&self, keepers: &TaskTracker) {
        keepers.close();
        let ended = async {
            keepers.wait().await;
            self.store.end_session(self.session.id()).await
        };
        match tokio::time::timeout(LAST_WORDS, ended).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the host session was not ended; it will expire"),
            Err(_) => tracing::warn!("the host session was not ended in time; it will expire"),
        }
    }

    /// The loop, which its health knows of.
    fn watched<L: Future<Output = ()>>(
        &self,
        name: &'static str,
        running: L,
    ) -> impl Future<Output = ()> + use<L> {
        self.health.clone().watch(name, running)
    }

    /// How many executions one transaction starts or ends at most: a third of what the host runs
    /// at once, so that one part is started while another is called and the last one recorded;
    /// but not so few that each costs a commit of its own.
    fn batch(&self) -> usize {
        (self.settings.concurrency / 3).clamp(SMALL_BATCH, LARGE_BATCH)
    }

    /// Waits for what runs, and for a START that was under way when the drain began.
    async fn end_executions(&self, loops: &TaskTracker, stop_now: &CancellationToken) {
        let all = async {
            loops.wait().await;
            self.executions.close();
            self.executions.wait().await;
        };
        tokio::pin!(all);
        tokio::select! {
            () = &mut all => return,
            () = tokio::time::sleep(self.drain_timeout()) => {}
            () = stop_now.cancelled() => {}
        }
        tracing::warn!(
            running = self.executions.len(),
            "stopping what still runs; it goes back to the queue"
        );
        self.stop.cancel();
        if tokio::time::timeout(LAST_COMPLETIONS, all).await.is_err() {
            tracing::error!(running = self.executions.len(), "executions did not stop in time");
        }
    }

    /// The completer ends by itself when the dispatcher and every execution have ended.
    async fn record_the_last(&self, mut completer: JoinHandle<()>) {
        if tokio::time::timeout(LAST_COMPLETIONS, &mut completer).await.is_err() {
            completer.abort();
            tracing::error!(
                "the store did not take the last completions in time; those executions will be tried again"
            );
        }
    }
}

/// Says once that the store fails, whichever loop notices it first, and once that all works
/// again; and tells the host's health. One for each loop.
struct StoreWatch {
    health: Arc<Health>,
    /// The work that fails.
    failing: BTreeSet<&'static str>,
}

impl StoreWatch {
    fn new(engine: &Engine) -> Self {
        Self { health: engine.health.clone(), failing: BTreeSet::new() }
    }

    /// Notes how something went; returns the value where it went well.
    fn note<T>(&mut self, what: &'static str, result: Result<T, StoreError>) -> Option<T> {
        match result {
            Ok(value) => {
                if self.failing.remove(what) {
                    match self.health.store_works(what) {
                        Some(since) => tracing::info!(what, %since, "the store works again"),
                        None => tracing::debug!(what, "the store does this again"),
                    }
                }
                Some(value)
            }
            Err(error) => {
                self.failing.insert(what);
                if self.health.store_fails(what, &error) {
                    tracing::error!(what, %error, "the store failed; trying again until it works");
                }
                None
            }
        }
    }
}

/// A loop that has ended asks no more, and would never say that the store works again.
impl Drop for StoreWatch {
    fn drop(&mut self) {
        for what in &self.failing {
            self.health.store_works(what);
        }
    }
}
