//! The memory of one execution: all its linear memories and tables together, and what it may have
//! the host keep for it.

use wasmtime::ResourceLimiter;

use crate::limits::{Limits, grouped};

/// No single table has more elements.
pub(super) const MOST_TABLE_ELEMENTS: usize = 200_000;

/// Things of the host that one execution may have open at once: streams, timers, transactions. The
/// host keeps some bytes for each.
pub(super) const MOST_HANDLES: usize = 10_000;

/// Random bytes that a guest may ask for in one call, which the host makes at once.
pub(super) const MOST_RANDOM_BYTES: u64 = 16 << 20;

/// Bytes that the host copies from a guest in one call, however often the same bytes are meant: what
/// a guest may have in its memory, and as much again for what the host adds to small values.
pub(super) fn bytes_of_one_call(limits: Limits) -> usize {
    const LEAST: u64 = 8 << 20;
    usize::try_from(limits.memory.saturating_mul(2).max(LEAST)).unwrap_or(usize::MAX)
}

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
    /// What the operating system said when it had no memory for what was approved.
    shortage: Option<String>,
}

#[derive(Debug)]
enum Refused {
    /// What a memory has when it is made.
    Beginning {
        wanted: usize,
    },
    Memory {
        used: usize,
        wanted: usize,
    },
    Table {
        wanted: usize,
    },
}

