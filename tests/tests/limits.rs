//! Limits, queues and what follows, with the real binary: that hosts look when there is reason to, and
//! nobody waits for somebody who has ended.

use innkeeper::execution::State;
use innkeeper::store::Store;
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, guest, until};
use innkeeper_tests::on_both_engines;
use innkeeper_tests::raw::{Raw, make_gate, open_gate};
use serde_json::json;
use uuid::Uuid;

const JOBS: &str = r#"
[queues.few]
limit_per_host = 2

[queues.two]
limit = 2

[jobs.one]
plugin = "probe"
handler = "hold"
args = { gate = "main" }
timeout = "5m"
concurrency = { limit = 1 }

[jobs.customer]
plugin = "probe"
handler = "hold"
args = { gate = "main" }
timeout = "5m"
concurrency = { key = "/gate", limit_per_key = 1 }

[jobs.skips]
plugin = "probe"
handler = "hold"
args = { gate = "main" }
timeout = "5m"
concurrency = { limit = 1, when_full = "skip" }

[jobs.replaces]
plugin = "probe"
handler = "cancelled"
timeout = "5m"
concurrency = { limit = 1, when_full = "replace" }
retry = { max_attempts = 1 }

[jobs.few]
plugin = "probe"
handler = "hold"
args = { gate = "main" }
timeout = "5m"
queue = "few"

[jobs.two]
plugin = "probe"
handler = "hold"
args = { gate = "main" }
timeout = "5m"
queue = "two"

[jobs.echo]
plugin = "probe"
handler = "echo"

[jobs.after-echo]
plugin = "probe"
handler = "echo"
after = ["echo"]

[jobs.fails]
plugin = "probe"
handler = "fail"
args = { kind = "permanent", message = "no such customer" }
on_failure = "tell"

[jobs.tell]
plugin = "probe"
handler = "echo"
"#;

/// So many executions that hold until a gate is opened.
async fn hold(scene: &Scene, store: &Store, job: &str, count: usize) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(scene.enqueue(store, job, &json!({ "gate": "main" })).await);
    }
    ids
}

async fn states(store: &Store, ids: &[Uuid]) -> Vec<State> {
    let mut states = Vec::new();
    for id in ids {
        states.push(store.execution(*id).await.expect("the store answers").expect("it is there").state);
    }
    states
}

fn running(states: &[State]) -> usize {
    states.iter().filter(|state| **state == State::Running).count()
}

/// Waits until so many run, and then until the hosts have looked for more: what was asked for after
/// them has run meanwhile.
async fn until_running(scene: &Scene, store: &Store, ids: &[Uuid], count: usize) {
    let what = format!("{count} of {} run", ids.len());
    until(&what, async || (running(&states(store, ids).await) == count).then_some(())).await;
    for number in 0..3 {
        let id = scene.enqueue(store, "echo", &json!(number)).await;
        assert_eq!(scene.wait_for_end(store, id).await.state, State::Succeeded);
    }
    assert_eq!(running(&states(store, ids).await), count);
}

/// As many hosts as the engine allows for.
async fn hosts(scene: &Scene, engine: Engine) -> Vec<innkeeper_tests::host::TestHost> {
    let mut hosts = vec![scene.serve_as("inn-1", JOBS).await];
    if engine == Engine::Postgres {
        hosts.push(scene.serve_as("inn-2", JOBS).await);
    }
    hosts
}

async fn all_succeed(scene: &Scene, store: &Store, ids: &[Uuid]) {
    for id in ids {
        assert_eq!(scene.wait_for_end(store, *id).await.state, State::Succeeded);
    }
}

/// Plugin `probe` runs one execution at a time on each host; `neighbour` is the same without a limit.
fn neighbours() -> String {
    format!(
        r#"
[plugins.neighbour]
component = {:?}

[jobs.slow]
plugin = "probe"
handler = "hold"
args = {{ gate = "main" }}
timeout = "5m"

[jobs.also-slow]
plugin = "probe"
handler = "hold"
args = {{ gate = "main" }}
timeout = "5m"

[jobs.echo]
plugin = "neighbour"
handler = "echo"
"#,
        guest("probe")
    )
}

