//! Looking at executions. The states are derived here, from where an execution's rows are.

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::StoreError;
use super::connection::Store;
use super::row::{
    from_count, on_read, row, state_of_outcome, stored_failure, stored_json, stored_name, stored_trigger,
    stored_usage,
};
use super::time::Time;
use crate::execution::{Failure, Progress, State, Trigger};
use crate::job::Name;
use crate::limits::Usage;

/// An execution and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ExecutionRecord {
    /// `UUIDv7`.
    pub id: Uuid,
    /// The job.
    pub job: Name,
    /// The job's plugin, as the job is defined now.
    pub plugin: Name,
    /// The job's handler, as the job is defined now.
    pub handler: String,
    /// Where it stands.
    pub state: State,
    /// The attempts that were made, the one that runs included; a released one does not count.
    pub attempt: u32,
    /// Attempts in all.
    pub max_attempts: u32,
    /// Who asked for it.
    pub triggered_by: Trigger,
    /// The time that it was due, or was asked for.
    pub scheduled_at: Timestamp,
    /// The start of the latest attempt.
    pub started_at: Option<Timestamp>,
    /// The end of the last attempt, once it is final.
    pub finished_at: Option<Timestamp>,
    /// When it may start next, while it is `scheduled` or `retrying`.
    pub due_at: Option<Timestamp>,
    /// What keeps it from being started, while it is `queued` and not only in line for a slot.
    pub blocker: Option<Blocker>,
    /// The arguments.
    pub args: Value,
    /// What the handler returned, once it has succeeded.
    pub result: Option<Value>,
    /// Why the latest attempt that ended did not succeed; none while another one runs.
    pub error: Option<Failure>,
    /// The host of the latest attempt.
    pub host: Option<String>,
    /// The digest of the component that ran in the latest attempt.
    pub component_digest: Option<String>,
    /// What the latest attempt that ended has used, as far as its host measured it; none while
    /// another one runs.
    pub usage: Option<Usage>,
    /// What the handler last said of its progress.
    pub progress: Option<Progress>,
    /// The execution that it repeats, where an operator asked for that.
    pub retry_of: Option<Uuid>,
    /// Why it is to end, while it runs and somebody wants that.
    pub cancel_requested: Option<String>,
}

/// What an execution that is due waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocker {
    /// A place in the limits of its job: how many run at once, or how many start in a time.
    Limit,
    /// A place in the limit of its key.
    Key,
    /// The jobs that its job comes after.
    After,
    /// Its job to be resumed.
    Paused,
}

impl Blocker {
    /// As it is shown, and as the store has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Key => "key",
            Self::After => "after",
            Self::Paused => "paused",
        }
    }

    /// None for what waits for a time.
    pub(super) fn of_code(code: &str) -> Option<Self> {
        [Self::Limit, Self::Key, Self::After, Self::Paused].into_iter().find(|known| known.as_str() == code)
    }
}

/// Which executions are looked for.
#[derive(Clone, Debug)]
pub struct ExecutionFilter {
    /// Of this job only.
    pub job: Option<Name>,
    /// In this state only.
    pub state: Option<State>,
    /// Older than this one: how to go on after a page.
    pub before: Option<Uuid>,
    /// This many at most.
    pub limit: u32,
}

impl Store {
    /// One execution.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn execution(&self, id: Uuid) -> Result<Option<ExecutionRecord>, StoreError> {
        let row: Option<ExecutionRow> = on_read!(self, sql, conn => {
            sqlx::query_as(sql::EXECUTION).bind(id).fetch_optional(conn).await?
        });
        row.map(ExecutionRow::record).transpose()
    }

    /// Executions, the newest first.
    ///
    /// # Errors
    /// [`StoreError::UnknownJob`] where the filter names one.
    pub async fn executions(&self, filter: &ExecutionFilter) -> Result<Vec<ExecutionRecord>, StoreError> {
        let job: Option<i32> = match &filter.job {
            None => None,
            Some(name) => {
                let id = on_read!(self, sql, conn => {
                    sqlx::query_scalar(sql::JOB_ID).bind(name.as_str()).fetch_optional(conn).await?
                });
                match id {
                    Some(id) => Some(id),
                    None => return Err(self.unknown_job(name).await?),
                }
            }
        };
        // No UUIDv7 is as high.
        let before = filter.before.unwrap_or(Uuid::max());
        let rows: Vec<ExecutionRow> = on_read!(self, sql, conn => {
            let page = |statement| sqlx::query_as(statement).bind(before).bind(i64::from(filter.limit));
            let page = match (filter.state, job) {
                (None, None) => page(sql::EXECUTIONS),
                (None, Some(_)) => page(sql::EXECUTIONS_OF_JOB).bind(job),
                (Some(State::Queued), _) => page(sql::QUEUED).bind(job),
                (Some(State::Scheduled), _) => page(sql::SCHEDULED).bind(job),
                (Some(State::Retrying), _) => page(sql::RETRYING).bind(job),
                (Some(State::Running), _) => page(sql::RUNNING).bind(job),
                (Some(State::Succeeded), None) => page(sql::SUCCEEDED),
                (Some(State::Succeeded), Some(_)) => page(sql::SUCCEEDED_OF_JOB).bind(job),
                (Some(state @ (State::Failed | State::Cancelled | State::Skipped)), _) => {
                    page(sql::UNSUCCESSFUL).bind(job).bind(state.as_str())
                }
            };
            page.fetch_all(conn).await?
        });
        rows.into_iter().map(ExecutionRow::record).collect()
    }
}

