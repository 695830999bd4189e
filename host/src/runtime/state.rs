//! What the host keeps for one instance, and the linker that gives guests their imports.

use std::sync::Arc;

use wasmtime::component::{Linker, ResourceTable};
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_config::{WasiConfig, WasiConfigVariables};

use super::command::Program;
use super::limits::MemoryLimit;
use crate::interfaces::context::ContextView;
use crate::interfaces::db::{DbView, Session};
use crate::interfaces::jobs::JobsView;
use crate::interfaces::stdio::Output;
use crate::interfaces::{Port, context, db, jobs};
use crate::limits::Limits;

/// The data of a wasmtime store.
pub(super) struct GuestState {
    wasi: WasiCtx,
    table: ResourceTable,
    config: Arc<WasiConfigVariables>,
    session: Arc<Session>,
    port: Arc<dyn Port>,
    output: Output,
    pub(super) memory: MemoryLimit,
}

impl GuestState {
    /// No folder, no environment variable, no socket: `WasiCtx` grants nothing by itself. A
    /// program has its arguments and its input.
    pub(super) fn new(
        config: Arc<WasiConfigVariables>,
        session: Arc<Session>,
        port: Arc<dyn Port>,
        output: Output,
        limits: Limits,
        program: Option<&Program<'_>>,
    ) -> Self {
        let mut builder = WasiCtx::builder();
        builder.stdout(output.stdout()).stderr(output.stderr());
        if let Some(program) = program {
            program.set_up(&mut builder, &output);
        }
        Self {
            wasi: builder.build(),
            table: ResourceTable::new(),
            config,
            session,
            port,
            output,
            memory: MemoryLimit::new(limits.memory),
        }
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// A store whose guest stays within its memory and yields at every epoch.
pub(super) fn store(engine: &Engine, state: GuestState) -> Store<GuestState> {
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.memory);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Yield(1)));
    store
}

/// Every import that a guest can have.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_config::add_to_linker(&mut linker, |state: &mut GuestState| {
        WasiConfig::from(&*state.config)
    })?;
    db::add_to_linker(&mut linker, |state: &mut GuestState| DbView {
        session: &state.session,
        table: &mut state.table,
    })?;
    context::add_to_linker(&mut linker, |state: &mut GuestState| ContextView {
        port: &state.port,
        output: &state.output,
    })?;
    jobs::add_to_linker(&mut linker, |state: &mut GuestState| JobsView { port: &state.port })?;
    Ok(linker)
}
