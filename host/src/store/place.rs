//! New executions are inserted, and put where they belong: among those that may start, or among
//! those that wait, with what they wait for.

use std::collections::HashSet;

use uuid::Uuid;

use super::gate::{Gate, open_gates};
use super::phase::{EngineTx, PhaseTx};
use super::row::json_text;
use super::time::Time;
use super::{StoreError, postgres, sqlite};
use crate::execution::Trigger;
use crate::job::Job;
use crate::policy::PRIORITY_STEP;

/// What the store knows of a job besides its definition.
#[derive(Clone, Copy, Debug)]
pub(super) struct JobFacts {
    pub(super) id: i32,
    pub(super) queue_id: i32,
    pub(super) priority: i32,
    /// Its executions need a permit.
    pub(super) gated: bool,
    pub(super) paused: bool,
}

/// A row of `execution` to be.
#[derive(Clone, Debug)]
pub(super) struct NewRow {
    pub(super) id: Uuid,
    pub(super) job: JobFacts,
    /// JSON.
    pub(super) args: String,
    pub(super) triggered_by: Trigger,
    pub(super) scheduled_at: Time,
    /// For fires of a schedule only.
    pub(super) fire_time: Option<Time>,
    pub(super) max_attempts: i32,
    pub(super) unique_key: Option<String>,
    pub(super) limit_key: Option<String>,
    pub(super) retry_of: Option<Uuid>,
}

/// Why an execution may not start yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// It may.
    None,
    /// It is not due before.
    Until(Time),
    /// Its job is paused.
    Paused,
    /// Its job comes after others.
    After,
    /// It needs a permit.
    Permit,
}

/// Where an execution goes.
#[derive(Clone, Debug)]
pub(super) struct Placement {
    pub(super) execution: Uuid,
    pub(super) job: JobFacts,
    /// The time that decides its place in line.
    pub(super) due: Time,
    /// Attempts that were made.
    pub(super) attempt: i32,
    pub(super) limit_key: Option<String>,
    pub(super) hold: Hold,
}

/// What an execution of the job with these arguments is limited by.
pub(super) fn limit_key(job: &Job, args: &serde_json::Value) -> Option<String> {
    let by = job.policies.concurrency.as_ref()?.per_key.as_ref()?;
    // PostgreSQL has no text with a NUL character in it; JSON writes one as an escape.
    Some(by.key(args))
}

/// Where an execution stands in line: the time that it is due, earlier for a higher priority. So
/// that nothing starves, that is fixed: what waits gets ahead of what comes later by itself.
pub(super) fn rank(due: jiff::Timestamp, priority: i32) -> i64 {
    let step = i64::try_from(PRIORITY_STEP.as_micros()).unwrap_or(i64::MAX);
    due.as_microsecond().saturating_sub(i64::from(priority).saturating_mul(step))
}

/// Inserts executions. Returns those that are new: a fire time that has one already keeps it.
pub(super) async fn insert_executions(
    tx: &mut PhaseTx,
    rows: &[NewRow],
) -> Result<HashSet<Uuid>, StoreError> {
    if rows.is_empty() {
        return Ok(HashSet::new());
    }
    let now = tx.now;
    match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            let column = |get: fn(&NewRow) -> i32| rows.iter().map(get).collect::<Vec<_>>();
            let new: Vec<Uuid> = sqlx::query_scalar(postgres::INSERT_EXECUTIONS)
                .bind(now)
                .bind(rows.iter().map(|row| row.id).collect::<Vec<_>>())
                .bind(column(|row| row.job.id))
                .bind(column(|row| row.job.queue_id))
                .bind(rows.iter().map(|row| row.args.as_str()).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.triggered_by.as_str()).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.scheduled_at).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.fire_time).collect::<Vec<_>>())
                .bind(column(|row| row.job.priority))
                .bind(column(|row| row.max_attempts))
                .bind(rows.iter().map(|row| row.unique_key.as_deref()).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.limit_key.as_deref()).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.retry_of).collect::<Vec<_>>())
                .fetch_all(&mut **conn)
                .await?;
            Ok(new.into_iter().collect())
        }
        EngineTx::Sqlite(conn) => {
            let before: i64 = sqlx::query_scalar(sqlite::LAST_EXECUTION).fetch_one(&mut **conn).await?;
            sqlx::query(sqlite::INSERT_EXECUTIONS)
                .bind(now)
                .bind(execution_list(rows)?)
                .execute(&mut **conn)
                .await?;
            let new: String =
                sqlx::query_scalar(sqlite::EXECUTIONS_AFTER).bind(before).fetch_one(&mut **conn).await?;
            let corrupt = |error: &dyn std::fmt::Display| {
                StoreError::Corrupt(format!("the ids of executions: {error}"))
            };
            let new: Vec<String> = serde_json::from_str(&new).map_err(|error| corrupt(&error))?;
            new.iter().map(|id| Uuid::try_parse(id).map_err(|error| corrupt(&error))).collect()
        }
    }
}

