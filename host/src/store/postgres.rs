//! The SQL for PostgreSQL. `sqlite` has the same constants in the same order.
//!
//! Every table is named with its schema, so that a login's `search_path` changes nothing.
//! `coalesce($n, now())` takes the database's clock unless a test brings its own.

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
