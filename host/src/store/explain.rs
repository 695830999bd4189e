//! Why a job's executions are where they are, and what the queues have to do: for whoever asks, and
//! for no phase.
//!
//! Each statement is a look of its own, so that no lock is held and nothing waits: what they say may
//! be some milliseconds apart.

use std::collections::BTreeMap;

use jiff::Timestamp;
use uuid::Uuid;

use super::StoreError;
use super::connection::Store;
use super::definition::JobRecord;
use super::effects::Follows;
use super::permit::Scope;
use super::phase::PhaseName;
use super::queue::{QueueId, QueueRecord};
use super::row::{from_count, micros, on_engine, on_read, row, storable, stored_name};
use super::time::Time;
use crate::job::Name;
use crate::policy::Rate;
use crate::suggest;

/// What a job has to do, and what keeps it.
#[derive(Clone, Debug, Default)]
pub struct JobLook {
    /// Executions that may start as soon as a host has a slot.
    pub ready: u64,
    /// Executions of other jobs that stand before them in their queue.
    pub ahead: u64,
    /// Executions that may not start yet, by what they wait for.
    pub waiting: Vec<WaitingLook>,
    /// The keys that executions wait for, those with the most of them first.
    pub keys: Vec<KeyLook>,
    /// Who holds the places of the job's limit.
    pub holders: PermitHolders,
    /// Who holds the places of the keys that others wait for.
    pub key_holders: PermitHolders,
    /// How far its rate is used up, where it has one.
    pub rate: Option<RateLook>,
    /// The jobs whose success it waits for or is triggered by.
    pub after: Vec<Upstream>,
    /// The jobs that it is run for when they have finally failed.
    pub runs_for_failures_of: Vec<Name>,
    /// The jobs that come after it.
    pub followers: Vec<Name>,
}

/// Executions of a job that wait for the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingLook {
    /// `due`, `retry`, `paused`, `after`, `key` or `limit`.
    pub blocker: String,
    /// How many.
    pub executions: u64,
    /// When the first of them is due; none for what waits for no time.
    pub first_due_at: Option<Timestamp>,
}

/// Executions that wait for a place of their key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyLook {
    /// The key: JSON of an argument.
    pub key: String,
    /// How many.
    pub executions: u64,
}

/// Those who count against a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PermitHolders {
    /// How many there are.
    pub count: u64,
    /// The first of them, by when they got their place.
    pub first: Vec<PermitHolder>,
}

/// An execution that counts against a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermitHolder {
    /// The execution.
    pub execution: Uuid,
    /// The key; empty for a limit that has none.
    pub key: String,
    /// When it got its place.
    pub since: Timestamp,
    /// The host that runs it. None: it has not started yet.
    pub host: Option<String>,
    /// The start of the attempt that runs.
    pub started_at: Option<Timestamp>,
}

/// How far a rate is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLook {
    /// Executions that count at the moment.
    pub used: u32,
    /// Of these, those that were let through and have not started yet.
    pub pending: u32,
    /// When the oldest start no longer counts.
    pub frees_at: Option<Timestamp>,
}

/// A job that another one comes after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Its name.
    pub name: Name,
    /// No configuration names it any more.
    pub is_retired: bool,
    /// Its newest success that has not been followed yet.
    pub succeeded_at: Option<Timestamp>,
}

/// A queue, and what it has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueLook {
    /// As hosts see it.
    pub queue: QueueRecord,
    /// Since when nothing of it is started.
    pub paused_at: Option<Timestamp>,
    /// Why, as whoever paused it said.
    pub paused_reason: Option<String>,
    /// Executions that run, on all hosts.
    pub running: u64,
    /// Executions that may start as soon as a host has a slot.
    pub ready: u64,
    /// Executions of its jobs that may not start yet.
    pub waiting: u64,
    /// Who holds the places of its limit over all hosts, where it has one.
    pub holders: PermitHolders,
}

/// Holders and keys that are named; how many there are besides is counted.
const NAMED: i64 = 20;

