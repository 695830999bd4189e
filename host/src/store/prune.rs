//! History that is old enough is removed, in steps.
//!
//! A job's executions are gone through in the order of their ids, which is that of their age, by
//! the index that lists them; where the oldest that is left stands is remembered, so that the
//! next round begins there. What is decided by is the execution's final completion: one that has
//! none is never removed.

use std::collections::HashMap;

use jiff::Timestamp;
use uuid::Uuid;

use super::StoreError;
use super::connection::Store;
use super::phase::{PhaseName, PhaseTx};
use super::row::{JobRow, on_engine, on_read, row};
use super::time::Time;
use crate::job::History;

/// Nobody misses what has just ended: who waits for it, and a host that records its completion
/// for a second time, since the answer to the first was lost.
const GRACE: jiff::SignedDuration = jiff::SignedDuration::from_mins(1);

/// Ids are made before they are committed, and by hosts that do not wait for each other: what is
/// remembered of a job is this much older than now.
const LATECOMERS: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

/// What an id tells of its time.
const MILLISECOND: jiff::SignedDuration = jiff::SignedDuration::from_millis(1);

/// How long a host session is remembered after its end.
const SESSIONS: jiff::SignedDuration = jiff::SignedDuration::from_hours(7 * 24);

/// One job's history, and how far it has been gone through.
#[derive(Clone, Debug)]
pub struct JobHistory {
    /// The job's number in the store.
    pub(super) job: i32,
    /// How much of it is kept.
    pub history: History,
    /// Nothing older is left to remove, as far as this host knows.
    floor: Uuid,
    /// Where the next step begins.
    from: Uuid,
    /// The oldest execution that this round has left where it is.
    left: Option<Uuid>,
    /// Executions up to this one are too many. None: `last` bounds nothing, or has not been
    /// looked at in this round.
    surplus: Option<Uuid>,
    /// By the store's clock.
    now: Timestamp,
}

/// What a step of pruning did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pruned {
    /// So many executions were removed, and there may be more.
    Some(usize),
    /// So many were removed, and the job's history is as it should be.
    Done(usize),
    /// Another host prunes at this very moment.
    Elsewhere,
}

impl Store {
    /// The histories of all jobs that have one, retired ones included; `known` are those of the round before.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn job_histories(&self, known: &[JobHistory]) -> Result<Vec<JobHistory>, StoreError> {
        let (rows, now): (Vec<JobRow>, Time) = on_read!(self, sql, conn => (
            sqlx::query_as(sql::JOBS_WITH_HISTORY).fetch_all(&mut *conn).await?,
            sqlx::query_scalar(sql::NOW).bind(self.now()).fetch_one(conn).await?,
        ));
        let floors: HashMap<i32, Uuid> = known.iter().map(|known| (known.job, known.floor)).collect();
        let histories = rows.into_iter().filter_map(|row| {
            // A definition that this binary cannot read may ask for what it does not know.
            let history = row.job().ok()?.history;
            let floor = floors.get(&row.id).copied().unwrap_or(Uuid::nil());
            let job = row.id;
            Some(JobHistory { job, history, floor, from: floor, left: None, surplus: None, now: now.0 })
        });
        Ok(histories.collect())
    }

    /// Removes up to `limit` executions of a job that are older than its history is to be, or too
    /// many, with all that belongs to them: one transaction.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn prune(&self, job: &mut JobHistory, limit: u32) -> Result<Pruned, StoreError> {
        if let (Some(last), true) = (job.history.last, job.from == job.floor) {
            job.surplus = on_read!(self, sql, conn => {
                sqlx::query_scalar(sql::SURPLUS).bind(job.job).bind(i64::from(last)).fetch_optional(conn).await?
            });
        }
        // Most rounds find nothing to do, and need no transaction for that.
        if job.from >= job.end() {
            return Ok(job.rest(0));
        }
        let mut phase = self.begin(PhaseName::Prune).await?;
        let tx = phase.tx();
        if !lock(tx).await? {
            return Ok(Pruned::Elsewhere);
        }
        let candidates: Vec<CandidateRow> = on_engine!(tx, sql, conn => {
            sqlx::query_as(sql::PRUNE_CANDIDATES)
                .bind(job.job)
                .bind(job.from)
                .bind(job.end())
                .bind(i64::from(limit))
                .fetch_all(conn)
                .await?
        });
        let (old, kept): (Vec<_>, Vec<_>) = candidates.iter().partition(|row| job.may_go(row));
        let old: Vec<Uuid> = old.into_iter().map(|row| row.id).collect();
        remove(tx, &old).await?;
        phase.commit().await?;
        job.left = job.left.or_else(|| kept.first().map(|row| row.id));
        match candidates.last() {
            Some(last) if candidates.len() == limit as usize => {
                job.from = after(last.id);
                Ok(Pruned::Some(old.len()))
            }
            _ => Ok(job.rest(old.len())),
        }
    }

    /// Removes what no execution leads to any more: host sessions that ended a week ago and whose
    /// starts are gone, and what came too late for an execution that was removed. Up to `limit`
    /// of each; the rest is for the next round.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn prune_leftovers(&self, limit: u32) -> Result<usize, StoreError> {
        let mut phase = self.begin(PhaseName::Prune).await?;
        let tx = phase.tx();
        if !lock(tx).await? {
            return Ok(0);
        }
        let (bound, limit) = (tx.now, i64::from(limit));
        let removed = on_engine!(tx, sql, conn => {
            let now: Time = sqlx::query_scalar(sql::NOW).bind(bound).fetch_one(&mut *conn).await?;
            let sessions = sqlx::query(sql::PRUNE_SESSIONS)
                .bind(Time(earlier(now.0, SESSIONS)))
                .bind(limit)
                .execute(&mut *conn)
                .await?;
            let stale = sqlx::query(sql::PRUNE_ORPHANED_STALE)
                .bind(Time(earlier(now.0, GRACE)))
                .bind(limit)
                .execute(conn)
                .await?;
            sessions.rows_affected() + stale.rows_affected()
        });
        phase.commit().await?;
        Ok(usize::try_from(removed).unwrap_or(usize::MAX))
    }
}

