//! What these tests are played on: a database for the plugins' work, and one for the gates at
//! which a test holds them.

use innkeeper::execution::State;
use innkeeper::store::Store;
use innkeeper_tests::database::{Engine, TestDatabase};
use innkeeper_tests::host::{Scene, TestHost, guest, until};
use innkeeper_tests::raw::Raw;
use serde_json::{Value, json};
use uuid::Uuid;

/// A host, its databases, and connections past it.
pub struct Stage {
    pub scene: Scene,
    pub host: TestHost,
    pub store: Store,
    /// To the database of the plugins' work.
    pub app: Raw,
    /// To the host's own records.
    pub records: Raw,
    /// To the table `gate`, in a database of its own: a writer of SQLite holds up nobody there.
    gates: Raw,
    _gates: TestDatabase,
}

impl Stage {
    /// `app` prepares the database; each of `plugins` is one on the guest `hostile` with both
    /// databases granted, the first one by default; `jobs` is TOML.
    pub async fn new(scene: Scene, app: &str, plugins: &[&str], jobs: &str) -> Self {
        let gates = TestDatabase::empty(scene.engine).await;
        let mut connection = Raw::connect(gates.url()).await;
        connection.execute("create table gate (id text primary key)").await;
        let mut prepared = Raw::connect(scene.app.url()).await;
        prepared.execute(app).await;
        let mut text = format!("[databases.gates]\nurl = {:?}\nmax_connections = 64\n", gates.address());
        for plugin in plugins {
            text.push_str(&format!(
                "[plugins.{plugin}]\ncomponent = {:?}\n\
                 [[plugins.{plugin}.databases]]\nname = \"app\"\ndefault = true\n\
                 [[plugins.{plugin}.databases]]\nname = \"gates\"\n",
                guest("hostile")
            ));
        }
        let host = scene.serve(&format!("{text}\n{jobs}")).await;
        let store = scene.open_store().await;
        let records = Raw::connect(scene.store.url()).await;
        Self { scene, host, store, app: prepared, records, gates: connection, _gates: gates }
    }

    pub fn engine(&self) -> Engine {
        self.scene.engine
    }

    /// Enqueues an execution of the handler `script`.
    pub async fn script(&self, job: &str, steps: &[Value]) -> Uuid {
        self.scene.enqueue(&self.store, job, &json!({"gates": "gates", "steps": steps})).await
    }

    /// Runs one to its end, which is a success, and returns its answers.
    pub async fn play(&self, job: &str, steps: &[Value]) -> Value {
        let id = self.script(job, steps).await;
        let record = self.scene.wait_for_end(&self.store, id).await;
        assert_eq!(record.state, State::Succeeded, "{:?}", record.error);
        record.result.expect("a success has a result")
    }

    /// Waits until a script has reached this step.
    pub async fn reached(&self, id: Uuid, step: u64) {
        until(&format!("execution {id} has reached step {step}"), async || {
            let record = self.store.execution(id).await.expect("the store answers").expect("it is there");
            assert!(record.finished_at.is_none(), "it has ended: {:?}", record.error);
            record.progress.is_some_and(|progress| progress.done == step).then_some(())
        })
        .await;
    }

    /// Lets everybody go on who waits at this gate.
    pub async fn open_gate(&mut self, gate: &str) {
        let sql = format!("insert into gate values ('{gate}')");
        until("the gate is open", async || self.gates.try_execute(&sql).await.ok()).await;
    }

    /// A table of the host's records, as this engine names it.
    pub fn table(&self, name: &str) -> String {
        match self.engine() {
            Engine::Sqlite => name.to_owned(),
            Engine::Postgres => format!("innkeeper.{name}"),
        }
    }
}

/// `{begin: {tx: 1, …}}`.
pub fn begin(options: &Value) -> Value {
    let mut options = options.clone();
    options["tx"] = json!(1);
    json!({"begin": options})
}

/// A query in transaction 1.
pub fn query(sql: &str) -> Value {
    json!({"query": {"tx": 1, "sql": sql}})
}

/// A statement in transaction 1.
pub fn execute(sql: &str) -> Value {
    json!({"execute": {"tx": 1, "sql": sql}})
}

/// A query in a transaction of its own.
pub fn own_query(sql: &str) -> Value {
    json!({"query": {"sql": sql}})
}

/// Says that it has come so far.
pub fn reach(step: u64) -> Value {
    json!({"reach": {"step": step}})
}

/// Waits at a gate.
pub fn wait(gate: &str) -> Value {
    json!({"wait": {"gate": gate}})
}

/// The commit of transaction 1.
pub fn commit() -> Value {
    json!({"commit": {"tx": 1}})
}

/// A job of this plugin that runs the handler `script`, once.
pub fn job(plugin: &str, timeout: &str) -> String {
    format!(
        "[jobs.{plugin}]\nplugin = \"{plugin}\"\nhandler = \"script\"\nargs = {{ steps = [] }}\n\
         timeout = \"{timeout}\"\nretry = {{ max_attempts = 1 }}\n\n"
    )
}
