//! `history`, of `[store]` for every job and of `[jobs.NAME]` for one.

use std::time::Duration;

use super::table::{Entry, Table};
use crate::job::History;

/// Who waits for an execution still finds it: nothing is removed sooner after its end.
const SHORTEST: Duration = Duration::from_secs(60);
/// A century. Longer is `"forever"`.
const LONGEST: Duration = Duration::from_secs(36_525 * 86_400);
const MOST: u32 = 1_000_000;

/// What is left out is taken from `default`.
pub(super) fn history(parent: &Table<'_>, default: History) -> History {
    let entry = parent.entry("history");
    let wanted = "a table, such as { keep = \"30days\", last = 1000 }";
    let Some(table) = entry.and_then(|entry| entry.table(wanted)) else { return default };
    let keep = table.entry("keep").and_then(|entry| keep(&entry)).unwrap_or(default.keep);
    let last = match table.entry("last") {
        Some(_) => Some(table.integer("last", 1000, 1..=MOST)),
        None => default.last,
    };
    table.finish();
    History { keep, last }
}

fn keep(entry: &Entry<'_>) -> Option<Option<Duration>> {
    const WANTED: &str = "a time from 1m to 100years, such as \"90days\", or \"forever\"";
    // A table or a number is no text, and a text may be a time.
    if entry.value.get_ref().is_str() && entry.text()?.value() == "forever" {
        return Some(None);
    }
    let time = entry.duration(|| WANTED)?;
    if (SHORTEST..=LONGEST).contains(&time) {
        return Some(Some(time));
    }
    entry.wrong(WANTED);
    None
}
