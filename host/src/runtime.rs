//! Compiles components and calls their handlers, each call in an instance of its own.
//!
//! One wasmtime engine serves the whole host, and another one the plugins whose fuel is counted,
//! since their code is compiled otherwise. Instances come from the pooling allocator and
//! are never used twice, so no state passes from one execution to the next. A thread raises
//! the engine's epoch, which makes every guest yield to the async runtime a hundred times a
//! second: a guest that never returns still cannot delay a timer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use wasmtime::component::Linker;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

mod call;
mod ending;
mod limits;
mod load;
mod meter;
mod state;
mod threads;
mod trap;

pub use call::{Call, Called, Stop};
pub use load::{LoadError, LoadedComponent};
use state::GuestState;
use threads::Threads;

/// How often a running guest yields.
const EPOCH: Duration = Duration::from_millis(10);

/// Runs components.
pub struct Runtime {
    plain: Arc<Linked>,
    /// Made for the first plugin that has a limit of fuel.
    counting_fuel: Mutex<Option<Arc<Linked>>>,
    pool: PoolSize,
    threads: Threads,
    ticker: Ticker,
}

/// An engine, and the imports that guests can have in it.
struct Linked {
    engine: Engine,
    linker: Linker<GuestState>,
}

/// For how many executions at once there is room, each with so many bytes.
#[derive(Clone, Copy)]
struct PoolSize {
    concurrency: usize,
    largest_memory: u64,
}

impl Runtime {
    /// Sets up an engine for `concurrency` executions at once, none with more than
    /// `largest_memory` bytes.
    ///
    /// # Errors
    /// Where this machine cannot reserve the address space for so many.
    pub fn new(concurrency: usize, largest_memory: u64) -> anyhow::Result<Self> {
        let pool = PoolSize { concurrency, largest_memory };
        let plain = Arc::new(Linked::new(pool, false)?);
        let ticker = Ticker::start(plain.engine.clone())?;
        Ok(Self { plain, counting_fuel: Mutex::default(), pool, threads: Threads::start()?, ticker })
    }

    /// The engine for plugins with a limit of fuel, or for those without.
    fn linked(&self, counts_fuel: bool) -> anyhow::Result<Arc<Linked>> {
        if !counts_fuel {
            return Ok(self.plain.clone());
        }
        let mut counting = self.counting_fuel.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(linked) = &*counting {
            return Ok(linked.clone());
        }
        let linked = Arc::new(Linked::new(self.pool, true)?);
        self.ticker.add(linked.engine.clone());
        Ok(counting.insert(linked).clone())
    }

    /// Where to spawn what calls handlers; it ends with this runtime.
    #[must_use]
    pub fn threads(&self) -> &tokio::runtime::Handle {
        self.threads.handle()
    }
}

impl Linked {
    fn new(pool: PoolSize, counts_fuel: bool) -> anyhow::Result<Self> {
        let mut config = engine_config(pool.concurrency, pool.largest_memory);
        config.consume_fuel(counts_fuel);
        let engine = Engine::new(&config).map_err(anyhow::Error::from).with_context(|| {
            format!(
                "this machine cannot reserve the address space for {} executions at once; lower \
                 `concurrency` in [host] or `limits.memory` of the plugins, or raise the limit (`ulimit -v`)",
                pool.concurrency
            )
        })?;
        let linker = state::linker(&engine)?;
        Ok(Self { engine, linker })
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
        .total_core_instances(instances.saturating_mul(60))
        .total_memories(instances.saturating_mul(4))
        .total_tables(instances.saturating_mul(20))
        .max_core_instances_per_component(60)
        .max_memories_per_component(4)
        .max_tables_per_component(20)
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

/// Raises the epoch of every engine until it is dropped. A thread of its own, since a busy async
/// runtime must not delay it.
struct Ticker {
    engines: Arc<Mutex<Vec<Engine>>>,
    stop: Arc<AtomicBool>,
}

impl Ticker {
    fn start(engine: Engine) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let engines = Arc::new(Mutex::new(vec![engine]));
        let (stopped, ticked) = (stop.clone(), engines.clone());
        std::thread::Builder::new().name("epoch".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(EPOCH);
                for engine in &*ticked.lock().unwrap_or_else(PoisonError::into_inner) {
                    engine.increment_epoch();
                }
            }
        })?;
        Ok(Self { engines, stop })
    }

    fn add(&self, engine: Engine) {
        self.engines.lock().unwrap_or_else(PoisonError::into_inner).push(engine);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
