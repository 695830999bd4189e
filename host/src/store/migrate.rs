//! Bringing the schema up to date.

use sha2::{Digest, Sha256};

use super::connection::{Pools, Store};
use super::phase::{PhaseName, PhaseTx};
use super::row::{on_engine, on_read, row};
use super::{StoreError, time::Time};

/// One step of the schema, for one engine. Once released it never changes.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// 1 for the first.
    pub number: i32,
    /// The name of its file, the same for both engines.
    pub name: &'static str,
    /// The statements. They may raise `schema_info.oldest_compatible`.
    pub sql: &'static str,
}

macro_rules! migrations {
    ($engine:literal: $($file:literal),*) => {
        &[$(Migration {
            number: number_of($file),
            name: $file,
            sql: include_str!(concat!("../../../migrations/", $engine, "/", $file, ".sql")),
        }),*]
    };
}

/// The migrations of PostgreSQL, in order.
pub const POSTGRES: &[Migration] = migrations!("postgres": "0001_store");
/// The migrations of SQLite, in order.
pub const SQLITE: &[Migration] = migrations!("sqlite": "0001_store");

const fn number_of(file: &str) -> i32 {
    let digits = file.as_bytes();
    let (mut number, mut at) = (0, 0);
    while digits[at] != b'_' {
        number = number * 10 + (digits[at] - b'0') as i32;
        at += 1;
    }
    number
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

impl Store {
    /// Brings the schema up to date. Hosts that start at once wait for each other.
    ///
    /// # Errors
    /// [`StoreError::TooOld`] where the schema is too new for this binary.
    pub async fn migrate(&self) -> Result<MigrationReport, StoreError> {
        // A login that may not create anything can serve a schema that is up to date.
        match self.check_schema().await {
            Ok(()) => return Ok(MigrationReport { applied: Vec::new() }),
            Err(StoreError::NotMigrated(_) | StoreError::Behind { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut phase = self.begin(PhaseName::Migration).await?;
        let applied = apply(phase.tx(), self).await?;
        phase.commit().await?;
        Ok(MigrationReport { applied })
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
        judge(&self.place, self.migrations(), &rows, oldest_compatible)?;
        let applied = rows.last().map_or(0, |row| row.number);
        let needed = newest(self.migrations());
        if applied < needed {
            return Err(StoreError::Behind { place: self.place.to_string(), applied, needed });
        }
        Ok(())
    }

    fn migrations(&self) -> &'static [Migration] {
        match self.pools {
            Pools::Postgres { .. } => POSTGRES,
            Pools::Sqlite { .. } => SQLITE,
        }
    }
}

async fn apply(tx: &mut PhaseTx, store: &Store) -> Result<Vec<AppliedMigration>, StoreError> {
    let now: Option<Time> = tx.now;
    let known = store.migrations();
    on_engine!(tx, sql, conn => {
        sqlx::query(sql::SCHEMA_LOCK).execute(&mut *conn).await?;
        sqlx::raw_sql(sql::SCHEMA_INIT).execute(&mut *conn).await?;
        let rows: Vec<MigrationRow> = sqlx::query_as(sql::MIGRATIONS).fetch_all(&mut *conn).await?;
        let oldest: i32 = sqlx::query_scalar(sql::OLDEST_COMPATIBLE).fetch_one(&mut *conn).await?;
        judge(&store.place, known, &rows, oldest)?;
        let mut applied = Vec::new();
        for migration in known.iter().filter(|known| !rows.iter().any(|row| row.number == known.number)) {
            sqlx::raw_sql(migration.sql).execute(&mut *conn).await.map_err(|error| {
                StoreError::from(error).context(format_args!("migration {}", migration.name))
            })?;
            sqlx::query(sql::INSERT_MIGRATION)
                .bind(now)
                .bind(migration.number)
                .bind(migration.name)
                .bind(checksum(migration.sql))
                .bind(env!("CARGO_PKG_VERSION"))
                .execute(&mut *conn)
                .await?;
            applied.push(AppliedMigration { number: migration.number, name: migration.name.to_owned() });
        }
        Ok(applied)
    })
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
    Ok(())
}

fn newest(migrations: &[Migration]) -> i32 {
    migrations.last().map_or(0, |migration| migration.number)
}

fn checksum(sql: &str) -> String {
    Sha256::digest(sql).iter().map(|byte| format!("{byte:02x}")).collect()
}
