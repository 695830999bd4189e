//! One transaction, from its begin to its end, on a connection that it has to itself.
//!
//! It runs in a task of its own, never in the guest's future: what is awaited here is always
//! awaited to its end, or the connection is closed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::caller::Caller;
use super::connection::{Canceller, Connection, Ending, Term, supervise};
use super::error::Failure;
use super::grant::{Bounds, Grant};
use super::pool::{Database, Lease};
use super::statement;
use super::work::{Begin, Left, Output, PATIENCE, Purpose, TIMEOUT_MARGIN, Task, Work};
use super::{BeginOptions, Column, Error, ErrorKind, Value, error};

/// How long a rollback may take while the execution goes on: SQLite undoes on disk what it
/// has spilled there.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(60);

/// An open transaction.
pub(super) struct Transaction {
    lease: Lease,
    caller: Arc<Caller>,
    grant: Arc<Grant>,
    condition: Condition,
    /// The guest has asked that it only reads, or may do no more.
    only_reads: bool,
    /// The first error of a statement: nothing but a rollback is left, of all or to a savepoint.
    failed: Option<String>,
    /// The database has ended it by itself, and there is nothing to roll back to.
    is_over: bool,
    /// The savepoints that can be rolled back to, oldest first, by numbers never used again.
    savepoints: Vec<u32>,
    next_savepoint: u32,
    /// The open cursors, by numbers never used again, each with the number of the savepoint
    /// that was next when it was opened: a rollback to an earlier one ends it.
    cursors: BTreeMap<u64, u32>,
    /// The error of reading on in a cursor, for whoever asks for its next rows.
    read_ahead: Option<(u64, Error)>,
}

/// What may still be done with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    /// Everything.
    Sound,
    /// Everything, but it is closed in the end, because a cancel request may still be on its
    /// way.
    Stopped,
    /// Nothing; the database has said that it ended the transaction and the connection.
    Ended,
    /// Nothing; it is lost, or nobody knows what it is doing.
    Lost,
}

impl Transaction {
    /// Begins a transaction for whatever the guest will do.
    pub(super) async fn open(
        database: &Arc<Database>,
        grant: &Arc<Grant>,
        caller: &Arc<Caller>,
        options: &BeginOptions,
    ) -> Result<Self, Failure> {
        Self::begin(database, grant, caller, Purpose::Guest(options)).await
    }

    /// Takes a connection and begins. A connection that was kept and has died since is
    /// replaced.
    pub(super) async fn begin(
        database: &Arc<Database>,
        grant: &Arc<Grant>,
        caller: &Arc<Caller>,
        purpose: Purpose<'_>,
    ) -> Result<Self, Failure> {
        let begin = Begin { purpose, grant, caller };
        loop {
            let mut lease = database.acquire(grant, caller).await?;
            let reused = lease.reused;
            let (connection, canceller) = lease.connection()?;
            let term = Term { closing: &caller.closing, grace: Duration::ZERO, until: None };
            match supervise(connection.begin(&begin), &canceller, term).await {
                Ending::Done(Ok(())) => {
                    caller.counts.transaction();
                    return Ok(Self::on(lease, &begin, grant, caller));
                }
                Ending::Done(Err(failure)) if failure.broken => {
                    lease.close().await;
                    if !reused {
                        return Err(failure);
                    }
                }
                Ending::Done(Err(failure)) => {
                    lease.release().await;
                    return Err(failure);
                }
                Ending::Stopped(_) | Ending::Overdue(_) => {
                    lease.close().await;
                    return Err(error::execution_ended().into());
                }
                Ending::Silent => return Err(error::execution_ended().into()),
            }
        }
    }

    fn on(lease: Lease, begin: &Begin<'_>, grant: &Arc<Grant>, caller: &Arc<Caller>) -> Self {
        Self {
            lease,
            only_reads: begin.read_only(),
            caller: Arc::clone(caller),
            grant: Arc::clone(grant),
            condition: Condition::Sound,
            failed: None,
            is_over: false,
            savepoints: Vec::new(),
            next_savepoint: 1,
            cursors: BTreeMap::new(),
            read_ahead: None,
        }
    }

