//! The transactions of one execution.
//!
//! They live here, outside of the wasmtime store. Every call runs in a task that this session
//! tracks and that owns its connection; the guest's future only waits for the answer, so that
//! it can be dropped at any moment (a time-out) without leaving a connection in mid-protocol.
//! [`Session::end`] tells the tasks to stop and waits for them.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::caller::Caller;
use super::counts::params_size;
use super::fence::Holder;
use super::grant::Grant;
use super::grants::{Granted, Grants};
use super::rows::row_size;
use super::serve::{Command, OwnedTask, Reply, serve};
use super::transaction::Transaction;
use super::work::Output;
use super::{BeginOptions, Column, Error, ErrorKind, RowSet, Value, error, once};
use crate::interfaces::activity::{Activity, Entered, What};
use crate::job::Name;
use crate::limits::Usage;

/// How long the end of an execution may take. The tasks give up before.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything that one execution has open in its plugin's databases.
pub struct Session {
    /// `None` refuses every call.
    grants: Option<Arc<Grants>>,
    caller: Arc<Caller>,
    tasks: TaskTracker,
    registry: Mutex<Registry>,
}

/// The open transactions by their numbers. Those of transactions and cursors are never used
/// again.
#[derive(Default)]
struct Registry {
    ended: bool,
    next: u64,
    open: HashMap<u64, Open>,
}

/// An open transaction, or one that is just being opened.
struct Open {
    grant: Arc<Grant>,
    commands: mpsc::Sender<Command>,
    cursors: u32,
}

/// What was open when an execution ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Transactions that were open, or whose statement was running, and that have been rolled
    /// back.
    pub rolled_back: usize,
    /// Transactions whose end could not be confirmed in time. Their connections are closed,
    /// so that the database rolls them back as soon as it notices.
    pub unconfirmed: usize,
}

impl Session {
    /// For one execution, which has this much time. `owner` is who it is in messages, such as
    /// `job nightly, execution 0190163d-8694-739b-aea5-966c26f8ad91`.
    #[must_use]
    pub fn new(grants: Arc<Grants>, owner: String, time: Duration) -> Arc<Self> {
        let plugin = grants.plugin.clone();
        Arc::new(Self::with(Some(grants), Caller::new(plugin, owner, None, time)))
    }

    /// The same for an attempt, which commits nothing once its host may have been given up.
    #[must_use]
    pub fn of_attempt(grants: Arc<Grants>, owner: String, holder: Holder, time: Duration) -> Arc<Self> {
        let plugin = grants.plugin.clone();
        Arc::new(Self::with(Some(grants), Caller::new(plugin, owner, Some(holder), time)))
    }

    /// A session whose every call is denied: what `handlers.describe` gets.
    ///
    /// # Panics
    /// Never: `describe` is a name.
    #[must_use]
    pub fn refused() -> Arc<Self> {
        let plugin = Name::new("describe").expect("`describe` has the form of a name");
        Arc::new(Self::with(None, Caller::new(plugin, "describe".to_owned(), None, Duration::MAX)))
    }

    fn with(grants: Option<Arc<Grants>>, caller: Caller) -> Self {
        Self { grants, caller: Arc::new(caller), tasks: TaskTracker::new(), registry: Mutex::default() }
    }

    /// What the execution is doing. The other interfaces note it here as well.
    #[must_use]
    pub fn activity(&self) -> &Activity {
        &self.caller.activity
    }

    /// Writes down what the execution has had of its databases so far.
    pub fn count(&self, usage: &mut Usage) {
        self.caller.counts.write(usage);
    }

    /// Runs one statement on the default database, in a transaction of its own.
    ///
    /// # Errors
    /// As the WIT says. Nothing was changed then, unless the kind is `connection`.
    pub async fn query(&self, statement: String, params: Vec<Value>) -> Result<RowSet, Error> {
        rows(self.call("in a query", statement, OwnedTask::Rows(params)).await?)
    }

