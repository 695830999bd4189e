//! The operator's file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use crate::database_url::DatabaseUrl;
use crate::job::{Job, Name};

/// A configuration that has been read and checked in itself: names resolve, values are in
/// range. What needs the components (handlers, arguments) is checked by `crate::plugin`.
#[derive(Debug)]
pub struct Config {
    /// The file, as it was named.
    pub path: PathBuf,
    /// This host.
    pub host: HostConfig,
    /// The host's own records.
    pub store: StoreConfig,
    /// What plugins may be granted.
    pub databases: BTreeMap<Name, DatabaseConfig>,
    /// The plugins.
    pub plugins: BTreeMap<Name, PluginConfig>,
    /// The jobs.
    pub jobs: BTreeMap<Name, Job>,
}

/// `[host]`.
#[derive(Debug)]
pub struct HostConfig {
    /// Default: the machine's host name.
    pub name: String,
    /// The SQLite store and plugins' SQLite databases. Absolute, or relative to the file.
    pub data_dir: PathBuf,
    /// Executions at once on this host.
    pub concurrency: usize,
    /// How long a shutdown waits for running executions.
    pub drain_timeout: Duration,
    /// How long the host session lasts without a heartbeat.
    pub session_timeout: Duration,
}

/// `[store]`.
#[derive(Debug)]
pub struct StoreConfig {
    /// Where.
    pub url: DatabaseUrl,
    /// Connections for the phases; the heartbeat has one more of its own.
    pub max_connections: u32,
}

/// `[databases.NAME]`.
#[derive(Debug)]
pub struct DatabaseConfig {
    /// Where.
    pub url: DatabaseUrl,
    /// Connections for all plugins together.
    pub max_connections: u32,
    /// How long a call waits for a free connection.
    pub acquire_timeout: Duration,
}

/// `[plugins.NAME]`.
#[derive(Debug)]
pub struct PluginConfig {
    /// The component's file, its path resolved.
    pub component: PathBuf,
    /// What `wasi:config` serves: dotted keys, values as text.
    pub config: BTreeMap<String, String>,
    /// Jobs it may enqueue.
    pub jobs: BTreeSet<Name>,
    /// What an execution may use.
    pub limits: Limits,
    /// Databases it may use, by name.
    pub databases: BTreeSet<Name>,
    /// The one that is meant where a call names none.
    pub default_database: Option<Name>,
}

/// `[plugins.NAME.limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory and tables of one execution in all.
    pub memory: u64,
    /// The time-out of jobs that name none.
    pub timeout: Duration,
}
