//! Looking at executions. The states are derived here, from where an execution's rows are.

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::StoreError;
use super::connection::Store;
use crate::execution::{Failure, Progress, State, Trigger};
use crate::job::Name;

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
    /// What the handler last said of its progress.
    pub progress: Option<Progress>,
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
    pub async fn execution(&self, _id: Uuid) -> Result<Option<ExecutionRecord>, StoreError> {
        unimplemented!()
    }

    /// Executions, the newest first.
    ///
    /// # Errors
    /// [`StoreError::UnknownJob`] where the filter names one.
    pub async fn executions(&self, _filter: &ExecutionFilter) -> Result<Vec<ExecutionRecord>, StoreError> {
        unimplemented!()
    }
}
