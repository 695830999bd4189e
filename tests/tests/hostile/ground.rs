//! What attacks are made on: tables, a host, and a good plugin that is always at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use innkeeper::execution::State;
use innkeeper::store::{ExecutionRecord, Store};
use innkeeper_tests::database::{Engine, OwnLogin};
use innkeeper_tests::host::{Scene, TestHost, guest};
use innkeeper_tests::plugins::assert_database_clean;
use innkeeper_tests::raw::Raw;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// A host with a hostile plugin and a good one on one database, each with a login of its own
/// where there are logins.
pub struct Ground {
    /// A connection to that database, past the host.
    pub app: Raw,
    pub store: Store,
    pub scene: Arc<Scene>,
    host: Option<TestHost>,
    hostile: Option<OwnLogin>,
    jobs: String,
    neighbour: Option<Neighbour>,
}

/// The good plugin's work, one execution after the other.
struct Neighbour {
    stop: Arc<AtomicBool>,
    task: JoinHandle<u32>,
}

impl Ground {
    /// `limits` are further lines of the hostile plugin's grant.
    pub async fn new(engine: Engine, limits: &str) -> Self {
        let scene = Scene::new(engine)
            .await
            .with("host", "concurrency = 8\nsession_timeout = \"3s\"\ndrain_timeout = \"1s\"");
        let mut app = Raw::connect(scene.app.url()).await;
        prepare(&mut app).await;
        app.execute("create table work (id text primary key, done integer)").await;
        app.execute("create table t (id integer primary key, who text); insert into t values (1, 'before')")
            .await;
        let (hostile, good) = (scene.app.login().await, scene.app.login().await);
        if let (Some(hostile), Some(good)) = (&hostile, &good) {
            let rights =
                format!("grant all on work to {}; grant all on t, marks to {}", good.role, hostile.role);
            app.execute(&rights).await;
            let mut own =
                Raw::connect(&innkeeper::database_url::DatabaseUrl::Postgres(hostile.url.clone())).await;
            for statement in own_statements(engine) {
                own.execute(statement).await;
            }
        }
        let jobs = jobs(hostile.as_ref(), good.as_ref(), limits);
        let host = scene.serve(&jobs).await;
        let store = scene.open_store().await;
        let scene = Arc::new(scene);
        let neighbour = Some(Neighbour::start(&scene).await);
        Self { app, store, scene, host: Some(host), hostile, jobs, neighbour }
    }

    pub fn host(&self) -> &TestHost {
        self.host.as_ref().expect("it was not taken")
    }

    /// The host, which is going to be ended. The good plugin's work ends before.
    pub async fn take_host(&mut self) -> TestHost {
        self.rest().await;
        self.host.take().expect("it was not taken")
    }

    /// Starts it again, and the good plugin's work with it.
    pub async fn restart(&mut self) {
        self.host = Some(self.scene.serve(&self.jobs).await);
        self.neighbour = Some(Neighbour::start(&self.scene).await);
    }

    pub async fn enqueue(&self, job: &str, args: &Value) -> Uuid {
        self.scene.enqueue(&self.store, job, args).await
    }

    /// Runs an execution to its end.
    pub async fn run(&self, job: &str, args: &Value) -> ExecutionRecord {
        let id = self.enqueue(job, args).await;
        self.scene.wait_for_end(&self.store, id).await
    }

    /// The same for one that succeeds; its result.
    pub async fn succeed(&self, job: &str, args: &Value) -> Value {
        let record = self.run(job, args).await;
        assert_eq!(record.state, State::Succeeded, "{:?}", record.error);
        record.result.expect("a success has a result")
    }

    /// Nothing of the hostile plugin is open in the database.
    pub async fn assert_clean(&mut self, after: &str) {
        match &self.hostile {
            Some(login) => {
                let whose = format!("usename = '{}'", login.role);
                assert_database_clean(&mut self.app, &whose, after).await;
            }
            // The good plugin writes to the same file all the time, and then the lock is its.
            None => {
                self.app.execute("pragma busy_timeout = 5000").await;
                assert_database_clean(&mut self.app, "", after).await;
            }
        }
    }

    /// The good plugin was not hurt, and the host comes to a good end.
    pub async fn end(mut self, after: &str) {
        self.assert_clean(after).await;
        self.take_host().await.stop().await;
    }

    /// Ends the good plugin's work, all of which has succeeded. It comes before somebody holds
    /// SQLite's only lock for long.
    pub async fn rest(&mut self) {
        if let Some(neighbour) = self.neighbour.take() {
            neighbour.stop.store(true, Ordering::Relaxed);
            let done = neighbour.task.await.expect("every execution of the good plugin succeeds");
            assert!(done > 0, "the good plugin was never at work");
            let stored = self.app.count("select count(*) from work where done = 1").await;
            assert!(stored >= i64::from(done), "{stored} of {done} are there");
        }
    }
}

