//! Gates: marks that executions of a job may have become free to go on, set by whatever frees them
//! and taken by whoever looks. So nobody walks over what waits, and a million executions behind a
//! limit cost nothing until a permit is free.

use super::phase::{EngineTx, PhaseTx};
use super::row::{json_text, row};
use super::time::Time;
use super::{StoreError, postgres, sqlite};

/// What an execution waits for, in the order in which it passes.
///
/// That is also the order in which the rows of `gate` are locked, by everybody: two transactions
/// that mark the same jobs would otherwise wait for each other in a circle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// The jobs that its job comes after.
    After = 0,
    /// The limit of its key.
    Key = 1,
    /// The limits of its job as a whole.
    Job = 2,
}

/// A mark to look at what waits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Gate {
    pub(super) stage: Stage,
    pub(super) job: i32,
    /// Empty but for [`Stage::Key`].
    pub(super) key: String,
}

impl Gate {
    /// Executions of the job, of the key where it is limited by one, may get a permit.
    pub(super) fn of_limit(job: i32, key: Option<&str>) -> Self {
        let stage = if key.is_some() { Stage::Key } else { Stage::Job };
        Self { stage, job, key: key.unwrap_or_default().to_owned() }
    }

    /// A job has ended that this one comes after.
    pub(super) fn of_after(job: i32) -> Self {
        Self { stage: Stage::After, job, key: String::new() }
    }
}

/// Marks that somebody has to look, now or at a later time.
pub(super) async fn open_gates(
    tx: &mut PhaseTx,
    mut gates: Vec<Gate>,
    at: Option<Time>,
) -> Result<(), StoreError> {
    if gates.is_empty() {
        return Ok(());
    }
    gates.sort_unstable();
    gates.dedup();
    let now = tx.now;
    match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query(postgres::OPEN_GATES)
                .bind(now)
                .bind(gates.iter().map(|gate| gate.stage as i16).collect::<Vec<_>>())
                .bind(gates.iter().map(|gate| gate.job).collect::<Vec<_>>())
                .bind(gates.iter().map(|gate| gate.key.as_str()).collect::<Vec<_>>())
                .bind(at)
                .execute(&mut **conn)
                .await?;
        }
        EngineTx::Sqlite(conn) => {
            let list: Vec<_> =
                gates.iter().map(|gate| (gate.stage as i16, gate.job, gate.key.as_str())).collect();
            sqlx::query(sqlite::OPEN_GATES)
                .bind(now)
                .bind(json_text(&list)?)
                .bind(at)
                .execute(&mut **conn)
                .await?;
        }
    }
    Ok(())
}

row! {
    struct GateRow {
        job_id: i32,
        key: String,
    }
}

/// Takes marks that are due, `limit` at most, in the order of [`Gate`]. Nobody else looks at the same
/// until this transaction has ended; what another one has taken is left to it.
pub(super) async fn take_gates(tx: &mut PhaseTx, stage: Stage, limit: u32) -> Result<Vec<Gate>, StoreError> {
    let (now, limit) = (tx.now, i64::from(limit));
    let rows: Vec<GateRow> = super::row::on_engine!(tx, sql, conn => {
        sqlx::query_as(sql::TAKE_GATES).bind(now).bind(limit).bind(stage as i16).fetch_all(conn).await?
    });
    let mut gates: Vec<Gate> =
        rows.into_iter().map(|row| Gate { stage, job: row.job_id, key: row.key }).collect();
    gates.sort_unstable();
    Ok(gates)
}
