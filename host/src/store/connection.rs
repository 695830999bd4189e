//! Connecting: one pool for the phases, one connection for heartbeats.

use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::pool::PoolOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection as _, SqliteConnection, SqlitePool};
use uuid::{ContextV7, Uuid};

use super::StoreError;
use super::migrate::{self, Migration};
use super::phase::{EngineTx, PhaseName};
use super::pool::{Lent, Limits, Pool};
use super::pooler::Pooler;
use super::time::{StoreClock, Time};
use crate::database_url::{self, DatabaseUrl, Server};

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
    /// Begins a transaction on PostgreSQL.
    begin: Arc<str>,
    jobs_timeout: Duration,
    ids: Arc<Mutex<ContextV7>>,
}

#[derive(Clone, Debug)]
pub(super) enum Pools {
    Postgres {
        phases: Pool,
        /// One connection, opened when it is first needed: renewing a host session never
        /// queues behind phases.
        heartbeat: Pool,
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
    /// PostgreSQL: how long a phase may take, from its beginning to the answer to its COMMIT.
    /// After that its connection is given up: a network that lost something does not say so.
    pub timeout: Duration,
    /// PostgreSQL: the same for a transaction that may write a whole file of jobs, of which there may be a
    /// hundred thousand. Each statement has the usual time.
    pub jobs_timeout: Duration,
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
            timeout: Self::TIMEOUT,
            jobs_timeout: Duration::from_secs(300),
            idle_in_transaction_timeout: Duration::from_secs(10),
            pooler: Pooler::None,
        }
    }
}

impl StoreOptions {
    /// A batch of 500 takes some milliseconds, and on a machine in trouble a second. Shorter than
    /// the time-out of host sessions, so that one phase in a network that was silent for a moment
    /// does not cost the host its session.
    pub const TIMEOUT: Duration = Duration::from_secs(10);
}

/// START, COMPLETION and planning find each row by a key, whatever the numbers are: one plan will do, and to
/// make another one takes a third of what a START takes to run. The server is not to choose it by
/// the size of tables, since it may do so while they are empty.
const BY_KEYS: &str = "set local plan_cache_mode = force_generic_plan; set local enable_seqscan = off; \
    set local enable_bitmapscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off";

