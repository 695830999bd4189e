//! Saying too much, and breaking the rules.

use innkeeper_sdk::{Context, Failure, handler, log};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum What {
    /// A result of so many bytes.
    Result,
    /// A result nested so deep.
    NestedResult,
    /// A retryable failure with a message of so many bytes.
    Failure,
    /// A log line with a message of so many bytes, and one with as many fields.
    Log,
    /// A log line with a field nested so deep.
    NestedField,
    /// A progress message of so many bytes.
    Progress,
    /// A checkpoint of so many bytes.
    Checkpoint,
    /// A checkpoint nested so deep.
    NestedCheckpoint,
    /// So many empty lines.
    EmptyLines,
    /// A request for so many MiB that may fail, and then a permanent failure for another
    /// reason.
    Memory,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Excess {
    what: What,
    amount: usize,
}

/// Takes `{what, amount}` and says that much: see `What`. Returns null, but for results.
#[handler]
pub(crate) fn excess(ctx: &Context, args: Excess) -> Result<Value, Failure> {
    let text = || "x".repeat(args.amount);
    match args.what {
        What::Result => return Ok(text().into()),
        What::NestedResult => return Ok(nested(args.amount)),
        What::Failure => return Err(Failure::retryable(text())),
        What::Log => {
            log::write(log::Level::Info, &text(), &[]);
            let names = (0..args.amount).map(|number| format!("f{number}")).collect::<Vec<_>>();
            let fields = names.iter().map(|name| (name.as_str(), json!(1))).collect::<Vec<_>>();
            log::write(log::Level::Info, "many", &fields);
        }
        What::NestedField => log::write(log::Level::Info, "deep", &[("deep", nested(args.amount))]),
        What::Progress => ctx.progress(1, None, text().as_str()),
        What::Checkpoint => ctx.save_checkpoint(&text())?,
        What::NestedCheckpoint => ctx.save_checkpoint(&nested(args.amount))?,
        What::EmptyLines => print!("{}", "\n".repeat(args.amount)),
        What::Memory => {
            let mut bytes = Vec::<u8>::new();
            let got = bytes.try_reserve(args.amount << 20).is_ok();
            return Err(Failure::permanent(format!("no such customer (memory: {got})")));
        }
    }
    Ok(Value::Null)
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::Null, |inner, _| Value::Array(vec![inner]))
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum How {
    InvalidUtf8,
    OutOfBounds,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct BreakRules {
    how: How,
}

#[expect(unsafe_code, reason = "the SDK lets nobody break a rule")]
#[link(wasm_import_module = "innkeeper:plugin/context@0.1.0")]
unsafe extern "C" {
    /// `progress` as the component model flattens it: `done`, `total` and `message`, the last
    /// two with a discriminant first.
    #[link_name = "progress"]
    fn progress(done: i64, has_total: i32, total: i64, has_message: i32, message: usize, length: usize);
}

/// Takes `{how}` and gives the host a text that is none: `invalid-utf8` or `out-of-bounds`.
#[handler]
pub(crate) fn break_rules(_ctx: &Context, args: BreakRules) -> Result<(), Failure> {
    let odd = [0xff_u8, 0xfe];
    let (message, length) = match args.how {
        How::InvalidUtf8 => (odd.as_ptr() as usize, odd.len()),
        How::OutOfBounds => (usize::MAX - 1, 1024),
    };
    #[expect(unsafe_code, reason = "the SDK lets nobody break a rule")]
    // SAFETY: the host reads two bytes, or refuses to.
    unsafe {
        progress(1, 0, 0, 1, message, length);
    }
    Ok(())
}
