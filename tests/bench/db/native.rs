//! The other side: the same in native sqlx, as one would write it by hand.
//!
//! The other half of each measurement is the handler of the same name in `tests/guests/bench`.

use std::time::{Duration, Instant};

use anyhow::Result;
use innkeeper::database_url::DatabaseUrl;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgTypeInfo, PgValueRef};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Decode, PgPool, Postgres, SqlitePool, Type};

use super::guest::Measured;
use super::tables::Statements;
use super::{CONNECTIONS, Subject, TEN_THOUSAND};

/// What the pools of this side are called at the server.
pub const APPLICATION: &str = "native";

/// A pool of either engine.
pub enum Native {
    /// To a file.
    Sqlite(SqlitePool),
    /// To a server.
    Postgres(PgPool),
}

impl Native {
    /// Makes a pool like the host's: of the same size, with the same settings, and without
    /// asking a connection whether it is alive before it is used.
    ///
    /// # Errors
    /// Where the URL makes no sense.
    pub fn open(url: &DatabaseUrl) -> Result<Self> {
        Ok(match url {
            DatabaseUrl::Sqlite(path) => {
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    .foreign_keys(true)
                    .busy_timeout(Duration::from_secs(5))
                    .disable_statement_logging();
                let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).test_before_acquire(false);
                Self::Sqlite(pool.connect_lazy_with(options))
            }
            DatabaseUrl::Postgres(url) => {
                let options: PgConnectOptions = url.parse()?;
                let options = options.application_name(APPLICATION).disable_statement_logging();
                let pool = PgPoolOptions::new().max_connections(CONNECTIONS).test_before_acquire(false);
                Self::Postgres(pool.connect_lazy_with(options))
            }
        })
    }

    /// Does it, in a task of its own as the guest's side, and measures it.
    ///
    /// # Errors
    /// What the database says.
    pub async fn measure(
        &self,
        subject: Subject,
        statements: &'static Statements,
        calls: u32,
    ) -> Result<Measured> {
        let measured = match self {
            Self::Sqlite(pool) => tokio::spawn(sqlite::measure(pool.clone(), subject, statements, calls)),
            Self::Postgres(pool) => tokio::spawn(postgres::measure(pool.clone(), subject, statements, calls)),
        };
        Ok(measured.await??)
    }

    /// Runs a statement that is not measured.
    ///
    /// # Errors
    /// What the database says.
    pub async fn run(&self, sql: &'static str) -> Result<()> {
        match self {
            Self::Sqlite(pool) => sqlx::query(sql).execute(pool).await.map(drop)?,
            Self::Postgres(pool) => sqlx::query(sql).execute(pool).await.map(drop)?,
        }
        Ok(())
    }

    /// Closes the connections.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// What the column `at` holds: a text on SQLite, an instant on PostgreSQL.
trait Moment {
    fn part(&self) -> u64;
}

impl Moment for String {
    fn part(&self) -> u64 {
        self.len() as u64
    }
}

/// An instant in microseconds since 1970. sqlx reads it as a type of other libraries, which
/// would take longer.
struct Micros(i64);

impl Moment for Micros {
    fn part(&self) -> u64 {
        self.0.cast_unsigned()
    }
}

impl Type<Postgres> for Micros {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("timestamptz")
    }
}

impl Decode<'_, Postgres> for Micros {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        /// Microseconds from 1970 to 2000, which PostgreSQL counts from.
        const TO_2000: i64 = 946_684_800_000_000;
        let since_2000 = i64::from_be_bytes(value.as_bytes()?.try_into()?);
        Ok(Self(since_2000 + TO_2000))
    }
}

