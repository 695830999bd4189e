//! A connection to a SQLite file.
//!
//! Each connection has a thread of its own ([`thread`]), where every call of SQLite is made; this
//! side asks and waits. One question is one hop: a statement with its transaction, all rows of a
//! result, one fetch of a cursor.
//!
//! SQLite has one writer at a time. A transaction that may write takes the writer's lock when
//! it begins (`BEGIN IMMEDIATE`), so that it never fails half-way because another one came
//! first; within this host the writers queue for it in order ([`Writers`]). What only reads
//! never takes it. Every isolation level is met by SQLite's only one, which is serializable.

mod cursor;
mod fence;
mod guard;
mod lexer;
mod thread;
mod values;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::ffi;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use self::guard::{Deadline, Settings, Watch};
use self::thread::{Command, Job, Worker};
use super::caller::Caller;
use super::error::Failure;
use super::fence::Pass;
use super::grant::{Bounds, Grant};
use super::work::{Begin, Left, Output, Purpose, Task, Work};
use super::{Column, Error, ErrorKind, Value, error};

/// How long after the end of its execution's time a statement stops by itself. The runtime ends
/// the execution first, which then counts as timed out, whatever the guest would do next.
const BACKSTOP: Duration = Duration::from_secs(1);

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

/// One connection. Dropped without a word, it stops what runs, and its thread closes the file.
pub(super) struct Connection {
    commands: Sender<Command>,
    watch: Arc<Watch>,
    writers: Arc<Writers>,
    turn: Option<Turn>,
    /// How long to wait for locks.
    patience: Duration,
    statement_timeout: Option<Duration>,
    /// When a statement of the execution that uses it stops by itself.
    deadline: Instant,
    /// The last [`Connection::once`] has come as far as its statement.
    ran: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.watch.cancel.store(true, Ordering::SeqCst);
    }
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
        match self.holder() {
            Some(holder) => Self::busy(&holder.owner),
            None => Self::busy("somebody outside of this host"),
        }
    }

    fn busy(who: &str) -> Error {
        let message = format!("the writer's turn on this SQLite file did not come in time; {who} has it");
        let code = Some(ffi::SQLITE_BUSY.to_string());
        Error { code, ..error::new(ErrorKind::Conflict, message) }
    }
}

/// Opens the file, which is made if it is missing, and may grow to `max_size` bytes.
pub(super) async fn connect(
    path: &Path,
    writers: &Arc<Writers>,
    patience: Duration,
    max_size: Option<u64>,
    grant: Option<&Grant>,
) -> Result<Connection, Failure> {
    let settings = Settings {
        largest_value: grant.map_or(u64::MAX, |grant| grant.largest_value),
        max_size,
        read_only: grant.is_some_and(|grant| grant.read_only),
    };
    let plugin = grant.map_or("check", |grant| grant.plugin.as_str());
    let watch = Watch::new(grant.map_or(u64::MAX, |grant| grant.largest_value));
    let (commands, opened) = thread::start(plugin, path.to_owned(), settings, Arc::clone(&watch))
        .map_err(|error| error::new(ErrorKind::Connection, format!("no thread could be started: {error}")))?;
    // Made before it is open, so that it is closed again where nobody waits any more.
    let connection = Connection {
        commands,
        watch,
        writers: Arc::clone(writers),
        turn: None,
        patience,
        statement_timeout: grant.and_then(|grant| grant.statement_timeout),
        deadline: Instant::now(),
        ran: false,
    };
    match timeout_at(Instant::now() + patience, opened).await {
        Ok(Ok(opened)) => opened?,
        Ok(Err(_gone)) => return Err(lost()),
        Err(_elapsed) => return Err(error::new(ErrorKind::Timeout, "it does not answer").into()),
    }
    Ok(connection)
}

