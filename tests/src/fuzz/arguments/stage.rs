//! What calls are made on: a store with a job, a database that is granted, and executions of the job,
//! each from its START to its COMPLETION.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use innkeeper::config::{Config, PluginConfig};
use innkeeper::engine::submit::{SubmitError, submit};
use innkeeper::execution::{Attempt, LogLine, Outcome, Progress, Trigger};
use innkeeper::interfaces::db::{Database, Databases, Grants, Session};
use innkeeper::interfaces::granted::Granted;
use innkeeper::interfaces::{EnqueueError, EnqueueRequest, Port};
use innkeeper::job::Job;
use innkeeper::runtime::{Call, LoadedComponent, Runtime, Stop};
use innkeeper::store::{Holder, NewExecution, NewSession, Recording, SessionId, Store, StoreError};
use serde_json::{Value, json};
use uuid::Uuid;

use super::limits;
use crate::attempt::{job, name};
use crate::database::{Engine, TestDatabase};
use crate::plugins::assert_database_clean;
use crate::raw::Raw;

const DIGEST: &str = "sha256:c0ffee";

/// The job that guests may enqueue.
const CHILD: &str = "fuzz-child";

/// Longer than any run.
const SESSION: Duration = Duration::from_secs(86_400 * 7);

/// The host's side of the executions of one job.
pub(super) struct Stage {
    engine: Engine,
    store: Store,
    session: SessionId,
    database: Arc<Database>,
    grants: Arc<Grants>,
    config: PluginConfig,
    /// A connection to the granted database, past the host.
    outside: Raw,
    /// Kept for as long as they are used.
    _databases: (Databases, TestDatabase, TestDatabase),
}

/// How an execution ended.
pub(super) struct Used {
    pub(super) kind: String,
    pub(super) message: String,
    /// Three letters for each call, where the guest came to its end.
    pub(super) answers: Option<String>,
}

impl Stage {
    pub(super) async fn new(engine: Engine) -> Self {
        let (store_at, app) = (TestDatabase::migrated(engine).await, TestDatabase::empty(engine).await);
        let outside = Raw::connect(app.url()).await;
        let login = app.login().await.map(|login| format!("url = {:?}\n", login.url)).unwrap_or_default();
        let text = format!(
            "[databases.app]\nurl = {:?}\nmax_connections = 4\nacquire_timeout = \"1s\"\n\
             [plugins.fuzz]\ncomponent = \"caller.wasm\"\nlimits = {{ memory = \"16 MiB\" }}\n\
             config = {{ key = \"value\", nested = {{ key = \"other\" }} }}\n\
             [[plugins.fuzz.databases]]\nname = \"app\"\nstatement_timeout = \"200ms\"\n{login}",
            app.address()
        );
        let mut config = Config::parse(&text, "fuzz.toml".as_ref(), &|_| None).expect("it is in order");
        let databases = Databases::open(&config.databases);
        let config = config.plugins.remove(&name("fuzz")).expect("it is there");
        let store = store_at.store(2).await;
        let child = Job { name: name(CHILD), ..job("fuzz", "run", limits().timeout) };
        store
            .sync_jobs("fuzz", &[job("fuzz", "run", limits().timeout), child])
            .await
            .expect("the jobs are in order");
        store.save_component(DIGEST, &json!([])).await.expect("it is saved");
        let session = NewSession {
            host: "fuzz",
            boot_id: Uuid::new_v4(),
            version: "0.1.0",
            ttl: SESSION,
            slots: 1,
            plugins: &[(name("fuzz"), DIGEST.to_owned())],
        };
        let session = store.register_session(&session).await.expect("it is registered");
        let database = Arc::clone(databases.get(&name("app")).expect("it is there"));
        let grants = Arc::new(Grants::new(&databases, &name("fuzz"), &config));
        let _databases = (databases, store_at, app);
        let mut stage = Self { engine, store, session, database, grants, config, outside, _databases };
        stage.prepare().await;
        stage
    }

