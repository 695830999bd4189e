//! Other jobs: enqueue an execution of one.
//!
//! The operator names the jobs that a plugin may enqueue: `jobs = ["weekly-report"]` in its
//! section of the configuration.
//!
//! ```no_run
//! use innkeeper_sdk::{Failure, jobs};
//! use serde_json::json;
//!
//! fn ask_for_a_report() -> Result<String, Failure> {
//!     let request = jobs::Request::new("weekly-report").args(json!({ "team": "ops" })).unique_key("ops");
//!     Ok(jobs::enqueue(&request)?)
//! }
//! ```

use std::fmt;
use std::time::SystemTime;

use serde::Serialize;

use crate::bindings::innkeeper::plugin::{jobs as wit, types};
use crate::time::to_micros;

/// An execution to enqueue.
#[derive(Clone, Debug)]
pub struct Request {
    job: String,
    /// JSON text, or why there is none: a builder is nicer when only `enqueue` can fail.
    args: Result<Option<String>, String>,
    run_at: Option<SystemTime>,
    unique_key: Option<String>,
}

impl Request {
    /// An execution of this job, now, with the arguments that the job has in the configuration.
    pub fn new(job: impl Into<String>) -> Self {
        Self { job: job.into(), args: Ok(None), run_at: None, unique_key: None }
    }

    /// Gives it arguments, which must fit the handler's schema.
    #[must_use]
    pub fn args(mut self, args: impl Serialize) -> Self {
        self.args = serde_json::to_string(&args).map(Some).map_err(|error| error.to_string());
        self
    }

    /// Lets it wait until this time.
    #[must_use]
    pub fn run_at(mut self, time: SystemTime) -> Self {
        self.run_at = Some(time);
        self
    }

    /// Gives it a key: of one job, at most one unfinished execution has it.
    #[must_use]
    pub fn unique_key(mut self, key: impl Into<String>) -> Self {
        self.unique_key = Some(key.into());
        self
    }
}

/// Enqueues an execution in a transaction of the host's own, which has ended when this returns,
/// and returns its id.
///
/// # Errors
/// See [`Error`].
pub fn enqueue(request: &Request) -> Result<String, Error> {
    let args = request.args.clone().map_err(|error| {
        Error::InvalidArgs(format!("the arguments for {} cannot be written as JSON: {error}", request.job))
    })?;
    let request = types::Request {
        job: request.job.clone(),
        args,
        run_at: request.run_at.map(to_micros),
        unique_key: request.unique_key.clone(),
    };
    wit::enqueue(&request).map_err(Error::from)
}

/// Why an execution was not enqueued. Each case has the host's words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// There is no such job.
    UnknownJob(String),
    /// The arguments do not fit the handler's schema.
    InvalidArgs(String),
    /// The plugin may not enqueue this job.
    Denied(String),
    /// Anything else, such as a store that cannot be reached.
    Other(String),
}

impl From<wit::Error> for Error {
    fn from(error: wit::Error) -> Self {
        match error {
            wit::Error::UnknownJob(message) => Self::UnknownJob(message),
            wit::Error::InvalidArgs(message) => Self::InvalidArgs(message),
            wit::Error::Denied(message) => Self::Denied(message),
            wit::Error::Other(message) => Self::Other(message),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownJob(message)
            | Self::InvalidArgs(message)
            | Self::Denied(message)
            | Self::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}
