//! START: executions are claimed, and their attempts recorded.

mod single_writer;

use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row as _};
use uuid::Uuid;

use super::connection::Store;
use super::phase::{EngineTx, PhaseName, PhaseTx};
use super::queue::QueueId;
use super::row::{
    from_count, load_jobs_of, next_without_definition, row, stored_json, stored_trigger, to_count,
};
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
    /// read a definition, or one was changed at that moment.
    pub claimed: usize,
    /// How many were candidates: more than were claimed where that would have been too many of a
    /// plugin.
    pub found: usize,
    /// Nothing more is there for which there is room: the queue was looked at to its end.
    pub to_the_end: bool,
    /// The highest rank of a candidate, where plugins have limits: up to there everything that they
    /// leave room for was looked at.
    pub highest_rank: Option<i64>,
}

/// What START is to take from a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
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
    /// The plugins that have a limit on this host. Where there is none, it costs nothing.
    pub rooms: &'a [PluginRoom],
}

/// How many more executions of a plugin may run on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginRoom {
    /// The plugin.
    pub plugin: Name,
    /// So many.
    pub free: u32,
}

impl Claim<'_> {
    /// So many of the default queue, whatever their ranks and plugins.
    #[must_use]
    pub fn any(limit: u32) -> Self {
        Self { queue: QueueId::DEFAULT, limit, floor: None, is_limited: false, rooms: &[] }
    }
}

impl<'a> Claim<'a> {
    /// The plugins that have reached their limits, and the others that have one.
    fn full_and_free(&self) -> (Vec<&'a str>, impl Iterator<Item = &'a PluginRoom> + Clone + use<'a>) {
        let full = self.rooms.iter().filter(|room| room.free == 0).map(|room| room.plugin.as_str());
        (full.collect(), self.rooms.iter().filter(|room| room.free > 0))
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
    pub async fn start_from(
        &mut self,
        session: SessionId,
        mut claim: Claim<'_>,
    ) -> Result<Started, StoreError> {
        if claim.is_limited {
            claim.limit = claim.limit.min(permit::free_of_queue(self, claim.queue).await?);
        }
        if claim.limit == 0 {
            return Ok(Started::default());
        }
        let taken = take(self, session, claim).await?;
        let started = self.attempts_of(session, taken, claim).await?;
        if claim.is_limited {
            let executions: Vec<Uuid> = started.attempts.iter().map(|attempt| attempt.execution).collect();
            permit::grant(self, &executions, permit::Scope::Queue, claim.queue.0, "").await?;
        }
        Ok(started)
    }

    async fn attempts_of(
        &mut self,
        session: SessionId,
        taken: Taken,
        claim: Claim<'_>,
    ) -> Result<Started, StoreError> {
        let Taken { rows, found, highest_rank } = taken;
        let to_the_end = found < claim.limit as usize;
        let (lowest_rank, claimed) = (rows.iter().map(|row| row.lowest_rank).min(), rows.len());
        let jobs = load_jobs_of(self, Some(session), rows.iter().map(|row| row.job_id)).await?;
        let mut attempts = Vec::with_capacity(rows.len());
        let (mut ended, mut rated) = (Vec::new(), Vec::new());
        for row in rows {
            let loaded = jobs
                .get(&row.job_id)
                .ok_or_else(|| StoreError::Corrupt(format!("execution {} is of no job", row.execution_id)))?;
            let triggered_by = stored_trigger(&row.triggered_by)?;
            let mut effects = loaded.effects(triggered_by);
            effects.permits |= claim.is_limited;
            match &loaded.job {
                // On PostgreSQL these are two statements, and the host may have been given another
                // component or job between them, which do not go with what the first has recorded.
                Ok(job) if loaded.component.as_deref() != Some(&*row.component) => {
                    ended.push(row.attempt(job.clone(), triggered_by, effects)?.finish(Outcome::Released));
                }
                Ok(job) => {
                    if let Some(rate) = job.policies.rate {
                        rated.push((row.job_id, row.execution_id, row.attempt, rate.period));
                    }
                    attempts.push(row.attempt(job.clone(), triggered_by, effects)?);
                }
                Err(error) => ended.push(row.unreadable(&loaded.name, error, effects)?),
            }
        }
        rate::note_starts(self, &rated).await?;
        super::completion::write_completions(self, session, &ended).await?;
        Ok(Started { attempts, lowest_rank, claimed, found, to_the_end, highest_rank })
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
    pub async fn claim_from(&self, session: SessionId, claim: Claim<'_>) -> Result<Started, StoreError> {
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

/// What a claim has taken out of `ready`.
#[derive(Debug, Default)]
struct Taken {
    rows: Vec<StartRow>,
    /// As in [`Started`].
    found: usize,
    highest_rank: Option<i64>,
}

/// A row of CLAIM_WITHIN: as one of CLAIM, and what is the same in all of them.
struct RowWithin {
    row: StartRow,
    found: i64,
    highest_rank: i64,
}

impl FromRow<'_, PgRow> for RowWithin {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let (found, highest_rank) = (row.try_get("found")?, row.try_get("highest_rank")?);
        Ok(Self { row: StartRow::from_row(row)?, found, highest_rank })
    }
}

async fn take(tx: &mut PhaseTx, session: SessionId, claim: Claim<'_>) -> Result<Taken, StoreError> {
    let now = tx.now;
    match &mut tx.engine {
        EngineTx::Postgres(conn) if claim.rooms.is_empty() => {
            let rows: Vec<StartRow> = sqlx::query_as(postgres::CLAIM)
                .bind(now)
                .bind(session.0)
                .bind(i64::from(claim.limit))
                .bind(claim.floor.unwrap_or(i64::MIN))
                .bind(claim.queue.0)
                .fetch_all(&mut **conn)
                .await?;
            Ok(Taken { found: rows.len(), highest_rank: None, rows })
        }
        EngineTx::Postgres(conn) => {
            let (full, free) = claim.full_and_free();
            let rows: Vec<RowWithin> = sqlx::query_as(postgres::CLAIM_WITHIN)
                .bind(now)
                .bind(session.0)
                .bind(i64::from(claim.limit))
                .bind(claim.floor.unwrap_or(i64::MIN))
                .bind(claim.queue.0)
                .bind(full)
                .bind(free.clone().map(|room| room.plugin.as_str()).collect::<Vec<_>>())
                .bind(free.map(|room| to_count(room.free)).collect::<Vec<_>>())
                .fetch_all(&mut **conn)
                .await?;
            let Some(first) = rows.first() else { return Ok(Taken::default()) };
            let (found, highest_rank) = (usize::try_from(first.found).unwrap_or(0), Some(first.highest_rank));
            Ok(Taken { rows: rows.into_iter().map(|within| within.row).collect(), found, highest_rank })
        }
        EngineTx::Sqlite(conn) => single_writer::claim(conn, now, session, claim).await,
    }
}
