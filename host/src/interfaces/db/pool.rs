//! The plugins' databases: a pool of connections for each, apart from the store's.
//!
//! One bound holds over all plugins of a database. Within it a connection stays with the
//! grant that it was opened for: logins, prepared statements, temporary tables and settings
//! never pass from one plugin to another. When the bound is reached, the idle connection that
//! was used longest ago is closed for a plugin that has none. One that nobody has used for some
//! minutes is closed as well (`pool/idle.rs`).
//!
//! Who waits for a connection waits in order, and for a bounded time. Where every connection is
//! held by an execution that itself waits for another one, the last to ask is told so at once:
//! none of them could ever go on.

mod fence;
mod idle;
mod lease;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use self::idle::{IDLE_TIMEOUT, Idle};
pub(super) use self::lease::Lease;
use self::lease::Slot;
use super::caller::Caller;
use super::connection::Connection;
use super::error::Failure;
use super::grant::Grant;
use super::postgres::{self, Control};
use super::sqlite::{self, Writers};
use super::statement::Dialect;
use super::{Error, ErrorKind, error};
use crate::config::DatabaseConfig;
use crate::database_url::DatabaseUrl;
use crate::interfaces::activity::What;
use crate::job::Name;

/// How long opening a connection may take at least, however short a wait for a free one may be:
/// a server or a disk that is busy is not one that is gone.
const OPENING: Duration = Duration::from_secs(3);

/// Every `[databases.NAME]` of the configuration. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Databases(BTreeMap<Name, Arc<Database>>);

/// One database that plugins may be granted, and its connections.
pub struct Database {
    name: Name,
    url: DatabaseUrl,
    engine: Engine,
    max_connections: usize,
    acquire_timeout: Duration,
    /// SQLite: bytes that the file may grow to.
    max_size: Option<u64>,
    /// One permit for each connection that may be in use.
    permits: Arc<Semaphore>,
    /// How long a connection is kept for its plugin without being used.
    idle_timeout: Duration,
    pool: Mutex<Pool>,
}

/// How many connections of a database are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// The bound.
    pub max: usize,
    /// In use by an execution.
    pub in_use: usize,
    /// Open and waiting for the plugin that opened them.
    pub idle: usize,
}

enum Engine {
    /// What stops statements, for each login by its URL.
    Postgres(Mutex<BTreeMap<String, Arc<Control>>>),
    Sqlite(Arc<Writers>),
}

#[derive(Default)]
struct Pool {
    /// In the order in which they were given back.
    idle: Vec<Idle>,
    /// Who uses a connection, by a number that is never used again. In use, idle and expired
    /// together never exceed the bound; a connection that is being closed for another one
    /// counts as the one that will take its place.
    in_use: BTreeMap<u64, Arc<Caller>>,
    /// Connections that nobody has used for long and that are being closed.
    expired: usize,
    /// A task waits to close those that nobody uses.
    expiring: bool,
    /// Executions, by the numbers of their sessions, that wait for a connection.
    waiting: BTreeSet<u64>,
    next: u64,
    /// Logins whose last connection could not be opened, which the log says once.
    unreachable: BTreeSet<Option<String>>,
    closed: bool,
}

impl Databases {
    /// Takes the databases of the configuration. Nothing is connected to until it is needed.
    #[must_use]
    pub fn open(databases: &BTreeMap<Name, DatabaseConfig>) -> Self {
        let open = |(name, config): (&Name, &DatabaseConfig)| {
            (name.clone(), Arc::new(Database::new(name.clone(), config)))
        };
        Self(databases.iter().map(open).collect())
    }

    /// The databases of another configuration: those that are as they were `before` go on, with their
    /// connections. A pool that is in neither closes when the last execution that uses it has ended.
    #[must_use]
    pub fn reopen(
        &self,
        before: &BTreeMap<Name, DatabaseConfig>,
        databases: &BTreeMap<Name, DatabaseConfig>,
    ) -> Self {
        let open = |(name, config): (&Name, &DatabaseConfig)| {
            let same = self.get(name).filter(|_| before.get(name) == Some(config));
            let new = || Arc::new(Database::new(name.clone(), config));
            (name.clone(), same.map_or_else(new, Arc::clone))
        };
        Self(databases.iter().map(open).collect())
    }

