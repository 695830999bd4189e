//! A connection to PostgreSQL.
//!
//! Statements go through the extended protocol, which takes one statement at a time, prepared
//! without parameter types: each parameter takes the type that the server infers for it, and
//! is written as that type ([`values`]). sqlx keeps prepared statements by their text.

mod control;
mod numeric;
mod values;

use std::str::FromStr;

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgConnectOptions, PgRow, PgStatement, PgTypeInfo};
use sqlx::{
    Arguments as _, AssertSqlSafe, Column as _, ConnectOptions as _, Connection as _, Either, Encode,
    Executor as _, PgConnection, Postgres, Row as _, SqlSafeStr as _, Statement as _, Type, ValueRef as _,
};

pub(super) use self::control::{Control, Signal};
use std::sync::Arc;
use tokio::time::timeout;

use super::connection::{Canceller, PATIENCE};
use super::error::Failure;
use super::grant::{Bounds, Grant};
use super::rows::{self, Cut};
use super::work::{Begin, Left, Output, Purpose, Task, Work};
use super::{Column, Error, ErrorKind, Isolation, RowSet, Value, error};

/// One connection, and the server process behind it.
pub(super) struct Connection {
    inner: PgConnection,
    /// What `pg_cancel_backend` takes.
    pid: i32,
    control: Arc<Control>,
    /// The last transaction may have changed what cached statements mean.
    schema_changed: bool,
}

/// Connects by the login of `control`, for a grant or only to see whether that is possible.
pub(super) async fn connect(control: &Arc<Control>, grant: Option<&Grant>) -> Result<Connection, Failure> {
    let plugin = grant.map_or("check", |grant| grant.plugin.as_str());
    let mut inner = open(control.url(), &format!("innkeeper plugin {plugin}")).await?;
    let pid = sqlx::query_scalar("SELECT pg_catalog.pg_backend_pid()").fetch_one(&mut inner).await?;
    Ok(Connection { inner, pid, control: Arc::clone(control), schema_changed: false })
}

async fn open(url: &str, name: &str) -> Result<PgConnection, sqlx::Error> {
    PgConnectOptions::from_str(url)?.application_name(name).disable_statement_logging().connect().await
}

impl Connection {
    /// What stops a statement on it.
    pub(super) fn canceller(&self) -> Canceller {
        Canceller::Postgres(Arc::clone(&self.control), self.pid)
    }

    /// Begins a transaction: one message.
    pub(super) async fn begin(&mut self, begin: &Begin<'_>) -> Result<(), Failure> {
        let read_only = begin.read_only();
        let isolation = match begin.purpose {
            Purpose::Statement(..) => None,
            Purpose::Guest(options) => options.isolation,
        };
        let isolation = match isolation {
            None => "",
            Some(Isolation::ReadCommitted) => " ISOLATION LEVEL READ COMMITTED",
            Some(Isolation::RepeatableRead) => " ISOLATION LEVEL REPEATABLE READ",
            Some(Isolation::Serializable) => " ISOLATION LEVEL SERIALIZABLE",
        };
        let access = if read_only { " READ ONLY" } else { "" };
        if self.schema_changed {
            // Now and not with the commit, whose answer nothing that comes after may change.
            self.inner.clear_cached_statements().await?;
            self.schema_changed = false;
        }
        self.simple(format!("BEGIN{isolation}{access}")).await
    }

    /// Commits. The savepoint fails, and so does the whole, where the transaction has failed
    /// or is gone: `COMMIT` alone would answer that all is well.
    pub(super) async fn commit(&mut self) -> Result<Left, Failure> {
        self.simple("SAVEPOINT innkeeper_commit; COMMIT".to_owned()).await?;
        Ok(self.reset().await)
    }

    /// Rolls back. The answer may be the error of a statement that was cut short, and a cancel
    /// request that comes too late for its statement may hit this one: it is then said again.
    pub(super) async fn rollback(&mut self) -> Result<Left, Failure> {
        for _ in 0..4 {
            match self.simple("ROLLBACK".to_owned()).await {
                Err(failure) if !failure.broken => {}
                Err(failure) => return Err(failure),
                Ok(()) => return Ok(self.reset().await),
            }
        }
        let message = "the rollback failed again and again";
        Err(Failure { broken: true, ..error::new(ErrorKind::Connection, message).into() })
    }

    /// Undoes what outlives a transaction. Not `DISCARD ALL`, which would drop the prepared
    /// statements that sqlx believes in.
    async fn reset(&mut self) -> Left {
        const RESET: &str = "RESET SESSION AUTHORIZATION; RESET ALL; CLOSE ALL; UNLISTEN *; DISCARD TEMP; \
                             DISCARD SEQUENCES; SELECT pg_advisory_unlock_all()";
        match timeout(PATIENCE, self.simple(RESET.to_owned())).await {
            Ok(Ok(())) => Left::Nothing,
            _ => Left::Something,
        }
    }

    pub(super) async fn savepoint(&mut self, number: u32) -> Result<(), Failure> {
        self.simple(format!("SAVEPOINT innkeeper_{number}")).await
    }

    pub(super) async fn rollback_to(&mut self, number: u32) -> Result<(), Failure> {
        self.simple(format!("ROLLBACK TO SAVEPOINT innkeeper_{number}")).await
    }

    pub(super) async fn release(&mut self, number: u32) -> Result<(), Failure> {
        self.simple(format!("RELEASE SAVEPOINT innkeeper_{number}")).await
    }

    pub(super) async fn open_cursor(
        &mut self,
        _number: u64,
        _work: &Work<'_>,
    ) -> Result<Vec<Column>, Failure> {
        Err(error::new(ErrorKind::Other, "cursors are not there yet").into())
    }

