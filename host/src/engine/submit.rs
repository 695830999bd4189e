//! Enqueues an execution after a look at its arguments; what an operator and a handler ask
//! for goes the same way.

use serde_json::Value;
use uuid::Uuid;

use crate::job::Job;
use crate::plugin::{find_handler, from_descriptions};
use crate::store::{Enqueued, NewExecution, Repeated, Store, StoreError};

/// Why nothing was enqueued.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// No such job.
    #[error("{0}")]
    UnknownJob(String),
    /// The arguments do not fit the schema of the job's handler.
    #[error("{0}")]
    InvalidArgs(String),
    /// The store.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for SubmitError {
    fn from(error: StoreError) -> Self {
        match error {
            unknown @ StoreError::UnknownJob { .. } => Self::UnknownJob(unknown.to_string()),
            error => Self::Store(error),
        }
    }
}

/// Checks the arguments against what the plugin said of its handler, and enqueues.
///
/// The description is the store's, so that this works where the component is not.
///
/// # Errors
/// See [`SubmitError`].
pub async fn submit(store: &Store, execution: &NewExecution<'_>) -> Result<Enqueued, SubmitError> {
    if let Some(args) = execution.args {
        let record = store.job(execution.job).await?;
        check_args(store, &record.job, args).await?;
    }
    Ok(store.enqueue(execution).await?)
}

/// Repeats an execution that has ended, after a look at its arguments: the job's handler may take
/// others by now. `even_succeeded`: also one that succeeded.
///
/// # Errors
/// See [`SubmitError`].
pub async fn repeat(store: &Store, execution: Uuid, even_succeeded: bool) -> Result<Repeated, SubmitError> {
    if let Some(old) = store.execution(execution).await?.filter(|old| old.state.is_final()) {
        let record = store.job(&old.job).await?;
        if record.retired_at.is_none() {
            check_args(store, &record.job, &old.args).await?;
        }
    }
    Ok(store.repeat(execution, even_succeeded).await?)
}

async fn check_args(store: &Store, job: &Job, args: &Value) -> Result<(), SubmitError> {
    // No host has loaded the plugin yet: the executor checks them before the call.
    let Some(descriptions) = store.plugin_handlers(&job.plugin).await? else { return Ok(()) };
    let handlers =
        from_descriptions(descriptions).map_err(|error| SubmitError::Store(StoreError::Corrupt(error)))?;
    let handler =
        find_handler(&handlers, job.plugin.as_str(), &job.handler).map_err(SubmitError::InvalidArgs)?;
    crate::args::check_args(handler.args_schema.as_ref(), args).map_err(|error| {
        SubmitError::InvalidArgs(format!("the arguments do not fit handler `{}`: {error}", handler.name))
    })
}
