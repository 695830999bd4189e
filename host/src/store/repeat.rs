//! An execution that has ended is repeated, as a new one.

use jiff::Timestamp;
use uuid::Uuid;

use super::StoreError;
use super::connection::Store;
use super::enqueue::NewExecution;
use super::row::on_read;
use crate::execution::{State, Trigger};
use crate::job::Name;

/// What became of the wish to repeat an execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repeated {
    /// This execution repeats it.
    As(Uuid),
    /// It has not ended.
    Unfinished(State),
    /// It has succeeded, and only what did not is repeated unless that is wanted too.
    Succeeded,
    /// No configuration names its job any more.
    Retired {
        /// The job.
        job: Name,
        /// When it was retired.
        at: Timestamp,
    },
    /// This unfinished execution has its unique key.
    KeyTaken(Uuid),
    /// There is no such execution, or no longer.
    Unknown,
}

impl Store {
    /// Enqueues an execution with the job, the arguments and the unique key of one that failed,
    /// was cancelled or skipped; `even_succeeded`: or succeeded. How often it is tried, and all
    /// else, is as the job is defined now.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn repeat(&self, execution: Uuid, even_succeeded: bool) -> Result<Repeated, StoreError> {
        let Some(old) = self.execution(execution).await? else { return Ok(Repeated::Unknown) };
        // What is decided by does not change any more: an execution ends once.
        match old.state {
            State::Succeeded if !even_succeeded => return Ok(Repeated::Succeeded),
            state if !state.is_final() => return Ok(Repeated::Unfinished(state)),
            _ => {}
        }
        let key: Option<Option<String>> = on_read!(self, sql, conn => {
            sqlx::query_scalar(sql::UNIQUE_KEY_OF).bind(execution).fetch_optional(conn).await?
        });
        let key = key.flatten();
        let new = NewExecution {
            job: &old.job,
            args: Some(&old.args),
            triggered_by: Trigger::Manual,
            run_at: None,
            unique_key: key.as_deref(),
            by: None,
        };
        match self.enqueue_repeating(&new, Some(execution)).await {
            Ok(enqueued) if enqueued.created => Ok(Repeated::As(enqueued.id)),
            Ok(holder) => Ok(Repeated::KeyTaken(holder.id)),
            Err(StoreError::UnknownJob { name, known }) => {
                // It was there when its execution was read, and no job is ever removed.
                match self.job(&name).await?.retired_at {
                    Some(at) => Ok(Repeated::Retired { job: name, at }),
                    None => Err(StoreError::UnknownJob { name, known }),
                }
            }
            Err(error) => Err(error),
        }
    }
}