    /// A database by its name in the configuration.
    #[must_use]
    pub fn get(&self, name: &Name) -> Option<&Arc<Database>> {
        self.0.get(name)
    }

    /// Every database, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Database>> {
        self.0.values()
    }

    /// Closes every idle connection. Those in use are closed when they are given back.
    pub async fn close(&self) {
        for database in self.iter() {
            database.close().await;
        }
    }
}

impl Database {
    /// A database that nothing has connected to yet.
    #[must_use]
    pub fn new(name: Name, config: &DatabaseConfig) -> Self {
        let engine = match &config.url {
            DatabaseUrl::Postgres(_) => Engine::Postgres(Mutex::default()),
            DatabaseUrl::Sqlite(_) => Engine::Sqlite(Writers::new()),
        };
        let max_connections = usize::try_from(config.max_connections.max(1)).unwrap_or(1);
        Self {
            name,
            url: config.url.clone(),
            engine,
            max_connections,
            acquire_timeout: config.acquire_timeout,
            max_size: config.max_size,
            permits: Arc::new(Semaphore::new(max_connections)),
            idle_timeout: IDLE_TIMEOUT,
            pool: Mutex::default(),
        }
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// How many of its connections are open at this moment.
    #[must_use]
    pub fn connections(&self) -> Connections {
        let pool = self.pool();
        Connections { max: self.max_connections, in_use: pool.in_use.len(), idle: pool.idle.len() }
    }

    /// How many executions wait for one of its connections at this moment.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pool().waiting.len()
    }

    /// Connects once, to see whether it can be reached, and closes the connection. A SQLite
    /// file that does not exist is not made.
    ///
    /// # Errors
    /// Why it cannot be reached, in words for the operator, without the password.
    pub async fn check(&self) -> Result<(), String> {
        if let DatabaseUrl::Sqlite(path) = &self.url
            && !path.exists()
        {
            let nearest = path.ancestors().skip(1).find(|folder| folder.exists());
            return match nearest {
                Some(folder) if !folder.is_dir() => Err(format!(
                    "database `{}` cannot be made: {} is not a folder",
                    self.name,
                    folder.display()
                )),
                _ => Ok(()),
            };
        }
        let connection = self.open(None, Instant::now() + self.acquire_timeout).await;
        let connection = connection.map_err(|why| {
            format!("database `{}` ({}) cannot be opened: {}", self.name, self.url, why.message)
        })?;
        connection.close().await;
        Ok(())
    }

    async fn close(&self) {
        let idle = {
            let mut pool = self.pool();
            pool.closed = true;
            std::mem::take(&mut pool.idle)
        };
        self.permits.close();
        // All at once, since each may take its time where the network is gone.
        let mut closing: JoinSet<()> = idle.into_iter().map(|idle| idle.connection.close()).collect();
        while closing.join_next().await.is_some() {}
        if let Engine::Postgres(controls) = &self.engine {
            let controls = std::mem::take(&mut *controls.lock().unwrap_or_else(PoisonError::into_inner));
            for control in controls.values() {
                control.close().await;
            }
        }
    }

    /// Closes the connections that are kept for a grant that is no more.
    pub(super) fn forget(&self, grant: u64) {
        let gone: Vec<Idle> = self.pool().idle.extract_if(.., |idle| idle.grant == grant).collect();
        close_behind(gone, Vec::new());
    }

    /// The lexical rules of its statements.
    pub(super) fn dialect(&self) -> Dialect {
        match self.engine {
            Engine::Postgres(_) => Dialect::Postgres,
            Engine::Sqlite(_) => Dialect::Sqlite,
        }
    }

