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
use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::Linker;

mod cache;
mod call;
mod compile;
mod limits;
mod load;
mod pool;
mod state;
mod threads;
mod turns;

pub use cache::Cache;
pub use call::{Call, Called, Stop};
pub use compile::{
    COMMAND as COMPILE_COMMAND, CompileBounds, CompileError, CompileIn, Compiled, Compiler, compile_component,
};
pub use load::{LoadError, LoadedComponent};
pub use pool::warnings as capacity_warnings;
use state::GuestState;
use threads::Threads;
use turns::Turns;

/// How often a running guest yields.
const EPOCH: Duration = Duration::from_millis(10);

/// Runs components.
pub struct Runtime {
    engine: Engine,
    linker: Linker<GuestState>,
    compiler: Compiler,
    /// Each is a slot that no execution takes.
    describing: Semaphore,
    turns: Turns,
    threads: Threads,
    _ticker: Ticker,
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
        let engine = engine(concurrency, false)?;
        let linker = state::linker(&engine)?;
        let ticker = Ticker::start(engine.clone())?;
        let interrupted = engine.clone();
        let turns = Turns::new(threads::cores(), move || interrupted.increment_epoch());
        Ok(Self {
            engine,
            linker,
            compiler: Compiler::new(CompileIn::Process),
            describing: Semaphore::new(pool::DESCRIBED_AT_ONCE as usize),
            turns,
            threads: Threads::start()?,
            _ticker: ticker,
        })
    }

    /// Has components compiled by `compiler`.
    #[must_use]
    pub fn with_compiler(self, compiler: Compiler) -> Self {
        Self { compiler, ..self }
    }

    /// Where to spawn what calls handlers; it ends with this runtime.
    #[must_use]
    pub fn threads(&self) -> &tokio::runtime::Handle {
        self.threads.handle()
    }
}

fn engine(concurrency: usize, fuel: bool) -> anyhow::Result<Engine> {
    Engine::new(&pool::engine_config(concurrency, fuel)?).map_err(anyhow::Error::from).with_context(|| {
        format!(
            "this machine cannot reserve the address space for {concurrency} executions at once; lower \
             `concurrency` in [host], or let processes reserve more than there is (`ulimit -v`; \
             `vm.overcommit_memory` must not be 2)"
        )
    })
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
