//! A connection to PostgreSQL.
//!
//! Statements go through the extended protocol, which takes one statement at a time, prepared
//! without parameter types: each parameter takes the type that the server infers for it, and
//! is written as that type ([`values`]). What has no binary form that the host knows goes
//! through the server's own text form ([`rewrite`]). sqlx keeps prepared statements by their
//! text, and [`statements`] what they mean.

mod arrays;
mod control;
mod cursor;
mod fence;
mod numeric;
mod rewrite;
mod scan;
mod statements;
mod transaction;
mod types;
mod values;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr as _;
use std::sync::Arc;

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{
    ConnectOptions as _, Connection as _, Executor as _, PgConnection, Row as _, Statement as _,
    ValueRef as _,
};

pub(super) use self::control::{Control, Signal};
use self::cursor::Cursor;
pub(super) use self::fence::is_missing as is_missing_fence;
use self::statements::{MOST_KEPT, Prepared, Runnable, Statements};
use self::types::Codec;
use super::error::Failure;
use super::fence::Pass;
use super::grant::{Bounds, Grant};
use super::rows::{self, Cut};
use super::work::{Output, Task, Work};
use super::{Column, Error, ErrorKind, RowSet, Value, error};

/// One connection, and the server process behind it.
pub(super) struct Connection {
    inner: PgConnection,
    /// What `pg_cancel_backend` takes.
    pid: i32,
    /// The role that it has logged in as.
    login: String,
    control: Arc<Control>,
    statements: Statements,
    /// The open cursors, by their numbers.
    cursors: BTreeMap<u64, Cursor>,
    /// The last savepoint of the transaction, 0 for none.
    savepoint: u32,
    /// The number of the transaction on this connection.
    number: u64,
    /// The transaction knows its number.
    is_marked: bool,
    /// What the transaction shows at the fence before it commits, where it has to pass one.
    pass: Option<Pass>,
    /// The execution that has used it last, by the number of its session.
    session: Option<u64>,
    /// The last transaction may have changed what cached statements mean.
    schema_changed: bool,
    /// The schema of the grant is there, and may be used.
    schema_found: bool,
    /// It must not be used for another transaction.
    hang_up: bool,
}

/// Connects by the login of `control`, for a grant or only to see whether that is possible.
pub(super) async fn connect(control: &Arc<Control>, grant: Option<&Grant>) -> Result<Connection, Failure> {
    let plugin = grant.map_or("check", |grant| grant.plugin.as_str());
    let mut options = options(control.url(), &format!("innkeeper plugin {plugin}"))?
        // A cursor is mostly read to its end, and its plan should be a good one for that.
        .options([("cursor_tuple_fraction", "1")])
        // The transaction of one statement is never idle; those of a guest have their own limit.
        .options([("idle_in_transaction_session_timeout", "60s")])
        // A machine that is gone says nothing: the server finds out in a minute, not in hours.
        .options([
            ("tcp_keepalives_idle", "30"),
            ("tcp_keepalives_interval", "10"),
            ("tcp_keepalives_count", "3"),
        ])
        .statement_cache_capacity(MOST_KEPT);
    if let Some(schema) = grant.and_then(|grant| grant.schema.as_deref()) {
        // Where the session starts is where `RESET ALL` returns to.
        options = options.options([("search_path", transaction::quote(schema))]);
    }
    let mut inner = if control.checks_clients() {
        // So that a statement ends some time after its host did.
        let checked = options.clone().options([("client_connection_check_interval", "10s")]);
        match checked.connect().await {
            Err(error) if error::is_unknown_setting(&error) => {
                // Older than PostgreSQL 14, or a system where the server cannot know.
                control.never_check_clients();
                options.connect().await?
            }
            other => other?,
        }
    } else {
        options.connect().await?
    };
    let who = "SELECT pg_catalog.pg_backend_pid(), session_user::pg_catalog.text";
    let (pid, login) = sqlx::query_as(who).persistent(false).fetch_one(&mut inner).await?;
    Ok(Connection {
        inner,
        pid,
        login,
        control: Arc::clone(control),
        statements: Statements::default(),
        cursors: BTreeMap::new(),
        savepoint: 0,
        number: 0,
        is_marked: false,
        pass: None,
        session: None,
        schema_changed: false,
        schema_found: false,
        hang_up: false,
    })
}

fn options(url: &str, name: &str) -> Result<PgConnectOptions, sqlx::Error> {
    Ok(PgConnectOptions::from_str(url)?.application_name(name).disable_statement_logging())
}