row! {
    struct CandidateRow {
        id: Uuid,
        fire_time: Option<Time>,
        /// The end of its final completion.
        finished_at: Option<Time>,
    }
}

impl JobHistory {
    /// Executions from this id on are not looked at: none of them can have ended early enough.
    fn end(&self) -> Uuid {
        let by_age = self.ended_before().map(|bound| lowest_id(earlier(bound, -MILLISECOND)));
        let by_count = self.surplus.map(after);
        by_age.max(by_count).unwrap_or(Uuid::nil())
    }

    /// The age bound: executions that ended until then are old.
    fn ended_before(&self) -> Option<Timestamp> {
        let keep = jiff::SignedDuration::try_from(self.history.keep?).unwrap_or(jiff::SignedDuration::MAX);
        Some(earlier(self.now, keep.max(GRACE)))
    }

    fn may_go(&self, row: &CandidateRow) -> bool {
        let Some(finished_at) = row.finished_at else { return false };
        // A clock that was set back may come to this time again, and must find it taken.
        let fires_again = row.fire_time.is_some_and(|time| time.0 > self.now);
        let old = self.ended_before().is_some_and(|bound| finished_at.0 <= bound);
        let surplus = self.surplus.is_some_and(|surplus| row.id <= surplus)
            && finished_at.0 <= earlier(self.now, GRACE);
        (old || surplus) && !fires_again
    }

    /// The round is over: the next one begins with the oldest that is left.
    fn rest(&mut self, removed: usize) -> Pruned {
        let seen = self.left.unwrap_or_else(|| self.end()).min(lowest_id(earlier(self.now, LATECOMERS)));
        self.floor = self.floor.max(seen);
        Pruned::Done(removed)
    }
}

/// One host prunes at a time. False: it is another one.
async fn lock(tx: &mut PhaseTx) -> Result<bool, StoreError> {
    Ok(on_engine!(tx, sql, conn => sqlx::query_scalar(sql::PRUNE_LOCK).fetch_one(conn).await?))
}

/// Removes executions with all that belongs to them.
async fn remove(tx: &mut PhaseTx, executions: &[Uuid]) -> Result<(), StoreError> {
    if executions.is_empty() {
        return Ok(());
    }
    match &mut tx.engine {
        super::phase::EngineTx::Postgres(conn) => {
            for statement in super::postgres::PRUNE.iter().copied() {
                sqlx::query(statement).bind(executions).execute(&mut **conn).await?;
            }
        }
        super::phase::EngineTx::Sqlite(conn) => {
            // SQLite has no arrays, and JSON no bytes.
            let hex: Vec<String> = executions.iter().map(|id| id.simple().to_string()).collect();
            let hex = super::row::json_text(&hex)?;
            for statement in super::sqlite::PRUNE.iter().copied() {
                sqlx::query(statement).bind(hex.as_str()).execute(&mut **conn).await?;
            }
        }
    }
    Ok(())
}

/// The lowest `UUIDv7` of this time: its milliseconds, and nothing after them.
fn lowest_id(time: Timestamp) -> Uuid {
    Uuid::from_u128(u128::from(time.as_millisecond().max(0).unsigned_abs()) << 80)
}

fn after(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128().saturating_add(1))
}

/// A time before the calendar began is its first.
fn earlier(time: Timestamp, by: jiff::SignedDuration) -> Timestamp {
    time.saturating_sub(by).unwrap_or(Timestamp::MIN)
}
