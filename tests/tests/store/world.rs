//! A store, its clock, and the few steps that most rules begin with.

use std::time::Duration;

use innkeeper::database_url::DatabaseUrl;
use innkeeper::execution::{Attempt, Completion, Failure, FailureKind, Outcome, State, Trigger};
use innkeeper::job::{Job, Name, OnCrash};
use innkeeper::retry::{Backoff, RetryPolicy};
use innkeeper::schedule::{Schedule, Spec};
use innkeeper::store::{
    ExecutionFilter, ExecutionRecord, Holder, NewExecution, NewSession, Recording, SessionId, Store,
};
use innkeeper_tests::clock::TestClock;
use innkeeper_tests::database::{Engine, TestDatabase};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection};
use uuid::Uuid;

/// How long host sessions last here.
pub const TTL: Duration = Duration::from_secs(30);

/// A store with a schema and nothing in it.
pub struct World {
    pub store: Store,
    pub clock: TestClock,
    /// Dropped last, since dropping it removes the database.
    pub database: TestDatabase,
}

impl World {
    pub async fn new(engine: Engine) -> Self {
        let database = TestDatabase::migrated(engine).await;
        let clock = TestClock::at("2026-03-01T12:00:00Z");
        let store = database.store(4).await.with_clock(clock.for_store());
        Self { store, clock, database }
    }

    /// Another host's view of the same store, with connections of its own.
    pub async fn another_store(&self, max_connections: u32) -> Store {
        self.database.store(max_connections).await.with_clock(self.clock.for_store())
    }

    /// Makes these the jobs of the owner `file`.
    pub async fn jobs(&self, jobs: &[Job]) {
        self.store.sync_jobs("file", jobs).await.unwrap();
    }

    /// Registers a host with the plugin `p`.
    pub async fn host(&self, host: &str) -> SessionId {
        self.host_with(host, &["p"]).await
    }

    pub async fn host_with(&self, host: &str, plugins: &[&str]) -> SessionId {
        self.store.save_component("sha256:c0ffee", &json!([])).await.unwrap();
        let plugins: Vec<_> =
            plugins.iter().map(|plugin| (name(plugin), "sha256:c0ffee".to_owned())).collect();
        let boot_id = Uuid::new_v4();
        let session = NewSession { host, boot_id, version: "0.1.0", ttl: TTL, slots: 4, plugins: &plugins };
        self.store.register_session(&session).await.unwrap()
    }

    pub async fn enqueue(&self, job: &str) -> Uuid {
        self.store.enqueue(&by_hand(&name(job))).await.unwrap().id
    }

    /// Claims the one execution that is ready.
    pub async fn claim_one(&self, session: SessionId) -> Attempt {
        let mut attempts = self.store.claim(session, 10).await.unwrap();
        assert_eq!(attempts.len(), 1, "one execution is ready");
        attempts.remove(0)
    }

    /// A job `j`, a host `inn-1` and a running attempt.
    pub async fn running(&self) -> (SessionId, Attempt) {
        self.running_of(job("j")).await
    }

    pub async fn running_of(&self, job: Job) -> (SessionId, Attempt) {
        self.jobs(std::slice::from_ref(&job)).await;
        let session = self.host("inn-1").await;
        self.enqueue(job.name.as_str()).await;
        (session, self.claim_one(session).await)
    }

    pub async fn record(&self, session: SessionId, completion: Completion) -> Recording {
        self.store.record(session, &[completion]).await.unwrap().remove(0)
    }

    /// Lets every host session expire, and ends what they had open.
    pub async fn crash_all(&self) -> Vec<innkeeper::store::RescuedExecution> {
        self.clock.advance(TTL);
        self.store.rescue(100, &[]).await.unwrap()
    }

    pub async fn execution(&self, id: Uuid) -> ExecutionRecord {
        self.store.execution(id).await.unwrap().expect("the execution is there")
    }

    pub async fn state(&self, id: Uuid) -> State {
        self.execution(id).await.state
    }

    pub async fn list(&self, job: Option<&str>, state: Option<State>) -> Vec<Uuid> {
        let filter = ExecutionFilter { job: job.map(name), state, before: None, limit: 100 };
        let executions = self.store.executions(&filter).await.unwrap();
        executions.into_iter().map(|execution| execution.id).collect()
    }

    /// All executions of a job in a state, the newest first.
    pub async fn list_all(&self, job: &str, state: State) -> Vec<ExecutionRecord> {
        let filter =
            ExecutionFilter { job: Some(name(job)), state: Some(state), before: None, limit: 10_000 };
        self.store.executions(&filter).await.unwrap()
    }

    /// Makes a job's next fire this time, RFC 3339, behind the store's back.
    pub async fn set_next_fire(&self, job: &str, time: &str) {
        let time = match self.database.engine() {
            Engine::Sqlite => innkeeper_tests::clock::instant(time).as_microsecond().to_string(),
            Engine::Postgres => format!("'{time}'"),
        };
        self.tamper(&format!("update {{}}job set next_fire_at = {time} where name = '{job}'")).await;
    }

    /// How many rows a table has that fit a condition.
    pub async fn count(&self, table: &str, condition: &str) -> i64 {
        self.scalar(&format!("select count(*) from {{}}{table} where {condition}")).await
    }

