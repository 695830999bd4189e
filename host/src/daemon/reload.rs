//! A running host takes on another configuration, or other components, as a whole or not at all.
//!
//! Everything is loaded, described and checked beside what runs; then it is put on record, and then
//! executions start with it (`engine/change.rs`). Whatever fails on the way leaves everything as it was.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::defined::{jobs_and_queues, replacements, tell_defined, tell_replaced};
use super::watch::{Changed, Stamps, Watch, stamps};
use super::{Hangups, load, log_inspection, tidy};
use crate::check;
use crate::config::{Config, ConfigErrors};
use crate::engine::Engine;
use crate::engine::change::ChangeError;
use crate::engine::registry::{Anew, Before, Loading, Registry, Replacements};
use crate::interfaces::db::Databases;
use crate::plugin::kept::Kept;
use crate::runtime::capacity_warnings;
use crate::store::{Definitions, ReloadWish, Store, StoreError};

/// After how long what the store did not take is tried again, unless there is something newer.
const AGAIN: Duration = Duration::from_secs(10);

/// Loads anew whenever it is asked to.
pub(super) struct Reloader {
    engine: Arc<Engine>,
    store: Store,
    config: Arc<Config>,
    databases: Shared,
    kept: Kept,
    /// What runs in place of what, as it was last read.
    replacements: Replacements,
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
        replacements: Replacements,
    ) -> Self {
        let databases = Shared(Arc::new(Mutex::new(databases)));
        Self { engine, store, config, databases, kept, replacements }
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
            let mut missed = self.missed().await;
            tidy::remove_superseded(&self.store, &self.kept, &self.engine.plugins()).await;
            loop {
                let mut or_plugins = false;
                let wish = tokio::select! {
                    biased;
                    wish = at_once(missed.take()) => wish,
                    _ = hangups.recv() => {
                        tracing::info!("SIGHUP: loading the configuration anew");
                        ReloadWish::Configuration
                    }
                    changed = watch.changed() => {
                        tracing::debug!("a file has changed: loading anew");
                        or_plugins = changed == Changed::Refused;
                        match changed {
                            Changed::Plugins if again != Some(ReloadWish::Configuration) => ReloadWish::Plugins,
                            _ => ReloadWish::Configuration,
                        }
                    }
                    () = engine.reload_requested() => {
                        self.answer_requests(&mut watch).await;
                        continue;
                    }
                    wish = later(again.clone()) => wish,
                };
                let is_repeated = again.take().is_some();
                again = self.reload_or_tell(wish, is_repeated, &mut watch).await;
                if or_plugins && again.is_none() && watch.has_refused() {
                    again = self.reload_or_tell(ReloadWish::Plugins, false, &mut watch).await;
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = engine.draining() => {}
        }
    }

    /// Returns what is to be tried again, since the store did not do it.
    async fn reload_or_tell(
        &mut self,
        wish: ReloadWish,
        is_repeated: bool,
        watch: &mut Watch,
    ) -> Option<ReloadWish> {
        let error = self.reload(&wish, watch).await.err()?;
        let passes = matches!(&error, ReloadError::Store(_) | ReloadError::Change(ChangeError::Store(_)));
        if !(passes && is_repeated) {
            tell(&error);
        }
        passes.then_some(wish)
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
        if *wish != ReloadWish::Configuration {
            return self.take_on(self.config.clone(), wish, watch).await;
        }
        watch.note_refused(Stamps::new());
        let config = Arc::new(self.read()?);
        let files = stamps(&config).await;
        let taken = self.take_on(config, wish, watch).await;
        if let Err(ReloadError::Configuration(_)) = taken {
            watch.note_refused(files);
        }
        taken
    }

    /// A configuration that may be the one that runs.
    async fn take_on(
        &mut self,
        config: Arc<Config>,
        wish: &ReloadWish,
        watch: &mut Watch,
    ) -> Result<(), ReloadError> {
        let anew = match wish {
            ReloadWish::Plugin(name) => Anew::Plugin(name),
            ReloadWish::Plugins | ReloadWish::Configuration => Anew::Everything,
        };
        let before = self.engine.plugins();
        let databases = self.databases.get().reopen(&self.config.databases, &config.databases);
        let replacements = replacements(&self.store).await?;
        let mut plugins = load(&Loading {
            config: &config,
            runtime: self.engine.runtime(),
            databases: &databases,
            replacements: &replacements,
            kept: Some(&self.kept),
            before: Some(Before { config: &self.config, plugins: &before, anew }),
        })
        .await?;
        let is_new = before.differs_from(&plugins);
        if !is_new && *wish != ReloadWish::Configuration {
            tracing::info!("no component has changed");
            self.replacements = replacements;
            return Ok(());
        }
        let drafts = plugins.take_drafts();
        // Another host of the owner may have a newer file than the one that this host has read.
        let own = (*wish == ReloadWish::Configuration).then(|| jobs_and_queues(&config));
        let definitions = Definitions {
            host: &config.host.name,
            owner: &config.host.owner,
            session: None,
            plugins: &plugins.definitions(),
            jobs: own.as_ref().map(|(jobs, _)| jobs.as_slice()),
            queues: own.as_ref().map(|(_, queues)| queues.as_slice()),
        };
        let defined = self.engine.change(plugins, &definitions).await?;
        tidy::keep(drafts).await;
        self.replacements = replacements;
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
            if before.largest_memory() != self.config.largest_memory() {
                let (concurrency, memory) = (self.config.host.concurrency, self.config.largest_memory());
                for warning in capacity_warnings(concurrency, memory) {
                    tracing::warn!("{warning}");
                }
            }
            if (&before.databases, &before.plugins) != (&self.config.databases, &self.config.plugins) {
                // Beside the work, as when the host was started.
                tokio::spawn(log_inspection(self.config.clone()));
            }
        }
        tidy::remove_superseded(&self.store, &self.kept, &plugins).await;
        Ok(())
    }

    fn read(&self) -> Result<Config, ConfigErrors> {
        let config = Config::load(&self.config.path)?;
        let complaints = check::reload::complaints(&self.config, &config);
        if complaints.is_empty() { Ok(config) } else { Err(complaints) }
    }

    /// What was to run in place of what when the host was started may have become something else before
    /// it could be asked to reload.
    async fn missed(&self) -> Option<ReloadWish> {
        match replacements(&self.store).await {
            Ok(replacements) => (replacements != self.replacements).then_some(ReloadWish::Plugins),
            Err(error) => {
                tracing::debug!(%error, "what runs in place of what cannot be read now");
                Some(ReloadWish::Plugins)
            }
        }
    }
}

/// This; never, if there is nothing.
async fn at_once(wish: Option<ReloadWish>) -> ReloadWish {
    match wish {
        Some(wish) => wish,
        None => std::future::pending().await,
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
