//! Our side: a component's handlers, called as the host's executor calls them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use innkeeper::config::{DatabaseConfig, GrantConfig, PluginConfig};
use innkeeper::database_url::DatabaseUrl;
use innkeeper::execution::Outcome;
use innkeeper::interfaces::ClosedPort;
use innkeeper::interfaces::db::{Databases, Grants, Session};
use innkeeper::interfaces::granted::Granted;
use innkeeper::job::Name;
use innkeeper::limits::Limits;
use innkeeper::plugin::Source;
use innkeeper::runtime::{Call, LoadedComponent, Runtime, Stop};
use innkeeper_tests::attempt::{attempt, name};
use innkeeper_tests::host::guest;
use serde::Deserialize;
use serde_json::Value;

use super::CONNECTIONS;

/// The memory that a plugin has where the operator does not say otherwise.
const MEMORY: u64 = 64 << 20;

/// No measurement takes longer.
const TIMEOUT: Duration = Duration::from_secs(300);

/// The component, and the database that it is granted.
pub struct Guest {
    inner: Arc<Inner>,
    database: Name,
}

struct Inner {
    runtime: Runtime,
    component: LoadedComponent,
    databases: Databases,
    grants: Arc<Grants>,
}

/// What the guest's executions may use.
fn limits() -> Limits {
    Limits { memory: MEMORY, timeout: TIMEOUT, ..Limits::default() }
}

/// What one side has measured.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Measured {
    /// Of all calls together.
    pub nanos: u64,
    /// Of everything that was read, or the number of rows that were written.
    pub sum: u64,
    /// Bytes of the guest's linear memory.
    #[serde(default)]
    pub memory: u64,
}

impl Guest {
    /// Loads the component and grants it the database, by the configuration's defaults.
    ///
    /// # Errors
    /// Where the component is not there or cannot be loaded.
    pub async fn load(url: &DatabaseUrl) -> Result<Self> {
        let runtime = Runtime::new(1, MEMORY)?;
        let source = Source::read(&guest("bench")).context("the guest of the benchmarks is not built")?;
        let component = runtime.load(&source, limits()).await?;
        let (plugin, database) = (name("bench"), name("bench"));
        let config = DatabaseConfig {
            url: url.clone(),
            max_connections: CONNECTIONS,
            acquire_timeout: Duration::from_secs(5),
            max_size: None,
        };
        let databases = Databases::open(&BTreeMap::from([(database.clone(), config)]));
        let config = PluginConfig {
            component: guest("bench").into(),
            digest: None,
            config: BTreeMap::new(),
            jobs: std::collections::BTreeSet::new(),
            limits: limits(),
            capabilities: innkeeper::capability::Capabilities::default(),
            databases: BTreeMap::from([(database.clone(), GrantConfig::default())]),
            default_database: None,
        };
        let grants = Arc::new(Grants::new(&databases, &plugin, &config));
        Ok(Self { inner: Arc::new(Inner { runtime, component, databases, grants }), database })
    }

    /// Calls a handler, and returns what it measured.
    ///
    /// # Errors
    /// Where the handler did not succeed.
    pub async fn measure(&self, handler: &str, args: Value) -> Result<Measured> {
        match self.call(handler, args, TIMEOUT).await? {
            Outcome::Succeeded(result) => Ok(serde_json::from_value(result)?),
            other => bail!("handler `{handler}` did not succeed: {other:?}"),
        }
    }

    /// Calls a handler in a task of its own, as the executor does.
    ///
    /// # Errors
    /// Where the host panicked.
    pub async fn call(&self, handler: &str, args: Value, timeout: Duration) -> Result<Outcome> {
        let attempt = attempt("bench", handler, args, timeout);
        let inner = self.inner.clone();
        let called = tokio::spawn(async move {
            let session = Session::new(inner.grants.clone(), "the benchmark".to_owned(), timeout);
            let stop = Stop::new();
            let call = Call {
                attempt: &attempt,
                config: Arc::default(),
                capabilities: Arc::new(Granted::nothing()),
                session,
                port: Arc::new(ClosedPort),
                limits: limits(),
                stop: &stop,
            };
            inner.runtime.call(&inner.component, call).await
        });
        Ok(called.await.context("the host failed")?.outcome)
    }

    /// Connections that an execution has at this moment.
    #[must_use]
    pub fn connections_in_use(&self) -> usize {
        self.inner.databases.get(&self.database).map_or(0, |database| database.connections().in_use)
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.inner.databases.close().await;
    }
}
