//! Cancelling: a running handler whose execution is to end is told so, and stopped when it has not
//! ended by itself within its job's `cancel_grace`.
//!
//! A host reads the requests for what it runs once a second, and at once where a hint says that
//! there may be one. While nobody cancels anything this is a look at an empty table, and an attempt
//! costs an entry in a map.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Engine, StoreWatch};
use crate::execution::Outcome;
use crate::runtime::Stop;
use crate::store::{CancelRequest, CancelResult, StoreError};

/// How long a request may wait to be seen where no hint tells of it.
const INTERVAL: Duration = Duration::from_secs(1);

/// Requests that one look takes on.
const BATCH: u32 = 1_000;

/// The attempts that run on this host, by lease.
#[derive(Default)]
pub(super) struct Cancellations(Mutex<HashMap<i64, Arc<Cancellation>>>);

/// Whether one attempt is to end, and how it is made to.
pub(super) struct Cancellation {
    /// Why; none while nobody wants it to end.
    reason: OnceLock<String>,
    requested: CancellationToken,
    /// It did not end by itself.
    overstayed: AtomicBool,
    /// Ends the call; also when that of the session does.
    pub(super) stop: Stop,
}

/// An attempt's entry among those that run, until it is dropped.
pub(super) struct Entered<'a> {
    all: &'a Cancellations,
    lease: i64,
    pub(super) cancellation: Arc<Cancellation>,
}

impl Cancellations {
    /// Enters an attempt whose calls end with `stop` too.
    pub(super) fn enter(&self, lease: i64, stop: &Stop) -> Entered<'_> {
        let cancellation = Arc::new(Cancellation::new(stop));
        self.lock().insert(lease, cancellation.clone());
        Entered { all: self, lease, cancellation }
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// False: it does not run here, or it is told already.
    fn request(&self, lease: i64, reason: &str) -> bool {
        self.lock().get(&lease).is_some_and(|cancellation| cancellation.request(reason))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Arc<Cancellation>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.all.lock().remove(&self.lease);
    }
}

impl Cancellation {
    fn new(stop: &Stop) -> Self {
        Self {
            reason: OnceLock::new(),
            requested: CancellationToken::new(),
            overstayed: AtomicBool::new(false),
            stop: stop.child_token(),
        }
    }

    fn request(&self, reason: &str) -> bool {
        let is_first = self.reason.set(reason.to_owned()).is_ok();
        self.requested.cancel();
        is_first
    }

    pub(super) fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// Stops the attempt when it has not ended in time. To be polled beside the attempt.
    pub(super) async fn enforce(&self, grace: Duration) -> Infallible {
        self.requested.cancelled().await;
        tokio::time::sleep(grace).await;
        self.overstayed.store(true, Ordering::SeqCst);
        self.stop.cancel();
        std::future::pending().await
    }

    /// What is to be recorded of an attempt that ended so.
    pub(super) fn judge(&self, outcome: Outcome, grace: Duration) -> Outcome {
        let Some(reason) = self.reason.get() else { return outcome };
        if outcome == Outcome::Released && self.overstayed.load(Ordering::SeqCst) {
            return Outcome::Cancelled(format!(
                "{reason}; the handler did not end by itself within the job's `cancel_grace` of {}, and was stopped",
                humantime::format_duration(grace)
            ));
        }
        outcome.after_a_request(reason)
    }
}

/// Looks for requests until `finished`: also while the host drains, since what is cancelled does
/// not go back to the queue.
pub(super) async fn run(engine: Arc<Engine>, finished: CancellationToken) {
    let mut watch = StoreWatch::new(&engine);
    let idle = engine.settings.session_timeout / 3;
    let mut looked = Instant::now();
    let mut may_be_more = false;
    loop {
        let hinted = tokio::select! {
            () = engine.cancels.notified() => true,
            () = tokio::time::sleep(INTERVAL) => false,
            () = finished.cancelled() => return,
        };
        // Without anything that runs there are only leftovers to find.
        if !hinted && !may_be_more && engine.cancellations.is_empty() && looked.elapsed() < idle {
            continue;
        }
        looked = Instant::now();
        // Dropped wherever it stands: what is not settled now is settled by the next look.
        let Some(found) = finished.run_until_cancelled(look(&engine)).await else { return };
        may_be_more = watch.note("cancel", found).unwrap_or(true);
    }
}

/// Tells the handlers that are to end, and settles what has no handler to tell. False: there are
/// no requests.
async fn look(engine: &Engine) -> Result<bool, StoreError> {
    let requests = engine.store.cancel_requests(engine.session.id(), BATCH).await?;
    for request in &requests {
        let CancelRequest { execution, reason, lease } = request;
        match lease {
            Some(lease) if engine.cancellations.request(*lease, reason) => {
                tracing::info!(%execution, reason, "the handler is told to end");
            }
            Some(_) => {}
            None => {
                let settled = engine.store.settle_request(request).await?;
                if settled == Some(CancelResult::Cancelled) {
                    tracing::info!(%execution, reason, "cancelled before its next attempt");
                }
            }
        }
    }
    Ok(!requests.is_empty())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::execution::{Failure, FailureKind};

    const GRACE: Duration = Duration::from_secs(10);

    #[test]
    fn an_attempt_that_nobody_wants_to_end_is_left_as_it_is() {
        let cancellation = Cancellation::new(&Stop::new());
        assert_eq!(cancellation.judge(Outcome::Released, GRACE), Outcome::Released);
        assert!(!cancellation.is_requested());
    }

    #[test]
    fn only_the_first_to_ask_is_the_one_who_gave_the_reason() {
        let all = Cancellations::default();
        let entered = all.enter(7, &Stop::new());
        assert!(!all.request(8, "it does not run here"));
        assert!(all.request(7, "first") && !all.request(7, "second"));
        let failed = Outcome::Failed(Failure::new(FailureKind::Handler, "I was told to"));
        let Outcome::Cancelled(text) = entered.cancellation.judge(failed, GRACE) else { panic!() };
        assert!(text.starts_with("first;") && text.ends_with("I was told to"), "{text}");
        drop(entered);
        assert!(all.is_empty() && !all.request(7, "it has ended"));
    }

    #[tokio::test]
    async fn a_handler_has_its_grace_from_the_request_on_and_is_then_stopped() {
        let session = Stop::new();
        let cancellation = Cancellation::new(&session);
        assert!(cancellation.enforce(Duration::ZERO).now_or_never().is_none());
        assert!(!cancellation.stop.is_cancelled(), "nobody has asked");
        cancellation.request("why");
        assert!(cancellation.enforce(Duration::from_secs(3600)).now_or_never().is_none());
        assert!(!cancellation.stop.is_cancelled(), "it has an hour");
        tokio::select! {
            () = cancellation.stop.cancelled() => {}
            never = cancellation.enforce(Duration::ZERO) => match never {},
        }
        assert!(!session.is_cancelled(), "nobody else is stopped");
        let Outcome::Cancelled(text) = cancellation.judge(Outcome::Released, GRACE) else { panic!() };
        assert!(text.starts_with("why; ") && text.contains("10s"), "{text}");
    }
}
