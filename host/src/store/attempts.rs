//! Looking at the attempts of one execution.

use jiff::Timestamp;
use uuid::Uuid;

use super::StoreError;
use super::connection::Store;
use super::row::{from_count, on_read, row, stored_failure, stored_usage};
use super::time::Time;
use crate::execution::Failure;
use crate::limits::Usage;

/// One attempt, and how it ended.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptRecord {
    /// The number of its START.
    pub lease: i64,
    /// 1 for the first. One that was released does not count: the next has the same number.
    pub attempt: u32,
    /// The host, as long as there is a record of it.
    pub host: Option<String>,
    /// The digest of the component that it was started with.
    pub component_digest: Option<String>,
    /// When it started.
    pub started_at: Timestamp,
    /// When its end was recorded.
    pub finished_at: Option<Timestamp>,
    /// How it ended; none while it runs.
    pub outcome: Option<AttemptOutcome>,
    /// Why it did not succeed.
    pub error: Option<Failure>,
    /// What it has used, as far as its host measured it.
    pub usage: Option<Usage>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The handler returned a result.
    Succeeded,
    /// It failed, or its host died.
    Failed,
    /// Somebody wanted it to end, and it did.
    Cancelled,
    /// Its host gave the execution back before it was done.
    Released,
}

impl AttemptOutcome {
    /// As it is shown, and as the store has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Released => "released",
        }
    }

    fn of_code(code: &str) -> Result<Self, StoreError> {
        let all = [Self::Succeeded, Self::Failed, Self::Cancelled, Self::Released];
        let known = all.into_iter().find(|known| known.as_str() == code);
        known.ok_or_else(|| StoreError::Corrupt(format!("an attempt that ended as `{code}`")))
    }
}

impl Store {
    /// The newest `limit` attempts of an execution, the oldest of them first.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn attempts(&self, execution: Uuid, limit: u32) -> Result<Vec<AttemptRecord>, StoreError> {
        let rows: Vec<AttemptRow> = on_read!(self, sql, conn => {
            sqlx::query_as(sql::ATTEMPTS).bind(execution).bind(i64::from(limit)).fetch_all(conn).await?
        });
        rows.into_iter().map(AttemptRow::record).collect()
    }
}

row! {
    struct AttemptRow {
        lease: i64,
        attempt: i32,
        started_at: Time,
        host: Option<String>,
        digest: Option<String>,
        outcome: Option<String>,
        finished_at: Option<Time>,
        error: Option<String>,
        usage: Option<String>,
    }
}

impl AttemptRow {
    fn record(self) -> Result<AttemptRecord, StoreError> {
        Ok(AttemptRecord {
            lease: self.lease,
            attempt: from_count(self.attempt)?,
            host: self.host,
            component_digest: self.digest,
            started_at: self.started_at.0,
            finished_at: self.finished_at.map(|time| time.0),
            outcome: self.outcome.as_deref().map(AttemptOutcome::of_code).transpose()?,
            error: self.error.map(|text| stored_failure(&text)).transpose()?,
            usage: self.usage.map(|text| stored_usage(&text)).transpose()?,
        })
    }
}
