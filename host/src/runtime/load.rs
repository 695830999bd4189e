//! From a component's bytes to something that can be called.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime_wasi_config::WasiConfigVariables;

use super::{Linked, Runtime};
use super::compile::{CompileError, Compiled};
use super::state::{self, GuestState};
use super::turns::Allowance;
use crate::interfaces::bindings::PluginPre;
use crate::interfaces::bindings::exports::innkeeper::plugin::handlers;
use crate::interfaces::db::Session;
use crate::interfaces::granted::Granted;
use crate::interfaces::output::Output;
use crate::interfaces::{ClosedPort, Port};
use crate::limits::Limits;
use crate::plugin::{Handler, Source};

/// The export that makes a component a plugin.
const HANDLERS: &str = "innkeeper:plugin/handlers@0.1.0";

/// How long a component may take to describe itself.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(30);

/// A component that was compiled, linked and described.
pub struct LoadedComponent {
    pub(super) pre: PluginPre<GuestState>,
    /// Of the processor; all executions of the component share it.
    pub(super) allowance: Allowance,
    /// What it says that it can do.
    pub handlers: Vec<Handler>,
    /// It was compiled to count fuel.
    pub(super) counts_fuel: bool,
}

impl LoadedComponent {
    /// The fuel of one call, where it is counted.
    pub(super) fn fuel(&self, limits: Limits) -> Option<u64> {
        self.counts_fuel.then(|| limits.fuel.unwrap_or(u64::MAX))
    }
}

/// Why a component cannot be used, and what its author can do about it.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not WebAssembly at all.
    #[error("the file is no WebAssembly; build the plugin for `wasm32-wasip2`")]
    NotWasm,
    /// A module without the component around it.
    #[error(
        "the file is a core WebAssembly module, not a component; with Rust, build it for the target \
         `wasm32-wasip2` with `crate-type = [\"cdylib\"]`"
    )]
    CoreModule,
    /// It is damaged, or uses what this host does not know.
    #[error("the component is not valid: {0}")]
    Invalid(String),
    /// It may be valid, and there is no code of it.
    #[error("the component cannot be compiled: {0}")]
    Compile(CompileError),
    /// It has other exports, or none.
    #[error(
        "the component has no handlers: in Rust, list them in `innkeeper_sdk::plugin!(…)`, without which \
         nothing is exported, and build it again (it does not export `{HANDLERS}`; it exports {exports})"
    )]
    NoHandlers {
        /// What it does export.
        exports: String,
    },
    /// It wants an import that this host does not have.
    #[error("the component cannot be linked with this host: {0}")]
    Import(String),
    /// It needs more memory than its limit before it does anything.
    #[error("the component needs more memory than it may have: its {0}")]
    Memory(String),
    /// This machine has no room for it. Not the component's fault.
    #[error("{0}")]
    Host(String),
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
        check_form(&source.bytes)?;
        let linked = self.linked_for(limits)?;
        let (component, _) = self.compile(&linked, source).await?;
        check_exports(&linked.engine, &component)?;
        let pre = linked
            .linker
            .instantiate_pre(&component)
            .and_then(PluginPre::new)
            .map_err(|error| LoadError::Import(reason(&error)))?;
        let handlers = self.describe(&pre, limits).await?;
        tracing::debug!(path = %source.path.display(), handlers = handlers.len(), "component loaded");
        let counts_fuel = limits.fuel.is_some();
        Ok(LoadedComponent { pre, allowance: Allowance::full(), handlers, counts_fuel })
    }

    /// Compiles a component for executions with these limits, so that it is in the cache when it is loaded.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub async fn compile_ahead(&self, source: &Source, limits: Limits) -> Result<Compiled, LoadError> {
        check_form(&source.bytes)?;
        let (_, compiled) = self.compile(&*self.linked_for(limits)?, source).await?;
        Ok(compiled)
    }

    async fn compile(
        &self,
        linked: &Linked,
        source: &Source,
    ) -> Result<(Component, Compiled), LoadError> {
        Ok(self.compiler.component(&linked.engine, &source.digest, &source.bytes).await?)
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
        let handlers = described.into_iter().map(to_handler).collect::<Result<Vec<_>, _>>()?;
        check_names(&handlers)?;
        Ok(handlers)
    }
}

fn check_form(bytes: &[u8]) -> Result<(), LoadError> {
    // The preamble: magic, version, layer (component-model/design/mvp/Binary.md).
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => Ok(()),
        Some([0, b'a', b's', b'm', ..]) => Err(LoadError::CoreModule),
        _ => Err(LoadError::NotWasm),
    }
}

fn check_exports(engine: &Engine, component: &Component) -> Result<(), LoadError> {
    let component_type = component.component_type();
    let exports = component_type.exports(engine).map(|(name, _)| name).collect::<Vec<_>>();
    if exports.contains(&HANDLERS) {
        return Ok(());
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
        crate::args::ArgsSchema::compile(schema.clone())
            .map_err(|error| wrong(format!("its argument schema is not JSON Schema: {error}")))?;
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

/// The innermost reason, which names the thing; what stands around it is wasmtime's own.
pub(super) fn reason(error: &wasmtime::Error) -> String {
    error.root_cause().to_string()
}
