//! The operator's file: from TOML to checked values, with the place of everything that is
//! wrong.

mod calendars;
mod capabilities;
mod databases;
mod document;
mod error;
mod grants;
mod guarded;
mod history;
mod jobs;
mod limits;
mod login;
mod places;
mod plugins;
mod policies;
mod queues;
mod references;
mod registries;
mod same_file;
mod schedule;
mod table;
#[cfg(test)]
mod tests;
mod triggers;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::error::{ConfigError, ConfigErrors, Location};
pub use self::guarded::Guards;
pub use self::places::{GrantKey, JobKey};

use self::document::Document;
use self::places::Places;
use self::references::Names;
use self::table::{Entry, Table};
use self::values::ArgPlaces;
use crate::args::ArgsError;
use crate::capability::Capabilities;
use crate::component::{ComponentRef, Digest, RegistryAccess};
use crate::database_url::DatabaseUrl;
use crate::job::{History, Job, Name};
use crate::limits::Limits;
use crate::policy::Queue;

/// What `innkeeper init` writes: every key, with its default.
pub const EXAMPLE: &str = include_str!("../config.example.toml");

/// Keys of `[host]` that a host is built on: they cannot change while it runs.
pub(crate) const FIXED_OF_HOST: &[&str] =
    &["name", "owner", "data_dir", "compiled_cache", "listen", "concurrency", "session_timeout"];
/// The same of `[store]`.
pub(crate) const FIXED_OF_STORE: &[&str] = &["url", "max_connections", "timeout", "pooler"];

const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30 * 86_400);

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
    /// How registries are asked for components, by host and port.
    pub registries: BTreeMap<String, RegistryAccess>,
    /// The queues that the file names. [`Queue::DEFAULT`] is there even where it is not among them.
    pub queues: BTreeMap<Name, Queue>,
    /// The jobs.
    pub jobs: BTreeMap<Name, Job>,
    places: Places,
}

impl Config {
    /// Reads a file, with the environment of this process for `${VAR}`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let bytes = std::fs::read(path).map_err(|error| {
            let advice = match error.kind() {
                std::io::ErrorKind::NotFound => {
                    "; `innkeeper init` writes one to start from, and `--config FILE` names another"
                }
                _ => "",
            };
            let message = format!("the configuration file cannot be read: {error}{advice}");
            ConfigErrors::one(Location::whole(path), message)
        })?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Self::parse(text, path, &|name| std::env::var(name).ok()),
            Err(error) => {
                let text = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                let place = Document::new(path, &text, &|_| None).location(text.len());
                Err(ConfigErrors::one(place, "the file is not UTF-8 text from here on"))
            }
        }
    }

    /// Reads the text of a file that is named `path`, with `env` for `${VAR}`. Relative paths
    /// are taken from the folder of `path`; looks at the file system only to tell whether two
    /// paths are the same, and whether one is inside the other.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(
        text: &str,
        path: &Path,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigErrors> {
        let document = Document::new(path, text, env);
        let config = document.parse().map(|root| Self::read(Table::root(&document, &root), path));
        match config {
            Some(config) if document.error_count() == 0 => Ok(config),
            _ => Err(document.into_errors()),
        }
    }

    /// What stands in for something wrong is a default, and never used: there is an error.
    fn read(root: Table<'_>, path: &Path) -> Self {
        let doc = root.doc;
        let base = path.parent().unwrap_or(Path::new(""));
        let mut places = Places::new(doc);
        let host = HostConfig::read(root.table("host"), base, &mut places);
        let store_table = root.table("store");
        let databases = root.named("databases");
        let plugins = root.named("plugins");
        let registries = registries::registries(&root);
        let calendars = root.named("calendars");
        let queues = root.named("queues");
        let jobs = root.named("jobs");
        root.finish();
        let names = Names::new(&databases, &plugins, &calendars, &queues, &jobs);
        places.store = doc.location(store_table.as_ref().map_or(0, |table| table.at));
        if let Some(table) = &store_table {
            places.note_settings("store", table, FIXED_OF_STORE);
        }
        places.databases = places::of_tables(&databases);
        places.queues = places::of_tables(&queues);
        let store = databases::store(store_table, &host.data_dir);
        let databases = databases::databases(databases, &host.data_dir, &store);
        let granted = grants::Surroundings { names: &names, databases: &databases, store: &store };
        let mut plugins = plugins::plugins(plugins, base, &granted, &mut places);
        let guarded = guarded::guarded(path, &host.data_dir, &store, &databases, &plugins);
        guarded::guard(&mut plugins, guarded, doc, &places);
        let queues = queues::queues(queues);
        let defined = jobs::Surroundings {
            plugins: &plugins,
            names: &names,
            calendars: &calendars::calendars(calendars),
            history: store.history,
        };
        let jobs = jobs::jobs(jobs, &defined, &mut places);
        Self { path: path.to_owned(), host, store, databases, plugins, registries, queues, jobs, places }
    }

    /// Where compiled components are kept.
    #[must_use]
    pub fn compiled_folder(&self) -> PathBuf {
        self.host.data_dir.join("compiled")
    }

    /// Bytes: no execution has more than the plugin with the highest limit.
    #[must_use]
    pub fn largest_memory(&self) -> u64 {
        let limits = self.plugins.values().map(|plugin| plugin.limits.memory);
        limits.max().unwrap_or(Limits::default().memory)
    }

    /// What is wrong with a job's arguments, each problem at its place in the file. Where the
    /// environment had a part in a value, the message does not show it.
    #[must_use]
    pub fn args_errors(&self, job: &Name, error: &ArgsError) -> ConfigErrors {
        let at_args = self.location_of_job(job, JobKey::Args);
        let problems = match error {
            ArgsError::Schema(_) => return ConfigErrors::one(at_args, error.to_string()),
            ArgsError::Problems(problems) => problems,
        };
        let none = ArgPlaces::new();
        let places = self.places.jobs.get(job).map_or(&none, |job| &job.args);
        let located = |problem: &crate::args::Problem| {
            let pointer = problem.pointer.as_str();
            let secret = places.iter().any(|(place, value)| {
                value.expanded && (place == pointer || place.starts_with(&format!("{pointer}/")))
            });
            ConfigError {
                location: places.get(pointer).map_or_else(|| at_args.clone(), |place| place.location.clone()),
                message: if secret { problem.masked() } else { problem.to_string() },
            }
        };
        ConfigErrors::new(problems.iter().map(located).collect())
    }
}

