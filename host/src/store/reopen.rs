//! What waits is looked at again, since its job is not what it was.

use std::collections::BTreeSet;

use super::connection::Store;
use super::phase::{EngineTx, PhaseName};
use super::place::open_gates;
use super::row::{json_text, row};
use super::{StoreError, postgres, sqlite};

row! {
    struct BlockedKeyRow {
        job_id: i32,
        key: String,
    }
}

/// Marks that executions of these jobs may have become free to go on.
pub(super) async fn open_gates_of_jobs(store: &Store, ids: &[i32]) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut phase = store.begin(PhaseName::Jobs).await?;
    let tx = phase.tx();
    let blocked: Vec<BlockedKeyRow> = match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query_as(postgres::BLOCKED_KEYS).bind(ids).fetch_all(&mut **conn).await?
        }
        EngineTx::Sqlite(conn) => {
            sqlx::query_as(sqlite::BLOCKED_KEYS).bind(json_text(&ids)?).fetch_all(&mut **conn).await?
        }
    };
    // A job as a whole for each that has something waiting, besides the keys.
    let jobs: BTreeSet<i32> = blocked.iter().map(|row| row.job_id).collect();
    let mut gates: Vec<(i32, String)> = jobs.into_iter().map(|job| (job, String::new())).collect();
    gates.extend(blocked.into_iter().map(|row| (row.job_id, row.key)));
    open_gates(tx, gates, None).await?;
    phase.commit().await
}
