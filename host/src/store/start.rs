//! START: executions are claimed, and their attempts recorded.

mod single_writer;

use std::sync::Arc;

use uuid::Uuid;

use super::connection::Store;
use super::phase::{EngineTx, PhaseName, PhaseTx};
use super::queue::QueueId;
use super::row::{from_count, load_jobs, next_without_definition, row, stored_json, stored_trigger};
use super::session::SessionId;
use super::time::Time;
use super::{StoreError, permit, postgres, rate};
use crate::execution::{Attempt, Completion, Effects, Failure, FailureKind, Outcome, Trigger};
use crate::job::{Job, Name};

/// What one START has recorded.
#[derive(Clone, Debug, Default)]
pub struct Started {
    /// The attempts, by rank.
    pub attempts: Vec<Attempt>,
    /// The lowest rank of an execution that was claimed, in microseconds.
    pub lowest_rank: Option<i64>,
    /// How many executions were claimed: more than there are attempts where this binary could not
    /// read a definition.
    pub claimed: usize,
}

/// What START is to take from a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The queue.
    pub queue: QueueId,
    /// Executions at most.
    pub limit: u32,
    /// Executions of a lower rank are not looked at. Whoever passes the lowest rank that it was
    /// given last spares the database a walk over what was deleted, and has to look at everything
    /// from time to time: an execution may be inserted below it.
    pub floor: Option<i64>,
    /// The queue has a limit over all hosts, as far as the caller knows.
    pub is_limited: bool,
}

impl Claim {
    /// So many of the default queue, whatever their ranks.
    #[must_use]
    pub fn any(limit: u32) -> Self {
        Self { queue: QueueId::DEFAULT, limit, floor: None, is_limited: false }
    }
}

impl PhaseTx {
    /// Locks the host session against the rescuer, for the STARTs of this transaction.
    ///
    /// # Errors
    /// [`StoreError::SessionLost`] where it is dead.
    pub async fn hold_session(&mut self, session: SessionId) -> Result<(), StoreError> {
        if self.lock_live_session(session).await? { Ok(()) } else { Err(StoreError::SessionLost) }
    }

    /// Claims up to `limit` executions of the default queue whose plugins the host has, by rank,
    /// and records the starts of their attempts. Executions that another host is claiming are left
    /// to it.
    ///
    /// The plugins are those that the host registered with its session. An execution whose
    /// job's definition this binary cannot read fails at once, as an attempt, so that it
    /// stands in nobody's way.
    ///
    /// # Errors
    /// [`StoreError::SessionLost`] where the host session is dead.
    pub async fn start(&mut self, session: SessionId, limit: u32) -> Result<Vec<Attempt>, StoreError> {
        self.hold_session(session).await?;
        Ok(self.start_from(session, Claim::any(limit)).await?.attempts)
    }

    /// As [`PhaseTx::start`], of any queue, in a transaction that holds the session
    /// ([`PhaseTx::hold_session`]).
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn start_from(&mut self, session: SessionId, mut claim: Claim) -> Result<Started, StoreError> {
        if claim.is_limited {
            claim.limit = claim.limit.min(permit::free_of_queue(self, claim.queue).await?);
        }
        if claim.limit == 0 {
            return Ok(Started::default());
        }
        let rows = take(self, session, claim).await?;
        let started = self.attempts_of(session, rows, claim).await?;
        if claim.is_limited {
            let executions: Vec<Uuid> = started.attempts.iter().map(|attempt| attempt.execution).collect();
            permit::grant(self, &executions, permit::Scope::Queue, claim.queue.0, "").await?;
        }
        Ok(started)
    }

