//! The one place that wires a host together, and takes it apart again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ConfigErrors};
use crate::engine::health::Health;
use crate::engine::registry::{Anew, Before, Loading, Registry, Replacements};
use crate::engine::{Engine, Settings, store_options};
use crate::http::{self, Listener, Server};
use crate::interfaces::db::Databases;
use crate::interfaces::db::privileges::{self, Inspection};
use crate::plugin::kept::Kept;
use crate::runtime::{Cache, CompileIn, Compiler, Runtime};
use crate::store::{Definitions, Store, StoreError, StoreOptions};

mod defined;
mod memory;
mod reload;
mod tidy;
mod watch;

use defined::{jobs_and_queues, replacements, tell_defined, tell_replaced};
use reload::Reloader;
use watch::Watch;

/// Requests to reload by SIGHUP.
type Hangups = tokio::signal::unix::Signal;

/// Why the host did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration names what cannot be run.
    #[error(transparent)]
    Configuration(#[from] ConfigErrors),
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
    memory::give_back_what_is_large();
    let config = Arc::new(config);
    let (signals, hangups) = Signals::listen()?;
    // Whatever changes from here on is looked at.
    let watch = Watch::new(&config).await;
    let health = Arc::new(Health::default());
    // First, so that it can be asked how the start goes.
    let server = listen(&config, &health).await?;
    // Compiling takes its time, and another host may be migrating the store.
    let Host { engine, store, reloader } = tokio::select! {
        host = Host::prepare(config.clone(), options, health) => host?,
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
    let databases = reloader.databases();
    let reloading = tokio::spawn(reloader.run(hangups, watch));
    // Its threads have the connections of handlers, which are closed below.
    engine.clone().run(signals.first.clone(), signals.second.clone()).await;
    inspection.abort();
    reloading.abort();
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
async fn log_inspection(config: Arc<Config>) {
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
    reloader: Reloader,
}

impl Host {
    async fn prepare(
        config: Arc<Config>,
        options: ServeOptions,
        health: Arc<Health>,
    ) -> Result<Self, ServeError> {
        let databases = Databases::open(&config.databases);
        let cache = Cache::new(config.compiled_folder(), config.host.compiled_cache);
        let compiler = Compiler::new(CompileIn::this_program()).with_cache(cache);
        let runtime = Runtime::new(config.host.concurrency, config.largest_memory())?.with_compiler(compiler);
        let kept = Kept::new(&config.host.data_dir);
        let mut loading = Loading {
            config: &config,
            runtime: &runtime,
            databases: &databases,
            replacements: &Replacements::new(),
            kept: Some(&kept),
            before: None,
        };
        // Before anything else is touched: a file that is wrong changes nothing.
        let mut found = load(&loading).await?;
        let mut drafts = found.take_drafts();
        let store = open_store(&config, options).await?;
        let replacements = replacements(&store).await?;
        loading.replacements = &replacements;
        loading.before = Some(Before { config: &config, plugins: &found, anew: Anew::Replacements });
        let mut plugins = load(&loading).await?;
        drafts.extend(plugins.take_drafts());
        tell_replaced(&plugins);
        let (jobs, queues) = jobs_and_queues(&config);
        let definitions = Definitions {
            host: &config.host.name,
            owner: &config.host.owner,
            session: None,
            plugins: &plugins.definitions(),
            jobs: Some(&jobs),
            queues: Some(&queues),
        };
        let defined = store.define(&definitions).await.map_err(StoreError::from)?;
        tidy::keep(drafts).await;
        tell_defined(&defined, &config.host.owner);
        let settings = Settings {
            host: config.host.name.clone(),
            concurrency: config.host.concurrency,
            session_timeout: config.host.session_timeout,
            drain_timeout: config.host.drain_timeout,
        };
        let engine = Engine::new(store.clone(), runtime, plugins, settings, health).await?;
        let reloader = Reloader::new(engine.clone(), store.clone(), config, databases, kept, replacements);
        Ok(Self { engine, store, reloader })
    }
}

/// Loads plugins, with everything that is wrong with them or with the jobs that name them.
async fn load(loading: &Loading<'_>) -> Result<Registry, ConfigErrors> {
    let (plugins, problems) = Registry::load_as(loading).await;
    let complaints = crate::check::complaints(loading.config, &plugins, &problems);
    if complaints.is_empty() { Ok(plugins) } else { Err(complaints) }
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

/// The first and the second request to stop.
struct Signals {
    first: CancellationToken,
    second: CancellationToken,
}

impl Signals {
    /// From here on a signal no longer ends the process by itself. SIGHUP asks for a reload.
    fn listen() -> anyhow::Result<(Arc<Self>, Hangups)> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
        let hangups = signal(SignalKind::hangup()).context("SIGHUP cannot be handled")?;
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
        Ok((signals, hangups))
    }
}
