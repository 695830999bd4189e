//! The pools under concurrent load. `INNKEEPER_TEST_EXECUTIONS` sets how many executions there
//! are; without it, 2,000.

use std::time::Duration;

use innkeeper::execution::State;
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, guest, until};
use innkeeper_tests::on_both_engines;
use serde_json::json;

use crate::stage::{Stage, begin, job, own_query, query, reach, wait};

/// The plugin `nest` with its job. Its attempts have time for many tries.
fn nesting() -> String {
    let component = guest("hostile");
    format!(
        "[plugins.nest]\ncomponent = {component:?}\n[[plugins.nest.databases]]\nname = \"app\"\n\n\
         [jobs.nest]\nplugin = \"nest\"\nhandler = \"nest\"\nargs = {{ number = 0 }}\ntimeout = \"5m\"\n\
         retry = {{ max_attempts = 1 }}\n\n\
         [jobs.echo]\nplugin = \"probe\"\nhandler = \"echo\"\n\n"
    )
}

fn executions() -> i64 {
    let Ok(number) = std::env::var("INNKEEPER_TEST_EXECUTIONS") else { return 2_000 };
    number.parse().unwrap_or_else(|error| panic!("INNKEEPER_TEST_EXECUTIONS is {number:?}: {error}"))
}

on_both_engines! {
    async fn a_pool_of_four_serves_sixty_four_executions_at_once_that_nest_transactions(engine: Engine) {
        let scene = Scene::new(engine)
            .await
            .with("host", "concurrency = 64\nsession_timeout = \"30s\"")
            .with("store", "max_connections = 4")
            .with("databases.app", "max_connections = 4\nacquire_timeout = \"250ms\"");
        let table = "create table t (number bigint, part text)";
        let mut stage = Stage::new(scene, table, &[], &nesting()).await;
        let total = executions();
        for number in 0..total {
            // SQLite has one writer at a time: there the outer transaction only reads.
            let outer_reads = engine == Engine::Sqlite || number % 2 == 0;
            stage.scene.enqueue(&stage.store, "nest", &json!({"number": number, "outer_reads": outer_reads})).await;
            if number == total / 2 {
                // What needs no database is not held up by those who wait for one.
                let id = stage.scene.enqueue(&stage.store, "echo", &json!(1)).await;
                stage.scene.wait_for_end(&stage.store, id).await;
            }
        }
        let completion = stage.table("completion");
        // As long as it goes on. That it stops is what must not be.
        let (mut done, mut since) = (0, std::time::Instant::now());
        while done < total + 1 {
            let now = stage.records.count(&format!("select count(*) from {completion}")).await;
            if now > done {
                (done, since) = (now, std::time::Instant::now());
            }
            assert!(since.elapsed() < Duration::from_secs(30), "nothing has gone on since {done} of {total}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }

        let count = async |stage: &mut Stage, sql: String| stage.records.count(&sql).await;
        let succeeded = format!("select count(distinct execution_id) from {completion} where final and outcome = 'succeeded'");
        assert_eq!(count(&mut stage, succeeded).await, total + 1, "each has succeeded");
        assert_eq!(count(&mut stage, format!("select count(*) from {completion}")).await, total + 1, "each once");
        let again = match engine {
            Engine::Postgres => "result::text ~ '^[1-9][0-9]*$'",
            Engine::Sqlite => "result glob '[1-9]*'",
        };
        let again = count(&mut stage, format!("select count(*) from {completion} where {again}")).await;
        assert!(again > 0 || total < 500, "nobody has ever had to try again, so there was no load");
        for (what, expected) in [("start", total + 1), ("execution", total + 1), ("ready", 0), ("waiting", 0)] {
            let table = stage.table(what);
            assert_eq!(count(&mut stage, format!("select count(*) from {table}")).await, expected, "{what}");
        }
        for (part, expected) in [("inner", total), ("outer", if engine == Engine::Sqlite { 0 } else { total / 2 })] {
            let rows = format!("select count(*) from t where part = '{part}'");
            let numbers = format!("select count(distinct number) from t where part = '{part}'");
            assert_eq!((stage.app.count(&rows).await, stage.app.count(&numbers).await), (expected, expected), "{part}");
        }
        assert_no_connection_is_lost(&mut stage).await;
        stage.host.stop().await;
    }

    async fn the_hosts_phases_and_other_pools_never_wait_for_a_plugins_pool(engine: Engine) {
        let plugins = ["holder", "asker", "other"];
        let mut jobs = plugins.map(|plugin| job(plugin, "5m")).concat();
        jobs.push_str("[jobs.echo]\nplugin = \"probe\"\nhandler = \"echo\"\n");
        let scene = Scene::new(engine).await.with("databases.app", "max_connections = 4\nacquire_timeout = \"100ms\"");
        let mut stage = Stage::new(scene, "create table t (who text)", &plugins, &jobs).await;
        let read = json!({"read_only": true});
        let hold = [begin(&read), query("select who from t"), reach(1), wait("main"), query("select who from t")];
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(stage.script("holder", &hold).await);
        }
        for id in &held {
            stage.reached(*id, 1).await;
        }
        let asked = stage.play("asker", &[own_query("select who from t"), begin(&read)]).await;
        assert_eq!(asked, json!([{"error": "busy"}, {"error": "busy"}]), "all four are taken");

        // Starts and completions go on, and so does work on another database.
        let elsewhere = [
            begin(&json!({"database": "gates"})),
            query("select count(*) from gate"),
            json!({"commit": {"tx": 1}}),
        ];
        let mut others = Vec::new();
        for number in 0..20 {
            others.push(stage.script("other", &elsewhere).await);
            others.push(stage.scene.enqueue(&stage.store, "echo", &json!(number)).await);
        }
        for id in others {
            let record = stage.scene.wait_for_end(&stage.store, id).await;
            assert_eq!(record.state, State::Succeeded, "{:?}", record.error);
            if record.job.as_str() == "other" {
                assert_eq!(record.result, Some(json!(["ok", [[0]], "ok"])));
            }
        }
        for id in &held {
            let state = stage.store.execution(*id).await.expect("the store answers").expect("it is there").state;
            assert_eq!(state, State::Running, "the connections were taken all the while");
        }
        stage.open_gate("main").await;
        for id in held {
            assert_eq!(stage.scene.wait_for_end(&stage.store, id).await.state, State::Succeeded);
        }
        assert_no_connection_is_lost(&mut stage).await;
        stage.host.stop().await;
    }
}

/// The pool of four has no more than four connections, and all of them are back.
async fn assert_no_connection_is_lost(stage: &mut Stage) {
    match stage.engine() {
        Engine::Postgres => {
            let connections = "select count(*) from pg_stat_activity where datname = current_database() \
                               and application_name like 'innkeeper plugin %'";
            let count = stage.app.count(connections).await;
            assert!((1..=4).contains(&count), "{count} connections of a pool of four");
            let busy = format!("{connections} and state <> 'idle'");
            assert_eq!(stage.app.count(&busy).await, 0, "every connection is back");
        }
        Engine::Sqlite => {
            let file = stage.scene.app.address().trim_start_matches("sqlite:").to_owned();
            let open = stage.host.open_files().iter().filter(|open| open.ends_with(&file)).count();
            assert!((1..=4).contains(&open), "{open} connections of a pool of four");
            until("nobody holds a lock", async || {
                stage.app.try_execute("begin immediate; rollback").await.ok()
            })
            .await;
        }
    }
}
