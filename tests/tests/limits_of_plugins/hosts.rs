//! Limits of a plugin in the real binary, with a good plugin beside it.

use innkeeper::execution::{FailureKind, State};
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, guest};
use innkeeper_tests::on_both_engines;
use serde_json::json;

fn jobs() -> String {
    let mut text = format!(
        "[plugins.hostile]\ncomponent = {:?}\n[plugins.hostile.limits]\nlog_lines = 5\nfuel = 1_000_000_000_000\n",
        guest("hostile")
    );
    for (job, timeout) in [("exhaust", "3s"), ("last", "1m")] {
        text.push_str(&format!(
            "[jobs.{job}]\nplugin = \"hostile\"\nhandler = \"exhaust\"\nargs = {{ what = \"turns\", amount = 1 }}\n\
             timeout = \"{timeout}\"\ncancel_grace = \"0s\"\nretry = {{ max_attempts = 1 }}\n"
        ));
    }
    text + "[jobs.echo]\nplugin = \"probe\"\nhandler = \"echo\"\nretry = { max_attempts = 1 }\n"
}

on_both_engines! {
    async fn a_good_plugin_goes_on_while_others_use_up_all_that_they_may(engine: Engine) {
        let scene = Scene::new(engine).await.with("host", "concurrency = 8");
        let host = scene.serve(&jobs()).await;
        let store = scene.open_store().await;
        let mut hostile = Vec::new();
        for (what, amount) in
            [("turns", u64::MAX >> 1), ("sleep", 600_000), ("lines", u64::MAX >> 1), ("printed", u64::MAX >> 1)]
        {
            let args = json!({"what": what, "amount": amount});
            hostile.push((what, scene.enqueue(&store, "exhaust", &args).await));
        }
        for (_, id) in &hostile {
            scene.wait_for(&store, *id, &[State::Running]).await;
        }
        for number in 0..5 {
            let good = scene.enqueue(&store, "echo", &json!(number)).await;
            assert_eq!(scene.wait_for_end(&store, good).await.state, State::Succeeded);
        }
        for (what, id) in hostile {
            let record = scene.wait_for_end(&store, id).await;
            let error = record.error.unwrap_or_else(|| panic!("{what} did not fail: {:?}", record.state));
            assert_eq!(error.kind, FailureKind::Timeout, "{what}: {}", error.message);
            assert!(error.message.contains("after its time-out of 3s: it was "), "{what}: {}", error.message);
            if matches!(what, "lines" | "printed") {
                let document = scene.innkeeper_json(&["execution", "logs", &id.to_string()]);
                let lines = document["logs"].as_array().unwrap_or_else(|| panic!("{document}"));
                assert!((6..=7).contains(&lines.len()), "{what}: {}", lines.len());
                let last = lines.last().and_then(|line| line["message"].as_str()).unwrap_or_default();
                assert!(last.contains("more lines ") && last.contains("`limits.log_lines`"), "{what}: {last}");
            }
        }
        host.stop().await;
    }

    async fn what_is_printed_is_in_the_log_while_the_handler_still_runs(engine: Engine) {
        let scene = Scene::new(engine).await;
        let host = scene.serve(&jobs()).await;
        let store = scene.open_store().await;
        let args = json!({"what": "printed", "amount": u64::MAX >> 1});
        let id = scene.enqueue(&store, "last", &args).await;
        innkeeper_tests::host::until("its first lines are in the log", async || {
            let document = scene.innkeeper_json(&["execution", "logs", &id.to_string()]);
            let first = document["logs"][0]["message"].clone();
            (first == "line 0").then_some(())
        })
        .await;
        scene.wait_for(&store, id, &[State::Running]).await;
        scene.innkeeper(&["execution", "cancel", &id.to_string()]);
        scene.wait_for(&store, id, &[State::Cancelled]).await;
        host.stop().await;
    }
}