    async fn attempts_of(
        &mut self,
        session: SessionId,
        rows: Vec<StartRow>,
        claim: Claim,
    ) -> Result<Started, StoreError> {
        let (lowest_rank, claimed) = (rows.iter().map(|row| row.lowest_rank).min(), rows.len());
        let jobs = load_jobs(self, rows.iter().map(|row| row.job_id)).await?;
        let mut attempts = Vec::with_capacity(rows.len());
        let (mut unreadable, mut rated) = (Vec::new(), Vec::new());
        for row in rows {
            let loaded = jobs
                .get(&row.job_id)
                .ok_or_else(|| StoreError::Corrupt(format!("execution {} is of no job", row.execution_id)))?;
            let triggered_by = stored_trigger(&row.triggered_by)?;
            let mut effects = loaded.effects(triggered_by);
            effects.permits |= claim.is_limited;
            match &loaded.job {
                Ok(job) => {
                    if let Some(rate) = job.policies.rate {
                        rated.push((row.job_id, row.execution_id, row.attempt, rate.period));
                    }
                    attempts.push(row.attempt(job.clone(), triggered_by, effects)?);
                }
                Err(error) => unreadable.push(row.unreadable(&loaded.name, error, effects)?),
            }
        }
        rate::note_starts(self, &rated).await?;
        super::completion::write_completions(self, session, &unreadable).await?;
        Ok(Started { attempts, lowest_rank, claimed })
    }
}

impl StartRow {
    fn attempt(self, job: Arc<Job>, triggered_by: Trigger, effects: Effects) -> Result<Attempt, StoreError> {
        let checkpoint = self.checkpoint.map(|state| stored_json("a checkpoint", &state)).transpose()?;
        Ok(Attempt {
            lease: self.lease,
            execution: self.execution_id,
            attempt: from_count(self.attempt)?,
            max_attempts: from_count(self.max_attempts)?,
            job,
            args: stored_json("the arguments of an execution", &self.args)?,
            triggered_by,
            scheduled_at: self.scheduled_at.0,
            started_at: self.started_at.0,
            checkpoint,
            has_unique_key: self.has_unique_key,
            effects,
            component: self.component.into(),
        })
    }

    fn unreadable(self, job: &Name, error: &StoreError, effects: Effects) -> Result<Completion, StoreError> {
        let (attempt, max_attempts) = (from_count(self.attempt)?, from_count(self.max_attempts)?);
        Ok(Completion {
            lease: self.lease,
            execution: self.execution_id,
            job: job.clone(),
            attempt,
            outcome: Outcome::Failed(Failure::new(FailureKind::Host, error.to_string())),
            next: next_without_definition(attempt, max_attempts),
            has_unique_key: self.has_unique_key,
            effects,
            usage: None,
        })
    }
}

impl Store {
    /// START as a whole: begin, [`PhaseTx::start`], commit.
    ///
    /// # Errors
    /// As [`PhaseTx::start`]. Where it is not known whether the commit took place, attempts may
    /// be open that this host does not know of: [`Store::release_unknown`] gives them back.
    pub async fn claim(&self, session: SessionId, limit: u32) -> Result<Vec<Attempt>, StoreError> {
        Ok(self.claim_from(session, Claim::any(limit)).await?.attempts)
    }

    /// As [`Store::claim`], of any queue; see [`PhaseTx::start_from`].
    ///
    /// # Errors
    /// As [`Store::claim`].
    pub async fn claim_from(&self, session: SessionId, claim: Claim) -> Result<Started, StoreError> {
        let mut phase = self.begin(PhaseName::Start).await?;
        phase.tx().hold_session(session).await?;
        let started = phase.tx().start_from(session, claim).await?;
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
        component: String,
    }
}

async fn take(tx: &mut PhaseTx, session: SessionId, claim: Claim) -> Result<Vec<StartRow>, StoreError> {
    let now = tx.now;
    match &mut tx.engine {
        EngineTx::Postgres(conn) => Ok(sqlx::query_as(postgres::CLAIM)
            .bind(now)
            .bind(session.0)
            .bind(i64::from(claim.limit))
            .bind(claim.floor.unwrap_or(i64::MIN))
            .bind(claim.queue.0)
            .fetch_all(&mut **conn)
            .await?),
        EngineTx::Sqlite(conn) => single_writer::claim(conn, now, session, claim).await,
    }
}
