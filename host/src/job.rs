//! What an operator declares: a job, and how its executions are treated.
//!
//! Pure: no I/O, no clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::name::{InvalidName, Name};
use crate::policy::Policies;
use crate::retry::RetryPolicy;
use crate::schedule::Schedule;

/// A job: a handler of a plugin, its arguments, when it fires and what happens when it fails.
///
/// This is what the store keeps as the job's `spec`, so that every host and every command
/// sees the same definition whichever file it came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The job's name, unique in the store.
    pub name: Name,
    /// The plugin that has the handler, by its name in the configuration.
    pub plugin: Name,
    /// The handler, by the name that the plugin describes it with.
    pub handler: String,
    /// The arguments of executions that bring none of their own.
    pub args: serde_json::Value,
    /// When it fires. `None`: only by hand or by another job.
    pub schedule: Option<Schedule>,
    /// `false`: its schedule does not fire. It can still be run by hand.
    pub enabled: bool,
    /// How failed attempts are tried again.
    pub retry: RetryPolicy,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// What happens to an attempt whose host died.
    pub on_crash: OnCrash,
    /// How much of its history is kept. Definitions from before there was a choice have none.
    #[serde(default)]
    pub history: History,
    /// Where its executions stand in line, and what they wait for.
    #[serde(default, skip_serializing_if = "crate::policy::is_default")]
    pub policies: Policies,
}

/// How much of a job's history is kept. An execution is removed once either bound says so; one
/// that has not ended never is, and the newest of a job stays whatever its age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// How long an execution is kept after its end. `None`: for ever.
    pub keep: Option<Duration>,
    /// How many of the newest executions that have ended are kept. `None`: any number.
    pub last: Option<u32>,
}

impl Default for History {
    /// A quarter of a year: long enough to look into what went wrong last month, and a store that
    /// nobody looks after does not grow for ever.
    fn default() -> Self {
        Self { keep: Some(Duration::from_secs(90 * 86_400)), last: None }
    }
}

/// What happens to an execution whose host died while it ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnCrash {
    /// It is tried again while attempts are left; the crash counts as one.
    #[default]
    Retry,
    /// It has failed.
    Fail,
}