/// A migration may wait for another host's, and may rewrite tables.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(3600);
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
        let begin = options.pooler.begin(&session_settings(options)).into();
        Ok(Self {
            pools,
            clock: StoreClock::default(),
            place,
            migrations,
            pooler: options.pooler,
            begin,
            jobs_timeout: options.jobs_timeout,
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

    pub(super) async fn begin_transaction(
        &self,
        name: PhaseName,
    ) -> Result<(EngineTx, Option<Time>), StoreError> {
        Ok(match &self.pools {
            Pools::Postgres { phases, .. } => {
                let mut tx = match name {
                    PhaseName::Migration => phases.acquire_for(MIGRATION_TIMEOUT).await?,
                    PhaseName::Jobs => phases.acquire_for(self.jobs_timeout).await?,
                    _ => phases.acquire().await?,
                };
                let begin = match name {
                    PhaseName::Migration => format!("{}; set local statement_timeout = 0", self.begin),
                    PhaseName::Start | PhaseName::Completion | PhaseName::Plan => {
                        format!("{}; {BY_KEYS}", self.begin)
                    }
                    _ => self.begin.to_string(),
                };
                tx.begin(begin).await?;
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
    /// Behind a pooler there is one all the same: what is not committed may be lost.
    pub(super) async fn lend(&self, pool: &Pool) -> Result<Lent, StoreError> {
        let mut lent = pool.acquire().await.map_err(|error| self.unreachable(error))?;
        if self.pooler == Pooler::Transaction {
            lent.begin(self.begin.to_string()).await.map_err(|error| self.unreachable(error))?;
        }
        Ok(lent)
    }

    /// The settings of a connection for hints, where there can be one.
    pub(super) fn settings_to_listen(&self) -> Option<PgConnectOptions> {
        match &self.pools {
            // It would listen in a session that is somebody else's the next moment.
            Pools::Postgres { phases, .. } if self.pooler == Pooler::None => {
                Some(phases.settings().application_name("innkeeper-listen"))
            }
            _ => None,
        }
    }

    /// An error that stood in the way of a connection, with the place.
    pub(super) fn unreachable(&self, error: impl Into<StoreError>) -> StoreError {
        error.into().context(format_args!("the store {} cannot be reached", self.place))
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
    let session = session_settings(options);
    let servers = |name: &str| {
        let server = |server: Server| {
            let settings = PgConnectOptions::from_str(&server.url)?.application_name(name);
            Ok((server, options.pooler.settings(settings, &session)))
        };
        database_url::servers(address).into_iter().map(server).collect::<Result<Vec<_>, sqlx::Error>>()
    };
    let named = options.pooler == Pooler::None;
    let pool = |name, size| {
        let limits = Limits { size, acquire: options.acquire_timeout, lend: options.timeout, named };
        Ok::<_, sqlx::Error>(Pool::new(servers(name)?, limits))
    };
    let phases = pool("innkeeper-store", options.max_connections.max(1))?;
    let heartbeat = pool("innkeeper-heartbeat", 1)?;
    drop(phases.acquire().await?);
    Ok(Pools::Postgres { phases, heartbeat })
}

/// What the server does about a host that is gone, or has given up: it ends what the host has
/// begun, so that nobody waits for its locks. And how it runs the statements.
fn session_settings(options: &StoreOptions) -> [(&'static str, String); 6] {
    let milliseconds = |time: Duration| time.as_millis().max(1).to_string();
    [
        ("idle_in_transaction_session_timeout", milliseconds(options.idle_in_transaction_timeout)),
        // Earlier than the host gives up: then it is known that the statement did nothing, and the
        // connection can be used again. Waiting for a lock counts.
        ("statement_timeout", milliseconds(options.timeout * 4 / 5)),
        // A machine that is gone says nothing: the server finds out in a minute, not in hours.
        ("tcp_keepalives_idle", "30".to_owned()),
        ("tcp_keepalives_interval", "10".to_owned()),
        ("tcp_keepalives_count", "3".to_owned()),
        // Of a queue with a hundred thousand executions the server believes that a START costs
        // enough to compile it first, which takes eight times as long as to run it; and it does so
        // each time.
        ("jit", "off".to_owned()),
    ]
}

async fn connect_sqlite(path: &Path, options: &StoreOptions) -> Result<Pools, StoreError> {
    if options.create {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(sqlx::Error::Io)?;
        }
        create_private(path).map_err(sqlx::Error::Io)?;
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
    let write = pool(1).after_release(|connection, _| Box::pin(is_out_of_its_transaction(connection)));
    let write = write.connect_with(settings.clone()).await?;
    let read = pool(READ_CONNECTIONS)
        .connect_lazy_with(settings.create_if_missing(false).pragma("query_only", "on"));
    Ok(Pools::Sqlite { write, read })
}

/// Makes the file, if it is not there, for its owner alone: SQLite would leave that to the umask, and
/// gives what it puts beside the file the same mode.
///
/// It is made under another name and closed before it has its own: whoever closes a file that a
/// connection of this process has locked takes the locks away (<https://sqlite.org/howtocorrupt.html>, 2.2).
fn create_private(path: &Path) -> std::io::Result<()> {
    // Where a link leads to a file that is not there, SQLite makes that.
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    // Its mode is 0600.
    let made = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?.into_temp_path();
    match made.persist_noclobber(path) {
        Ok(()) => Ok(()),
        // Another host was first.
        Err(failed) if failed.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(failed) => Err(failed.error),
    }
}

/// False: the connection is closed, and another one opened in its place. Where the disk is full,
/// SQLite rolls back by itself, and sqlx, whose own rollback then fails, takes the transaction to
/// be open for ever.
async fn is_out_of_its_transaction(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    // The rollback of a transaction that was dropped comes before the answer.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_store_on_sqlite_is_made_for_its_owner_alone_and_a_file_that_is_there_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mode = |name: &str| at(name).metadata().unwrap().permissions().mode() & 0o777;
        let options = StoreOptions { create: true, ..StoreOptions::default() };
        let url = DatabaseUrl::Sqlite(at("store.db"));
        let store = Store::connect(&url, &options).await.unwrap();
        store.migrate().await.unwrap();
        for name in ["store.db", "store.db-wal", "store.db-shm"] {
            assert_eq!(mode(name), 0o600, "{name}");
        }
        let files = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, 3, "nothing else is left");
        drop(store);

        std::fs::write(at("there.db"), "").unwrap();
        std::fs::set_permissions(at("there.db"), std::fs::Permissions::from_mode(0o640)).unwrap();
        Store::connect(&DatabaseUrl::Sqlite(at("there.db")), &options).await.unwrap();
        assert_eq!(mode("there.db"), 0o640);
    }
}
