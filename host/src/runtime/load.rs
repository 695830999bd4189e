//! From a component's bytes to something that can be called.

mod adapt;
mod form;
mod imports;
mod measure;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi_config::WasiConfigVariables;

use super::command::{self, Program};
use super::compile::{CompileError, Compiled};
use super::reason::reason;
use super::state::{self, GuestState};
use super::turns::Allowance;
use super::{Linked, Runtime};
use crate::args::ArgsSchema;
use crate::bounds;
use crate::execution::Attempt;
use crate::interfaces::bindings::PluginPre;
use crate::interfaces::bindings::exports::innkeeper::plugin::handlers;
use crate::interfaces::db::Session;
use crate::interfaces::granted::Granted;
use crate::interfaces::output::Output;
use crate::interfaces::{ClosedPort, Port};
use crate::limits::Limits;
use crate::plugin::{Digest, Handler, Source};

pub use form::Form;
pub use imports::Lacks;
pub(super) use measure::{Measured, measure};

/// The export that makes a component a plugin.
pub(super) const HANDLERS: &str = "innkeeper:plugin/handlers@0.1.0";

/// The export that makes a component a program, of whatever WASI 0.2.
pub(super) const PROGRAM: &str = "wasi:cli/run@0.2.";

/// How long a component may take to describe itself.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(30);

/// A component that was compiled, linked and described.
pub struct LoadedComponent {
    entry: Entry,
    /// Of the processor; all executions of the component share it.
    pub(super) allowance: Allowance,
    /// It was compiled to count fuel.
    counts_fuel: bool,
    /// What it says that it can do.
    pub handlers: Vec<Handler>,
}

/// How it is called.
enum Entry {
    Handlers(PluginPre<GuestState>),
    Program(CommandPre<GuestState>),
}

/// A call that is about to be made.
pub(super) enum Start<'a> {
    Handler(&'a PluginPre<GuestState>),
    Program(Program<'a>),
}

impl LoadedComponent {
    pub(super) fn start(&self, attempt: &Attempt, limits: Limits) -> Start<'_> {
        match &self.entry {
            Entry::Handlers(pre) => Start::Handler(pre),
            Entry::Program(pre) => Start::Program(Program::new(pre, attempt, limits)),
        }
    }

    /// The fuel of one call, where it is counted.
    pub(super) fn fuel(&self, limits: Limits) -> Option<u64> {
        self.counts_fuel.then(|| limits.fuel.unwrap_or(u64::MAX))
    }

    pub(super) fn engine(&self) -> &Engine {
        match &self.entry {
            Entry::Handlers(pre) => pre.engine(),
            Entry::Program(pre) => pre.engine(),
        }
    }
}

impl Start<'_> {
    pub(super) fn program(&self) -> Option<&Program<'_>> {
        match self {
            Self::Handler(_) => None,
            Self::Program(program) => Some(program),
        }
    }
}

/// A component, made of a core module where it was one, and not too large for this host.
pub(super) struct Prepared {
    /// What the file is.
    pub(super) form: Form,
    pub(super) bytes: Bytes,
    /// What compiled code is kept under: other bytes, or bytes that were made in another way,
    /// have another one.
    pub(super) key: Digest,
    pub(super) measured: Measured,
}

/// Why a component cannot be used, and what its author can do about it.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not WebAssembly at all.
    #[error("the file is no WebAssembly; build the plugin for `wasm32-wasip2`")]
    NotWasm,
    /// A module that nothing can be called of.
    #[error(
        "the file is a core WebAssembly module, and neither a program (it has no `_start`) nor a plugin (it has \
         no `component-type` of the world `innkeeper:plugin`); with Rust, build it for the target \
         `wasm32-wasip2` with `crate-type = [\"cdylib\"]`"
    )]
    CoreModule,
    /// A module that no component can be made of.
    #[error("the file is a core WebAssembly module, and cannot be made a component: {0}")]
    Adapt(String),
    /// It is damaged, or uses what this host does not know.
    #[error("the component is not valid: {0}")]
    Invalid(String),
    /// It may be valid, and there is no code of it.
    #[error("the component cannot be compiled: {0}")]
    Compile(CompileError),
    /// This machine has no room for it. Not the component's fault.
    #[error("{0}")]
    Host(String),
    /// It would take more than an instance can have.
    #[error("the component is too much for this host: {0}")]
    TooMuch(String),
    /// It has other exports, or none.
    #[error(
        "the component has no handlers: in Rust, list them in `innkeeper_sdk::plugin!(…)`, without which \
         nothing is exported, and build it again (it exports neither `{HANDLERS}` nor `wasi:cli/run@0.2`, which \
         a program has; it exports {exports})"
    )]
    NoHandlers {
        /// What it does export.
        exports: String,
    },
    /// It wants imports that this host does not have.
    #[error("the component needs what this host does not have:{0}")]
    Imports(Lacks),
    /// It cannot be put together with this host.
    #[error("the component cannot be linked with this host: {0}")]
    Link(String),
    /// It failed when it was asked for its handlers.
    #[error("the component failed when it was asked for its handlers (`describe`): {0}")]
    Describe(String),
    /// What it says of a handler makes no sense.
    #[error("the component describes a handler `{handler}` that cannot be used: {reason}")]
    Handler {
        /// As the component calls it.
        handler: String,
        /// What is wrong.
        reason: String,
    },
}

