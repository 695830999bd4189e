//! Executions end that are never started: cancelled before their turn, or skipped by a policy.

use uuid::Uuid;

use super::gate::Gate;
use super::phase::{EngineTx, PhaseTx};
use super::row::{hex_list, json_text};
use super::{StoreError, effects, permit, postgres, rate, sqlite};
use crate::execution::{Failure, FailureKind};

/// How an execution ends that is never started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unstarted {
    /// An operator, or an execution that replaces it, ended it.
    Cancelled,
    /// It is not run, by its job's own policy.
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
/// that were made, and sets free what they held: unique keys, permits, places in a rate. Returns
/// where somebody has to look who may go on instead, for [`super::gate::open_gates`].
///
/// The caller has taken them out of `ready` and `waiting` in the same transaction, or never put
/// them there.
pub(super) async fn end_unstarted(
    tx: &mut PhaseTx,
    executions: &[(Uuid, i32)],
    how: Unstarted,
    reason: &str,
) -> Result<Vec<Gate>, StoreError> {
    if executions.is_empty() {
        return Ok(Vec::new());
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
    run(tx, postgres::RELEASE_UNIQUE_KEY, sqlite::RELEASE_UNIQUE_KEYS, &ids).await?;
    let mut gates = permit::release(tx, &ids).await?;
    gates.extend(rate::give_back(tx, &ids).await?);
    // A schedule that counts from the end of its last execution counts from this one.
    let fires: Vec<Uuid> = match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query_scalar(postgres::FIRES_AMONG).bind(&ids).fetch_all(&mut **conn).await?
        }
        EngineTx::Sqlite(conn) => {
            sqlx::query_scalar(sqlite::FIRES_AMONG).bind(hex_list(&ids)?).fetch_all(&mut **conn).await?
        }
    };
    effects::pace(tx, &fires).await?;
    Ok(gates)
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
            sqlx::query(on_sqlite).bind(hex_list(ids)?).execute(&mut **conn).await?;
        }
    }
    Ok(())
}
