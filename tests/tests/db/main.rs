//! The `db` interface, driven as the runtime drives it, without a guest: each rule on both
//! engines.

mod bounds;
mod database;
mod ending;
mod fence;
mod grants;
mod network;
mod pool;
mod postgres;
mod sqlite;
mod statements;
mod transactions;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use innkeeper::config::{DatabaseConfig, GrantConfig, PluginConfig};
use innkeeper::interfaces::db::{
    BeginOptions, Database, Databases, Error, ErrorKind, Grants, RowSet, Session, Value,
};
use innkeeper::job::Name;
use innkeeper::limits::Limits;

use database::{Engine, TestDatabase, until};

/// Makes one test for each engine of every function that takes an [`Engine`].
macro_rules! on_both_engines {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::Engine::Sqlite).await;
            })*
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::Engine::Postgres).await;
            })*
        }
    };
}
pub(crate) use on_both_engines;

/// The memory limit of plugins.
const MEMORY: u64 = 1024 * 1024;

/// How long an execution may last: longer than any test.
const TIME: Duration = Duration::from_secs(600);

/// A database granted to plugins, and a look at it from outside.
struct Scene {
    engine: Engine,
    databases: Databases,
    /// Of each plugin, as a host holds them: connections are kept for them.
    grants: Mutex<BTreeMap<String, Arc<Grants>>>,
    outside: TestDatabase,
}

impl Scene {
    async fn new(engine: Engine) -> Self {
        Self::with(engine, 4, Duration::from_secs(10)).await
    }

    async fn with(engine: Engine, max_connections: u32, acquire_timeout: Duration) -> Self {
        let outside = TestDatabase::empty(engine).await;
        let url = outside.url();
        Self::at(engine, outside, DatabaseConfig { url, max_connections, acquire_timeout, max_size: None })
            .await
    }

    /// With a configuration of its own, such as a way to the database that a test can disturb.
    async fn at(engine: Engine, outside: TestDatabase, config: DatabaseConfig) -> Self {
        outside.run("CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT)").await;
        let databases = Databases::open(&BTreeMap::from([(name("app"), config)]));
        Self { engine, databases, grants: Mutex::default(), outside }
    }

    /// The session of an execution of `plugin`, which is granted the database as its only one.
    fn session_of(&self, plugin: &str) -> Arc<Session> {
        let mut grants = self.grants.lock().unwrap();
        let grants = grants.entry(plugin.to_owned()).or_insert_with(|| {
            Arc::new(Grants::new(&self.databases, &name(plugin), &plugin_config(&["app"], None)))
        });
        let grants = Arc::clone(grants);
        Session::new(grants, format!("job {plugin}-job, execution 1"), TIME)
    }

    fn session(&self) -> Arc<Session> {
        self.session_of("good")
    }

    fn database(&self) -> &Arc<Database> {
        self.databases.get(&name("app")).unwrap()
    }

    async fn rows(&self) -> i64 {
        self.outside.number("SELECT count(*) FROM t").await
    }

    /// Every connection is back or closed, and the server has nothing open.
    async fn assert_clean(&self) {
        assert_eq!(self.database().connections().in_use, 0, "a connection is still in use");
        if self.engine == Engine::Postgres {
            until("no backend is active or in a transaction", async || self.busy_backends().await == 0).await;
        } else {
            // Nobody holds the writer's lock, and nothing was left in a transaction.
            self.outside.run("BEGIN IMMEDIATE; ROLLBACK").await;
        }
    }

    async fn busy_backends(&self) -> i64 {
        self.outside
            .number(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                 AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND state <> 'idle'",
            )
            .await
    }

    /// Waits until a statement of [`Self::endless`] runs. On PostgreSQL that is told from what the
    /// host sends before the statement, so that a test cannot end it too soon.
    async fn until_endless_runs(&self) {
        if self.engine == Engine::Postgres {
            until("the statement runs", async || {
                let running = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                               AND state = 'active' AND query LIKE '%pg_sleep%' AND wait_event = 'PgSleep'";
                self.outside.number(running).await > 0
            })
            .await;
        } else {
            until("a connection is in use", async || self.database().connections().in_use > 0).await;
        }
    }

    /// A statement that runs until it is stopped.
    fn endless(&self) -> String {
        match self.engine {
            Engine::Postgres => "SELECT pg_sleep(600)".to_owned(),
            Engine::Sqlite => {
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
                    .to_owned()
            }
        }
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn plugin_config(databases: &[&str], default: Option<&str>) -> PluginConfig {
    PluginConfig {
        component: PathBuf::new().into(),
        digest: None,
        config: BTreeMap::new(),
        jobs: BTreeSet::new(),
        limits: Limits { memory: MEMORY, timeout: Duration::ZERO, ..Limits::default() },
        capabilities: innkeeper::capability::Capabilities::default(),
        databases: databases.iter().map(|database| (name(database), GrantConfig::default())).collect(),
        default_database: default.map(name),
    }
}

fn options() -> BeginOptions {
    BeginOptions { database: None, isolation: None, read_only: false }
}

fn int(value: i64) -> Value {
    Value::Integer(value)
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

/// Values have no equality, since NaN has none; their debug form tells them apart.
fn show(value: &Value) -> String {
    format!("{value:?}")
}

fn show_rows(rows: &RowSet) -> Vec<Vec<String>> {
    rows.rows.iter().map(|row| row.iter().map(show).collect()).collect()
}

#[track_caller]
fn assert_kind<T: std::fmt::Debug>(result: Result<T, Error>, kind: ErrorKind) -> Error {
    let error = result.expect_err("it should have failed");
    assert_eq!(error.kind, kind, "{error:?}");
    error
}
