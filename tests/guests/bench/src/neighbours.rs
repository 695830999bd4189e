//! Handlers that share a host: one that behaves, one that waits, and one that does not behave.

use std::hint::black_box;
use std::thread;
use std::time::Duration;

use innkeeper_sdk::{Context, Failure, handler, log};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Work {
    /// Steps of a computation, a few nanoseconds each.
    steps: u64,
}

/// Computes for a while, and returns something that cannot be known without.
#[handler]
pub(crate) fn work(_ctx: &Context, args: Work) -> Result<u64, Failure> {
    Ok((0..args.steps).fold(1_u64, |state, step| black_box(state.rotate_left(7) ^ step).wrapping_mul(3)))
}

/// Says that it has started, and waits in a call of the host until it is stopped.
#[handler]
pub(crate) fn doze(ctx: &Context) -> Result<(), Failure> {
    ctx.progress(0, None, None);
    thread::sleep(Duration::from_secs(600));
    Ok(())
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Flood {
    what: What,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum What {
    /// Computes without a call of the host.
    Spin,
    /// Takes all the memory that it can get, and writes to it.
    Allocate,
    /// Logs and prints.
    Log,
}

/// Takes what it can get until it is stopped, or fails for want of more.
#[handler]
pub(crate) fn flood(_ctx: &Context, args: Flood) -> Result<(), Failure> {
    let mut turns = 0_u64;
    let mut taken = Vec::new();
    let line = "x".repeat(1000);
    loop {
        turns = black_box(turns.wrapping_add(1));
        match args.what {
            What::Spin => {}
            What::Allocate => taken.push(vec![turns as u8; 1 << 20]),
            What::Log => {
                log::info!("{line}");
                println!("{line}");
            }
        }
    }
}
