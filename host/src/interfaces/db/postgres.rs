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
use super::connection::{Output, Want};
use super::error::Failure;
use super::rows::{self, Cut};
use super::statement::Statement;
use super::{Column, Error, ErrorKind, Isolation, RowSet, Value, error};

/// One connection, and the server process behind it.
pub(super) struct Connection {
    inner: PgConnection,
    /// What `pg_cancel_backend` takes.
    pub(super) pid: i32,
    /// The last transaction may have changed what cached statements mean.
    schema_changed: bool,
}

/// Connects on behalf of a plugin.
pub(super) async fn connect(url: &str, plugin: &str) -> Result<Connection, Failure> {
    let mut inner = open(url, &format!("innkeeper plugin {plugin}")).await?;
    let pid = sqlx::query_scalar("SELECT pg_catalog.pg_backend_pid()").fetch_one(&mut inner).await?;
    Ok(Connection { inner, pid, schema_changed: false })
}

async fn open(url: &str, name: &str) -> Result<PgConnection, sqlx::Error> {
    PgConnectOptions::from_str(url)?.application_name(name).disable_statement_logging().connect().await
}

impl Connection {
    /// Begins a transaction: one message.
    pub(super) async fn begin(
        &mut self,
        isolation: Option<Isolation>,
        read_only: bool,
    ) -> Result<(), Failure> {
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
    pub(super) async fn commit(&mut self) -> Result<(), Failure> {
        self.simple("SAVEPOINT innkeeper_commit; COMMIT".to_owned()).await
    }

    /// Rolls back. The answer may be the error of a statement that was cut short, and a cancel
    /// request that comes too late for its statement may hit this one: it is then said again.
    pub(super) async fn rollback(&mut self) -> Result<(), Failure> {
        for _ in 0..4 {
            match self.simple("ROLLBACK".to_owned()).await {
                Err(failure) if !failure.broken => {}
                Err(failure) => return Err(failure),
                Ok(()) => return Ok(()),
            }
        }
        let message = "the rollback failed again and again";
        Err(Failure { broken: true, ..error::new(ErrorKind::Connection, message).into() })
    }

    /// Undoes what outlives a transaction. Not `DISCARD ALL`, which would drop the prepared
    /// statements that sqlx believes in.
    pub(super) async fn reset(&mut self) -> Result<(), Failure> {
        const RESET: &str = "RESET SESSION AUTHORIZATION; RESET ALL; CLOSE ALL; UNLISTEN *; DISCARD TEMP; \
                             DISCARD SEQUENCES; SELECT pg_advisory_unlock_all()";
        self.simple(RESET.to_owned()).await
    }

    /// Tells the server that this is the end, and hangs up.
    pub(super) async fn close(self) -> Result<(), Failure> {
        Ok(self.inner.close().await?)
    }

    /// Runs one statement.
    pub(super) async fn run(
        &mut self,
        sql: &str,
        what: Statement,
        params: &[Value],
        want: Want,
    ) -> Result<Output, Failure> {
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
            Want::Rows(limit) => {
                let columns = columns_of(&statement);
                let stream = statement.query_with(arguments).fetch(&mut self.inner);
                let rows = rows::gather(stream, limit, |row| row_of(&statement, &columns, row)).await;
                rows.map(|rows| Output::Rows(RowSet { columns, rows }))
            }
            Want::Changes => {
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
