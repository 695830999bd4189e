//! The transactions of one execution.
//!
//! They live here, outside of the wasmtime store. Every call runs in a task that this session
//! tracks and that owns its connection; the guest's future only waits for the answer, so that
//! it can be dropped at any moment (a time-out) without leaving a connection in mid-protocol.
//! [`Session::end`] tells the tasks to stop and waits for them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Begin, Output, Want};
use super::error::Failure;
use super::transaction::{Command, Transaction, serve};
use super::{BeginOptions, Database, Error, ErrorKind, RowSet, Value, error, statement};
use crate::job::Name;

/// How long the end of an execution may take. The tasks give up before.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// The databases that one plugin may use.
#[derive(Debug)]
pub struct Grants {
    /// The plugin, by its name in the configuration.
    pub plugin: Name,
    /// Its databases, by name.
    pub databases: BTreeMap<Name, Arc<Database>>,
    /// The one that is meant where a call names none.
    pub default: Option<Name>,
    /// How many bytes the result of a statement may take in the guest. More than the guest's
    /// memory would be of no use to it.
    pub max_result_bytes: u64,
}

/// Everything that one execution has open in its plugin's databases.
pub struct Session {
    /// `None` refuses every call.
    grants: Option<Arc<Grants>>,
    caller: Arc<Caller>,
    tasks: TaskTracker,
    registry: Mutex<Registry>,
}

/// The open transactions by their numbers.
#[derive(Default)]
struct Registry {
    ended: bool,
    next: u64,
    open: HashMap<u64, mpsc::Sender<Command>>,
}