impl From<CompileError> for LoadError {
    fn from(error: CompileError) -> Self {
        match error {
            CompileError::Invalid(reason) => Self::Invalid(reason),
            error => Self::Compile(error),
        }
    }
}

impl Runtime {
    /// Compiles, links and describes a component. Takes as long as compiling takes, off the
    /// async threads.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub async fn load(&self, source: &Source, limits: Limits) -> Result<LoadedComponent, LoadError> {
        let prepared = prepare(source).await?;
        prepared.measured.check(limits.memory)?;
        self.load_prepared(&prepared, limits).await
    }

    pub(super) async fn load_prepared(
        &self,
        prepared: &Prepared,
        limits: Limits,
    ) -> Result<LoadedComponent, LoadError> {
        let linked = self.linked_for(limits)?;
        let (component, _) = self.compile(&linked, prepared).await?;
        let is_plugin = has_handlers(&linked.engine, &component)?;
        imports::check(&linked.engine, &linked.linker, &component)?;
        let link = |error: wasmtime::Error| LoadError::Link(reason(&error));
        let pre = linked.linker.instantiate_pre(&component).map_err(link)?;
        let (entry, handlers) = if is_plugin {
            let pre = PluginPre::new(pre).map_err(link)?;
            let handlers = self.describe(&pre, limits).await?;
            (Entry::Handlers(pre), handlers)
        } else {
            let handlers = vec![command::handler(prepared.measured.description.as_deref())];
            (Entry::Program(CommandPre::new(pre).map_err(link)?), handlers)
        };
        let counts_fuel = limits.fuel.is_some();
        Ok(LoadedComponent { entry, allowance: Allowance::full(), counts_fuel, handlers })
    }

    /// Compiles a component for executions with these limits, so that it is in the cache when it is loaded.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub async fn compile_ahead(&self, source: &Source, limits: Limits) -> Result<Compiled, LoadError> {
        let prepared = prepare(source).await?;
        prepared.measured.check(limits.memory)?;
        let (_, compiled) = self.compile(&*self.linked_for(limits)?, &prepared).await?;
        Ok(compiled)
    }

    async fn compile(
        &self,
        linked: &Linked,
        prepared: &Prepared,
    ) -> Result<(Component, Compiled), LoadError> {
        Ok(self.compiler.component(&linked.engine, &prepared.key, &prepared.bytes).await?)
    }

    fn linked_for(&self, limits: Limits) -> Result<Arc<Linked>, LoadError> {
        self.linked(limits.fuel.is_some()).map_err(|error| LoadError::Host(format!("{error:#}")))
    }

    /// Asks a component for its handlers, with everything refused.
    async fn describe(&self, pre: &PluginPre<GuestState>, limits: Limits) -> Result<Vec<Handler>, LoadError> {
        // Fails only where the semaphore is closed, which it never is.
        let _slot = self.describing.acquire().await.ok();
        let port: Arc<dyn Port> = Arc::new(ClosedPort);
        let output = Output::new(port.clone(), limits);
        let state = GuestState::new(
            Arc::new(WasiConfigVariables::new()),
            Arc::new(Granted::nothing()),
            Session::refused(),
            port,
            output.clone(),
            limits,
            None,
        );
        // Time is what bounds it: the fuel is for the handlers.
        let fuel = limits.fuel.map(|_| u64::MAX);
        let mut store = state::store(pre.engine(), state, fuel);
        let described = tokio::time::timeout(DESCRIBE_TIMEOUT, async {
            let instance = pre.instantiate_async(&mut store).await?;
            instance.innkeeper_plugin_handlers().call_describe(&mut store).await
        })
        .await;
        let described = match described {
            Ok(Ok(described)) => described,
            Ok(Err(error)) => {
                output.close();
                let printed = output.last_words();
                let printed = printed.lines().last().map(|line| format!(" ({line})"));
                let mut reason = reason(&error);
                if let Some(complaint) = store.data().memory.complaint() {
                    reason = format!("{complaint} ({reason})");
                }
                return Err(LoadError::Describe(format!("{reason}{}", printed.unwrap_or_default())));
            }
            Err(_) => {
                return Err(LoadError::Describe(format!("it took more than {DESCRIBE_TIMEOUT:?}")));
            }
        };
        // Compiling the schemas takes a while, if they are as large as they may be.
        let broke_off = |error: tokio::task::JoinError| LoadError::Describe(error.to_string());
        tokio::task::spawn_blocking(move || to_handlers(described)).await.map_err(broke_off)?
    }
}

