//! The running execution.

use std::time::SystemTime;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Failure;
use crate::bindings::innkeeper::plugin::{context as wit, types};
use crate::time::from_micros;

pub use types::Trigger;

/// The execution that a handler runs for: what is known of it, and what can be said about it
/// to the host.
#[derive(Debug)]
pub struct Context {
    execution: types::Execution,
}

impl Context {
    pub(crate) fn new(execution: types::Execution) -> Self {
        Self { execution }
    }

    /// The execution's id, a `UUIDv7` in text. Every attempt of the execution has the same.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.execution.id
    }

    /// The name of the job.
    #[must_use]
    pub fn job(&self) -> &str {
        &self.execution.job
    }

    /// The number of this attempt; 1 for the first.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.execution.attempt
    }

    /// How many attempts the execution has in all.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.execution.max_attempts
    }

    /// Who asked for the execution.
    #[must_use]
    pub fn triggered_by(&self) -> Trigger {
        self.execution.triggered_by
    }

    /// When it was due by its schedule; for others, the time it was asked for.
    #[must_use]
    pub fn scheduled_at(&self) -> SystemTime {
        from_micros(self.execution.scheduled_at)
    }

    /// When this attempt started, by the clock that the hosts share. The right "now" for a
    /// handler that compares times: it stays the same while the handler runs.
    #[must_use]
    pub fn started_at(&self) -> SystemTime {
        from_micros(self.execution.started_at)
    }

    /// When the host ends this attempt, by its time-out.
    #[must_use]
    pub fn deadline(&self) -> Option<SystemTime> {
        self.execution.deadline.map(from_micros)
    }

    /// What an earlier attempt saved last with [`save_checkpoint`](Self::save_checkpoint).
    ///
    /// # Errors
    /// A permanent failure when the checkpoint does not fit `T`.
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, Failure> {
        let Some(state) = &self.execution.checkpoint else { return Ok(None) };
        serde_json::from_str(state).map(Some).map_err(|error| {
            Failure::permanent(format!("the checkpoint of an earlier attempt does not fit: {error}"))
        })
    }

    /// Saves where the work stands, for a later attempt of this execution. The host keeps it in
    /// a transaction of its own, which has ended when this returns; the last one counts.
    ///
    /// # Errors
    /// A permanent failure when the state cannot be written as JSON, a retryable one when the
    /// host could not keep it.
    pub fn save_checkpoint<T: Serialize + ?Sized>(&self, state: &T) -> Result<(), Failure> {
        let state = serde_json::to_string(state).map_err(|error| {
            Failure::permanent(format!("the checkpoint cannot be written as JSON: {error}"))
        })?;
        wit::save_checkpoint(&state)
            .map_err(|error| Failure::retryable(format!("the checkpoint was not saved: {error}")))
    }

    /// Says how far the work is, in units of the handler's choice, for whoever watches.
    ///
    /// ```no_run
    /// # fn f(ctx: &innkeeper_sdk::Context) {
    /// ctx.progress(300, 1000, "rows deleted");
    /// ctx.progress(300, None, None);
    /// # }
    /// ```
    pub fn progress<'a>(
        &self,
        done: u64,
        total: impl Into<Option<u64>>,
        message: impl Into<Option<&'a str>>,
    ) {
        wit::progress(done, total.into(), message.into());
    }

    /// True once an operator or a shutdown has asked the execution to stop. A handler that runs
    /// for long asks now and then, and comes to an end where it can: with a result where the work is
    /// done, else with a retryable failure. After a shutdown that is tried again; after a
    /// cancellation it is not, and the execution is cancelled.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        wit::cancelled()
    }
}

impl Trigger {
    /// The trigger as the host writes it, such as `"schedule"`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Manual => "manual",
            Self::Dependency => "dependency",
            Self::Handler => "handler",
            Self::Backfill => "backfill",
        }
    }
}
