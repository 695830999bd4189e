//! What the SDK makes of transactions: for a whole call, run again, nested, and read in parts.

use std::thread;
use std::time::Duration;

use innkeeper_sdk::db::{self, BeginOptions, Error, Transaction};
use innkeeper_sdk::{Context, Failure, handler, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::basics::spin_for_ever;
use crate::program::{IsolationLevel, describe};

/// How a whole call ends.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Then {
    /// Returns the numbers of rows changed.
    #[default]
    Return,
    /// Returns more than the host records.
    ReturnTooMuch,
    Fail,
    FailPermanently,
    Panic,
    Spin,
    Sleep,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WholeCall {
    /// Run in the transaction of the call.
    statements: Vec<String>,
    /// Goes on after a statement that failed, as if nothing had happened.
    #[serde(default)]
    ignore_errors: bool,
    /// Run after them in a transaction of its own.
    free: Option<String>,
    #[serde(default)]
    then: Then,
}

/// Takes `{statements, ignore_errors, free, then}`, is one transaction for the whole call, and
/// returns the numbers of rows that the statements changed.
///
/// `then` is `return`, `return-too-much`, `fail`, `fail-permanently`, `panic`, `spin` or `sleep`
/// (ten minutes).
#[handler(transaction)]
pub(crate) fn whole_call(_ctx: &Context, tx: &Transaction, args: WholeCall) -> Result<Json, Failure> {
    let mut changed = Vec::new();
    for statement in &args.statements {
        match tx.execute(statement, params![]) {
            Ok(rows) => changed.push(rows),
            Err(_) if args.ignore_errors => {}
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(statement) = &args.free {
        db::execute(statement, params![])?;
    }
    match args.then {
        Then::Return => {}
        Then::ReturnTooMuch => return Ok("x".repeat(2 << 20).into()),
        Then::Fail => return Err(Failure::retryable("told to fail")),
        Then::FailPermanently => return Err(Failure::permanent("told to fail")),
        Then::Panic => panic!("told to panic"),
        Then::Spin => spin_for_ever(),
        Then::Sleep => thread::sleep(Duration::from_mins(10)),
    }
    Ok(json!(changed))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WholeRead {
    sql: String,
}

/// Takes `{sql}`, is one read-only, serializable transaction for the whole call, and returns the first
/// column of the first row, an integer.
#[handler(transaction(isolation = "serializable", read_only))]
pub(crate) fn whole_read(_ctx: &Context, tx: &Transaction, args: WholeRead) -> Result<i64, Error> {
    tx.query(&args.sql, params![])?.scalar()
}

/// What the closure makes of an error.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum OnError {
    #[default]
    PassOn,
    /// Fails with a permanent failure of other words.
    Reword,
    /// Returns `Ok`.
    Ignore,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retry {
    isolation: Option<IsolationLevel>,
    /// Run in the transaction.
    before: Vec<String>,
    /// Run then in another transaction of the same isolation, which commits.
    #[serde(default)]
    interfere: Vec<String>,
    /// In how many runs to interfere.
    #[serde(default)]
    times: u32,
    /// Run then in the transaction.
    after: Vec<String>,
    /// For the statements of `after`.
    #[serde(default)]
    on_error: OnError,
}

#[derive(Serialize)]
pub(crate) struct Retried {
    /// How often the closure was run.
    runs: u32,
    error: Option<String>,
}

/// Takes `{isolation, before, interfere, times, after, on_error}`, runs that by `db::transaction`, and
/// returns `{runs, error}`: how often the closure ran, and the message it failed with in the end.
#[handler]
pub(crate) fn retry_on_conflict(_ctx: &Context, args: Retry) -> Result<Retried, Failure> {
    let options = BeginOptions { isolation: args.isolation.map(Into::into), ..Default::default() };
    let mut runs = 0;
    let result = db::transaction(options.clone(), |tx| {
        runs += 1;
        execute_all(tx, &args.before)?;
        if runs <= args.times {
            let other = db::begin_with(options.clone())?;
            execute_all(&other, &args.interfere)?;
            other.commit()?;
        }
        match (execute_all(tx, &args.after), args.on_error) {
            (Ok(()), _) | (Err(_), OnError::Ignore) => Ok(()),
            (Err(_), OnError::Reword) => Err(Failure::permanent("it did not work out")),
            (Err(error), OnError::PassOn) => Err(error.into()),
        }
    });
    Ok(Retried { runs, error: result.err().map(|failure| failure.to_string()) })
}

fn execute_all(tx: &Transaction, statements: &[String]) -> Result<(), Error> {
    statements.iter().try_for_each(|statement| tx.execute(statement, params![]).map(|_changed| ()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nested {
    /// Groups of statements.
    groups: Vec<Vec<String>>,
}

/// Takes `{groups}`, runs each group of statements nested in one transaction, commits, and returns for
/// each group null or the error.
#[handler]
pub(crate) fn nested(_ctx: &Context, args: Nested) -> Result<Vec<Json>, Failure> {
    let tx = db::begin()?;
    let run = |group: &Vec<String>| match tx.nested(|tx| execute_all(tx, group)) {
        Ok(()) => Json::Null,
        Err(error) => describe(&error),
    };
    let results = args.groups.iter().map(run).collect();
    tx.commit()?;
    Ok(results)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stream {
    /// Its first column is an integer.
    sql: String,
    batch: u32,
}

#[derive(Serialize)]
pub(crate) struct Streamed {
    count: u64,
    sum: i64,
    /// Bytes of the guest's memory before the first row.
    memory_before: usize,
    /// Bytes of the guest's memory after the last row. It never shrinks.
    memory_after: usize,
}

/// Takes `{sql, batch}`, reads that by a cursor, and returns `{count, sum, memory_before,
/// memory_after}`: the number of rows, the sum of the first column, and the bytes of memory.
#[handler]
pub(crate) fn stream(_ctx: &Context, args: Stream) -> Result<Streamed, Failure> {
    let memory_before = memory();
    let tx = db::begin_with(BeginOptions { read_only: true, ..Default::default() })?;
    let (mut count, mut sum) = (0, 0);
    for row in tx.open_cursor(&args.sql, params![])?.rows(args.batch) {
        count += 1;
        sum += row?.get::<i64>(0)?;
    }
    tx.commit()?;
    Ok(Streamed { count, sum, memory_before, memory_after: memory() })
}

/// The size of the guest's memory in bytes.
fn memory() -> usize {
    #[cfg(target_arch = "wasm32")]
    return core::arch::wasm32::memory_size::<0>() * 64 * 1024;
    #[cfg(not(target_arch = "wasm32"))]
    0
}
