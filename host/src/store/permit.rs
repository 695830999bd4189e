//! Permits: who counts against a limit. One row for each holder, so that a limit cannot drift from
//! what it counts, whatever crashes in between.

use uuid::Uuid;

use super::gate::Gate;
use super::phase::{EngineTx, PhaseTx};
use super::queue::QueueId;
use super::row::{hex_list, on_engine, row};
use super::{StoreError, postgres, sqlite};

/// What a permit counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The limit of a job for one key.
    Key,
    /// The limit of a job.
    Job,
    /// The limit of a queue over all hosts.
    Queue,
}

impl Scope {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Job => "job",
            Self::Queue => "queue",
        }
    }
}

/// How many hold a permit. For jobs and keys, the caller has taken their gate; for queues, it has
/// locked the queue: so nobody else grants one meanwhile.
pub(super) async fn count(tx: &mut PhaseTx, scope: Scope, owner: i32, key: &str) -> Result<u32, StoreError> {
    let count: i64 = on_engine!(tx, sql, conn => {
        sqlx::query_scalar(sql::HOLDER_COUNT)
            .bind(scope.as_str())
            .bind(owner)
            .bind(key)
            .fetch_one(conn)
            .await?
    });
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Who holds a permit, the longest first.
pub(super) async fn holders(
    tx: &mut PhaseTx,
    scope: Scope,
    owner: i32,
    key: &str,
) -> Result<Vec<Uuid>, StoreError> {
    Ok(on_engine!(tx, sql, conn => {
        sqlx::query_scalar(sql::HOLDERS).bind(scope.as_str()).bind(owner).bind(key).fetch_all(conn).await?
    }))
}

pub(super) async fn grant(
    tx: &mut PhaseTx,
    executions: &[Uuid],
    scope: Scope,
    owner: i32,
    key: &str,
) -> Result<(), StoreError> {
    if executions.is_empty() {
        return Ok(());
    }
    let now = tx.now;
    match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query(postgres::GRANT_PERMITS)
                .bind(now)
                .bind(executions)
                .bind(scope.as_str())
                .bind(owner)
                .bind(key)
                .execute(&mut **conn)
                .await?;
        }
        EngineTx::Sqlite(conn) => {
            sqlx::query(sqlite::GRANT_PERMITS)
                .bind(now)
                .bind(hex_list(executions)?)
                .bind(scope.as_str())
                .bind(owner)
                .bind(key)
                .execute(&mut **conn)
                .await?;
        }
    }
    Ok(())
}

row! {
    struct ReleasedRow {
        scope: String,
        owner_id: i32,
        key: String,
    }
}

/// Takes the permits of executions away, all of them. Returns where somebody has to look who may go on.
pub(super) async fn release(tx: &mut PhaseTx, executions: &[Uuid]) -> Result<Vec<Gate>, StoreError> {
    if executions.is_empty() {
        return Ok(Vec::new());
    }
    let released: Vec<ReleasedRow> = match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query_as(postgres::RELEASE_PERMITS).bind(executions).fetch_all(&mut **conn).await?
        }
        EngineTx::Sqlite(conn) => {
            let list = hex_list(executions)?;
            sqlx::query_as(sqlite::RELEASE_PERMITS).bind(list).fetch_all(&mut **conn).await?
        }
    };
    let of_jobs = released.iter().filter(|released| released.scope != Scope::Queue.as_str());
    let key = |released: &ReleasedRow| (released.scope == Scope::Key.as_str()).then(|| released.key.clone());
    Ok(of_jobs.map(|released| Gate::of_limit(released.owner_id, key(released).as_deref())).collect())
}

/// Takes the permits of queues away: what goes back to the queue keeps those of its job.
pub(super) async fn release_of_queues(tx: &mut PhaseTx, executions: &[Uuid]) -> Result<(), StoreError> {
    if executions.is_empty() {
        return Ok(());
    }
    match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query(postgres::RELEASE_QUEUE_PERMITS).bind(executions).execute(&mut **conn).await?;
        }
        EngineTx::Sqlite(conn) => {
            let list = hex_list(executions)?;
            sqlx::query(sqlite::RELEASE_QUEUE_PERMITS).bind(list).execute(&mut **conn).await?;
        }
    }
    Ok(())
}

/// How many more of a queue may start, by its limit over all hosts. Other hosts' STARTs of the queue
/// wait from here on.
pub(super) async fn free_of_queue(tx: &mut PhaseTx, queue: QueueId) -> Result<u32, StoreError> {
    let limit: Option<Option<i32>> = on_engine!(tx, sql, conn => {
        sqlx::query_scalar(sql::LOCK_QUEUE).bind(queue.0).fetch_optional(conn).await?
    });
    // It may have lost its limit in the meantime.
    let Some(limit) = limit.flatten() else { return Ok(u32::MAX) };
    let used = count(tx, Scope::Queue, queue.0, "").await?;
    Ok(u32::try_from(limit).unwrap_or(0).saturating_sub(used))
}
