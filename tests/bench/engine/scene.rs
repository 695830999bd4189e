//! Stores that are full of work.

use std::time::Duration;

use anyhow::{Context as _, Result};
use innkeeper::database_url::DatabaseUrl;
use innkeeper::job::{Job, Name, OnCrash};
use innkeeper::retry::RetryPolicy;
use innkeeper_tests::database::{Engine, TestDatabase};
use rusqlite::params;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::guest::NOOP;

/// Rows of one statement.
const PIECE: usize = 10_000;

/// Microseconds between two, as if they had been enqueued 40,000 in a second.
const SPACING: i64 = 25;

/// What every execution is given.
pub const ARGS: &str = r#"{"customer":4711}"#;

/// A migrated store with one job and this many executions of it that may start.
pub struct Full {
    database: TestDatabase,
    /// How many.
    pub executions: usize,
}

impl Full {
    /// Enqueues them.
    ///
    /// # Errors
    /// Where the store cannot be written.
    pub async fn prepare(engine: Engine, executions: usize) -> Result<Self> {
        let database = TestDatabase::migrated(engine).await;
        let store = database.store(1).await;
        store.sync_jobs("bench", &[noop()?]).await?;
        store.close().await;
        let ids: Vec<Uuid> = (0..executions).map(|_| Uuid::now_v7()).collect();
        match database.url() {
            DatabaseUrl::Postgres(url) => fill_postgres(url, &ids).await?,
            DatabaseUrl::Sqlite(path) => fill_sqlite(path, &ids)?,
        }
        Ok(Self { database, executions })
    }

    /// A copy of it, whose pages are on disk: who goes first does not write for both.
    ///
    /// # Errors
    /// Where the database cannot be reached.
    pub async fn copy(&self) -> Result<TestDatabase> {
        let copy = TestDatabase::copy_of(&self.database).await;
        if let DatabaseUrl::Postgres(url) = copy.url() {
            let mut connection = PgConnection::connect(url).await?;
            for statement in
                ["vacuum analyze innkeeper.execution", "vacuum analyze innkeeper.ready", "checkpoint"]
            {
                sqlx::raw_sql(statement).execute(&mut connection).await?;
            }
            connection.close().await?;
        }
        Ok(copy)
    }
}

/// The job whose handler does nothing.
pub fn noop() -> Result<Job> {
    let name = |name: &str| Name::new(name).map_err(|error| anyhow::anyhow!("{error}"));
    Ok(Job {
        name: name(NOOP)?,
        plugin: name("bench")?,
        handler: NOOP.to_owned(),
        args: Value::Null,
        schedule: None,
        enabled: true,
        retry: RetryPolicy::default(),
        timeout: Duration::from_secs(60),
        on_crash: OnCrash::Retry,
        history: innkeeper::job::History::default(),
        policies: innkeeper::policy::Policies::default(),
    })
}

async fn fill_postgres(url: &str, ids: &[Uuid]) -> Result<()> {
    let first_rank = innkeeper::clock::now().as_microsecond();
    let mut connection = PgConnection::connect(url).await?;
    for (piece, ids) in ids.chunks(PIECE).enumerate() {
        sqlx::query(
            "with made as (
                insert into innkeeper.execution
                    (id, job_id, queue_id, args, triggered_by, scheduled_at, priority, max_attempts, created_at)
                select q.id, j.id, 0, $2::json, 'manual', now(), 0, 3, now()
                from unnest($1::uuid[]) as q (id), innkeeper.job j
                returning id, job_id
             )
             insert into innkeeper.ready (queue_id, rank, execution_id, job_id, attempt)
             select 0, $3 + $4 * row_number() over (order by id), id, job_id, 0 from made",
        )
        .bind(ids)
        .bind(ARGS)
        .bind(first_rank + SPACING * i64::try_from(piece * PIECE)?)
        .bind(SPACING)
        .execute(&mut connection)
        .await
        .context("executions could not be enqueued")?;
    }
    Ok(connection.close().await?)
}

fn fill_sqlite(path: &std::path::Path, ids: &[Uuid]) -> Result<()> {
    let first_rank = innkeeper::clock::now().as_microsecond();
    let mut connection = rusqlite::Connection::open(path)?;
    let tx = connection.transaction()?;
    {
        let mut execution = tx.prepare(
            "insert into execution
                (id, job_id, queue_id, args, triggered_by, scheduled_at, priority, max_attempts, created_at)
             select ?1, id, 0, ?2, 'manual', 0, 0, 3, 0 from job",
        )?;
        let mut ready = tx.prepare(
            "insert into ready (queue_id, rank, execution_id, job_id, attempt)
             select 0, ?2, ?1, id, 0 from job",
        )?;
        for (rank, id) in ids.iter().enumerate() {
            execution.execute(params![id.as_bytes(), ARGS])?;
            ready.execute(params![id.as_bytes(), first_rank + SPACING * i64::try_from(rank)?])?;
        }
    }
    tx.commit()?;
    connection.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()))?;
    Ok(())
}
