//! Cancelling and repeating, with the real binary: a running handler is told, has its grace, and is
//! then stopped; what it had open is undone before that is on record.

use std::process::Output;

use innkeeper::execution::{FailureKind, State, Trigger};
use innkeeper::store::{ExecutionRecord, Store};
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, until};
use innkeeper_tests::on_both_engines;
use innkeeper_tests::raw::Raw;
use serde_json::{Value, json};
use uuid::Uuid;

const JOBS: &str = r#"
[jobs.give-up]
plugin = "probe"
handler = "give-up"
timeout = "30m"
retry = { max_attempts = 3, initial = "10ms", maximum = "10ms" }

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

[jobs.fail]
plugin = "probe"
handler = "fail"
args = { kind = "permanent", message = "no such customer" }
retry = { max_attempts = 1 }

[jobs.echo]
plugin = "probe"
handler = "echo"
retry = { max_attempts = 1 }
"#;

/// The jobs, whose handlers have so long to end by themselves.
fn jobs(cancel_grace: &str) -> String {
    JOBS.replace("retry = ", &format!("cancel_grace = \"{cancel_grace}\"\nretry = "))
}

/// A test that waits for its end fails.
const FOR_EVER: &str = "1day";

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// Enqueues an execution and waits until it runs.
async fn running(scene: &Scene, store: &Store, job: &str, args: &Value) -> Uuid {
    let id = scene.enqueue(store, job, args).await;
    scene.wait_for(store, id, &[State::Running]).await;
    id
}

fn cancel(scene: &Scene, id: Uuid) {
    let document =
        scene.innkeeper_json(&["execution", "cancel", &id.to_string(), "--reason", "the wrong customer"]);
    let expected = json!({ "id": id.to_string(), "result": "requested", "retry": null, "reason": null });
    assert_eq!(document, json!({ "executions": [expected] }));
}

async fn until_cancelled(scene: &Scene, store: &Store, id: Uuid) -> ExecutionRecord {
    let ends = [State::Cancelled, State::Succeeded, State::Failed];
    let record = scene.wait_for(store, id, &ends).await;
    assert_eq!((record.state, record.attempt), (State::Cancelled, 1), "{record:?}");
    let error = record.error.as_ref().expect("it says why");
    assert_eq!(error.kind, FailureKind::Cancelled);
    assert!(error.message.starts_with("the wrong customer; "), "{}", error.message);
    record
}

/// Whether nobody has a transaction open that has written into `t`.
async fn is_free(app: &mut Raw) -> bool {
    let lock = match app {
        Raw::Sqlite(_) => "begin immediate",
        Raw::Postgres(_) => "begin; lock table t in access exclusive mode nowait",
    };
    let locked = app.try_execute(lock).await.is_ok();
    // On SQLite there is none to roll back where it was refused.
    let _ = app.try_execute("rollback").await;
    locked
}