/// As `INSERT_EXECUTIONS` of SQLite reads it.
fn execution_list(rows: &[NewRow]) -> Result<String, StoreError> {
    let list: Vec<_> = rows
        .iter()
        .map(|row| {
            serde_json::json!([
                row.id.simple().to_string(),
                row.job.id,
                row.job.queue_id,
                row.args,
                row.triggered_by.as_str(),
                row.scheduled_at.micros(),
                row.fire_time.map(Time::micros),
                row.job.priority,
                row.max_attempts,
                row.unique_key,
                row.limit_key,
                row.retry_of.map(|id| id.simple().to_string()),
            ])
        })
        .collect();
    json_text(&list)
}

/// Puts executions where they belong. They are in neither of the two places yet.
pub(super) async fn place(tx: &mut PhaseTx, placements: &[Placement]) -> Result<(), StoreError> {
    let gates = place_and_mark(tx, placements).await?;
    open_gates(tx, gates, None).await
}

/// As [`place`], for a transaction that marks more than this: returns what it has to mark.
pub(super) async fn place_and_mark(
    tx: &mut PhaseTx,
    placements: &[Placement],
) -> Result<Vec<Gate>, StoreError> {
    let (ready, waiting): (Vec<_>, Vec<_>) =
        placements.iter().partition(|placement| placement.hold == Hold::None);
    insert_ready(tx, &ready.into_iter().map(Placement::ready).collect::<Vec<_>>()).await?;
    insert_waiting(tx, &waiting).await?;
    Ok(waiting.iter().filter_map(|placement| placement.gate()).collect())
}

impl Placement {
    fn rank(&self) -> i64 {
        rank(self.due.0, self.job.priority)
    }

    fn ready(&self) -> ReadyRow {
        ReadyRow {
            queue_id: self.job.queue_id,
            rank: self.rank(),
            execution: self.execution,
            job: self.job.id,
            attempt: self.attempt,
        }
    }

    fn key(&self) -> &str {
        self.limit_key.as_deref().unwrap_or_default()
    }

    fn due_at(&self) -> Option<Time> {
        match self.hold {
            Hold::Until(due) => Some(due),
            _ => None,
        }
    }

    fn blocker(&self) -> &'static str {
        match self.hold {
            Hold::None | Hold::Until(_) => "due",
            Hold::Paused => "paused",
            Hold::After => "after",
            Hold::Permit if self.limit_key.is_some() => "key",
            Hold::Permit => "limit",
        }
    }

    /// Where somebody has to look whether it may go on.
    fn gate(&self) -> Option<Gate> {
        match self.hold {
            Hold::Permit => Some(Gate::of_limit(self.job.id, self.limit_key.as_deref())),
            Hold::After => Some(Gate::of_after(self.job.id)),
            Hold::None | Hold::Until(_) | Hold::Paused => None,
        }
    }
}

/// A row of `ready` to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadyRow {
    pub(super) queue_id: i32,
    pub(super) rank: i64,
    pub(super) execution: Uuid,
    pub(super) job: i32,
    /// Attempts that were made.
    pub(super) attempt: i32,
}

pub(super) async fn insert_ready(tx: &mut PhaseTx, rows: &[ReadyRow]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query(postgres::INSERT_READY)
                .bind(rows.iter().map(|row| row.queue_id).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.rank).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.execution).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.job).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.attempt).collect::<Vec<_>>())
                .execute(&mut **conn)
                .await?;
        }
        EngineTx::Sqlite(conn) => {
            let list: Vec<_> = rows
                .iter()
                .map(|row| (row.queue_id, row.rank, row.execution.simple().to_string(), row.job, row.attempt))
                .collect();
            sqlx::query(sqlite::INSERT_READY).bind(json_text(&list)?).execute(&mut **conn).await?;
        }
    }
    Ok(())
}

async fn insert_waiting(tx: &mut PhaseTx, placements: &[&Placement]) -> Result<(), StoreError> {
    if placements.is_empty() {
        return Ok(());
    }
    match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query(postgres::INSERT_WAITING)
                .bind(placements.iter().map(|placed| placed.execution).collect::<Vec<_>>())
                .bind(placements.iter().map(|placed| placed.job.id).collect::<Vec<_>>())
                .bind(placements.iter().map(|placed| placed.attempt).collect::<Vec<_>>())
                .bind(placements.iter().map(|placed| placed.due_at()).collect::<Vec<_>>())
                .bind(placements.iter().map(|placed| placed.blocker()).collect::<Vec<_>>())
                .bind(placements.iter().map(|placed| placed.key()).collect::<Vec<_>>())
                .bind(placements.iter().map(|placed| placed.rank()).collect::<Vec<_>>())
                .execute(&mut **conn)
                .await?;
        }
        EngineTx::Sqlite(conn) => {
            let list: Vec<_> = placements
                .iter()
                .map(|p| {
                    let due_at = p.due_at().map(Time::micros);
                    let execution = p.execution.simple().to_string();
                    (execution, p.job.id, p.attempt, due_at, p.blocker(), p.key(), p.rank())
                })
                .collect();
            sqlx::query(sqlite::INSERT_WAITING).bind(json_text(&list)?).execute(&mut **conn).await?;
        }
    }
    Ok(())
}
