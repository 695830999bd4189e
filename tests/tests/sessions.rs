//! What this product is for: sessions that are never shared, pools that do not run dry, and
//! the whole way from a schedule to a recorded completion. `cargo xtask test sessions` runs
//! these alone.

use innkeeper::execution::State;
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, guest, until};
use innkeeper_tests::on_both_engines;
use innkeeper_tests::raw::Raw;
use serde_json::{Value, json};

const JOBS: &str = r#"
[jobs.sql]
plugin = "probe"
handler = "sql"
args = { steps = [] }
timeout = "2m"
retry = { max_attempts = 500, initial = "5ms", maximum = "50ms", backoff = "constant", jitter = 1.0 }
"#;

/// A second plugin on the same component and database, with a job of its own.
fn with_another_plugin() -> String {
    let component = guest("probe");
    format!(
        "{JOBS}\n[plugins.other]\ncomponent = {component:?}\n\n[[plugins.other.databases]]\nname = \"app\"\n\n\
         [jobs.other-sql]\nplugin = \"other\"\nhandler = \"sql\"\nargs = {{ steps = [] }}\n"
    )
}

fn must(op: &str, sql: &str) -> Value {
    json!({"op": op, "tx": 1, "sql": sql, "must": true})
}

on_both_engines! {
    async fn handlers_that_hold_transactions_open_at_once_share_no_session(engine: Engine) {
        let scene = Scene::new(engine).await;
        let mut app = Raw::connect(scene.app.url()).await;
        app.execute("create table t (who text)").await;
        let host = scene.serve(&with_another_plugin()).await;
        let store = scene.open_store().await;

        // The first one stays in its transaction: a writer on PostgreSQL; on SQLite, which has
        // one writer at a time, a reader.
        let mut begin = must("begin", "");
        begin["read_only"] = json!(engine == Engine::Sqlite);
        let first = match engine {
            Engine::Postgres => must("tx-execute", "insert into t values ('first')"),
            Engine::Sqlite => must("tx-query", "select * from t"),
        };
        let held = scene.run("sql", &json!({"steps": [begin, first], "then": "sleep", "ms": 600_000}));
        scene.wait_for(&store, held, &[State::Running]).await;
        if engine == Engine::Postgres {
            let open = "select count(*) from pg_stat_activity where datname = current_database() \
                        and state = 'idle in transaction'";
            until("the first transaction is open", async || (app.count(open).await == 1).then_some(())).await;
        }

        // Others come and go beside it: on their own, and in transactions, of both plugins.
        for (job, who) in [("sql", "second"), ("other-sql", "third")] {
            let program = json!({"steps": [
                must("query", "select who from t where who = 'first'"),
                must("begin", ""),
                must("tx-execute", &format!("insert into t values ('{who}')")),
                must("query", &format!("select who from t where who = '{who}'")),
                must("commit", ""),
                must("query", &format!("select who from t where who = '{who}'")),
            ]});
            let id = scene.run(job, &program);
            let record = scene.wait_for_end(&store, id).await;
            assert_eq!(record.state, State::Succeeded, "{:?}", record.error);
            let result = record.result.expect("it returns what it saw");
            assert_eq!(result[0]["rows"], json!([]), "what another handler has not committed is not seen");
            assert_eq!(result[3]["rows"], json!([]), "nor what another transaction of its own has not");
            assert_eq!(result[5]["rows"], json!([[who]]), "and what is committed is");
        }
        let state = store.execution(held).await.unwrap().expect("it is there").state;
        assert_eq!(state, State::Running, "their commits ended nobody else's transaction");
        host.kill();
        let rows = async || {
            let rows = app.texts("select who from t order by who").await;
            (rows == ["second", "third"]).then_some(())
        };
        until("exactly what was committed is there", rows).await;
    }

    async fn settings_and_temporary_tables_never_pass_from_one_plugin_to_another(engine: Engine) {
        let scene = Scene::new(engine).await.with("databases.app", "max_connections = 1");
        let host = scene.serve(&with_another_plugin()).await;
        let store = scene.open_store().await;
        let create = "create temporary table secret (x integer)";
        let id = scene.run("sql", &json!({"steps": [must("execute", create)]}));
        assert_eq!(scene.wait_for_end(&store, id).await.state, State::Succeeded);
        let look = json!({"steps": [{"op": "query", "sql": "select * from secret"}]});
        let id = scene.run("other-sql", &look);
        let result = scene.wait_for_end(&store, id).await.result.expect("it returns what it was told");
        assert_eq!(result[0]["error"]["kind"], "statement", "there is no such table: {result}");
        host.stop().await;
    }

    async fn a_pool_of_four_serves_sixty_four_executions_at_once(engine: Engine) {
        let scene = Scene::new(engine)
            .await
            .with("host", "concurrency = 64\nsession_timeout = \"30s\"")
            .with("databases.app", "max_connections = 4\nacquire_timeout = \"250ms\"");
        let mut app = Raw::connect(scene.app.url()).await;
        app.execute("create table t (number integer)").await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let job = innkeeper::job::Name::new("sql").expect("a name");
        let mut ids = Vec::new();
        for number in 0..400 {
            // Each tenth wants a second connection while it holds one: four of them at once
            // are told that the pool is busy, give back what they have, and are tried again.
            let insert = format!("insert into t values ({number})");
            let mut steps = vec![must("begin", ""), must("tx-execute", &insert)];
            if number % 10 == 0 {
                steps.push(must("query", "select count(*) from t"));
            }
            steps.push(must("commit", ""));
            let args = json!({"steps": steps});
            let execution = innkeeper::store::NewExecution {
                job: &job,
                args: Some(&args),
                triggered_by: innkeeper::execution::Trigger::Manual,
                run_at: None,
                unique_key: None,
                by: None,
            };
            ids.push(store.enqueue(&execution).await.expect("it is enqueued").id);
        }
        for id in ids {
            let record = scene.wait_for_end(&store, id).await;
            assert_eq!(record.state, State::Succeeded, "{:?}", record.error);
        }
        assert_eq!(app.count("select count(*) from t").await, 400, "each has committed once");
        if engine == Engine::Postgres {
            let connections = "select count(*) from pg_stat_activity where datname = current_database() \
                               and pid <> pg_backend_pid() and application_name = 'innkeeper plugin probe'";
            // The pool keeps what it has opened, so that there is something to count.
            let count = app.count(connections).await;
            assert!((1..=4).contains(&count), "{count} connections of a pool of four");
            let busy = format!("{connections} and state <> 'idle'");
            assert_eq!(app.count(&busy).await, 0, "every connection is back");
        }
        host.stop().await;
    }

    async fn a_fire_of_a_schedule_becomes_a_recorded_completion(engine: Engine) {
        let jobs = r#"
            [jobs.report]
            plugin = "probe"
            handler = "sql"
            args = { steps = [{ op = "query", sql = "select count(*) from t" }] }
            schedule = { every = "1s" }

            [jobs.talk]
            plugin = "probe"
            handler = "log"
            args = { lines = [{ level = "warn", message = "half way", fields = { rows = 3 } }], count = 1 }
        "#;
        let scene = Scene::new(engine).await;
        let mut app = Raw::connect(scene.app.url()).await;
        app.execute("create table t (who text); insert into t values ('one'), ('two')").await;
        let host = scene.serve(jobs).await;
        let listed = until("a scheduled execution has succeeded", async || {
            let listed = scene.innkeeper_json(&["execution", "list", "--job", "report", "--state", "succeeded"]);
            listed["executions"].get(0).cloned()
        })
        .await;
        assert_eq!(listed["triggered_by"], "schedule");
        assert_eq!(listed["result"][0]["rows"], json!([[2]]), "what the database answered: {listed}");
        for field in ["id", "scheduled_at", "started_at", "finished_at", "component_digest"] {
            assert!(listed[field].is_string(), "{field} in {listed}");
        }
        assert_eq!((&listed["host"], &listed["attempt"], &listed["error"]), (&json!("inn-1"), &json!(1), &json!(null)));
        assert!(listed["scheduled_at"].as_str().is_some_and(|at| at.ends_with('Z')), "times are in UTC: {listed}");

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
