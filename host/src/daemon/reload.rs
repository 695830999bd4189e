//! A running host takes on another configuration, or other components, as a whole or not at all.
//!
//! Everything is loaded, described and checked beside what runs; then it is put on record, and then
//! executions start with it (`engine/change.rs`). Whatever fails on the way leaves everything as it was.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::defined::{jobs_and_queues, replacements, tell_defined, tell_replaced};
use super::watch::Watch;
use super::{Hangups, load, log_inspection};
use crate::check;
use crate::config::{Config, ConfigErrors};
use crate::engine::Engine;
use crate::engine::change::ChangeError;
use crate::engine::registry::{Before, Loading, Registry};
use crate::interfaces::db::Databases;
use crate::plugin::Digest;
use crate::plugin::kept::Kept;
use crate::store::{Definitions, ReloadWish, Store, StoreError};

/// How many versions of a plugin are kept to go back to.
const VERSIONS: u32 = 3;

/// After how long what the store did not take is tried again, unless there is something newer.
const AGAIN: Duration = Duration::from_secs(10);

/// Loads anew whenever it is asked to.
pub(super) struct Reloader {
    engine: Arc<Engine>,
    store: Store,
    config: Arc<Config>,
    databases: Shared,
    kept: Kept,
    /// Bytes that an instance can have at most.
    room: u64,
}

/// The databases of the configuration that runs.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Databases>>);

/// Why everything stays as it was.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Configuration(#[from] ConfigErrors),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl Shared {
    fn get(&self) -> Databases {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, databases: Databases) {
        // What is no more is dropped behind the lock.
        let _before =
            std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), databases);
    }

    /// Closes those that run now.
    pub(super) async fn close(&self) {
        self.get().close().await;
    }
}

impl Reloader {
    pub(super) fn new(
        engine: Arc<Engine>,
        store: Store,
        config: Arc<Config>,
        databases: Databases,
        kept: Kept,
    ) -> Self {
        let room = config.largest_memory();
        Self { engine, store, config, databases: Shared(Arc::new(Mutex::new(databases))), kept, room }
    }

    /// The databases, whichever they are at the time.
    pub(super) fn databases(&self) -> Shared {
        self.databases.clone()
    }

