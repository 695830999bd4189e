//! This host's session: one life of a host process, kept alive by a heartbeat.
//!
//! A session that could not be renewed in time is over even where the store does not say so
//! yet: its handlers are stopped before another host may retry what they do.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::registry::Registry;
use super::{Engine, STORE_RETRY, Settings, StoreWatch};
use crate::clock;
use crate::store::{NewSession, SessionId, Store, StoreError};

/// The current session, and how to get another one.
pub(super) struct HostSession {
    current: RwLock<Arc<LiveSession>>,
    doubt: Notify,
    boot: Uuid,
}

/// One session, as long as this host believes in it.
pub(super) struct LiveSession {
    pub(super) id: SessionId,
    /// Ends the calls that were started in this session.
    pub(super) stop: CancellationToken,
    open: Mutex<BTreeSet<i64>>,
    /// A START may have been recorded that is not in `open`.
    in_doubt: AtomicBool,
}

impl HostSession {
    pub(super) async fn register(
        store: &Store,
        settings: &Settings,
        plugins: &Registry,
        stop: &CancellationToken,
    ) -> Result<Self, StoreError> {
        let boot = Uuid::now_v7();
        let first = LiveSession::register(store, settings, plugins, stop, boot).await?;
        Ok(Self { current: RwLock::new(Arc::new(first)), doubt: Notify::new(), boot })
    }

    pub(super) fn current(&self) -> Arc<LiveSession> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn id(&self) -> SessionId {
        self.current().id
    }

    /// Has the heartbeat look at once: the store refused something of this session.
    pub(super) fn doubt(&self) {
        self.doubt.notify_one();
    }

    fn replace(&self, session: LiveSession) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(session);
    }
}

impl LiveSession {
    async fn register(
        store: &Store,
        settings: &Settings,
        plugins: &Registry,
        stop: &CancellationToken,
        boot: Uuid,
    ) -> Result<Self, StoreError> {
        let session = NewSession {
            host: &settings.host,
            boot_id: boot,
            version: env!("CARGO_PKG_VERSION"),
            ttl: settings.session_timeout,
            plugins: plugins.digests(),
        };
        let id = store.register_session(&session).await?;
        Ok(Self { id, stop: stop.child_token(), open: Mutex::default(), in_doubt: AtomicBool::new(false) })
    }

    /// Notes that this START has no completion yet.
    pub(super) fn open(&self, lease: i64) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(lease);
    }

    /// Notes that the completion of this START is durable.
    pub(super) fn close(&self, lease: i64) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&lease);
    }

    /// The starts that have no completion yet.
    pub(super) fn open_leases(&self) -> Vec<i64> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Notes that the answer to a START was lost, or what became of it is known again.
    pub(super) fn set_in_doubt(&self, in_doubt: bool) {
        self.in_doubt.store(in_doubt, Ordering::SeqCst);
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::SeqCst)
    }

    /// What a rescue need not look below. A START under way gets a higher lease than any
    /// before it; one in doubt may be the lowest.
    fn lowest_open(&self) -> Option<i64> {
        if self.is_in_doubt() {
            return None;
        }
        self.open.lock().unwrap_or_else(PoisonError::into_inner).first().copied()
    }
}

/// Renews the session three times in its time-out, until `finished`.
pub(super) async fn keep_alive(engine: Arc<Engine>, finished: CancellationToken) {
    let timeout = engine.settings.session_timeout;
    let mut watch = StoreWatch::default();
    let mut renewed = clock::since_boot();
    let mut pause = timeout / 3;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = engine.session.doubt.notified() => {}
            () = finished.cancelled() => return,
        }
        let session = engine.session.current();
        let asked = clock::since_boot();
        let result = tokio::time::timeout(timeout / 3, beat(&engine, &session)).await;
        let result = result.unwrap_or_else(|_| {
            Err(StoreError::Unavailable("the heartbeat was not answered in time".to_owned()))
        });
        pause = timeout / 3;
        match result {
            Ok(true) => {
                watch.note("heartbeat", Ok(()));
                renewed = asked;
            }
            Ok(false) => {
                tracing::warn!("this host's session was ended by another host; starting a new one");
                session.stop.cancel();
            }
            Err(error) => {
                watch.note::<()>("heartbeat", Err(error));
                pause = STORE_RETRY.min(timeout / 10);
                if is_over(asked, renewed, timeout) && !session.stop.is_cancelled() {
                    tracing::error!("the host session could not be renewed in time; stopping its handlers");
                    session.stop.cancel();
                }
            }
        }
        if session.stop.is_cancelled() && !engine.stop.is_cancelled() {
            match LiveSession::register(
                &engine.store,
                &engine.settings,
                &engine.plugins,
                &engine.stop,
                engine.session.boot,
            )
            .await
            {
                Ok(session) => {
                    engine.session.replace(session);
                    renewed = clock::since_boot();
                }
                Err(error) => {
                    watch.note::<()>("register", Err(error));
                }
            }
        }
    }
}

/// `Ok(false)`: the session is dead.
async fn beat(engine: &Engine, session: &LiveSession) -> Result<bool, StoreError> {
    let ttl = engine.settings.session_timeout;
    match engine.store.heartbeat(session.id, ttl, session.lowest_open()).await {
        Ok(()) => Ok(true),
        Err(StoreError::SessionLost) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Leaves a fifth of the time for the handlers to be stopped in.
fn is_over(now: Duration, renewed: Duration, timeout: Duration) -> bool {
    now.saturating_sub(renewed) > timeout * 4 / 5
}
