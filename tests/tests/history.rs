//! What a running host removes of the history.

use innkeeper::execution::State;
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, until};
use innkeeper_tests::on_both_engines;
use innkeeper_tests::raw::Raw;
use serde_json::{Value, json};

const JOBS: &str = r#"
[jobs.bounded]
plugin = "probe"
handler = "echo"

[jobs.kept]
plugin = "probe"
handler = "echo"
history = { last = 1000 }
"#;

on_both_engines! {
    async fn a_host_keeps_as_much_of_each_jobs_history_as_its_configuration_says(engine: Engine) {
        let scene = Scene::new(engine).await.with("store", "history = { last = 3 }");
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let mut executions = Vec::new();
        for number in 0..8 {
            for job in ["bounded", "kept"] {
                executions.push((job, scene.enqueue(&store, job, &json!(number)).await));
            }
        }
        for (_, id) in &executions {
            assert_eq!(scene.wait_for_end(&store, *id).await.state, State::Succeeded);
        }
        host.stop().await;
        // What ended within the last minute would stay.
        let mut records = Raw::connect(scene.store.url()).await;
        records
            .execute(match engine {
                Engine::Sqlite => "update completion set finished_at = finished_at - 3600000000",
                Engine::Postgres => {
                    "update innkeeper.completion set finished_at = finished_at - interval '1 hour'"
                }
            })
            .await;

        let host = scene.serve(JOBS).await;
        host.wait_for_log("removed from the history").await;
        let list = |job: &str| {
            let listed = scene.innkeeper_json(&["execution", "list", "--job", job]);
            let id = |execution: &Value| execution["id"].as_str().expect("an id").to_owned();
            listed["executions"].as_array().expect("a list").iter().map(id).collect::<Vec<_>>()
        };
        let of = |job: &str| {
            let all = executions.iter().rev().filter(|(of, _)| *of == job);
            all.map(|(_, id)| id.to_string()).collect::<Vec<_>>()
        };
        until("three are left", async || (list("bounded").len() == 3).then_some(())).await;
        assert_eq!(list("bounded"), of("bounded")[..3]);
        assert_eq!(list("kept"), of("kept"));
        let gone = scene.innkeeper(&["execution", "show", &of("bounded")[3]]);
        assert!(!gone.status.success());
        host.stop().await;
    }
}