impl MemoryLimit {
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            limit: usize::try_from(bytes).unwrap_or(usize::MAX),
            used: 0,
            peak: 0,
            approved: 0,
            refused: None,
            shortage: None,
        }
    }

    /// What to tell the operator, where something was refused. It need not be why the guest
    /// ended: some do with less.
    pub(super) fn complaint(&self) -> Option<String> {
        let advice = "raise `limits.memory` of the plugin if it needs that";
        Some(match self.refused.as_ref()? {
            Refused::Beginning { wanted } => format!(
                "out of memory: it needs {} to begin with, and may have {}; {advice}",
                size(*wanted),
                size(self.limit)
            ),
            Refused::Memory { used, wanted } => {
                let [used, limit] = in_one_unit(*used, self.limit);
                let wanted = size(*wanted);
                format!(
                    "out of memory: {used} of {limit} were in use when it asked for {wanted} more; {advice}"
                )
            }
            Refused::Table { wanted } => format!(
                "out of memory: it asked for a table of {} elements, and may have {}",
                grouped(*wanted as u64),
                grouped(MOST_TABLE_ELEMENTS as u64)
            ),
        })
    }

    /// Why this machine could not give the guest what it may have: not the guest's doing.
    pub(super) fn shortage(&self) -> Option<String> {
        self.shortage.clone()
    }

    /// The most bytes that there were at one time.
    pub(super) fn peak(&self) -> u64 {
        self.peak as u64
    }

    fn grow(&mut self, by: usize) -> bool {
        if self.used.saturating_add(by) > self.limit {
            self.refused = Some(Refused::Memory { used: self.used, wanted: by });
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
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let grown = self.grow(desired.saturating_sub(current));
        if !grown && current == 0 {
            self.refused = Some(Refused::Beginning { wanted: desired });
        }
        Ok(grown)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // Only what the operating system refused was approved here before. The other cause is
        // a size that no memory can have, which wasmtime refuses without asking.
        if error.is::<std::io::Error>() {
            self.used -= std::mem::take(&mut self.approved);
            self.shortage = Some(format!("{error:#}"));
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
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        if desired > MOST_TABLE_ELEMENTS {
            self.refused = Some(Refused::Table { wanted: desired });
            return Ok(false);
        }
        let added = desired.saturating_sub(current).saturating_mul(size_of::<usize>());
        Ok(self.grow(added))
    }
}

fn size(bytes: usize) -> bytesize::ByteSize {
    bytesize::ByteSize::b(bytes as u64)
}

/// `63.9` and `64 MiB`: the unit of the second, once.
fn in_one_unit(part: usize, whole: usize) -> [String; 2] {
    let (unit, name) = match whole {
        0..1024 => (1, "B"),
        1024..0x10_0000 => (1 << 10, "KiB"),
        _ => (1 << 20, "MiB"),
    };
    // Tenths, and cut rather than rounded: what is not quite full does not look full.
    let number = |bytes: usize| match (bytes / unit, bytes % unit * 10 / unit) {
        (whole, 0) => whole.to_string(),
        (whole, tenths) => format!("{whole}.{tenths}"),
    };
    [number(part), format!("{} {name}", number(whole))]
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
        let expected = "out of memory: 0.9 of 1 KiB were in use when it asked for 100 B more; raise";
        assert!(complaint.starts_with(expected), "{complaint}");
    }

    #[test]
    fn a_complaint_says_what_was_refused() {
        assert_eq!(in_one_unit(64 << 20, 64 << 20), ["64", "64 MiB"]);
        assert_eq!(in_one_unit((64 << 20) - 1, 4 << 30), ["63.9", "4096 MiB"]);
        let mut limit = MemoryLimit::new(32 << 20);
        assert!(!limit.memory_growing(0, 100 << 20, None).unwrap());
        let complaint = limit.complaint().unwrap();
        assert!(complaint.contains("it needs 100.0 MiB to begin with, and may have 32.0 MiB"), "{complaint}");
        assert!(!limit.table_growing(0, 1 << 30, None).unwrap());
        let complaint = limit.complaint().unwrap();
        assert!(complaint.contains("a table of 1,073,741,824 elements, and may have 200,000"), "{complaint}");
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
        assert!(limit.shortage().is_some() && limit.complaint().is_none());
        assert!(limit.memory_growing(0, 1000, None).unwrap());
        // wasmtime refuses some by itself, and never asked for them.
        limit.memory_grow_failed(wasmtime::Error::msg("memory growth exceeds memory type's limits")).unwrap();
        assert!(!limit.memory_growing(1000, 1100, None).unwrap());
        limit.memory_grow_failed(refused()).unwrap();
        limit.memory_grow_failed(refused()).unwrap();
        assert_eq!(limit.used, 0);
    }

    #[test]
    fn all_memories_and_tables_of_a_module_are_one_sum() {
        let module = r#"(module
            (memory $a 1) (memory $b 1) (table $c 100 funcref) (table $d 100 funcref)
            (func (export "a") (param i32) (result i32) (memory.grow $a (local.get 0)))
            (func (export "b") (param i32) (result i32) (memory.grow $b (local.get 0)))
            (func (export "c") (param i32) (result i32) (table.grow $c (ref.null func) (local.get 0)))
            (func (export "d") (param i32) (result i32) (table.grow $d (ref.null func) (local.get 0))))"#;
        let engine = wasmtime::Engine::default();
        let module = wasmtime::Module::new(&engine, wat::parse_str(module).unwrap()).unwrap();
        const PAGE: u64 = 64 << 10;
        let mut store = wasmtime::Store::new(&engine, MemoryLimit::new(6 * PAGE));
        store.limiter(|limit| limit);
        let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
        let mut grow = |name: &str, by: i32| {
            let grow = instance.get_typed_func::<i32, i32>(&mut store, name).unwrap();
            (grow.call(&mut store, by).unwrap() != -1, store.data().peak())
        };
        let tables = 200 * size_of::<usize>() as u64;
        assert_eq!(grow("a", 2), (true, 4 * PAGE + tables));
        assert!(!grow("b", 2).0, "two more pages are too much, with the tables");
        assert_eq!(grow("b", 1), (true, 5 * PAGE + tables));
        let elements = i32::try_from(PAGE / 8).unwrap();
        assert!(!grow("c", elements).0, "and so are the elements of a page, with those of the other table");
        assert!(grow("d", elements - 200).0);
        assert_eq!(grow("c", 0), (true, 6 * PAGE));
        assert!(!grow("d", 1).0 && !grow("a", 1).0);
        assert!(!grow("c", i32::MAX).0);
        let complaint = store.data().complaint().unwrap();
        assert!(complaint.contains("a table of 2,147,483,747 elements"), "{complaint}");
    }
}
