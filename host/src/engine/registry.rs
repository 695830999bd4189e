//! The plugins that this host has loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use serde_json::Value;
use wasmtime_wasi_config::WasiConfigVariables;

use crate::args::{ArgsError, ArgsSchema};
use crate::config::{Config, PluginConfig};
use crate::interfaces::db::{Databases, Grants};
use crate::interfaces::granted::Granted;
use crate::job::Name;
use crate::limits::Limits;
use crate::plugin::kept::{Draft, Kept};
use crate::plugin::{self, Digest, Handler, Source, SourceError, Sources};
use crate::runtime::{LoadedComponent, Runtime};

/// Plugins that are loaded at a time: enough to read and check files on every core.
const LOADED_AT_ONCE: usize = 8;

/// A plugin, ready to be called.
pub struct Plugin {
    /// Its name in the configuration.
    pub name: Name,
    /// Of its component.
    pub digest: Digest,
    /// Of the component that the configuration names: another one where an operator went back to
    /// the one before.
    pub configured: Digest,
    /// Compiled and linked.
    pub component: LoadedComponent,
    /// What `wasi:config` serves.
    pub config: Arc<WasiConfigVariables>,
    /// Databases it may use.
    pub grants: Arc<Grants>,
    /// What it was granted besides databases and jobs.
    pub capabilities: Arc<Granted>,
    /// Jobs it may enqueue.
    pub jobs: BTreeSet<Name>,
    /// What an execution may use.
    pub limits: Limits,
    schemas: BTreeMap<String, Option<ArgsSchema>>,
}

/// A handler of a loaded plugin, with its schema compiled.
pub struct LoadedHandler<'a> {
    schema: Option<&'a ArgsSchema>,
}

/// The plugins, by name.
#[derive(Default)]
pub struct Registry {
    plugins: BTreeMap<Name, Arc<Plugin>>,
    digests: Vec<(Name, String)>,
    /// Of the components that were loaded for this.
    drafts: Vec<Draft>,
}

/// A plugin, and what is to be kept of its component.
struct Loaded {
    plugin: Arc<Plugin>,
    draft: Option<Draft>,
}

impl From<Arc<Plugin>> for Loaded {
    fn from(plugin: Arc<Plugin>) -> Self {
        Self { plugin, draft: None }
    }
}

/// A plugin that could not be loaded.
#[derive(Debug)]
pub struct PluginProblem {
    /// Which.
    pub plugin: Name,
    /// Why, and what to do.
    pub message: String,
}

/// How plugins are loaded.
#[derive(Clone, Copy)]
pub struct Loading<'a> {
    /// What is to be loaded, and what it is granted.
    pub config: &'a Config,
    /// Compiles.
    pub runtime: &'a Runtime,
    /// The databases of the configuration.
    pub databases: &'a Databases,
    /// What runs in place of what.
    pub replacements: &'a Replacements,
    /// Where components are kept, and found again. None: nowhere.
    pub kept: Option<&'a Kept>,
    /// What runs now.
    pub before: Option<Before<'a>>,
}

/// What a host runs while it loads anew.
#[derive(Clone, Copy)]
pub struct Before<'a> {
    /// Its configuration.
    pub config: &'a Config,
    /// Its plugins.
    pub plugins: &'a Registry,
    /// What else is looked at.
    pub anew: Anew<'a>,
}

/// What is loaded anew.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Anew<'a> {
    /// All that has changed.
    Everything,
    /// This plugin, if it has changed.
    Plugin(&'a Name),
    /// What is to run in place of what. All else was read a moment ago.
    Replacements,
}

/// For a plugin, the component that is replaced, and the one that runs instead.
pub type Replacements = BTreeMap<Name, (Digest, Digest)>;

impl Registry {
    /// Loads every plugin of the configuration, and reports all that cannot be.
    pub async fn load(
        config: &Config,
        runtime: &Runtime,
        databases: &Databases,
    ) -> (Self, Vec<PluginProblem>) {
        let replacements = &Replacements::new();
        Self::load_as(&Loading { config, runtime, databases, replacements, kept: None, before: None }).await
    }

