//! A hostile component in the real runtime, and what it makes the host record.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use innkeeper::capability::Capabilities;
use innkeeper::config::{DatabaseConfig, GrantConfig, PluginConfig};
use innkeeper::execution::{FailureKind, LogLine, Outcome, Progress};
use innkeeper::interfaces::db::{Databases, Grants, Session};
use innkeeper::interfaces::granted::Granted;
use innkeeper::interfaces::{EnqueueError, EnqueueRequest, Port};
use innkeeper::limits::{Limits, Usage};
use innkeeper::plugin::Source;
use innkeeper::runtime::{Call, Called, LoadedComponent, Runtime, Stop};
use innkeeper_tests::attempt::{attempt, name};
use innkeeper_tests::database::TestDatabase;
use innkeeper_tests::host::guest;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// Longer than any test.
pub const LONG: Duration = Duration::from_secs(60);

/// Long enough for a handler to come to what it is meant to be stopped in.
pub const SHORT: Duration = Duration::from_secs(1);

/// A call of `exhaust`, and under which limits.
pub struct Exhaust {
    pub what: &'static str,
    pub amount: u64,
    pub sql: &'static str,
    pub limits: Limits,
    pub timeout: Duration,
    pub stop: Stop,
    /// Stops it while its first line is being written to the log.
    pub stop_in_log: bool,
}

/// What it came to.
pub struct Report {
    pub outcome: Outcome,
    pub usage: Usage,
    pub records: Arc<Records>,
}

/// What a port was asked to record.
#[derive(Default)]
pub struct Records {
    lines: Mutex<Vec<Vec<LogLine>>>,
    progress: Mutex<Vec<u64>>,
    stop: Option<Stop>,
}

impl Exhaust {
    pub fn new(what: &'static str, amount: u64) -> Self {
        let limits = Limits { memory: 32 << 20, ..Limits::default() };
        Self { what, amount, sql: "", limits, timeout: LONG, stop: Stop::new(), stop_in_log: false }
    }

    /// Calls it without a database.
    pub async fn call(self) -> Report {
        self.call_with(Session::refused()).await
    }

    pub async fn call_with(self, session: Arc<Session>) -> Report {
        let (runtime, component) = hostile().await;
        self.call_on(runtime, component, session).await
    }

    pub async fn call_on(
        self,
        runtime: &Runtime,
        component: &LoadedComponent,
        session: Arc<Session>,
    ) -> Report {
        let args = json!({"what": self.what, "amount": self.amount, "sql": self.sql});
        let stop = self.stop_in_log.then(|| self.stop.clone());
        let records = Arc::new(Records { stop, ..Records::default() });
        let call = Call {
            attempt: &attempt("hostile", "exhaust", args, self.timeout),
            config: Arc::default(),
            capabilities: Arc::new(Granted::nothing()),
            session,
            port: records.clone(),
            limits: self.limits,
            stop: &self.stop,
        };
        let Called { outcome, usage } = runtime.call(component, call).await;
        Report { outcome, usage: usage.expect("it was called"), records }
    }
}

impl Report {
    /// The kind of its failure, and its message.
    #[track_caller]
    pub fn failure(&self) -> (FailureKind, &str) {
        match &self.outcome {
            Outcome::Failed(failure) => (failure.kind, &failure.message),
            other => panic!("it did not fail: {other:?}"),
        }
    }

    #[track_caller]
    pub fn assert_failed(&self, kind: FailureKind, said: &str) {
        let (found, message) = self.failure();
        assert!(found == kind && message.contains(said), "not {kind:?}, {said}, but {found:?}: {message}");
    }

    #[track_caller]
    pub fn assert_succeeded(&self) {
        assert!(matches!(self.outcome, Outcome::Succeeded(_)), "{:?}", self.outcome);
    }
}

impl Records {
    pub fn messages(&self) -> Vec<String> {
        let calls = self.lines.lock().expect("nobody panicked");
        calls.iter().flatten().map(|line| line.message.clone()).collect()
    }

    /// How often something was written to the log.
    pub fn writes(&self) -> usize {
        self.lines.lock().expect("nobody panicked").len()
    }

    pub fn progress(&self) -> Vec<u64> {
        self.progress.lock().expect("nobody panicked").clone()
    }
}

#[async_trait]
impl Port for Records {
    async fn log(&self, lines: Vec<LogLine>) {
        if let Some(stop) = &self.stop {
            stop.cancel();
            // Whoever waits for this has something else to do first.
            tokio::task::yield_now().await;
        }
        self.lines.lock().expect("nobody panicked").push(lines);
    }

    async fn progress(&self, progress: Progress) {
        self.progress.lock().expect("nobody panicked").push(progress.done);
    }

    async fn save_checkpoint(&self, _state: Value) -> Result<(), String> {
        Ok(())
    }

    fn cancelled(&self) -> bool {
        false
    }

    async fn enqueue(&self, _request: EnqueueRequest) -> Result<uuid::Uuid, EnqueueError> {
        Err(EnqueueError::Denied("nothing is enqueued here".to_owned()))
    }
}

/// The component, loaded once for all tests.
async fn hostile() -> &'static (Runtime, LoadedComponent) {
    static HOSTILE: OnceCell<(Runtime, LoadedComponent)> = OnceCell::const_new();
    let load = async || {
        let runtime = Runtime::new(16, 64 << 20).expect("there is room");
        let component = load(&runtime, Limits::default()).await.expect("it can be loaded");
        (runtime, component)
    };
    HOSTILE.get_or_init(load).await
}

/// Loads the component as a plugin with these limits.
pub async fn load(runtime: &Runtime, limits: Limits) -> Result<LoadedComponent, String> {
    let source = Source::read(&guest("hostile")).expect("it is there");
    runtime.load(&source, limits).await.map_err(|error| error.to_string())
}

/// A database that the component is granted.
pub struct App {
    grants: Arc<Grants>,
    _database: TestDatabase,
}

impl App {
    pub fn new(database: TestDatabase) -> Self {
        let config = DatabaseConfig {
            url: database.url().clone(),
            max_connections: 1,
            acquire_timeout: LONG,
            max_size: None,
        };
        let databases = Databases::open(&BTreeMap::from([(name("app"), config)]));
        let plugin = PluginConfig {
            component: PathBuf::new().into(),
            digest: None,
            capabilities: Capabilities::default(),
            config: BTreeMap::new(),
            jobs: BTreeSet::new(),
            limits: Limits::default(),
            databases: BTreeMap::from([(name("app"), GrantConfig::default())]),
            default_database: Some(name("app")),
        };
        Self { grants: Arc::new(Grants::new(&databases, &name("hostile"), &plugin)), _database: database }
    }

    pub fn session(&self, time: Duration) -> Arc<Session> {
        Session::new(Arc::clone(&self.grants), "job exhaust".to_owned(), time)
    }
}