on_both_engines! {
    async fn a_handler_that_is_told_ends_and_is_not_tried_again(engine: Engine) {
        let scene = Scene::new(engine).await;
        // Another host than the one whose configuration the command line has.
        scene.configure("inn-1", &jobs(FOR_EVER));
        let host = scene.serve_as("inn-2", &jobs(FOR_EVER)).await;
        let store = scene.open_store().await;
        let id = running(&scene, &store, "give-up", &Value::Null).await;
        let another = running(&scene, &store, "give-up", &Value::Null).await;
        cancel(&scene, id);
        let record = until_cancelled(&scene, &store, id).await;
        let message = record.error.expect("it says why").message;
        assert!(message.ends_with("`handler`: gave up half-way"), "{message}");
        host.wait_for_log("cancelled").await;
        let text = told(&scene.innkeeper(&["execution", "show", &id.to_string()]));
        for line in ["state         cancelled", "reason        the wrong customer; "] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        let listed = scene.innkeeper_json(&["execution", "list", "--state", "cancelled"]);
        assert_eq!(listed["executions"].as_array().map(Vec::len), Some(1), "{listed}");
        let record = store.execution(another).await.unwrap().expect("it is there");
        assert_eq!(record.state, State::Running, "nobody cancelled it");
        host.stop().await;
    }

    async fn a_handler_that_returns_a_result_in_spite_of_it_has_succeeded(engine: Engine) {
        let scene = Scene::new(engine).await;
        let host = scene.serve(&jobs(FOR_EVER)).await;
        let store = scene.open_store().await;
        let id = running(&scene, &store, "polite", &Value::Null).await;
        cancel(&scene, id);
        let record = scene.wait_for_end(&store, id).await;
        assert_eq!((record.state, record.result), (State::Succeeded, Some(json!({"cancelled": true}))));
        host.stop().await;
    }

    async fn a_handler_that_goes_on_is_stopped_after_its_grace(engine: Engine) {
        let scene = Scene::new(engine).await;
        let host = scene.serve(&jobs("50ms")).await;
        let store = scene.open_store().await;
        let id = running(&scene, &store, "spin", &Value::Null).await;
        cancel(&scene, id);
        let message = until_cancelled(&scene, &store, id).await.error.expect("it says why").message;
        assert!(message.contains("`cancel_grace` of 50ms, and was stopped"), "{message}");
        // Its slot is free, and the host goes on.
        let id = scene.enqueue(&store, "echo", &Value::Null).await;
        assert_eq!(scene.wait_for_end(&store, id).await.state, State::Succeeded);
        host.stop().await;
    }

    async fn what_it_had_open_is_undone_before_it_is_on_record(engine: Engine) {
        let scene = Scene::new(engine).await;
        let mut app = Raw::connect(scene.app.url()).await;
        app.execute("create table t (n int)").await;
        let host = scene.serve(&jobs("50ms")).await;
        let store = scene.open_store().await;
        let writes = json!({
            "steps": [
                {"op": "begin", "tx": 1, "must": true},
                {"op": "tx-execute", "tx": 1, "sql": "insert into t values (1)", "must": true},
            ],
            "then": "sleep",
            "ms": 1_800_000,
        });
        let id = running(&scene, &store, "sql", &writes).await;
        until("it has written", async || (!is_free(&mut app).await).then_some(())).await;
        cancel(&scene, id);
        until_cancelled(&scene, &store, id).await;
        assert!(is_free(&mut app).await, "its transaction has ended");
        assert_eq!(app.count("select count(*) from t").await, 0);
        host.stop().await;
    }

    async fn what_a_drain_stops_is_cancelled_and_not_given_back(engine: Engine) {
        let scene = Scene::new(engine).await.with("host", "session_timeout = \"3s\"\ndrain_timeout = \"100ms\"");
        let host = scene.serve(&jobs(FOR_EVER)).await;
        let store = scene.open_store().await;
        let id = running(&scene, &store, "spin", &Value::Null).await;
        cancel(&scene, id);
        host.wait_for_log("the handler is told to end").await;
        host.stop().await;
        let record = store.execution(id).await.unwrap().expect("it is there");
        assert_eq!((record.state, record.attempt), (State::Cancelled, 1));
    }

    async fn each_id_is_done_or_complained_of(engine: Engine) {
        let scene = Scene::new(engine).await;
        let host = scene.serve(&jobs(FOR_EVER)).await;
        let store = scene.open_store().await;
        host.stop().await;
        let (first, second) = (
            scene.enqueue(&store, "echo", &Value::Null).await,
            scene.enqueue(&store, "echo", &Value::Null).await,
        );
        let nobody = Uuid::now_v7();
        let ids = [first, nobody, second].map(|id| id.to_string());
        let output = scene.innkeeper(&["execution", "cancel", &ids[0], &ids[1], &ids[2]]);
        assert_eq!(output.status.code(), Some(2));
        let text = told(&output);
        assert!(text.contains(&format!("error: there is no execution {nobody}")), "{text}");
        for id in [first, second] {
            assert!(text.contains(&format!("Cancelled {id}: it had not started")), "{text}");
            let record = store.execution(id).await.unwrap().expect("it is there");
            assert_eq!(record.error.map(|e| e.message), Some("an operator cancelled it".to_owned()));
        }
        let again = scene.innkeeper(&["execution", "cancel", &ids[0]]);
        assert_eq!(again.status.code(), Some(0), "it is as it was to be: {}", told(&again));
        assert_eq!(scene.innkeeper(&["execution", "cancel"]).status.code(), Some(2), "of what?");
    }

    async fn what_failed_is_repeated_and_what_did_not_is_refused(engine: Engine) {
        let scene = Scene::new(engine).await;
        let host = scene.serve(&jobs(FOR_EVER)).await;
        let store = scene.open_store().await;
        let failed = scene.enqueue(&store, "fail", &json!({"kind": "permanent", "message": "no"})).await;
        let good = scene.enqueue(&store, "echo", &json!({"n": 7})).await;
        for id in [failed, good] {
            scene.wait_for_end(&store, id).await;
        }
        let busy = running(&scene, &store, "polite", &Value::Null).await;
        let ids = [failed, good, busy].map(|id| id.to_string());
        let output = scene.innkeeper(&["execution", "retry", &ids[0], &ids[1], &ids[2], "--json"]);
        assert_eq!(output.status.code(), Some(2));
        let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
        let results = document["executions"].as_array().expect("a list");
        assert_eq!((&results[0]["result"], &results[0]["reason"]), (&json!("repeated"), &Value::Null));
        for (result, why) in [(&results[1], "has succeeded; `--force`"), (&results[2], "still runs")] {
            assert_eq!((&result["result"], &result["retry"]), (&json!("refused"), &Value::Null));
            assert!(result["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{result}");
        }
        let new: Uuid = results[0]["retry"].as_str().and_then(|id| id.parse().ok()).expect("an id");
        let record = scene.wait_for_end(&store, new).await;
        assert_eq!((record.retry_of, record.triggered_by), (Some(failed), Trigger::Manual));
        assert_eq!(record.args, json!({"kind": "permanent", "message": "no"}));
        let text = told(&scene.innkeeper(&["execution", "show", &new.to_string()]));
        assert!(text.contains(&format!("retry of      {failed}")), "{text}");

        let forced = scene.innkeeper_json(&["execution", "retry", "--force", &good.to_string()]);
        let new: Uuid = forced["executions"][0]["retry"].as_str().and_then(|id| id.parse().ok()).expect("an id");
        let record = scene.wait_for_end(&store, new).await;
        assert_eq!((record.state, record.args), (State::Succeeded, json!({"n": 7})));
        host.stop().await;
    }
}
