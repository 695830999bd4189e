//! What is asked of a connection, and what it brings. Nothing here knows an engine.

use std::time::Duration;

use super::caller::Caller;
use super::fence::{Holder, Pass};
use super::grant::{Bounds, Grant};
use super::statement::Statement;
use super::{BeginOptions, RowSet, Value};

/// How long each step of stopping waits for an answer: the cancel request, the termination of
/// the server process, the rollback, the closing of the connection. Together they stay within
/// the five seconds that the end of an execution may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// How long a database may take to enforce the time-out of a statement by itself, which gives
/// the better message, before the host does.
pub(super) const TIMEOUT_MARGIN: Duration = Duration::from_millis(250);

/// A statement to run, checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work<'a> {
    pub(super) sql: &'a str,
    /// What the check has found.
    pub(super) what: Statement,
    pub(super) task: Task<'a>,
}

/// With what a statement runs, and what is wanted of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Task<'a> {
    /// Once, for its rows.
    Rows(&'a [Value], Bounds),
    /// Once, for the number of rows that it changed.
    Changes(&'a [Value]),
    /// Once for each parameter list, for the number of rows changed in total.
    Many(&'a [Vec<Value>]),
}

/// What a statement has brought.
#[derive(Debug)]
pub(super) enum Output {
    Rows(RowSet),
    Changed(u64),
}

/// A transaction to begin.
#[derive(Clone, Copy)]
pub(super) struct Begin<'a> {
    pub(super) purpose: Purpose<'a>,
    pub(super) grant: &'a Grant,
    pub(super) caller: &'a Caller,
}

/// What a transaction is for.
#[derive(Clone, Copy)]
pub(super) enum Purpose<'a> {
    /// One statement.
    Statement(Statement),
    /// Whatever the guest will do.
    Guest(&'a BeginOptions),
}

impl Begin<'_> {
    /// What it shows at the fence, where it has to pass one.
    pub(super) fn pass(&self) -> Option<Pass> {
        let fenced = self.grant.is_fenced() && !self.read_only();
        self.caller.holder.as_ref().filter(|_| fenced).map(Holder::pass)
    }

    /// True where statements that write are refused in it.
    pub(super) fn read_only(&self) -> bool {
        match self.purpose {
            Purpose::Statement(..) => self.grant.read_only,
            Purpose::Guest(options) => options.read_only || self.grant.read_only,
        }
    }
}

/// What has become of the session of a connection whose transaction has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing of it is left: settings, temporary tables and locks are as on a new connection.
    Nothing,
    /// Something may be left, and the connection must be closed.
    Something,
}