    /// Takes a connection for an execution, and waits for one as long as the configuration
    /// allows.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        grant: &Arc<Grant>,
        caller: &Arc<Caller>,
    ) -> Result<Lease, Failure> {
        let until = Instant::now() + self.acquire_timeout;
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(TryAcquireError::Closed) => return Err(shutting_down().into()),
            Err(TryAcquireError::NoPermits) => {
                let _waiting = caller.activity.enter(What::Connection(self.name.clone()));
                self.wait(caller, until).await?
            }
        };
        let (slot, found, evicted) = self.take(permit, caller, grant.number);
        if let Some(connection) = found {
            return Ok(Lease::new(connection, true, slot));
        }
        if let Some(evicted) = evicted {
            evicted.close().await;
        }
        let _connecting = caller.activity.enter(What::Connection(self.name.clone()));
        let connection = tokio::select! {
            biased;
            () = caller.closing.cancelled() => return Err(error::execution_ended().into()),
            connection = self.connect(grant, until) => connection?,
        };
        Ok(Lease::new(connection, false, slot))
    }

    /// Waits for its turn.
    async fn wait(&self, caller: &Caller, until: Instant) -> Result<OwnedSemaphorePermit, Failure> {
        let _waiting = self.start_waiting(caller.session)?;
        let permit = tokio::select! {
            biased;
            () = caller.closing.cancelled() => return Err(error::execution_ended().into()),
            permit = timeout_at(until, Arc::clone(&self.permits).acquire_owned()) => permit,
        };
        match permit {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_closed)) => Err(shutting_down().into()),
            Err(_elapsed) => Err(self.busy(&format!("came free within {:?}", self.acquire_timeout)).into()),
        }
    }

    /// Notes that an execution waits, unless that would be in vain: an execution that waits
    /// gives nothing back, so where all that have a connection wait, nobody ever will. One that
    /// is being ended does.
    fn start_waiting(&self, session: u64) -> Result<Waiting<'_>, Error> {
        let nobody_can_go_on = {
            let mut pool = self.pool();
            pool.waiting.insert(session);
            pool.in_use.len() == self.max_connections
                && pool
                    .in_use
                    .values()
                    .all(|holder| pool.waiting.contains(&holder.session) && !holder.closing.is_cancelled())
        };
        let waiting = Waiting { database: self, session };
        if nobody_can_go_on {
            return Err(self.busy("can come free, because everybody who has one waits for another"));
        }
        Ok(waiting)
    }

    /// The grant's idle connection that was used last; else the connection that must be
    /// closed before another one is opened, if the bound is reached.
    fn take(
        self: &Arc<Self>,
        permit: OwnedSemaphorePermit,
        caller: &Arc<Caller>,
        grant: u64,
    ) -> (Slot, Option<Connection>, Option<Connection>) {
        let mut pool = self.pool();
        pool.next += 1;
        let id = pool.next;
        pool.in_use.insert(id, Arc::clone(caller));
        let slot = Slot::new(self, id, grant, permit);
        if let Some(at) = pool.idle.iter().rposition(|idle| idle.grant == grant) {
            return (slot, Some(pool.idle.remove(at).connection), None);
        }
        let open = pool.in_use.len() + pool.expired + pool.idle.len();
        let full = open > self.max_connections && !pool.idle.is_empty();
        let evicted = full.then(|| pool.idle.remove(0).connection);
        (slot, None, evicted)
    }

    /// Opens a connection for an execution. Where it is and why it cannot be reached is for the
    /// host's log; a plugin learns no more than [`error::unreachable`] says.
    async fn connect(&self, grant: &Grant, until: Instant) -> Result<Connection, Failure> {
        let opened = self.open(Some(grant), until).await;
        let database = &self.name;
        match opened {
            Ok(connection) => {
                if self.pool().unreachable.remove(&grant.url) {
                    tracing::info!(%database, plugin = %grant.plugin, "the database can be opened again");
                }
                Ok(connection)
            }
            Err(why) => {
                let url = grant.url.clone().map_or_else(|| self.url.clone(), DatabaseUrl::Postgres);
                let error = &why.message;
                // Once for each outage of a login: every execution may try many times.
                if self.pool().unreachable.insert(grant.url.clone()) {
                    tracing::warn!(%database, %url, error, "the database cannot be opened");
                } else {
                    tracing::debug!(%database, %url, error, "the database still cannot be opened");
                }
                Err(error::unreachable(database, &why).into())
            }
        }
    }

    /// For a grant, or only to see whether it can be opened.
    async fn open(&self, grant: Option<&Grant>, until: Instant) -> Result<Connection, Error> {
        let connecting = async {
            match (&self.url, &self.engine) {
                (DatabaseUrl::Postgres(url), Engine::Postgres(controls)) => {
                    let url = grant.and_then(|grant| grant.url.as_ref()).unwrap_or(url);
                    let control = control_of(controls, url);
                    let mut connection = postgres::connect(&control, grant).await?;
                    if grant.is_some_and(Grant::is_fenced) {
                        self.require_fence(&mut connection).await?;
                    }
                    Ok(Connection::Postgres(connection))
                }
                (DatabaseUrl::Sqlite(path), Engine::Sqlite(writers)) => {
                    let opened =
                        sqlite::connect(path, writers, self.acquire_timeout, self.max_size, grant).await;
                    opened.map(Connection::Sqlite)
                }
                _ => unreachable!("the engine is chosen by the URL when the database is made"),
            }
        };
        // Waiting for a free connection may have used up the time.
        let until = until.max(Instant::now() + OPENING);
        match timeout_at(until, connecting).await {
            Ok(opened) => opened.map_err(|failure| failure.error),
            Err(_elapsed) => Err(error::new(ErrorKind::Timeout, "it does not answer")),
        }
    }

    /// No connection `came free` as it should: who has them.
    fn busy(&self, came_free: &str) -> Error {
        let mut users: BTreeMap<Name, Vec<String>> = BTreeMap::new();
        let in_use = {
            let pool = self.pool();
            for caller in pool.in_use.values() {
                users.entry(caller.plugin.clone()).or_default().push(caller.owner.clone());
            }
            pool.in_use.len()
        };
        let plugin = |(plugin, owners): (&Name, &Vec<String>)| {
            let named = owners.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
            let more =
                if owners.len() > 3 { format!("; and {} more", owners.len() - 3) } else { String::new() };
            format!("{} by plugin `{plugin}` ({named}{more})", owners.len())
        };
        let message = format!(
            "no connection to database `{}` {came_free}: {in_use} of {} are in use, {}",
            self.name,
            self.max_connections,
            users.iter().map(plugin).collect::<Vec<_>>().join(", ")
        );
        let hint =
            format!("raise `max_connections` of `[databases.{}]`, or hold transactions shorter", self.name);
        Error { hint: Some(hint), ..error::new(ErrorKind::Busy, message) }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        // No code that can panic runs under the lock.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody is granted it any more.
impl Drop for Database {
    fn drop(&mut self) {
        let idle = std::mem::take(&mut self.pool().idle);
        let controls = match &self.engine {
            Engine::Postgres(controls) => {
                std::mem::take(&mut *controls.lock().unwrap_or_else(PoisonError::into_inner))
            }
            Engine::Sqlite(_) => BTreeMap::new(),
        };
        close_behind(idle, controls.into_values().collect());
    }
}

/// Says goodbye to connections, while nobody waits for it.
fn close_behind(idle: Vec<Idle>, controls: Vec<Arc<Control>>) {
    if idle.is_empty() && controls.is_empty() {
        return;
    }
    // Without a runtime the process is about to end, and its sockets with it.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        for idle in idle {
            idle.connection.close().await;
        }
        for control in controls {
            control.close().await;
        }
    });
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("name", &self.name).field("url", &self.url).finish_non_exhaustive()
    }
}

/// An execution that waits for a connection until this is dropped.
struct Waiting<'a> {
    database: &'a Database,
    session: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.database.pool().waiting.remove(&self.session);
    }
}

fn control_of(controls: &Mutex<BTreeMap<String, Arc<Control>>>, url: &str) -> Arc<Control> {
    let mut controls = controls.lock().unwrap_or_else(PoisonError::into_inner);
    let new = || Arc::new(Control::new(url.to_owned()));
    Arc::clone(controls.entry(url.to_owned()).or_insert_with(new))
}

fn shutting_down() -> Error {
    error::new(ErrorKind::Connection, "the host is shutting down")
}