    /// A number from a statement of the test's own; `{}` stands for the schema's prefix.
    pub async fn scalar(&self, statement: &str) -> i64 {
        match self.connect().await {
            Own::Postgres(mut connection, prefix) => {
                let statement = AssertSqlSafe(statement.replace("{}", prefix));
                sqlx::query_scalar(statement).fetch_one(&mut connection).await.unwrap()
            }
            Own::Sqlite(mut connection) => {
                let statement = AssertSqlSafe(statement.replace("{}", ""));
                sqlx::query_scalar(statement).fetch_one(&mut connection).await.unwrap()
            }
        }
    }

    /// Changes rows with statements of the test's own.
    pub async fn tamper(&self, statements: &str) {
        self.connect().await.run(statements).await;
    }

    /// Runs statements that begin a transaction, which lasts until what is returned is dropped.
    pub async fn hold(&self, statements: &str) -> Own {
        let mut connection = self.connect().await;
        connection.run(statements).await;
        connection
    }

    /// What a rescuer does up to where it has locked a host session, by hand.
    pub async fn half_a_rescue(&self, session: SessionId) -> HalfARescue {
        let connection = match self.database.engine() {
            Engine::Postgres => {
                let lock = "begin; select 1 from {}host_session where id = ";
                self.hold(&format!("{lock}{} for update", session.0)).await
            }
            Engine::Sqlite => self.hold("begin immediate").await,
        };
        HalfARescue { connection, session }
    }

    /// Waits until a phase waits for a lock, or `is_done`. SQLite does not tell who waits;
    /// there a lock that is held lets nobody in.
    pub async fn until_blocked(&self, is_done: impl Fn() -> bool) {
        let blocked = "select count(*) from pg_stat_activity where datname = current_database()
            and application_name = 'innkeeper-store' and wait_event_type = 'Lock'";
        while self.database.engine() == Engine::Postgres && !is_done() && self.scalar(blocked).await == 0 {
            tokio::task::yield_now().await;
        }
    }

    async fn connect(&self) -> Own {
        match self.database.url() {
            DatabaseUrl::Postgres(url) => {
                let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
                // A rule that waits for what this holds fails, instead of waiting for ever.
                let limit = "set idle_in_transaction_session_timeout = '5s'";
                sqlx::query(limit).execute(&mut connection).await.unwrap();
                Own::Postgres(connection, "innkeeper.")
            }
            DatabaseUrl::Sqlite(_) => {
                Own::Sqlite(sqlx::SqliteConnection::connect(&self.database.address()).await.unwrap())
            }
        }
    }
}

/// A connection of the test's own, beside the store.
pub enum Own {
    Postgres(sqlx::PgConnection, &'static str),
    Sqlite(sqlx::SqliteConnection),
}

impl Own {
    pub async fn run(&mut self, statements: &str) {
        match self {
            Self::Postgres(connection, prefix) => {
                let statements = AssertSqlSafe(statements.replace("{}", prefix));
                sqlx::raw_sql(statements).execute(connection).await.unwrap();
            }
            Self::Sqlite(connection) => {
                let statements = AssertSqlSafe(statements.replace("{}", ""));
                sqlx::raw_sql(statements).execute(connection).await.unwrap();
            }
        }
    }
}

/// A rescue that has locked a host session and not yet marked it.
pub struct HalfARescue {
    connection: Own,
    session: SessionId,
}

impl HalfARescue {
    /// Marks the session dead, and commits.
    pub async fn finish(mut self) {
        let mark = "update {}host_session set dead_at = expires_at where id = ";
        self.connection.run(&format!("{mark}{}; commit", self.session.0)).await;
    }
}

pub fn name(name: &str) -> Name {
    Name::new(name).unwrap()
}

/// A job of plugin `p` without a schedule: three attempts, ten seconds apart.
pub fn job(job: &str) -> Job {
    Job {
        name: name(job),
        plugin: name("p"),
        handler: "h".into(),
        args: json!({ "days": 7 }),
        schedule: None,
        enabled: true,
        retry: RetryPolicy {
            max_attempts: 3,
            backoff: Backoff::Constant,
            initial: Duration::from_secs(10),
            maximum: Duration::from_secs(10),
            jitter: 0.0,
        },
        timeout: Duration::from_secs(60),
        on_crash: OnCrash::Retry,
        history: innkeeper::job::History::default(),
        policies: innkeeper::policy::Policies::default(),
    }
}

/// The same, every so many seconds.
pub fn every(job_name: &str, seconds: u64) -> Job {
    let spec = Spec { every: Some(Duration::from_secs(seconds)), ..Spec::default() };
    Job { schedule: Some(Schedule::new(&spec).unwrap()), ..job(job_name) }
}

pub fn by_hand(job: &Name) -> NewExecution<'_> {
    NewExecution { job, args: None, triggered_by: Trigger::Manual, run_at: None, unique_key: None, by: None }
}

pub fn holder(session: SessionId, attempt: &Attempt) -> Holder {
    Holder { session, lease: attempt.lease, execution: attempt.execution }
}

pub fn success(attempt: &Attempt) -> Completion {
    attempt.finish(Outcome::Succeeded(json!({ "deleted": 3 })))
}

pub fn failure(attempt: &Attempt) -> Completion {
    attempt.finish(Outcome::Failed(Failure::new(FailureKind::Handler, "the disk is full")))
}
