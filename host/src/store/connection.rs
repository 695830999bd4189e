//! Connecting: one pool for the phases, one connection for heartbeats.

use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::pool::PoolOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, PgPool, SqlitePool};
use uuid::{ContextV7, Uuid};

use super::StoreError;
use super::migrate::{self, Migration};
use super::phase::EngineTx;
use super::pooler::{Lent, Pooler};
use super::time::{StoreClock, Time};
use crate::database_url::DatabaseUrl;

/// The host's own records, on one of the two engines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) pools: Pools,
    clock: StoreClock,
    /// Where it is, without a password.
    pub(super) place: Arc<str>,
    /// Those that this binary knows, in order.
    pub(super) migrations: &'static [Migration],
    pooler: Pooler,
    idle_in_transaction_timeout: Duration,
    ids: Arc<Mutex<ContextV7>>,
}

#[derive(Clone, Debug)]
pub(super) enum Pools {
    Postgres {
        phases: PgPool,
        /// One connection, opened when it is first needed: renewing a host session never
        /// queues behind phases.
        heartbeat: PgPool,
    },
    Sqlite {
        /// One connection, since SQLite has one writer: waiting for it in a fair queue is
        /// better than the file lock's polling. Heartbeats queue here too, for that reason.
        write: SqlitePool,
        read: SqlitePool,
    },
}

/// How a store is connected to.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Connections for the phases, at least 1. PostgreSQL only; the heartbeat has one more.
    pub max_connections: u32,
    /// Makes the SQLite file where there is none. Commands that only read leave it false.
    pub create: bool,
    /// How long a phase waits for a connection.
    pub acquire_timeout: Duration,
    /// PostgreSQL ends a phase that does nothing for so long: a host that was stopped in the
    /// middle of one does not keep its locks.
    pub idle_in_transaction_timeout: Duration,
    /// What the connections lead to. PostgreSQL only.
    pub pooler: Pooler,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            max_connections: 4,
            create: false,
            acquire_timeout: Duration::from_secs(10),
            idle_in_transaction_timeout: Duration::from_secs(10),
            pooler: Pooler::None,
        }
    }
}

/// How long the first connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long SQLite waits for another process that writes.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// SQLite readers of one process.
const READ_CONNECTIONS: u32 = 2;

impl Store {
    /// Connects, and tries one connection so that a wrong URL is known at once. The schema is
    /// not looked at: see [`Store::migrate`] and [`Store::check_schema`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where the database cannot be reached,
    /// [`StoreError::NotMigrated`] where the SQLite file does not exist and is not to be made.
    pub async fn connect(url: &DatabaseUrl, options: &StoreOptions) -> Result<Self, StoreError> {
        let pools = match url {
            DatabaseUrl::Postgres(address) => connect_postgres(address, options).await,
            DatabaseUrl::Sqlite(path) => connect_sqlite(path, options).await,
        };
        let place: Arc<str> = url.to_string().into();
        let pools = pools.map_err(|error| match error {
            missing @ StoreError::NotMigrated(_) => missing,
            error => error.context(format_args!("the store {place} cannot be reached")),
        })?;
        let ids = Arc::new(Mutex::new(ContextV7::new()));
        let migrations = match &pools {
            Pools::Postgres { .. } => migrate::POSTGRES,
            Pools::Sqlite { .. } => migrate::SQLITE,
        };
        let StoreOptions { pooler, idle_in_transaction_timeout, .. } = *options;
        Ok(Self {
            pools,
            clock: StoreClock::default(),
            place,
            migrations,
            pooler,
            idle_in_transaction_timeout,
            ids,
        })
    }

