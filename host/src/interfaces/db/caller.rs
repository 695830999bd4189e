//! On whose behalf something is done in a database: one execution.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::job::Name;

/// One execution, as its transactions know it.
pub(super) struct Caller {
    /// The plugin, which connections are kept apart by.
    pub(super) plugin: Name,
    /// The execution, for a person.
    pub(super) owner: String,
    /// The session's number, which no other one of this process has.
    pub(super) session: u64,
    /// When the execution's time is over. The runtime ends it then; here it bounds waits.
    pub(super) deadline: Instant,
    /// Cancelled when the execution ends.
    pub(super) closing: CancellationToken,
    /// What [`super::Ended`] will say.
    pub(super) rolled_back: AtomicUsize,
    /// What [`super::Ended`] will say.
    pub(super) unconfirmed: AtomicUsize,
}

impl Caller {
    /// For an execution that has this much time.
    pub(super) fn new(plugin: Name, owner: String, time: Duration) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let now = Instant::now();
        Self {
            plugin,
            owner,
            session: NEXT.fetch_add(1, Ordering::Relaxed),
            // Too far away to be counted: a hundred years.
            deadline: now.checked_add(time).unwrap_or(now + Duration::from_secs(100 * 366 * 86_400)),
            closing: CancellationToken::new(),
            rolled_back: AtomicUsize::new(0),
            unconfirmed: AtomicUsize::new(0),
        }
    }

    /// How much time the execution has left.
    pub(super) fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin `{}` ({})", self.plugin, self.owner)
    }
}
