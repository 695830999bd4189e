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
    refused: Option<usize>,
}

impl MemoryLimit {
    pub(super) fn new(bytes: u64) -> Self {
        Self { limit: usize::try_from(bytes).unwrap_or(usize::MAX), used: 0, refused: None }
    }

    /// What to tell the operator, where something was refused.
    pub(super) fn complaint(&self) -> Option<String> {
        let wanted = self.refused?;
        Some(format!(
            "out of memory: the handler has {} and asked for {} more, and its limit is {}; raise \
             `limits.memory` of the plugin if it needs it",
            size(self.used),
            size(wanted),
            size(self.limit)
        ))
    }

    fn grow(&mut self, by: usize) -> bool {
        if self.used.saturating_add(by) > self.limit {
            self.refused = Some(by);
            return false;
        }
        self.used += by;
        true
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let added = desired.saturating_sub(current).saturating_mul(size_of::<usize>());
        Ok(desired <= MOST_TABLE_ELEMENTS && self.grow(added))
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
        assert!(limit.complaint().unwrap().contains("out of memory"));
    }
}
