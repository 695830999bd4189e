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
use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::Linker;

mod cache;
mod call;
mod command;
mod compile;
mod ending;
mod inspect;
mod limits;
mod load;
mod meter;
mod pool;
mod reason;
mod state;
mod threads;
mod trap;
mod turns;

pub use cache::Cache;
pub use call::{Call, Called, Stop};
pub use compile::{
    COMMAND as COMPILE_COMMAND, CompileBounds, CompileError, CompileIn, Compiled, Compiler, compile_component,
};
pub use inspect::{Given, Import, Inspection, Offered};
pub use load::{Form, LoadError, LoadedComponent};
pub use pool::warnings as capacity_warnings;
use state::GuestState;
use threads::Threads;
use turns::Turns;

/// How often a running guest yields.
const EPOCH: Duration = Duration::from_millis(10);

/// Runs components.
pub struct Runtime {
    plain: Arc<Linked>,
    /// Made for the first plugin that has a limit of fuel.
    counting_fuel: Mutex<Option<Arc<Linked>>>,
    concurrency: usize,
    compiler: Compiler,
    /// Each is a slot that no execution takes.
    describing: Semaphore,
    turns: Turns,
    threads: Threads,
    ticker: Ticker,
}

/// An engine, and the imports that guests can have in it.
struct Linked {
    engine: Engine,
    linker: Linker<GuestState>,
}

impl Runtime {
    /// Sets up an engine for `concurrency` executions at once. Warns where this machine has not the
    /// memory for so many with `largest_memory` bytes each; a plugin may have more for all that.
    ///
    /// Compiles in this process and keeps nothing: see [`Runtime::with_compiler`].
    ///
    /// # Errors
    /// Where this machine cannot reserve the address space for so many.
    pub fn new(concurrency: usize, largest_memory: u64) -> anyhow::Result<Self> {
        for warning in capacity_warnings(concurrency, largest_memory) {
            tracing::warn!("{warning}");
        }
        let plain = Arc::new(Linked::new(concurrency, false)?);
        let ticker = Ticker::start(plain.engine.clone())?;
        let engines = ticker.engines.clone();
        let turns = Turns::new(threads::cores(), move || raise_epoch(&engines));
        Ok(Self {
            plain,
            counting_fuel: Mutex::default(),
            concurrency,
            compiler: Compiler::new(CompileIn::Process),
            describing: Semaphore::new(pool::DESCRIBED_AT_ONCE as usize),
            turns,
            threads: Threads::start()?,
            ticker,
        })
    }

    /// Has components compiled by `compiler`.
    #[must_use]
    pub fn with_compiler(self, compiler: Compiler) -> Self {
        Self { compiler, ..self }
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
        let linked = Arc::new(Linked::new(self.concurrency, true)?);
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
    fn new(concurrency: usize, counts_fuel: bool) -> anyhow::Result<Self> {
        let config = pool::engine_config(concurrency, counts_fuel)?;
        let engine = Engine::new(&config).map_err(anyhow::Error::from).with_context(|| {
            format!(
                "this machine cannot reserve the address space for {concurrency} executions at once; lower \
                 `concurrency` in [host], or let processes reserve more than there is (`ulimit -v`; \
                 `vm.overcommit_memory` must not be 2)"
            )
        })?;
        let linker = state::linker(&engine)?;
        Ok(Self { engine, linker })
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
                raise_epoch(&ticked);
            }
        })?;
        Ok(Self { engines, stop })
    }

    fn add(&self, engine: Engine) {
        self.engines.lock().unwrap_or_else(PoisonError::into_inner).push(engine);
    }
}

fn raise_epoch(engines: &Mutex<Vec<Engine>>) {
    for engine in &*engines.lock().unwrap_or_else(PoisonError::into_inner) {
        engine.increment_epoch();
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