    /// As [`Self::query`], for the number of rows that the statement changed.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn execute(&self, statement: String, params: Vec<Value>) -> Result<u64, Error> {
        changed(self.call("in a statement", statement, OwnedTask::Changes(params)).await?)
    }

    /// As [`Self::execute`], once for each parameter list, all or nothing.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn execute_many(&self, statement: String, params: Vec<Vec<Value>>) -> Result<u64, Error> {
        changed(self.call("in `execute-many`", statement, OwnedTask::Many(params)).await?)
    }

    /// Opens a transaction and returns its number in this session, never used again.
    ///
    /// # Errors
    /// As the WIT says.
    pub async fn begin(&self, options: BeginOptions) -> Result<u64, Error> {
        let _entered = self.enter("in `begin`");
        let Granted { database, grant } = self.granted(options.database.as_deref())?;
        let caller = Arc::clone(&self.caller);
        let (commands, receiver) = mpsc::channel(1);
        let (reply, answer) = oneshot::channel();
        let id = self.registry().reserve(&grant, commands)?;
        let begun = async {
            self.spawn(async move {
                match Transaction::open(&database, &grant, &caller, &options).await {
                    // Where nobody waits any more, the registry is cleared, and it is rolled back.
                    Ok(transaction) => {
                        let _gone = reply.send(Ok(()));
                        serve(transaction, receiver).await;
                    }
                    Err(failure) => {
                        let _gone = reply.send(Err(failure.error));
                    }
                }
            })?;
            self.answer(answer).await
        };
        begun.await.inspect_err(|_| {
            self.registry().open.remove(&id);
        })?;
        Ok(id)
    }

    /// Runs one statement in a transaction of [`Self::begin`].
    ///
    /// # Errors
    /// As the WIT says. The transaction has failed then, unless a limit kept the statement from
    /// running at all; only a rollback is left, of all or to a savepoint.
    pub async fn query_in(&self, id: u64, statement: String, params: Vec<Value>) -> Result<RowSet, Error> {
        rows(self.call_in("in a query", id, statement, OwnedTask::Rows(params)).await?)
    }

    /// As [`Self::query_in`], for the number of rows that the statement changed.
    ///
    /// # Errors
    /// As [`Self::query_in`].
    pub async fn execute_in(&self, id: u64, statement: String, params: Vec<Value>) -> Result<u64, Error> {
        changed(self.call_in("in a statement", id, statement, OwnedTask::Changes(params)).await?)
    }

    /// As [`Self::execute_in`], once for each parameter list.
    ///
    /// # Errors
    /// As [`Self::query_in`].
    pub async fn execute_many_in(
        &self,
        id: u64,
        statement: String,
        params: Vec<Vec<Value>>,
    ) -> Result<u64, Error> {
        changed(self.call_in("in `execute-many`", id, statement, OwnedTask::Many(params)).await?)
    }

    /// Opens a cursor in a transaction, and returns its number in this session, never used
    /// again, and its columns.
    ///
    /// # Errors
    /// As [`Self::query_in`].
    pub async fn open_cursor(
        &self,
        id: u64,
        statement: String,
        params: Vec<Value>,
    ) -> Result<(u64, Vec<Column>), Error> {
        let _entered = self.enter("in a query");
        self.caller.counts.asked(&statement, row_size(&params));
        let (number, running) = {
            let mut registry = self.registry();
            let running = registry.transaction(id)?.grant.start_statement()?;
            (registry.reserve_cursor(id)?, running)
        };
        let opened = self
            .ask(id, |reply| Command::OpenCursor { number, sql: statement, params, running, reply })
            .await;
        if opened.is_err() {
            self.registry().forget_cursor(id);
        }
        Ok((number, opened?))
    }

    /// At most `limit` further rows of a cursor; none only at its end.
    ///
    /// # Errors
    /// As [`Self::query_in`], and `closed` for a cursor that has ended.
    pub async fn fetch(&self, id: u64, cursor: u64, limit: u32) -> Result<Vec<Vec<Value>>, Error> {
        let _entered = self.enter("reading on in a cursor");
        if limit == 0 {
            return Err(error::new(ErrorKind::Statement, "a fetch takes a limit of at least one row"));
        }
        let running = self.registry().transaction(id)?.grant.start_statement()?;
        let fetched = self.ask(id, |reply| Command::Fetch { cursor, limit, running, reply }).await;
        fetched.inspect(|rows| self.caller.counts.rows(rows))
    }

    /// Closes a cursor, which may have ended. There is nothing to be done about an error.
    pub async fn close_cursor(&self, id: u64, cursor: u64) {
        self.registry().forget_cursor(id);
        let _closed = self.ask(id, |reply| Command::CloseCursor { cursor, reply }).await;
    }

    /// Marks a place in a transaction to roll back to, and returns its number.
    ///
    /// # Errors
    /// As [`Self::query_in`].
    pub async fn savepoint(&self, id: u64) -> Result<u32, Error> {
        let _entered = self.enter("in `savepoint`");
        self.ask(id, |reply| Command::Savepoint { reply }).await
    }

    /// Undoes what was done since a savepoint, which stays; also after a statement that failed.
    ///
    /// # Errors
    /// `closed` for a savepoint that is not there any more, and others.
    pub async fn rollback_to(&self, id: u64, savepoint: u32) -> Result<(), Error> {
        let _entered = self.enter("in a rollback");
        self.ask(id, |reply| Command::RollbackTo { savepoint, reply }).await
    }

    /// Forgets a savepoint and those made after it, and keeps what was done since.
    ///
    /// # Errors
    /// As [`Self::rollback_to`].
    pub async fn release(&self, id: u64, savepoint: u32) -> Result<(), Error> {
        let _entered = self.enter("in `release`");
        self.ask(id, |reply| Command::Release { savepoint, reply }).await
    }

    /// Commits. Whatever it answers, the transaction has ended.
    ///
    /// # Errors
    /// Where nothing was committed, or (`connection`) where that is not known.
    pub async fn commit(&self, id: u64) -> Result<(), Error> {
        let _entered = self.enter("in a commit");
        self.finish(id, |reply| Command::Commit { reply }).await
    }

    /// Rolls back, and ends as [`Self::commit`] does.
    ///
    /// # Errors
    /// Where it had ended before (`closed`), or the connection was lost (and so the
    /// transaction with it).
    pub async fn rollback(&self, id: u64) -> Result<(), Error> {
        let _entered = self.enter("in a rollback");
        self.finish(id, |reply| Command::Rollback { reply }).await
    }

    /// Ends the execution's use of its databases: cancels what runs, rolls back what is open,
    /// and gives back or closes every connection, in at most five seconds. Every call answers
    /// `closed` from then on. May be called again, and whatever became of the guest's future.
    pub async fn end(&self) -> Ended {
        self.registry().ended = true;
        // First the word, then the channels: a task that finds its channel closed knows why.
        self.caller.closing.cancel();
        self.registry().open.clear();
        self.tasks.close();
        let mut ended = Ended::default();
        if timeout(END_TIMEOUT, self.tasks.wait()).await.is_err() {
            ended.unconfirmed = self.tasks.len();
        }
        ended.rolled_back += self.caller.rolled_back.load(Ordering::Relaxed);
        ended.unconfirmed += self.caller.unconfirmed.load(Ordering::Relaxed);
        ended
    }

    /// One statement in a transaction of its own.
    async fn call(&self, doing: &'static str, sql: String, task: OwnedTask) -> Result<Output, Error> {
        let _entered = self.enter(doing);
        self.caller.counts.asked(&sql, params_size(&task));
        let Granted { database, grant } = self.granted(None)?;
        let running = grant.start_statement()?;
        let caller = Arc::clone(&self.caller);
        let (reply, answer) = oneshot::channel();
        self.spawn(async move {
            let task = task.borrowed(grant.limits.result);
            let mut result = once::run(&database, &grant, &caller, &sql, task).await;
            if result.as_ref().is_err_and(|failure| failure.stale) {
                result = once::run(&database, &grant, &caller, &sql, task).await;
            }
            drop(running);
            let _gone = reply.send(result.map_err(|failure| grant.explain(failure).error));
        })?;
        self.answer(answer).await.inspect(|output| self.caller.counts.brought(output))
    }

    async fn call_in(
        &self,
        doing: &'static str,
        id: u64,
        sql: String,
        task: OwnedTask,
    ) -> Result<Output, Error> {
        let _entered = self.enter(doing);
        self.caller.counts.asked(&sql, params_size(&task));
        let running = self.registry().transaction(id)?.grant.start_statement()?;
        let output = self.ask(id, |reply| Command::Run { sql, task, running, reply }).await;
        output.inspect(|output| self.caller.counts.brought(output))
    }

    /// Counts a call of the guest, and notes that it is under way.
    fn enter(&self, doing: &'static str) -> Entered {
        self.caller.counts.call();
        self.caller.activity.enter(What::Database(doing))
    }

    /// Asks something of an open transaction.
    async fn ask<T>(&self, id: u64, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Error> {
        let commands = self.registry().transaction(id)?.commands.clone();
        let (reply, answer) = oneshot::channel();
        let sent = commands.send(command(reply)).await;
        // It stays open without this sender only as long as the registry has one.
        drop(commands);
        sent.map_err(|_closed| self.gone())?;
        self.answer(answer).await
    }

    async fn finish(&self, id: u64, command: impl FnOnce(Reply<()>) -> Command) -> Result<(), Error> {
        // From here on every later call finds it ended.
        let open = {
            let mut registry = self.registry();
            registry.transaction(id)?;
            registry.open.remove(&id).ok_or_else(transaction_ended)?
        };
        let (reply, answer) = oneshot::channel();
        open.commands.send(command(reply)).await.map_err(|_closed| self.gone())?;
        self.answer(answer).await
    }

    /// Starts a task, unless the execution has ended.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
        let registry = self.registry();
        registry.require_open()?;
        // Under the lock, so that `end` sees either no task or a tracked one.
        self.tasks.spawn(task);
        Ok(())
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
        answer.await.unwrap_or_else(|_dropped| Err(self.gone())).map_err(error::cut)
    }

    /// Why a task is not there any more.
    fn gone(&self) -> Error {
        if self.registry().ended {
            error::execution_ended()
        } else {
            error::new(ErrorKind::Other, "the host failed in this call; its log says how")
        }
    }

    /// The database that a call means.
    fn granted(&self, name: Option<&str>) -> Result<Granted, Error> {
        self.registry().require_open()?;
        match &self.grants {
            Some(grants) => grants.find(name),
            None => {
                let message = "there is no database while a plugin describes its handlers";
                Err(error::new(ErrorKind::Denied, message))
            }
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // No code that can panic runs under the lock.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    fn require_open(&self) -> Result<(), Error> {
        if self.ended { Err(error::execution_ended()) } else { Ok(()) }
    }

    fn transaction(&self, id: u64) -> Result<&Open, Error> {
        self.require_open()?;
        self.open.get(&id).ok_or_else(transaction_ended)
    }

    /// A number for a transaction that is about to be opened.
    fn reserve(&mut self, grant: &Arc<Grant>, commands: mpsc::Sender<Command>) -> Result<u64, Error> {
        self.require_open()?;
        let open = self.open.values().filter(|open| Arc::ptr_eq(&open.grant, grant)).count();
        let most = grant.limits.max_open_transactions;
        if open >= most as usize {
            return Err(limit("transactions", open, most, grant, "max_open_transactions", "end one first"));
        }
        self.next += 1;
        self.open.insert(self.next, Open { grant: Arc::clone(grant), commands, cursors: 0 });
        Ok(self.next)
    }

    /// A number for a cursor that is about to be opened.
    fn reserve_cursor(&mut self, id: u64) -> Result<u64, Error> {
        let grant = Arc::clone(&self.transaction(id)?.grant);
        let of_grant = self.open.values().filter(|open| Arc::ptr_eq(&open.grant, &grant));
        let open: usize = of_grant.map(|open| open.cursors as usize).sum();
        let most = grant.limits.max_open_cursors;
        if open >= most as usize {
            return Err(limit("cursors", open, most, &grant, "max_open_cursors", "drop one first"));
        }
        if let Some(transaction) = self.open.get_mut(&id) {
            transaction.cursors += 1;
        }
        self.next += 1;
        Ok(self.next)
    }

    fn forget_cursor(&mut self, id: u64) {
        if let Some(open) = self.open.get_mut(&id) {
            open.cursors = open.cursors.saturating_sub(1);
        }
    }
}

impl Drop for Session {
    /// Whoever forgets to call `end` leaves nothing running.
    fn drop(&mut self) {
        self.caller.closing.cancel();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session of {}", self.caller)
    }
}

fn rows(output: Output) -> Result<RowSet, Error> {
    match output {
        Output::Rows(rows) => Ok(rows),
        Output::Changed(_) => Err(error::new(ErrorKind::Other, "the statement brought a number, not rows")),
    }
}

fn changed(output: Output) -> Result<u64, Error> {
    match output {
        Output::Changed(changed) => Ok(changed),
        Output::Rows(_) => Err(error::new(ErrorKind::Other, "the statement brought rows, not a number")),
    }
}

fn transaction_ended() -> Error {
    error::new(ErrorKind::Closed, "the transaction has ended")
}

/// What an execution has too many of. Nothing has failed: the plugin can go on.
fn limit(what: &str, open: usize, most: u32, grant: &Grant, key: &str, advice: &str) -> Error {
    let message = format!(
        "this execution has {open} {what} open in database `{}`, and {most} are allowed at a time (`{key}`)",
        grant.database
    );
    Error { hint: Some(advice.to_owned()), ..error::new(ErrorKind::LimitExceeded, message) }
}