on_both_engines! {
    async fn a_plugin_runs_no_more_often_at_once_on_a_host_than_its_limit_and_its_neighbour_goes_on(engine: Engine) {
        let scene = Scene::new(engine)
            .await
            .with("host", "concurrency = 2\nsession_timeout = \"3s\"")
            .with("plugins.probe", "limits = { concurrency = 1 }");
        let mut app = Raw::connect(scene.app.url()).await;
        make_gate(&mut app).await;
        let mut hosts = vec![scene.serve_as("inn-1", &neighbours()).await];
        let store = scene.open_store().await;
        let mut ids = hold(&scene, &store, "slow", 3).await;
        ids.extend(hold(&scene, &store, "also-slow", 3).await);
        // The neighbour's go through the one slot that is left, past all that waits.
        until_running(&scene, &store, &ids, 1).await;
        let document = scene.innkeeper_json(&["job", "explain", "also-slow"]);
        let fact = &document["now"][0];
        assert_eq!((&fact["about"], &fact["ready"]), (&json!("plugin_limit"), &json!(3)), "{document}");
        let text = fact["text"].as_str().unwrap_or_default();
        assert!(text.contains("plugin `probe` runs no more than 1 at once on each host"), "{text}");
        assert!(text.contains("so many run: `inn-1` (1)"), "{text}");
        if engine == Engine::Postgres {
            hosts.push(scene.serve_as("inn-2", &neighbours()).await);
            until_running(&scene, &store, &ids, 2).await;
        }
        let first = store.execution(ids[0]).await.unwrap().expect("it is there");
        assert_eq!(first.state, State::Running, "what has been due longest is first");
        open_gate(&mut app, "main").await;
        all_succeed(&scene, &store, &ids).await;
        drop(hosts);
    }

    async fn what_a_full_plugin_leaves_waiting_starts_as_soon_as_one_has_ended(engine: Engine) {
        let scene = Scene::new(engine).await.with("plugins.probe", "limits = { concurrency = 1 }");
        let jobs = "[jobs.echo]\nplugin = \"probe\"\nhandler = \"echo\"";
        let host = scene.serve(jobs).await;
        let store = scene.open_store().await;
        let mut ids = Vec::new();
        for number in 0..300 {
            ids.push(scene.enqueue(&store, "echo", &json!(number)).await);
        }
        // One by one, found four times in a second, these would take longer than the last is waited for.
        ids.reverse();
        all_succeed(&scene, &store, &ids).await;
        host.stop().await;
    }

    async fn a_job_runs_no_more_often_at_once_than_its_limit_on_all_hosts_together(engine: Engine) {
        let scene = Scene::new(engine).await;
        let mut app = Raw::connect(scene.app.url()).await;
        make_gate(&mut app).await;
        let hosts = hosts(&scene, engine).await;
        let store = scene.open_store().await;
        let ids = hold(&scene, &store, "one", 3).await;
        until_running(&scene, &store, &ids, 1).await;
        open_gate(&mut app, "main").await;
        all_succeed(&scene, &store, &ids).await;
        drop(hosts);
    }

    async fn each_key_of_a_job_has_a_limit_of_its_own_and_the_next_one_goes_on_by_itself(engine: Engine) {
        let scene = Scene::new(engine).await;
        let mut app = Raw::connect(scene.app.url()).await;
        make_gate(&mut app).await;
        let hosts = hosts(&scene, engine).await;
        let store = scene.open_store().await;
        let mut ids = hold(&scene, &store, "customer", 3).await;
        until_running(&scene, &store, &ids, 1).await;
        ids.push(scene.enqueue(&store, "customer", &json!({ "gate": "other" })).await);
        until_running(&scene, &store, &ids, 2).await;
        open_gate(&mut app, "main").await;
        all_succeed(&scene, &store, &ids[..3]).await;
        open_gate(&mut app, "other").await;
        all_succeed(&scene, &store, &ids[3..]).await;
        drop(hosts);
    }

    async fn what_finds_the_limit_reached_is_skipped_or_replaces_what_runs(engine: Engine) {
        let scene = Scene::new(engine).await;
        let mut app = Raw::connect(scene.app.url()).await;
        make_gate(&mut app).await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let first = hold(&scene, &store, "skips", 1).await;
        until_running(&scene, &store, &first, 1).await;
        let second = hold(&scene, &store, "skips", 1).await;
        let record = scene.wait_for(&store, second[0], &[State::Skipped]).await;
        let why = record.error.expect("it has a reason").message;
        assert!(why.contains(&first[0].to_string()), "{why}");
        open_gate(&mut app, "main").await;
        all_succeed(&scene, &store, &first).await;

        let first = scene.enqueue(&store, "replaces", &json!({})).await;
        scene.wait_for(&store, first, &[State::Running]).await;
        let second = scene.enqueue(&store, "replaces", &json!({})).await;
        // This handler returns once it is told: its work is done, and counts.
        scene.wait_for(&store, first, &[State::Succeeded]).await;
        scene.wait_for(&store, second, &[State::Running]).await;
        host.kill();
    }

    async fn a_queue_keeps_its_limits_on_one_host_and_on_all_of_them(engine: Engine) {
        let scene = Scene::new(engine).await;
        let mut app = Raw::connect(scene.app.url()).await;
        make_gate(&mut app).await;
        let hosts = hosts(&scene, engine).await;
        let store = scene.open_store().await;
        let few = hold(&scene, &store, "few", 6).await;
        until_running(&scene, &store, &few, 2 * hosts.len()).await;
        let two = hold(&scene, &store, "two", 4).await;
        until_running(&scene, &store, &two, 2).await;
        open_gate(&mut app, "main").await;
        all_succeed(&scene, &store, &few).await;
        all_succeed(&scene, &store, &two).await;
        drop(hosts);
    }

    async fn nothing_of_a_paused_queue_or_job_starts_until_it_is_resumed(engine: Engine) {
        let scene = Scene::new(engine).await;
        let mut app = Raw::connect(scene.app.url()).await;
        make_gate(&mut app).await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        scene.innkeeper_json(&["queue", "pause", "two", "--reason", "the disk is full"]);
        scene.innkeeper_json(&["job", "pause", "one"]);
        let ids = [hold(&scene, &store, "two", 1).await, hold(&scene, &store, "one", 1).await].concat();
        until_running(&scene, &store, &ids, 0).await;
        scene.innkeeper_json(&["queue", "resume", "two"]);
        scene.innkeeper_json(&["job", "resume", "one"]);
        until_running(&scene, &store, &ids, 2).await;
        open_gate(&mut app, "main").await;
        all_succeed(&scene, &store, &ids).await;
        host.stop().await;
    }

    async fn a_success_and_a_final_failure_run_the_jobs_that_follow(engine: Engine) {
        let scene = Scene::new(engine).await;
        let hosts = hosts(&scene, engine).await;
        let store = scene.open_store().await;
        scene.enqueue(&store, "echo", &json!({ "customer": 7 })).await;
        scene.enqueue(&store, "fails", &json!({ "kind": "permanent", "message": "no such customer" })).await;
        for (job, key) in [("after-echo", "after"), ("tell", "failed")] {
            let listed = ["execution", "list", "--job", job, "--state", "succeeded"];
            let id = until(&format!("{job} has run"), async || {
                scene.innkeeper_json(&listed)["executions"][0]["id"].as_str().map(ToOwned::to_owned)
            })
            .await;
            let shown = scene.innkeeper_json(&["execution", "show", &id]);
            assert!(shown["args"][key].is_object(), "{shown}");
            assert_eq!(shown["triggered_by"], "dependency");
        }
        drop(hosts);
    }
}
