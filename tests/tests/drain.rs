//! A shutdown, with the real binary: nothing new is started, handlers are told and have time, what is
//! left goes back to the queue as if it had never been started, and a second signal ends the waiting.
//!
//! Where `drain_timeout` is ten minutes, a host that waits for it fails the test: no host has more than
//! one minute to exit (`PATIENCE`).

use innkeeper::execution::State;
use innkeeper::store::Store;
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, TestHost, until};
use innkeeper_tests::on_both_engines;
use innkeeper_tests::raw::{Raw, make_gate, open_gate};
use serde_json::{Value, json};
use uuid::Uuid;

/// One attempt each, so that a drain that cost one would end the execution.
const JOBS: &str = r#"
[jobs.hold]
plugin = "probe"
handler = "hold"
args = { gate = "main" }
timeout = "30m"
retry = { max_attempts = 1 }

[jobs.hold-again]
plugin = "probe"
handler = "hold"
args = { gate = "main" }
timeout = "30m"
retry = { max_attempts = 2, initial = "10ms", maximum = "10ms" }

[jobs.polite]
plugin = "probe"
handler = "cancelled"
timeout = "30m"
retry = { max_attempts = 1 }

[jobs.spin]
plugin = "probe"
handler = "spin"
timeout = "30m"
retry = { max_attempts = 1 }

[jobs.sql]
plugin = "probe"
handler = "sql"
args = { steps = [] }
timeout = "30m"
retry = { max_attempts = 1 }

[jobs.echo]
plugin = "probe"
handler = "echo"
retry = { max_attempts = 1 }
"#;

const PATIENT: &str = "session_timeout = \"10s\"\ndrain_timeout = \"10m\"";

async fn scene(engine: Engine, host: &str) -> (Scene, Raw) {
    let scene = Scene::new(engine).await.with("host", host);
    let mut app = Raw::connect(scene.app.url()).await;
    make_gate(&mut app).await;
    app.execute("create table t (n int)").await;
    (scene, app)
}

/// How each attempt of the execution ended, in their order: its number and its outcome.
async fn history(scene: &Scene, id: Uuid) -> Vec<String> {
    let mut records = Raw::connect(scene.store.url()).await;
    let sql = match scene.engine {
        Engine::Sqlite => format!(
            "select s.attempt || ' ' || coalesce(c.outcome, 'open') from start s left join completion c \
             on c.execution_id = s.execution_id and c.lease = s.lease \
             where s.execution_id = x'{}' order by s.lease",
            id.simple()
        ),
        Engine::Postgres => format!(
            "select s.attempt || ' ' || coalesce(c.outcome, 'open') from innkeeper.start s \
             left join innkeeper.completion c on c.execution_id = s.execution_id and c.lease = s.lease \
             where s.execution_id = '{id}' order by s.lease"
        ),
    };
    records.texts(&sql).await
}

async fn assert_queued(store: &Store, id: Uuid) {
    let record = store.execution(id).await.expect("the store answers").expect("it is there");
    assert_eq!((record.state, record.attempt), (State::Queued, 0), "as if it had never been started");
}

/// Waits until a handler of `hold` is inside its call.
async fn until_inside(app: &mut Raw) {
    let inside = "select count(*) from inside";
    until("a handler is inside", async || (app.count(inside).await > 0).then_some(())).await;
}

/// SIGTERM, another one while it drains, and waits for a clean end.
async fn stop_at_once(host: TestHost) {
    host.signal(libc::SIGTERM);
    host.wait_for_log("draining").await;
    host.stop().await;
}

