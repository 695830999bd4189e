//! The whole way: a schedule fires, START is recorded, the handler is called and commits, and
//! COMPLETION is recorded with its result.

use innkeeper::execution::State;
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, until};
use innkeeper_tests::on_both_engines;
use serde_json::json;

use crate::stage::Stage;

on_both_engines! {
    async fn a_fire_of_a_schedule_goes_all_the_way_to_a_recorded_completion(engine: Engine) {
        let jobs = r#"
            [jobs.report]
            plugin = "reporter"
            handler = "script"
            args = { gates = "gates", steps = [
                { begin = { tx = 1 } },
                { execute = { tx = 1, sql = "insert into t (who) values ('report')" } },
                { commit = { tx = 1 } },
                { reach = { step = 1 } },
                { wait = { gate = "main" } },
                { query = { sql = "select who from t" } },
            ] }
            schedule = { every = "1s" }
            timeout = "5m"
        "#;
        let mut stage = Stage::new(Scene::new(engine).await, "create table t (who text)", &["reporter"], jobs).await;
        let filter = innkeeper::store::ExecutionFilter {
            job: Some(innkeeper::job::Name::new("report").expect("a name")),
            state: None,
            before: None,
            limit: 10,
        };
        let fired = until("it has fired", async || {
            stage.store.executions(&filter).await.expect("the store answers").pop()
        })
        .await;
        stage.reached(fired.id, 1).await;

        // While it runs: what it has committed is there, its START is recorded and committed, and
        // nothing of its end.
        assert!(stage.app.texts("select who from t").await.starts_with(&["report".to_owned()]));
        let id = match engine {
            Engine::Postgres => format!("'{}'", fired.id),
            Engine::Sqlite => format!("x'{}'", fired.id.simple()),
        };
        let count = async |stage: &mut Stage, table: &str, and: &str| {
            let table = stage.table(table);
            let column = if table.ends_with("execution") { "id" } else { "execution_id" };
            stage.records.count(&format!("select count(*) from {table} where {column} = {id} {and}")).await
        };
        let scheduled = "and triggered_by = 'schedule' and fire_time = scheduled_at";
        assert_eq!(count(&mut stage, "execution", scheduled).await, 1);
        assert_eq!(count(&mut stage, "start", "and attempt = 1").await, 1);
        for table in ["ready", "waiting", "completion"] {
            assert_eq!(count(&mut stage, table, "").await, 0, "{table}");
        }

        stage.open_gate("main").await;
        let record = stage.scene.wait_for_end(&stage.store, fired.id).await;
        assert_eq!((record.state, record.attempt), (State::Succeeded, 1), "{:?}", record.error);
        let result = record.result.expect("a success has a result");
        assert_eq!((&result[0], &result[1], &result[2]), (&json!("ok"), &json!(1), &json!("ok")), "{result}");
        assert_eq!(result[3][0], json!(["report"]), "{result}");
        assert!(record.scheduled_at <= record.started_at.expect("it was started"));
        assert!(record.started_at <= record.finished_at);

        // Its one start has one completion, by the same lease.
        let start = stage.table("start");
        let ended = format!("and final and outcome = 'succeeded' and lease = (select lease from {start} where execution_id = {id})");
        assert_eq!(count(&mut stage, "completion", &ended).await, 1);
        assert_eq!(count(&mut stage, "completion", "").await, 1);
        assert_eq!(count(&mut stage, "start", "").await, 1);

        assert_is_listed(&stage, fired.id, &result);
        stage.host.stop().await;
    }

    async fn what_a_handler_says_on_its_way_is_recorded(engine: Engine) {
        let jobs = r#"
            [jobs.talk]
            plugin = "probe"
            handler = "log"
            args = { lines = [{ level = "warn", message = "half way", fields = { rows = 3 } }], count = 1 }
        "#;
        let scene = Scene::new(engine).await;
        let host = scene.serve(jobs).await;
        let talk = scene.innkeeper_json(&["job", "run", "talk", "--wait"]);
        assert_eq!(talk["state"], "succeeded");
        let id = talk["id"].as_str().expect("an id");
        let logs = scene.innkeeper_json(&["execution", "logs", id]);
        let line = &logs["logs"][0];
        assert_eq!((&line["level"], &line["message"], &line["fields"]), (&json!("warn"), &json!("half way"), &json!({"rows": 3})));
        assert_eq!(logs["logs"].as_array().map(Vec::len), Some(2));
        host.stop().await;
    }
}

/// The command line shows the same.
fn assert_is_listed(stage: &Stage, id: uuid::Uuid, result: &serde_json::Value) {
    let listed =
        stage.scene.innkeeper_json(&["execution", "list", "--job", "report", "--state", "succeeded"]);
    let shown = listed["executions"].as_array().expect("a list");
    let shown = shown.iter().find(|shown| shown["id"] == json!(id.to_string())).expect("it is listed");
    assert_eq!(&shown["result"], result);
    assert_eq!((&shown["triggered_by"], &shown["host"]), (&json!("schedule"), &json!("inn-1")));
    for field in ["scheduled_at", "started_at", "finished_at"] {
        assert!(shown[field].as_str().is_some_and(|at| at.ends_with('Z')), "times are in UTC: {shown}");
    }
    assert!(shown["component_digest"].is_string(), "{shown}");
}