impl Store {
    /// What a job has to do, and what keeps it.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn look_at_job(&self, record: &JobRecord) -> Result<JobLook, StoreError> {
        let name = &record.job.name;
        let place: Option<PlaceRow> = on_read!(self, sql, conn => {
            sqlx::query_as(sql::JOB_PLACE).bind(name.as_str()).fetch_optional(conn).await?
        });
        let Some(PlaceRow { id, queue_id }) = place else { return Err(self.unknown_job(name).await?) };
        let (ready, ahead) = self.look_at_ready(id, queue_id).await?;
        let rate = match record.job.policies.rate {
            Some(rate) => Some(self.look_at_rate(id, rate).await?),
            None => None,
        };
        let upstream = |row: UpstreamRow| {
            Ok::<_, StoreError>(Upstream {
                name: stored_name(&row.name)?,
                is_retired: row.retired,
                succeeded_at: row.told_at.map(|at| at.0),
            })
        };
        let failures = self.look_at_upstreams(id, Follows::Failure).await?;
        Ok(JobLook {
            ready,
            ahead,
            waiting: self.look_at_waiting(id).await?,
            keys: self.look_at_keys(id).await?,
            holders: self.look_at_holders(Scope::Job, id).await?,
            key_holders: self.look_at_holders(Scope::Key, id).await?,
            rate,
            after: self
                .look_at_upstreams(id, Follows::Success)
                .await?
                .into_iter()
                .map(upstream)
                .collect::<Result<_, _>>()?,
            runs_for_failures_of: failures
                .iter()
                .map(|row| stored_name(&row.name))
                .collect::<Result<_, _>>()?,
            followers: self.look_at_followers(id).await?,
        })
    }

    /// The queues by name, with what they have to do.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn look_at_queues(&self) -> Result<Vec<QueueLook>, StoreError> {
        let rows: Vec<QueueLookRow> = on_read!(self, sql, conn => {
            sqlx::query_as(sql::QUEUE_LOOKS).fetch_all(conn).await?
        });
        let mut looks = Vec::with_capacity(rows.len());
        for row in rows {
            let holders = match row.total_limit {
                Some(_) => self.look_at_holders(Scope::Queue, row.id).await?,
                None => PermitHolders::default(),
            };
            looks.push(row.look(holders)?);
        }
        Ok(looks)
    }

    /// How many executions of a plugin run on each host that runs any.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn running_of_plugin(&self, plugin: &Name) -> Result<BTreeMap<String, u64>, StoreError> {
        let rows: Vec<RunningRow> = on_read!(self, sql, conn => {
            sqlx::query_as(sql::RUNNING_OF_PLUGIN).bind(plugin.as_str()).fetch_all(conn).await?
        });
        Ok(rows.into_iter().map(|row| (row.host, row.executions.unsigned_abs())).collect())
    }

    /// Pauses a queue: nothing of it is started until it is resumed. Hosts read their queues once a
    /// second. What runs goes on, and schedules go on firing.
    ///
    /// Returns since when it had been paused already, if it was; then its reason is replaced where
    /// one is given, and nothing else changes.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where there is no such queue.
    pub async fn pause_queue(
        &self,
        name: &Name,
        reason: Option<&str>,
    ) -> Result<Option<Timestamp>, StoreError> {
        let mut phase = self.begin(PhaseName::Definition).await?;
        let tx = phase.tx();
        let now = tx.now;
        let before: Option<Option<Time>> = on_engine!(tx, sql, conn => {
            sqlx::query_scalar(sql::QUEUE_TO_CHANGE).bind(name.as_str()).fetch_optional(conn).await?
        });
        let Some(before) = before else {
            // There may be no other connection to ask with.
            drop(phase);
            return Err(self.unknown_queue(name).await?);
        };
        on_engine!(tx, sql, conn => {
            sqlx::query(sql::PAUSE_QUEUE)
                .bind(now)
                .bind(name.as_str())
                .bind(reason.map(storable))
                .execute(conn)
                .await?;
        });
        phase.commit().await?;
        Ok(before.map(|at| at.0))
    }

    /// Resumes a queue. Returns since when it had been paused, if it was.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where there is no such queue.
    pub async fn resume_queue(&self, name: &Name) -> Result<Option<Timestamp>, StoreError> {
        let mut phase = self.begin(PhaseName::Definition).await?;
        let tx = phase.tx();
        let before: Option<Option<Time>> = on_engine!(tx, sql, conn => {
            sqlx::query_scalar(sql::QUEUE_TO_CHANGE).bind(name.as_str()).fetch_optional(conn).await?
        });
        let Some(before) = before else {
            // There may be no other connection to ask with.
            drop(phase);
            return Err(self.unknown_queue(name).await?);
        };
        on_engine!(tx, sql, conn => {
            sqlx::query(sql::RESUME_QUEUE).bind(name.as_str()).execute(conn).await?;
        });
        phase.commit().await?;
        Ok(before.map(|at| at.0))
    }

    async fn unknown_queue(&self, name: &Name) -> Result<StoreError, StoreError> {
        let queues = self.queues().await?;
        let hint = suggest::hint(name.as_str(), queues.iter().map(|queue| queue.name.as_str()));
        let hint =
            if hint.is_empty() { "; `innkeeper queue list` shows those there are".to_owned() } else { hint };
        Ok(StoreError::Invalid(format!("there is no queue `{name}`{hint}")))
    }

    async fn look_at_ready(&self, job: i32, queue: i32) -> Result<(u64, u64), StoreError> {
        let ready: ReadyLookRow = on_read!(self, sql, conn => {
            sqlx::query_as(sql::READY_OF_JOB).bind(job).fetch_one(conn).await?
        });
        let Some(rank) = ready.first_rank else { return Ok((0, 0)) };
        let ahead: i64 = on_read!(self, sql, conn => {
            sqlx::query_scalar(sql::AHEAD_IN_QUEUE).bind(queue).bind(rank).bind(job).fetch_one(conn).await?
        });
        Ok((count(ready.executions), count(ahead)))
    }

    async fn look_at_waiting(&self, job: i32) -> Result<Vec<WaitingLook>, StoreError> {
        let rows: Vec<WaitingLookRow> = on_read!(self, sql, conn => {
            sqlx::query_as(sql::WAITING_OF_JOB).bind(job).fetch_all(conn).await?
        });
        let look = |row: WaitingLookRow| WaitingLook {
            blocker: row.blocker,
            executions: count(row.executions),
            first_due_at: row.first_due_at.map(|at| at.0),
        };
        Ok(rows.into_iter().map(look).collect())
    }

    async fn look_at_keys(&self, job: i32) -> Result<Vec<KeyLook>, StoreError> {
        let rows: Vec<KeyLookRow> = on_read!(self, sql, conn => {
            sqlx::query_as(sql::WAITING_KEYS).bind(job).bind(NAMED).fetch_all(conn).await?
        });
        Ok(rows.into_iter().map(|row| KeyLook { key: row.key, executions: count(row.executions) }).collect())
    }

    async fn look_at_holders(&self, scope: Scope, owner: i32) -> Result<PermitHolders, StoreError> {
        let rows: Vec<HolderRow> = on_read!(self, sql, conn => {
            sqlx::query_as(sql::HOLDERS_AND_HOSTS)
                .bind(scope.as_str())
                .bind(owner)
                .bind(NAMED)
                .fetch_all(conn)
                .await?
        });
        let holders = rows.first().map_or(0, |row| count(row.holders));
        let first = rows.into_iter().map(|row| PermitHolder {
            execution: row.execution_id,
            key: row.key,
            since: row.granted_at.0,
            host: row.host,
            started_at: row.started_at.map(|at| at.0),
        });
        Ok(PermitHolders { count: holders, first: first.collect() })
    }

    async fn look_at_rate(&self, job: i32, rate: Rate) -> Result<RateLook, StoreError> {
        let period = micros(rate.period);
        let uses: UsesLookRow = on_read!(self, sql, conn => {
            sqlx::query_as(sql::RATE_USES).bind(self.now()).bind(job).bind(period).fetch_one(conn).await?
        });
        let frees_at = uses.first.map(|first| Time::from_micros(first.micros().saturating_add(period)).0);
        let number = |count: i64| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(RateLook { used: number(uses.uses), pending: number(uses.pending), frees_at })
    }

    async fn look_at_upstreams(&self, job: i32, kind: Follows) -> Result<Vec<UpstreamRow>, StoreError> {
        Ok(on_read!(self, sql, conn => {
            sqlx::query_as(sql::UPSTREAM_JOBS).bind(job).bind(kind.as_str()).fetch_all(conn).await?
        }))
    }

    async fn look_at_followers(&self, job: i32) -> Result<Vec<Name>, StoreError> {
        let kind = Follows::Success.as_str();
        let names: Vec<String> = on_read!(self, sql, conn => {
            sqlx::query_scalar(sql::FOLLOWING_JOBS).bind(job).bind(kind).fetch_all(conn).await?
        });
        names.iter().map(|name| stored_name(name)).collect()
    }
}