on_both_engines! {
    async fn a_handler_that_sees_the_drain_ends_by_itself_and_nobody_waits_any_longer(engine: Engine) {
        let (scene, _) = scene(engine, PATIENT).await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let id = scene.enqueue(&store, "polite", &Value::Null).await;
        scene.wait_for(&store, id, &[State::Running]).await;
        let log = host.stop().await;
        assert!(!log.contains("stopping what still runs"), "it was not stopped:\n{log}");
        let record = store.execution(id).await.unwrap().expect("it is there");
        assert_eq!((record.state, record.result), (State::Succeeded, Some(json!({"cancelled": true}))));
        assert_eq!(history(&scene, id).await, ["1 succeeded"]);
    }

    async fn what_outlasts_the_drain_is_run_by_another_host_as_the_same_attempt(engine: Engine) {
        let (scene, mut app) = scene(engine, "drain_timeout = \"100ms\"").await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let id = scene.enqueue(&store, "hold", &json!({"gate": "main"})).await;
        scene.wait_for(&store, id, &[State::Running]).await;
        host.stop().await;
        assert_queued(&store, id).await;

        open_gate(&mut app, "main").await;
        let host = scene.serve_as("inn-2", JOBS).await;
        let record = scene.wait_for_end(&store, id).await;
        assert_eq!((record.state, record.attempt), (State::Succeeded, 1), "it has one attempt, and had it left");
        assert_eq!(history(&scene, id).await, ["1 released", "1 succeeded"]);
        host.stop().await;
    }

    async fn a_second_signal_stops_at_once_whatever_runs_and_costs_no_attempt(engine: Engine) {
        let (scene, mut app) = scene(engine, PATIENT).await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let writes = json!({
            "steps": [
                {"op": "begin", "tx": 1, "must": true},
                {"op": "tx-execute", "tx": 1, "sql": "insert into t values (1)", "must": true},
            ],
            "then": "sleep",
            "ms": 1_800_000,
        });
        let mut ids = Vec::new();
        // The one that writes comes last: on SQLite no other can write beside it.
        for (job, args) in
            [("spin", Value::Null), ("hold", json!({"gate": "main"})), ("sql", writes)]
        {
            let id = scene.enqueue(&store, job, &args).await;
            scene.wait_for(&store, id, &[State::Running]).await;
            if job == "hold" {
                until_inside(&mut app).await;
            }
            ids.push(id);
        }
        stop_at_once(host).await;
        for id in &ids {
            assert_queued(&store, *id).await;
            assert_eq!(history(&scene, *id).await, ["1 released"]);
        }
        assert_eq!(app.count("select count(*) from t").await, 0, "what was not committed is gone");
    }

    async fn a_start_that_is_under_way_when_the_drain_begins_is_given_back(engine: Engine) {
        let (scene, _) = scene(engine, PATIENT).await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let mut records = Raw::connect(scene.store.url()).await;
        if engine == Engine::Postgres {
            records.lock("innkeeper.start").await;
        }
        let id = scene.enqueue(&store, "polite", &Value::Null).await;
        if engine == Engine::Postgres {
            let blocked = "select count(*) from pg_stat_activity where datname = current_database() \
                           and wait_event_type = 'Lock' and query like '%insert into innkeeper.start%'";
            // A transaction sees who is active as it was when it first looked.
            let mut looking = Raw::connect(scene.store.url()).await;
            until("the start waits", async || (looking.count(blocked).await > 0).then_some(())).await;
        } else {
            // SQLite has one writer, so that nothing can be enqueued beside the lock. The host may
            // have started it before: then its handler is told.
            records.lock("").await;
        }
        host.signal(libc::SIGTERM);
        host.wait_for_log("draining").await;
        records.unlock().await;
        let (status, log) = host.wait().await;
        assert!(status.success(), "{status}\n{log}");
        let history = history(&scene, id).await;
        if engine == Engine::Postgres || history != ["1 succeeded"] {
            assert_queued(&store, id).await;
            assert!(history.iter().all(|attempt| attempt == "1 released"), "{history:?}");
        }
        if engine == Engine::Postgres {
            assert_eq!(history.len(), 1, "it had been started");
        }
    }

    async fn a_second_signal_ends_even_a_host_whose_store_does_not_answer(engine: Engine) {
        let (scene, mut app) = scene(engine, "session_timeout = \"3s\"\ndrain_timeout = \"10m\"").await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let id = scene.enqueue(&store, "hold-again", &json!({"gate": "main"})).await;
        until_inside(&mut app).await;
        let mut records = Raw::connect(scene.store.url()).await;
        records.lock("innkeeper.completion").await;
        stop_at_once(host).await;
        records.unlock().await;

        open_gate(&mut app, "main").await;
        let host = scene.serve_as("inn-2", JOBS).await;
        let record = scene.wait_for_end(&store, id).await;
        assert_eq!((record.state, record.attempt), (State::Succeeded, 2), "as after any host that died");
        assert_eq!(history(&scene, id).await, ["1 failed", "2 succeeded"]);
        host.stop().await;
    }
}
