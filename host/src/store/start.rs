//! START: executions are claimed, and their attempts recorded.

use uuid::Uuid;

use super::connection::Store;
use super::phase::{EngineTx, PhaseName, PhaseTx};
use super::row::{from_count, load_jobs, next_without_definition, row, stored_json, stored_trigger};
use super::session::SessionId;
use super::time::Time;
use super::{StoreError, postgres, sqlite};
use crate::execution::{Attempt, Completion, Failure, FailureKind, Outcome};

impl PhaseTx {
    /// Claims up to `limit` executions whose plugins the host has, by rank, and records the
    /// starts of their attempts. Executions that another host is claiming are left to it.
    ///
    /// The plugins are those that the host registered with its session. An execution whose
    /// job's definition this binary cannot read fails at once, as an attempt, so that it
    /// stands in nobody's way.
    ///
    /// # Errors
    /// [`StoreError::SessionLost`] where the host session is dead.
    pub async fn start(&mut self, session: SessionId, limit: u32) -> Result<Vec<Attempt>, StoreError> {
        if !self.lock_live_session(session).await? {
            return Err(StoreError::SessionLost);
        }
        let rows = claim(self, session, limit).await?;
        let jobs = load_jobs(self, rows.iter().map(|row| row.job_id)).await?;
        let mut attempts = Vec::with_capacity(rows.len());
        let mut unreadable = Vec::new();
        for row in rows {
            let (attempt, max_attempts) = (from_count(row.attempt)?, from_count(row.max_attempts)?);
            let (name, job) = jobs
                .get(&row.job_id)
                .ok_or_else(|| StoreError::Corrupt(format!("execution {} is of no job", row.execution_id)))?;
            match job {
                Ok(job) => attempts.push(Attempt {
                    lease: row.lease,
                    execution: row.execution_id,
                    attempt,
                    max_attempts,
                    job: job.clone(),
                    args: stored_json("the arguments of an execution", &row.args)?,
                    triggered_by: stored_trigger(&row.triggered_by)?,
                    scheduled_at: row.scheduled_at.0,
                    started_at: row.started_at.0,
                    checkpoint: row
                        .checkpoint
                        .map(|state| stored_json("a checkpoint", &state))
                        .transpose()?,
                    has_unique_key: row.has_unique_key,
                }),
                Err(error) => unreadable.push(Completion {
                    lease: row.lease,
                    execution: row.execution_id,
                    job: name.clone(),
                    attempt,
                    outcome: Outcome::Failed(Failure::new(FailureKind::Host, error.to_string())),
                    next: next_without_definition(attempt, max_attempts),
                    has_unique_key: row.has_unique_key,
                }),
            }
        }
        super::completion::write_completions(self, session, &unreadable).await?;
        Ok(attempts)
    }
}

impl Store {
    /// START as a whole: begin, [`PhaseTx::start`], commit.
    ///
    /// # Errors
    /// As [`PhaseTx::start`]. Where it is not known whether the commit took place, attempts may
    /// be open that this host does not know of: [`Store::release_unknown`] gives them back.
    pub async fn claim(&self, session: SessionId, limit: u32) -> Result<Vec<Attempt>, StoreError> {
        let mut phase = self.begin(PhaseName::Start).await?;
        let attempts = phase.tx().start(session, limit).await?;
        phase.commit().await?;
        Ok(attempts)
    }
}

row! {
    struct StartRow {
        lease: i64,
        execution_id: Uuid,
        attempt: i32,
        started_at: Time,
        job_id: i32,
        args: String,
        triggered_by: String,
        scheduled_at: Time,
        max_attempts: i32,
        has_unique_key: bool,
        checkpoint: Option<String>,
    }
}

row! {
    /// What SQLite may claim: START is one statement on PostgreSQL only.
    struct ReadyRow {
        rank: i64,
        execution_id: Uuid,
        attempt: i32,
        component_id: i32,
        job_id: i32,
        args: String,
        triggered_by: String,
        scheduled_at: Time,
        max_attempts: i32,
        has_unique_key: bool,
        checkpoint: Option<String>,
    }
}

async fn claim(tx: &mut PhaseTx, session: SessionId, limit: u32) -> Result<Vec<StartRow>, StoreError> {
    let now = tx.now;
    let conn = match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            return Ok(sqlx::query_as(postgres::CLAIM)
                .bind(now)
                .bind(session.0)
                .bind(i64::from(limit))
                .fetch_all(&mut **conn)
                .await?);
        }
        EngineTx::Sqlite(conn) => conn,
    };
    let claimed: Vec<ReadyRow> =
        sqlx::query_as(sqlite::CLAIM).bind(session.0).bind(i64::from(limit)).fetch_all(&mut **conn).await?;
    let started_at = now.unwrap_or(Time(crate::clock::now()));
    let mut rows = Vec::with_capacity(claimed.len());
    for ready in claimed {
        sqlx::query(sqlite::TAKE_READY)
            .bind(ready.rank)
            .bind(ready.execution_id)
            .execute(&mut **conn)
            .await?;
        let lease = sqlx::query_scalar(sqlite::INSERT_START)
            .bind(started_at)
            .bind(ready.execution_id)
            .bind(ready.attempt + 1)
            .bind(session.0)
            .bind(ready.component_id)
            .fetch_one(&mut **conn)
            .await?;
        rows.push(StartRow {
            lease,
            execution_id: ready.execution_id,
            attempt: ready.attempt + 1,
            started_at,
            job_id: ready.job_id,
            args: ready.args,
            triggered_by: ready.triggered_by,
            scheduled_at: ready.scheduled_at,
            max_attempts: ready.max_attempts,
            has_unique_key: ready.has_unique_key,
            checkpoint: ready.checkpoint,
        });
    }
    Ok(rows)
}