    /// Waits for signals, changes of files and requests, until the host drains. May be dropped at any
    /// time after that.
    pub(super) async fn run(mut self, mut hangups: Hangups, mut watch: Watch) {
        let engine = self.engine.clone();
        let work = async {
            let mut again: Option<ReloadWish> = None;
            loop {
                let wish = tokio::select! {
                    _ = hangups.recv() => {
                        tracing::info!("SIGHUP: loading the configuration anew");
                        ReloadWish::Configuration
                    }
                    wish = watch.changed() => {
                        tracing::debug!("a file has changed: loading anew");
                        if again == Some(ReloadWish::Configuration) { ReloadWish::Configuration } else { wish }
                    }
                    () = engine.reload_requested() => {
                        self.answer_requests(&mut watch).await;
                        continue;
                    }
                    wish = later(again.clone()) => wish,
                };
                let repeated = again.take().is_some();
                if let Err(error) = self.reload(&wish, &mut watch).await {
                    let passes =
                        matches!(&error, ReloadError::Store(_) | ReloadError::Change(ChangeError::Store(_)));
                    if !(passes && repeated) {
                        tell(&error);
                    }
                    again = passes.then_some(wish);
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = engine.draining() => {}
        }
    }

    /// What commands have asked for. What cannot be read or answered now is asked for again with the
    /// next heartbeat.
    async fn answer_requests(&mut self, watch: &mut Watch) {
        let mut open = match self.store.open_reloads(self.engine.boot()).await {
            Ok(open) => open,
            Err(error) => return tracing::debug!(%error, "requests to reload cannot be read"),
        };
        while let Some(wish) = open.first().map(|request| request.wish.clone()) {
            tracing::info!(?wish, "asked to load anew");
            let result = self.reload(&wish, watch).await;
            if let Err(error) = &result {
                tell(error);
            }
            let error = result.err().map(|error| error.to_string());
            let (same, others) = open.into_iter().partition::<Vec<_>, _>(|request| request.wish == wish);
            open = others;
            for request in same {
                if let Err(error) = self.store.answer_reload(request.id, error.as_deref()).await {
                    tracing::debug!(%error, "the answer to a request to reload was not recorded");
                }
            }
        }
    }

    async fn reload(&mut self, wish: &ReloadWish, watch: &mut Watch) -> Result<(), ReloadError> {
        let config = match wish {
            ReloadWish::Configuration => Arc::new(self.read()?),
            ReloadWish::Plugins | ReloadWish::Plugin(_) => self.config.clone(),
        };
        let only = match wish {
            ReloadWish::Plugin(name) => Some(name),
            ReloadWish::Plugins | ReloadWish::Configuration => None,
        };
        let before = self.engine.plugins();
        let databases = self.databases.get().reopen(&self.config.databases, &config.databases);
        let replacements = replacements(&self.store).await?;
        let plugins = load(&Loading {
            config: &config,
            runtime: self.engine.runtime(),
            databases: &databases,
            replacements: &replacements,
            kept: Some(&self.kept),
            before: Some(Before { config: &self.config, plugins: &before, only }),
        })
        .await?;
        let is_new = before.differs_from(&plugins);
        if !is_new && *wish != ReloadWish::Configuration {
            tracing::info!("no component has changed");
            return Ok(());
        }
        let (jobs, queues) = jobs_and_queues(&config);
        let definitions = Definitions {
            host: &config.host.name,
            owner: &config.host.owner,
            session: None,
            plugins: &plugins.definitions(),
            jobs: &jobs,
            queues: &queues,
        };
        let defined = self.engine.change(plugins, &definitions).await?;
        let plugins = self.engine.plugins();
        tell_changes(&before, &plugins);
        tell_replaced(&plugins);
        tell_defined(&defined, &config.host.owner);
        tracing::info!(plugins = config.plugins.len(), jobs = config.jobs.len(), "reloaded");
        self.engine.set_drain_timeout(config.host.drain_timeout);
        self.databases.set(databases);
        if *wish == ReloadWish::Configuration {
            let before = std::mem::replace(&mut self.config, config);
            watch.follow(&self.config);
            if (&before.databases, &before.plugins) != (&self.config.databases, &self.config.plugins) {
                // Beside the work, as when the host was started.
                tokio::spawn(log_inspection(self.config.clone()));
            }
        }
        self.remove_superseded(&plugins).await;
        Ok(())
    }

    fn read(&self) -> Result<Config, ConfigErrors> {
        let config = Config::load(&self.config.path)?;
        let complaints = check::reload::complaints(&self.config, &config, self.room);
        if complaints.is_empty() { Ok(config) } else { Err(complaints) }
    }

    /// Components that nobody goes back to any more.
    async fn remove_superseded(&self, plugins: &Registry) {
        let superseded = match self.store.superseded_components(VERSIONS).await {
            Ok(superseded) => superseded,
            Err(error) => return tracing::debug!(%error, "old components are removed another time"),
        };
        let runs = |digest: &Digest| {
            plugins.plugins().any(|plugin| plugin.digest == *digest || plugin.configured == *digest)
        };
        for digest in
            superseded.iter().filter_map(|digest| Digest::parse(digest).ok()).filter(|digest| !runs(digest))
        {
            match self.kept.remove(&digest) {
                Ok(true) => tracing::debug!(%digest, "an old component was removed"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%digest, %error, "an old component cannot be removed"),
            }
        }
    }
}

/// This, after some time; never, if there is nothing.
async fn later(wish: Option<ReloadWish>) -> ReloadWish {
    match wish {
        Some(wish) => {
            tokio::time::sleep(AGAIN).await;
            wish
        }
        None => std::future::pending().await,
    }
}

/// Says why nothing has changed.
fn tell(error: &ReloadError) {
    match error {
        ReloadError::Configuration(errors) => {
            for error in errors.iter() {
                tracing::error!(at = %error.location, "not reloaded, everything stays as it was: {}", error.message);
            }
        }
        error => tracing::error!(%error, "not reloaded, everything stays as it was"),
    }
}

/// Says which plugins are others now.
fn tell_changes(before: &Registry, after: &Registry) {
    for plugin in after.plugins() {
        let (name, to) = (&plugin.name, &plugin.digest);
        match before.get(name) {
            None => tracing::info!(plugin = %name, %to, "plugin added"),
            Some(old) if Arc::ptr_eq(old, plugin) => {}
            Some(old) if old.digest == *to => {
                tracing::info!(plugin = %name, component = %to, "the plugin's configuration has changed");
            }
            Some(old) => tracing::info!(plugin = %name, from = %old.digest, %to, "plugin swapped"),
        }
    }
    for old in before.plugins().filter(|old| after.get(&old.name).is_none()) {
        tracing::info!(plugin = %old.name, from = %old.digest, "plugin removed");
    }
}
