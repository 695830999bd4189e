//! Returning, waiting, failing and dying.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use innkeeper_sdk::{Context, Failure, handler};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the host told the handler. Times are microseconds since 1970.
#[derive(Serialize)]
pub(crate) struct Echo {
    args: Value,
    id: String,
    job: String,
    attempt: u32,
    max_attempts: u32,
    triggered_by: &'static str,
    scheduled_at: u128,
    started_at: u128,
    deadline: Option<u128>,
    checkpoint: Option<Value>,
}

/// Takes anything, and returns it as `args` with all that it knows of its execution.
#[handler]
pub(crate) fn echo(ctx: &Context, args: Value) -> Result<Echo, Failure> {
    Ok(Echo {
        args,
        id: ctx.id().to_owned(),
        job: ctx.job().to_owned(),
        attempt: ctx.attempt(),
        max_attempts: ctx.max_attempts(),
        triggered_by: ctx.triggered_by().as_str(),
        scheduled_at: micros(ctx.scheduled_at()),
        started_at: micros(ctx.started_at()),
        deadline: ctx.deadline().map(micros),
        checkpoint: ctx.checkpoint()?,
    })
}

fn micros(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Sleep {
    ms: u64,
}

/// Takes `{ms}`, sleeps that long in a call of the host (WASI's clock), and returns null.
#[handler]
pub(crate) fn sleep(_ctx: &Context, args: Sleep) -> Result<(), Failure> {
    thread::sleep(Duration::from_millis(args.ms));
    Ok(())
}

/// Runs in a tight loop for ever, without a call of the host.
#[handler]
pub(crate) fn spin(_ctx: &Context) -> Result<(), Failure> {
    spin_for_ever()
}

pub(crate) fn spin_for_ever() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Panic {
    message: String,
}

/// Takes `{message}` and panics with it.
#[handler]
pub(crate) fn panic(_ctx: &Context, args: Panic) -> Result<(), Failure> {
    panic!("{}", args.message)
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Allocate {
    mib: usize,
}

/// Takes `{mib}`, allocates and fills that many MiB, and returns how many it got.
#[handler]
pub(crate) fn allocate(_ctx: &Context, args: Allocate) -> Result<usize, Failure> {
    Ok(fill(args.mib))
}

pub(crate) fn fill(mib: usize) -> usize {
    let blocks: Vec<Vec<u8>> = (0..mib).map(|_| black_box(vec![1; 1 << 20])).collect();
    blocks.len()
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Retryable,
    Permanent,
    RetryAfter,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Fail {
    kind: Kind,
    message: String,
    #[serde(default)]
    after_ms: u64,
}

/// Takes `{kind, message, after_ms}` and fails so: `kind` is `retryable`, `permanent` or
/// `retry-after`, and only the last one looks at `after_ms`.
#[handler]
pub(crate) fn fail(_ctx: &Context, args: Fail) -> Result<(), Failure> {
    Err(match args.kind {
        Kind::Retryable => Failure::retryable(args.message),
        Kind::Permanent => Failure::permanent(args.message),
        Kind::RetryAfter => Failure::retry_after(args.message, Duration::from_millis(args.after_ms)),
    })
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct FailUntil {
    attempt: u32,
}

/// Takes `{attempt}`, fails retryably before that attempt, and then returns its number.
#[handler]
pub(crate) fn fail_until(ctx: &Context, args: FailUntil) -> Result<u32, Failure> {
    if ctx.attempt() < args.attempt {
        return Err(Failure::retryable(format!("attempt {} of {} fails", ctx.attempt(), args.attempt)));
    }
    Ok(ctx.attempt())
}
