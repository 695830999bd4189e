//! Rates: how many executions of a job start in a time.
//!
//! Every start is a row for as long as it counts, so that no span of the period ever sees more than
//! the rate allows; a count for each calendar minute would allow twice as many around its turn. An
//! execution that was let through and has not started yet counts as one that starts now.

use std::time::Duration;

use uuid::Uuid;

use super::gate::{Gate, open_gates};
use super::phase::{EngineTx, PhaseTx};
use super::row::{hex_list, json_text, micros, on_engine, row};
use super::time::Time;
use super::{StoreError, postgres, sqlite};
use crate::policy::Rate;

/// What a rate allows at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    /// So many more may go on.
    pub(super) free: u32,
    /// When there will be one more; none where that has to wait for a start.
    pub(super) more_at: Option<Time>,
}

row! {
    struct UsesRow {
        uses: i64,
        first: Option<Time>,
    }
}

/// What the rate of a job allows. The caller has taken the job's gate.
pub(super) async fn allowance(tx: &mut PhaseTx, job: i32, rate: Rate) -> Result<Allowance, StoreError> {
    let (now, period) = (tx.now, micros(rate.period));
    let uses: UsesRow = on_engine!(tx, sql, conn => {
        sqlx::query(sql::FORGET_RATE_USES).bind(now).bind(job).bind(period).execute(&mut *conn).await?;
        sqlx::query_as(sql::RATE_USES).bind(now).bind(job).bind(period).fetch_one(conn).await?
    });
    let used = u32::try_from(uses.uses).unwrap_or(u32::MAX);
    let more_at = uses.first.map(|first| Time::from_micros(first.micros().saturating_add(period)));
    Ok(Allowance { free: rate.count.saturating_sub(used), more_at })
}

/// Counts executions that are let through and will make these attempts.
pub(super) async fn reserve(tx: &mut PhaseTx, job: i32, attempts: &[(Uuid, i32)]) -> Result<(), StoreError> {
    if attempts.is_empty() {
        return Ok(());
    }
    match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query(postgres::RESERVE_RATE)
                .bind(job)
                .bind(attempts.iter().map(|(execution, _)| *execution).collect::<Vec<_>>())
                .bind(attempts.iter().map(|(_, attempt)| *attempt).collect::<Vec<_>>())
                .execute(&mut **conn)
                .await?;
        }
        EngineTx::Sqlite(conn) => {
            let list: Vec<_> = attempts
                .iter()
                .map(|(execution, attempt)| (execution.simple().to_string(), attempt))
                .collect();
            sqlx::query(sqlite::RESERVE_RATE).bind(job).bind(json_text(&list)?).execute(&mut **conn).await?;
        }
    }
    Ok(())
}

/// Notes the starts of attempts, as job, execution, attempt and the period of the job's rate: from
/// now on their time runs, and somebody has to look again when it is over.
pub(super) async fn note_starts(
    tx: &mut PhaseTx,
    starts: &[(i32, Uuid, i32, Duration)],
) -> Result<(), StoreError> {
    if starts.is_empty() {
        return Ok(());
    }
    let bound = tx.now;
    let now: Time = on_engine!(tx, sql, conn => {
        sqlx::query_scalar(sql::NOW).bind(bound).fetch_one(conn).await?
    });
    match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query(postgres::USE_RATE)
                .bind(bound)
                .bind(starts.iter().map(|start| start.0).collect::<Vec<_>>())
                .bind(starts.iter().map(|start| start.1).collect::<Vec<_>>())
                .bind(starts.iter().map(|start| start.2).collect::<Vec<_>>())
                .execute(&mut **conn)
                .await?;
        }
        EngineTx::Sqlite(conn) => {
            let list: Vec<_> = starts
                .iter()
                .map(|(job, execution, attempt, _)| (job, execution.simple().to_string(), attempt))
                .collect();
            sqlx::query(sqlite::USE_RATE).bind(bound).bind(json_text(&list)?).execute(&mut **conn).await?;
        }
    }
    let mut jobs: Vec<(i32, Duration)> = starts.iter().map(|start| (start.0, start.3)).collect();
    jobs.sort_unstable();
    jobs.dedup_by_key(|job| job.0);
    for (job, period) in jobs {
        let over = Time::from_micros(now.micros().saturating_add(micros(period)));
        open_gates(tx, vec![Gate::of_limit(job, None)], Some(over)).await?;
    }
    Ok(())
}

/// Places in a rate that executions will not use: they end before their start. Returns where
/// somebody has to look who may go on instead.
pub(super) async fn give_back(tx: &mut PhaseTx, executions: &[Uuid]) -> Result<Vec<Gate>, StoreError> {
    let jobs: Vec<i32> = match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query_scalar(postgres::DROP_RATE_USES).bind(executions).fetch_all(&mut **conn).await?
        }
        EngineTx::Sqlite(conn) => {
            let list = hex_list(executions)?;
            sqlx::query_scalar(sqlite::DROP_RATE_USES).bind(list).fetch_all(&mut **conn).await?
        }
    };
    Ok(jobs.into_iter().map(|job| Gate::of_limit(job, None)).collect())
}
