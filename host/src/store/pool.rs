//! Connections to PostgreSQL, and how long anything may take on them.
//!
//! Not sqlx's own pool: that one asks the server whether it is there before a connection is lent
//! and after it came back, without a limit on the time. In a network that has fallen silent each
//! of these questions, and each statement, takes until the system gives the connection up: a
//! quarter of an hour where something was sent, and for ever where only an answer is missing.
//!
//! Here whoever borrows a connection has it until a deadline. What fails by then other than by
//! the server's word on the statement takes the connection with it, and all that are idle, since
//! they lead to the same place. Nothing is waited for on a connection that is given up.

mod bounded;
mod servers;

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

pub(super) use self::bounded::Connection;
use self::servers::Servers;
use super::StoreError;
use crate::database_url::Server;

/// How long a connection may take to be opened.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that nobody used for so long is asked whether it still works before it is lent:
/// what stands between host and server may have forgotten it. One in use tells by itself.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// How long an idle connection may take to say that it still works, before another is opened.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// An idle connection is closed after so long.
const LONGEST_IDLE: Duration = Duration::from_secs(600);

/// A connection is closed after so long. The server's memory for it only grows, and a name in the
/// URL may have come to mean another server.
const LONGEST_LIFE: Duration = Duration::from_secs(1800);

/// How long the end of a transaction that was given up, or of a connection, is waited for.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the connections of a pool have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at once.
    pub(super) size: u32,
    /// How long is waited for one that is free.
    pub(super) acquire: Duration,
    /// How long one is lent for, a transaction with all its statements.
    pub(super) lend: Duration,
    /// Statements are prepared once, by a name that the session keeps.
    pub(super) named: bool,
}

/// A number of connections. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    servers: Servers,
    limits: Limits,
    slots: Arc<Semaphore>,
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    /// The one that was used last is at the end, and is used next.
    connections: Vec<Connection>,
    /// Counts how often all connections were given up. One that was opened before is not lent
    /// again.
    generation: u64,
}

/// A connection that is lent. Dropping it rolls back what was not committed.
#[derive(Debug)]
pub(super) struct Lent {
    /// `None` only while it is dropped.
    connection: Option<Connection>,
    pool: Arc<Shared>,
    slot: Option<OwnedSemaphorePermit>,
}

impl Pool {
    /// Opens nothing yet.
    pub(super) fn new(servers: Vec<(Server, PgConnectOptions)>, limits: Limits) -> Self {
        let slots = Arc::new(Semaphore::new(limits.size.max(1) as usize));
        Self(Arc::new(Shared { servers: Servers::new(servers), limits, slots, idle: Mutex::default() }))
    }

    /// Lends a connection for as long as the pool's limit says, beginning when it is there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where none comes free or can be opened in time.
    pub(super) async fn acquire(&self) -> Result<Lent, StoreError> {
        self.acquire_for(self.0.limits.lend).await
    }

    /// The same for another time than the pool's.
    pub(super) async fn acquire_for(&self, time: Duration) -> Result<Lent, StoreError> {
        let Limits { acquire, size, .. } = self.0.limits;
        let slot = match timeout(acquire, self.0.slots.clone().acquire_owned()).await {
            Ok(Ok(slot)) => slot,
            Ok(Err(_closed)) => return Err(StoreError::Unavailable("the store was closed".into())),
            Err(_elapsed) => {
                return Err(StoreError::Unavailable(format!(
                    "none of its {size} connections came free within {acquire:?} (`max_connections` in \
                     [store])"
                )));
            }
        };
        let mut connection = match self.idle().await {
            Some(connection) => connection,
            None => self.open().await?,
        };
        connection.lend_until(Instant::now() + time, time);
        Ok(Lent { connection: Some(connection), pool: self.0.clone(), slot: Some(slot) })
    }

