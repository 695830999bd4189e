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

use super::{Engine, STORE_RETRY, Settings, StoreWatch};
use crate::clock;
use crate::job::Name;
use crate::store::{Heartbeat, NewSession, SessionId, Store, StoreError};

/// The current session, and how to get another one.
pub(super) struct HostSession {
    current: RwLock<Arc<LiveSession>>,
    /// Sessions that were lost, and whose executions are not all recorded yet.
    lost: Mutex<Vec<Arc<LiveSession>>>,
    doubt: Notify,
    boot: Uuid,
}

/// One session, as long as this host believes in it.
pub(super) struct LiveSession {
    pub(super) id: SessionId,
    /// Ends the calls that were started in this session.
    pub(super) stop: CancellationToken,
    open: Mutex<BTreeSet<i64>>,
    /// How long the store keeps it without a heartbeat.
    timeout: Duration,
    /// It is over, whatever a heartbeat that is still under way may bring.
    is_lost: AtomicBool,
    /// When the last heartbeat that was answered was sent; see [`clock::since_boot`].
    renewed: Mutex<Duration>,
    /// A START may have been recorded that is not in `open`.
    in_doubt: AtomicBool,
}

impl HostSession {
    pub(super) async fn register(
        store: &Store,
        settings: &Settings,
        plugins: &[(Name, String)],
        stop: &CancellationToken,
    ) -> Result<Self, StoreError> {
        let boot = Uuid::now_v7();
        let first = LiveSession::register(store, settings, plugins, stop, boot).await?;
        Ok(Self { current: RwLock::new(Arc::new(first)), lost: Mutex::default(), doubt: Notify::new(), boot })
    }

    pub(super) fn current(&self) -> Arc<LiveSession> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What tells this process from every other.
    pub(super) fn boot(&self) -> Uuid {
        self.boot
    }

    pub(super) fn id(&self) -> SessionId {
        self.current().id
    }

    /// Has the heartbeat look at once: the store refused something of this session.
    pub(super) fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// The sessions of this process whose completions are not all recorded: what they ran is
    /// accounted for here, and needs no rescue by this host.
    pub(super) fn with_open_starts(&self) -> Vec<SessionId> {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.retain(|session| !session.open_leases().is_empty());
        let current = self.current();
        let sessions = lost.iter().chain(std::iter::once(&current));
        sessions.filter(|session| !session.open_leases().is_empty()).map(|session| session.id).collect()
    }

    fn replace(&self, session: LiveSession) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, Arc::new(session));
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).push(old);
    }
}

impl LiveSession {
    async fn register(
        store: &Store,
        settings: &Settings,
        plugins: &[(Name, String)],
        stop: &CancellationToken,
        boot: Uuid,
    ) -> Result<Self, StoreError> {
        let session = NewSession {
            host: &settings.host,
            boot_id: boot,
            version: env!("CARGO_PKG_VERSION"),
            ttl: settings.session_timeout,
            slots: u32::try_from(settings.concurrency).unwrap_or(u32::MAX),
            plugins,
        };
        let asked = clock::since_boot();
        let id = store.register_session(&session).await?;
        Ok(Self {
            id,
            stop: stop.child_token(),
            open: Mutex::default(),
            timeout: settings.session_timeout,
            is_lost: AtomicBool::new(false),
            renewed: Mutex::new(asked),
            in_doubt: AtomicBool::new(false),
        })
    }

