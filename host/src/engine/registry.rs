//! The plugins that this host has loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use wasmtime_wasi_config::WasiConfigVariables;

use crate::args::{ArgsError, ArgsSchema};
use crate::config::{Config, PluginConfig};
use crate::interfaces::db::{Databases, Grants};
use crate::job::Name;
use crate::limits::Limits;
use crate::plugin::{self, Digest, Handler, Sources};
use crate::runtime::{LoadedComponent, Runtime};

/// A plugin, ready to be called.
pub struct Plugin {
    /// Its name in the configuration.
    pub name: Name,
    /// Of its component.
    pub digest: Digest,
    /// Compiled and linked.
    pub component: LoadedComponent,
    /// What `wasi:config` serves.
    pub config: Arc<WasiConfigVariables>,
    /// Databases it may use.
    pub grants: Arc<Grants>,
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
}

/// A plugin that could not be loaded.
#[derive(Debug)]
pub struct PluginProblem {
    /// Which.
    pub plugin: Name,
    /// Why, and what to do.
    pub message: String,
}

impl Registry {
    /// Loads every plugin of the configuration, and reports all that cannot be.
    pub async fn load(
        config: &Config,
        runtime: &Runtime,
        databases: &Databases,
    ) -> (Self, Vec<PluginProblem>) {
        let mut registry = Self::default();
        let sources = Sources::new(&config.host.data_dir, &config.registries);
        let mut problems = Vec::new();
        for (name, plugin) in &config.plugins {
            match load_plugin(name, plugin, runtime, databases, &sources).await {
                Ok(plugin) => {
                    registry.digests.push((name.clone(), plugin.digest.to_string()));
                    registry.plugins.insert(name.clone(), Arc::new(plugin));
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

impl LoadedHandler<'_> {
    /// Checks arguments against the handler's schema.
    ///
    /// # Errors
    /// Everything that does not fit.
    pub fn check_args(&self, args: &Value) -> Result<(), ArgsError> {
        self.schema.map_or(Ok(()), |schema| schema.check(args))
    }
}

async fn load_plugin(
    name: &Name,
    config: &PluginConfig,
    runtime: &Runtime,
    databases: &Databases,
    sources: &Sources,
) -> Result<Plugin, String> {
    let source = sources.fetch(&config.component, config.digest.as_ref()).await;
    let source = source.map_err(|error| error.to_string())?;
    let component =
        runtime.load(&source, config.limits).await.map_err(|error| format!("{}: {error}", source.origin))?;
    Ok(Plugin {
        name: name.clone(),
        digest: source.digest,
        schemas: compile_schemas(&component.handlers),
        component,
        config: Arc::new(config.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect()),
        grants: Arc::new(Grants::new(databases, name, config)),
        jobs: config.jobs.clone(),
        limits: config.limits,
    })
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
