//! Schedules: what it costs to know when jobs fire, and what jobs cost that do not fire.

mod next;
mod store;

use anyhow::Result;

use crate::Selection;
use crate::figure::Report;

/// Measures what is selected.
///
/// # Errors
/// Where nothing can be measured at all.
pub async fn run(selection: &Selection, report: &mut Report) -> Result<()> {
    next::measure(selection, report);
    store::measure(selection, report).await
}
