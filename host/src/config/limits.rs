//! `[plugins.NAME.limits]`.

use super::table::Table;
use super::{LONGEST_TIMEOUT, SHORTEST_TIMEOUT};
use crate::bounds;
use crate::limits::Limits;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Less does not even start a handler of Rust.
const LEAST_FUEL: u64 = 1_000;
/// What wasmtime counts with.
const MOST_FUEL: u64 = i64::MAX.unsigned_abs();
/// As many as a host runs at once.
const MOST_CONCURRENCY: u64 = 1_000;
/// Each line that is kept is a row of the store.
const MOST_LINES: u64 = 1_000_000;

/// What is left out has its default.
pub(super) fn limits(table: Option<Table<'_>>) -> Limits {
    let defaults = Limits::default();
    let Some(table) = table else { return defaults };
    let limits = Limits {
        memory: table.bytes("memory", defaults.memory, MIB..=4096 * MIB),
        timeout: table.duration("timeout", defaults.timeout, SHORTEST_TIMEOUT..=LONGEST_TIMEOUT),
        fuel: table.count("fuel", LEAST_FUEL..=MOST_FUEL),
        concurrency: table
            .count("concurrency", 1..=MOST_CONCURRENCY)
            .and_then(|concurrency| u32::try_from(concurrency).ok()),
        log_lines: table.count("log_lines", 0..=MOST_LINES).unwrap_or(defaults.log_lines),
        log_bytes: table.bytes("log_bytes", defaults.log_bytes, KIB..=1024 * MIB),
        result_bytes: table.bytes("result_bytes", defaults.result_bytes, KIB..=bounds::DOCUMENT as u64),
    };
    table.finish();
    limits
}
