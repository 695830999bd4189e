//! The memory of one execution: all its linear memories and tables together.

use wasmtime::ResourceLimiter;

/// No single table has more elements.
pub(super) const MOST_TABLE_ELEMENTS: usize = 200_000;

/// Counts what an execution has, refuses what is too much, and remembers that it did, since
/// to the guest a refusal looks like any other failed allocation.
#[derive(Debug)]
pub(super) struct MemoryLimit {
    limit: usize,
    used: usize,
    peak: usize,
    /// What was approved last: it is taken back where it then fails.
    approved: usize,
    refused: Option<Refused>,
}

#[derive(Debug)]
struct Refused {
    used: usize,
    wanted: usize,
}

impl MemoryLimit {
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            limit: usize::try_from(bytes).unwrap_or(usize::MAX),
            used: 0,
            peak: 0,
            approved: 0,
            refused: None,
        }
    }

    /// What to tell the operator, where something was refused. It need not be why the guest
    /// ended: some do with less.
    pub(super) fn complaint(&self) -> Option<String> {
        let refused = self.refused.as_ref()?;
        Some(format!(
            "out of memory: {} of {} used, and {} more were asked for; raise `limits.memory` of the plugin \
             if it needs it",
            size(refused.used),
            size(self.limit),
            size(refused.wanted)
        ))
    }

    /// The most bytes that there were at one time.
    pub(super) fn peak(&self) -> u64 {
        self.peak as u64
    }

    fn grow(&mut self, by: usize) -> bool {
        if self.used.saturating_add(by) > self.limit {
            self.refused = Some(Refused { used: self.used, wanted: by });
            return false;
        }
        self.used += by;
        self.peak = self.peak.max(self.used);
        self.approved = by;
        true
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // wasmtime asks before it looks at the maximum that the memory itself declares.
        Ok(maximum.is_none_or(|maximum| desired <= maximum) && self.grow(desired.saturating_sub(current)))
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // Only what the operating system refused was approved here before. The other cause is
        // a size that no memory can have, which wasmtime refuses without asking.
        if error.is::<std::io::Error>() {
            self.used -= std::mem::take(&mut self.approved);
        }
        tracing::debug!(%error, "a guest's memory could not grow");
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // With the maximum looked at, nothing is left that could fail after it was approved.
        let most = maximum.map_or(MOST_TABLE_ELEMENTS, |maximum| maximum.min(MOST_TABLE_ELEMENTS));
        let added = desired.saturating_sub(current).saturating_mul(size_of::<usize>());
        Ok(desired <= most && self.grow(added))
    }
}

fn size(bytes: usize) -> bytesize::ByteSize {
    bytesize::ByteSize::b(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_count_together() {
        let mut limit = MemoryLimit::new(1024);
        assert!(limit.memory_growing(0, 600, None).unwrap());
        assert!(limit.table_growing(0, 50, None).unwrap());
        assert!(limit.complaint().is_none());
        assert!(!limit.memory_growing(600, 700, None).unwrap());
        let complaint = limit.complaint().unwrap();
        assert!(
            complaint.starts_with("out of memory: 1000 B of 1.0 KiB used, and 100 B more"),
            "{complaint}"
        );
    }

    #[test]
    fn what_is_beyond_the_guests_own_maximum_is_not_counted_and_no_complaint() {
        let mut limit = MemoryLimit::new(1024);
        assert!(!limit.memory_growing(0, 600, Some(500)).unwrap());
        assert!(!limit.table_growing(0, 50, Some(40)).unwrap());
        assert!(limit.complaint().is_none());
        assert!(limit.memory_growing(0, 1024, None).unwrap());
    }

    #[test]
    fn a_growth_that_the_operating_system_refuses_is_taken_back_once() {
        let mut limit = MemoryLimit::new(1024);
        assert!(limit.memory_growing(0, 1024, None).unwrap());
        let refused = || wasmtime::Error::from(std::io::Error::from(std::io::ErrorKind::OutOfMemory));
        limit.memory_grow_failed(refused()).unwrap();
        assert!(limit.memory_growing(0, 1000, None).unwrap());
        // wasmtime refuses some by itself, and never asked for them.
        limit.memory_grow_failed(wasmtime::Error::msg("memory growth exceeds memory type's limits")).unwrap();
        assert!(!limit.memory_growing(1000, 1100, None).unwrap());
        limit.memory_grow_failed(refused()).unwrap();
        limit.memory_grow_failed(refused()).unwrap();
        assert_eq!(limit.used, 0);
    }
}
