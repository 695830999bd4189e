//! What keeps a host that was given up from changing a plugin's data late.
//!
//! A host that is stopped, suspended or cut off does not know that another one has taken over
//! what it was running. Two things keep its transactions from being committed then:
//!
//! - **The host's own clock**, always: right before each commit the host looks whether its
//!   session has expired ([`CommitGuard`]). What is left is the time between that look and the
//!   moment at which the commit takes effect in the database.
//! - **A fence**, where the grant says `fence = true`: a row in the plugin's own database, which
//!   leaves nothing. Before a handler is called for an attempt that is not the first, its host
//!   *raises* the fence of the execution to the attempt's lease
//!   ([`Grants::raise_fences`](super::Grants::raise_fences)), and each commit *passes* the fence,
//!   which only the lease does that it was raised to.
//!
//! Why it is the host of the next attempt that raises it, and not the rescuer: the rescuer may be
//! any host, and may know neither the plugin nor its databases. Whoever calls the handler has
//! both, and that no handler is called before the fence is raised is all that matters. An attempt
//! whose fence cannot be raised yet waits for it.
//!
//! Why a row for each execution, with its highest lease: leases only grow, are never used again,
//! and belong to one execution each, so that comparing them is all there is to do, whatever hosts
//! and host sessions they were of. A row for each plugin or job would also stop the other
//! executions that still run with lower leases; one for each host session would be locked by all
//! of its transactions at once, and would have to be there before the session starts anything.
//!
//! Passing and raising exclude each other, by the engine's own locks:
//!
//! - On PostgreSQL a commit passes in the message of the COMMIT (`postgres/fence.sql` has the two
//!   functions). It puts a row of its execution into the fence, and takes it away again in the
//!   same transaction. The unique index makes a raise wait for that transaction to end, and lets
//!   it find a row that a raise has left, at every isolation level. A host that is stopped in the
//!   middle of a transaction holds nothing that a raise would wait for; and when the fence is
//!   raised, what earlier attempts have left open is ended, so that the next one does not wait for
//!   its locks.
//! - On SQLite, which has one writer, a transaction looks at the fence when it has become the
//!   writer, and raising is a transaction as well. A host that is stopped while it is the writer
//!   keeps everybody else waiting, and so the raise.
//!
//! What only reads has nothing to commit, and does not look.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{Error, error};

/// How long a raised fence is kept: longer than an execution may take (30 days), and so longer
/// than the database waits for a client that has a transaction open and says nothing.
pub(super) const KEPT: Duration = Duration::from_secs(31 * 86_400);

/// Says whether an execution may still commit.
pub trait CommitGuard: Send + Sync {
    /// False from some time before another host may take the execution over. Asked right before
    /// each commit, and so quick.
    fn may_commit(&self) -> bool;
}

/// The attempt that a session's transactions are of.
#[derive(Clone)]
pub struct Holder {
    /// The execution.
    pub execution: Uuid,
    /// The number of the attempt's START.
    pub lease: i64,
    /// What its host knows of its own session.
    pub guard: Arc<dyn CommitGuard>,
}

impl Holder {
    /// # Errors
    /// `closed`, where it is too late to commit.
    pub(super) fn require_in_time(&self) -> Result<(), Error> {
        if self.guard.may_commit() { Ok(()) } else { Err(error::too_late_to_commit()) }
    }

    pub(super) fn pass(&self) -> Pass {
        Pass { execution: self.execution, lease: self.lease }
    }
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "execution {}, lease {}", self.execution, self.lease)
    }
}

/// What a transaction shows at a fence, and what a fence is raised to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    pub(super) execution: Uuid,
    pub(super) lease: i64,
}
