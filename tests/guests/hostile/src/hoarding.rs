//! Opening without an end.

use std::collections::BTreeMap;

use innkeeper_sdk::{Context, Failure, handler};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{describe, kind, options, wit};

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum What {
    /// Begins so many transactions and keeps them.
    Transactions,
    /// Opens so many cursors in one transaction and keeps them.
    Cursors,
    /// Makes so many savepoints in one transaction.
    Savepoints,
    /// Reads so many batches of a cursor without an end.
    Fetches,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hoard {
    what: What,
    count: u32,
    /// What a cursor reads.
    #[serde(default)]
    sql: String,
}

/// Takes `{what, count, sql}`, opens that many of them, and returns how often it was answered
/// what: `{"ok": 8, "limit-exceeded": 2992}`. What is open then stays open: the handles are lost
/// without being dropped.
#[handler]
pub(crate) fn hoard(_ctx: &Context, args: Hoard) -> Result<BTreeMap<&'static str, u32>, Failure> {
    let mut answers = BTreeMap::new();
    let mut count = |kind| *answers.entry(kind).or_insert(0) += 1;
    if matches!(args.what, What::Transactions) {
        for _ in 0..args.count {
            let begun = wit::begin(&options(None, true));
            count(kind(&begun));
            std::mem::forget(begun);
        }
        return Ok(answers);
    }
    let failed = |error| Failure::permanent(describe(error));
    let transaction = wit::begin(&options(None, true)).map_err(failed)?;
    match args.what {
        What::Cursors => {
            for _ in 0..args.count {
                let opened = transaction.open_cursor(&args.sql, &[]);
                count(kind(&opened));
                std::mem::forget(opened);
            }
        }
        What::Savepoints => {
            for _ in 0..args.count {
                count(kind(&transaction.savepoint()));
            }
        }
        _ => {
            let cursor = transaction.open_cursor(&args.sql, &[]).map_err(failed)?;
            for _ in 0..args.count {
                count(kind(&cursor.fetch(1_000)));
            }
            std::mem::forget(cursor);
        }
    }
    std::mem::forget(transaction);
    Ok(answers)
}
