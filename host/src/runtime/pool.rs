//! How many instances there is room for, and how large each may be.
//!
//! A slot costs address space and no memory until it is used. Each memory has all that a 32-bit
//! memory can have, so that a reload may bring a plugin with a higher limit without a new engine; what
//! an execution may really use is its own limit (`runtime/limits.rs`).

use anyhow::ensure;
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::compile::code_config;
use super::limits;

mod machine;

use machine::Machine;

/// Core instances of one component. One of Python or JavaScript has dozens; of Rust, one to three.
pub(super) const MOST_CORE_INSTANCES: u32 = 60;
/// Linear memories of one component.
pub(super) const MOST_MEMORIES: u32 = 4;
/// Tables of one component.
pub(super) const MOST_TABLES: u32 = 20;
/// Bytes that the host needs for an instance of a component, beside its memories and tables.
pub(super) const MOST_INSTANCE_BYTES: usize = 4 << 20;
/// Bytes that one linear memory can have, whatever its limit is.
pub(super) const MOST_MEMORY: u64 = 4 << 30;

/// Slots beside those of executions: so many components can be described at a time, also while every
/// other slot is in use.
pub(super) const DESCRIBED_AT_ONCE: u32 = 4;

/// Guards between two memories; wasmtime's default.
const GUARD: u64 = 32 << 20;
/// An async stack; wasmtime's default.
const STACK: u64 = 2 << 20;

/// The settings of an engine for so many executions at once.
///
/// # Errors
/// Where this process may not have the address space.
pub(super) fn engine_config(concurrency: usize, fuel: bool) -> anyhow::Result<Config> {
    let slots = slots(concurrency);
    let machine = Machine::read();
    let wanted = address_space(slots);
    if let Some(limit) = machine.address_space {
        ensure!(
            wanted <= limit,
            "{concurrency} executions at once need {} of address space (not of memory), and this process may have \
             {}; lower `concurrency` in [host], or raise the limit (`ulimit -v`, `LimitAS=` of systemd)",
            size(wanted),
            size(limit)
        );
    }
    let mut config = code_config(fuel);
    config
        .memory_reservation(MOST_MEMORY)
        .memory_guard_size(GUARD)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(slots)));
    Ok(config)
}

fn pool(slots: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(slots)
        .total_stacks(slots)
        .total_core_instances(slots.saturating_mul(MOST_CORE_INSTANCES))
        .total_memories(slots.saturating_mul(MOST_MEMORIES))
        .total_tables(slots.saturating_mul(MOST_TABLES))
        .max_core_instances_per_component(MOST_CORE_INSTANCES)
        .max_memories_per_component(MOST_MEMORIES)
        .max_tables_per_component(MOST_TABLES)
        .max_memories_per_module(MOST_MEMORIES)
        .max_tables_per_module(MOST_TABLES)
        .max_component_instance_size(MOST_INSTANCE_BYTES)
        .max_core_instance_size(MOST_INSTANCE_BYTES)
        .max_memory_size(usize::try_from(MOST_MEMORY).unwrap_or(usize::MAX))
        .table_elements(limits::MOST_TABLE_ELEMENTS)
        // Slots of plugins that do not run now, with the pages that they keep: as many as can be in
        // use, and not all four memories and twenty tables of each.
        .max_unused_warm_slots(slots);
    keep_pages(&mut pool);
    pool
}

/// Where the kernel tells which pages a guest has written (Linux 6.7), those are reset by hand
/// and kept: to give them back to the system and to fault them in again, for each call, costs
/// more than the call. Without that, all of them would have to be written.
fn keep_pages(pool: &mut PoolingAllocationConfig) {
    const KEPT: usize = 1 << 20;
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Auto).linear_memory_keep_resident(KEPT).table_keep_resident(KEPT);
    }
}

fn slots(concurrency: usize) -> u32 {
    let concurrency = u32::try_from(concurrency).unwrap_or(u32::MAX);
    concurrency.saturating_add(DESCRIBED_AT_ONCE).min(u32::MAX / MOST_CORE_INSTANCES)
}

/// Bytes that are reserved for so many slots.
fn address_space(slots: u32) -> u64 {
    let memories = u64::from(MOST_MEMORIES) * (MOST_MEMORY + GUARD);
    let tables = u64::from(MOST_TABLES) * (limits::MOST_TABLE_ELEMENTS as u64) * 8;
    u64::from(slots).saturating_mul(memories + tables + STACK)
}

/// What may go wrong on this machine once so many executions run at once, each with as much memory as
/// the plugin with the highest limit may have: sentences for the operator.
#[must_use]
pub fn warnings(concurrency: usize, largest_memory: u64) -> Vec<String> {
    warnings_on(Machine::read(), concurrency, largest_memory)
}

fn warnings_on(machine: Machine, concurrency: usize, largest_memory: u64) -> Vec<String> {
    // Mappings of a memory in use (its image, what has grown, what is reserved), and a stack with
    // its guard; and what the process has anyway.
    const PER_SLOT: u64 = MOST_MEMORIES as u64 * 3 + 2;
    const BESIDES: u64 = 4096;
    let mut warnings = Vec::new();
    let at_most = (concurrency as u64).saturating_mul(largest_memory);
    if let Some(memory) = machine.memory.filter(|memory| at_most / 2 > *memory) {
        warnings.push(format!(
            "{concurrency} executions at once (`concurrency` in [host]) may use {} each (the largest `limits.memory` \
             of a plugin), {} in all, and there are {}: should they do so, the system ends this host; lower one of \
             the two",
            size(largest_memory),
            size(at_most),
            size(memory)
        ));
    }
    let mappings = u64::from(slots(concurrency)) * PER_SLOT + BESIDES;
    if let Some(most) = machine.mappings.filter(|most| mappings > *most) {
        warnings.push(format!(
            "{concurrency} executions at once may need {mappings} mappings of memory, and a process may have {most}: \
             beyond that, executions fail to start; set `vm.max_map_count` (sysctl) to {mappings} or more, or lower \
             `concurrency` in [host]"
        ));
    }
    warnings
}

fn size(bytes: u64) -> bytesize::ByteSize {
    bytesize::ByteSize::b(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn what_fits_into_the_machine_needs_no_warning() {
        let machine = Machine { memory: Some(4 * GIB), mappings: Some(65_530), address_space: None };
        assert!(warnings_on(machine, 32, 64 << 20).is_empty());
        assert!(warnings_on(Machine::default(), 1000, 4 * GIB).is_empty(), "nothing is known");
        // The most that a configuration can ask for is within the system's default.
        let machine = Machine { mappings: Some(65_530), ..Machine::default() };
        assert!(warnings_on(machine, 1000, GIB).is_empty());
    }

    #[test]
    fn more_memory_or_mappings_than_there_are_is_said_with_what_to_do() {
        let machine = Machine { memory: Some(2 * GIB), mappings: Some(5000), address_space: None };
        let warnings = warnings_on(machine, 100, GIB);
        assert!(warnings[0].contains("100.0 GiB in all, and there are 2.0 GiB"), "{warnings:?}");
        assert!(warnings[1].contains("`vm.max_map_count`"), "{warnings:?}");
        assert_eq!(warnings.len(), 2);
    }
}
