//! What `innkeeper check` warns of, and what it says of the store.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, binary, guest};
use innkeeper_tests::login::Login;
use innkeeper_tests::on_both_engines;
use serde_json::{Value, json};

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// A file with the probe as its plugin, and `rest` from line 3 on.
fn check(rest: &str, args: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let text = format!("[plugins.probe]\ncomponent = {:?}\n{rest}", guest("probe"));
    std::fs::write(dir.path().join("innkeeper.toml"), &text).expect("it can be written");
    check_in(dir.path(), args)
}

fn check_in(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.current_dir(dir).arg("check").args(args).stdin(Stdio::null()).output().expect("it starts")
}

fn job(name: &str, keys: &str) -> String {
    format!("[jobs.{name}]\nplugin = \"probe\"\nhandler = \"echo\"\n{keys}\n")
}

#[test]
fn warnings_name_their_place_and_leave_the_exit_code_alone() {
    let jobs: String =
        (0..6).map(|n| job(&format!("j{n}"), "schedule = { cron = \"30 2 * * *\" }")).collect();
    let text = format!("[host]\nconcurrency = 3\n[queues.slow]\nlimit_per_host = 4\n{jobs}");
    let output = check(&text, &[]);
    let told = told(&output);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("warning: innkeeper.toml:5:9: queue `slow`"), "{told}");
    assert!(told.contains("warning: innkeeper.toml:10:1: 6 jobs fire at the same instant"), "{told}");
    assert!(told.ends_with("innkeeper.toml is in order: 1 plugin, 6 jobs.\n"), "{told}");

    let output = check(&text, &["--json", "--offline"]);
    let document: Value = serde_json::from_slice(&output.stdout).expect("it is one document");
    assert_eq!(document["ok"], json!(true));
    let lines: Vec<_> = document["warnings"].as_array().unwrap().iter().map(|one| &one["line"]).collect();
    assert_eq!(lines, [&json!(5), &json!(10)], "{document}");
    assert_eq!(document.get("difference"), None, "nobody asked for it");
}

#[test]
fn a_clock_change_is_forecast_for_the_year_to_come() {
    let text = job("nightly", "schedule = { cron = \"30 2 * * *\", timezone = \"Europe/Berlin\" }");
    let output = check(&text, &["--offline"]);
    let told = told(&output);
    assert!(output.status.success(), "{told}");
    assert!(
        told.contains("warning: innkeeper.toml:6:1: job `nightly`: on 2") && told.contains("gap = "),
        "{told}"
    );
}

#[test]
fn a_store_that_is_not_there_yet_would_get_every_job() {
    let output = check(&job("a", ""), &["--against-store"]);
    let told = told(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("+ a: the store does not have it"), "{told}");
    let output = check("", &["--against-store"]);
    assert!(output.status.success(), "{output:?}");
    let output = check("", &["--against-store", "--offline"]);
    assert_eq!(output.status.code(), Some(2), "the two contradict each other");
}

/// With a login of the plugin's own: `check` refuses that of the store.
async fn scene(engine: Engine) -> (Scene, Option<Login>) {
    let scene = Scene::new(engine).await;
    if engine == Engine::Sqlite {
        return (scene, None);
    }
    let login = Login::new().await;
    let grant = format!("url = {:?}", login.at(scene.app.url()));
    (scene.with("grant", &grant), Some(login))
}

on_both_engines! {
    async fn the_file_and_the_store_are_compared_and_nothing_is_changed(engine: Engine) {
        let (scene, _login) = scene(engine).await;
        let jobs = job("same", "") + &job("changed", "timeout = \"10s\"") + &job("left", "") + "[queues.fast]\nlimit = 5\n";
        let host = scene.serve(&jobs).await;
        let output = scene.innkeeper(&["check", "--against-store"]);
        assert!(output.status.success(), "{}", told(&output));
        assert!(told(&output).contains("The store has the same jobs and queues."), "{}", told(&output));
        host.stop().await;

        let theirs = job("theirs", "") + &job("shared", "");
        scene.serve_as("inn-2", &theirs).await.stop().await;
        let keys = "timeout = \"20s\"\npriority = 5\nconcurrency = { limit = 1 }";
        scene.configure("inn-1", &(job("same", "") + &job("changed", keys) + &job("new", "") + &job("shared", "") + "[queues.slow]\nweight = 2\n"));
        for _ in 0..2 {
            let output = scene.innkeeper(&["check", "--against-store", "--json"]);
            assert_eq!(output.status.code(), Some(1), "{}", told(&output));
            let document: Value = serde_json::from_slice(&output.stdout).expect("it is one document");
            assert_eq!(
                document["difference"],
                json!({
                    "added": ["new"],
                    "changed": [
                        { "name": "changed", "owner": null, "keys": [
                            { "key": "concurrency", "store": null, "file": { "limit": 1 } },
                            { "key": "priority", "store": null, "file": 5 },
                            { "key": "timeout", "store": "10s", "file": "20s" },
                        ] },
                        { "name": "shared", "owner": "inn-2", "keys": [] },
                    ],
                    "retired": ["left"],
                    "queues": { "added": ["slow"], "changed": [], "reset": ["fast"] },
                })
            );
        }
        let output = scene.innkeeper(&["check", "--against-store"]);
        let told = told(&output);
        assert_eq!(output.status.code(), Some(1), "{told}");
        for line in [
            "+ new: the store does not have it, and it would be added",
            "~ changed: it would be changed",
            "    timeout: \"10s\" in the store, \"20s\" in the file",
            "~ shared: it is defined by `inn-2`, and would be taken over",
            "+ queue slow: the store does not have it, and it would be added",
            "- queue fast: the file does not name it, and it would go back to the defaults",
            "- left: the file does not name it, and it would be retired",
        ] {
            assert!(told.contains(line), "{line} is not in {told}");
        }
        assert!(!told.contains("theirs"), "what another host owns is its own: {told}");
    }

    async fn a_job_that_fires_more_often_than_it_takes_is_known_by_its_history(engine: Engine) {
        let (scene, _login) = scene(engine).await;
        let sleep = "[jobs.slow]\nplugin = \"probe\"\nhandler = \"sleep\"\nargs = { ms = 300 }\n";
        let host = scene.serve(sleep).await;
        let store = scene.open_store().await;
        for _ in 0..3 {
            let id = scene.enqueue(&store, "slow", &json!({ "ms": 300 })).await;
            scene.wait_for_end(&store, id).await;
        }
        host.stop().await;
        scene.configure("inn-1", &format!("{sleep}schedule = {{ every = \"100ms\" }}\n"));
        let output = scene.innkeeper(&["check"]);
        let told = told(&output);
        assert!(output.status.success(), "{told}");
        assert!(told.contains("job `slow` fires about every 100ms and takes ") && told.contains("last 3 successes"), "{told}");
        let output = scene.innkeeper(&["check", "--offline"]);
        assert!(!self::told(&output).contains("slow"), "it asks nobody: {}", self::told(&output));
    }
}