    /// On whose behalf it is open.
    pub(super) fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// How much a result of it may be.
    pub(super) fn bounds(&self) -> Bounds {
        self.grant.limits.result
    }

    /// True where the execution is over, and nothing but a rollback is left.
    fn is_ending(&self) -> bool {
        self.caller.closing.is_cancelled()
    }

    /// Runs one statement. An error of any kind fails the transaction.
    pub(super) async fn run(&mut self, sql: &str, task: Task<'_>) -> Result<Output, Failure> {
        self.require_sound()?;
        let result = match self.work(sql, task) {
            Ok(work) => self.supervised(async |connection| connection.run(&work).await).await,
            // A limit has kept it from running at all, and the transaction is as it was.
            Err(error) if error.kind == ErrorKind::LimitExceeded => return Err(error.into()),
            Err(error) => Err(error.into()),
        };
        self.note(result)
    }

    /// Opens a cursor and returns its columns.
    pub(super) async fn open_cursor(
        &mut self,
        number: u64,
        sql: &str,
        params: &[Value],
    ) -> Result<Vec<Column>, Failure> {
        self.require_sound()?;
        let bounds = self.grant.limits.result;
        let opened = match self.work(sql, Task::Rows(params, bounds)) {
            Ok(work) => self.supervised(async |connection| connection.open_cursor(number, &work).await).await,
            Err(error) if error.kind == ErrorKind::LimitExceeded => return Err(error.into()),
            Err(error) => Err(error.into()),
        };
        if opened.is_ok() {
            self.cursors.insert(number, self.next_savepoint);
        }
        self.note(opened)
    }

    /// The next rows of a cursor; none at its end.
    pub(super) async fn fetch(&mut self, number: u64, limit: u32) -> Result<Vec<Vec<Value>>, Failure> {
        if !self.cursors.contains_key(&number) {
            return Err(cursor_ended().into());
        }
        if let Some((_, error)) = self.read_ahead.take_if(|(of, _)| *of == number) {
            return Err(error.into());
        }
        self.require_sound()?;
        let most = u32::try_from(self.grant.limits.result.rows).unwrap_or(u32::MAX);
        let (limit, bounds) = (limit.clamp(1, most.max(1)), self.grant.limits.result);
        let fetched = self.supervised(async |connection| connection.fetch(number, limit, bounds).await).await;
        self.note(fetched)
    }

    /// Reads on in a cursor while the guest works on the rows that it has been given.
    pub(super) async fn read_ahead(&mut self, number: u64) {
        if self.cursors.contains_key(&number) && self.require_sound().is_ok() {
            let bounds = self.grant.limits.result;
            let read = self.supervised(async |connection| connection.read_ahead(number, bounds).await).await;
            self.read_ahead = self.note(read).err().map(|failure| (number, failure.error));
        }
    }

    /// Closes a cursor that the guest has dropped. Where that cannot be done, it ends with the
    /// transaction.
    pub(super) async fn close_cursor(&mut self, number: u64) {
        if self.cursors.remove(&number).is_some() && self.require_sound().is_ok() {
            let closed = self.supervised(async |connection| connection.close_cursor(number).await).await;
            let _noted = self.note(closed);
        }
    }

    /// Marks a place to roll back to.
    pub(super) async fn savepoint(&mut self) -> Result<u32, Failure> {
        self.require_sound()?;
        let number = self.next_savepoint;
        let marked = self.supervised(async |connection| connection.savepoint(number).await).await;
        if marked.is_ok() {
            self.next_savepoint += 1;
            self.savepoints.push(number);
        }
        self.note(marked.map(|()| number))
    }

    /// Undoes what was done since the savepoint, and so a failed statement with it.
    pub(super) async fn rollback_to(&mut self, number: u32) -> Result<(), Failure> {
        let at = self.position(number)?;
        self.require_open()?;
        // It must come through when the deadline of a statement has passed, but not for ever.
        self.supervised(async |connection| connection.rollback_to(number).await).await.inspect_err(
            |failure| {
                // The connection may be in any state: only a full rollback is left.
                if self.failed.is_none() {
                    self.failed = Some(failure.error.message.clone());
                }
            },
        )?;
        self.savepoints.truncate(at + 1);
        self.cursors.retain(|_, next_savepoint| *next_savepoint <= number);
        (self.failed, self.read_ahead) = (None, None);
        Ok(())
    }