    /// The tables, as they are at the beginning.
    async fn prepare(&mut self) {
        let schema = match self.engine {
            Engine::Sqlite => {
                "drop table if exists t; drop table if exists u;
                 create table t (id integer primary key, a text, n numeric, b blob)"
            }
            Engine::Postgres => {
                "drop table if exists public.t cascade; create table public.t (id bigint primary key, a text, n numeric, b bytea);
                 grant all on public.t to public"
            }
        };
        let rows = match self.engine {
            Engine::Sqlite => "insert into t values (1, 'one', 1.5, x'00ff'), (2, null, null, null)",
            Engine::Postgres => {
                "insert into public.t values (1, 'one', 1.5, '\\x00ff'), (2, null, null, null)"
            }
        };
        self.outside.execute(schema).await;
        self.outside.execute(rows).await;
    }

    /// An execution of the guest with this memory.
    ///
    /// # Errors
    /// What is wrong afterwards.
    pub(super) async fn execute(
        &mut self,
        runtime: &Runtime,
        guest: &LoadedComponent,
        image: &[u8],
    ) -> Result<Used, String> {
        let digit = |digit: u8| char::from(b"0123456789abcdef"[usize::from(digit)]);
        let hex: String = image.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        let attempt = self.start(&Value::String(hex)).await?;
        let port = Arc::new(StorePort::new(self, &attempt));
        let call = Call {
            attempt: &attempt,
            config: Arc::new(self.config.config.clone().into_iter().collect()),
            capabilities: Arc::new(Granted::nothing()),
            session: Session::new(Arc::clone(&self.grants), "fuzz".to_owned(), limits().timeout),
            port: port.clone(),
            limits: limits(),
            stop: &Stop::new(),
        };
        let outcome = runtime.call(guest, call).await.outcome;
        self.nothing_is_left()?;
        let told =
            |what: &str, error: &dyn std::fmt::Display| format!("{what} by {:?}: {error}", self.engine);
        if let Some(error) = port.settle().await {
            return Err(told("what a guest said was not taken", &error));
        }
        let used = used(&outcome);
        match self.store.record(self.session, &[attempt.finish(outcome)]).await {
            Ok(recorded) if recorded == [Recording::Recorded] => Ok(used),
            Ok(recorded) => Err(told("a completion is not recorded", &format!("{recorded:?}"))),
            Err(error) => Err(told("a completion was not taken", &error)),
        }
    }

    async fn start(&self, args: &Value) -> Result<Attempt, String> {
        let (fuzz, told) = (name("fuzz"), |error: StoreError| format!("nothing can be started: {error}"));
        // What the guest before has enqueued goes first, and is not run.
        loop {
            let others = self.store.claim(self.session, 100).await.map_err(told)?;
            if others.is_empty() {
                break;
            }
            let ended: Vec<_> =
                others.iter().map(|other| other.finish(Outcome::Succeeded(Value::Null))).collect();
            self.store.record(self.session, &ended).await.map_err(told)?;
        }
        let new = NewExecution {
            job: &fuzz,
            args: Some(args),
            triggered_by: Trigger::Manual,
            run_at: None,
            unique_key: None,
            by: None,
        };
        self.store.enqueue(&new).await.map_err(told)?;
        self.store
            .claim(self.session, 1)
            .await
            .map_err(told)?
            .pop()
            .ok_or("there is nothing to start".to_owned())
    }

    /// Every connection is back or closed, and nobody waits for one.
    fn nothing_is_left(&self) -> Result<(), String> {
        let (in_use, waiting) = (self.database.connections().in_use, self.database.waiting());
        match (in_use, waiting) {
            (0, 0) => Ok(()),
            _ => Err(format!("of the {:?} pool {in_use} are in use, and {waiting} wait", self.engine)),
        }
    }

    /// The database has nothing open, the store has what it was told, and an execution without
    /// anything odd succeeds.
    ///
    /// # Errors
    /// Where it does not.
    pub(super) async fn look(&mut self, runtime: &Runtime, guest: &LoadedComponent) -> Result<(), String> {
        let whose = "pid <> pg_backend_pid()";
        assert_database_clean(&mut self.outside, whose, "the inputs before").await;
        self.prepare().await;
        // No calls.
        let used = self.execute(runtime, guest, &[0; 32]).await?;
        if used.answers.as_deref() != Some("") {
            return Err(format!("a guest in order ended with {}: {}", used.kind, used.message));
        }
        let session = Session::new(Arc::clone(&self.grants), "fuzz".to_owned(), Duration::from_secs(30));
        let table = if self.engine == Engine::Postgres { "public.t" } else { "t" };
        let changed = session.execute(format!("update {table} set a = 'x'"), Vec::new()).await;
        session.end().await;
        match changed {
            Ok(2) => Ok(()),
            other => Err(format!("a statement in order answers {other:?}")),
        }
    }
}

