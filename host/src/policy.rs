//! How the executions of a job are treated besides being retried: where they stand in line, how
//! many run at once and how often, what they wait for, and what becomes of fires that were missed.
//!
//! Pure: no I/O, no clock. What a job leaves out costs it nothing: its executions go straight to
//! the queue.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::name::Name;

/// What an operator says of a job's executions. The default is what a job without any of these
/// keys has, and is not written into its stored definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policies {
    /// The queue; none for the one that is always there, [`Queue::DEFAULT`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Name>,
    /// Higher goes first: each step counts as much as [`PRIORITY_STEP`] of waiting, so that
    /// nothing starves. From -[`HIGHEST_PRIORITY`] to [`HIGHEST_PRIORITY`].
    #[serde(skip_serializing_if = "is_default")]
    pub priority: i32,
    /// How many run at once, over all hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// How many start in a time, over all hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// What has to succeed before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<After>,
    /// The job to run when an execution of this one has finally failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<Name>,
    /// What becomes of fires that were missed.
    #[serde(skip_serializing_if = "is_default")]
    pub catch_up: CatchUp,
    /// How long a cancelled handler has to end by itself before it is stopped.
    #[serde(skip_serializing_if = "Policies::is_default_grace")]
    pub cancel_grace: Duration,
}

/// What a step of priority is worth: an execution goes before another one that has been due for
/// less than this much longer and has a priority that is lower by one.
pub const PRIORITY_STEP: Duration = Duration::from_secs(60);

/// The highest priority; its negative is the lowest.
pub const HIGHEST_PRIORITY: i32 = 1_000;

impl Policies {
    /// Long enough for a handler that looks at `cancelled()` between two pieces of work.
    pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);

    fn is_default_grace(grace: &Duration) -> bool {
        *grace == Self::DEFAULT_GRACE
    }

    /// True where its executions need a permit before they are ready to start.
    #[must_use]
    pub fn is_gated(&self) -> bool {
        self.concurrency.is_some() || self.rate.is_some()
    }
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            queue: None,
            priority: 0,
            concurrency: None,
            rate: None,
            after: None,
            on_failure: None,
            catch_up: CatchUp::default(),
            cancel_grace: Self::DEFAULT_GRACE,
        }
    }
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// How many executions of a job run at once. At least one of the two limits is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concurrency {
    /// Of the job as a whole; at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Of those with the same key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_key: Option<PerKey>,
    /// What becomes of an execution that is due while the limit is reached.
    #[serde(default, skip_serializing_if = "is_default")]
    pub when_full: WhenFull,
}

/// A limit for each value of an argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerKey {
    /// Which argument: a JSON pointer (RFC 6901) into the arguments, such as `/customer`.
    pub pointer: String,
    /// How many at once; at least 1.
    pub limit: u32,
}

/// What becomes of an execution that is due while its job's limit is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// It waits in line.
    #[default]
    Queue,
    /// It is not run, which is put on record.
    Skip,
    /// What runs is cancelled in favour of it; what waits before it is not run.
    Replace,
}

impl PerKey {
    /// The key of an execution with these arguments: the value's JSON text, cut to
    /// [`LONGEST_KEY`] bytes by a hash where it is longer; `null` where the arguments have no such
    /// value, so that these share a key.
    #[must_use]
    pub fn key(&self, args: &Value) -> String {
        let text = args.pointer(&self.pointer).unwrap_or(&Value::Null).to_string();
        if text.len() <= LONGEST_KEY {
            return text;
        }
        use sha2::{Digest as _, Sha256};
        let digest = Sha256::digest(text.as_bytes());
        digest.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
    }
}

/// Bytes of a key as the store keeps it.
pub const LONGEST_KEY: usize = 200;

/// How many executions of a job start in a time: never more than `count` in any span of `period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// At least 1.
    pub count: u32,
    /// In whole microseconds.
    pub period: Duration,
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} per {}", self.count, humantime::format_duration(self.period))
    }
}

/// What a job comes after. With a schedule: a fire waits until the others have succeeded since
/// its last run. Without one: their success triggers the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    /// The jobs; at least one, each once, never the job itself.
    pub jobs: Vec<Name>,
    /// Whether all of them have to succeed, or any.
    #[serde(default, skip_serializing_if = "is_default")]
    pub when: When,
}

/// How many of the jobs that another one comes after have to succeed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// Each of them, since the last run.
    #[default]
    All,
    /// One of them.
    Any,
}

/// What becomes of fires whose time has passed while no host was there to see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatchUp {
    /// Which of them still run.
    pub mode: CatchUpMode,
    /// How late a fire may be run. `None`: any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
    /// How many missed fires run at once, for [`CatchUpMode::All`]; at least 1.
    pub max: u32,
}

impl Default for CatchUp {
    fn default() -> Self {
        Self { mode: CatchUpMode::Latest, window: None, max: 100 }
    }
}

/// Which missed fires still run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CatchUpMode {
    /// None of them.
    None,
    /// The latest one.
    #[default]
    Latest,
    /// All, the newest `max` of them.
    All,
}

/// A queue: jobs that name it share its limits and its part of the hosts' slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Its name.
    pub name: Name,
    /// Its part of a host's slots where several queues have something to run; at least 1.
    pub weight: u32,
    /// How many executions run at once over all hosts.
    pub limit: Option<u32>,
    /// How many executions run at once on one host.
    pub limit_per_host: Option<u32>,
}

impl Queue {
    /// The queue of jobs that name none. It is always there.
    pub const DEFAULT: &str = "default";
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_job_that_says_nothing_has_nothing_of_it_in_its_definition() {
        assert_eq!(serde_json::to_string(&Policies::default()).unwrap(), "{}");
        assert_eq!(serde_json::from_str::<Policies>("{}").unwrap(), Policies::default());
    }

    #[test]
    fn policies_survive_being_stored() {
        let policies = Policies {
            queue: Some(Name::new("reports").unwrap()),
            priority: -3,
            concurrency: Some(Concurrency {
                limit: Some(2),
                per_key: Some(PerKey { pointer: "/customer".into(), limit: 1 }),
                when_full: WhenFull::Replace,
            }),
            rate: Some(Rate { count: 100, period: Duration::from_secs(60) }),
            after: Some(After { jobs: vec![Name::new("a").unwrap()], when: When::Any }),
            on_failure: Some(Name::new("b").unwrap()),
            catch_up: CatchUp { mode: CatchUpMode::All, window: Some(Duration::from_secs(3600)), max: 5 },
            cancel_grace: Duration::from_secs(1),
        };
        let text = serde_json::to_string(&policies).unwrap();
        assert_eq!(serde_json::from_str::<Policies>(&text).unwrap(), policies, "{text}");
    }

    #[test]
    fn a_key_is_the_json_of_an_argument_and_never_long() {
        let by = PerKey { pointer: "/customer/id".into(), limit: 1 };
        assert_eq!(by.key(&json!({ "customer": { "id": 7 } })), "7");
        assert_eq!(by.key(&json!({ "customer": { "id": "7" } })), "\"7\"", "a text is not a number");
        assert_eq!(by.key(&json!({})), "null");
        let long = |c: &str| by.key(&json!({ "customer": { "id": c.repeat(1_000) } }));
        assert!(long("a").len() <= LONGEST_KEY && long("a") != long("b"));
    }
}
