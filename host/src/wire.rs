//! How jobs, executions, plugins and hosts look in JSON. The field names are a promise: they are
//! added to, never renamed.
//!
//! Times are RFC 3339 in UTC; a value that is not there is `null`, never left out.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::execution::{Failure, LogLine, Progress};
use crate::limits;
use crate::plugin::{Handler, from_descriptions};
use crate::policy::Queue;
use crate::store::{
    AttemptOutcome, AttemptRecord, Blocker, ExecutionRecord, HostRecord, JobRecord, LogRecord, PluginRecord,
    RunningExecution,
};

/// An execution.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "named as in the record that it is made of, which documents them")]
pub struct Execution {
    pub id: String,
    pub job: String,
    pub plugin: String,
    pub handler: String,
    pub state: &'static str,
    pub attempt: u32,
    pub max_attempts: u32,
    pub triggered_by: Value,
    pub scheduled_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub due_at: Option<Timestamp>,
    pub blocker: Option<&'static str>,
    pub args: Value,
    pub result: Option<Value>,
    pub error: Option<Error>,
    pub host: Option<String>,
    pub component_digest: Option<String>,
    pub usage: Option<Usage>,
    pub progress: Option<Progress>,
    pub retry_of: Option<String>,
    pub cancel_requested: Option<String>,
}

/// An execution with its attempts, the oldest first.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "an execution")]
pub struct ExecutionInFull {
    #[serde(flatten)]
    pub execution: Execution,
    /// The newest of them, where there are very many.
    pub attempts: Vec<Attempt>,
}

/// An attempt; `outcome` and `finished_at` are `null` while it runs.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "named as in the record that it is made of, which documents them")]
pub struct Attempt {
    pub attempt: u32,
    pub host: Option<String>,
    pub component_digest: Option<String>,
    pub started_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    pub outcome: Option<&'static str>,
    pub error: Option<Error>,
    pub usage: Option<Usage>,
}

/// What an attempt has used. What its host did not measure is 0.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "named as in the record that it is made of, which documents them")]
pub struct Usage {
    pub wall_us: u64,
    pub cpu_us: u64,
    pub memory_peak_bytes: u64,
    pub fuel: Option<u64>,
    pub db_calls: u64,
    pub db_transactions: u64,
    pub db_rows_read: u64,
    pub db_rows_changed: u64,
    pub db_bytes: u64,
    pub log_lines: u64,
    pub log_bytes: u64,
    pub http_requests: u64,
}

/// Why an attempt did not succeed.
#[derive(Debug, Serialize)]
pub struct Error {
    /// The kind of failure, such as `timeout`; see [`crate::execution::FailureKind`].
    pub kind: &'static str,
    /// For people.
    pub message: String,
}

/// A job.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "named as in the record that it is made of, which documents them")]
pub struct Job {
    pub name: String,
    pub plugin: String,
    pub handler: String,
    pub args: Value,
    pub schedule: Option<Value>,
    pub enabled: bool,
    pub timeout_ms: u64,
    pub retry: Retry,
    pub on_crash: Value,
    pub history: History,
    pub policies: Policies,
    pub owner: String,
    pub next_fire_at: Option<Timestamp>,
    pub paused_at: Option<Timestamp>,
    pub paused_reason: Option<String>,
    pub retired_at: Option<Timestamp>,
    pub last_execution: Option<LastExecution>,
}

/// A job's retry policy; times in milliseconds.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "named as in the policy that it is made of, which documents them")]
pub struct Retry {
    pub max_attempts: u32,
    pub backoff: Value,
    pub initial_ms: u64,
    pub maximum_ms: u64,
    pub jitter: f64,
}

/// How a job's executions are treated; times in milliseconds.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "named as in the policies that it is made of, which documents them")]
pub struct Policies {
    pub queue: String,
    pub priority: i32,
    pub concurrency: Option<Concurrency>,
    pub rate: Option<Rate>,
    pub after: Option<After>,
    pub on_failure: Option<String>,
    pub catch_up: CatchUp,
    pub cancel_grace_ms: u64,
}

/// How many executions of a job run at once.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "as in the policies")]
pub struct Concurrency {
    pub limit: Option<u32>,
    pub per_key: Option<Value>,
    pub when_full: Value,
}

/// How many executions of a job start in a time.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "as in the policies")]
pub struct Rate {
    pub count: u32,
    pub period_ms: u64,
}

/// What a job comes after.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "as in the policies")]
pub struct After {
    pub jobs: Vec<String>,
    pub when: Value,
}

/// What becomes of missed fires.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "as in the policies")]
pub struct CatchUp {
    pub mode: Value,
    pub window_ms: Option<u64>,
    pub max: u32,
}

