//! Compiles components and calls their handlers, each call in an instance of its own.
//!
//! One wasmtime engine serves the whole host. Instances come from the pooling allocator and
//! are never used twice, so no state passes from one execution to the next. A thread raises
//! the engine's epoch, which makes every guest yield to the async runtime a hundred times a
//! second: a guest that never returns still cannot delay a timer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use wasmtime::component::Linker;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

mod call;
mod command;
mod inspect;
mod limits;
mod load;
mod pool;
mod state;
mod threads;

pub use call::{Call, Called, Stop};
pub use inspect::{Given, Import, Inspection, Offered};
pub use load::{Form, LoadError, LoadedComponent};
use pool::{MOST_CORE_INSTANCES, MOST_MEMORIES, MOST_TABLES};
use state::GuestState;
use threads::Threads;

/// How often a running guest yields.
const EPOCH: Duration = Duration::from_millis(10);

/// Runs components.
pub struct Runtime {
    engine: Engine,
    linker: Linker<GuestState>,
    threads: Threads,
    _ticker: Ticker,
}

impl Runtime {
    /// Sets up an engine for `concurrency` executions at once, none with more than
    /// `largest_memory` bytes.
    ///
    /// # Errors
    /// Where this machine cannot reserve the address space for so many.
    pub fn new(concurrency: usize, largest_memory: u64) -> anyhow::Result<Self> {
        let engine = Engine::new(&engine_config(concurrency, largest_memory))
            .map_err(anyhow::Error::from)
            .with_context(|| {
                format!(
                    "this machine cannot reserve the address space for {concurrency} executions at once; lower \
                     `concurrency` in [host] or `limits.memory` of the plugins, or raise the limit (`ulimit -v`)"
                )
            })?;
        let linker = state::linker(&engine)?;
        let ticker = Ticker::start(engine.clone())?;
        Ok(Self { engine, linker, threads: Threads::start()?, _ticker: ticker })
    }

    /// Where to spawn what calls handlers; it ends with this runtime.
    #[must_use]
    pub fn threads(&self) -> &tokio::runtime::Handle {
        self.threads.handle()
    }
}

fn engine_config(concurrency: usize, largest_memory: u64) -> Config {
    let mut pool = PoolingAllocationConfig::default();
    // One more than run at once, for a component that is being described.
    let instances = u32::try_from(concurrency + 1).unwrap_or(u32::MAX / 64);
    // A component of Python or JavaScript has dozens of core instances and a few memories
    // and tables; one of Rust has one to three.
    pool.total_component_instances(instances)
        .total_stacks(instances)
        .total_core_instances(instances.saturating_mul(MOST_CORE_INSTANCES))
        .total_memories(instances.saturating_mul(MOST_MEMORIES))
        .total_tables(instances.saturating_mul(MOST_TABLES))
        .max_core_instances_per_component(MOST_CORE_INSTANCES)
        .max_memories_per_component(MOST_MEMORIES)
        .max_tables_per_component(MOST_TABLES)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .max_memory_size(usize::try_from(largest_memory).unwrap_or(usize::MAX))
        .table_elements(limits::MOST_TABLE_ELEMENTS);
    keep_pages(&mut pool);
    let mut config = Config::new();
    config.epoch_interruption(true).allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
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

/// Raises the epoch until it is dropped. A thread of its own, since a busy async runtime
/// must not delay it.
struct Ticker {
    stop: Arc<AtomicBool>,
}

impl Ticker {
    fn start(engine: Engine) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        std::thread::Builder::new().name("epoch".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(EPOCH);
                engine.increment_epoch();
            }
        })?;
        Ok(Self { stop })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
