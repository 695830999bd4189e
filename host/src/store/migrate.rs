//! Bringing the schema up to date, also while hosts of another version work on it.
//!
//! A binary is as old as the newest migration that it knows, and the schema says how old one may
//! be that works on it: `schema_info.oldest_compatible`. A host is held against that when it
//! registers, and every host session says what its binary knows, so that a migration that would
//! leave a live host behind is refused instead.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::connection::Store;
use super::phase::{PhaseName, PhaseTx};
use super::rescue::bury;
use super::row::{on_engine, on_read, row};
use super::session::{SessionId, SessionRow};
use super::{StoreError, time::Time};

/// One step of the schema, for one engine. Once released it never changes.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// 1 for the first.
    pub number: i32,
    /// The name of its file, the same for both engines.
    pub name: &'static str,
    /// The statements.
    pub sql: &'static str,
    /// A binary that works on the schema after it has to know this migration at least. None: as
    /// before, so hosts of the version before go on.
    pub oldest_compatible: Option<i32>,
}

/// The migrations that not every older binary can work with, each with the migration that a
/// binary has to know at least. CONTRIBUTING.md, "Migrations", says when one belongs here.
const BREAKING: &[(i32, i32)] = &[
    // A host of before starts executions past the limits that it knows nothing of.
    (4, 4),
];

/// How long a statement of a migration waits for a table that is in use, and with it everybody
/// who wants that table next. Shorter than PostgreSQL's `deadlock_timeout`: in a conflict, it is
/// the migration that gives way.
const LOCK_WAIT: &str = "500ms";
/// What it then leaves to others, before it tries again.
const LOCK_PAUSE: Duration = Duration::from_secs(1);
/// So often: half a minute in all.
const LOCK_TRIES: u32 = 20;

macro_rules! migrations {
    ($engine:literal: $($file:literal),*) => {
        &[$(Migration {
            number: number_of($file),
            name: $file,
            sql: include_str!(concat!("../../../migrations/", $engine, "/", $file, ".sql")),
            oldest_compatible: breaking(number_of($file)),
        }),*]
    };
}

/// The migrations of PostgreSQL, in order.
pub const POSTGRES: &[Migration] = migrations!(
    "postgres": "0001_store", "0002_hosts", "0003_history", "0004_policies", "0005_usage", "0006_reload"
);
/// The migrations of SQLite, in order.
pub const SQLITE: &[Migration] = migrations!(
    "sqlite": "0001_store", "0002_hosts", "0003_history", "0004_policies", "0005_usage", "0006_reload"
);

const fn number_of(file: &str) -> i32 {
    let digits = file.as_bytes();
    let (mut number, mut at) = (0, 0);
    while digits[at] != b'_' {
        number = number * 10 + (digits[at] - b'0') as i32;
        at += 1;
    }
    number
}

const fn breaking(number: i32) -> Option<i32> {
    let mut at = 0;
    while at < BREAKING.len() {
        if BREAKING[at].0 == number {
            return Some(BREAKING[at].1);
        }
        at += 1;
    }
    None
}

/// What [`Store::migrate`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationReport {
    /// The migrations that it applied, none where the schema was up to date.
    pub applied: Vec<AppliedMigration>,
}

/// A migration that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedMigration {
    /// Its number.
    pub number: i32,
    /// Its name.
    pub name: String,
}

row! {
    struct MigrationRow {
        number: i32,
        name: String,
        checksum: String,
        version: String,
    }
}

row! {
    /// A host session whose binary is too old for a schema to come, locked.
    struct OlderSessionRow {
        id: i64,
        host: String,
        version: String,
        knows_migration: i32,
        lease_floor: i64,
        is_live: bool,
    }
}

/// Why [`apply`] applied nothing.
enum NotApplied {
    /// Another transaction would not let go of a table.
    InUse,
    Failed(StoreError),
}

impl From<StoreError> for NotApplied {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl From<sqlx::Error> for NotApplied {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        match code.as_deref() {
            // Lock not available, deadlock.
            Some("55P03" | "40P01") => Self::InUse,
            _ => Self::Failed(error.into()),
        }
    }
}

