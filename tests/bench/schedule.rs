//! Schedules: what it costs to know when jobs fire.

mod next;

use anyhow::Result;

use crate::Selection;
use crate::figure::Report;

/// Measures what is selected.
///
/// # Errors
/// Where nothing can be measured at all.
pub fn run(selection: &Selection, report: &mut Report) -> Result<()> {
    next::measure(selection, report);
    Ok(())
}
