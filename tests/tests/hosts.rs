//! What operators do with hosts: look at them, have them drain, and copy their store, with the
//! real binary.

use innkeeper::database_url::DatabaseUrl;
use innkeeper::execution::State;
use innkeeper::store::{Store, StoreOptions};
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, TestHost, until};
use innkeeper_tests::on_both_engines;
use innkeeper_tests::raw::{Raw, make_gate, open_gate};
use serde_json::{Value, json};

const JOBS: &str = r#"
[jobs.hold]
plugin = "probe"
handler = "hold"
args = { gate = "main" }
timeout = "5m"

[jobs.polite]
plugin = "probe"
handler = "cancelled"

[jobs.stubborn]
plugin = "probe"
handler = "spin"
timeout = "5m"
"#;

fn told(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

on_both_engines! {
    async fn the_list_shows_which_host_runs_what(engine: Engine) {
        let scene = Scene::new(engine).await;
        let mut app = Raw::connect(scene.app.url()).await;
        make_gate(&mut app).await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let mut ids = Vec::new();
        for _ in 0..7 {
            let id = scene.run("hold", &json!({"gate": "main"}));
            ids.push(scene.wait_for(&store, id, &[State::Running]).await.id.to_string());
        }
        let document = scene.innkeeper_json(&["host", "list"]);
        let [shown] = &document["hosts"].as_array().expect("a list")[..] else { panic!("{document}") };
        assert_eq!((&shown["host"], &shown["state"]), (&json!("inn-1"), &json!("active")));
        assert_eq!(shown["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!((&shown["slots"], &shown["running"]), (&json!(40), &json!(7)));
        let listed = shown["executions"].as_array().expect("a list");
        let listed_ids = listed.iter().map(|one| one["id"].as_str().expect("an id")).collect::<Vec<_>>();
        assert_eq!(listed_ids, ids);
        assert_eq!((&listed[0]["job"], &listed[0]["attempt"]), (&json!("hold"), &json!(1)));
        let time = |name: &str| shown[name].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        assert!(time("started_at").unwrap() <= time("heartbeat_at").unwrap());
        assert!(time("heartbeat_at").unwrap() < time("expires_at").unwrap());

        assert!(shown["heartbeat_age_seconds"].as_f64().is_some_and(|age| age < 3.0), "{shown}");

        let text = told(&scene.innkeeper(&["host", "list"]));
        for part in ["inn-1", "active", "7/40", "s ago", &ids[0], "hold", "and 2 more"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains(&ids[6]), "a few are enough for a person:\n{text}");

        open_gate(&mut app, "main").await;
        host.stop().await;
        assert_eq!(scene.innkeeper_json(&["host", "list"]), json!({"hosts": []}));
        let ended = scene.innkeeper_json(&["host", "list", "--all"]);
        assert_eq!((&ended["hosts"][0]["state"], &ended["hosts"][0]["running"]), (&json!("ended"), &json!(0)));
        assert!(told(&scene.innkeeper(&["host", "list"])).contains("no live hosts"));
    }

    async fn a_drain_ends_the_host_as_sigterm_does(engine: Engine) {
        let scene = Scene::new(engine).await.with("host", "drain_timeout = \"1s\"\nsession_timeout = \"3s\"");
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let polite = scene.run("polite", &Value::Null);
        let stubborn = scene.run("stubborn", &Value::Null);
        for id in [polite, stubborn] {
            scene.wait_for(&store, id, &[State::Running]).await;
        }
        let document = scene.innkeeper_json(&["host", "drain", "inn-1", "--wait"]);
        assert_eq!(document["sessions"][0]["state"], "ended", "{document}");
        let (status, log) = host.wait().await;
        assert!(status.success() && log.contains("asked to drain"), "{status}\n{log}");
        let record = store.execution(polite).await.unwrap().expect("it is there");
        assert_eq!((record.state, record.result), (State::Succeeded, Some(json!({"cancelled": true}))));
        let record = store.execution(stubborn).await.unwrap().expect("it is there");
        assert_eq!((record.state, record.attempt), (State::Queued, 0), "a drain costs no attempt");

        let again = scene.innkeeper(&["host", "drain", "inn-1"]);
        assert_eq!(again.status.code(), Some(2));
        assert!(told(&again).contains("its last one ended at"), "{}", told(&again));
    }

    async fn a_host_that_drains_is_shown_to_and_what_has_ended_well_is_not_given_back(engine: Engine) {
        let scene = Scene::new(engine).await;
        let mut app = Raw::connect(scene.app.url()).await;
        make_gate(&mut app).await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let id = scene.run("hold", &json!({"gate": "main"}));
        scene.wait_for(&store, id, &[State::Running]).await;
        let output = scene.innkeeper(&["host", "drain", "inn-1"]);
        assert!(output.status.success(), "{}", told(&output));
        assert!(told(&output).contains("it runs 1 execution"), "{}", told(&output));
        host.wait_for_log("draining").await;
        until("it says that it drains", async || {
            let shown = scene.innkeeper_json(&["host", "list"]);
            let shown = &shown["hosts"][0];
            (shown["state"] == "draining" && !shown["draining_at"].is_null()).then_some(())
        })
        .await;
        let later = scene.enqueue(&store, "hold", &json!({"gate": "main"})).await;
        open_gate(&mut app, "main").await;
        let (status, log) = host.wait().await;
        assert!(status.success(), "{status}\n{log}");
        let record = store.execution(id).await.unwrap().expect("it is there");
        assert_eq!((record.state, record.attempt), (State::Succeeded, 1));
        let record = store.execution(later).await.unwrap().expect("it is there");
        assert_eq!((record.state, record.attempt), (State::Queued, 0), "nothing new was started");
    }

    async fn a_host_that_dies_while_it_is_to_drain_is_no_drain(engine: Engine) {
        let scene = Scene::new(engine).await;
        let mut app = Raw::connect(scene.app.url()).await;
        make_gate(&mut app).await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let id = scene.run("hold", &json!({"gate": "main"}));
        scene.wait_for(&store, id, &[State::Running]).await;
        host.signal(libc::SIGSTOP);
        assert!(scene.innkeeper(&["host", "drain", "inn-1"]).status.success());
        host.kill();
        until("its session has expired", async || {
            (scene.innkeeper_json(&["host", "list"])["hosts"][0]["state"] == "expired").then_some(())
        })
        .await;
        let again = scene.innkeeper(&["host", "drain", "inn-1"]);
        assert_eq!(again.status.code(), Some(2));
        assert!(told(&again).contains("expired at"), "{}", told(&again));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_live_session_of_the_name_is_drained_and_no_other_host() {
    let scene = Scene::new(Engine::Postgres).await;
    let one = scene.serve_as("inn-1", JOBS).await;
    let twin = scene.serve_as("inn-1", JOBS).await;
    let other = scene.serve_as("inn-2", JOBS).await;
    let document = scene.innkeeper_json(&["host", "drain", "inn-1", "--wait"]);
    assert_eq!(document["sessions"].as_array().map(Vec::len), Some(2), "{document}");
    for host in [one, twin] {
        assert!(host.wait().await.0.success());
    }
    let left = scene.innkeeper_json(&["host", "list"]);
    let left = left["hosts"].as_array().expect("a list");
    assert_eq!(left.iter().map(|host| &host["host"]).collect::<Vec<_>>(), [&json!("inn-2")]);

    let unknown = scene.innkeeper(&["host", "drain", "inn-22"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(
        told(&unknown).contains("there is no host `inn-22`; did you mean `inn-2`?"),
        "{}",
        told(&unknown)
    );
    let unknown = scene.innkeeper(&["host", "drain", "tavern"]);
    assert!(told(&unknown).contains("there are `inn-2`"), "{}", told(&unknown));
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_store_that_was_made_while_executions_ran_is_served_from() {
    let scene = Scene::new(Engine::Sqlite).await;
    let mut app = Raw::connect(scene.app.url()).await;
    make_gate(&mut app).await;
    let host = scene.serve(JOBS).await;
    let store = scene.open_store().await;
    let running = scene.run("hold", &json!({"gate": "main"}));
    scene.wait_for(&store, running, &[State::Running]).await;
    let done = scene.run("hold", &json!({"gate": "done"}));
    open_gate(&mut app, "done").await;
    scene.wait_for_end(&store, done).await;

    let copy = scene.dir().join("copy.db");
    let name = copy.to_str().expect("UTF-8");
    let made = scene.innkeeper_json(&["store", "backup", name]);
    assert_eq!(made["bytes"], copy.metadata().expect("it is there").len());
    let again = scene.innkeeper(&["store", "backup", name]);
    assert_eq!(again.status.code(), Some(2));
    assert!(told(&again).contains("--force"), "{}", told(&again));
    open_gate(&mut app, "main").await;
    scene.wait_for_end(&store, running).await;
    host.stop().await;

    let config = scene.configure("inn-2", JOBS);
    let text = std::fs::read_to_string(&config).expect("it is there");
    let served = text.replace(&scene.store.address(), &format!("sqlite:{name}"));
    assert_ne!(served, text);
    std::fs::write(&config, served).expect("it can be written");
    let host = TestHost::start(&config);
    host.wait_for_log("serving").await;
    let url = DatabaseUrl::Sqlite(copy);
    let copied = Store::connect(&url, &StoreOptions::default()).await.expect("it is a store");
    let record = scene.wait_for_end(&copied, running).await;
    assert_eq!(record.state, State::Succeeded);
    assert_eq!(record.attempt, 2, "the copy knows of a host that is not there any more");
    assert_eq!(scene.wait_for_end(&copied, done).await.attempt, 1);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgresql_a_backup_names_the_tool_for_it() {
    let scene = Scene::new(Engine::Postgres).await;
    scene.configure("inn-1", JOBS);
    let copy = scene.dir().join("copy.db");
    let output = scene.innkeeper(&["store", "backup", copy.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).contains("pg_dump --schema=innkeeper"), "{}", told(&output));
    assert!(!copy.exists());
}
