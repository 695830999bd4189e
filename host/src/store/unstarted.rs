//! Executions end that are never started: cancelled before their turn, or skipped by a policy.

use uuid::Uuid;

use super::phase::{EngineTx, PhaseTx};
use super::row::json_text;
use super::{StoreError, postgres, sqlite};
use crate::execution::{Failure, FailureKind};

/// How an execution ends that is never started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unstarted {
    /// An operator, or an execution that replaces it, ended it.
    Cancelled,
    /// It is not run, by its job's own policy.
    #[allow(dead_code, reason = "for the policies that skip")]
    Skipped,
}

impl Unstarted {
    fn outcome(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }

    fn kind(self) -> FailureKind {
        match self {
            Self::Cancelled => FailureKind::Cancelled,
            Self::Skipped => FailureKind::Skipped,
        }
    }
}

/// Records that these executions have ended without being started (again), each with the attempts
/// that were made, and sets free what they held: unique keys, permits, places in a rate.
///
/// The caller has taken them out of `ready` and `waiting` in the same transaction, or never put
/// them there. Whoever waited for a permit is let know by a mark in `gate`; since those are
/// locked in an order of their own before anything else, a caller that takes rows away first
/// calls [`open_gates`] before that.
pub(super) async fn end_unstarted(
    tx: &mut PhaseTx,
    executions: &[(Uuid, i32)],
    how: Unstarted,
    reason: &str,
) -> Result<(), StoreError> {
    if executions.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = executions.iter().map(|(id, _)| *id).collect();
    let error = json_text(&Failure::new(how.kind(), reason))?;
    let now = tx.now;
    match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query(postgres::INSERT_UNSTARTED)
                .bind(now)
                .bind(&ids)
                .bind(executions.iter().map(|(_, attempt)| *attempt).collect::<Vec<_>>())
                .bind(how.outcome())
                .bind(error)
                .execute(&mut **conn)
                .await?;
        }
        EngineTx::Sqlite(conn) => {
            let rows: Vec<_> =
                executions.iter().map(|(id, attempt)| (id.simple().to_string(), attempt)).collect();
            sqlx::query(sqlite::INSERT_UNSTARTED)
                .bind(now)
                .bind(json_text(&rows)?)
                .bind(how.outcome())
                .bind(error)
                .execute(&mut **conn)
                .await?;
        }
    }
    let gated = open_gates(tx, &ids).await?;
    run(tx, postgres::RELEASE_UNIQUE_KEY, sqlite::RELEASE_UNIQUE_KEYS, &ids).await?;
    if gated {
        run(tx, postgres::RELEASE_PERMITS, sqlite::RELEASE_PERMITS, &ids).await?;
        run(tx, postgres::RELEASE_RATE_USES, sqlite::RELEASE_RATE_USES, &ids).await?;
    }
    Ok(())
}

/// Marks that others may go on where one of these executions ends: of its key, and of its job.
/// False: none of them holds up anybody.
pub(super) async fn open_gates(tx: &mut PhaseTx, ids: &[Uuid]) -> Result<bool, StoreError> {
    let now = tx.now;
    let opened = match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query(postgres::OPEN_GATES).bind(now).bind(ids).execute(&mut **conn).await?.rows_affected()
        }
        EngineTx::Sqlite(conn) => sqlx::query(sqlite::OPEN_GATES)
            .bind(now)
            .bind(listed(ids)?)
            .execute(&mut **conn)
            .await?
            .rows_affected(),
    };
    Ok(opened > 0)
}

/// Runs a statement whose one parameter is these executions.
pub(super) async fn run(
    tx: &mut PhaseTx,
    on_postgres: &'static str,
    on_sqlite: &'static str,
    ids: &[Uuid],
) -> Result<(), StoreError> {
    match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query(on_postgres).bind(ids).execute(&mut **conn).await?;
        }
        EngineTx::Sqlite(conn) => {
            sqlx::query(on_sqlite).bind(listed(ids)?).execute(&mut **conn).await?;
        }
    }
    Ok(())
}

/// A list of executions for SQLite, which has no arrays, and whose JSON has no bytes.
pub(super) fn listed(ids: &[Uuid]) -> Result<String, StoreError> {
    json_text(&ids.iter().map(|id| id.simple().to_string()).collect::<Vec<_>>())
}
