//! A guest for the benchmarks: it does what is measured, and measures it by its own clock, so
//! that the figures are those of the calls and not of the instance around them.
//!
//! The other side of each measurement is in `tests/bench/db/native.rs`. Both read every value and
//! add them up in the same way: sums that differ are a mistake, and no figure.

mod neighbours;
mod overrun;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use innkeeper_sdk::db::{self, Row};
use innkeeper_sdk::{Context, Failure, handler, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

innkeeper_sdk::plugin!(
    cursor,
    execute_many,
    neighbours::doze,
    neighbours::flood,
    neighbours::work,
    noop,
    overrun::overrun,
    query_all,
    query_one
);

/// What a handler has measured.
#[derive(Serialize)]
pub(crate) struct Measured {
    /// Of all calls together.
    nanos: u64,
    /// Of everything that was read, or the number of rows that were written.
    sum: u64,
    /// Bytes of linear memory at the end: it never shrinks.
    memory: u64,
}

fn measure(work: impl FnOnce() -> Result<u64, db::Error>) -> Result<Measured, Failure> {
    let start = Instant::now();
    let sum = work()?;
    let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Ok(Measured { nanos, sum, memory: linear_memory() })
}

/// Bytes of this instance's memory.
fn linear_memory() -> u64 {
    #[cfg(target_arch = "wasm32")]
    let pages = core::arch::wasm32::memory_size(0) as u64;
    // Built for the host only by the lints.
    #[cfg(not(target_arch = "wasm32"))]
    let pages = 0;
    pages * 65_536
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Customer {
    #[expect(dead_code, reason = "what is measured is that it is passed")]
    customer: u32,
}

/// Does nothing.
#[handler]
pub(crate) fn noop(_ctx: &Context, _args: Customer) -> Result<(), Failure> {
    Ok(())
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct QueryOne {
    sql: String,
    calls: i64,
    /// Keys go from 1 to this.
    keys: i64,
}

/// Reads one row by its key, again and again: a text and a float.
#[handler]
pub(crate) fn query_one(_ctx: &Context, args: QueryOne) -> Result<Measured, Failure> {
    measure(|| {
        let mut sum = 0_u64;
        for call in 0..args.calls {
            let rows = db::query(&args.sql, params![call % args.keys + 1])?;
            let Some(row) = rows.first() else { continue };
            let (name, score): (&str, f64) = (row.get(0)?, row.get(1)?);
            sum = add(add(sum, name.len() as u64), score.to_bits());
        }
        Ok(sum)
    })
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct QueryAll {
    sql: String,
    calls: u32,
    /// The fifth column holds instants; on SQLite it is their text.
    instants: bool,
}

/// Reads all rows of one query, again and again: six columns.
#[handler]
pub(crate) fn query_all(_ctx: &Context, args: QueryAll) -> Result<Measured, Failure> {
    measure(|| {
        let mut sum = 0_u64;
        for _ in 0..args.calls {
            let rows = db::query(&args.sql, params![])?;
            for row in rows.iter() {
                sum = add(sum, sum_of_record(row, args.instants)?);
            }
        }
        Ok(sum)
    })
}

fn sum_of_record(row: Row<'_>, instants: bool) -> Result<u64, db::Error> {
    let (id, name, score): (i64, &str, f64) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let (active, note): (bool, Option<&str>) = (row.get(3)?, row.get(5)?);
    let at = if instants {
        let at: SystemTime = row.get(4)?;
        at.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
    } else {
        row.get::<&str>(4)?.len() as u64
    };
    let parts = [
        id.cast_unsigned(),
        name.len() as u64,
        score.to_bits(),
        u64::from(active),
        at,
        note.unwrap_or_default().len() as u64,
    ];
    Ok(parts.into_iter().fold(0, add))
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct ExecuteMany {
    sql: String,
    rows: i64,
}

/// Writes so many rows of three columns in one call. It starts from typed records, as the native
/// side does; making the parameters of them is part of what is measured.
#[handler]
pub(crate) fn execute_many(_ctx: &Context, args: ExecuteMany) -> Result<Measured, Failure> {
    let records: Vec<(i64, String, f64)> =
        (1..=args.rows).map(|id| (id, format!("record number {id}"), id as f64 * 0.5)).collect();
    measure(|| {
        db::execute_many(&args.sql, records.into_iter().map(|(id, name, score)| params![id, name, score]))
    })
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Cursor {
    sql: String,
    /// Rows of one fetch.
    batch: u32,
}

/// Reads all rows of a query by a cursor in a transaction of its own: an integer, a text and a
/// float.
#[handler]
pub(crate) fn cursor(_ctx: &Context, args: Cursor) -> Result<Measured, Failure> {
    measure(|| {
        let transaction = db::begin()?;
        let cursor = transaction.open_cursor(&args.sql, params![])?;
        let mut sum = 0_u64;
        loop {
            let rows = cursor.fetch(args.batch)?;
            if rows.is_empty() {
                break;
            }
            for row in rows.iter() {
                let (id, name, score): (i64, &str, f64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                sum = [id.cast_unsigned(), name.len() as u64, score.to_bits()].into_iter().fold(sum, add);
            }
        }
        drop(cursor);
        transaction.commit()?;
        Ok(sum)
    })
}

fn add(sum: u64, part: u64) -> u64 {
    sum.wrapping_add(part)
}
