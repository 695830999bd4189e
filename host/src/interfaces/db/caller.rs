//! On whose behalf something is done in a database: one execution.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::counts::Counts;
use super::fence::Holder;
use crate::interfaces::activity::Activity;
use crate::job::Name;

/// One execution, as its transactions know it.
pub(super) struct Caller {
    /// The plugin, which connections are kept apart by.
    pub(super) plugin: Name,
    /// The execution, for a person.
    pub(super) owner: String,
    /// The attempt. `None` for what is not of any, and then nothing comes late.
    pub(super) holder: Option<Holder>,
    /// The session's number, which no other one of this process has.
    pub(super) session: u64,
    /// When the execution's time is over. The runtime ends it then; here it bounds waits.
    pub(super) deadline: Instant,
    /// Cancelled when the execution ends.
    pub(super) closing: CancellationToken,
    /// What the execution is doing.
    pub(super) activity: Activity,
    /// What it has had.
    pub(super) counts: Counts,
    /// What [`super::Ended`] will say.
    pub(super) rolled_back: AtomicUsize,
    /// What [`super::Ended`] will say.
    pub(super) unconfirmed: AtomicUsize,
}

impl Caller {
    /// For an execution that has this much time.
    pub(super) fn new(plugin: Name, owner: String, holder: Option<Holder>, time: Duration) -> Self {
        let now = Instant::now();
        Self {
            plugin,
            owner,
            holder,
            session: Self::number(),
            // Too far away to be counted: a hundred years.
            deadline: now.checked_add(time).unwrap_or(now + Duration::from_secs(100 * 366 * 86_400)),
            closing: CancellationToken::new(),
            activity: Activity::default(),
            counts: Counts::default(),
            rolled_back: AtomicUsize::new(0),
            unconfirmed: AtomicUsize::new(0),
        }
    }

    /// A number for a session that no other one of this process has.
    pub(super) fn number() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// # Errors
    /// `closed`, where the execution's host may have been given up by now.
    pub(super) fn require_in_time(&self) -> Result<(), Error> {
        self.holder.as_ref().map_or(Ok(()), Holder::require_in_time)
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