    /// The same for a host, which may have some of them already: those that did not change are taken
    /// over as they are.
    pub async fn load_as(loading: &Loading<'_>) -> (Self, Vec<PluginProblem>) {
        let mut registry = Self::default();
        let mut problems = Vec::new();
        let sources = Sources::new(&loading.config.host.data_dir, &loading.config.registries);
        let mut loads = Vec::new();
        for (name, plugin) in &loading.config.plugins {
            loads.push(begin_to_load(name, plugin, loading, &sources));
        }
        let mut loaded = futures_util::stream::iter(loads).buffered(LOADED_AT_ONCE);
        while let Some((name, loaded)) = loaded.next().await {
            match loaded {
                Ok(Loaded { plugin, draft }) => {
                    registry.drafts.extend(draft);
                    registry.digests.push((name.clone(), plugin.digest.to_string()));
                    registry.plugins.insert(name.clone(), plugin);
                }
                Err(message) => problems.push(PluginProblem { plugin: name.clone(), message }),
            }
        }
        (registry, problems)
    }

    /// Finds a plugin.
    #[must_use]
    pub fn get(&self, name: &Name) -> Option<&Arc<Plugin>> {
        self.plugins.get(name)
    }

    /// Every plugin with the digest of its component.
    #[must_use]
    pub fn digests(&self) -> &[(Name, String)] {
        &self.digests
    }

    /// True where a plugin is in one of the two only, or another one.
    #[must_use]
    pub fn differs_from(&self, other: &Self) -> bool {
        let same =
            |plugin: &Arc<Plugin>| other.get(&plugin.name).is_some_and(|other| Arc::ptr_eq(plugin, other));
        self.plugins.len() != other.plugins.len() || !self.plugins().all(same)
    }

    /// What is to be kept of its components once they are on record. What is dropped leaves nothing.
    #[must_use]
    pub fn take_drafts(&mut self) -> Vec<Draft> {
        std::mem::take(&mut self.drafts)
    }

    /// Every plugin, by name.
    pub fn plugins(&self) -> impl Iterator<Item = &Arc<Plugin>> {
        self.plugins.values()
    }
}

impl Plugin {
    /// Finds a handler.
    ///
    /// # Errors
    /// A sentence that names the handlers there are.
    pub fn handler(&self, name: &str) -> Result<LoadedHandler<'_>, String> {
        plugin::find_handler(&self.component.handlers, self.name.as_str(), name)?;
        Ok(LoadedHandler { schema: self.schemas.get(name).and_then(Option::as_ref) })
    }
}

/// Where a plugin was swapped, its log tells when nothing is left of the old version.
impl Drop for Plugin {
    fn drop(&mut self) {
        tracing::debug!(plugin = %self.name, component = %self.digest, "nothing runs this version of the plugin any more");
    }
}

impl LoadedHandler<'_> {
    /// Checks arguments against the handler's schema.
    ///
    /// # Errors
    /// Everything that does not fit.
    pub fn check_args(&self, args: &Value) -> Result<(), ArgsError> {
        self.schema.map_or(Ok(()), |schema| schema.check(args))
    }
}

/// A type of its own, as a list of what is loaded at the same time needs it.
fn begin_to_load<'a>(
    name: &'a Name,
    config: &'a PluginConfig,
    loading: &'a Loading<'a>,
    sources: &'a Sources,
) -> BoxFuture<'a, (&'a Name, Result<Loaded, String>)> {
    Box::pin(async move { (name, load_plugin(name, config, loading, sources).await) })
}

