//! An execution is asked for: by an operator, or by a handler.

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::StoreError;
use super::connection::Store;
use super::handler::Holder;
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
    pub async fn enqueue(&self, _new: &NewExecution<'_>) -> Result<Enqueued, StoreError> {
        unimplemented!()
    }
}
