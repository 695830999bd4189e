//! The least that a call takes: wasmtime alone, one instance after the other.
//!
//! No import works but as a trap, no limit is kept, nothing can interrupt the guest, and no
//! async runtime is between: a host that runs others' code cannot do with less.

use anyhow::{Context as _, Result, anyhow};
use innkeeper_tests::host::guest;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};

mod bindings {
    #![allow(missing_docs, reason = "generated")]
    wasmtime::component::bindgen!({ path: "../plugin-sdk/wit", world: "plugin" });
}

use bindings::PluginPre;
use bindings::innkeeper::plugin::types::{Execution, Trigger};

/// The handler that does nothing.
pub const NOOP: &str = "noop";

/// Bytes at the start of a memory that are zeroed by hand after a call and kept: cheaper than
/// to give the pages back to the system and to take them again.
const KEPT: usize = 1 << 20;

/// The guest of the benchmarks.
pub struct BareGuest {
    engine: Engine,
    pre: PluginPre<()>,
}

impl BareGuest {
    /// Compiles the guest.
    ///
    /// # Errors
    /// Where it was not built.
    pub fn load() -> Result<Self> {
        let mut pool = PoolingAllocationConfig::default();
        pool.pagemap_scan(Enabled::Auto).linear_memory_keep_resident(KEPT).table_keep_resident(KEPT);
        let mut config = Config::new();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = Engine::new(&config)?;
        let bytes = std::fs::read(guest("bench")).context("the guest of the benchmarks is not built")?;
        let component = Component::from_binary(&engine, &bytes)?;
        let mut linker = Linker::new(&engine);
        linker.define_unknown_imports_as_traps(&component)?;
        let pre = PluginPre::new(linker.instantiate_pre(&component)?)?;
        Ok(Self { engine, pre })
    }

    /// Calls the handler in an instance of its own, and returns what it returned.
    ///
    /// # Errors
    /// Where it fails.
    pub fn call(&self, execution: &str, args: &str) -> Result<String> {
        let mut store = Store::new(&self.engine, ());
        let plugin = self.pre.instantiate(&mut store)?;
        let execution = Execution {
            id: execution.to_owned(),
            job: NOOP.to_owned(),
            attempt: 1,
            max_attempts: 1,
            triggered_by: Trigger::Manual,
            scheduled_at: 0,
            started_at: 0,
            deadline: None,
            checkpoint: None,
        };
        let returned =
            plugin.innkeeper_plugin_handlers().call_run(&mut store, NOOP, &args.to_owned(), &execution)?;
        returned.map_err(|failure| anyhow!("the handler failed: {failure:?}"))
    }
}
