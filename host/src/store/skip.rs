//! Fires that are not run are put on record: an execution that was never started, with the reason.

use serde_json::json;
use uuid::Uuid;

use super::connection::Store;
use super::phase::{EngineTx, PhaseTx};
use super::place::{JobFacts, NewRow, insert_executions, limit_key};
use super::row::{json_text, to_count};
use super::time::Time;
use super::{StoreError, postgres, sqlite};
use crate::catch_up::{Range, Skips};
use crate::execution::{Failure, FailureKind, Trigger};
use crate::job::Job;

/// Fires of a job that are not run.
#[derive(Debug)]
pub(super) struct SkippedFires {
    pub(super) facts: JobFacts,
    /// The job as it was when they were due.
    pub(super) job: Job,
    pub(super) fires: Skips,
    /// Why, for the person who finds them.
    pub(super) reason: String,
}

/// Rows that one statement inserts.
const BATCH: usize = 1_000;

/// A row of `execution`, and of the completion that ends it.
struct SkipRow {
    row: NewRow,
    result: Option<String>,
    error: String,
}

/// Puts fires on record as skipped; a fire that has an execution already keeps it. Returns how many
/// records were made.
///
/// The executions were made at `now`, by the store's clock.
pub(super) async fn record_skips(
    tx: &mut PhaseTx,
    store: &Store,
    now: Time,
    skipped: &[SkippedFires],
) -> Result<usize, StoreError> {
    let mut made = 0;
    let mut rows = Vec::new();
    for skipped in skipped {
        skip_rows(store, now, skipped, &mut rows)?;
        if rows.len() >= BATCH {
            made += insert(tx, &rows).await?;
            rows.clear();
        }
    }
    made += insert(tx, &rows).await?;
    Ok(made)
}

fn skip_rows(
    store: &Store,
    now: Time,
    skipped: &SkippedFires,
    rows: &mut Vec<SkipRow>,
) -> Result<(), StoreError> {
    let SkippedFires { facts, job, fires, reason } = skipped;
    let args = json_text(&job.args)?;
    let limit_key = limit_key(job, &job.args);
    let mut skip = |fire, result, reason: &str| {
        let fire = Time(fire);
        let row = NewRow {
            id: store.new_id(now),
            job: *facts,
            args: args.clone(),
            triggered_by: Trigger::Schedule,
            scheduled_at: fire,
            fire_time: Some(fire),
            max_attempts: to_count(job.retry.max_attempts),
            unique_key: None,
            limit_key: limit_key.clone(),
            retry_of: None,
        };
        let error = json_text(&Failure::new(FailureKind::Skipped, reason))?;
        rows.push(SkipRow { row, result, error });
        Ok::<_, StoreError>(())
    };
    if let Some(range) = &fires.range {
        skip(range.first, Some(json_text(range)?), &format!("{}: {reason}", in_words(range)))?;
    }
    for fire in &fires.single {
        skip(*fire, None, reason)?;
    }
    Ok(())
}

fn in_words(range: &Range) -> String {
    let Range { first, last, fires } = range;
    match fires {
        Some(fires) => format!("this stands for the {fires} fires from {first} to {last}"),
        None => format!("this stands for all fires from {first} to {last}, too many to count"),
    }
}

async fn insert(tx: &mut PhaseTx, rows: &[SkipRow]) -> Result<usize, StoreError> {
    let mut made = 0;
    for rows in rows.chunks(BATCH) {
        let executions: Vec<NewRow> = rows.iter().map(|skip| skip.row.clone()).collect();
        let mut new = insert_executions(tx, &executions).await?;
        // The first fire of a range may have its execution, as after a clock that was set back. The
        // others are on record all the same.
        let again: Vec<NewRow> = rows
            .iter()
            .filter(|skip| skip.result.is_some() && !new.contains(&skip.row.id))
            .map(|skip| NewRow { fire_time: None, ..skip.row.clone() })
            .collect();
        new.extend(insert_executions(tx, &again).await?);
        let ended: Vec<&SkipRow> = rows.iter().filter(|skip| new.contains(&skip.row.id)).collect();
        insert_completions(tx, &ended).await?;
        made += ended.len();
    }
    Ok(made)
}

async fn insert_completions(tx: &mut PhaseTx, rows: &[&SkipRow]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let now = tx.now;
    match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query(postgres::INSERT_SKIPS)
                .bind(now)
                .bind(rows.iter().map(|skip| skip.row.id).collect::<Vec<Uuid>>())
                .bind(rows.iter().map(|skip| skip.result.as_deref()).collect::<Vec<_>>())
                .bind(rows.iter().map(|skip| skip.error.as_str()).collect::<Vec<_>>())
                .execute(&mut **conn)
                .await?;
        }
        EngineTx::Sqlite(conn) => {
            let list: Vec<_> = rows
                .iter()
                .map(|skip| json!([skip.row.id.simple().to_string(), skip.result, skip.error]))
                .collect();
            sqlx::query(sqlite::INSERT_SKIPS).bind(now).bind(json_text(&list)?).execute(&mut **conn).await?;
        }
    }
    Ok(())
}