/// On whose behalf something is done.
pub(super) struct Caller {
    /// The plugin, which connections are kept apart by.
    pub(super) plugin: Name,
    /// The execution, for a person.
    pub(super) owner: String,
    /// How many bytes the result of a statement may have.
    pub(super) max_result_bytes: u64,
    /// The session's number, which no other one of this process has.
    pub(super) session: u64,
    /// Cancelled when the execution ends.
    pub(super) closing: CancellationToken,
    /// What [`Ended`] will say.
    pub(super) rolled_back: AtomicUsize,
    /// What [`Ended`] will say.
    pub(super) unconfirmed: AtomicUsize,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin `{}` ({})", self.plugin, self.owner)
    }
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
    /// For one execution. `owner` is who it is in messages, such as `job nightly, execution
    /// 0190163d-8694-739b-aea5-966c26f8ad91`.
    #[must_use]
    pub fn new(grants: Arc<Grants>, owner: String) -> Arc<Self> {
        let plugin = grants.plugin.clone();
        Arc::new(Self::with(Some(grants), plugin, owner))
    }

    /// A session whose every call is denied: what `handlers.describe` gets.
    ///
    /// # Panics
    /// Never: `describe` is a name.
    #[must_use]
    pub fn refused() -> Arc<Self> {
        let plugin = Name::new("describe").expect("`describe` has the form of a name");
        Arc::new(Self::with(None, plugin, "describe".to_owned()))
    }

    fn with(grants: Option<Arc<Grants>>, plugin: Name, owner: String) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let caller = Arc::new(Caller {
            plugin,
            owner,
            max_result_bytes: grants.as_ref().map_or(0, |grants| grants.max_result_bytes),
            session: NEXT.fetch_add(1, Ordering::Relaxed),
            closing: CancellationToken::new(),
            rolled_back: AtomicUsize::new(0),
            unconfirmed: AtomicUsize::new(0),
        });
        Self { grants, caller, tasks: TaskTracker::new(), registry: Mutex::default() }
    }

    /// Runs one statement on the default database, in a transaction of its own.
    ///
    /// # Errors
    /// As the WIT says. Nothing was changed then, unless the kind is `connection`.
    pub async fn query(&self, statement: String, params: Vec<Value>) -> Result<RowSet, Error> {
        rows(self.call(statement, params, self.all_rows()).await?)
    }

    /// As [`Self::query`], for the number of rows that the statement changed.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn execute(&self, statement: String, params: Vec<Value>) -> Result<u64, Error> {
        changed(self.call(statement, params, Want::Changes).await?)
    }

    /// Opens a transaction and returns its number in this session, never used again.
    ///
    /// # Errors
    /// As the WIT says.
    pub async fn begin(&self, options: BeginOptions) -> Result<u64, Error> {
        let database = self.database(options.database.as_deref())?;
        let caller = Arc::clone(&self.caller);
        let (commands, receiver) = mpsc::channel(1);
        let (reply, answer) = oneshot::channel();
        self.spawn(async move {
            match Transaction::begin(&database, &caller, &Begin::Transaction(&options)).await {
                // Where nobody waits any more, `commands` is gone too, and it is rolled back.
                Ok(transaction) => {
                    let _gone = reply.send(Ok(()));
                    serve(transaction, receiver).await;
                }
                Err(failure) => {
                    let _gone = reply.send(Err(failure.error));
                }
            }
        })?;
        self.answer(answer).await?;
        let mut registry = self.registry();
        if registry.ended {
            return Err(error::execution_ended());
        }
        registry.next += 1;
        let id = registry.next;
        registry.open.insert(id, commands);
        Ok(id)
    }

    /// Runs one statement in a transaction of [`Self::begin`].
    ///
    /// # Errors
    /// As the WIT says. The transaction has failed then, and only `rollback` is left.
    pub async fn query_in(&self, id: u64, statement: String, params: Vec<Value>) -> Result<RowSet, Error> {
        rows(self.call_in(id, statement, params, self.all_rows()).await?)
    }

    /// As [`Self::query_in`], for the number of rows that the statement changed.
    ///
    /// # Errors
    /// As [`Self::query_in`].
    pub async fn execute_in(&self, id: u64, statement: String, params: Vec<Value>) -> Result<u64, Error> {
        changed(self.call_in(id, statement, params, Want::Changes).await?)
    }

    /// Commits. Whatever it answers, the transaction has ended.
    ///
    /// # Errors
    /// Where nothing was committed, or (`connection`) where that is not known.
    pub async fn commit(&self, id: u64) -> Result<(), Error> {
        self.finish(id, |reply| Command::Commit { reply }).await
    }

    /// Rolls back, and ends as [`Self::commit`] does.
    ///
    /// # Errors
    /// Where it had ended before (`closed`), or the connection was lost (and so the
    /// transaction with it).
    pub async fn rollback(&self, id: u64) -> Result<(), Error> {
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
    async fn call(&self, sql: String, params: Vec<Value>, want: Want) -> Result<Output, Error> {
        let database = self.database(None)?;
        let caller = Arc::clone(&self.caller);
        let (reply, answer) = oneshot::channel();
        self.spawn(async move {
            let mut result = call_once(&database, &caller, &sql, &params, want).await;
            if result.as_ref().is_err_and(|failure| failure.stale) {
                result = call_once(&database, &caller, &sql, &params, want).await;
            }
            let _gone = reply.send(result.map_err(|failure| failure.error));
        })?;
        self.answer(answer).await
    }

    async fn call_in(&self, id: u64, sql: String, params: Vec<Value>, want: Want) -> Result<Output, Error> {
        let commands = {
            let registry = self.registry();
            self.require_open(&registry)?;
            registry.open.get(&id).cloned().ok_or_else(transaction_ended)?
        };
        let (reply, answer) = oneshot::channel();
        let sent = commands.send(Command::Run { sql, params, want, reply }).await;
        // It stays open without this sender only as long as the registry has one.
        drop(commands);
        sent.map_err(|_closed| self.gone())?;
        self.answer(answer).await
    }

    async fn finish(
        &self,
        id: u64,
        command: impl FnOnce(oneshot::Sender<Result<(), Error>>) -> Command,
    ) -> Result<(), Error> {
        // From here on every later call finds it ended.
        let commands = {
            let mut registry = self.registry();
            self.require_open(&registry)?;
            registry.open.remove(&id).ok_or_else(transaction_ended)?
        };
        let (reply, answer) = oneshot::channel();
        commands.send(command(reply)).await.map_err(|_closed| self.gone())?;
        self.answer(answer).await
    }

    fn all_rows(&self) -> Want {
        Want::Rows(self.caller.max_result_bytes)
    }

    /// Starts a task, unless the execution has ended.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
        let registry = self.registry();
        self.require_open(&registry)?;
        // Under the lock, so that `end` sees either no task or a tracked one.
        self.tasks.spawn(task);
        Ok(())
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
        answer.await.unwrap_or_else(|_dropped| Err(self.gone())).map_err(error::cut)
    }

    fn require_open(&self, registry: &Registry) -> Result<(), Error> {
        if registry.ended { Err(error::execution_ended()) } else { Ok(()) }
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
    fn database(&self, name: Option<&str>) -> Result<Arc<Database>, Error> {
        self.require_open(&self.registry())?;
        let denied = |message: String| error::new(ErrorKind::Denied, message);
        let Some(grants) = &self.grants else {
            return Err(denied("there is no database while a plugin describes its handlers".to_owned()));
        };
        let plugin = &grants.plugin;
        let mut granted = grants.databases.iter();
        let found = match (name, &grants.default) {
            (Some(name), _) => grants.databases.iter().find(|(granted, _)| granted.as_str() == name),
            (None, Some(default)) => grants.databases.get_key_value(default),
            (None, None) => match (granted.next(), granted.next()) {
                (Some(only), None) => Some(only),
                (Some(_), Some(_)) => return Err(denied(which_one(grants))),
                (None, _) => {
                    return Err(denied(format!(
                        "plugin `{plugin}` is granted no database: add `[[plugins.{plugin}.databases]]` with \
                         `name = \"…\"` to the configuration"
                    )));
                }
            },
        };
        found.map(|(_, database)| Arc::clone(database)).ok_or_else(|| {
            let mut name = name.or(grants.default.as_ref().map(Name::as_str)).unwrap_or_default().to_owned();
            error::cut_text(&mut name, 100);
            let near = crate::suggest::hint(&name, grants.databases.keys().map(Name::as_str));
            denied(format!(
                "plugin `{plugin}` is not granted database `{name}`{near}; to grant it, add \
                 `[[plugins.{plugin}.databases]]` with `name = \"{name}\"` to the configuration"
            ))
        })
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // No code that can panic runs under the lock.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
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

async fn call_once(
    database: &Arc<Database>,
    caller: &Arc<Caller>,
    sql: &str,
    params: &[Value],
    want: Want,
) -> Result<Output, Failure> {
    let what = statement::check(sql, database.dialect())?;
    let mut transaction = Transaction::begin(database, caller, &Begin::Statement(sql, what)).await?;
    match transaction.run(sql, params, want).await {
        Ok(output) => {
            transaction.commit().await?;
            Ok(output)
        }
        Err(failure) => {
            // The guest is told why the statement failed. That the connection is lost as well
            // is counted by the rollback.
            let _lost = transaction.rollback().await;
            Err(failure)
        }
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

fn which_one(grants: &Grants) -> String {
    let names: Vec<&str> = grants.databases.keys().map(Name::as_str).collect();
    format!(
        "plugin `{plugin}` is granted several databases ({}) and none of them is the default: name one in \
         `begin`, or add `default = true` to one `[[plugins.{plugin}.databases]]` of the configuration",
        names.join(", "),
        plugin = grants.plugin
    )
}
