//! The `jobs` interface: a handler enqueues executions of the jobs that its plugin was granted.

use std::sync::Arc;

use jiff::Timestamp;
use wasmtime::Result;
use wasmtime::component::{HasData, Linker};

use super::activity::{Activity, What};
use super::bindings::innkeeper::plugin::{jobs, types};
use super::{EnqueueError, EnqueueRequest, Port};
use crate::bounds;

/// What the interface needs of one execution.
pub struct JobsView<'a> {
    /// The host's side.
    pub port: &'a Arc<dyn Port>,
    /// What the execution is doing.
    pub activity: &'a Activity,
}

struct View;

impl HasData for View {
    type Data<'a> = JobsView<'a>;
}

/// Adds the interface to a linker.
///
/// # Errors
/// Where the linker has it already.
pub fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    get: fn(&mut T) -> JobsView<'_>,
) -> Result<()> {
    jobs::add_to_linker::<T, View>(linker, get)
}

impl jobs::Host for JobsView<'_> {
    async fn enqueue(&mut self, request: types::Request) -> Result<Result<String, jobs::Error>> {
        let request = match to_request(request) {
            Ok(request) => request,
            Err(error) => return Ok(Err(to_wit(error))),
        };
        let _entered = self.activity.enter(What::Host("jobs.enqueue"));
        Ok(self.port.enqueue(request).await.map(|id| id.to_string()).map_err(to_wit))
    }
}

fn to_request(request: types::Request) -> Result<EnqueueRequest, EnqueueError> {
    let args = request
        .args
        .map(|text| bounds::document(&text))
        .transpose()
        .map_err(|why| EnqueueError::InvalidArgs(format!("`args` {why}")))?;
    let run_at = request.run_at.map(Timestamp::from_microsecond).transpose().map_err(|error| {
        EnqueueError::Other(format!("`run-at` is not a time in microseconds since 1970: {error}"))
    })?;
    if request.unique_key.as_ref().is_some_and(|key| key.is_empty() || key.len() > 500) {
        return Err(EnqueueError::Other("`unique-key` has 1 to 500 bytes".to_owned()));
    }
    Ok(EnqueueRequest { job: request.job, args, run_at, unique_key: request.unique_key })
}

fn to_wit(error: EnqueueError) -> jobs::Error {
    match error {
        EnqueueError::UnknownJob(message) => jobs::Error::UnknownJob(message),
        EnqueueError::InvalidArgs(message) => jobs::Error::InvalidArgs(message),
        EnqueueError::Denied(message) => jobs::Error::Denied(message),
        EnqueueError::Other(message) => jobs::Error::Other(message),
    }
}