/// Reads what a component says of its handlers, as far as it is within bounds.
fn to_handlers(described: Vec<handlers::Handler>) -> Result<Vec<Handler>, LoadError> {
    if described.len() > bounds::HANDLERS {
        return Err(LoadError::Describe(format!(
            "it has {} handlers, and at most {} can be used",
            described.len(),
            bounds::HANDLERS
        )));
    }
    let bytes = |handler: &handlers::Handler| {
        let texts = [handler.summary.len(), handler.args_schema.as_ref().map_or(0, String::len)];
        handler.name.len() + texts.into_iter().sum::<usize>()
    };
    let bytes = described.iter().map(bytes).sum::<usize>();
    if bytes > bounds::DESCRIPTION {
        return Err(LoadError::Describe(format!(
            "what it says of its handlers {}",
            bounds::too_large(bytes, bounds::DESCRIPTION)
        )));
    }
    let handlers = described.into_iter().map(to_handler).collect::<Result<Vec<_>, _>>()?;
    check_names(&handlers)?;
    Ok(handlers)
}

/// Reads what the file is, makes a component of a core module, and counts what it would take.
pub(super) async fn prepare(source: &Source) -> Result<Prepared, LoadError> {
    let (bytes, digest) = (source.bytes.clone(), source.digest.clone());
    let prepare = move || {
        let form = form::of_file(&bytes)?;
        let of_file = measure(&bytes)?;
        if form == Form::Component {
            return Ok(Prepared { form, bytes, key: digest, measured: of_file });
        }
        let bytes = adapt::adapt(&bytes)?;
        let key = Digest::of(format!("{digest} {}", adapt::VERSION).as_bytes());
        let measured = Measured { description: of_file.description, ..measure(&bytes)? };
        Ok(Prepared { form, bytes, key, measured })
    };
    let broke_off = |error: tokio::task::JoinError| LoadError::Invalid(error.to_string());
    tokio::task::spawn_blocking(prepare).await.map_err(broke_off)?
}

/// Whether it is a plugin; otherwise it is a program.
fn has_handlers(engine: &Engine, component: &Component) -> Result<bool, LoadError> {
    let component_type = component.component_type();
    let exports = component_type.exports(engine).map(|(name, _)| name).collect::<Vec<_>>();
    if exports.contains(&HANDLERS) {
        return Ok(true);
    }
    if exports.iter().any(|name| name.starts_with(PROGRAM)) {
        return Ok(false);
    }
    let exports = match exports.as_slice() {
        [] => "nothing".to_owned(),
        names => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    };
    Err(LoadError::NoHandlers { exports })
}

fn to_handler(handler: handlers::Handler) -> Result<Handler, LoadError> {
    let wrong = |reason: String| LoadError::Handler { handler: handler.name.clone(), reason };
    let name_is_fine = !handler.name.is_empty()
        && handler.name.len() <= 200
        && handler.name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if !name_is_fine {
        return Err(wrong("a name has letters, digits, `-`, `_` and `.` only".to_owned()));
    }
    let args_schema = handler
        .args_schema
        .as_deref()
        .map(serde_json::from_str::<serde_json::Value>)
        .transpose()
        .map_err(|error| wrong(format!("its argument schema is not JSON: {error}")))?;
    if let Some(schema) = &args_schema {
        ArgsSchema::compile(schema.clone()).map_err(|error| wrong(error.to_string()))?;
    }
    Ok(Handler { name: handler.name, summary: handler.summary, args_schema })
}

fn check_names(handlers: &[Handler]) -> Result<(), LoadError> {
    let mut seen = std::collections::BTreeSet::new();
    match handlers.iter().find(|handler| !seen.insert(handler.name.as_str())) {
        Some(twice) => Err(LoadError::Handler {
            handler: twice.name.clone(),
            reason: "there are two handlers of this name".to_owned(),
        }),
        None => Ok(()),
    }
}