impl Store {
    /// Brings the schema up to date. Hosts that start at once wait for each other, and live hosts
    /// go on: where a migration would leave one behind, none is applied.
    ///
    /// # Errors
    /// [`StoreError::TooOld`] where the schema is too new for this binary,
    /// [`StoreError::HostsTooOld`] where live hosts are too old for the schema to come, and
    /// [`StoreError::Unavailable`] where another transaction keeps a table for half a minute.
    pub async fn migrate(&self) -> Result<MigrationReport, StoreError> {
        // A login that may not create anything can serve a schema that is up to date.
        match self.check_schema().await {
            Ok(()) => return Ok(MigrationReport { applied: Vec::new() }),
            Err(StoreError::NotMigrated(_) | StoreError::Behind { .. }) => {}
            Err(error) => return Err(error),
        }
        for tries in 0..LOCK_TRIES {
            let mut phase = self.begin(PhaseName::Migration).await?;
            match apply(phase.tx(), self).await {
                Ok(applied) => {
                    phase.commit().await?;
                    return Ok(MigrationReport { applied });
                }
                Err(NotApplied::Failed(error)) => return Err(error),
                Err(NotApplied::InUse) => drop(phase),
            }
            if tries == 0 {
                tracing::warn!(
                    "the migration waits for a transaction that keeps a lock on the store's tables"
                );
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        Err(StoreError::Unavailable(format!(
            "the store {} was left as it was: another transaction keeps a lock on its tables, as `pg_dump` and \
             reports do while they run; migrate again when it has ended (`pg_stat_activity` shows which it is)",
            self.place
        )))
    }

    /// Checks that this binary and the schema fit each other, and changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotMigrated`], [`StoreError::Behind`] or [`StoreError::TooOld`].
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        let (rows, oldest_compatible) = on_read!(self, sql, conn => {
            if !sqlx::query_scalar(sql::SCHEMA_EXISTS).fetch_one(&mut *conn).await? {
                return Err(StoreError::NotMigrated(format!(
                    "the store {} has no schema yet: run `innkeeper migrate` or `innkeeper serve`",
                    self.place
                )));
            }
            let rows: Vec<MigrationRow> = sqlx::query_as(sql::MIGRATIONS).fetch_all(&mut *conn).await?;
            let oldest: i32 = sqlx::query_scalar(sql::OLDEST_COMPATIBLE).fetch_one(&mut *conn).await?;
            (rows, oldest)
        });
        judge(&self.place, self.migrations, &rows, oldest_compatible)?;
        let applied = rows.last().map_or(0, |row| row.number);
        let needed = self.newest_migration();
        if applied < needed {
            return Err(StoreError::Behind { place: self.place.to_string(), applied, needed });
        }
        Ok(())
    }

    /// The same store as a binary sees it that has these migrations: of another version.
    #[doc(hidden)]
    #[must_use]
    pub fn with_migrations(mut self, migrations: &'static [Migration]) -> Self {
        self.migrations = migrations;
        self
    }

    /// The newest migration that this binary knows.
    pub(super) fn newest_migration(&self) -> i32 {
        newest(self.migrations)
    }
}

/// Holds a host that registers against the schema. Until the transaction has ended, no migration
/// is applied: whatever one would leave behind, it sees.
///
/// # Errors
/// As [`Store::check_schema`].
pub(super) async fn check_to_register(tx: &mut PhaseTx, store: &Store) -> Result<(), StoreError> {
    on_engine!(tx, sql, conn => {
        sqlx::query(sql::SCHEMA_SHARED_LOCK).execute(&mut *conn).await?;
        let rows: Vec<MigrationRow> = sqlx::query_as(sql::MIGRATIONS).fetch_all(&mut *conn).await?;
        let oldest: i32 = sqlx::query_scalar(sql::OLDEST_COMPATIBLE).fetch_one(&mut *conn).await?;
        judge(&store.place, store.migrations, &rows, oldest)
    })
}

async fn apply(tx: &mut PhaseTx, store: &Store) -> Result<Vec<AppliedMigration>, NotApplied> {
    let rows: Vec<MigrationRow> = on_engine!(tx, sql, conn => {
        sqlx::query(sql::SCHEMA_LOCK).execute(&mut *conn).await?;
        sqlx::query(sql::SCHEMA_LOCK_WAIT).bind(LOCK_WAIT).execute(&mut *conn).await?;
        sqlx::raw_sql(sql::SCHEMA_INIT).execute(&mut *conn).await?;
        let rows: Vec<MigrationRow> = sqlx::query_as(sql::MIGRATIONS).fetch_all(&mut *conn).await?;
        let oldest: i32 = sqlx::query_scalar(sql::OLDEST_COMPATIBLE).fetch_one(&mut *conn).await?;
        judge(&store.place, store.migrations, &rows, oldest)?;
        rows
    });
    let mut applied = Vec::new();
    let mut left_behind = Vec::new();
    for migration in store.migrations {
        if rows.iter().any(|row| row.number == migration.number) {
            continue;
        }
        if let Some(oldest) = migration.oldest_compatible {
            left_behind = older_sessions(tx, store, migration, oldest).await?;
        }
        apply_one(tx, migration).await?;
        applied.push(AppliedMigration { number: migration.number, name: migration.name.to_owned() });
    }
    // Expired, but not yet found so: none of them wakes up to a schema that it does not know.
    for OlderSessionRow { id, host, lease_floor, .. } in left_behind {
        bury(tx, SessionId(id), &SessionRow { host, lease_floor }).await?;
    }
    Ok(applied)
}

async fn apply_one(tx: &mut PhaseTx, migration: &Migration) -> Result<(), NotApplied> {
    let now: Option<Time> = tx.now;
    on_engine!(tx, sql, conn => {
        let ran = sqlx::raw_sql(sqlx::AssertSqlSafe(migration.sql)).execute(&mut *conn).await;
        ran.map_err(|error| match NotApplied::from(error) {
            NotApplied::Failed(error) => {
                NotApplied::Failed(error.context(format_args!("migration {}", migration.name)))
            }
            in_use => in_use,
        })?;
        if let Some(oldest) = migration.oldest_compatible {
            sqlx::query(sql::RAISE_OLDEST_COMPATIBLE).bind(oldest).execute(&mut *conn).await?;
        }
        sqlx::query(sql::INSERT_MIGRATION)
            .bind(now)
            .bind(migration.number)
            .bind(migration.name)
            .bind(checksum(migration.sql))
            .bind(env!("CARGO_PKG_VERSION"))
            .execute(&mut *conn)
            .await?;
    });
    Ok(())
}

/// Locks the sessions of hosts that are too old for what a migration makes of the schema, so that
/// they stay as they are found. Those that it returns have expired.
async fn older_sessions(
    tx: &mut PhaseTx,
    store: &Store,
    migration: &Migration,
    oldest_compatible: i32,
) -> Result<Vec<OlderSessionRow>, NotApplied> {
    let now = tx.now;
    let older: Vec<OlderSessionRow> = on_engine!(tx, sql, conn => {
        sqlx::query_as(sql::LOCK_OLDER_SESSIONS).bind(now).bind(oldest_compatible).fetch_all(conn).await?
    });
    let live = older.iter().filter(|session| session.is_live).collect::<Vec<_>>();
    if live.is_empty() {
        return Ok(older);
    }
    let host = |session: &&OlderSessionRow| {
        format!(
            "host `{}` (session {}) is innkeeper {} and knows migrations up to {}",
            session.host, session.id, session.version, session.knows_migration
        )
    };
    Err(NotApplied::Failed(StoreError::HostsTooOld {
        place: store.place.to_string(),
        migration: migration.name.to_owned(),
        oldest_compatible,
        hosts: live.iter().map(host).collect(),
    }))
}

/// Refuses a schema that this binary must not touch.
fn judge(
    place: &str,
    known: &[Migration],
    rows: &[MigrationRow],
    oldest_compatible: i32,
) -> Result<(), StoreError> {
    if let Some(newest_row) = rows.last()
        && oldest_compatible > newest(known)
    {
        return Err(StoreError::TooOld {
            place: place.to_owned(),
            known: newest(known),
            applied: newest_row.number,
            oldest_compatible,
            version: newest_row.version.clone(),
        });
    }
    for row in rows {
        let Some(migration) = known.iter().find(|known| known.number == row.number) else { continue };
        if row.name != migration.name || row.checksum != checksum(migration.sql) {
            return Err(StoreError::Corrupt(format!(
                "migration `{}` of {place} was applied by innkeeper {} with other contents than this binary \
                 has; a schema from before a release has to be made anew",
                row.name, row.version
            )));
        }
    }
    let after = |number: i32| rows.iter().find(|row| row.number > number);
    let is_missing = |migration: &&Migration| rows.iter().all(|row| row.number != migration.number);
    if let Some(missing) = known.iter().find(is_missing)
        && let Some(later) = after(missing.number)
    {
        return Err(StoreError::Corrupt(format!(
            "{place} has migration `{}`, applied by innkeeper {}, and not `{}`, which comes before it: it is of \
             another line of versions than this binary; serve it with that one, or give this one a store of its own",
            later.name, later.version, missing.name
        )));
    }
    Ok(())
}

fn newest(migrations: &[Migration]) -> i32 {
    migrations.last().map_or(0, |migration| migration.number)
}

fn checksum(sql: &str) -> String {
    Sha256::digest(sql).iter().map(|byte| format!("{byte:02x}")).collect()
}
