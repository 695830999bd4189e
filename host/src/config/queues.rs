//! `[queues.NAME]`.

use std::collections::BTreeMap;

use super::table::Table;
use crate::job::Name;
use crate::policy::Queue;

const HIGHEST_WEIGHT: u32 = 1_000;

pub(super) fn queues(tables: Vec<(Name, Table<'_>)>) -> BTreeMap<Name, Queue> {
    let queue = |(name, table): (Name, Table<'_>)| {
        let queue = Queue {
            name: name.clone(),
            weight: table.integer("weight", 1, 1..=HIGHEST_WEIGHT),
            limit: table.limit("limit"),
            limit_per_host: table.limit("limit_per_host"),
        };
        table.finish();
        (name, queue)
    };
    tables.into_iter().map(queue).collect()
}