/// `[host]`.
#[derive(Debug, PartialEq)]
pub struct HostConfig {
    /// Default: the machine's host name.
    pub name: String,
    /// In whose name the jobs and queues of this file are kept: hosts that share a file share it.
    /// Default: the host's name.
    pub owner: String,
    /// The SQLite store and plugins' SQLite databases. Absolute, or relative to the file.
    pub data_dir: PathBuf,
    /// Where the host is asked for its health; port 0 for any that is free. `None`: nothing is
    /// opened.
    pub listen: Option<SocketAddr>,
    /// Executions at once on this host.
    pub concurrency: usize,
    /// Bytes of compiled components that are kept on disk.
    pub compiled_cache: u64,
    /// How long a shutdown waits for running executions.
    pub drain_timeout: Duration,
    /// How long the host session lasts without a heartbeat.
    pub session_timeout: Duration,
    /// A change of the file or of a component's file is noticed, and takes effect.
    pub watch: bool,
}

impl HostConfig {
    fn read(table: Option<Table<'_>>, base: &Path, places: &mut Places) -> Self {
        let machine = || gethostname::gethostname().to_string_lossy().into_owned();
        let mut host = Self {
            name: String::new(),
            owner: String::new(),
            data_dir: base.join("innkeeper-data"),
            listen: None,
            concurrency: 32,
            compiled_cache: 2 << 30,
            drain_timeout: Duration::from_secs(30),
            session_timeout: Duration::from_secs(15),
            watch: true,
        };
        if let Some(table) = table {
            if let Some(name) = table.text("name") {
                host.name = name.value().to_owned();
            }
            if let Some(owner) = table.text("owner") {
                host.owner = owner.value().to_owned();
            }
            if let Some(folder) = table.text("data_dir") {
                host.data_dir = base.join(folder.value());
            }
            if let Some(entry) = table.entry("listen") {
                places.listen = table.doc.location(entry.at());
                host.listen = address(&entry);
            }
            places.concurrency = table.entry("concurrency").map(|entry| table.doc.location(entry.at()));
            host.concurrency = table.integer("concurrency", 32, 1..=1000) as usize;
            host.compiled_cache = table.bytes("compiled_cache", host.compiled_cache, 0..=1 << 50);
            host.drain_timeout = table.duration(
                "drain_timeout",
                host.drain_timeout,
                Duration::ZERO..=Duration::from_secs(86_400),
            );
            host.session_timeout = table.duration(
                "session_timeout",
                host.session_timeout,
                Duration::from_secs(1)..=Duration::from_secs(600),
            );
            host.watch = table.boolean("watch").unwrap_or(host.watch);
            places.note_settings("host", &table, FIXED_OF_HOST);
            table.finish();
        }
        if host.name.is_empty() {
            host.name = machine();
        }
        if host.owner.is_empty() {
            host.owner.clone_from(&host.name);
        }
        host
    }
}

