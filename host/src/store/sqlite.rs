//! The SQL for SQLite. `postgres` has the same constants in the same order.
//!
//! A write transaction holds the one write lock from its begin, so nothing here locks rows.
//! What is a batch on PostgreSQL is one row here, and repeated: there is no round trip to save.

mod cancel;
mod fires;
mod gates;
mod looks;
mod prune;
mod reads;
mod reload;
mod writes;

pub(super) use cancel::*;
pub(super) use fires::*;
pub(super) use gates::*;
pub(super) use looks::*;
pub(super) use prune::*;
pub(super) use reads::*;
pub(super) use reload::*;
pub(super) use writes::*;

pub(super) fn statements() -> Vec<(&'static str, &'static str)> {
    [WRITES, FIRES, GATES, READS, PRUNING, CANCELLING, LOOKS, RELOADING].concat()
}
