//! The thread that owns a connection to a SQLite file: every call of SQLite is made here, one
//! at a time, for as many rows and statements as one question takes.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use rusqlite::types::Value as Stored;
use rusqlite::{Connection, Statement, ffi};
use tokio::sync::oneshot;

use super::super::fence::{Holder, Pass};
use super::super::grant::Bounds;
use super::super::work::Output;
use super::cursor::{self, Cursors, Fault};
use super::fence;
use super::guard::{self, Deadline, Settings, Watch};
use super::lexer;
use crate::interfaces::db::{Column, Error, ErrorKind, RowSet, Value, error};

/// Bytes of the longest text whose statement is kept for the next time.
const KEPT_TEXT: usize = 16 * 1024;

/// What SQLite's recursion over an expression may take, and far more.
const STACK: usize = 4 * 1024 * 1024;

/// Fixes what a transaction that only reads will see.
const SEE: &str = "SELECT 1 FROM sqlite_schema LIMIT 0";

/// What the thread is told.
pub(super) enum Command {
    Do(Box<dyn FnOnce(&mut Worker) + Send>),
    /// Close the file and end.
    Close(oneshot::Sender<()>),
}

/// A statement to run, with everything that it needs.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) sql: String,
    /// It may change rows, and so has a number of them.
    pub(super) counts: bool,
    pub(super) task: Task,
    pub(super) deadline: Deadline,
    /// What it shows at the fence, where it has to pass one.
    pub(super) pass: Option<Pass>,
    /// Whose commit must not be late.
    pub(super) holder: Option<Holder>,
}

/// With what a statement runs, and what is wanted of it.
#[derive(Debug)]
pub(super) enum Task {
    Rows(Vec<Stored>, Bounds),
    Changes(Vec<Stored>),
    Many(Vec<Vec<Stored>>),
}

/// What the thread has.
pub(super) struct Worker {
    /// Before the connection, which they keep open.
    cursors: Cursors,
    connection: Rc<Connection>,
    watch: Arc<Watch>,
    /// The database has a bound of its own.
    bounded: bool,
    /// A transaction was begun for the plugin, and has not been ended by its word.
    in_transaction: bool,
    /// Nothing may be written in it.
    read_only: bool,
    newest_savepoint: u32,
}

/// Where the thread is told what to do, and its answer to being started.
pub(super) type Started = (Sender<Command>, oneshot::Receiver<Result<(), Error>>);

/// Starts a thread that opens the file and then does as it is told, until nobody can tell it
/// anything any more. The answer is that of opening it.
pub(super) fn start(
    name: &str,
    path: PathBuf,
    settings: Settings,
    watch: Arc<Watch>,
) -> std::io::Result<Started> {
    let (commands, receiver) = channel();
    let (opened, answer) = oneshot::channel();
    std::thread::Builder::new().name(format!("sqlite {name}")).stack_size(STACK).spawn(move || {
        let connection = open(&path, settings, &watch, &opened);
        match connection {
            Ok(connection) => {
                let worker = Worker::new(connection, watch, settings.max_size.is_some());
                if opened.send(Ok(())).is_ok() {
                    serve(worker, &receiver);
                }
            }
            Err(error) => {
                let _gone = opened.send(Err(error));
            }
        }
    })?;
    Ok((commands, answer))
}

/// Opens the file, again and again while another connection is just making it or changing its
/// journal's mode, as long as somebody waits for it.
fn open(
    path: &std::path::Path,
    settings: Settings,
    watch: &Arc<Watch>,
    opened: &oneshot::Sender<Result<(), Error>>,
) -> Result<Connection, Error> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| {
            let message = format!("the folder {} cannot be made: {error}", folder.display());
            error::new(ErrorKind::Connection, message)
        })?;
    }
    loop {
        match guard::open(path, settings, watch).map_err(|error| error::of_sqlite(&error)) {
            Ok(connection) => return Ok(connection),
            Err(error) if error::is_sqlite_busy(&error) && !opened.is_closed() && !watch.is_cancelled() => {}
            Err(error) => return Err(error),
        }
    }
}

fn serve(mut worker: Worker, commands: &Receiver<Command>) {
    while let Ok(command) = commands.recv() {
        match command {
            Command::Do(work) => work(&mut worker),
            Command::Close(closed) => {
                drop(worker);
                let _gone = closed.send(());
                return;
            }
        }
    }
}

impl Worker {
    fn new(connection: Connection, watch: Arc<Watch>, bounded: bool) -> Self {
        Self {
            cursors: Cursors::default(),
            connection: Rc::new(connection),
            watch,
            bounded,
            in_transaction: false,
            read_only: false,
            newest_savepoint: 0,
        }
    }

