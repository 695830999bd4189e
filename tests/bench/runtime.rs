//! The runtime: what an execution costs besides its handler, and how soon plugins are there.

mod bare;
mod execution;
mod in_flight;
mod large;
mod neighbour;
mod ours;
mod plugins;

use anyhow::Result;

use crate::Selection;
use crate::figure::Report;

/// Measures what is selected.
///
/// # Errors
/// Where nothing can be measured at all.
pub async fn run(selection: &Selection, report: &mut Report) -> Result<()> {
    // First, in a process that has done nothing else: it is about memory.
    in_flight::measure(selection, report).await;
    execution::measure(selection, report).await;
    plugins::measure(selection, report).await;
    large::measure(selection, report).await;
    neighbour::measure(selection, report).await;
    Ok(())
}
