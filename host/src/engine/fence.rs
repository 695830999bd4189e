//! Late hosts and the plugins' own data: no commit after the host session has expired, and no
//! retry before the fences are raised (`interfaces::db::fence`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::registry::Plugin;
use super::session::LiveSession;
use crate::execution::{Attempt, Failure, FailureKind, Outcome};
use crate::interfaces::db::Ended;
use crate::interfaces::db::fence::{CommitGuard, Holder};
use crate::runtime::Stop;

/// How long to wait before a fence that could not be raised is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// What one attempt may commit.
pub(super) struct Commits {
    session: Arc<LiveSession>,
    /// A commit was refused.
    refused: AtomicBool,
}

impl Commits {
    pub(super) fn new(session: &Arc<LiveSession>) -> Arc<Self> {
        Arc::new(Self { session: session.clone(), refused: AtomicBool::new(false) })
    }

    /// The attempt, as its transactions know it.
    pub(super) fn holder(self: &Arc<Self>, attempt: &Attempt) -> Holder {
        Holder { execution: attempt.execution, lease: attempt.lease, guard: self.clone() }
    }

    /// What is to be recorded of an attempt that ended so.
    ///
    /// One that was refused a commit did not fail by its own fault, and did not succeed: it is
    /// given back, as all others that the loss of the session stops. One that is given back while
    /// a commit of it may still be under way has to count where there is a fence, since only a
    /// further attempt raises it.
    pub(super) fn judge(&self, outcome: Outcome, ended: Ended, plugin: &Plugin) -> Outcome {
        let outcome = if self.refused.load(Ordering::SeqCst) { Outcome::Released } else { outcome };
        if outcome == Outcome::Released && ended.unconfirmed > 0 && plugin.grants.is_fenced() {
            let message = "the handler was stopped, and the end of a transaction of it is unconfirmed: the attempt \
                           counts, so that the next one raises the fence";
            return Outcome::Failed(Failure::new(FailureKind::Host, message.to_owned()));
        }
        outcome
    }
}

impl CommitGuard for Commits {
    fn may_commit(&self) -> bool {
        let may = self.session.may_commit();
        if !may && !self.refused.swap(true, Ordering::SeqCst) {
            tracing::warn!(
                session = self.session.id.0,
                "a handler's commit was refused: the host session was not renewed in time"
            );
        }
        may
    }
}

/// Keeps what earlier attempts may still have under way from being committed, before the handler
/// is called again.
///
/// # Errors
/// What to record, where the handler must not be called.
pub(super) async fn raise(plugin: &Plugin, stop: &Stop, attempt: &Attempt) -> Result<(), Outcome> {
    if attempt.attempt == 1 || !plugin.grants.is_fenced() {
        return Ok(());
    }
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(Outcome::Released),
        raised = tokio::time::timeout(attempt.job.timeout, until_raised(plugin, attempt)) => {
            raised.map_err(|_elapsed| {
                let message = format!(
                    "the fence of an earlier attempt could not be raised within the time-out of {}, and so the \
                     handler was not called; the log of the host says why",
                    humantime::format_duration(attempt.job.timeout)
                );
                Outcome::Failed(Failure::new(FailureKind::Host, message))
            })
        }
    }
}

async fn until_raised(plugin: &Plugin, attempt: &Attempt) {
    let mut has_failed = false;
    while let Err(error) = plugin.grants.raise_fences(attempt.execution, attempt.lease).await {
        if !std::mem::replace(&mut has_failed, true) {
            let (plugin, execution) = (&plugin.name, attempt.execution);
            tracing::warn!(%plugin, %execution, error, "a retry waits until the earlier attempt is fenced off");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
