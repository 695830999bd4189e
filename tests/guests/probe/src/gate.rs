//! A handler that stays inside its call until a test lets it go.

use std::thread;
use std::time::Duration;

use innkeeper_sdk::db::{self, Error, ErrorKind};
use innkeeper_sdk::{Context, Failure, handler, log, params};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hold {
    /// The `id` in table `gate`.
    gate: String,
    #[serde(default = "default_poll_ms")]
    poll_ms: u64,
}

fn default_poll_ms() -> u64 {
    20
}

/// Takes `{gate, poll_ms}`: says that it is inside its call, stays there until it is let go, and
/// returns how often it looked.
///
/// It needs the tables `inside (execution text)` and `gate (id text primary key, released
/// boolean)`. It inserts its execution's id into `inside`, and waits until the row of `gate` with
/// its id is there and `released`. It has no transaction open while it waits. A busy pool only
/// makes it look again later.
#[handler]
pub(crate) fn hold(ctx: &Context, args: Hold) -> Result<u64, Failure> {
    let pause = Duration::from_millis(args.poll_ms);
    while let Err(error) = db::execute("insert into inside (execution) values ($1)", params![ctx.id()]) {
        wait_if_busy(error, pause)?;
    }
    wait_at(&args.gate, pause)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Narrate {
    /// What the `id`s in table `gate` begin with.
    gate: String,
    /// Attempts before this one fail.
    #[serde(default)]
    fail_until: u32,
    /// Lines that are logged before the gate, besides.
    #[serde(default)]
    lines: u32,
}

/// Takes `{gate, fail_until, lines}`: logs `before`, waits at the gate `GATE-ATTEMPT` as `hold` does, logs
/// `after`, and fails retryably before attempt `fail_until`.
#[handler]
pub(crate) fn narrate(ctx: &Context, args: Narrate) -> Result<(), Failure> {
    for number in 0..args.lines {
        log::info!("line {number}");
    }
    log::info!("before");
    wait_at(&format!("{}-{}", args.gate, ctx.attempt()), Duration::from_millis(default_poll_ms()))?;
    log::warn!(attempt = ctx.attempt(); "after");
    if ctx.attempt() < args.fail_until {
        return Err(Failure::retryable("not yet"));
    }
    Ok(())
}

/// Returns how often it looked.
fn wait_at(gate: &str, pause: Duration) -> Result<u64, Failure> {
    let mut looked = 0;
    loop {
        looked += 1;
        match db::query("select released from gate where id = $1", params![gate]) {
            Ok(rows) => {
                if let Some(row) = rows.first()
                    && row.get(0)?
                {
                    return Ok(looked);
                }
                thread::sleep(pause);
            }
            Err(error) => wait_if_busy(error, pause)?,
        }
    }
}

fn wait_if_busy(error: Error, pause: Duration) -> Result<(), Failure> {
    if !matches!(error.kind(), ErrorKind::Busy | ErrorKind::Conflict) {
        return Err(error.into());
    }
    thread::sleep(pause);
    Ok(())
}
