//! What the host keeps for one instance, and the linker that gives guests their imports.

use std::sync::Arc;

use wasmtime::component::{Linker, ResourceTable};
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_config::{WasiConfig, WasiConfigVariables};

use super::command::Program;
use super::limits::{MOST_HANDLES, MOST_RANDOM_BYTES, MemoryLimit, bytes_of_one_call};
use super::turns;
use crate::interfaces::context::ContextView;
use crate::interfaces::db::{DbView, Session};
use crate::interfaces::files::{FilesView, Folders};
use crate::interfaces::granted::Granted;
use crate::interfaces::http::Requests;
use crate::interfaces::jobs::JobsView;
use crate::interfaces::output::Output;
use crate::interfaces::refusals::Refusals;
use crate::interfaces::{Port, context, db, files, http, jobs, sockets};
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
    pub(super) refusals: Arc<Refusals>,
    pub(super) requests: Requests,
    folders: Folders,
    bytes_of_one_call: usize,
}

impl GuestState {
    /// `WasiCtx` grants nothing by itself: no folder, no environment variable, no socket. A
    /// program has its arguments and its input.
    pub(super) fn new(
        config: Arc<WasiConfigVariables>,
        granted: Arc<Granted>,
        session: Arc<Session>,
        port: Arc<dyn Port>,
        output: Output,
        limits: Limits,
        program: Option<&Program<'_>>,
    ) -> Self {
        let mut builder = WasiCtx::builder();
        builder.stdout(output.stdout()).stderr(output.stderr()).max_random_size(MOST_RANDOM_BYTES);
        builder.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
        granted.set_env(&mut builder);
        if let Some(program) = program {
            program.set_up(&mut builder, &output);
        }
        let refusals = Arc::new(Refusals::new(granted.plugin(), output.clone()));
        let requests = Requests::new(granted.clone(), refusals.clone(), session.activity().clone());
        let folders = Folders::new(granted, refusals.clone());
        let mut table = ResourceTable::new();
        table.set_max_capacity(MOST_HANDLES);
        Self {
            wasi: builder.build(),
            table,
            config,
            session,
            port,
            output,
            memory: MemoryLimit::new(limits.memory),
            refusals,
            requests,
            folders,
            bytes_of_one_call: bytes_of_one_call(limits),
        }
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// A store whose guest stays within its limits and yields at the end of an epoch, unless its turn
/// goes on. `fuel` is for an engine that counts it.
pub(super) fn store(engine: &Engine, state: GuestState, fuel: Option<u64>) -> Store<GuestState> {
    let mut store = Store::new(engine, state);
    store.set_hostcall_fuel(store.data().bytes_of_one_call);
    if let Some(fuel) = fuel {
        let set = store.set_fuel(fuel);
        debug_assert!(set.is_ok(), "the engine counts fuel");
    }
    store.limiter(|state| &mut state.memory);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|context| {
        if turns::goes_on() {
            return Ok(UpdateDeadline::Continue(1));
        }
        context.data().session.activity().set_computing(true);
        Ok(UpdateDeadline::Yield(1))
    });
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
        activity: state.session.activity(),
    })?;
    http::add_to_linker(&mut linker, |state: &mut GuestState| state.requests.view(&mut state.table))?;
    // What refuses, and tells, stands before what wasmtime has.
    linker.allow_shadowing(true);
    files::add_to_linker(&mut linker, |state: &mut GuestState| FilesView {
        folders: &mut state.folders,
        table: &mut state.table,
    })?;
    sockets::add_to_linker(&mut linker, |state: &mut GuestState| state.refusals.clone())?;
    linker.allow_shadowing(false);
    jobs::add_to_linker(&mut linker, |state: &mut GuestState| JobsView {
        port: &state.port,
        activity: state.session.activity(),
    })?;
    Ok(linker)
}
