//! The one place that wires a host together, and takes it apart again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ConfigErrors};
use crate::engine::health::Health;
use crate::engine::registry::Registry;
use crate::engine::{Engine, Settings, store_options};
use crate::http::{self, Listener, Server};
use crate::interfaces::db::Databases;
use crate::interfaces::db::privileges::{self, Inspection};
use crate::plugin;
use crate::runtime::{Cache, CompileIn, Compiler, Runtime};
use crate::store::{Store, StoreError, StoreOptions};

/// Why the host did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration names what cannot be run.
    #[error(transparent)]
    Configuration(ConfigErrors),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// How the host is to start.
#[derive(Clone, Copy, Debug)]
pub struct ServeOptions {
    /// Bring the store's schema up to date first.
    pub migrate: bool,
}

/// Runs a host until SIGINT or SIGTERM, then drains it. A second signal cuts the drain short.
///
/// # Errors
/// Where it cannot start; see [`ServeError`].
pub async fn serve(config: Config, options: ServeOptions) -> Result<(), ServeError> {
    let signals = Signals::listen()?;
    let health = Arc::new(Health::default());
    // First, so that it can be asked how the start goes.
    let server = listen(&config, &health).await?;
    // Compiling takes its time, and another host may be migrating the store.
    let Host { engine, store, databases } = tokio::select! {
        host = Host::prepare(&config, options, health) => host?,
        () = signals.first.cancelled() => {
            tracing::info!("stopped before it had started");
            return Ok(());
        }
    };
    tracing::info!(
        host = config.host.name,
        store = %config.store.url,
        plugins = config.plugins.len(),
        jobs = config.jobs.len(),
        "serving"
    );
    // Beside the work: a database that does not answer must not hold it up.
    let inspection = tokio::spawn(log_inspection(config));
    // Its threads have the connections of handlers, which are closed below.
    engine.clone().run(signals.first.clone(), signals.second.clone()).await;
    inspection.abort();
    let closed = async {
        databases.close().await;
        store.close().await;
    };
    if tokio::time::timeout(CLOSING, closed).await.is_err() {
        tracing::warn!("connections were not closed in time");
    }
    if let Some(server) = server {
        server.stop().await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Answers on the address of the configuration, if it has one.
async fn listen(config: &Config, health: &Arc<Health>) -> Result<Option<Server>, ServeError> {
    let Some(address) = config.host.listen else { return Ok(None) };
    let listener = Listener::bind(address).await.map_err(|error| {
        let message = http::explain(address, &error);
        ServeError::Configuration(ConfigErrors::one(config.location_of_listen(), message))
    })?;
    tracing::info!(address = %listener.address(), "listening");
    Ok(Some(listener.serve(http::router(health.clone()))))
}

/// Says once what is to be said about the plugins' logins. `innkeeper check` refuses what is an
/// error there; here the host may be one that a developer runs with a single login for
/// everything.
async fn log_inspection(config: Config) {
    let Inspection { errors, warnings, unreachable } = privileges::inspect(&config).await;
    for finding in errors.iter().chain(&warnings) {
        tracing::warn!(at = %finding.location, "{}", finding.message);
    }
    for finding in unreachable {
        tracing::debug!(at = %finding.location, "{}", finding.message);
    }
}

/// How long a shutdown waits for connections to be closed.
const CLOSING: Duration = Duration::from_secs(5);

/// Everything that a host is made of.
struct Host {
    engine: Arc<Engine>,
    store: Store,
    databases: Databases,
}

impl Host {
    async fn prepare(
        config: &Config,
        options: ServeOptions,
        health: Arc<Health>,
    ) -> Result<Self, ServeError> {
        let databases = Databases::open(&config.databases);
        let cache = Cache::new(config.compiled_folder(), config.host.compiled_cache);
        let compiler = Compiler::new(CompileIn::this_program()).with_cache(cache);
        let runtime = Runtime::new(config.host.concurrency, config.largest_memory())?.with_compiler(compiler);
        let (plugins, problems) = Registry::load(config, &runtime, &databases).await;
        let complaints = crate::check::complaints(config, &plugins, &problems);
        if !complaints.is_empty() {
            return Err(ServeError::Configuration(complaints));
        }
        let store = open_store(config, options).await?;
        record_definitions(config, &plugins, &store).await?;
        let settings = Settings {
            host: config.host.name.clone(),
            concurrency: config.host.concurrency,
            session_timeout: config.host.session_timeout,
            drain_timeout: config.host.drain_timeout,
        };
        let engine = Engine::new(store.clone(), runtime, plugins, settings, health).await?;
        Ok(Self { engine, store, databases })
    }
}

async fn open_store(config: &Config, options: ServeOptions) -> Result<Store, StoreError> {
    let options_of_store = StoreOptions { create: true, ..store_options(config) };
    let store = Store::connect(&config.store.url, &options_of_store).await?;
    if options.migrate {
        let report = store.migrate().await?;
        for migration in &report.applied {
            tracing::info!(migration = migration.name, "the store's schema was brought up to date");
        }
    }
    store.check_schema().await?;
    Ok(store)
}

/// Writes into the store what the file and the components say, before anything can run.
async fn record_definitions(config: &Config, plugins: &Registry, store: &Store) -> Result<(), StoreError> {
    for plugin in plugins.plugins() {
        let descriptions = plugin::to_descriptions(&plugin.component.handlers);
        store.save_component(plugin.digest.as_str(), &descriptions).await?;
        store.save_plugin(&plugin.name, plugin.digest.as_str()).await?;
    }
    let jobs = config.jobs.values().cloned().collect::<Vec<_>>();
    let queues = config.queues.values().cloned().collect::<Vec<_>>();
    for queue in store.sync_queues(&config.host.owner, &queues).await? {
        tracing::info!(%queue, "the queue's weight and limits are those of the configuration now");
    }
    let sync = store.sync_jobs(&config.host.owner, &jobs).await?;
    for job in &sync.retired {
        tracing::info!(%job, "retired: the configuration no longer names it");
    }
    for (job, from) in &sync.taken_over {
        tracing::warn!(
            %job, %from, to = config.host.owner,
            "taken over: another host's configuration named this job as well. Where hosts share a file, give \
             them the same `owner` in [host]"
        );
    }
    if sync.skipped > 0 {
        tracing::info!(
            records = sync.skipped,
            "fires of schedules that are no more were recorded as skipped"
        );
    }
    Ok(())
}

/// The first and the second request to stop.
struct Signals {
    first: CancellationToken,
    second: CancellationToken,
}

impl Signals {
    /// From here on a signal no longer ends the process by itself.
    fn listen() -> anyhow::Result<Arc<Self>> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
        let signals = Arc::new(Self { first: CancellationToken::new(), second: CancellationToken::new() });
        let to_cancel = [signals.first.clone(), signals.second.clone()];
        tokio::spawn(async move {
            for token in to_cancel {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                token.cancel();
            }
        });
        Ok(signals)
    }
}
