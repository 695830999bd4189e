//! What this process has of memory, by the kernel's own books (`proc(5)`).

/// Bytes that are resident now.
pub(super) fn resident() -> u64 {
    status("VmRSS:")
}

/// The most bytes that were resident since [`reset_peak`].
pub(super) fn peak() -> u64 {
    status("VmHWM:")
}

/// Lets the peak be what is resident now.
pub(super) fn reset_peak() {
    // Where the kernel does not offer it, the peak is that of the whole process, and judged too hard.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn status(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) * 1024
}