/// How much of a job's history is kept; `null` for no bound.
#[derive(Debug, Serialize)]
pub struct History {
    /// Milliseconds after an execution's end.
    pub keep_ms: Option<u64>,
    /// Of the newest executions that have ended.
    pub last: Option<u32>,
}

/// A job's latest execution.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "as in an execution")]
pub struct LastExecution {
    pub id: String,
    pub state: &'static str,
}

/// A plugin.
#[derive(Debug, Serialize)]
pub struct Plugin {
    /// Its name in the configuration.
    pub name: String,
    /// Of its component, as a host last loaded it.
    pub component_digest: String,
    /// What it can do.
    pub handlers: Vec<Handler>,
    /// The live hosts that have it.
    pub hosts: Vec<String>,
    /// When a host last loaded it.
    pub updated_at: Timestamp,
}

/// Where a configuration names one component as a plugin, another one runs.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "named as in the record that it is made of, which documents them")]
pub struct Rollback<'a> {
    pub plugin: &'a str,
    pub component: &'a str,
    pub replaces: &'a str,
    pub since: Timestamp,
    pub reason: Option<&'a str>,
}

/// A host session: one life of a host process.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "named as in the record that it is made of, which documents them")]
pub struct Host {
    pub host: String,
    pub session: i64,
    pub boot_id: String,
    pub version: String,
    pub state: &'static str,
    pub started_at: Timestamp,
    pub heartbeat_at: Option<Timestamp>,
    pub heartbeat_age_seconds: Option<f64>,
    pub expires_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub drain_requested_at: Option<Timestamp>,
    pub draining_at: Option<Timestamp>,
    pub slots: Option<u32>,
    pub running: u64,
    pub executions: Vec<Running>,
}

/// An execution that a host runs.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "named as in an execution")]
pub struct Running {
    pub id: String,
    pub job: String,
    pub attempt: u32,
    pub started_at: Timestamp,
}

/// A line of an execution's log.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "named as in the line that it is made of, which documents them")]
pub struct Log {
    pub at: Timestamp,
    pub attempt: u32,
    pub level: &'static str,
    pub message: String,
    pub fields: Map<String, Value>,
}

impl From<ExecutionRecord> for Execution {
    fn from(record: ExecutionRecord) -> Self {
        Self {
            id: record.id.to_string(),
            job: record.job.into(),
            plugin: record.plugin.into(),
            handler: record.handler,
            state: record.state.as_str(),
            attempt: record.attempt,
            max_attempts: record.max_attempts,
            triggered_by: json(&record.triggered_by),
            scheduled_at: record.scheduled_at,
            started_at: record.started_at,
            finished_at: record.finished_at,
            due_at: record.due_at,
            blocker: record.blocker.map(Blocker::as_str),
            args: record.args,
            result: record.result,
            error: record.error.map(Error::from),
            host: record.host,
            component_digest: record.component_digest,
            usage: record.usage.map(Usage::from),
            progress: record.progress,
            retry_of: record.retry_of.map(|id| id.to_string()),
            cancel_requested: record.cancel_requested,
        }
    }
}

impl From<AttemptRecord> for Attempt {
    fn from(record: AttemptRecord) -> Self {
        Self {
            attempt: record.attempt,
            host: record.host,
            component_digest: record.component_digest,
            started_at: record.started_at,
            finished_at: record.finished_at,
            outcome: record.outcome.map(AttemptOutcome::as_str),
            error: record.error.map(Error::from),
            usage: record.usage.map(Usage::from),
        }
    }
}

