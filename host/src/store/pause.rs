//! A job is paused: it fires nothing and nothing of it starts. It is resumed from now on.
//!
//! What waits to start moves out of `ready`, so that a START does not walk over it, and back when
//! the job is resumed, with its old place in line. A START takes nothing of a paused job besides:
//! so it does not matter whether what others were just about to put into `ready` is found.

use std::collections::HashSet;

use jiff::Timestamp;

use super::connection::Store;
use super::phase::{EngineTx, PhaseName, PhaseTx};
use super::place::JobFacts;
use super::reopen::open_gates_of_jobs;
use super::row::{JobRow, json_text, on_engine, row, storable};
use super::skip::{SkippedFires, record_skips};
use super::sync::unfinished_fires;
use super::time::Time;
use super::{StoreError, postgres, sqlite};
use crate::catch_up::{self, Skips};
use crate::job::{Job, Name};

/// What [`Store::resume_job`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// Since when it had been paused. None: it was not, and nothing changed.
    pub paused_at: Option<Timestamp>,
    /// How many records were made of fires that were due meanwhile. They are not run.
    pub skipped: usize,
    /// When it fires next. None: it has no schedule or is disabled, has fired for the last time, or
    /// counts from the end of an execution that is under way.
    pub next_fire_at: Option<Timestamp>,
}

/// Executions that one transaction moves.
const BATCH: u64 = 20_000;

impl Store {
    /// Pauses a job: from now on it fires nothing, and nothing of it starts, retries included. What
    /// runs goes on. Executions that are asked for meanwhile wait.
    ///
    /// False: it was paused already. Then its reason is replaced where one is given, and nothing
    /// else changes.
    ///
    /// # Errors
    /// [`StoreError::UnknownJob`] where there is no such job, [`StoreError::Invalid`] where it is
    /// retired.
    pub async fn pause_job(&self, name: &Name, reason: Option<&str>) -> Result<bool, StoreError> {
        let mut is_new = false;
        let mut phase = self.begin(PhaseName::Jobs).await?;
        let row = job_to_change(phase.tx(), name).await?;
        row.check_not_retired("pause")?;
        is_new |= row.paused_at.is_none();
        let tx = phase.tx();
        let now = tx.now;
        on_engine!(tx, sql, conn => {
            sqlx::query(sql::PAUSE_JOB).bind(now).bind(row.id).bind(reason.map(storable)).execute(conn).await?;
        });
        let mut moved = set_aside(tx, row.id).await?;
        phase.commit().await?;
        while moved >= BATCH {
            let mut phase = self.begin(PhaseName::Jobs).await?;
            // Somebody may have resumed it meanwhile.
            if job_to_change(phase.tx(), name).await?.paused_at.is_none() {
                break;
            }
            moved = set_aside(phase.tx(), row.id).await?;
            phase.commit().await?;
        }
        Ok(is_new)
    }

    /// Resumes a job: its schedule fires from now on, and what waits goes on. Fires that were due
    /// while it was paused are recorded as skipped, and not run. A job that is not paused stays as
    /// it is.
    ///
    /// # Errors
    /// [`StoreError::UnknownJob`] where there is no such job, [`StoreError::Invalid`] where it is
    /// retired.
    pub async fn resume_job(&self, name: &Name) -> Result<Resumed, StoreError> {
        let (id, resumed) = loop {
            let mut phase = self.begin(PhaseName::Jobs).await?;
            let tx = phase.tx();
            let row = job_to_change(tx, name).await?;
            row.check_not_retired("resume")?;
            let Some(paused_at) = row.paused_at else {
                let next_fire_at = row.fire_at.map(|at| at.0);
                break (row.id, Resumed { paused_at: None, skipped: 0, next_fire_at });
            };
            // It stays paused until all is back in place: nobody starts what is moved before.
            if bring_back(tx, &row).await? >= BATCH {
                phase.commit().await?;
                continue;
            }
            let resumed = resume(tx, self, &row, paused_at.0).await?;
            phase.commit().await?;
            break (row.id, resumed);
        };
        // Not in the same transaction: others lock gates before jobs.
        open_gates_of_jobs(self, &[id]).await?;
        Ok(resumed)
    }
}

row! {
    /// A job that is paused, resumed or run for times that have passed, locked.
    struct JobToChange {
        id: i32,
        name: String,
        spec: String,
        queue_id: i32,
        priority: i32,
        gated: bool,
        /// When it fires next, or would if it were not paused.
        fire_at: Option<Time>,
        paused_at: Option<Time>,
        paused_reason: Option<String>,
        retired_at: Option<Time>,
        now: Time,
    }
}

impl JobToChange {
    pub(super) fn check_not_retired(&self, what: &str) -> Result<(), StoreError> {
        let Some(retired_at) = self.retired_at else { return Ok(()) };
        Err(StoreError::Invalid(format!(
            "there is nothing to {what}: the job `{}` was retired at {}, since no configuration names it any \
             more, and neither fires nor runs. Name it in a host's configuration again and restart that host",
            self.name, retired_at.0
        )))
    }

    pub(super) fn job(&self) -> Result<Job, StoreError> {
        JobRow { id: self.id, name: self.name.clone(), spec: self.spec.clone() }.job()
    }

    pub(super) fn facts(&self) -> JobFacts {
        let Self { id, queue_id, priority, gated, .. } = *self;
        JobFacts { id, queue_id, priority, gated, paused: self.paused_at.is_some() }
    }
}