    /// An idle connection that works.
    async fn idle(&self) -> Option<Connection> {
        loop {
            let mut connection = self.0.idle().connections.pop()?;
            if connection.idle_for() < TRUSTED_IDLE || connection.answers_within(ANSWER_TIMEOUT).await {
                return Some(connection);
            }
            tracing::debug!("an idle connection to the store no longer works; all idle ones are replaced");
            self.0.give_up_all();
        }
    }

    async fn open(&self) -> Result<Connection, StoreError> {
        let generation = self.0.idle().generation;
        Ok(Connection::new(self.0.servers.connect().await?, generation, self.0.limits.named))
    }

    /// How the server is connected to that was connected to last.
    pub(super) fn settings(&self) -> PgConnectOptions {
        self.0.servers.settings()
    }

    /// Waits for the connections that are lent, and closes all.
    pub(super) async fn close(&self) {
        // All of them free means that none is lent. It fails where the pool is closed already.
        if let Ok(all) = self.0.slots.acquire_many(self.0.limits.size.max(1)).await {
            all.forget();
        }
        self.0.slots.close();
        let idle = std::mem::take(&mut self.0.idle().connections);
        for connection in idle {
            say_goodbye(connection.into_inner()).await;
        }
    }
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the idle connections at once, and those that are lent when they come back.
    fn give_up_all(&self) {
        let mut idle = self.idle();
        idle.generation += 1;
        // Dropping a connection closes its socket and waits for nothing.
        idle.connections.clear();
    }

    fn take_back(&self, mut connection: Connection) {
        connection.came_back();
        let mut idle = self.idle();
        if connection.generation() != idle.generation {
            return;
        }
        let too_old = connection.age() > LONGEST_LIFE;
        let mut to_close = Vec::new();
        if too_old {
            to_close.push(connection);
        } else {
            idle.connections.push(connection);
        }
        while idle.connections.first().is_some_and(|first| first.idle_for() > LONGEST_IDLE) {
            to_close.push(idle.connections.remove(0));
        }
        drop(idle);
        for connection in to_close {
            in_background(say_goodbye(connection.into_inner()));
        }
    }
}

impl Lent {
    /// Begins the transaction that [`Lent::commit`] ends; `statement` is `begin`, and what else
    /// is to be said in the same breath.
    ///
    /// # Errors
    /// As of any statement.
    pub(super) async fn begin(&mut self, statement: String) -> Result<(), sqlx::Error> {
        let connection = &mut **self;
        connection.in_transaction = true;
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.map(drop)
    }

    /// Commits, where there is a transaction, and gives the connection back.
    ///
    /// # Errors
    /// As of any statement. It is not known what became of the transaction if the error is none
    /// of the database's own.
    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        if !self.in_transaction {
            return Ok(());
        }
        let committed = sqlx::raw_sql("commit").execute(&mut *self).await;
        // Where the server refused it has rolled back, and otherwise the connection is given up.
        self.in_transaction = false;
        committed.map(drop)
    }
}

impl Deref for Lent {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("it is there until it is dropped")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("it is there until it is dropped")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let (Some(mut connection), slot) = (self.connection.take(), self.slot.take()) else { return };
        if connection.failed() {
            self.pool.give_up_all();
        } else if connection.is_busy() {
            // Whoever had it did not wait for an answer, which would now come to another.
        } else if connection.in_transaction {
            let pool = self.pool.clone();
            in_background(async move {
                let _slot = slot;
                connection.lend_until(Instant::now() + FAREWELL, FAREWELL);
                if sqlx::raw_sql("rollback").execute(&mut connection).await.is_ok() {
                    pool.take_back(connection);
                }
            });
        } else {
            self.pool.take_back(connection);
        }
    }
}

/// Tells the server that this is the end, which spares it a line in its log.
async fn say_goodbye(connection: PgConnection) {
    let _ = timeout(FAREWELL, connection.close()).await;
}

/// Where the runtime is gone, so is whoever would want to know.
fn in_background(work: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(work);
    }
}
