//! Our side: a component in the host's runtime, called as the executor calls it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use innkeeper::config::Config;
use innkeeper::execution::{Attempt, Outcome};
use innkeeper::interfaces::db::{Databases, Grants, Session};
use innkeeper::interfaces::granted::Granted;
use innkeeper::interfaces::{ClosedPort, Port};
use innkeeper::limits::Limits;
use innkeeper::plugin::Source;
use innkeeper::runtime::{Call, LoadedComponent, Runtime, Stop};
use innkeeper_tests::attempt::attempt;
use innkeeper_tests::host::guest;
use serde_json::Value;

/// The runtime with the guest of the benchmarks.
#[derive(Clone)]
pub struct Ours(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    component: LoadedComponent,
    /// The same, as another plugin has it.
    other: LoadedComponent,
    grants: Arc<Grants>,
    capabilities: Arc<Granted>,
}

/// One execution, ready to be called.
#[derive(Clone)]
pub struct Execution {
    attempt: Arc<Attempt>,
    /// Whoever hears of the handler.
    pub port: Arc<dyn Port>,
    /// Ends it.
    pub stop: Stop,
    /// Of the other plugin.
    pub of_other: bool,
}

impl Ours {
    /// Loads the guest, with room for so many executions at once.
    ///
    /// # Errors
    /// Where it was not built, or there is no room.
    pub async fn load(concurrency: usize) -> Result<Self> {
        let runtime = Runtime::new(concurrency, Limits::default().memory)?;
        let source = Source::read(&guest("bench")).context("the guest of the benchmarks is not built")?;
        let component = runtime.load(&source, Limits::default()).await?;
        let other = runtime.load(&source, Limits::default()).await?;
        let text = "[plugins.bench]\ncomponent = \"bench.wasm\"\n";
        let config = Config::parse(text, Path::new("innkeeper.toml"), &|_| None)
            .map_err(|errors| anyhow!("{}", errors.iter().map(ToString::to_string).collect::<String>()))?;
        let (name, plugin) = config.plugins.first_key_value().context("it names a plugin")?;
        let grants = Arc::new(Grants::new(&Databases::open(&config.databases), name, plugin));
        let capabilities = Arc::new(Granted::nothing());
        Ok(Self(Arc::new(Inner { runtime, component, other, grants, capabilities })))
    }

    /// Calls a handler in an instance of its own, in this task.
    pub async fn call(&self, execution: &Execution) -> Outcome {
        let timeout = execution.attempt.job.timeout;
        let call = Call {
            attempt: &execution.attempt,
            config: Arc::default(),
            capabilities: Arc::clone(&self.0.capabilities),
            // Made for each, as the executor does.
            session: Session::new(Arc::clone(&self.0.grants), "the benchmark".to_owned(), timeout),
            port: Arc::clone(&execution.port),
            limits: Limits::default(),
            stop: &execution.stop,
        };
        let component = if execution.of_other { &self.0.other } else { &self.0.component };
        self.0.runtime.call(component, call).await.outcome
    }

    /// The same in a task of its own on the threads of handlers, as the executor does.
    pub fn spawn(&self, execution: Execution) -> tokio::task::JoinHandle<Outcome> {
        let ours = self.clone();
        self.0.runtime.threads().spawn(async move { ours.call(&execution).await })
    }
}

impl Execution {
    /// Of a handler, with nobody who hears of it.
    pub fn new(handler: &str, args: Value, timeout: Duration) -> Self {
        Self {
            attempt: Arc::new(attempt("bench", handler, args, timeout)),
            port: Arc::new(ClosedPort),
            stop: Stop::new(),
            of_other: false,
        }
    }
}