fn used(outcome: &Outcome) -> Used {
    match outcome {
        Outcome::Succeeded(result) => {
            let answers = result.as_str().map(str::to_owned);
            Used { kind: "succeeded".to_owned(), message: String::new(), answers }
        }
        Outcome::Failed(failure) => {
            let kind = format!("{:?}", failure.kind).to_lowercase();
            Used { kind, message: failure.message.clone(), answers: None }
        }
        other => Used { kind: format!("{other:?}"), message: String::new(), answers: None },
    }
}

/// What the engine does for a handler, with the same calls of the store.
struct StorePort {
    store: Store,
    holder: Holder,
    writes: Mutex<tokio::task::JoinSet<()>>,
    refused: Arc<Mutex<Option<String>>>,
}

impl StorePort {
    fn new(stage: &Stage, attempt: &Attempt) -> Self {
        let holder = Holder { session: stage.session, lease: attempt.lease, execution: attempt.execution };
        Self { store: stage.store.clone(), holder, writes: Mutex::default(), refused: Arc::default() }
    }

    /// Waits for what the guest has left, and says what the store has refused.
    async fn settle(&self) -> Option<String> {
        let mut writes = std::mem::take(&mut *self.writes.lock().unwrap_or_else(PoisonError::into_inner));
        while writes.join_next().await.is_some() {}
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Runs a write to its end, whoever still waits for it.
    async fn write<T: Send + 'static>(
        &self,
        what: &'static str,
        write: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, String> {
        let (told, answer) = tokio::sync::oneshot::channel();
        let refused = Arc::clone(&self.refused);
        let task = async move {
            let result = write.await.map_err(|error| error.to_string());
            if let Err(error) = &result {
                *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{what}: {error}"));
            }
            let _gone = told.send(result);
        };
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
        answer.await.unwrap_or_else(|_| Err("the write panicked".to_owned()))
    }
}

#[async_trait]
impl Port for StorePort {
    async fn log(&self, lines: Vec<LogLine>) {
        let (store, holder) = (self.store.clone(), self.holder);
        let _ = self.write("log", async move { store.append_log(holder, &lines).await }).await;
    }

    async fn progress(&self, progress: Progress) {
        let (store, holder) = (self.store.clone(), self.holder);
        let _ = self.write("progress", async move { store.save_progress(holder, &progress).await }).await;
    }

    async fn save_checkpoint(&self, state: Value) -> Result<(), String> {
        let (store, holder) = (self.store.clone(), self.holder);
        self.write("checkpoint", async move { store.save_checkpoint(holder, &state).await }).await
    }

    fn cancelled(&self) -> bool {
        false
    }

    async fn enqueue(&self, request: EnqueueRequest) -> Result<Uuid, EnqueueError> {
        if request.job != CHILD {
            return Err(EnqueueError::Denied(format!("job `{}` is not granted", request.job)));
        }
        let (store, holder) = (self.store.clone(), self.holder);
        let enqueued = self.write("enqueue", async move {
            let job = name(CHILD);
            let execution = NewExecution {
                job: &job,
                args: request.args.as_ref(),
                triggered_by: Trigger::Handler,
                run_at: request.run_at,
                unique_key: request.unique_key.as_deref(),
                by: Some(holder),
            };
            match submit(&store, &execution).await {
                Ok(enqueued) => Ok(Ok(enqueued.id)),
                // A refusal that is meant for the guest, such as of a key with NUL.
                Err(SubmitError::Store(StoreError::Invalid(message))) => {
                    Ok(Err(EnqueueError::Other(message)))
                }
                Err(SubmitError::Store(error)) => Err(error),
                Err(SubmitError::InvalidArgs(message)) => Ok(Err(EnqueueError::InvalidArgs(message))),
                Err(error @ SubmitError::UnknownJob(_)) => {
                    Ok(Err(EnqueueError::UnknownJob(error.to_string())))
                }
            }
        });
        enqueued.await.unwrap_or_else(|error| Err(EnqueueError::Other(error)))
    }
}