    /// Begins a transaction that takes no lock, and in which nothing can be written.
    pub(super) fn begin_to_read(&mut self) -> Result<(), Error> {
        if let Err(error) = self.say("BEGIN").and_then(|()| self.say(SEE)) {
            self.end_whatever_is_open();
            return Err(error);
        }
        self.begun(true);
        Ok(())
    }

    /// Begins a transaction that holds the writer's lock, and passes the fence. False where
    /// somebody else has the lock.
    pub(super) fn begin_to_write(&mut self, pass: Option<Pass>) -> Result<bool, Error> {
        match self.say("BEGIN IMMEDIATE") {
            Ok(()) => {
                let passed = pass.map(|pass| self.watch.speak(|| fence::pass(&self.connection, pass)));
                if let Some(Err(error)) = passed {
                    self.end_whatever_is_open();
                    return Err(error);
                }
                self.begun(false);
                Ok(true)
            }
            Err(error) if error::is_sqlite_busy(&error) => Ok(false),
            Err(error) => {
                self.end_whatever_is_open();
                Err(error)
            }
        }
    }

    /// Raises the fence in a transaction of its own. False where somebody else has the writer's
    /// lock.
    pub(super) fn raise_fence(&mut self, to: Pass) -> Result<bool, Error> {
        if !self.begin_to_write(None)? {
            return Ok(false);
        }
        let raised = self.watch.speak(|| fence::raise(&self.connection, to));
        let committed = raised.map_err(|error| error::of_sqlite(&error)).and_then(|()| self.commit());
        self.in_transaction = false;
        self.end_whatever_is_open();
        committed.map(|()| true)
    }

    fn begun(&mut self, read_only: bool) {
        self.in_transaction = true;
        self.read_only = read_only;
        self.newest_savepoint = 0;
        self.watch.rolled_back.store(false, Ordering::SeqCst);
    }

    /// Runs a statement of the open transaction.
    pub(super) fn run(&mut self, job: &Job) -> Result<Output, Error> {
        self.require_transaction()?;
        let read_only = self.read_only;
        let output = self.guarded(job.deadline, |worker| {
            worker.with_statement(&job.sql, |connection, statement| {
                if read_only && !cursor::reads(statement) {
                    return Err(refused_to_write().into());
                }
                carry_out(connection, &worker.watch, statement, job)
            })
        });
        output.map_err(|error| self.noting_the_end(error))
    }

    /// Runs a statement that only reads, in SQLite's own transaction for it. `None`, and it has
    /// not run, where it may write.
    pub(super) fn read_once(&mut self, job: &Job) -> Result<Option<Output>, Error> {
        let read = self.guarded(job.deadline, |worker| {
            worker.with_statement(&job.sql, |connection, statement| {
                if !cursor::reads(statement) {
                    return Ok(None);
                }
                carry_out(connection, &worker.watch, statement, job).map(Some)
            })
        });
        self.end_whatever_is_open();
        read
    }

    /// Runs a statement in a transaction of its own. `None`, and it has not run, where somebody
    /// else has the writer's lock. Whatever comes of it, no transaction is left open.
    pub(super) fn write_once(&mut self, job: &Job) -> Result<Option<Output>, Error> {
        if !self.begin_to_write(job.pass)? {
            return Ok(None);
        }
        let written = self.run(job).and_then(|output| {
            self.commit_once(job)?;
            Ok(Some(output))
        });
        self.in_transaction = false;
        self.end_whatever_is_open();
        written
    }

    /// Commits, unless it was told to stop before. From the moment that `committing` is set
    /// nobody can know whether it will be committed.
    fn commit_once(&mut self, job: &Job) -> Result<(), Error> {
        self.watch.committing.store(true, Ordering::SeqCst);
        let committed = loop {
            if self.watch.is_cancelled() {
                break Err(error::execution_ended());
            }
            if let Some(Err(late)) = job.holder.as_ref().map(Holder::require_in_time) {
                break Err(late);
            }
            match self.commit() {
                // Readers that hold a lock, where the file system has no write-ahead log.
                Err(error) if error::is_sqlite_busy(&error) && Instant::now() < job.deadline.first() => {}
                result => break result,
            }
        };
        if committed.is_err() {
            self.watch.committing.store(false, Ordering::SeqCst);
        }
        committed
    }

    pub(super) fn commit(&mut self) -> Result<(), Error> {
        self.cursors.close_all();
        self.require_transaction()?;
        self.say("COMMIT")?;
        self.in_transaction = false;
        Ok(())
    }

