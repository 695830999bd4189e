//! The life of an execution, as rules: what follows from how an attempt ended.
//!
//! Pure: no I/O, no clock. The states are derived from the store's rows and never stored;
//! `ARCHITECTURE.md` has the diagram.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::job::{Job, Name, OnCrash};
use crate::limits::Usage;

/// Where an execution stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is due later, and no attempt has been made.
    Scheduled,
    /// It may start as soon as a host has a free slot.
    Queued,
    /// An attempt has started and not ended.
    Running,
    /// An attempt has failed, and another one is due later.
    Retrying,
    /// The handler returned a result.
    Succeeded,
    /// It failed and is not tried again.
    Failed,
    /// An operator ended it.
    Cancelled,
    /// It was never started, for a reason that is on record.
    Skipped,
}

impl State {
    /// Every state, in the order of an execution's life.
    pub const ALL: [Self; 8] = [
        Self::Scheduled,
        Self::Queued,
        Self::Running,
        Self::Retrying,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Skipped,
    ];

    /// The state as it is written in JSON and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }

    /// True when nothing will change it any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Skipped)
    }
}

/// Who asked for an execution. The cases are those of the plugin interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// The job's schedule.
    Schedule,
    /// An operator.
    Manual,
    /// The end of another job.
    Dependency,
    /// A handler, by `jobs.enqueue`.
    Handler,
    /// An operator, for a time that has passed.
    Backfill,
}

impl Trigger {
    /// The trigger as it is written in JSON.
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

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The handler returned this result (any JSON).
    Succeeded(serde_json::Value),
    /// It did not succeed.
    Failed(Failure),
    /// Somebody wanted it to end, and it did before it was done: why, for the person who reads it.
    Cancelled(String),
    /// The host stopped before the handler was done, and gave the execution back: the
    /// attempt does not count.
    Released,
}

impl Outcome {
    /// What is recorded of an attempt that ended so after somebody had asked for its end: one that
    /// succeeded in spite of it has succeeded, and any other is cancelled, for `reason`.
    #[must_use]
    pub fn after_a_request(self, reason: &str) -> Self {
        match self {
            Self::Succeeded(_) | Self::Cancelled(_) => self,
            Self::Released => Self::Cancelled(reason.to_owned()),
            Self::Failed(Failure { kind, message, .. }) => {
                Self::Cancelled(format!("{reason}; the attempt ended with `{}`: {message}", kind.as_str()))
            }
        }
    }
}

/// Why an attempt did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// What happened, for the person who reads it.
    pub message: String,
    /// The handler asked not to be tried again before this much time has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
}

/// The kinds of failure, told apart by whose fault they are and what to do about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The handler said that it failed, and that trying again may help.
    Handler,
    /// The handler said that it failed, and that trying again will not help.
    Permanent,
    /// The handler panicked or trapped.
    Trap,
    /// The handler ran longer than its time-out.
    Timeout,
    /// The handler wanted more memory than its limit.
    Memory,
    /// The handler has used up the fuel that its plugin has for one attempt.
    Fuel,
    /// The handler returned what cannot be kept: too much, too deep, or no JSON.
    Result,
    /// The host died while the handler ran.
    Crashed,
    /// The host could not run the handler. Not the plugin's fault.
    Host,
    /// An operator, or another execution that replaces it, ended it.
    Cancelled,
    /// It was not run at all, by the job's own policy.
    Skipped,
}

impl FailureKind {
    /// The kind as it is written in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Handler => "handler",
            Self::Permanent => "permanent",
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Fuel => "fuel",
            Self::Result => "result",
            Self::Crashed => "crashed",
            Self::Host => "host",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }
}

/// One attempt that a host has started: what START returned.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The number of this START, never used again.
    pub lease: i64,
    /// The execution.
    pub execution: Uuid,
    /// 1 for the first.
    pub attempt: u32,
    /// Fixed when the execution was made.
    pub max_attempts: u32,
    /// The job as it was when the attempt started.
    pub job: Arc<Job>,
    /// The execution's arguments.
    pub args: serde_json::Value,
    /// Who asked for it.
    pub triggered_by: Trigger,
    /// The time that it was due, or was asked for.
    pub scheduled_at: Timestamp,
    /// When START was recorded, by the store's clock.
    pub started_at: Timestamp,
    /// What an earlier attempt saved last.
    pub checkpoint: Option<serde_json::Value>,
    /// It holds a unique key of its job, to be given up with its final outcome.
    pub has_unique_key: bool,
    /// What else its end sets free or sets off.
    pub effects: Effects,
    /// The digest of the component that START has put on record: this one is to run, and no other.
    pub component: Arc<str>,
}

