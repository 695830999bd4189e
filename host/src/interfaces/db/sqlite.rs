//! A connection to a SQLite file.
//!
//! SQLite has one writer at a time. A transaction that may write takes the writer's lock when
//! it begins (`BEGIN IMMEDIATE`), so that it never fails half-way because another one came
//! first; within this host the writers queue for it in order ([`Writers`]). What only reads
//! never takes it. Every isolation level is met by SQLite's only one, which is serializable.

mod prepare;
mod values;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _, SqlSafeStr as _, SqliteConnection,
    TypeInfo as _, ValueRef as _,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use self::prepare::Prepared;
use super::caller::Caller;
use super::connection::Canceller;
use super::error::Failure;
use super::grant::{Bounds, Grant};
use super::rows;
use super::work::{Begin, Left, Output, Purpose, Task, Work};
use super::{Column, Error, ErrorKind, RowSet, Value, error};

/// How long SQLite itself waits for a lock. It cannot be cancelled in that time, so that the
/// waiting is done in many short pieces.
const BUSY_TIMEOUT: Duration = Duration::from_millis(100);

/// How many rows SQLite may be ahead of who reads them. Each of them may be as large as a whole
/// result, so that there should be few.
const BUFFERED_ROWS: usize = 8;

/// How many steps of SQLite's virtual machine pass between two looks at the cancel flag: some
/// tens of microseconds.
const STEPS: i32 = 1_000;

/// Fixes what the transaction sees, and has SQLite notice that another connection has changed
/// the tables. Otherwise it would do so in the middle of a statement, which then has other
/// columns than sqlx knows of.
macro_rules! see_schema {
    () => {
        "SELECT 1 FROM sqlite_schema LIMIT 0"
    };
}

/// Whose turn it is to write to one file, among the connections of this host.
#[derive(Debug)]
pub(super) struct Writers {
    turn: Arc<Semaphore>,
    holder: Mutex<Option<Writer>>,
}

/// Who has the turn to write.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    /// The session, by a number that no other one has.
    pub(super) session: u64,
    /// The same for a person.
    pub(super) owner: String,
}

/// The turn. It goes to the next when this is dropped.
struct Turn {
    writers: Arc<Writers>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.writers.holder.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// One connection. It has a thread of its own, which sqlx runs.
pub(super) struct Connection {
    inner: SqliteConnection,
    writers: Arc<Writers>,
    turn: Option<Turn>,
    read_only: bool,
    /// It may have temporary tables, which live as long as it does.
    made_objects: bool,
    /// Makes the statement that runs fail, and every later one.
    pub(super) cancel: Arc<AtomicBool>,
    /// SQLite has rolled back the transaction by itself.
    gone: Arc<AtomicBool>,
    /// How long to wait for locks.
    patience: Duration,
}

impl Writers {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { turn: Arc::new(Semaphore::new(1)), holder: Mutex::default() })
    }

    fn holder(&self) -> Option<Writer> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn turn(self: &Arc<Self>, writer: &Writer, until: Instant) -> Result<Turn, Error> {
        if self.holder().is_some_and(|holder| holder.session == writer.session) {
            let message = "this execution has a transaction open that may write to the same SQLite file, which \
                           takes one writer at a time: use that transaction, or end it first";
            return Err(error::new(ErrorKind::Conflict, message));
        }
        match timeout_at(until, Arc::clone(&self.turn).acquire_owned()).await {
            Ok(Ok(permit)) => {
                *self.holder.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer.clone());
                Ok(Turn { writers: Arc::clone(self), _permit: permit })
            }
            // The semaphore is never closed, so that only the time can have run out.
            _ => Err(self.still_busy()),
        }
    }

    fn still_busy(&self) -> Error {
        let who = match self.holder() {
            Some(holder) => holder.owner,
            None => "somebody outside of this host".to_owned(),
        };
        let message = format!("the writer's turn on this SQLite file did not come in time; {who} has it");
        let code = Some(libsqlite3_sys::SQLITE_BUSY.to_string());
        Error { code, ..error::new(ErrorKind::Conflict, message) }
    }
}