    /// Notes that these STARTs have no completion yet.
    pub(super) fn open_all(&self, leases: impl Iterator<Item = i64>) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).extend(leases);
    }

    /// Notes that the completions of these STARTs are durable.
    pub(super) fn close_all(&self, leases: impl Iterator<Item = i64>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for lease in leases {
            open.remove(&lease);
        }
    }

    /// The starts that have no completion yet.
    pub(super) fn open_leases(&self) -> Vec<i64> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    fn renew(&self, asked: Duration) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = asked;
    }

    fn renewed(&self) -> Duration {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True while nobody else can have taken over what was started in it. A session that is over
    /// stays so.
    pub(super) fn may_commit(&self) -> bool {
        if self.is_lost.load(Ordering::SeqCst) {
            return false;
        }
        let is_over = is_over(clock::since_boot(), self.renewed(), self.timeout);
        if is_over {
            self.is_lost.store(true, Ordering::SeqCst);
        }
        !is_over
    }

    /// Ends what was started in it.
    fn lose(&self) {
        self.is_lost.store(true, Ordering::SeqCst);
        self.stop.cancel();
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

/// Renews the session three times in its time-out, and registers another one when it is lost,
/// until `finished`.
pub(super) async fn keep_alive(engine: Arc<Engine>, finished: CancellationToken) {
    let timeout = engine.settings.session_timeout;
    let mut watch = StoreWatch::new(&engine);
    let mut pause = timeout / 3;
    loop {
        let draining = engine.drain.is_cancelled();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = engine.session.doubt.notified() => {}
            // Whoever looks at the hosts sees at once that this one drains.
            () = engine.drain.cancelled(), if !draining => {}
            () = finished.cancelled() => return,
        }
        let session = engine.session.current();
        let answered = watch.note("heartbeat", beat(&engine, &session).await).is_some();
        pause = if answered { timeout / 3 } else { STORE_RETRY.min(timeout / 10) };
        if session.stop.is_cancelled() && !engine.stop.is_cancelled() {
            watch.note("register", register_again(&engine).await);
        }
    }
}

/// Stops the handlers of a session that was not renewed in time, until `finished`.
///
/// A task of its own, since a heartbeat may be waiting for its answer all the while; and it
/// looks often, since a timer stands still while the machine is suspended.
pub(super) async fn watch_over(engine: Arc<Engine>, finished: CancellationToken) {
    let timeout = engine.settings.session_timeout;
    let tick = (timeout / 50).clamp(Duration::from_millis(10), Duration::from_millis(250));
    loop {
        tokio::select! {
            () = tokio::time::sleep(tick) => {}
            () = finished.cancelled() => return,
        }
        let session = engine.session.current();
        if !session.may_commit() && !session.stop.is_cancelled() {
            tracing::error!("the host session could not be renewed in time; stopping its handlers");
            // Before it is stopped: after that, another one may be registered at any time.
            engine.health.session_lost(
                "the host session could not be renewed in time: its handlers were stopped, and another one \
                 is registered as soon as the store answers",
            );
            session.lose();
        }
    }
}

/// One heartbeat. A session that another host has ended is stopped.
async fn beat(engine: &Engine, session: &LiveSession) -> Result<(), StoreError> {
    let ttl = engine.settings.session_timeout;
    let asked = clock::since_boot();
    let lowest_open = session.lowest_open();
    let heartbeat = async {
        if engine.drain.is_cancelled() {
            engine.store.heartbeat_while_draining(session.id, ttl, lowest_open).await
        } else {
            engine.store.heartbeat(session.id, ttl, lowest_open).await
        }
    };
    match tokio::time::timeout(ttl / 3, heartbeat).await {
        Ok(Ok(Heartbeat { drain_requested, reload_requested })) => {
            session.renew(asked);
            if drain_requested && !engine.drain.is_cancelled() {
                tracing::info!("this host was asked to drain, by `innkeeper host drain`");
                engine.drain.cancel();
            }
            if reload_requested {
                engine.reloads.notify_one();
            }
        }
        Ok(Err(StoreError::SessionLost)) => {
            tracing::warn!("this host's session was ended by another host; starting a new one");
            engine.health.session_lost(
                "the host session was ended by another host, since it was not renewed in time; another one \
                 is registered as soon as the store answers",
            );
            session.lose();
        }
        Ok(Err(error)) => return Err(error),
        Err(_) => return Err(StoreError::Unavailable("the heartbeat was not answered in time".to_owned())),
    }
    Ok(())
}

async fn register_again(engine: &Engine) -> Result<(), StoreError> {
    let Engine { store, settings, plugins, stop, session, health, .. } = engine;
    // Not while the next plugins become those of the session that was lost.
    let _writing = plugins.writing.lock().await;
    let plugins = plugins.current();
    let registered = LiveSession::register(store, settings, plugins.digests(), stop, session.boot).await?;
    session.replace(registered);
    health.session_lives();
    Ok(())
}

/// Leaves a fifth of the time for the handlers to be stopped in, and for a commit that was sent
/// just before to take effect. `renewed` is from before the heartbeat was sent, and so no later
/// than what the store counts from.
fn is_over(now: Duration, renewed: Duration, timeout: Duration) -> bool {
    now.saturating_sub(renewed) > timeout * 4 / 5
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(renewed: Duration) -> LiveSession {
        LiveSession {
            id: SessionId(1),
            stop: CancellationToken::new(),
            open: Mutex::default(),
            timeout: Duration::from_secs(100),
            is_lost: AtomicBool::new(false),
            renewed: Mutex::new(renewed),
            in_doubt: AtomicBool::new(false),
        }
    }

    #[test]
    fn what_was_not_renewed_in_time_commits_nothing_any_more_whatever_comes_late() {
        let now = clock::since_boot();
        assert!(live(now).may_commit());
        // As after a suspension, in which no timer has run and nobody has stopped the handlers.
        let session = live(now.saturating_sub(Duration::from_secs(81)));
        assert!(now < Duration::from_secs(81) || !session.may_commit());
        session.lose();
        session.renew(clock::since_boot());
        assert!(!session.may_commit(), "a heartbeat that was under way all the while");
    }

    #[test]
    fn a_session_is_over_before_the_store_may_say_so() {
        let timeout = Duration::from_secs(15);
        assert!(!is_over(Duration::from_secs(111), Duration::from_secs(100), timeout));
        assert!(is_over(Duration::from_secs(113), Duration::from_secs(100), timeout));
        assert!(
            !is_over(Duration::ZERO, Duration::from_secs(100), timeout),
            "a clock never goes back, but still"
        );
    }
}