/// What the end of an attempt sets free or sets off, besides its record. Found out at its START, so
/// that the COMPLETION of an attempt that does nothing of it costs nothing more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// It may hold permits, of its job or of its queue.
    pub permits: bool,
    /// Other jobs come after its job, or are run when it has failed.
    pub followed: bool,
    /// Its job's next fire time counts from its end.
    pub paced: bool,
}

impl Effects {
    /// True when its end is nothing but a record.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// A line of an execution's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// When the handler wrote it, by the host's clock.
    pub at: Timestamp,
    /// How important it is.
    pub level: LogLevel,
    /// The text.
    pub message: String,
    /// What goes with it, by name.
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// How important a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Every step.
    Trace,
    /// For whoever looks for a fault.
    Debug,
    /// What happened.
    Info,
    /// What somebody should look at.
    Warn,
    /// What went wrong.
    Error,
}

impl LogLevel {
    /// Every level, the least important first.
    pub const ALL: [Self; 5] = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error];

    /// The level as it is written in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// How far the work of an execution is, in units of the handler's choice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all, where the handler knows.
    pub total: Option<u64>,
    /// What is being done.
    pub message: Option<String>,
}

/// What COMPLETION records of one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The START that this ends.
    pub lease: i64,
    /// The execution.
    pub execution: Uuid,
    /// The job, by name, for whoever watches.
    pub job: Name,
    /// The attempt that ended.
    pub attempt: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// What becomes of the execution.
    pub next: Next,
    /// It holds a unique key, to be given up when `next` is [`Next::Final`].
    pub has_unique_key: bool,
    /// As in the attempt.
    pub effects: Effects,
    /// What the attempt has used; none where it was not called.
    pub usage: Option<Usage>,
}

/// What becomes of an execution after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: the outcome is final.
    Final,
    /// Another attempt, this long after the completion is recorded.
    RetryIn(Duration),
    /// Back to the queue at once, and the attempt does not count.
    Requeue,
}

impl Attempt {
    /// Decides what follows from the outcome of this attempt.
    #[must_use]
    pub fn finish(&self, outcome: Outcome) -> Completion {
        Completion {
            next: next(&self.job, self.execution, self.attempt, self.max_attempts, &outcome),
            lease: self.lease,
            execution: self.execution,
            job: self.job.name.clone(),
            attempt: self.attempt,
            outcome,
            has_unique_key: self.has_unique_key,
            effects: self.effects,
            usage: None,
        }
    }
}

/// Decides what becomes of an execution of `job` after `attempt` ended with `outcome`.
#[must_use]
pub fn next(job: &Job, execution: Uuid, attempt: u32, max_attempts: u32, outcome: &Outcome) -> Next {
    match outcome {
        Outcome::Succeeded(_) | Outcome::Cancelled(_) => Next::Final,
        Outcome::Released => Next::Requeue,
        Outcome::Failed(failure) if !may_retry(job, failure) || attempt >= max_attempts => Next::Final,
        Outcome::Failed(failure) => {
            let wait = job.retry.wait_after(attempt, seed(execution));
            Next::RetryIn(wait.max(failure.retry_after.unwrap_or_default()))
        }
    }
}

fn may_retry(job: &Job, failure: &Failure) -> bool {
    match failure.kind {
        // What returned a result has done its work, and would return the same again.
        FailureKind::Permanent | FailureKind::Result | FailureKind::Cancelled | FailureKind::Skipped => false,
        FailureKind::Crashed => job.on_crash == OnCrash::Retry,
        FailureKind::Handler
        | FailureKind::Trap
        | FailureKind::Timeout
        | FailureKind::Memory
        | FailureKind::Fuel
        | FailureKind::Host => true,
    }
}

