//! An execution is asked for: by an operator, or by a handler.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::StoreError;
use super::connection::Store;
use super::handler::Holder;
use super::pause::paused_jobs;
use super::phase::{PhaseName, PhaseTx};
use super::place::{Hold, JobFacts, NewRow, Placement, insert_executions, limit_key, place};
use super::row::{JobRow, json_text, on_engine, row, to_count};
use super::time::Time;
use crate::clock;
use crate::execution::Trigger;
use crate::job::Name;

/// An execution that is asked for.
#[derive(Clone, Debug)]
pub struct NewExecution<'a> {
    /// The job.
    pub job: &'a Name,
    /// Its arguments. None: the job's own.
    pub args: Option<&'a Value>,
    /// Who asks.
    pub triggered_by: Trigger,
    /// Not before. None: now.
    pub run_at: Option<Timestamp>,
    /// At most one unfinished execution of the job has this key.
    pub unique_key: Option<&'a str>,
    /// The attempt whose handler asks.
    pub by: Option<Holder>,
}

/// The answer to [`Store::enqueue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enqueued {
    /// The execution.
    pub id: Uuid,
    /// False: an unfinished execution of the job had the key, and this is its id.
    pub created: bool,
}

impl Store {
    /// Enqueues an execution, or finds the unfinished one that has its unique key.
    ///
    /// # Errors
    /// [`StoreError::UnknownJob`] where there is no such job, or it is retired;
    /// [`StoreError::LeaseLost`] where the attempt that asks is over.
    pub async fn enqueue(&self, new: &NewExecution<'_>) -> Result<Enqueued, StoreError> {
        self.enqueue_repeating(new, None).await
    }

    /// As [`Store::enqueue`], of an execution that repeats another one.
    pub(super) async fn enqueue_repeating(
        &self,
        new: &NewExecution<'_>,
        retry_of: Option<Uuid>,
    ) -> Result<Enqueued, StoreError> {
        let mut phase = match new.by {
            None => self.begin(PhaseName::Enqueue).await?,
            Some(holder) => {
                let detail = || json!({ "job": new.job, "args": new.args, "unique_key": new.unique_key });
                self.begin_for(holder, "enqueue", detail).await?
            }
        };
        let tx = phase.tx();
        let job = job_to_enqueue(tx, new.job).await?;
        let id = self.new_id(job.now);
        if let Some(key) = new.unique_key
            && let Some(holder) = take_unique_key(tx, job.id, key, id).await?
        {
            return Ok(Enqueued { id: holder, created: false });
        }
        insert(tx, &job, id, new, retry_of).await?;
        phase.commit().await?;
        Ok(Enqueued { id, created: true })
    }
}

row! {
    struct JobToEnqueue {
        id: i32,
        name: String,
        spec: String,
        queue_id: i32,
        priority: i32,
        gated: bool,
        paused: bool,
        now: Time,
    }
}

impl JobToEnqueue {
    fn facts(&self) -> JobFacts {
        let Self { id, queue_id, priority, gated, paused, .. } = *self;
        JobFacts { id, queue_id, priority, gated, paused }
    }
}

async fn job_to_enqueue(tx: &mut PhaseTx, name: &Name) -> Result<JobToEnqueue, StoreError> {
    let now = tx.now;
    let job: Option<JobToEnqueue> = on_engine!(tx, sql, conn => {
        sqlx::query_as(sql::JOB_TO_ENQUEUE).bind(now).bind(name.as_str()).fetch_optional(conn).await?
    });
    if let Some(mut job) = job {
        // It may be resumed at this moment, by whom nothing would be found that is put to wait.
        job.paused = job.paused && paused_jobs(tx, &[job.id]).await?.contains(&job.id);
        return Ok(job);
    }
    let known = on_engine!(tx, sql, conn => sqlx::query_scalar(sql::JOB_NAMES).fetch_all(conn).await?);
    Err(StoreError::UnknownJob { name: name.clone(), known })
}

/// Takes a key for a new execution, or returns the unfinished one that has it.
async fn take_unique_key(
    tx: &mut PhaseTx,
    job: i32,
    key: &str,
    execution: Uuid,
) -> Result<Option<Uuid>, StoreError> {
    if key.contains('\0') {
        return Err(StoreError::Invalid("a unique key cannot contain a NUL character".into()));
    }
    // The holder may end between the two statements: then the key is free, and is asked for again.
    for _ in 0..10 {
        let holder: Option<Uuid> = on_engine!(tx, sql, conn => {
            let taken = sqlx::query(sql::TAKE_UNIQUE_KEY)
                .bind(job)
                .bind(key)
                .bind(execution)
                .execute(&mut *conn)
                .await?;
            if taken.rows_affected() == 1 {
                return Ok(None);
            }
            sqlx::query_scalar(sql::UNIQUE_KEY_HOLDER).bind(job).bind(key).fetch_optional(conn).await?
        });
        if holder.is_some() {
            return Ok(holder);
        }
    }
    Err(StoreError::Unavailable(format!("the unique key `{key}` changes hands too fast")))
}

async fn insert(
    tx: &mut PhaseTx,
    row: &JobToEnqueue,
    id: Uuid,
    new: &NewExecution<'_>,
    retry_of: Option<Uuid>,
) -> Result<(), StoreError> {
    let job = JobRow { id: row.id, name: row.name.clone(), spec: row.spec.clone() }.job()?;
    let args = new.args.unwrap_or(&job.args);
    let run_at = new.run_at.map(|at| Time(clock::truncate(at)));
    let facts = row.facts();
    let limit_key = limit_key(&job, args);
    let execution = NewRow {
        id,
        job: facts,
        args: json_text(args)?,
        triggered_by: new.triggered_by,
        scheduled_at: run_at.unwrap_or(row.now),
        fire_time: None,
        max_attempts: to_count(job.retry.max_attempts),
        unique_key: new.unique_key.map(str::to_owned),
        limit_key: limit_key.clone(),
        retry_of,
    };
    insert_executions(tx, &[execution]).await?;
    let later = run_at.filter(|at| *at > row.now);
    let hold = match later {
        Some(due) => Hold::Until(due),
        None if facts.paused => Hold::Paused,
        None if facts.gated => Hold::Permit,
        None => Hold::None,
    };
    let due = later.unwrap_or(row.now);
    place(tx, &[Placement { execution: id, job: facts, due, attempt: 0, limit_key, hold }]).await
}