    /// Rolls back, unless SQLite has done so.
    pub(super) fn rollback(&mut self) -> Result<(), Error> {
        self.cursors.close_all();
        if !self.connection.is_autocommit() {
            self.say("ROLLBACK")?;
        }
        self.in_transaction = false;
        Ok(())
    }

    pub(super) fn savepoint(&mut self, number: u32) -> Result<(), Error> {
        self.require_transaction()?;
        self.say(&format!("SAVEPOINT innkeeper_{number}"))?;
        self.newest_savepoint = number;
        Ok(())
    }

    pub(super) fn rollback_to(&mut self, number: u32) -> Result<(), Error> {
        self.cursors.roll_back_to(number);
        self.require_transaction()?;
        self.say(&format!("ROLLBACK TO innkeeper_{number}"))
    }

    pub(super) fn release(&mut self, number: u32) -> Result<(), Error> {
        self.require_transaction()?;
        self.say(&format!("RELEASE innkeeper_{number}"))
    }

    pub(super) fn open_cursor(&mut self, number: u64, job: &Job) -> Result<Vec<Column>, Error> {
        self.require_transaction()?;
        let Task::Rows(params, _) = &job.task else {
            return Err(error::new(ErrorKind::Other, "a cursor is for rows"));
        };
        let opened = self.guarded(job.deadline, |worker| {
            lexer::check(&job.sql)?;
            // Compiled for what it says, and taken from there by the cursor.
            drop(worker.connection.prepare_cached(&job.sql)?);
            guard::look_closely(&worker.connection, &worker.watch)?;
            let savepoint = worker.newest_savepoint;
            worker.cursors.open(number, &worker.connection, &job.sql, params, savepoint)
        });
        opened.map_err(|error| self.noting_the_end(error))
    }

    pub(super) fn fetch(
        &mut self,
        number: u64,
        limit: usize,
        bounds: Bounds,
        deadline: Deadline,
    ) -> Result<Vec<Vec<Value>>, Error> {
        self.require_transaction()?;
        let fetched = self.guarded(deadline, |worker| worker.cursors.fetch(number, limit, bounds));
        fetched.map_err(|error| self.noting_the_end(error))
    }

    pub(super) fn close_cursor(&mut self, number: u64) {
        self.cursors.close(number);
    }

    /// Does what a plugin has asked for, for as long as it may last.
    fn guarded<T>(
        &mut self,
        deadline: Deadline,
        work: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        self.watch.arm(deadline.first());
        let result = work(self);
        self.watch.disarm();
        result.map_err(|fault| self.explain(fault, deadline))
    }

