//! Everything that the host offers but for the database.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use innkeeper_sdk::{Context, Failure, config as sdk_config, handler, jobs, log as sdk_log};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Log {
    #[serde(default)]
    lines: Vec<Line>,
    /// So many more lines, "line 0" and on, at level `info`.
    #[serde(default)]
    count: u32,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Line {
    level: Level,
    message: String,
    #[serde(default)]
    fields: BTreeMap<String, Value>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// Takes `{lines: [{level, message, fields}], count}` and logs the lines, then `count` more,
/// "line 0" and on.
#[handler]
pub(crate) fn log(_ctx: &Context, args: Log) -> Result<(), Failure> {
    for line in args.lines {
        let level = match line.level {
            Level::Trace => sdk_log::Level::Trace,
            Level::Debug => sdk_log::Level::Debug,
            Level::Info => sdk_log::Level::Info,
            Level::Warn => sdk_log::Level::Warn,
            Level::Error => sdk_log::Level::Error,
        };
        let fields: Vec<(&str, Value)> =
            line.fields.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        sdk_log::write(level, &line.message, &fields);
    }
    for number in 0..args.count {
        sdk_log::info!(number = number; "line {number}");
    }
    Ok(())
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Print {
    #[serde(default)]
    stdout: String,
    #[serde(default)]
    stderr: String,
}

/// Takes `{stdout, stderr}` and writes both, as they are: without a line end of its own.
#[handler]
pub(crate) fn print(_ctx: &Context, args: Print) -> Result<(), Failure> {
    print!("{}", args.stdout);
    eprint!("{}", args.stderr);
    std::io::Write::flush(&mut std::io::stdout())?;
    Ok(())
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Progress {
    steps: Vec<Step>,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Step {
    done: u64,
    total: Option<u64>,
    message: Option<String>,
}

/// Takes `{steps: [{done, total, message}]}` and reports each.
#[handler]
pub(crate) fn progress(ctx: &Context, args: Progress) -> Result<(), Failure> {
    for step in args.steps {
        ctx.progress(step.done, step.total, step.message.as_deref());
    }
    Ok(())
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Checkpoint {
    state: Value,
    /// Fails retryably after it has saved, before this attempt.
    #[serde(default)]
    fail_until: u32,
}

/// Takes `{state, fail_until}`, saves `state`, fails retryably before attempt `fail_until`, and
/// then returns the checkpoint that it began with.
#[handler]
pub(crate) fn checkpoint(ctx: &Context, args: Checkpoint) -> Result<Option<Value>, Failure> {
    let earlier = ctx.checkpoint()?;
    ctx.save_checkpoint(&args.state)?;
    if ctx.attempt() < args.fail_until {
        return Err(Failure::retryable("failed after the checkpoint"));
    }
    Ok(earlier)
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Enqueue {
    job: String,
    args: Option<Value>,
    /// Milliseconds since 1970.
    run_at_ms: Option<u64>,
    unique_key: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Enqueued {
    Id(String),
    Error(Value),
}

/// Takes `{job, args, run_at_ms, unique_key}`, enqueues that, and returns `{id}`, or
/// `{error: {kind, message}}` with the case of the error as its kind.
#[handler]
pub(crate) fn enqueue(_ctx: &Context, args: Enqueue) -> Result<Enqueued, Failure> {
    let mut request = jobs::Request::new(args.job);
    if let Some(args) = args.args {
        request = request.args(args);
    }
    if let Some(ms) = args.run_at_ms {
        request = request.run_at(UNIX_EPOCH + Duration::from_millis(ms));
    }
    if let Some(key) = args.unique_key {
        request = request.unique_key(key);
    }
    Ok(match jobs::enqueue(&request) {
        Ok(id) => Enqueued::Id(id),
        Err(error) => {
            let kind = match error {
                jobs::Error::UnknownJob(_) => "unknown-job",
                jobs::Error::InvalidArgs(_) => "invalid-args",
                jobs::Error::Denied(_) => "denied",
                _ => "other",
            };
            Enqueued::Error(json!({ "kind": kind, "message": error.to_string() }))
        }
    })
}

/// Waits until it is asked to stop, and returns `{"cancelled": true}`.
#[handler]
pub(crate) fn cancelled(ctx: &Context) -> Result<Value, Failure> {
    while !ctx.cancelled() {
        thread::sleep(Duration::from_millis(5));
    }
    Ok(json!({ "cancelled": true }))
}

/// Waits until it is asked to stop, and fails retryably.
#[handler]
pub(crate) fn give_up(ctx: &Context) -> Result<(), Failure> {
    while !ctx.cancelled() {
        thread::sleep(Duration::from_millis(5));
    }
    Err(Failure::retryable("gave up half-way"))
}

/// Returns the plugin's configuration as an object of dotted keys.
#[handler]
pub(crate) fn config(_ctx: &Context) -> Result<BTreeMap<String, String>, Failure> {
    Ok(sdk_config::all()?)
}
