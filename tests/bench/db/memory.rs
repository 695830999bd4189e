//! What a million rows take while they pass: in the host's process, and in the guest.

use std::fs;

use anyhow::{Context as _, Result};

use super::{BATCH, Bench, Subject, handler_of, name_on};
use crate::Selection;
use crate::figure::{Figure, Report};

/// By how much the process grew at most, the guest's memory included; and the guest's memory.
pub const NAMES: [&str; 2] = ["cursor_1m_memory", "cursor_1m_guest_memory"];

/// Reads a million rows by a cursor once, and adds what that took at most.
pub async fn measure(bench: &Bench, selection: &Selection, report: &mut Report) {
    let names = NAMES.map(|name| name_on(bench.engine, name));
    if !names.iter().any(|name| selection.wants(name)) {
        return;
    }
    let [of_process, of_guest] = &names;
    match read(bench).await {
        Ok((grown, guest)) => {
            for (name, bytes) in [(of_process, grown), (of_guest, guest)] {
                if selection.wants(name) {
                    report.add(name, Ok(Figure::alone(name, mebibytes(bytes), "MiB")));
                }
            }
        }
        Err(error) => report.add(of_process, Err(error)),
    }
}

/// By how many bytes the process grew at most, and how many the guest has.
async fn read(bench: &Bench) -> Result<(u64, u64)> {
    // This is the first call of this guest: connections, caches and the instance count as well.
    let before = memory("VmRSS:")?;
    // Lets the kernel forget the peak so far.
    fs::write("/proc/self/clear_refs", "5").context("the peak of the memory cannot be reset")?;
    let handler = handler_of(Subject::Cursor1m);
    let measured = bench.guest.measure(handler, bench.args_of(Subject::Cursor1m)).await;
    let measured = measured.with_context(|| format!("a cursor with fetches of {BATCH} rows"))?;
    Ok((memory("VmHWM:")?.saturating_sub(before), measured.memory))
}

#[expect(clippy::cast_precision_loss, reason = "far less than the memory of any machine")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Bytes, of this line of the process's state.
fn memory(line: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("the kernel is not Linux")?;
    let found = status.lines().find_map(|found| found.strip_prefix(line));
    let kibibytes = found.and_then(|rest| rest.trim().strip_suffix(" kB")).map(str::parse::<u64>);
    Ok(kibibytes.with_context(|| format!("/proc/self/status has no {line}"))?? * 1024)
}
