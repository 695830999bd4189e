//! The attempts of dead hosts are ended.

use uuid::Uuid;

use super::StoreError;
use super::cancel::heed_requests;
use super::completion::write_completions;
use super::connection::Store;
use super::phase::{PhaseName, PhaseTx};
use super::row::{
    LoadedJob, crashed, from_count, load_jobs, next_without_definition, on_engine, on_read, row,
    stored_trigger,
};
use super::session::{SessionId, SessionRow};
use crate::execution::{self, Completion, Next, Outcome};
use crate::job::Name;

/// An execution whose host died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RescuedExecution {
    /// The execution.
    pub execution: Uuid,
    /// Its job.
    pub job: Name,
    /// The attempt that ended.
    pub attempt: u32,
    /// The host that died.
    pub host: String,
    /// What becomes of it, by the job's policy.
    pub next: Next,
}

impl Store {
    /// Ends the host sessions that have expired, `limit` at most, and their open attempts: each
    /// session in a transaction of its own. One that is in the middle of a phase is left for
    /// the next round. `own` are the sessions of the calling host that it has yet to record
    /// completions of: it does not give up on itself, whoever else may.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn rescue(&self, limit: u32, own: &[SessionId]) -> Result<Vec<RescuedExecution>, StoreError> {
        let limit = i64::from(limit) + i64::try_from(own.len()).unwrap_or(0);
        let expired: Vec<i64> = on_read!(self, sql, conn => {
            sqlx::query_scalar(sql::EXPIRED_SESSIONS)
                .bind(self.now())
                .bind(limit)
                .fetch_all(conn)
                .await?
        });
        let mut rescued = Vec::new();
        for session in expired.into_iter().filter(|session| !own.contains(&SessionId(*session))) {
            let mut phase = self.begin(PhaseName::Rescue).await?;
            let tx = phase.tx();
            let now = tx.now;
            // Its heartbeat may have come in between, or another host's rescuer.
            let locked: Option<SessionRow> = on_engine!(tx, sql, conn => {
                sqlx::query_as(sql::LOCK_EXPIRED_SESSION).bind(now).bind(session).fetch_optional(conn).await?
            });
            if let Some(locked) = locked {
                rescued.extend(bury(tx, SessionId(session), &locked).await?);
                phase.commit().await?;
            }
        }
        Ok(rescued)
    }
}

impl Store {
    /// Gives back the open attempts of a live session that its host does not know of: a START
    /// was committed, and the answer was lost. They cost no attempt. `known` are the leases
    /// that the host runs or has yet to record. Returns the executions.
    ///
    /// No other START of the session may be under way. One whose connection broke is waited
    /// for: it holds a lock on the session's row until the database has ended it.
    ///
    /// # Errors
    /// [`StoreError::SessionLost`] where the session is dead.
    pub async fn release_unknown(&self, session: SessionId, known: &[i64]) -> Result<Vec<Uuid>, StoreError> {
        let mut phase = self.begin(PhaseName::Rescue).await?;
        let tx = phase.tx();
        let locked: Option<SessionRow> = on_engine!(tx, sql, conn => {
            sqlx::query_as(sql::LOCK_SESSION_TO_END).bind(session.0).fetch_optional(conn).await?
        });
        let floor = locked.ok_or(StoreError::SessionLost)?.lease_floor;
        let open: Vec<OpenStartRow> = on_engine!(tx, sql, conn => {
            sqlx::query_as(sql::OPEN_STARTS).bind(session.0).bind(floor).fetch_all(conn).await?
        });
        let jobs = load_jobs(tx, open.iter().map(|start| start.job_id)).await?;
        let mut completions = Vec::new();
        for start in open.iter().filter(|start| !known.contains(&start.lease)) {
            let job = jobs.get(&start.job_id).ok_or_else(|| start.of_no_job())?;
            completions.push(start.completion(job, Outcome::Released, Next::Requeue)?);
        }
        write_completions(tx, session, &completions).await?;
        phase.commit().await?;
        Ok(completions.into_iter().map(|completion| completion.execution).collect())
    }
}

row! {
    struct OpenStartRow {
        lease: i64,
        execution_id: Uuid,
        attempt: i32,
        job_id: i32,
        max_attempts: i32,
        has_unique_key: bool,
        triggered_by: String,
        holds_permits: bool,
    }
}

impl OpenStartRow {
    fn completion(&self, loaded: &LoadedJob, outcome: Outcome, next: Next) -> Result<Completion, StoreError> {
        let mut effects = loaded.effects(stored_trigger(&self.triggered_by)?);
        effects.permits |= self.holds_permits;
        Ok(Completion {
            lease: self.lease,
            execution: self.execution_id,
            job: loaded.name.clone(),
            attempt: from_count(self.attempt)?,
            outcome,
            next,
            has_unique_key: self.has_unique_key,
            effects,
            usage: None,
        })
    }

    fn of_no_job(&self) -> StoreError {
        StoreError::Corrupt(format!("execution {} is of no job", self.execution_id))
    }
}

/// Marks a session dead that the transaction has locked, and ends its open attempts.
pub(super) async fn bury(
    tx: &mut PhaseTx,
    session: SessionId,
    locked: &SessionRow,
) -> Result<Vec<RescuedExecution>, StoreError> {
    let now = tx.now;
    let open: Vec<OpenStartRow> = on_engine!(tx, sql, conn => {
        sqlx::query(sql::MARK_SESSION_DEAD).bind(now).bind(session.0).execute(&mut *conn).await?;
        sqlx::query_as(sql::OPEN_STARTS).bind(session.0).bind(locked.lease_floor).fetch_all(conn).await?
    });
    let jobs = load_jobs(tx, open.iter().map(|start| start.job_id)).await?;
    let mut completions = Vec::with_capacity(open.len());
    for start in &open {
        let loaded = jobs.get(&start.job_id).ok_or_else(|| start.of_no_job())?;
        let (attempt, max_attempts) = (from_count(start.attempt)?, from_count(start.max_attempts)?);
        let outcome = crashed(&locked.host);
        let next = match &loaded.job {
            Ok(job) => execution::next(job, start.execution_id, attempt, max_attempts, &outcome),
            Err(_) => next_without_definition(attempt, max_attempts),
        };
        completions.push(start.completion(loaded, outcome, next)?);
    }
    let completions = heed_requests(tx, &completions).await?;
    write_completions(tx, session, &completions).await?;
    Ok(completions
        .iter()
        .map(|completion| RescuedExecution {
            execution: completion.execution,
            job: completion.job.clone(),
            attempt: completion.attempt,
            host: locked.host.clone(),
            next: completion.next,
        })
        .collect())
}