impl From<limits::Usage> for Usage {
    fn from(usage: limits::Usage) -> Self {
        Self {
            wall_us: usage.wall_us,
            cpu_us: usage.cpu_us,
            memory_peak_bytes: usage.memory_peak_bytes,
            fuel: usage.fuel,
            db_calls: usage.db_calls,
            db_transactions: usage.db_transactions,
            db_rows_read: usage.db_rows_read,
            db_rows_changed: usage.db_rows_changed,
            db_bytes: usage.db_bytes,
            log_lines: usage.log_lines,
            log_bytes: usage.log_bytes,
            http_requests: usage.http_requests,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self { kind: failure.kind.as_str(), message: failure.message }
    }
}

impl From<JobRecord> for Job {
    fn from(record: JobRecord) -> Self {
        let job = record.job;
        Self {
            name: job.name.into(),
            plugin: job.plugin.into(),
            handler: job.handler,
            args: job.args,
            schedule: job.schedule.as_ref().map(schedule),
            enabled: job.enabled,
            timeout_ms: millis(job.timeout),
            retry: Retry {
                max_attempts: job.retry.max_attempts,
                backoff: json(&job.retry.backoff),
                initial_ms: millis(job.retry.initial),
                maximum_ms: millis(job.retry.maximum),
                jitter: job.retry.jitter,
            },
            on_crash: json(&job.on_crash),
            policies: Policies::from(&job.policies),
            history: History { keep_ms: job.history.keep.map(millis), last: job.history.last },
            owner: record.owner,
            next_fire_at: record.next_fire_at,
            paused_at: record.paused_at,
            paused_reason: record.paused_reason,
            retired_at: record.retired_at,
            last_execution: record
                .last
                .map(|last| LastExecution { id: last.id.to_string(), state: last.state.as_str() }),
        }
    }
}

impl From<&crate::policy::Policies> for Policies {
    fn from(policies: &crate::policy::Policies) -> Self {
        let crate::policy::Policies { queue, catch_up, .. } = policies;
        Self {
            queue: queue.as_ref().map_or(Queue::DEFAULT, |name| name.as_str()).to_owned(),
            priority: policies.priority,
            concurrency: policies.concurrency.as_ref().map(|limits| Concurrency {
                limit: limits.limit,
                per_key: limits.per_key.as_ref().map(json),
                when_full: json(&limits.when_full),
            }),
            rate: policies.rate.map(|rate| Rate { count: rate.count, period_ms: millis(rate.period) }),
            after: policies.after.as_ref().map(|after| After {
                jobs: after.jobs.iter().map(ToString::to_string).collect(),
                when: json(&after.when),
            }),
            on_failure: policies.on_failure.as_ref().map(ToString::to_string),
            catch_up: CatchUp {
                mode: json(&catch_up.mode),
                window_ms: catch_up.window.map(millis),
                max: catch_up.max,
            },
            cancel_grace_ms: millis(policies.cancel_grace),
        }
    }
}

impl TryFrom<PluginRecord> for Plugin {
    type Error = String;

    /// Fails where the store holds a description that this version cannot read.
    fn try_from(record: PluginRecord) -> Result<Self, String> {
        Ok(Self {
            name: record.name.into(),
            component_digest: record.digest,
            handlers: from_descriptions(record.descriptions)?,
            hosts: record.hosts,
            updated_at: record.updated_at,
        })
    }
}

impl<'a> From<&'a crate::store::Rollback> for Rollback<'a> {
    fn from(record: &'a crate::store::Rollback) -> Self {
        Self {
            plugin: record.plugin.as_str(),
            component: &record.component,
            replaces: &record.replaces,
            since: record.since,
            reason: record.reason.as_deref(),
        }
    }
}

impl From<HostRecord> for Host {
    fn from(record: HostRecord) -> Self {
        Self {
            host: record.host,
            session: record.session.0,
            boot_id: record.boot_id.to_string(),
            version: record.version,
            state: record.state.as_str(),
            started_at: record.started_at,
            heartbeat_at: record.heartbeat_at,
            heartbeat_age_seconds: record.heartbeat_age.map(|age| age.as_secs_f64()),
            expires_at: record.expires_at,
            ended_at: record.ended_at,
            drain_requested_at: record.drain_requested_at,
            draining_at: record.draining_at,
            slots: record.slots,
            running: record.running,
            executions: record.executions.into_iter().map(Running::from).collect(),
        }
    }
}

impl From<RunningExecution> for Running {
    fn from(running: RunningExecution) -> Self {
        Self {
            id: running.execution.to_string(),
            job: running.job.into(),
            attempt: running.attempt,
            started_at: running.started_at,
        }
    }
}

impl From<LogRecord> for Log {
    fn from(record: LogRecord) -> Self {
        let LogLine { at, level, message, fields } = record.line;
        Self { at, attempt: record.attempt, level: level.as_str(), message, fields }
    }
}

/// As in the configuration: spans of time as text with their units. What has its default is there
/// as well; calendars by their names.
fn schedule(schedule: &crate::schedule::Schedule) -> Value {
    let spec = schedule.spec();
    let span =
        |span: Option<std::time::Duration>| span.map(|span| humantime::format_duration(span).to_string());
    serde_json::json!({
        "cron": spec.cron,
        "every": span(spec.every),
        "every_after": span(spec.every_after),
        "at": spec.at,
        "timezone": spec.timezone.unwrap_or_else(|| "UTC".to_owned()),
        "anchor": spec.anchor,
        "jitter": span(spec.jitter),
        "gap": json(&spec.gap),
        "overlap": json(&spec.overlap),
        "not_before": spec.not_before,
        "not_after": spec.not_after,
        "calendars": spec.calendars.iter().map(|calendar| calendar.name.as_str()).collect::<Vec<_>>(),
        "when_excluded": json(&spec.when_excluded),
    })
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