    /// Forgets a savepoint and those made after it.
    pub(super) async fn release(&mut self, number: u32) -> Result<(), Failure> {
        let at = self.position(number)?;
        self.require_sound()?;
        let released = self.supervised(async |connection| connection.release(number).await).await;
        if released.is_ok() {
            self.savepoints.truncate(at);
        }
        self.note(released)
    }

    fn position(&self, number: u32) -> Result<usize, Error> {
        self.savepoints.iter().position(|savepoint| *savepoint == number).ok_or_else(|| {
            let message = format!("the transaction has no savepoint {number}, or has none any more");
            error::new(ErrorKind::Closed, message)
        })
    }

    fn work<'a>(&self, sql: &'a str, task: Task<'a>) -> Result<Work<'a>, Error> {
        Ok(Work { sql, what: statement::check(sql, self.lease.dialect())?, task })
    }

    fn require_open(&self) -> Result<(), Error> {
        if self.is_ending() { Err(error::execution_ended()) } else { Ok(()) }
    }

    fn require_sound(&self) -> Result<(), Error> {
        match &self.failed {
            Some(first) if self.is_over => Err(is_over(first)),
            Some(first) => Err(has_failed(first)),
            None => self.require_open(),
        }
    }

    /// A statement that failed has failed its transaction.
    fn note<T>(&mut self, result: Result<T, Failure>) -> Result<T, Failure> {
        let result = result.map_err(|failure| match failure {
            failure if self.only_reads => self.grant.explain(failure),
            failure => error::explain_read_only_server(failure),
        });
        if let Err(failure) = &result {
            self.is_over = self.lease.connection().is_ok_and(|(connection, _)| connection.has_rolled_back());
            self.failed.get_or_insert_with(|| {
                let mut first = failure.error.message.clone();
                error::cut_text(&mut first, 1_000);
                first
            });
        }
        result
    }