/// Opens the file, which is made if it is missing. No value and no row may have more than
/// `largest` bytes.
pub(super) async fn connect(
    path: &Path,
    writers: &Arc<Writers>,
    patience: Duration,
    grant: Option<&Grant>,
) -> Result<Connection, Failure> {
    if let Some(folder) = path.parent() {
        tokio::fs::create_dir_all(folder).await.map_err(sqlx::Error::Io)?;
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .row_buffer_size(BUFFERED_ROWS)
        .disable_statement_logging();
    let until = Instant::now() + patience;
    let mut inner = loop {
        match options.connect().await.map_err(Failure::from) {
            Ok(connection) => break connection,
            // Another connection is just making the file, or changing its journal's mode.
            Err(failure) if error::is_sqlite_busy(&failure.error) && Instant::now() < until => {}
            Err(failure) => return Err(failure),
        }
    };
    let (cancel, gone) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut handle = inner.lock_handle().await?;
    prepare::limit_length(&mut handle, grant.map_or(u64::MAX, |grant| grant.largest_value));
    let flag = Arc::clone(&cancel);
    handle.set_progress_handler(STEPS, move || !flag.load(Ordering::Relaxed));
    let flag = Arc::clone(&gone);
    handle.set_rollback_hook(move || flag.store(true, Ordering::Relaxed));
    drop(handle);
    let writers = Arc::clone(writers);
    Ok(Connection {
        inner,
        writers,
        turn: None,
        read_only: false,
        made_objects: false,
        cancel,
        gone,
        patience,
    })
}

impl Connection {
    /// What stops a statement on it.
    pub(super) fn canceller(&self) -> Canceller {
        Canceller::Sqlite(Arc::clone(&self.cancel))
    }

    /// Begins a transaction; that of a statement that only reads takes no lock.
    pub(super) async fn begin(&mut self, begin: &Begin<'_>) -> Result<(), Failure> {
        let reads = match begin.purpose {
            _ if begin.read_only() => true,
            Purpose::Statement(sql, what) => what.only_reads || self.prepare(sql).await?.read_only,
            Purpose::Guest(_) => false,
        };
        self.read_only = reads;
        if reads {
            self.begin_by(concat!("BEGIN; ", see_schema!())).await
        } else {
            let caller: &Caller = begin.caller;
            let writer = Writer { session: caller.session, owner: caller.to_string() };
            self.begin_to_write(&writer, &caller.closing).await
        }
    }

    async fn begin_to_write(&mut self, writer: &Writer, closing: &CancellationToken) -> Result<(), Failure> {
        let until = Instant::now() + self.patience;
        let writers = Arc::clone(&self.writers);
        let turn = tokio::select! {
            () = closing.cancelled() => return Err(error::execution_ended().into()),
            turn = writers.turn(writer, until) => turn?,
        };
        loop {
            match self.begin_by(concat!("BEGIN IMMEDIATE; ", see_schema!())).await {
                Ok(()) => break,
                Err(failure) if !error::is_sqlite_busy(&failure.error) => return Err(failure),
                Err(_) if closing.is_cancelled() => return Err(error::execution_ended().into()),
                Err(_) if Instant::now() < until => {}
                Err(_) => {
                    drop(turn);
                    return Err(writers.still_busy().into());
                }
            }
        }
        self.turn = Some(turn);
        Ok(())
    }

    async fn begin_by(&mut self, sql: &'static str) -> Result<(), Failure> {
        let begun = self.simple(sql).await;
        if begun.is_err() {
            // The transaction may have begun before the error. If not, this fails.
            let _none = self.simple("ROLLBACK").await;
        }
        self.gone.store(false, Ordering::Relaxed);
        begun
    }

    /// Commits. Readers that hold a lock (outside of WAL) are waited for.
    pub(super) async fn commit(&mut self) -> Result<Left, Failure> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(gone().into());
        }
        let until = Instant::now() + self.patience;
        loop {
            match self.simple("COMMIT").await {
                Err(failure) if error::is_sqlite_busy(&failure.error) && Instant::now() < until => {}
                Err(failure) => return Err(failure),
                Ok(()) => break,
            }
        }
        self.turn = None;
        Ok(self.left())
    }

    /// Rolls back, unless SQLite has done so.
    pub(super) async fn rollback(&mut self) -> Result<Left, Failure> {
        if !self.gone.load(Ordering::Relaxed) {
            self.simple("ROLLBACK").await?;
        }
        self.turn = None;
        Ok(self.left())
    }

    /// True where nothing of its session is left: settings cannot be changed by a plugin, and
    /// opening the file again is cheaper than asking which temporary tables there are.
    fn left(&self) -> Left {
        if self.made_objects { Left::Something } else { Left::Nothing }
    }

    pub(super) async fn savepoint(&mut self, number: u32) -> Result<(), Failure> {
        self.text(format!("SAVEPOINT innkeeper_{number}")).await
    }

    pub(super) async fn rollback_to(&mut self, number: u32) -> Result<(), Failure> {
        self.text(format!("ROLLBACK TO innkeeper_{number}")).await
    }

    pub(super) async fn release(&mut self, number: u32) -> Result<(), Failure> {
        self.text(format!("RELEASE innkeeper_{number}")).await
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

    async fn text(&mut self, sql: String) -> Result<(), Failure> {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.inner).await?;
        Ok(())
    }

    /// Closes the file.
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
        if self.gone.load(Ordering::Relaxed) {
            return Err(gone().into());
        }
        self.made_objects |= what.changes_schema;
        let prepared = self.prepare(sql).await?;
        if self.read_only && !prepared.read_only {
            let code = Some(libsqlite3_sys::SQLITE_READONLY.to_string());
            let message = "the transaction is read-only, and this statement may write";
            return Err(Error { code, ..error::new(ErrorKind::Statement, message) }.into());
        }
        error::require_parameters(prepared.parameters, params.len())?;
        let arguments = values::encode(params)?;
        // Compiled anew each time: sqlx keeps the columns of a statement that it caches even
        // when the tables have changed.
        let query =
            sqlx::query_with(AssertSqlSafe(sql.to_owned()).into_sql_str(), arguments).persistent(false);
        match want {
            Some(limit) => {
                let mut columns = None;
                let rows = rows::gather(query.fetch(&mut self.inner), limit, |row| {
                    row_of(columns.get_or_insert_with(|| columns_of(&prepared, Some(row))), row)
                });
                let rows = rows.await?;
                let columns = columns.unwrap_or_else(|| columns_of(&prepared, None));
                Ok(Output::Rows(RowSet { columns, rows }))
            }
            None => {
                let done = query.execute(&mut self.inner).await?;
                // Of a statement that changes no rows, SQLite tells the number of the last
                // one that did.
                let counts = what.changes_rows && !prepared.read_only;
                Ok(Output::Changed(if counts { done.rows_affected() } else { 0 }))
            }
        }
    }

    async fn prepare(&mut self, sql: &str) -> Result<Prepared, Failure> {
        let mut handle = self.inner.lock_handle().await?;
        Ok(prepare::prepare(&mut handle, sql)?)
    }

    async fn simple(&mut self, sql: &'static str) -> Result<(), Failure> {
        sqlx::raw_sql(sql).execute(&mut self.inner).await?;
        Ok(())
    }
}

fn gone() -> Error {
    error::new(ErrorKind::Closed, "SQLite has rolled the transaction back")
}

/// With the type that a column declares; for an expression, that of its first value.
fn columns_of(prepared: &Prepared, first: Option<&SqliteRow>) -> Vec<Column> {
    let column = |(index, (name, declared)): (usize, &(String, Option<String>))| {
        let of_value = || {
            let value = first.and_then(|row| row.try_get_raw(index).ok());
            value.filter(|value| !value.is_null()).map(|value| value.type_info().name().to_owned())
        };
        let type_name = declared.clone().or_else(of_value).unwrap_or_else(|| "NULL".to_owned());
        Column { name: name.clone(), type_name }
    };
    prepared.columns.iter().enumerate().map(column).collect()
}

fn row_of(columns: &[Column], row: &SqliteRow) -> Result<Vec<Value>, Error> {
    let value = |(index, column): (usize, &Column)| {
        let value = row.try_get_raw(index).map_err(|error| {
            let message = format!("column `{}` could not be read: {error}", column.name);
            error::new(ErrorKind::Conversion, message)
        })?;
        values::decode(&column.name, value)
    };
    columns.iter().enumerate().map(value).collect()
}