impl Neighbour {
    async fn start(scene: &Arc<Scene>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (scene, stopped) = (Arc::clone(scene), Arc::clone(&stop));
        let store = scene.open_store().await;
        let runtime = tokio::runtime::Handle::current();
        // On a thread of its own, for what it waits with cannot move between threads.
        let task = tokio::task::spawn_blocking(move || {
            runtime.block_on(async move {
                let mut done = 0;
                while !stopped.load(Ordering::Relaxed) || done == 0 {
                    let id = Uuid::new_v4();
                    let insert = format!("insert into work values ('{id}', 0)");
                    let update = format!("update work set done = done + 1 where id = '{id}'");
                    let look = format!("select done from work where id = '{id}'");
                    let program = json!({"steps": [
                        {"op": "execute", "sql": insert, "must": true},
                        {"op": "begin", "tx": 1, "must": true},
                        {"op": "tx-execute", "tx": 1, "sql": update, "must": true},
                        {"op": "commit", "tx": 1, "must": true},
                        {"op": "query", "sql": look, "must": true},
                    ]});
                    let execution = scene.enqueue(&store, "good", &program).await;
                    let record = scene.wait_for_end(&store, execution).await;
                    assert_eq!(record.state, State::Succeeded, "{:?}", record.error);
                    let result = record.result.expect("a success has a result");
                    assert_eq!(result[4]["rows"], json!([[1]]));
                    done += 1;
                }
                done
            })
        });
        Self { stop, task }
    }
}

/// The plugins and their jobs.
fn jobs(hostile: Option<&OwnLogin>, good: Option<&OwnLogin>, limits: &str) -> String {
    let grant = |plugin: &str, login: Option<&OwnLogin>| {
        let url = login.map(|login| format!("url = {:?}\n", login.url)).unwrap_or_default();
        format!("[[plugins.{plugin}.databases]]\nname = \"app\"\n{url}")
    };
    let (probe, guest) = (guest("probe"), guest("hostile"));
    let mut text = format!(
        "[plugins.good]\ncomponent = {probe:?}\n{}\n\
         [plugins.hostile]\ncomponent = {guest:?}\nlimits = {{ memory = \"32 MiB\" }}\n{}{limits}\n\
         [plugins.ender]\ncomponent = {probe:?}\nlimits = {{ memory = \"32 MiB\" }}\n{}{limits}\n",
        grant("good", good),
        grant("hostile", hostile),
        grant("ender", hostile),
    );
    for (job, plugin, handler, args, timeout) in [
        ("good", "good", "sql", "steps = []", "30s"),
        ("raid", "hostile", "raid", "attacks = [], look = []", "2m"),
        ("forge", "hostile", "forge", "how = \"commit\"", "30s"),
        ("hoard", "hostile", "hoard", "what = \"cursors\", count = 0", "1m"),
        ("short-hoard", "hostile", "hoard", "what = \"cursors\", count = 0", "1s"),
        ("end", "ender", "sql", "steps = []", "1s"),
        ("long-end", "ender", "sql", "steps = []", "5m"),
    ] {
        text.push_str(&format!(
            "[jobs.{job}]\nplugin = \"{plugin}\"\nhandler = \"{handler}\"\nargs = {{ {args} }}\n\
             timeout = \"{timeout}\"\nretry = {{ max_attempts = 1 }}\non_crash = \"fail\"\n\n"
        ));
    }
    text
}

/// What the operator makes, past the host.
pub async fn prepare(outside: &mut Raw) {
    outside.execute("create table marks (attack bigint, part bigint)").await;
    match outside {
        Raw::Postgres(_) => outside.execute("grant select, insert, delete on marks to public").await,
        Raw::Sqlite(_) => {
            let sql = "create table late (x integer primary key); insert into late values (1), (2);
                       create table trap (x integer);
                       create trigger spring before insert on trap begin select raise(rollback, 'gone'); end";
            outside.execute(sql).await;
        }
    }
}

/// What the hostile plugin makes for itself, each a statement.
pub fn own_statements(engine: Engine) -> &'static [&'static str] {
    if engine == Engine::Sqlite {
        return &[];
    }
    &[
        "CREATE PROCEDURE finish() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO marks VALUES (-1, 1); COMMIT; END $$",
        "CREATE PROCEDURE begin_again() LANGUAGE plpgsql AS $$ BEGIN ROLLBACK; INSERT INTO marks VALUES (-1, 2); END $$",
        "CREATE FUNCTION finish_in_a_function() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN COMMIT; RETURN 1; END $$",
        "CREATE FUNCTION swap_statements() RETURNS integer LANGUAGE plpgsql AS $$ DECLARE s text; BEGIN
             FOR s IN SELECT name FROM pg_prepared_statements WHERE name LIKE 'sqlx%' LOOP
                 EXECUTE 'DEALLOCATE ' || s;
                 EXECUTE 'PREPARE ' || s || ' AS SELECT 1::bigint, 2';
             END LOOP;
             RETURN 0;
         END $$",
        "CREATE SEQUENCE late_sequence",
        "CREATE TABLE late (x integer)",
        "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM set_config('search_path', 'pg_temp', false);
             PERFORM set_config('statement_timeout', '424242', false);
             PERFORM set_config('default_transaction_read_only', 'on', false);
             PERFORM set_config('innkeeper.test', 'late', false);
             PERFORM pg_advisory_lock(4245);
             EXECUTE 'CREATE TEMP TABLE IF NOT EXISTS late_left_behind (x integer)';
             EXECUTE 'LISTEN evil';
             RETURN NULL;
         END $$",
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION late()",
    ]
}