row! {
    struct PlaceRow {
        id: i32,
        queue_id: i32,
    }
}

row! {
    struct ReadyLookRow {
        executions: i64,
        first_rank: Option<i64>,
    }
}

row! {
    struct WaitingLookRow {
        blocker: String,
        executions: i64,
        first_due_at: Option<Time>,
    }
}

row! {
    struct KeyLookRow {
        key: String,
        executions: i64,
    }
}

row! {
    struct HolderRow {
        execution_id: Uuid,
        key: String,
        granted_at: Time,
        started_at: Option<Time>,
        host: Option<String>,
        holders: i64,
    }
}

row! {
    struct UsesLookRow {
        uses: i64,
        pending: i64,
        first: Option<Time>,
    }
}

row! {
    struct RunningRow {
        host: String,
        executions: i64,
    }
}

row! {
    struct UpstreamRow {
        name: String,
        retired: bool,
        told_at: Option<Time>,
    }
}

row! {
    struct QueueLookRow {
        id: i32,
        name: String,
        owner: String,
        weight: i32,
        total_limit: Option<i32>,
        host_limit: Option<i32>,
        paused_at: Option<Time>,
        paused_reason: Option<String>,
        ready: i64,
        waiting: i64,
        running: i64,
    }
}

impl QueueLookRow {
    fn look(self, holders: PermitHolders) -> Result<QueueLook, StoreError> {
        let limit = |count: Option<i32>| count.map(from_count).transpose();
        Ok(QueueLook {
            queue: QueueRecord {
                id: QueueId(self.id),
                name: stored_name(&self.name)?,
                owner: self.owner,
                weight: from_count(self.weight)?.max(1),
                total_limit: limit(self.total_limit)?,
                host_limit: limit(self.host_limit)?,
                paused: self.paused_at.is_some(),
            },
            paused_at: self.paused_at.map(|at| at.0),
            paused_reason: self.paused_reason,
            running: count(self.running),
            ready: count(self.ready),
            waiting: count(self.waiting),
            holders,
        })
    }
}

fn count(count: i64) -> u64 {
    count.max(0).unsigned_abs()
}
