//! Executions that wait for something other than a time, and how they pass a stage.

use std::collections::HashSet;

use uuid::Uuid;

use super::phase::{EngineTx, PhaseTx};
use super::place::ReadyRow;
use super::row::{hex_list, on_engine, row};
use super::{StoreError, postgres, sqlite};

/// Executions of one job and key that one look takes on.
pub(super) const BATCH: u32 = 500;

row! {
    /// An execution that waits for something other than a time.
    struct BlockedRow {
        execution_id: Uuid,
        attempt: i32,
        rank: i64,
        queue_id: i32,
        limit_key: Option<String>,
    }
}

impl BlockedRow {
    pub(super) fn ready(&self, job: i32) -> ReadyRow {
        let Self { execution_id, attempt, rank, queue_id, .. } = *self;
        ReadyRow { queue_id, rank, execution: execution_id, job, attempt }
    }
}

/// The first of those that wait at a stage.
pub(super) async fn blocked(
    tx: &mut PhaseTx,
    job: i32,
    blocker: &str,
    key: &str,
    limit: u32,
) -> Result<Vec<BlockedRow>, StoreError> {
    Ok(on_engine!(tx, sql, conn => {
        sqlx::query_as(sql::BLOCKED)
            .bind(job)
            .bind(blocker)
            .bind(key)
            .bind(i64::from(limit))
            .fetch_all(conn)
            .await?
    }))
}

/// What is done to executions at a stage, on each engine.
#[derive(Clone, Copy)]
pub(super) struct Pass {
    postgres: &'static str,
    sqlite: &'static str,
}

/// Takes them away, to where the caller puts them.
pub(super) const UNBLOCK: Pass = Pass { postgres: postgres::UNBLOCK, sqlite: sqlite::UNBLOCK };
pub(super) const PASS_KEY: Pass = Pass { postgres: postgres::PASS_KEY, sqlite: sqlite::PASS_KEY };
pub(super) const PASS_AFTER: Pass = Pass { postgres: postgres::PASS_AFTER, sqlite: sqlite::PASS_AFTER };

/// Has executions pass a stage. Returns those that did: one that was cancelled or paused since it
/// was looked for is left to whoever did that.
pub(super) async fn unblock(
    tx: &mut PhaseTx,
    pass: Pass,
    blocker: &str,
    rows: Vec<BlockedRow>,
) -> Result<Vec<BlockedRow>, StoreError> {
    if rows.is_empty() {
        return Ok(rows);
    }
    let passed: Vec<Uuid> = match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query_scalar(pass.postgres).bind(ids(&rows)).bind(blocker).fetch_all(&mut **conn).await?
        }
        EngineTx::Sqlite(conn) => {
            let list = hex_list(&ids(&rows))?;
            sqlx::query_scalar(pass.sqlite).bind(list).bind(blocker).fetch_all(&mut **conn).await?
        }
    };
    let passed: HashSet<Uuid> = passed.into_iter().collect();
    Ok(rows.into_iter().filter(|row| passed.contains(&row.execution_id)).collect())
}

pub(super) fn ids(rows: &[BlockedRow]) -> Vec<Uuid> {
    rows.iter().map(|row| row.execution_id).collect()
}