    /// The same store by another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: StoreClock) -> Self {
        self.clock = clock;
        self
    }

    /// Where it is, without a password.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Closes every connection, after the phases that are under way.
    pub async fn close(&self) {
        match &self.pools {
            Pools::Postgres { phases, heartbeat } => {
                phases.close().await;
                heartbeat.close().await;
            }
            Pools::Sqlite { write, read } => {
                read.close().await;
                write.close().await;
            }
        }
    }

    pub(super) async fn begin_transaction(&self) -> Result<(EngineTx, Option<Time>), StoreError> {
        Ok(match &self.pools {
            Pools::Postgres { phases, .. } => {
                let tx = self.pooler.begin(phases, self.idle_in_transaction_timeout).await?;
                (EngineTx::Postgres(tx), self.clock.postgres())
            }
            Pools::Sqlite { write, .. } => {
                let tx = write.begin_with("BEGIN IMMEDIATE").await?;
                // After the lock was won, so that times only grow from one phase to the next.
                (EngineTx::Sqlite(tx), self.clock.sqlite())
            }
        })
    }

    /// A connection of a pool, for statements that need no transaction.
    pub(super) async fn lend(&self, pool: &PgPool) -> Result<Lent, StoreError> {
        let lent = self.pooler.lend(pool, self.idle_in_transaction_timeout).await;
        lent.map_err(|error| self.unreachable(error))
    }

    /// The settings of a connection for hints, where there can be one.
    pub(super) fn settings_to_listen(&self) -> Option<PgConnectOptions> {
        match &self.pools {
            // It would listen in a session that is somebody else's the next moment.
            Pools::Postgres { phases, .. } if self.pooler == Pooler::None => {
                Some((*phases.connect_options()).clone().application_name("innkeeper-listen"))
            }
            _ => None,
        }
    }

    /// An error that stood in the way of a connection, with the place.
    pub(super) fn unreachable(&self, error: sqlx::Error) -> StoreError {
        StoreError::from(error).context(format_args!("the store {} cannot be reached", self.place))
    }

    /// The id of an execution that is made at `now`, by the store's clock. Ids of one process
    /// only grow, also within a millisecond.
    pub(super) fn new_id(&self, now: Time) -> Uuid {
        let nanos = now.0.subsec_nanosecond().unsigned_abs();
        let seconds = now.0.as_second().max(0).unsigned_abs();
        Uuid::new_v7(uuid::Timestamp::from_unix(&*self.ids, seconds, nanos))
    }

    /// What to bind as "now" outside a phase.
    pub(super) fn now(&self) -> Option<Time> {
        match self.pools {
            Pools::Postgres { .. } => self.clock.postgres(),
            Pools::Sqlite { .. } => self.clock.sqlite(),
        }
    }
}

async fn connect_postgres(address: &str, options: &StoreOptions) -> Result<Pools, StoreError> {
    let settings = PgConnectOptions::from_str(address)?;
    let settings = options.pooler.settings(settings, options.idle_in_transaction_timeout);
    let phases = settings.clone().application_name("innkeeper-store");
    let heartbeat = settings.application_name("innkeeper-heartbeat");
    // A pool would go on trying, and answer with a time-out instead of the reason.
    match tokio::time::timeout(CONNECT_TIMEOUT, phases.connect()).await {
        Ok(connection) => connection?.close().await?,
        Err(_) => {
            return Err(StoreError::Unavailable(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())));
        }
    }
    let pool = |size| PoolOptions::new().max_connections(size).acquire_timeout(options.acquire_timeout);
    Ok(Pools::Postgres {
        phases: pool(options.max_connections.max(1)).connect_lazy_with(phases),
        heartbeat: pool(1).connect_lazy_with(heartbeat),
    })
}

async fn connect_sqlite(path: &std::path::Path, options: &StoreOptions) -> Result<Pools, StoreError> {
    if options.create {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(sqlx::Error::Io)?;
        }
    } else if !path.exists() {
        return Err(StoreError::NotMigrated(format!(
            "the store sqlite:{} does not exist yet: run `innkeeper migrate` or `innkeeper serve`",
            path.display()
        )));
    }
    let settings = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(options.create)
        .journal_mode(SqliteJournalMode::Wal)
        // A completion that was reported is still there after a power failure.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    let pool = |size| {
        // A connection costs a file lock and a thread: none is given up for being idle.
        let timeout = options.acquire_timeout.max(BUSY_TIMEOUT);
        PoolOptions::new()
            .max_connections(size)
            .acquire_timeout(timeout)
            .idle_timeout(None)
            .max_lifetime(None)
    };
    let write = pool(1).connect_with(settings.clone()).await?;
    let read = pool(READ_CONNECTIONS)
        .connect_lazy_with(settings.create_if_missing(false).pragma("query_only", "on"));
    Ok(Pools::Sqlite { write, read })
}
