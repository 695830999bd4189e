//! The databases of one plugin, by the names that it may use.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::fence::Pass;
use super::grant::Grant;
use super::{Database, Databases, Error, ErrorKind, error};
use crate::config::PluginConfig;
use crate::job::Name;

/// The databases that one plugin may use.
#[derive(Debug)]
pub struct Grants {
    /// The plugin, by its name in the configuration.
    pub(super) plugin: Name,
    /// Its databases, by name.
    databases: BTreeMap<Name, Granted>,
    /// The one that is meant where a call names none.
    default: Option<Name>,
}

/// A database, and what the plugin may do in it.
#[derive(Clone, Debug)]
pub(super) struct Granted {
    pub(super) database: Arc<Database>,
    pub(super) grant: Arc<Grant>,
}

impl Grants {
    /// What the configuration grants a plugin.
    #[must_use]
    pub fn new(databases: &Databases, plugin: &Name, config: &PluginConfig) -> Self {
        Self::after(None, databases, plugin, config)
    }

    /// The same for a plugin that takes the place of one: what is granted as before goes on, with its
    /// connections and what runs on them.
    #[must_use]
    pub fn after(before: Option<&Self>, databases: &Databases, plugin: &Name, config: &PluginConfig) -> Self {
        let granted = |(name, grant): (&Name, _)| {
            let database = Arc::clone(databases.get(name)?);
            let grant = Grant::new(plugin.clone(), name.clone(), grant, config.limits.memory);
            let same = before.and_then(|before| before.databases.get(name));
            let same =
                same.filter(|same| Arc::ptr_eq(&same.database, &database) && same.grant.is_like(&grant));
            let grant = same.map_or_else(|| Arc::new(grant), |same| Arc::clone(&same.grant));
            Some((name.clone(), Granted { database, grant }))
        };
        Self {
            plugin: plugin.clone(),
            databases: config.databases.iter().filter_map(granted).collect(),
            default: config.default_database.clone(),
        }
    }

    /// True where each database that they name is this one, and not another one of its name.
    #[must_use]
    pub fn are_in(&self, databases: &Databases) -> bool {
        let is_in = |(name, granted): (&Name, &Granted)| {
            databases.get(name).is_some_and(|database| Arc::ptr_eq(database, &granted.database))
        };
        self.databases.iter().all(is_in)
    }

    /// Raises the fence of an execution to the lease of its next attempt, in every database that is
    /// granted with one. When this returns, nothing of an earlier attempt can be committed in them.
    ///
    /// # Errors
    /// Where one of them could not be raised now, in words for the operator. It can be tried again.
    pub async fn raise_fences(&self, execution: Uuid, lease: i64) -> Result<(), String> {
        let fenced = self.databases.values().filter(|granted| granted.grant.is_fenced());
        for Granted { database, grant } in fenced {
            let raised = database.raise_fence(grant, Pass { execution, lease }).await;
            raised.map_err(|why| {
                format!("the fence in database `{}` cannot be raised: {}", database.name(), why.message)
            })?;
        }
        Ok(())
    }

    /// True where commits of the plugin have to pass a fence in some database.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.databases.values().any(|granted| granted.grant.is_fenced())
    }

    /// The database that a call means.
    pub(super) fn find(&self, name: Option<&str>) -> Result<Granted, Error> {
        let denied = |message: String| error::new(ErrorKind::Denied, message);
        let plugin = &self.plugin;
        let mut granted = self.databases.iter();
        let found = match (name, &self.default) {
            (Some(name), _) => self.databases.iter().find(|(granted, _)| granted.as_str() == name),
            (None, Some(default)) => self.databases.get_key_value(default),
            (None, None) => match (granted.next(), granted.next()) {
                (Some(only), None) => Some(only),
                (Some(_), Some(_)) => return Err(denied(self.which_one())),
                (None, _) => {
                    return Err(denied(format!(
                        "plugin `{plugin}` is granted no database: add `[[plugins.{plugin}.databases]]` with \
                         `name = \"…\"` to the configuration"
                    )));
                }
            },
        };
        found.map(|(_, granted)| granted.clone()).ok_or_else(|| {
            let mut name = name.or(self.default.as_ref().map(Name::as_str)).unwrap_or_default().to_owned();
            error::cut_text(&mut name, 100);
            let near = crate::suggest::hint(&name, self.databases.keys().map(Name::as_str));
            denied(format!(
                "plugin `{plugin}` is not granted database `{name}`{near}; to grant it, add \
                 `[[plugins.{plugin}.databases]]` with `name = \"{name}\"` to the configuration"
            ))
        })
    }

    fn which_one(&self) -> String {
        let names: Vec<&str> = self.databases.keys().map(Name::as_str).collect();
        format!(
            "plugin `{plugin}` is granted several databases ({}) and none of them is the default: name one in \
             `begin`, or add `default = true` to one `[[plugins.{plugin}.databases]]` of the configuration",
            names.join(", "),
            plugin = self.plugin
        )
    }
}

/// Nothing runs under them any more: connections that were kept for it go, unless another version of
/// the plugin has the same grant.
impl Drop for Grants {
    fn drop(&mut self) {
        for Granted { database, grant } in self.databases.values() {
            if Arc::strong_count(grant) == 1 {
                database.forget(grant.number);
            }
        }
    }
}