    pub(super) async fn fetch(
        &mut self,
        _number: u64,
        _limit: u32,
        _bounds: Bounds,
    ) -> Result<Vec<Vec<Value>>, Failure> {
        Err(error::new(ErrorKind::Other, "cursors are not there yet").into())
    }

    pub(super) async fn close_cursor(&mut self, _number: u64) -> Result<(), Failure> {
        Ok(())
    }

    /// Tells the server that this is the end, and hangs up.
    pub(super) async fn close(self) -> Result<(), Failure> {
        Ok(self.inner.close().await?)
    }

    /// Runs one statement.
    pub(super) async fn run(&mut self, work: &Work<'_>) -> Result<Output, Failure> {
        match work.task {
            Task::Many(lists) => {
                let mut changed = 0;
                for params in lists {
                    if let Output::Changed(more) = self.run_once(work, params, None).await? {
                        changed += more;
                    }
                }
                Ok(Output::Changed(changed))
            }
            Task::Changes(params) => self.run_once(work, params, None).await,
            Task::Rows(params, bounds) => self.run_once(work, params, Some(bounds)).await,
        }
    }

    async fn run_once(
        &mut self,
        work: &Work<'_>,
        params: &[Value],
        want: Option<Bounds>,
    ) -> Result<Output, Failure> {
        let (sql, what) = (work.sql, work.what);
        self.schema_changed |= what.changes_schema;
        let mut statement = self.prepare(sql).await?;
        let arguments = match encode(&statement, params) {
            // The types may be those of tables that have changed since the statement was kept.
            Err(error) if error.kind == ErrorKind::Conversion => {
                self.inner.clear_cached_statements().await?;
                statement = self.prepare(sql).await?;
                encode(&statement, params)?
            }
            other => other?,
        };
        let ran = match want {
            Some(bounds) => {
                let columns = columns_of(&statement);
                let stream = statement.query_with(arguments).fetch(&mut self.inner);
                let rows = rows::gather(stream, bounds, |row| row_of(&statement, &columns, row)).await;
                rows.map(|rows| Output::Rows(RowSet { columns, rows }))
            }
            None => {
                let done = statement.query_with(arguments).execute(&mut self.inner).await;
                let changed = |done: sqlx::postgres::PgQueryResult| {
                    Output::Changed(if what.changes_rows { done.rows_affected() } else { 0 })
                };
                done.map(changed).map_err(Cut::Database)
            }
        };
        match ran {
            Err(Cut::Database(error)) if error::is_stale_statement(&error) => {
                self.inner.clear_cached_statements().await?;
                let message = "the tables of this statement have changed since it was prepared: run it again";
                let error =
                    Error { code: Some("0A000".to_owned()), ..error::new(ErrorKind::Conflict, message) };
                Err(Failure { stale: true, ..error.into() })
            }
            other => Ok(other?),
        }
    }

    async fn prepare(&mut self, sql: &str) -> Result<PgStatement, sqlx::Error> {
        self.inner.prepare(AssertSqlSafe(sql.to_owned()).into_sql_str()).await
    }

    async fn simple(&mut self, sql: String) -> Result<(), Failure> {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.inner).await?;
        Ok(())
    }
}

fn columns_of(statement: &PgStatement) -> Vec<Column> {
    let columns = statement.columns().iter();
    columns
        .map(|column| Column {
            name: column.name().to_owned(),
            type_name: values::type_name(column.type_info()),
        })
        .collect()
}

fn row_of(statement: &PgStatement, columns: &[Column], row: &PgRow) -> Result<Vec<Value>, Error> {
    let value = |(index, column): (usize, &Column)| {
        let lost = |error: &dyn std::fmt::Display| {
            let message = format!("column `{}` could not be read: {error}", column.name);
            error::new(ErrorKind::Conversion, message)
        };
        let value = row.try_get_raw(index).map_err(|error| lost(&error))?;
        if value.is_null() {
            return Ok(Value::Null);
        }
        let bytes = value.as_bytes().map_err(|error| lost(&error))?;
        values::decode(&column.name, bytes, statement.columns()[index].type_info())
    };
    columns.iter().enumerate().map(value).collect()
}

fn encode(statement: &PgStatement, params: &[Value]) -> Result<PgArguments, Error> {
    let types = match statement.parameters() {
        Some(Either::Left(types)) => types,
        _ => &[],
    };
    error::require_parameters(types.len(), params.len())?;
    let mut arguments = PgArguments::default();
    for (index, (value, info)) in params.iter().zip(types).enumerate() {
        let bytes = values::encode(index + 1, value, info)?;
        let parameter = Parameter { bytes, info: info.clone() };
        arguments.add(parameter).map_err(|error| {
            error::new(ErrorKind::Conversion, format!("parameter ${} cannot be sent: {error}", index + 1))
        })?;
    }
    Ok(arguments)
}

/// A parameter that is in the server's form already.
struct Parameter {
    bytes: Option<Vec<u8>>,
    info: PgTypeInfo,
}

impl Type<Postgres> for Parameter {
    /// Never asked for: `produces` says the type of each parameter.
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("unknown")
    }
}

impl Encode<'_, Postgres> for Parameter {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Ok(match &self.bytes {
            None => IsNull::Yes,
            Some(bytes) => {
                buffer.extend_from_slice(bytes);
                IsNull::No
            }
        })
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(self.info.clone())
    }

    fn size_hint(&self) -> usize {
        self.bytes.as_ref().map_or(0, Vec::len)
    }
}
