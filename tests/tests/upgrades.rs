//! Neighbouring versions of innkeeper on one store, with the real binary as one of them.

use innkeeper::execution::State;
use innkeeper::store::{Migration, Store, StoreError};
use innkeeper_tests::database::{Engine, TestDatabase};
use innkeeper_tests::host::{Scene, TestHost, until};
use innkeeper_tests::on_both_engines;
use innkeeper_tests::raw::{Raw, make_gate, open_gate};
use innkeeper_tests::versions::{newest, next_version, version_before_the_last_break};
use serde_json::json;

const JOBS: &str = r#"
[jobs.hold]
plugin = "probe"
handler = "hold"
args = { gate = "main" }
timeout = "5m"

[jobs.tick]
plugin = "probe"
handler = "echo"
schedule = { every = "1s" }
"#;

fn told(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// The store as another version sees it.
async fn as_seen_by(scene: &Scene, migrations: &'static [Migration]) -> Store {
    scene.open_store().await.with_migrations(migrations)
}

/// `innkeeper check`, without the database of the plugin, whose login it has opinions on.
fn check(scene: &Scene) -> std::process::Output {
    let config = scene.configure("inn-1", JOBS);
    let text = std::fs::read_to_string(&config).expect("it is there");
    let (ours, grant) = text.split_once("[[plugins.probe.databases]]").expect("it has one");
    let (_, jobs) = grant.split_once("[jobs").expect("it has jobs");
    std::fs::write(&config, format!("{ours}[jobs{jobs}")).expect("it can be written");
    scene.innkeeper(&["check"])
}

/// Waits until a schedule has fired once more, and the host has run what became of it.
async fn wait_for_a_fire(scene: &Scene) {
    let succeeded = || {
        let list = ["execution", "list", "--job", "tick", "--state", "succeeded", "--limit", "1"];
        scene.innkeeper_json(&list)["executions"][0]["id"].as_str().map(ToOwned::to_owned)
    };
    let before = succeeded();
    until("the schedule fires", async || (succeeded() > before).then_some(())).await;
}

on_both_engines! {
    async fn a_host_works_on_while_the_next_version_migrates_and_another_starts_on_the_newer_schema(engine: Engine) {
        let scene = Scene::new(engine).await;
        let mut app = Raw::connect(scene.app.url()).await;
        make_gate(&mut app).await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let before = scene.run("hold", &json!({"gate": "main"}));
        scene.wait_for(&store, before, &[State::Running]).await;

        let next = as_seen_by(&scene, next_version(engine, None)).await;
        assert_eq!(next.migrate().await.expect("the host does not stand in the way").applied.len(), 1);
        open_gate(&mut app, "main").await;
        let after = scene.run("hold", &json!({"gate": "main"}));
        for id in [before, after] {
            let record = scene.wait_for_end(&store, id).await;
            assert_eq!((record.state, record.attempt), (State::Succeeded, 1));
        }
        wait_for_a_fire(&scene).await;

        let second = scene.serve_as("inn-2", JOBS).await;
        let log = host.stop().await;
        assert!(!log.contains("ERROR"), "{log}");
        let id = scene.run("hold", &json!({"gate": "main"}));
        let record = scene.wait_for_end(&store, id).await;
        assert_eq!((record.state, record.host.as_deref()), (State::Succeeded, Some("inn-2")));
        wait_for_a_fire(&scene).await;
        for command in [&["migrate"][..], &["job", "list"], &["host", "list", "--all"]] {
            let output = scene.innkeeper(command);
            assert!(output.status.success(), "{command:?}: {}", told(&output));
        }
        let checked = check(&scene);
        assert!(checked.status.success(), "{}", told(&checked));
        let log = second.stop().await;
        assert!(!log.contains("ERROR") && !log.contains("brought up to date"), "{log}");
    }

    async fn a_store_that_declares_this_binary_too_old_is_refused_by_everything(engine: Engine) {
        let scene = Scene::new(engine).await;
        let declared = newest(engine) + 1;
        let next = as_seen_by(&scene, next_version(engine, Some(declared))).await;
        next.migrate().await.expect("there is no host");
        scene.configure("inn-1", JOBS);
        let commands: [&[&str]; 6] = [
            &["serve"],
            &["serve", "--no-migrate"],
            &["migrate"],
            &["job", "list"],
            &["job", "run", "hold"],
            &["host", "list"],
        ];
        let outputs = commands.map(|command| (command, scene.innkeeper(command)));
        let checked: (&[&str], _) = (&["check"], check(&scene));
        for (command, output) in outputs.into_iter().chain([checked]) {
            let text = told(&output);
            assert_eq!(output.status.code(), Some(3), "{command:?}: {text}");
            let known = format!("which knows migrations up to {}", newest(engine));
            for part in [&known, &format!("needs a binary that knows migration {declared}"), "install innkeeper"] {
                assert!(text.contains(part), "{command:?} does not say {part:?}: {text}");
            }
        }
    }

    async fn a_migration_that_would_leave_a_live_host_behind_waits_for_its_drain(engine: Engine) {
        let scene = Scene::new(engine).await;
        let host = scene.serve(JOBS).await;
        let next = as_seen_by(&scene, next_version(engine, Some(newest(engine) + 1))).await;
        let error = next.migrate().await.expect_err("the host could not go on");
        assert!(matches!(error, StoreError::HostsTooOld { .. }), "{error:?}");
        assert!(error.to_string().contains("host `inn-1` (session 1)"), "{error}");
        wait_for_a_fire(&scene).await;
        scene.innkeeper_json(&["host", "drain", "inn-1", "--wait"]);
        assert!(host.wait().await.0.success());
        assert_eq!(next.migrate().await.expect("nobody is in the way").applied.len(), 1);
        let (status, log) = TestHost::start(&scene.configure("inn-1", JOBS)).wait().await;
        assert_eq!(status.code(), Some(3), "{log}");
    }

    async fn an_older_schema_is_refused_where_it_may_not_be_migrated_and_else_migrated_once_its_hosts_have_gone(engine: Engine) {
        let mut scene = Scene::new(engine).await;
        scene.store = TestDatabase::empty(engine).await;
        let before = as_seen_by(&scene, version_before_the_last_break(engine)).await;
        before.migrate().await.expect("it is empty");
        before.close().await;
        // A host as the version before registers it, and far from its end.
        let (table, boot, now, later) = match engine {
            Engine::Postgres => ("innkeeper.host_session", "gen_random_uuid()", "now()", "now() + interval '1 h'"),
            Engine::Sqlite => ("host_session", "randomblob(16)", "0", "9000000000000000"),
        };
        let mut raw = Raw::connect(scene.store.url()).await;
        raw.execute(&format!(
            "insert into {table} (host, boot_id, version, started_at, expires_at, lease_floor)
             values ('old', {boot}, '0.0.9', {now}, {later}, 0)"
        ))
        .await;
        scene.configure("inn-1", JOBS);
        for command in [&["serve", "--no-migrate"][..], &["job", "list"]] {
            let output = scene.innkeeper(command);
            let text = told(&output);
            assert_eq!(output.status.code(), Some(3), "{command:?}: {text}");
            let needed = format!("needs migration {}: run `innkeeper migrate`", newest(engine));
            assert!(text.contains(&needed), "{command:?}: {text}");
        }
        let checked = check(&scene);
        assert!(checked.status.success(), "serve brings it up to date: {}", told(&checked));

        // It knows nothing of limits: beside a host that keeps them, it would exceed them.
        let (status, log) = TestHost::start(&scene.configure("inn-1", JOBS)).wait().await;
        assert_eq!(status.code(), Some(3), "{log}");
        assert!(log.contains("host `old` (session 1)"), "{log}");
        raw.execute(&format!("update {table} set dead_at = expires_at")).await;
        let host = scene.serve(JOBS).await;
        assert!(host.log().contains("brought up to date"), "{}", host.log());
        wait_for_a_fire(&scene).await;
        host.stop().await;
    }
}

/// On PostgreSQL only: on SQLite a process that is stopped in the middle of a write keeps the file.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_slept_through_such_a_migration_starts_nothing_more_and_says_why() {
    let scene = Scene::new(Engine::Postgres).await;
    let host = scene.serve(JOBS).await;
    host.signal(libc::SIGSTOP);
    let declared = newest(Engine::Postgres) + 1;
    let next = as_seen_by(&scene, next_version(Engine::Postgres, Some(declared))).await;
    until("the host is not waited for", async || match next.migrate().await {
        Ok(migrated) => Some(migrated),
        Err(StoreError::HostsTooOld { .. }) => None,
        Err(error) => panic!("{error:?}"),
    })
    .await;
    host.signal(libc::SIGCONT);
    host.wait_for_log(&format!("needs a binary that knows migration {declared}")).await;
    let id = scene.enqueue(&next, "hold", &json!({"gate": "main"})).await;
    host.stop().await;
    let record = next.execution(id).await.expect("the store answers").expect("it is there");
    assert_eq!((record.state, record.attempt), (State::Queued, 0));
}
