//! What plugins are granted, as commands show it: secrets and variables by their names only.

use std::fmt;

use serde::Serialize;

use crate::config::{Config, PluginConfig};

/// The grants of one plugin.
#[derive(Debug, Serialize)]
pub(super) struct Grants {
    databases: Vec<Database>,
    http: Vec<String>,
    addresses: Vec<String>,
    env: Vec<String>,
    secrets: Vec<Secret>,
    files: Vec<Folder>,
    jobs: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Database {
    name: String,
    access: &'static str,
}

#[derive(Debug, Serialize)]
struct Secret {
    name: String,
    hosts: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Folder {
    path: String,
    #[serde(rename = "as")]
    seen_as: String,
    access: &'static str,
}

fn access(writable: bool) -> &'static str {
    if writable { "read-write" } else { "read-only" }
}

fn texts(items: impl IntoIterator<Item = impl ToString>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

impl Grants {
    pub(super) fn of(plugin: &PluginConfig) -> Self {
        let capabilities = &plugin.capabilities;
        let http = capabilities.http.as_ref();
        let database = |(name, grant): (&crate::job::Name, &crate::config::GrantConfig)| Database {
            name: name.to_string(),
            access: access(!grant.read_only),
        };
        Self {
            databases: plugin.databases.iter().map(database).collect(),
            http: http.map(|http| texts(&http.allow)).unwrap_or_default(),
            addresses: http.map(|http| texts(&http.addresses)).unwrap_or_default(),
            env: texts(capabilities.env.keys()),
            secrets: capabilities
                .secrets
                .iter()
                .map(|(name, grant)| Secret { name: name.clone(), hosts: texts(&grant.hosts) })
                .collect(),
            files: capabilities
                .files
                .iter()
                .map(|folder| Folder {
                    path: folder.path.display().to_string(),
                    seen_as: folder.seen_as.clone(),
                    access: access(folder.writable),
                })
                .collect(),
            jobs: texts(&plugin.jobs),
        }
    }

    /// A line for each kind of grant, the kind and what of it.
    fn lines(&self) -> Vec<(&'static str, String)> {
        let secret = |secret: &Secret| {
            let to = if secret.hosts.is_empty() {
                String::new()
            } else {
                format!(" (to {})", secret.hosts.join(", "))
            };
            format!("{}{to}", secret.name)
        };
        let folder = |folder: &Folder| format!("{} as {} ({})", folder.path, folder.seen_as, folder.access);
        let database = |database: &Database| format!("{} ({})", database.name, database.access);
        let lines = [
            ("databases", self.databases.iter().map(database).collect()),
            ("http", self.http.clone()),
            ("addresses", self.addresses.clone()),
            ("env", self.env.clone()),
            ("secrets", self.secrets.iter().map(secret).collect()),
            ("files", self.files.iter().map(folder).collect()),
            ("jobs", self.jobs.clone()),
        ];
        let lines = lines.into_iter().filter(|(_, items): &(_, Vec<String>)| !items.is_empty());
        lines.map(|(kind, items)| (kind, items.join(", "))).collect()
    }
}

/// The plugins of a configuration with their grants, a part for each.
pub(super) struct Granted<'a>(pub(super) &'a Config);

impl fmt::Display for Granted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, plugin) in &self.0.plugins {
            let lines = Grants::of(plugin).lines();
            if lines.is_empty() {
                writeln!(f, "Plugin `{name}` is granted nothing.")?;
                continue;
            }
            writeln!(f, "Plugin `{name}` is granted:")?;
            for (kind, items) in lines {
                writeln!(f, "  {kind:<9}  {items}")?;
            }
        }
        Ok(())
    }
}
