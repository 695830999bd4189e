//! Plugins without a guest: their sessions, as the runtime opens one for each execution.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use innkeeper::config::{DatabaseConfig, GrantConfig, PluginConfig};
use innkeeper::interfaces::db::{BeginOptions, Database, Databases, Grants, RowSet, Session, Value};
use innkeeper::job::Name;
use innkeeper::limits::Limits;

use crate::database::{Engine, TestDatabase};
use crate::host::until;
use crate::raw::Raw;

/// How long an execution may last: longer than any test.
const TIME: Duration = Duration::from_secs(600);

/// Memory of a plugin, and so what it may be given at once.
pub const MEMORY: u64 = 16 << 20;

/// A database that plugins are granted as `app`, and its pool.
pub struct Plugins {
    /// Its engine.
    pub engine: Engine,
    /// The database.
    pub app: TestDatabase,
    databases: Databases,
}

/// A plugin, and what it is granted.
#[derive(Clone)]
pub struct Plugin {
    name: Name,
    grants: Arc<Grants>,
}

impl Plugins {
    /// On a database of their own, with a pool of this many connections.
    pub async fn new(engine: Engine, max_connections: u32) -> Self {
        Self::with_max_size(engine, max_connections, None).await
    }

    /// The same, where SQLite's file is bounded to this many bytes.
    pub async fn with_max_size(engine: Engine, max_connections: u32, max_size: Option<u64>) -> Self {
        let app = TestDatabase::empty(engine).await;
        // Makes SQLite's file.
        Raw::connect(app.url()).await;
        let acquire_timeout = Duration::from_secs(5);
        let config = DatabaseConfig { url: app.url().clone(), max_connections, acquire_timeout, max_size };
        let databases = Databases::open(&BTreeMap::from([(name("app"), config)]));
        Self { engine, app, databases }
    }

    /// A plugin with this grant.
    #[must_use]
    pub fn plugin(&self, plugin: &str, grant: GrantConfig) -> Plugin {
        let config = PluginConfig {
            component: PathBuf::new().into(),
            digest: None,
            config: BTreeMap::new(),
            jobs: BTreeSet::new(),
            limits: Limits { memory: MEMORY, timeout: TIME, ..Limits::default() },
            capabilities: innkeeper::capability::Capabilities::default(),
            databases: BTreeMap::from([(name("app"), grant)]),
            default_database: Some(name("app")),
        };
        let name = name(plugin);
        Plugin { grants: Arc::new(Grants::new(&self.databases, &name, &config)), name }
    }

    /// A plugin with a login of its own (on PostgreSQL), and otherwise the defaults.
    pub async fn plugin_with_login(&self, plugin: &str) -> Plugin {
        self.plugin(plugin, GrantConfig { url: self.login().await, ..GrantConfig::default() })
    }

    /// The URL of a new login, where there are logins.
    pub async fn login(&self) -> Option<String> {
        self.app.login().await.map(|login| login.url)
    }

    /// The pool.
    ///
    /// # Panics
    /// Never: it is granted.
    #[must_use]
    pub fn database(&self) -> &Arc<Database> {
        self.databases.get(&name("app")).expect("it is there")
    }

    /// A connection past the host.
    pub async fn outside(&self) -> Raw {
        Raw::connect(self.app.url()).await
    }

    /// Every connection is back or closed, and the database has nothing open of any plugin: no
    /// transaction, no lock.
    ///
    /// # Panics
    /// Where that is not so.
    pub async fn assert_clean(&self, outside: &mut Raw, after: &str) {
        assert_eq!(self.database().connections().in_use, 0, "a connection is in use after {after}");
        assert_database_clean(outside, "pid <> pg_backend_pid()", after).await;
    }
}

/// The database has nothing open of a plugin: no transaction, no lock. On PostgreSQL `whose` is
/// what is true of its rows in `pg_stat_activity`; on SQLite nobody may have anything open.
///
/// # Panics
/// Where that is not so.
pub async fn assert_database_clean(outside: &mut Raw, whose: &str, after: &str) {
    match outside {
        Raw::Postgres(_) => {
            let clients =
                format!("datname = current_database() and backend_type = 'client backend' and {whose}");
            let open = format!(
                "select (select count(*) from pg_stat_activity where {clients} and state <> 'idle')
                      + (select count(*) from pg_locks join pg_stat_activity using (pid) where {clients})
                      + (select count(*) from pg_prepared_xacts)"
            );
            // A server process that was hung up on takes a moment to notice.
            until(&format!("no transaction and no lock is left by {after}"), async || {
                (outside.count(&open).await == 0).then_some(())
            })
            .await;
        }
        Raw::Sqlite(_) => {
            // Nothing is waited for: whoever holds a lock is told on.
            let free = outside.try_execute("begin immediate; rollback").await;
            assert!(free.is_ok(), "the writer's lock is held after {after}: {free:?}");
        }
    }
}

impl Plugin {
    /// A session, as an execution of it has one.
    #[must_use]
    pub fn session(&self) -> Arc<Session> {
        self.session_with_time(TIME)
    }

    /// The same for an execution with this much time.
    #[must_use]
    pub fn session_with_time(&self, time: Duration) -> Arc<Session> {
        let owner = format!("job {}-job, execution 1", self.name);
        Session::new(Arc::clone(&self.grants), owner, time)
    }
}

/// Options of `begin` for the default database.
#[must_use]
pub fn options(read_only: bool) -> BeginOptions {
    BeginOptions { database: None, isolation: None, read_only }
}

/// Rows as text. Values have no equality, since NaN has none; their debug form tells them
/// apart.
#[must_use]
pub fn show(rows: &RowSet) -> Vec<Vec<String>> {
    let value = |value: &Value| match value {
        Value::Integer(value) => value.to_string(),
        Value::Text(text) => text.clone(),
        other => format!("{other:?}"),
    };
    rows.rows.iter().map(|row| row.iter().map(value).collect()).collect()
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}
