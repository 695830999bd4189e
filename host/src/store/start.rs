//! START: executions are claimed, and their attempts recorded.

mod single_writer;

use uuid::Uuid;

use super::connection::Store;
use super::phase::{EngineTx, PhaseName, PhaseTx};
use super::row::{from_count, load_jobs, next_without_definition, row, stored_json, stored_trigger};
use super::session::SessionId;
use super::time::Time;
use super::{StoreError, postgres};
use crate::execution::{Attempt, Completion, Effects, Failure, FailureKind, Outcome};

/// What one START has recorded.
#[derive(Clone, Debug, Default)]
pub struct Started {
    /// The attempts, by rank.
    pub attempts: Vec<Attempt>,
    /// The lowest rank of an execution that was claimed, in microseconds.
    pub lowest_rank: Option<i64>,
}

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
        Ok(self.start_from(session, limit, None).await?.attempts)
    }

    /// As [`PhaseTx::start`].
    ///
    /// `floor`: executions of a lower rank are not looked at. Whoever passes the lowest rank that
    /// it was given last spares the database a walk over what was deleted, and has to look at
    /// everything from time to time: an execution may be inserted below it.
    ///
    /// # Errors
    /// As [`PhaseTx::start`].
    pub async fn start_from(
        &mut self,
        session: SessionId,
        limit: u32,
        floor: Option<i64>,
    ) -> Result<Started, StoreError> {
        if !self.lock_live_session(session).await? {
            return Err(StoreError::SessionLost);
        }
        let rows = claim(self, session, limit, floor.unwrap_or(i64::MIN)).await?;
        let lowest_rank = rows.iter().map(|row| row.lowest_rank).min();
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
                    effects: Effects::default(),
                }),
                Err(error) => unreadable.push(Completion {
                    lease: row.lease,
                    execution: row.execution_id,
                    job: name.clone(),
                    attempt,
                    outcome: Outcome::Failed(Failure::new(FailureKind::Host, error.to_string())),
                    next: next_without_definition(attempt, max_attempts),
                    has_unique_key: row.has_unique_key,
                    effects: Effects::default(),
                }),
            }
        }
        super::completion::write_completions(self, session, &unreadable).await?;
        Ok(Started { attempts, lowest_rank })
    }
}

impl Store {
    /// START as a whole: begin, [`PhaseTx::start`], commit.
    ///
    /// # Errors
    /// As [`PhaseTx::start`]. Where it is not known whether the commit took place, attempts may
    /// be open that this host does not know of: [`Store::release_unknown`] gives them back.
    pub async fn claim(&self, session: SessionId, limit: u32) -> Result<Vec<Attempt>, StoreError> {
        Ok(self.claim_from(session, limit, None).await?.attempts)
    }

    /// As [`Store::claim`], of executions with at least this rank; see [`PhaseTx::start_from`].
    ///
    /// # Errors
    /// As [`Store::claim`].
    pub async fn claim_from(
        &self,
        session: SessionId,
        limit: u32,
        floor: Option<i64>,
    ) -> Result<Started, StoreError> {
        let mut phase = self.begin(PhaseName::Start).await?;
        let started = phase.tx().start_from(session, limit, floor).await?;
        phase.commit().await?;
        Ok(started)
    }
}

row! {
    struct StartRow {
        lease: i64,
        execution_id: Uuid,
        attempt: i32,
        started_at: Time,
        lowest_rank: i64,
        job_id: i32,
        args: String,
        triggered_by: String,
        scheduled_at: Time,
        max_attempts: i32,
        has_unique_key: bool,
        checkpoint: Option<String>,
    }
}

async fn claim(
    tx: &mut PhaseTx,
    session: SessionId,
    limit: u32,
    floor: i64,
) -> Result<Vec<StartRow>, StoreError> {
    let now = tx.now;
    match &mut tx.engine {
        EngineTx::Postgres(conn) => Ok(sqlx::query_as(postgres::CLAIM)
            .bind(now)
            .bind(session.0)
            .bind(i64::from(limit))
            .bind(floor)
            .fetch_all(&mut **conn)
            .await?),
        EngineTx::Sqlite(conn) => single_writer::claim(conn, now, session, limit, floor).await,
    }
}