impl Connection {
    /// What stops a statement on it.
    pub(super) fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// What `pg_cancel_backend` takes.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Tells the server that this is the end, and hangs up.
    pub(super) async fn close(self) -> Result<(), Failure> {
        Ok(self.inner.close().await?)
    }

    /// Runs one statement.
    pub(super) async fn run(&mut self, work: &Work<'_>) -> Result<Output, Failure> {
        self.schema_changed |= work.what.changes_schema;
        let mut prepared = self.describe(work.sql).await?;
        match work.task {
            Task::Rows(params, bounds) => {
                Ok(Output::Rows(self.query(work.sql, &mut prepared, params, bounds).await?))
            }
            Task::Changes(params) => Ok(Output::Changed(self.execute(work, &mut prepared, params).await?)),
            Task::Many(lists) => {
                let mut changed = 0;
                for (index, params) in lists.iter().enumerate() {
                    let done = self.execute(work, &mut prepared, params).await;
                    changed += done.map_err(|failure| in_list(failure, index + 1, lists.len()))?;
                }
                Ok(Output::Changed(changed))
            }
        }
    }

    async fn query(
        &mut self,
        sql: &str,
        prepared: &mut Prepared,
        params: &[Value],
        bounds: Bounds,
    ) -> Result<RowSet, Failure> {
        let (runnable, arguments) = self.bind(sql, prepared, params, true).await?;
        let columns = prepared.described.columns.clone();
        let stream = self.inner.fetch_many(runnable.statement.query_with(arguments));
        let mut first = true;
        let decode = |row: &PgRow| row_of(&runnable, &columns, row, std::mem::replace(&mut first, false));
        match rows::gather(stream, bounds, decode).await {
            Ok(rows) => Ok(RowSet { columns, rows }),
            Err(Cut::Database(error)) => Err(self.failure(error, prepared.kept, Some(&runnable)).await),
            Err(refused) => Err(refused.into()),
        }
    }

    async fn execute(
        &mut self,
        work: &Work<'_>,
        prepared: &mut Prepared,
        params: &[Value],
    ) -> Result<u64, Failure> {
        let (runnable, arguments) = self.bind(work.sql, prepared, params, false).await?;
        let done = runnable.statement.query_with(arguments).execute(&mut self.inner).await;
        match done {
            Ok(done) => {
                let changes_rows = work.what.changes_rows && !prepared.described.reads();
                Ok(if changes_rows { done.rows_affected() } else { 0 })
            }
            Err(error) => Err(self.failure(error, prepared.kept, Some(&runnable)).await),
        }
    }
}

/// The values of a row. `checks` looks at whether there are as many as the columns that the
/// statement was described with: sqlx panics otherwise, which a block of a plugin brings about
/// that puts a statement of its own in the place of one that sqlx has prepared.
fn row_of(runnable: &Runnable, columns: &[Column], row: &PgRow, checks: bool) -> Result<Vec<Value>, Error> {
    let last = columns.len().saturating_sub(1);
    let has_all = || catch_unwind(AssertUnwindSafe(|| row.try_get_raw(last).is_ok())).unwrap_or(false);
    if checks && !columns.is_empty() && !has_all() {
        let message = "the database brought other columns than it had described";
        return Err(error::new(ErrorKind::Other, message));
    }
    let mut values = Vec::with_capacity(columns.len());
    for (index, codec) in runnable.reads.iter().enumerate() {
        // An error is many times as large as a value: none is made where there is none.
        match read(row, index, *codec) {
            Some(value) => values.push(value),
            None => return Err(malformed(&columns[index])),
        }
    }
    Ok(values)
}

/// Such as text in an encoding that the plugin has set.
fn malformed(column: &Column) -> Error {
    let Column { name, type_name } = column;
    let message = format!("column `{name}` brought bytes that are no {type_name}");
    error::new(ErrorKind::Conversion, message)
}

fn read(row: &PgRow, index: usize, codec: Codec) -> Option<Value> {
    let value = row.try_get_raw(index).ok()?;
    if value.is_null() {
        return Some(Value::Null);
    }
    values::decode(value.as_bytes().ok()?, codec)
}

/// Says which of several parameter lists was refused.
fn in_list(mut failure: Failure, number: usize, of: usize) -> Failure {
    failure.error.message = format!("parameter list {number} of {of}: {}", failure.error.message);
    failure
}