impl Connection {
    /// Makes the statement that runs fail, once it is set.
    pub(super) fn cancel_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.watch.cancel)
    }

    /// Begins a transaction; that of a statement that only reads takes no lock.
    pub(super) async fn begin(&mut self, begin: &Begin<'_>) -> Result<(), Failure> {
        self.start(begin.caller);
        let reads = begin.read_only() || matches!(begin.purpose, Purpose::Statement(what) if what.only_reads);
        if reads {
            return self.ask(Worker::begin_to_read).await;
        }
        let until = Instant::now() + self.patience;
        self.take_turn(begin.caller, until).await?;
        loop {
            let pass = begin.pass();
            match self.ask(move |worker| worker.begin_to_write(pass)).await {
                Ok(true) => return Ok(()),
                Ok(false) => self.wait_on(begin.caller, until)?,
                Err(failure) => {
                    self.turn = None;
                    return Err(failure);
                }
            }
        }
    }

    /// Runs one statement in a transaction of its own: one hop to the thread, and another one
    /// where only SQLite can tell whether the statement writes.
    pub(super) async fn once(
        &mut self,
        begin: &Begin<'_>,
        work: &Work<'_>,
    ) -> Result<(Output, Left), Failure> {
        self.start(begin.caller);
        let (pass, holder) = (begin.pass(), begin.caller.holder.clone());
        let job = Arc::new(Job { pass, holder, ..self.job(work)? });
        if begin.read_only() || !lexer::writes(work.sql) {
            self.ran = true;
            let reading = Arc::clone(&job);
            if let Some(output) = self.ask(move |worker| worker.read_once(&reading)).await? {
                return Ok((output, self.left()));
            }
            if begin.read_only() {
                return Err(thread::refused_to_write().into());
            }
            self.ran = false;
        }
        let patience = Instant::now() + self.patience;
        let until = job.deadline.statement.map_or(patience, |(until, _)| patience.min(until.into()));
        let written = self.write_once(begin.caller, &job, until).await;
        self.turn = None;
        match (written, job.deadline.statement) {
            (Ok(output), _) => Ok((output, self.left())),
            // The time that a statement may take has passed while it waited.
            (Err(_), Some((until, limit))) if !self.ran && Instant::now() >= until.into() => {
                Err(error::overdue(limit).into())
            }
            (Err(failure), _) => Err(failure),
        }
    }

    async fn write_once(
        &mut self,
        caller: &Caller,
        job: &Arc<Job>,
        until: Instant,
    ) -> Result<Output, Failure> {
        self.take_turn(caller, until).await?;
        loop {
            self.ran = true;
            let writing = Arc::clone(job);
            if let Some(output) = self.ask(move |worker| worker.write_once(&writing)).await? {
                return Ok(output);
            }
            self.ran = false;
            self.wait_on(caller, until)?;
        }
    }

    /// True where the last [`Connection::once`] came as far as its statement, so that there was
    /// something to roll back.
    pub(super) fn ran(&self) -> bool {
        self.ran
    }

    /// True where the last [`Connection::once`], which did not answer, may still commit.
    pub(super) fn may_commit(&self) -> bool {
        self.watch.committing.load(Ordering::SeqCst)
    }

    /// True where SQLite has ended the transaction by itself.
    pub(super) fn has_rolled_back(&self) -> bool {
        self.watch.rolled_back.load(Ordering::SeqCst)
    }

    /// True where nothing of its session is left: settings cannot be changed by a plugin, and
    /// opening the file again is cheaper than asking which temporary tables there are.
    pub(super) fn left(&self) -> Left {
        if self.watch.made_temporary.load(Ordering::Relaxed) { Left::Something } else { Left::Nothing }
    }

    /// Runs one statement.
    pub(super) async fn run(&mut self, work: &Work<'_>) -> Result<Output, Failure> {
        self.clear();
        let job = self.job(work)?;
        self.ask(move |worker| worker.run(&job)).await
    }

    pub(super) async fn open_cursor(&mut self, number: u64, work: &Work<'_>) -> Result<Vec<Column>, Failure> {
        self.clear();
        let job = self.job(work)?;
        self.ask(move |worker| worker.open_cursor(number, &job)).await
    }

    pub(super) async fn fetch(
        &mut self,
        number: u64,
        limit: u32,
        bounds: Bounds,
    ) -> Result<Vec<Vec<Value>>, Failure> {
        self.clear();
        let (limit, deadline) = (usize::try_from(limit).unwrap_or(usize::MAX), self.statement_deadline());
        self.ask(move |worker| worker.fetch(number, limit, bounds, deadline)).await
    }

    pub(super) async fn close_cursor(&mut self, number: u64) -> Result<(), Failure> {
        self.ask(move |worker| {
            worker.close_cursor(number);
            Ok(())
        })
        .await
    }

    pub(super) async fn savepoint(&mut self, number: u32) -> Result<(), Failure> {
        self.clear();
        self.ask(move |worker| worker.savepoint(number)).await
    }

    pub(super) async fn rollback_to(&mut self, number: u32) -> Result<(), Failure> {
        self.clear();
        self.ask(move |worker| worker.rollback_to(number)).await
    }

    pub(super) async fn release(&mut self, number: u32) -> Result<(), Failure> {
        self.clear();
        self.ask(move |worker| worker.release(number)).await
    }

    /// Commits. Readers that hold a lock (outside of WAL) are waited for.
    pub(super) async fn commit(&mut self) -> Result<Left, Failure> {
        self.clear();
        let until = Instant::now() + self.patience;
        loop {
            match self.ask(Worker::commit).await {
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
        self.clear();
        self.ask(Worker::rollback).await?;
        self.turn = None;
        Ok(self.left())
    }

    /// Raises the fence, when it is the writer's turn.
    pub(super) async fn raise_fence(&mut self, to: Pass) -> Result<(), Failure> {
        self.clear();
        let until = Instant::now() + self.patience;
        let owner = format!("the fence of execution {}", to.execution);
        let writer = Writer { session: Caller::number(), owner };
        let _turn = self.writers.turn(&writer, until).await?;
        while !self.ask(move |worker| worker.raise_fence(to)).await? {
            if Instant::now() >= until {
                return Err(Writers::busy("somebody outside of this host").into());
            }
        }
        Ok(())
    }

    /// Closes the file.
    pub(super) async fn close(self) -> Result<(), Failure> {
        let (reply, closed) = oneshot::channel();
        self.commands.send(Command::Close(reply)).map_err(|_gone| lost())?;
        closed.await.map_err(|_gone| lost())
    }

    /// Waits for its turn to write, among the connections of this host.
    async fn take_turn(&mut self, caller: &Caller, until: Instant) -> Result<(), Failure> {
        let writers = Arc::clone(&self.writers);
        let writer = Writer { session: caller.session, owner: caller.to_string() };
        self.turn = tokio::select! {
            () = caller.closing.cancelled() => return Err(error::execution_ended().into()),
            turn = writers.turn(&writer, until) => Some(turn?),
        };
        Ok(())
    }

    /// Goes on waiting for somebody outside of this host who has the lock, or ends the turn.
    fn wait_on(&mut self, caller: &Caller, until: Instant) -> Result<(), Error> {
        let ended = caller.closing.is_cancelled() || self.watch.is_cancelled();
        if !ended && Instant::now() < until {
            return Ok(());
        }
        // Before the words, which otherwise blame this one.
        self.turn = None;
        Err(if ended { error::execution_ended() } else { self.writers.still_busy() })
    }

    /// Something begins on behalf of an execution.
    fn start(&mut self, caller: &Caller) {
        self.clear();
        self.ran = false;
        self.deadline = caller.deadline + BACKSTOP;
    }

    /// What was told to stop has stopped: what comes next is not meant.
    fn clear(&self) {
        self.watch.cancel.store(false, Ordering::SeqCst);
        self.watch.committing.store(false, Ordering::SeqCst);
    }

    fn statement_deadline(&self) -> Deadline {
        let now = Instant::now();
        let statement =
            self.statement_timeout.and_then(|limit| Some((now.checked_add(limit)?.into(), limit)));
        Deadline { statement, execution: self.deadline.into() }
    }

    fn job(&self, work: &Work<'_>) -> Result<Job, Error> {
        let task = match work.task {
            Task::Rows(params, bounds) => thread::Task::Rows(values::encode(params)?, bounds),
            Task::Changes(params) => thread::Task::Changes(values::encode(params)?),
            Task::Many(lists) => {
                let lists = lists.iter().map(|params| values::encode(params));
                thread::Task::Many(lists.collect::<Result<_, _>>()?)
            }
        };
        let deadline = self.statement_deadline();
        let (sql, counts) = (work.sql.to_owned(), work.what.changes_rows);
        Ok(Job { sql, counts, task, deadline, pass: None, holder: None })
    }

    /// Has the thread do something, unless nobody waits for it any more when its turn comes.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Worker) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let work = move |worker: &mut Worker| {
            if !reply.is_closed() {
                let _gone = reply.send(work(worker));
            }
        };
        self.commands.send(Command::Do(Box::new(work))).map_err(|_gone| lost())?;
        Ok(answer.await.map_err(|_gone| lost())??)
    }
}

/// The thread has ended, which it does only when it panics.
fn lost() -> Failure {
    let message = "the host failed in this call of SQLite; its log says how";
    Failure { broken: true, ..error::new(ErrorKind::Connection, message).into() }
}