    /// Compiles a statement, or takes it from those that were kept.
    fn with_statement<T>(
        &self,
        sql: &str,
        work: impl FnOnce(&Connection, &mut Statement<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        lexer::check(sql)?;
        if sql.len() <= KEPT_TEXT {
            let mut statement = self.connection.prepare_cached(sql)?;
            guard::look_closely(&self.connection, &self.watch)?;
            work(&self.connection, &mut statement)
        } else {
            let mut statement = self.connection.prepare(sql)?;
            guard::look_closely(&self.connection, &self.watch)?;
            work(&self.connection, &mut statement)
        }
    }

    /// Says something of the host's own. It is compiled each time: what is kept compiled, a
    /// plugin that says the same could run.
    fn say(&self, sql: &str) -> Result<(), Error> {
        let said = self.watch.speak(|| self.connection.execute_batch(sql));
        said.map_err(|error| error::of_sqlite(&error))
    }

    /// Where it fails, the connection is closed with the transaction: nothing is said of it.
    fn end_whatever_is_open(&self) {
        if !self.connection.is_autocommit() {
            let _ended = self.say("ROLLBACK");
        }
    }

    /// Nothing of a plugin's transaction ever runs outside of it.
    fn require_transaction(&self) -> Result<(), Error> {
        if self.in_transaction && !self.connection.is_autocommit() {
            return Ok(());
        }
        let message = "SQLite has rolled the transaction back by itself, and nothing of it was written: end it with \
                       `rollback` and begin another one";
        Err(error::new(ErrorKind::Closed, message))
    }

    fn noting_the_end(&mut self, error: Error) -> Error {
        if !self.connection.is_autocommit() {
            return error;
        }
        self.cursors.close_all();
        self.watch.rolled_back.store(true, Ordering::SeqCst);
        let hint = error.hint.unwrap_or_else(|| "SQLite has rolled back the whole transaction".to_owned());
        Error { hint: Some(hint), ..error }
    }

    /// What went wrong, in the words of who knows it best.
    fn explain(&self, fault: Fault, deadline: Deadline) -> Error {
        let error = match fault {
            Fault::Told(error) => return error,
            Fault::Sqlite(rusqlite::Error::MultipleStatement) => return lexer::several_statements(),
            Fault::Sqlite(error) => error::of_sqlite(&error),
        };
        let code = error.code.as_deref().and_then(|code| code.parse().ok()).unwrap_or(ffi::SQLITE_ERROR);
        if let Some(why) = self.watch.take_denied() {
            return Error { code: error.code, ..error::new(ErrorKind::Denied, why) };
        }
        match code & 0xff {
            ffi::SQLITE_INTERRUPT => match self.watch.take_collected() {
                Some(bytes) => collects_too_much(error, bytes),
                None => too_late(error, deadline),
            },
            ffi::SQLITE_FULL if self.bounded => {
                let hint = "the database may not grow beyond its `max_size` in the configuration of the host";
                Error { hint: Some(hint.to_owned()), ..error }
            }
            ffi::SQLITE_ABORT => {
                let message = "the cursor has ended: the tables that it reads were rolled back";
                Error { code: error.code, ..error::new(ErrorKind::Closed, message) }
            }
            _ if error.message.starts_with("unsafe use of ") => {
                let message = format!("{}: it may not be used in a view or a trigger", error.message);
                Error { code: error.code, ..error::new(ErrorKind::Denied, message) }
            }
            _ if error.message.starts_with("table ") && error.message.ends_with(" may not be modified") => {
                let message = format!("{}: SQLite keeps it by itself", error.message);
                Error { code: error.code, ..error::new(ErrorKind::Denied, message) }
            }
            _ => error,
        }
    }
}

/// Runs a statement for what is wanted of it.
fn carry_out(
    connection: &Connection,
    watch: &Watch,
    statement: &mut Statement<'_>,
    job: &Job,
) -> Result<Output, Fault> {
    let counts = job.counts && !cursor::reads(statement);
    // Of a statement that changes no rows, SQLite tells the number of the last one that did. It
    // counts in 32 bits.
    let changed = || if counts { connection.changes() & u64::from(u32::MAX) } else { 0 };
    match &job.task {
        Task::Rows(params, bounds) => {
            let numbers = cursor::parameters(statement, params.len())?;
            cursor::bind(statement, &numbers, params)?;
            let (columns, rows) = cursor::gather(statement, *bounds)?;
            Ok(Output::Rows(RowSet { columns, rows }))
        }
        Task::Changes(params) => {
            let numbers = cursor::parameters(statement, params.len())?;
            cursor::bind(statement, &numbers, params)?;
            cursor::run_to_end(statement)?;
            Ok(Output::Changed(changed()))
        }
        Task::Many(lists) => {
            let numbers = match lists.first() {
                Some(first) => cursor::parameters(statement, first.len())?,
                None => return Ok(Output::Changed(0)),
            };
            let mut total = 0;
            for params in lists {
                if watch.is_over() {
                    return Err(interrupted().into());
                }
                error::require_parameters(lists[0].len(), params.len())?;
                cursor::bind(statement, &numbers, params)?;
                cursor::run_to_end(statement)?;
                total += changed();
            }
            Ok(Output::Changed(total))
        }
    }
}

fn interrupted() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_INTERRUPT), Some("interrupted".to_owned()))
}

fn collects_too_much(error: Error, bytes: i64) -> Error {
    let message = format!(
        "the statement was stopped: it collects JSON of more than {bytes} bytes in the memory of the host, three \
         times what the plugin may use"
    );
    let hint = "collect less at a time, or read the rows by a cursor";
    Error { code: error.code, hint: Some(hint.to_owned()), ..error::new(ErrorKind::LimitExceeded, message) }
}

fn too_late(error: Error, deadline: Deadline) -> Error {
    let now = Instant::now();
    match deadline.statement {
        Some((until, limit)) if until <= now => Error { code: error.code, ..error::overdue(limit) },
        _ if deadline.execution <= now => {
            let message = "the time of the execution was over before the statement was";
            Error { code: error.code, ..error::new(ErrorKind::Timeout, message) }
        }
        _ => error,
    }
}

pub(super) fn refused_to_write() -> Error {
    let code = Some(ffi::SQLITE_READONLY.to_string());
    let message = "the transaction is read-only, and this statement may write";
    Error { code, ..error::new(ErrorKind::Statement, message) }
}