/// The low half of the id: random bits in a `UUIDv7` (RFC 9562, 5.7).
fn seed(execution: Uuid) -> u64 {
    execution.as_u64_pair().1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::{Backoff, RetryPolicy};

    fn job() -> Job {
        Job {
            name: Name::new("j").unwrap(),
            plugin: Name::new("p").unwrap(),
            handler: "h".into(),
            args: serde_json::json!({}),
            schedule: None,
            enabled: true,
            retry: RetryPolicy {
                max_attempts: 3,
                backoff: Backoff::Exponential,
                initial: Duration::from_secs(10),
                maximum: Duration::from_secs(3600),
                jitter: 0.0,
            },
            timeout: Duration::from_secs(60),
            on_crash: OnCrash::Retry,
            history: crate::job::History::default(),
            policies: crate::policy::Policies::default(),
        }
    }

    fn after(job: &Job, attempt: u32, kind: FailureKind) -> Next {
        next(job, Uuid::nil(), attempt, 3, &Outcome::Failed(Failure::new(kind, "m")))
    }

    #[test]
    fn a_success_is_final() {
        assert_eq!(
            next(&job(), Uuid::nil(), 1, 3, &Outcome::Succeeded(serde_json::Value::Null)),
            Next::Final
        );
    }

    #[test]
    fn a_failure_is_tried_again_until_the_attempts_are_used_up() {
        use FailureKind::{Fuel, Handler, Host, Memory, Timeout, Trap};
        for kind in [Handler, Trap, Timeout, Memory, Fuel, Host] {
            assert_eq!(after(&job(), 1, kind), Next::RetryIn(Duration::from_secs(10)), "{kind:?}");
            assert_eq!(after(&job(), 2, kind), Next::RetryIn(Duration::from_secs(20)), "{kind:?}");
            assert_eq!(after(&job(), 3, kind), Next::Final, "{kind:?}");
        }
    }

    #[test]
    fn a_permanent_failure_is_final_at_once() {
        assert_eq!(after(&job(), 1, FailureKind::Permanent), Next::Final);
        assert_eq!(after(&job(), 1, FailureKind::Result), Next::Final, "its work is done");
    }

    #[test]
    fn a_crash_is_tried_again_or_not_as_the_job_says_and_counts_as_an_attempt() {
        assert_eq!(after(&job(), 1, FailureKind::Crashed), Next::RetryIn(Duration::from_secs(10)));
        assert_eq!(after(&job(), 3, FailureKind::Crashed), Next::Final);
        let fail = Job { on_crash: OnCrash::Fail, ..job() };
        assert_eq!(after(&fail, 1, FailureKind::Crashed), Next::Final);
    }

    #[test]
    fn a_handler_can_ask_for_more_time_but_not_for_less() {
        let mut failure = Failure::new(FailureKind::Handler, "later");
        failure.retry_after = Some(Duration::from_secs(60));
        assert_eq!(
            next(&job(), Uuid::nil(), 1, 3, &Outcome::Failed(failure.clone())),
            Next::RetryIn(Duration::from_secs(60))
        );
        failure.retry_after = Some(Duration::from_secs(1));
        assert_eq!(
            next(&job(), Uuid::nil(), 1, 3, &Outcome::Failed(failure)),
            Next::RetryIn(Duration::from_secs(10))
        );
    }

    #[test]
    fn what_was_to_end_is_cancelled_unless_it_succeeded() {
        let done = Outcome::Succeeded(serde_json::json!(3));
        assert_eq!(done.clone().after_a_request("why"), done);
        assert_eq!(Outcome::Released.after_a_request("why"), Outcome::Cancelled("why".to_owned()));
        for kind in [FailureKind::Handler, FailureKind::Timeout, FailureKind::Crashed] {
            let cancelled = Outcome::Failed(Failure::new(kind, "boom")).after_a_request("why");
            assert_eq!(next(&job(), Uuid::nil(), 1, 3, &cancelled), Next::Final);
            let Outcome::Cancelled(text) = cancelled else { panic!("{cancelled:?}") };
            assert_eq!(text, format!("why; the attempt ended with `{}`: boom", kind.as_str()));
        }
    }

    #[test]
    fn a_released_attempt_goes_back_to_the_queue() {
        assert_eq!(next(&job(), Uuid::nil(), 3, 3, &Outcome::Released), Next::Requeue);
    }
}