row! {
    /// An execution, and where it is found.
    struct ExecutionRow {
        id: Uuid,
        job: String,
        plugin: String,
        handler: String,
        args: String,
        triggered_by: String,
        scheduled_at: Time,
        max_attempts: i32,
        /// The latest start.
        start_lease: Option<i64>,
        start_attempt: Option<i32>,
        started_at: Option<Time>,
        host: Option<String>,
        digest: Option<String>,
        /// The final completion, else the latest.
        completion_lease: Option<i64>,
        completion_attempt: Option<i32>,
        outcome: Option<String>,
        r#final: Option<bool>,
        finished_at: Option<Time>,
        result: Option<String>,
        error: Option<String>,
        usage: Option<String>,
        waiting_attempt: Option<i32>,
        due_at: Option<Time>,
        blocker: Option<String>,
        ready_attempt: Option<i32>,
        done: Option<i64>,
        total: Option<i64>,
        message: Option<String>,
        retry_of: Option<Uuid>,
        cancel_reason: Option<String>,
    }
}

impl ExecutionRow {
    /// Where the execution stands: an execution is in exactly one of the places asked here.
    pub(super) fn state(&self) -> Result<State, StoreError> {
        let lost = || StoreError::Corrupt(format!("execution {} is nowhere", self.id));
        if self.r#final == Some(true) {
            return state_of_outcome(self.id, self.outcome.as_deref().unwrap_or_default());
        }
        match (self.waiting_attempt, self.ready_attempt, self.start_lease) {
            // It is due, and something else keeps it.
            (Some(_), _, _) if self.due_at.is_none() => Ok(State::Queued),
            (Some(0), _, _) => Ok(State::Scheduled),
            (Some(_), _, _) => Ok(State::Retrying),
            (None, Some(_), _) => Ok(State::Queued),
            (None, None, Some(lease)) if self.completion_lease.is_none_or(|ended| ended < lease) => {
                Ok(State::Running)
            }
            (None, None, _) => Err(lost()),
        }
    }

    fn record(self) -> Result<ExecutionRecord, StoreError> {
        let state = self.state()?;
        // One that was ended before it started (again) has no start that would tell.
        let unstarted = self.completion_attempt.filter(|_| self.completion_lease == Some(0));
        let attempt =
            self.waiting_attempt.or(self.ready_attempt).or(unstarted).or(self.start_attempt).unwrap_or(0);
        // While another attempt runs, the end of the one before is history.
        let error = self.error.filter(|_| state != State::Running);
        let usage = self.usage.filter(|_| state != State::Running);
        let progress = self.done.map(|done| Progress {
            done: done.max(0).unsigned_abs(),
            total: self.total.map(|total| total.max(0).unsigned_abs()),
            message: self.message,
        });
        Ok(ExecutionRecord {
            id: self.id,
            job: stored_name(&self.job)?,
            plugin: stored_name(&self.plugin)?,
            handler: self.handler,
            state,
            attempt: from_count(attempt)?,
            max_attempts: from_count(self.max_attempts)?,
            triggered_by: stored_trigger(&self.triggered_by)?,
            scheduled_at: self.scheduled_at.0,
            started_at: self.started_at.map(|time| time.0),
            finished_at: self.finished_at.filter(|_| state.is_final()).map(|time| time.0),
            due_at: self.due_at.map(|time| time.0),
            blocker: self.blocker.as_deref().and_then(Blocker::of_code),
            args: stored_json("the arguments of an execution", &self.args)?,
            result: self.result.map(|text| stored_json("the result of an execution", &text)).transpose()?,
            error: error.map(|text| stored_failure(&text)).transpose()?,
            host: self.host,
            component_digest: self.digest,
            usage: usage.map(|text| stored_usage(&text)).transpose()?,
            progress,
            retry_of: self.retry_of,
            cancel_requested: self.cancel_reason.filter(|_| state == State::Running),
        })
    }
}