    /// Does something on the connection, as long as the execution and a statement may last, and
    /// keeps in mind what that has made of the connection.
    async fn supervised<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if matches!(self.condition, Condition::Lost | Condition::Ended) {
            return Err(error::new(ErrorKind::Connection, "the connection was lost").into());
        }
        let limit = self.grant.statement_timeout;
        let until = limit.and_then(|limit| Instant::now().checked_add(limit + TIMEOUT_MARGIN));
        let (connection, canceller) = self.lease.connection()?;
        let term = Term { closing: &self.caller.closing, grace: Duration::ZERO, until };
        match supervise(work(connection), &canceller, term).await {
            Ending::Done(result) => {
                if let Err(failure) = &result {
                    self.condition = after_failure(self.condition, failure, &canceller).await;
                }
                result
            }
            Ending::Stopped(result) => {
                self.condition = after_stop(&result);
                Err(error::execution_ended().into())
            }
            Ending::Overdue(result) => {
                self.condition = after_stop(&result);
                Err(error::overdue(limit.unwrap_or_default()).into())
            }
            Ending::Silent => {
                self.condition = Condition::Lost;
                let ending = self.is_ending();
                let why =
                    if ending { error::execution_ended() } else { error::overdue(limit.unwrap_or_default()) };
                Err(why.into())
            }
        }
    }

    /// Commits. Only `Ok` means that it is committed; with the kind `connection` nobody knows,
    /// and with any other it is rolled back.
    pub(super) async fn commit(mut self) -> Result<(), Error> {
        if let Some(first) = self.failed.take() {
            let is_over_now = self.is_over;
            self.rollback().await?;
            if is_over_now {
                return Err(is_over(&first));
            }
            return Err(Error {
                hint: Some("end it with `rollback`, or stop at the first error".to_owned()),
                ..error::new(
                    ErrorKind::Statement,
                    format!(
                        "nothing was committed: a statement of the transaction had failed ({first}), and so \
                         it was rolled back"
                    ),
                )
            });
        }
        if self.is_ending() {
            self.rollback().await?;
            return Err(error::execution_ended());
        }
        if let Err(late) = self.caller.require_in_time() {
            self.rollback().await?;
            return Err(late);
        }
        // Nothing is awaited from here to where the message is sent: it goes at once.
        let (connection, canceller) = self.lease.connection()?;
        // A commit that is under way gets some time to come through.
        let term = Term { closing: &self.caller.closing, grace: PATIENCE, until: None };
        match supervise(connection.commit(), &canceller, term).await {
            Ending::Done(Ok(left)) => {
                self.give_back(left).await;
                Ok(())
            }
            Ending::Stopped(Ok(_)) | Ending::Overdue(Ok(_)) => {
                self.lease.close().await;
                Ok(())
            }
            Ending::Done(Err(failure)) if !failure.broken => {
                self.rollback().await?;
                Err(failure.error)
            }
            Ending::Stopped(Err(failure)) | Ending::Overdue(Err(failure)) if !failure.broken => {
                self.condition = Condition::Stopped;
                self.rollback().await?;
                Err(failure.error)
            }
            Ending::Done(Err(failure)) | Ending::Stopped(Err(failure)) | Ending::Overdue(Err(failure)) => {
                self.caller.unconfirmed.fetch_add(1, Ordering::Relaxed);
                Err(error::in_doubt(&failure.error.message))
            }
            Ending::Silent => {
                self.caller.unconfirmed.fetch_add(1, Ordering::Relaxed);
                Err(error::in_doubt("the database did not answer"))
            }
        }
    }

    /// Rolls back, and gives the connection back or closes it.
    pub(super) async fn rollback(mut self) -> Result<(), Error> {
        let ending = self.is_ending();
        let lost = |message: &str| Err(error::new(ErrorKind::Connection, message));
        let rolled_back = match self.condition {
            Condition::Lost => lost("the connection was lost"),
            Condition::Ended => Ok(Left::Something),
            Condition::Sound | Condition::Stopped => {
                let limit = if ending { PATIENCE } else { ROLLBACK_TIMEOUT };
                let (connection, _) = self.lease.connection()?;
                match timeout(limit, connection.rollback()).await {
                    Ok(Ok(left)) => Ok(left),
                    Ok(Err(failure)) => Err(failure.error),
                    Err(_elapsed) => lost("the database did not answer"),
                }
            }
        };
        let count = if rolled_back.is_ok() { &self.caller.rolled_back } else { &self.caller.unconfirmed };
        if ending {
            count.fetch_add(1, Ordering::Relaxed);
        }
        match rolled_back {
            Ok(left) => {
                self.give_back(left).await;
                Ok(())
            }
            // Hung up on, so that the database rolls back as soon as it notices.
            Err(error) => {
                drop(self.lease);
                Err(error)
            }
        }
    }

    async fn give_back(self, left: Left) {
        if self.condition == Condition::Sound && left == Left::Nothing {
            self.lease.release().await;
        } else {
            self.lease.close().await;
        }
    }
}

async fn after_failure(before: Condition, failure: &Failure, canceller: &Canceller) -> Condition {
    if failure.broken {
        Condition::Lost
    } else if failure.cut_short {
        // Hung up on where it cannot be stopped: the rest may be endless.
        if canceller.stop().await { Condition::Stopped } else { Condition::Lost }
    } else {
        before
    }
}

/// A connection whose statement was stopped: the server may have ended it altogether.
fn after_stop<T>(result: &Result<T, Failure>) -> Condition {
    match result {
        Err(failure) if failure.broken && failure.error.code.is_some() => Condition::Ended,
        Err(failure) if failure.broken => Condition::Lost,
        _ => Condition::Stopped,
    }
}

fn has_failed(first: &str) -> Error {
    let message = format!(
        "the transaction has failed and can only be rolled back, whole or to a savepoint; its first error was: {first}"
    );
    error::new(ErrorKind::Statement, message)
}

fn is_over(first: &str) -> Error {
    let message = format!(
        "the database has rolled back the whole transaction by itself, when this failed: {first}; end it with \
         `rollback`, and begin another one"
    );
    error::new(ErrorKind::Closed, message)
}

fn cursor_ended() -> Error {
    error::new(ErrorKind::Closed, "the cursor has ended")
}
