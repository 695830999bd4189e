//! Enqueues an execution after a look at its arguments; what an operator and a handler ask
//! for goes the same way.

use serde_json::Value;

use crate::job::Job;
use crate::plugin::{find_handler, from_descriptions};
use crate::store::{Enqueued, NewExecution, Store, StoreError};

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
