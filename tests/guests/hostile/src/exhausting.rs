//! Using up what the host has.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use innkeeper_sdk::{Context, Failure, handler, log};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::{describe, wit};

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum What {
    /// A loop of so many turns, without a call of the host.
    Turns,
    /// A sleep of so many milliseconds.
    Sleep,
    /// The statement `sql`, so often.
    Queries,
    /// So many MiB of memory.
    Memory,
    /// So many MiB that may be refused, and then a panic of another cause.
    MemoryThenPanic,
    /// So many lines of the log.
    Lines,
    /// So many lines of the log, and then a panic.
    LinesThenPanic,
    /// So many lines on standard output.
    Printed,
    /// So many bytes on standard output, by a stream that nobody has asked whether it takes them.
    Written,
    /// So many zeroes on standard output, in one call.
    Zeroes,
    /// So many calls of `progress`.
    Progress,
    /// So many calls within each other.
    Recursion,
    /// The same with much on the stack that is in the memory.
    WideRecursion,
    /// A result of so many bytes.
    Result,
    /// So many random bytes, in one call.
    Random,
    /// So many timers at once.
    Timers,
    /// One line of the log, with so many fields of 1 MiB that are all the same one.
    Fields,
    /// The end of the program, with this exit code.
    Exit,
    /// A file that it was not granted, a line on standard output, and a sleep of so many
    /// milliseconds.
    StraySleep,
    /// A file that it was not granted, and a panic.
    StrayThenPanic,
    /// A number in its memory, to which it adds `amount`. Returns what it was before.
    Remember,
}

/// What an execution leaves in its memory for the next one.
static REMEMBERED: AtomicU64 = AtomicU64::new(0);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exhaust {
    what: What,
    amount: u64,
    #[serde(default)]
    sql: String,
}

/// Takes `{what, amount, sql}` and uses up that much of it. Returns null, but for results.
#[handler]
pub(crate) fn exhaust(ctx: &Context, args: Exhaust) -> Result<Value, Failure> {
    let amount = args.amount;
    let count = usize::try_from(amount).unwrap_or(usize::MAX);
    match args.what {
        What::Turns => {
            let mut turns = 0_u64;
            while turns < amount {
                turns = black_box(turns + 1);
            }
        }
        What::Sleep => std::thread::sleep(Duration::from_millis(amount)),
        What::Queries => {
            for _ in 0..amount {
                wit::query(&args.sql, &[]).map_err(|error| Failure::permanent(describe(error)))?;
            }
        }
        What::Memory => {
            black_box((0..count).map(|_| black_box(vec![1_u8; 1 << 20])).collect::<Vec<_>>());
        }
        What::MemoryThenPanic => {
            let refused = Vec::<u8>::new().try_reserve_exact(count << 20).is_err();
            panic!("no customer 17 (refused: {refused})");
        }
        What::Lines | What::LinesThenPanic => {
            for number in 0..amount {
                log::write(log::Level::Info, &format!("line {number}"), &[]);
            }
            assert!(matches!(args.what, What::Lines), "no customer 17");
        }
        What::Printed => (0..amount).for_each(|number| println!("line {number}")),
        What::Written => {
            let stream = wasip2::cli::stdout::get_stdout();
            let bytes = vec![b'\n'; 1 << 20];
            for _ in 0..amount >> 20 {
                let _written = stream.write(&bytes);
            }
        }
        What::Zeroes => {
            let _written = wasip2::cli::stdout::get_stdout().write_zeroes(amount);
        }
        What::Progress => (0..amount).for_each(|done| ctx.progress(done, Some(amount), None)),
        What::Recursion => {
            black_box(recurse(amount));
        }
        What::WideRecursion => {
            black_box(recurse_wide(amount));
        }
        What::Result => return Ok("x".repeat(count - 2).into()),
        What::Random => {
            black_box(wasip2::random::random::get_random_bytes(amount));
        }
        What::Timers => {
            let timer = |_| wasip2::clocks::monotonic_clock::subscribe_duration(u64::MAX);
            black_box((0..amount).map(timer).collect::<Vec<_>>());
        }
        What::Fields => say_often(count),
        What::Remember => return Ok(REMEMBERED.fetch_add(amount, Ordering::Relaxed).into()),
        What::StraySleep => {
            stray();
            println!("about to sleep");
            std::thread::sleep(Duration::from_millis(amount));
        }
        What::StrayThenPanic => {
            stray();
            panic!("no customer 17");
        }
        What::Exit => std::process::exit(i32::try_from(amount).unwrap_or(1)),
    }
    Ok(Value::Null)
}

fn stray() {
    assert!(std::fs::read("/etc/passwd").is_err(), "no folder was granted");
}

#[inline(never)]
fn recurse(depth: u64) -> u64 {
    if black_box(depth) == 0 { 0 } else { recurse(depth - 1).wrapping_mul(3) + depth }
}

#[inline(never)]
fn recurse_wide(depth: u64) -> u64 {
    let mut wide = [depth; 1024];
    let wide = black_box(&mut wide);
    if depth == 0 { 0 } else { recurse_wide(depth - 1) + wide[usize::try_from(depth % 1024).unwrap_or(0)] }
}

#[expect(unsafe_code, reason = "the SDK lets nobody say the same bytes twice without having them twice")]
#[link(wasm_import_module = "innkeeper:plugin/context@0.1.0")]
unsafe extern "C" {
    /// `log` as the component model flattens it.
    #[link_name = "log"]
    fn log_raw(level: i32, message: usize, length: usize, fields: usize, count: usize);
}

/// Logs a line with so many fields, each of which is the same MiB.
fn say_often(count: usize) {
    let text = "1".repeat(1 << 20);
    let at = (text.as_ptr() as usize, text.len());
    let fields = vec![[at.0, 1, at.0, at.1]; count];
    #[expect(unsafe_code, reason = "as above")]
    // SAFETY: the host reads what lies there, or refuses to.
    unsafe {
        log_raw(2, at.0, 1, fields.as_ptr() as usize, fields.len());
    }
}
