//! The other side: wasmtime with the settings of the host, and nothing around it.
//!
//! The engine yields at epochs and takes instances from a pool, the call is async, and the guest has
//! WASI, since a guest of Rust's standard library does not start without. No other import works, there
//! are no limits, no time-out, no log, no transactions, and nothing says how it went.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use innkeeper_tests::host::guest;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store, UpdateDeadline,
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

mod bindings {
    #![allow(missing_docs, reason = "generated")]
    wasmtime::component::bindgen!({
        path: "../plugin-sdk/wit",
        world: "plugin",
        imports: { default: async },
        exports: { default: async },
    });
}

use bindings::PluginPre;
use bindings::innkeeper::plugin::types::{Execution, Trigger};

/// As the host has it: `host/src/runtime/pool.rs`.
const KEPT: usize = 1 << 20;
const EPOCH: Duration = Duration::from_millis(10);

/// The guest of the benchmarks.
pub struct Bare {
    engine: Engine,
    pre: PluginPre<State>,
    stopped: Arc<AtomicBool>,
}

struct State {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl Bare {
    /// Compiles the guest.
    ///
    /// # Errors
    /// Where it was not built.
    pub fn load() -> Result<Self> {
        let mut pool = PoolingAllocationConfig::default();
        pool.pagemap_scan(Enabled::Auto).linear_memory_keep_resident(KEPT).table_keep_resident(KEPT);
        let mut config = Config::new();
        config.epoch_interruption(true).allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = Engine::new(&config)?;
        let bytes = std::fs::read(guest("bench")).context("the guest of the benchmarks is not built")?;
        let component = Component::from_binary(&engine, &bytes)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        linker.define_unknown_imports_as_traps(&component)?;
        let pre = PluginPre::new(linker.instantiate_pre(&component)?)?;
        let (stopped, ticking) = (Arc::new(AtomicBool::new(false)), engine.clone());
        let stop = Arc::clone(&stopped);
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(EPOCH);
                ticking.increment_epoch();
            }
        });
        Ok(Self { engine, pre, stopped })
    }

    /// Calls a handler in an instance of its own, and returns what it returned.
    ///
    /// # Errors
    /// Where it fails.
    pub async fn call(&self, handler: &str, args: String) -> Result<String> {
        let state = State { wasi: WasiCtx::builder().build(), table: ResourceTable::new() };
        let mut store = Store::new(&self.engine, state);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Yield(1)));
        let plugin = self.pre.instantiate_async(&mut store).await?;
        let execution = Execution {
            id: String::new(),
            job: handler.to_owned(),
            attempt: 1,
            max_attempts: 1,
            triggered_by: Trigger::Manual,
            scheduled_at: 0,
            started_at: 0,
            deadline: None,
            checkpoint: None,
        };
        let handlers = plugin.innkeeper_plugin_handlers();
        let returned = handlers.call_run(&mut store, handler, &args, &execution).await?;
        returned.map_err(|failure| anyhow!("the handler failed: {failure:?}"))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}