/// A name would have to be looked up, and may stand for several addresses.
fn address(entry: &Entry<'_>) -> Option<SocketAddr> {
    let address = entry.text()?.value().parse().ok();
    if address.is_none() {
        entry.wrong("an IP address and a port, such as \"127.0.0.1:7878\" or \"[::1]:7878\"");
    }
    address
}

/// `[store]`.
#[derive(Debug, PartialEq)]
pub struct StoreConfig {
    /// Where.
    pub url: DatabaseUrl,
    /// Connections for the phases; the heartbeat has one more of its own.
    pub max_connections: u32,
    /// PostgreSQL: how long one transaction of the host may take.
    pub timeout: Duration,
    /// A pooler that gives each transaction a session stands before PostgreSQL.
    pub transaction_pooler: bool,
    /// How much is kept of the executions of jobs that do not say so themselves.
    pub history: History,
}

/// `[databases.NAME]`.
#[derive(Debug, PartialEq)]
pub struct DatabaseConfig {
    /// Where.
    pub url: DatabaseUrl,
    /// Connections for all plugins together.
    pub max_connections: u32,
    /// How long a call waits for a free connection.
    pub acquire_timeout: Duration,
    /// SQLite: bytes that the file may grow to. `None` for as large as the disk allows.
    pub max_size: Option<u64>,
}

/// `[[plugins.NAME.databases]]`: what a plugin may do in a database.
#[derive(Clone, PartialEq, Eq)]
pub struct GrantConfig {
    /// PostgreSQL: a login of the plugin's own, as a URL; `None` for the database's. The only
    /// boundary that withstands hostile SQL.
    pub url: Option<String>,
    /// PostgreSQL: the role that each transaction takes (`SET LOCAL ROLE`). Against accidents:
    /// SQL can undo it.
    pub role: Option<String>,
    /// PostgreSQL: the schema that names without one are looked up in. Against accidents.
    pub schema: Option<String>,
    /// Statements that write are refused.
    pub read_only: bool,
    /// Commits pass a fence in the database, which the next attempt raises.
    pub fence: bool,
    /// How long one statement may run; `None` for as long as the execution.
    pub statement_timeout: Option<Duration>,
    /// Rows of one result, and of one fetch of a cursor.
    pub max_rows: u64,
    /// Bytes of one result in the guest; `None` for the plugin's memory limit, which is the most.
    pub max_bytes: Option<u64>,
    /// Transactions that one execution may have open at a time.
    pub max_open_transactions: u32,
    /// Cursors that one execution may have open at a time.
    pub max_open_cursors: u32,
    /// Statements that all executions of the plugin may have running at a time; `None` for as
    /// many as there are connections.
    pub max_running_statements: Option<u32>,
}

impl Default for GrantConfig {
    /// A whole table of 100,000 rows is rarely meant to be in a handler's memory at once, and a
    /// cursor has no such bound. Eight transactions are more than handlers nest, and half of the
    /// connections that a database has by default: one execution cannot take them all.
    fn default() -> Self {
        Self {
            url: None,
            role: None,
            schema: None,
            read_only: false,
            fence: false,
            statement_timeout: None,
            max_rows: 100_000,
            max_bytes: None,
            max_open_transactions: 8,
            max_open_cursors: 8,
            max_running_statements: None,
        }
    }
}

impl fmt::Debug for GrantConfig {
    /// Without the URL, which has a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrantConfig")
            .field("url", &self.url.as_ref().map(|_| "…"))
            .field("role", &self.role)
            .field("schema", &self.schema)
            .field("read_only", &self.read_only)
            .field("fence", &self.fence)
            .finish_non_exhaustive()
    }
}

/// `[plugins.NAME]`.
#[derive(PartialEq)]
pub struct PluginConfig {
    /// Where the component is.
    pub component: ComponentRef,
    /// No other component than this one is loaded.
    pub digest: Option<Digest>,
    /// What `wasi:config` serves: dotted keys, values as text.
    pub config: BTreeMap<String, String>,
    /// Jobs it may enqueue.
    pub jobs: BTreeSet<Name>,
    /// What an execution may use.
    pub limits: Limits,
    /// What it may do besides.
    pub capabilities: Capabilities,
    /// Databases it may use, by name.
    pub databases: BTreeMap<Name, GrantConfig>,
    /// The one that is meant where a call names none.
    pub default_database: Option<Name>,
}

impl fmt::Debug for PluginConfig {
    /// Without the values of `config`: an operator may have put a key or a password there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginConfig")
            .field("component", &self.component)
            .field("digest", &self.digest)
            .field("config", &self.config.keys())
            .field("jobs", &self.jobs)
            .field("limits", &self.limits)
            .field("capabilities", &self.capabilities)
            .field("databases", &self.databases)
            .field("default_database", &self.default_database)
            .finish()
    }
}