async fn load_plugin(
    name: &Name,
    config: &PluginConfig,
    loading: &Loading<'_>,
    sources: &Sources,
) -> Result<Loaded, String> {
    let before = loading.before.and_then(|before| Some((before, before.plugins.get(name)?)));
    if let Some((Before { anew: Anew::Plugin(only), .. }, running)) = before
        && only != name
    {
        return Ok(running.clone().into());
    }
    let (digest, source) = configured(name, config, before, sources).await?;
    let wanted = match loading.replacements.get(name) {
        Some((replaced, instead)) if *replaced == digest => instead.clone(),
        _ => digest.clone(),
    };
    let capabilities = {
        let (name, granted) = (name.clone(), config.capabilities.clone());
        on_a_thread_for_files(move || Granted::open(&name, &granted)).await?
    };
    if let Some((before, running)) = before
        && (&running.digest, &running.configured) == (&wanted, &digest)
        && (before.anew == Anew::Replacements
            || (before.config.plugins.get(name) == Some(config)
                && running.grants.are_in(loading.databases)
                && running.capabilities.is_as_open_as(&capabilities)))
    {
        return Ok(running.clone().into());
    }
    let source = match source {
        Ok(source) if source.digest == wanted => source,
        source => {
            let kept = kept(loading.kept, &wanted).await;
            kept.map_err(|why| {
                if wanted == digest { source.err().unwrap_or(why) } else { missing(name, &why, &wanted) }
            })?
        }
    };
    let component = loading.runtime.load(&source, config.limits).await;
    let component = component.map_err(|error| format!("{}: {error}", source.origin))?;
    let plugin = Arc::new(Plugin {
        name: name.clone(),
        digest: wanted,
        configured: digest,
        schemas: compile_schemas(&component.handlers),
        component,
        config: Arc::new(config.config.clone().into_iter().chain(capabilities.placeholders()).collect()),
        capabilities: Arc::new(capabilities),
        grants: Arc::new(Grants::after(
            before.map(|(_, running)| &*running.grants),
            loading.databases,
            name,
            config,
        )),
        jobs: config.jobs.clone(),
        limits: config.limits,
    });
    Ok(Loaded { plugin, draft: draft(loading.kept, name, source).await })
}

/// The digest of the component that the configuration names, and the component or why it is not
/// there.
async fn configured(
    name: &Name,
    config: &PluginConfig,
    before: Option<(Before<'_>, &Arc<Plugin>)>,
    sources: &Sources,
) -> Result<(Digest, Result<Source, String>), String> {
    if let Some((Before { anew: Anew::Replacements, .. }, running)) = before {
        return Ok((running.configured.clone(), Err("it was not read again".to_owned())));
    }
    let is_named_as_before = |before: &Before<'_>| {
        let same =
            |other: &PluginConfig| (&other.component, &other.digest) == (&config.component, &config.digest);
        before.config.plugins.get(name).is_some_and(same)
    };
    match (sources.fetch(&config.component, config.digest.as_ref()).await, before) {
        (Ok(source), _) => Ok((source.digest.clone(), Ok(source))),
        // What else there is to load does not wait for a registry.
        (Err(error @ SourceError::Unreachable { .. }), Some((before, running)))
            if is_named_as_before(&before) =>
        {
            tracing::warn!(plugin = %name, %error, "whether there is a newer component is not known: the plugin keeps the one that it has");
            Ok((running.configured.clone(), Err(error.to_string())))
        }
        (Err(error), _) => Err(error.to_string()),
    }
}

/// A component that was kept, or why it is not there.
async fn kept(kept: Option<&Kept>, digest: &Digest) -> Result<Source, String> {
    let Some(kept) = kept.cloned() else { return Err("no components are kept here".to_owned()) };
    let digest = digest.clone();
    on_a_thread_for_files(move || kept.read(&digest)).await?
}

/// What is to be kept of a component, unless it is kept already.
async fn draft(kept: Option<&Kept>, name: &Name, source: Source) -> Option<Draft> {
    let (kept, digest) = (kept?.clone(), source.digest.clone());
    let draft = on_a_thread_for_files(move || kept.draft(&source)).await;
    match draft.and_then(|draft| draft.map_err(|error| error.to_string())) {
        Ok(draft) => draft,
        Err(error) => {
            tracing::warn!(plugin = %name, %digest, %error, "the component cannot be kept to go back to");
            None
        }
    }
}

/// Heartbeats are sent by the async threads: a file system that takes its time must not hold them up.
async fn on_a_thread_for_files<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| format!("its files cannot be read: {error}"))
}

fn missing(name: &Name, why: &str, component: &Digest) -> String {
    format!(
        "it was rolled back to {component}, and {why}; put that file there, or end the rollback with \
         `innkeeper plugin reload {name} --end-rollback`"
    )
}

/// The runtime has refused a component whose schemas do not compile.
fn compile_schemas(handlers: &[Handler]) -> BTreeMap<String, Option<ArgsSchema>> {
    handlers
        .iter()
        .map(|handler| {
            let schema = handler.args_schema.clone().and_then(|schema| ArgsSchema::compile(schema).ok());
            (handler.name.clone(), schema)
        })
        .collect()
}
