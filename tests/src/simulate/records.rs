//! Reads what the store has, beside the store: with statements of the simulation's own.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result};
use innkeeper::catch_up::Range;
use innkeeper::database_url::DatabaseUrl;
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Connection};

use super::ledger::Recorded;

/// A connection beside the store.
pub enum Records {
    Postgres(sqlx::PgConnection),
    Sqlite(sqlx::SqliteConnection),
}

impl Records {
    pub async fn open(url: &DatabaseUrl) -> Result<Self> {
        Ok(match url {
            DatabaseUrl::Postgres(url) => {
                let mut connection = sqlx::PgConnection::connect(url).await?;
                sqlx::query("set search_path = innkeeper").execute(&mut connection).await?;
                Self::Postgres(connection)
            }
            DatabaseUrl::Sqlite(path) => {
                let address = format!("sqlite:{}", path.display());
                Self::Sqlite(sqlx::SqliteConnection::connect(&address).await?)
            }
        })
    }

    /// Rows of two columns, the second of which may be null. `{time:COLUMN}` stands for a time in
    /// microseconds.
    pub async fn pairs(&mut self, statement: &str) -> Result<Vec<(String, Option<String>)>> {
        let statement = AssertSqlSafe(self.in_dialect(statement));
        Ok(match self {
            Self::Postgres(connection) => sqlx::query_as(statement).fetch_all(connection).await?,
            Self::Sqlite(connection) => sqlx::query_as(statement).fetch_all(connection).await?,
        })
    }

    /// A number.
    pub async fn number(&mut self, statement: &str) -> Result<i64> {
        let statement = AssertSqlSafe(self.in_dialect(statement));
        Ok(match self {
            Self::Postgres(connection) => sqlx::query_scalar(statement).fetch_one(connection).await?,
            Self::Sqlite(connection) => sqlx::query_scalar(statement).fetch_one(connection).await?,
        })
    }

    /// The fires of all jobs that are on record, by job.
    pub async fn fires(&mut self) -> Result<HashMap<String, Recorded>> {
        let mut recorded: HashMap<String, Recorded> = HashMap::new();
        let single = "select j.name, cast({micros:e.fire_time} as text)
            from execution e join job j on j.id = e.job_id where e.fire_time is not null";
        for (job, time) in self.pairs(single).await? {
            let time = time.context("a fire has a time")?.parse()?;
            recorded.entry(job).or_default().single.insert(Timestamp::from_microsecond(time)?);
        }
        let ranges = "select j.name, cast(c.result as text)
            from completion c join execution e on e.id = c.execution_id join job j on j.id = e.job_id
            where c.lease = 0 and c.outcome = 'skipped' and c.result is not null";
        for (job, range) in self.pairs(ranges).await? {
            let range: Range = serde_json::from_str(&range.context("it is asked for")?)?;
            recorded.entry(job).or_default().ranges.push(range);
        }
        Ok(recorded)
    }

    /// The leases that are open.
    pub async fn open_leases(&mut self) -> Result<BTreeSet<i64>> {
        let open = "select cast(s.lease as text), null from start s
            where not exists (select 1 from completion c
                              where c.execution_id = s.execution_id and c.lease = s.lease)";
        self.pairs(open).await?.into_iter().map(|(lease, _)| Ok(lease.parse()?)).collect()
    }

    fn in_dialect(&self, statement: &str) -> String {
        let mut text = String::new();
        let mut rest = statement;
        while let Some((before, after)) = rest.split_once("{micros:") {
            let (column, after) = after.split_once('}').unwrap_or((after, ""));
            text.push_str(before);
            match self {
                Self::Postgres(_) => {
                    text.push_str(&format!("(extract(epoch from {column}) * 1000000)::bigint"));
                }
                Self::Sqlite(_) => text.push_str(column),
            }
            rest = after;
        }
        text + rest
    }
}