/// The same code for both engines: sqlx's traits would need a page of bounds to be generic in it.
macro_rules! native {
    ($module:ident, $Database:ty, at: $At:ty, write: $write:literal) => {
        mod $module {
            use futures_util::TryStreamExt as _;
            use sqlx::{Error, Pool, Row as _};

            use super::*;

            type Record = (i64, String, f64, bool, $At, Option<String>);

            pub(super) async fn measure(
                pool: Pool<$Database>,
                subject: Subject,
                statements: &'static Statements,
                calls: u32,
            ) -> Result<Measured, Error> {
                match subject {
                    Subject::QueryOne | Subject::QueryOneAsleep => {
                        query_one(&pool, statements.one, calls).await
                    }
                    Subject::Query10k => query_all(&pool, statements.all, calls).await,
                    Subject::ExecuteMany10k => execute_many(&pool, statements.insert).await,
                    Subject::Cursor1m => cursor(&pool, statements.million).await,
                }
            }

            async fn query_one(
                pool: &Pool<$Database>,
                sql: &'static str,
                calls: u32,
            ) -> Result<Measured, Error> {
                let start = Instant::now();
                let mut sum = 0_u64;
                for call in 0..i64::from(calls) {
                    let key = call % i64::from(TEN_THOUSAND) + 1;
                    let mut transaction = pool.begin().await?;
                    let row = sqlx::query(sql).bind(key).fetch_one(&mut *transaction).await?;
                    transaction.commit().await?;
                    let (name, score): (String, f64) = (row.try_get(0)?, row.try_get(1)?);
                    sum = add(add(sum, name.len() as u64), score.to_bits());
                }
                Ok(measured(start, sum))
            }

            async fn query_all(
                pool: &Pool<$Database>,
                sql: &'static str,
                calls: u32,
            ) -> Result<Measured, Error> {
                let start = Instant::now();
                let mut sum = 0_u64;
                for _ in 0..calls {
                    let mut transaction = pool.begin().await?;
                    let records: Vec<Record> = sqlx::query_as(sql).fetch_all(&mut *transaction).await?;
                    transaction.commit().await?;
                    for (id, name, score, active, at, note) in &records {
                        let parts = [
                            id.cast_unsigned(),
                            name.len() as u64,
                            score.to_bits(),
                            u64::from(*active),
                            at.part(),
                            note.as_deref().unwrap_or_default().len() as u64,
                        ];
                        sum = parts.into_iter().fold(sum, add);
                    }
                }
                Ok(measured(start, sum))
            }

            async fn execute_many(pool: &Pool<$Database>, sql: &'static str) -> Result<Measured, Error> {
                let records: Vec<(i64, String, f64)> = (1..=i64::from(TEN_THOUSAND))
                    .map(|id| (id, format!("record number {id}"), f64::from(id as i32) * 0.5))
                    .collect();
                let start = Instant::now();
                let mut transaction = pool.begin_with($write).await?;
                let mut changed = 0;
                for (id, name, score) in &records {
                    let query = sqlx::query(sql).bind(id).bind(name.as_str()).bind(score);
                    changed += query.execute(&mut *transaction).await?.rows_affected();
                }
                transaction.commit().await?;
                Ok(measured(start, changed))
            }

            async fn cursor(pool: &Pool<$Database>, sql: &'static str) -> Result<Measured, Error> {
                let start = Instant::now();
                let mut sum = 0_u64;
                let mut transaction = pool.begin().await?;
                let mut rows = sqlx::query_as(sql).fetch(&mut *transaction);
                while let Some((id, name, score)) = rows.try_next().await? {
                    let (id, name, score): (i64, String, f64) = (id, name, score);
                    sum = [id.cast_unsigned(), name.len() as u64, score.to_bits()].into_iter().fold(sum, add);
                }
                drop(rows);
                transaction.commit().await?;
                Ok(measured(start, sum))
            }
        }
    };
}

native!(sqlite, sqlx::Sqlite, at: String, write: "BEGIN IMMEDIATE");
native!(postgres, Postgres, at: Micros, write: "BEGIN");

fn measured(start: Instant, sum: u64) -> Measured {
    let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Measured { nanos, sum, memory: 0 }
}

fn add(sum: u64, part: u64) -> u64 {
    sum.wrapping_add(part)
}