/// The job of this name, locked until the end of the transaction.
pub(super) async fn job_to_change(tx: &mut PhaseTx, name: &Name) -> Result<JobToChange, StoreError> {
    let now = tx.now;
    let row: Option<JobToChange> = on_engine!(tx, sql, conn => {
        sqlx::query_as(sql::JOB_TO_CHANGE).bind(now).bind(name.as_str()).fetch_optional(conn).await?
    });
    match row {
        Some(row) => Ok(row),
        // On this connection: a command has no other one.
        None => Err(StoreError::UnknownJob {
            name: name.clone(),
            known: on_engine!(tx, sql, conn => sqlx::query_scalar(sql::JOB_NAMES).fetch_all(conn).await?),
        }),
    }
}

/// Of these jobs, those that are paused. Whoever puts an execution of one to wait for that asks here
/// in the same transaction: resuming waits for it, and finds what was put.
pub(super) async fn paused_jobs(tx: &mut PhaseTx, ids: &[i32]) -> Result<HashSet<i32>, StoreError> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let paused: Vec<i32> = match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query_scalar(postgres::PAUSED_JOBS).bind(ids).fetch_all(&mut **conn).await?
        }
        EngineTx::Sqlite(conn) => {
            sqlx::query_scalar(sqlite::PAUSED_JOBS).bind(json_text(&ids)?).fetch_all(&mut **conn).await?
        }
    };
    Ok(paused.into_iter().collect())
}

/// Moves what may start, or awaits a permit, to where it waits for the job to be resumed. It gives
/// up its permit. What waits for other jobs stays: it would not be known any more that it does.
async fn set_aside(tx: &mut PhaseTx, job: i32) -> Result<u64, StoreError> {
    let limit = i64::try_from(BATCH).unwrap_or(i64::MAX);
    Ok(match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            let mut moved = 0;
            for statement in [postgres::PAUSE_READY, postgres::PAUSE_BLOCKED] {
                let query = sqlx::query(statement).bind(job).bind(limit);
                moved = moved.max(query.execute(&mut **conn).await?.rows_affected());
            }
            moved
        }
        EngineTx::Sqlite(conn) => {
            let mut moved = 0;
            let statements = [
                sqlite::PAUSE_READY,
                sqlite::FREE_READY_PERMITS,
                sqlite::FREE_READY_RATE_USES,
                sqlite::FORGET_PAUSED_READY,
                sqlite::PAUSE_BLOCKED,
            ];
            for statement in statements {
                let query = sqlx::query(statement).bind(job).bind(limit);
                moved = moved.max(query.execute(&mut **conn).await?.rows_affected());
            }
            moved
        }
    })
}

/// The way back: among those that may start, or those that await a permit.
async fn bring_back(tx: &mut PhaseTx, row: &JobToChange) -> Result<u64, StoreError> {
    let limit = i64::try_from(BATCH).unwrap_or(i64::MAX);
    Ok(match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            let statement = if row.gated { postgres::RESUME_BLOCKED } else { postgres::RESUME_READY };
            sqlx::query(statement).bind(row.id).bind(limit).execute(&mut **conn).await?.rows_affected()
        }
        EngineTx::Sqlite(conn) => {
            let statements: &[&str] = if row.gated {
                &[sqlite::RESUME_BLOCKED]
            } else {
                &[sqlite::RESUME_READY, sqlite::FORGET_PAUSED]
            };
            let mut moved = 0;
            for statement in statements {
                let query = sqlx::query(*statement).bind(row.id).bind(limit);
                moved = query.execute(&mut **conn).await?.rows_affected();
            }
            moved
        }
    })
}

async fn resume(
    tx: &mut PhaseTx,
    store: &Store,
    row: &JobToChange,
    paused_at: Timestamp,
) -> Result<Resumed, StoreError> {
    let job = row.job()?;
    let (now, mut skipped, mut next) = (row.now, 0, None);
    if let Some(schedule) = job.schedule.as_ref().filter(|_| job.enabled) {
        if let Some(first) = row.fire_at {
            let fires = catch_up::skip_all(schedule, first.0, now.0, catch_up::ONE_BY_ONE);
            skipped = record(tx, store, row, &job, fires, paused_at).await?;
        }
        let goes_on = schedule.every_after().is_some()
            && row.fire_at.is_none()
            && !unfinished_fires(tx, &[row.id]).await?.is_empty();
        // What is later than it can be was planned while the clock was wrong.
        let anew = schedule.next_after(now.0).map(Time);
        let still_due = row.fire_at.filter(|at| *at > now);
        next = if goes_on {
            None
        } else {
            still_due.map_or(anew, |due| Some(anew.map_or(due, |anew| due.min(anew))))
        };
    }
    on_engine!(tx, sql, conn => {
        sqlx::query(sql::RESUME_JOB).bind(row.id).bind(next).execute(conn).await?;
    });
    Ok(Resumed { paused_at: Some(paused_at), skipped, next_fire_at: next.map(|next| next.0) })
}

async fn record(
    tx: &mut PhaseTx,
    store: &Store,
    row: &JobToChange,
    job: &Job,
    fires: Skips,
    paused_at: Timestamp,
) -> Result<usize, StoreError> {
    let why = row.paused_reason.as_ref().map_or(String::new(), |why| format!(": {why}"));
    let reason = format!("the job was paused from {paused_at} to {}{why}", row.now.0);
    let skipped = SkippedFires { facts: row.facts(), job: job.clone(), fires, reason };
    if skipped.fires.is_empty() {
        return Ok(0);
    }
    record_skips(tx, store, row.now, &[skipped]).await
}
