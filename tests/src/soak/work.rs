//! What the host is given to do: everything that handlers do, well or badly.

use futures_util::{StreamExt as _, stream};
use innkeeper::execution::Trigger;
use innkeeper::job::Name;
use innkeeper::store::{NewExecution, Store};
use serde_json::{Value, json};

use crate::database::Engine;
use crate::host::Scene;
use crate::raw::Raw;

/// The jobs of one round, in the order in which they are enqueued.
pub(super) const MIX: &[&str] = &[
    "noop",
    "noop",
    "noop",
    "noop",
    "noop",
    "noop",
    "noop",
    "db",
    "db",
    "db",
    "leak",
    "log",
    "print",
    "progress",
    "checkpoint",
    "fails",
    "retried",
    "traps",
    "overruns",
    "parent",
    "hoards",
];

/// Executions of one round: `parent` enqueues another one.
const OF_A_ROUND: u64 = MIX.len() as u64 + 1;

/// One for each connection of the store that is enqueued with.
const AT_ONCE: usize = 2;

/// How little of the history is kept, beyond its last minute.
const HISTORY: &str = "max_connections = 4\nhistory = { last = 50 }";

pub(super) const JOBS: &str = r#"
[jobs.noop]
plugin = "probe"
handler = "echo"

[jobs.db]
plugin = "probe"
handler = "sql"
args = { steps = [] }
retry = { max_attempts = 50, initial = "50ms", maximum = "50ms" }

[jobs.leak]
plugin = "probe"
handler = "sql"
args = { steps = [] }
retry = { max_attempts = 50, initial = "50ms", maximum = "50ms" }

[jobs.log]
plugin = "probe"
handler = "log"
args = { count = 20 }

[jobs.print]
plugin = "probe"
handler = "print"
args = { stdout = "to standard output\n", stderr = "to standard error\n" }

[jobs.progress]
plugin = "probe"
handler = "progress"
args = { steps = [{ done = 1, total = 2 }, { done = 2, total = 2, message = "done" }] }

[jobs.checkpoint]
plugin = "probe"
handler = "checkpoint"
args = { state = { page = 7 }, fail_until = 2 }
retry = { max_attempts = 3, initial = "10ms", maximum = "10ms" }

[jobs.fails]
plugin = "probe"
handler = "fail"
args = { kind = "permanent", message = "there is no such customer" }

[jobs.retried]
plugin = "probe"
handler = "fail-until"
args = { attempt = 2 }
retry = { max_attempts = 3, initial = "10ms", maximum = "10ms" }

[jobs.traps]
plugin = "probe"
handler = "panic"
args = { message = "the handler is broken" }
retry = { max_attempts = 1 }

[jobs.overruns]
plugin = "probe"
handler = "sleep"
args = { ms = 600000 }
timeout = "50ms"
retry = { max_attempts = 1 }

[jobs.hoards]
plugin = "probe"
handler = "allocate"
args = { mib = 1024 }
retry = { max_attempts = 1 }

[jobs.parent]
plugin = "probe"
handler = "enqueue"
args = { job = "noop", args = "of a parent" }
"#;

/// With little history, so that there is something to remove, and the grants that [`JOBS`] need.
pub(super) fn configured(scene: Scene) -> Scene {
    let host = "concurrency = 16\nsession_timeout = \"30s\"\ndrain_timeout = \"20s\"\nwatch = false";
    scene.with("host", host).with("store", HISTORY).with("plugins.probe", "jobs = [\"noop\"]")
}

/// Makes the table that the handlers of `db` write to.
pub(super) async fn prepare(scene: &Scene) {
    let mut app = Raw::connect(scene.app.url()).await;
    if scene.engine == Engine::Sqlite {
        app.execute("pragma busy_timeout = 30000").await;
    }
    app.execute("create table visit (guest text not null)").await;
}

/// Who enqueues.
pub(super) struct Work {
    store: Store,
    executions: u64,
}

impl Work {
    pub(super) async fn new(scene: &Scene) -> Self {
        Self { store: scene.open_store().await, executions: 0 }
    }

    /// How many executions it has caused so far.
    pub(super) fn executions(&self) -> u64 {
        self.executions
    }

    /// Enqueues so many rounds of the mix.
    pub(super) async fn enqueue(&mut self, rounds: usize) {
        let (store, db, leak) = (&self.store, writes("return"), writes("leak"));
        let (db, leak) = (&db, &leak);
        let jobs = std::iter::repeat_n(MIX, rounds).flatten();
        let enqueued = stream::iter(jobs).for_each_concurrent(AT_ONCE, |job| async move {
            let args = match *job {
                "db" => Some(db),
                "leak" => Some(leak),
                _ => None,
            };
            enqueue(store, job, args).await;
        });
        enqueued.await;
        self.executions += rounds as u64 * OF_A_ROUND;
    }
}

async fn enqueue(store: &Store, job: &str, args: Option<&Value>) {
    let execution = NewExecution {
        job: &Name::new(job).expect("a name"),
        args,
        triggered_by: Trigger::Manual,
        run_at: None,
        unique_key: None,
        by: None,
    };
    store.enqueue(&execution).await.expect("it is enqueued");
}

/// A program of the handler `sql`: a statement by itself, a transaction of two, a cursor, and
/// another transaction that is still open at the end.
fn writes(then: &str) -> Value {
    json!({
        "steps": [
            {"op": "execute", "sql": "insert into visit values ('Ada')", "must": true},
            {"op": "begin", "tx": 1, "must": true},
            {"op": "tx-execute", "tx": 1, "sql": "delete from visit", "must": true},
            {"op": "tx-query", "tx": 1, "sql": "select guest from visit", "must": true},
            {"op": "commit", "tx": 1, "must": true},
            {"op": "begin", "tx": 2, "read_only": true, "must": true},
            {"op": "open-cursor", "tx": 2, "cursor": 1, "sql": "select guest from visit", "must": true},
        ],
        "then": then,
    })
}
