//! What one plugin may do in one database: `[[plugins.NAME.databases]]`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::error::Failure;
use super::{Error, ErrorKind, error};
use crate::config::GrantConfig;
use crate::job::Name;

/// What a plugin may do in a database. Connections never pass from one grant to another.
pub(super) struct Grant {
    /// No other one of this process has it: what a connection is kept for.
    pub(super) number: u64,
    /// The plugin.
    pub(super) plugin: Name,
    /// The database.
    pub(super) database: Name,
    /// The PostgreSQL login of its own; `None` for the database's.
    pub(super) url: Option<String>,
    /// PostgreSQL: the role of its transactions (`SET LOCAL ROLE`).
    pub(super) role: Option<String>,
    /// PostgreSQL: the schema that names without one are looked up in.
    pub(super) schema: Option<String>,
    /// Statements that write are refused.
    pub(super) read_only: bool,
    /// Commits pass the fence in the database.
    pub(super) fence: bool,
    /// How long one statement may run; `None` for as long as the execution.
    pub(super) statement_timeout: Option<Duration>,
    /// Bytes that one value of a parameter or a result may have: the plugin's memory.
    pub(super) largest_value: u64,
    /// What one execution may have at a time, and the plugin in all.
    pub(super) limits: GrantLimits,
    /// Statements that run at this moment, over all executions.
    running: AtomicU32,
}

/// The bounds of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GrantLimits {
    /// Rows and bytes of one result.
    pub(super) result: Bounds,
    /// Transactions that one execution may have open at a time.
    pub(super) max_open_transactions: u32,
    /// Cursors that one execution may have open at a time.
    pub(super) max_open_cursors: u32,
    /// Statements of all executions of the plugin that may run at a time.
    pub(super) max_running_statements: Option<u32>,
}

/// How much one result may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Rows of `query`, and of one `fetch`.
    pub(super) rows: u64,
    /// Bytes in the guest. More than the guest's memory would be of no use to it.
    pub(super) bytes: u64,
    /// The key of the configuration that says how many bytes.
    pub(super) bytes_key: &'static str,
}

/// A statement that counts as running until this is dropped.
#[derive(Debug)]
pub(super) struct Running(Arc<Grant>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Grant {
    /// What the configuration says, for a plugin with this much memory.
    pub(super) fn new(plugin: Name, database: Name, config: &GrantConfig, memory: u64) -> Self {
        let (bytes, bytes_key) = match config.max_bytes {
            Some(bytes) if bytes < memory => (bytes, "max_bytes"),
            _ => (memory, "limits.memory"),
        };
        let limits = GrantLimits {
            result: Bounds { rows: config.max_rows, bytes, bytes_key },
            max_open_transactions: config.max_open_transactions,
            max_open_cursors: config.max_open_cursors,
            max_running_statements: config.max_running_statements,
        };
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            plugin,
            database,
            url: config.url.clone(),
            role: config.role.clone(),
            schema: config.schema.clone(),
            read_only: config.read_only,
            fence: config.fence,
            statement_timeout: config.statement_timeout,
            largest_value: memory,
            limits,
            running: AtomicU32::new(0),
        }
    }

    /// True where there are commits that have to pass a fence.
    pub(super) fn is_fenced(&self) -> bool {
        self.fence && !self.read_only
    }

    /// Counts a statement that is about to run.
    ///
    /// # Errors
    /// `limit-exceeded`, where as many run as may.
    pub(super) fn start_statement(self: &Arc<Self>) -> Result<Running, Error> {
        let most = self.limits.max_running_statements.unwrap_or(u32::MAX);
        let one_more = |running: u32| (running < most).then(|| running + 1);
        match self.running.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Running(Arc::clone(self))),
            Err(running) => {
                let message = format!(
                    "plugin `{}` has {running} statements running in database `{}`, and {most} are allowed at a \
                     time (`max_running_statements`)",
                    self.plugin, self.database
                );
                let hint = "try again when one has ended, or have the operator raise the limit";
                Err(Error { hint: Some(hint.to_owned()), ..error::new(ErrorKind::LimitExceeded, message) })
            }
        }
    }

    /// What a guest is told of a failure. That it may only read is its grant's doing, the same on
    /// both engines, and no fault of the statement.
    pub(super) fn explain(&self, failure: Failure) -> Failure {
        let explained = failure.error.kind == ErrorKind::Denied;
        if !self.read_only || explained || !error::is_read_only(&failure.error) {
            return failure;
        }
        let message = format!(
            "plugin `{}` may only read in database `{}` (`access = \"read-only\"`): {}",
            self.plugin, self.database, failure.error.message
        );
        let error = Error { kind: ErrorKind::Denied, message, ..failure.error };
        Failure { error, ..failure }
    }
}

impl Grant {
    /// True where the other one allows the same to the same plugin in the same database: then their
    /// connections are interchangeable.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let Self { number: _, plugin, database, url, role, schema, .. } = self;
        let Self { read_only, fence, statement_timeout, largest_value, limits, running: _, .. } = self;
        (plugin, database, url, role, schema)
            == (&other.plugin, &other.database, &other.url, &other.role, &other.schema)
            && (read_only, fence, statement_timeout, largest_value, limits)
                == (
                    &other.read_only,
                    &other.fence,
                    &other.statement_timeout,
                    &other.largest_value,
                    &other.limits,
                )
    }
}

impl fmt::Debug for Grant {
    /// Without the login, which has a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("plugin", &self.plugin)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
