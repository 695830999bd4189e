//! What an operator types, and what they are told when it is wrong. No host is needed here
//! but where a test starts one.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use innkeeper_tests::database::{Engine, TestDatabase};
use innkeeper_tests::host::{Scene, binary, guest, until};
use innkeeper_tests::login::Login;
use innkeeper_tests::on_both_engines;
use innkeeper_tests::raw::{Raw, make_gate, open_gate};
use serde_json::{Value, json};

const JOBS: &str = r#"
[jobs.sleep]
plugin = "probe"
handler = "sleep"
args = { ms = 0 }

[jobs.fail]
plugin = "probe"
handler = "fail"
args = { kind = "permanent", message = "no such customer" }

[jobs.nightly]
plugin = "probe"
handler = "echo"
schedule = { cron = "30 2 * * *", timezone = "Europe/Berlin" }
"#;

fn innkeeper(dir: &Path, args: &[&str]) -> Output {
    Command::new(binary()).current_dir(dir).args(args).stdin(Stdio::null()).output().expect("it starts")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// A file with the probe as its plugin, and `rest`.
fn configuration(rest: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let text = format!("[plugins.probe]\ncomponent = {:?}\n{rest}", guest("probe"));
    std::fs::write(dir.path().join("innkeeper.toml"), &text).expect("it can be written");
    (dir, text)
}

#[test]
fn what_is_wrong_in_the_file_is_told_with_line_and_column() {
    let cases = [
        (
            "[jobs.a]\nplugin = \"probe\"\nhandler = \"ech\"\n",
            "innkeeper.toml:5:11: ",
            "has no handler `ech`; did you mean `echo`?",
        ),
        (
            "[jobs.a]\nplugin = \"probe\"\nhandler = \"sleep\"\nargs = { ms = \"long\" }\n",
            "innkeeper.toml:6:15: ",
            "\"long\" is not of type",
        ),
        (
            "[jobs.a]\nplugn = \"probe\"\nhandler = \"echo\"\n",
            "innkeeper.toml:4:1: ",
            "did you mean `plugin`?",
        ),
        (
            "[jobs.a]\nplugin = \"probe\"\nhandler = \"echo\"\nschedule = { cron = \"61 * * * *\" }\n",
            "innkeeper.toml:6:21: ",
            "is not a cron expression",
        ),
        ("[store]\nurl = \"${NOT_SET_ANYWHERE}\"\n", "innkeeper.toml:4:8: ", "NOT_SET_ANYWHERE"),
        (
            "[jobs.a]\nplugin = \"prob\"\nhandler = \"echo\"\n",
            "innkeeper.toml:4:10: ",
            "did you mean `probe`?",
        ),
    ];
    for (rest, place, what) in cases {
        let (dir, text) = configuration(rest);
        let output = innkeeper(dir.path(), &["check"]);
        let told = told(&output);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(place) && told.contains(what), "{place} {what} is not in {told}of\n{text}");
        let output = innkeeper(dir.path(), &["serve"]);
        assert_eq!(output.status.code(), Some(2), "serve refuses it as well: {}", self::told(&output));
    }
}

#[test]
fn a_file_that_is_no_plugin_is_told_apart_and_what_to_do() {
    let (dir, _) = configuration("");
    let core = wat::parse_str("(module)").expect("it is WAT");
    let empty = wat::parse_str("(component)").expect("it is WAT");
    for (name, bytes, what) in [
        ("text.wasm", b"hello".to_vec(), "no WebAssembly"),
        ("core.wasm", core, "core WebAssembly module"),
        (
            "empty.wasm",
            empty,
            "the component has no handlers: in Rust, list them in `innkeeper_sdk::plugin!(…)`",
        ),
        ("cut.wasm", std::fs::read(guest("probe")).expect("it is there")[..5_000].to_vec(), "not valid"),
    ] {
        std::fs::write(dir.path().join(name), bytes).expect("it can be written");
        let text = format!("[plugins.p]\ncomponent = \"{name}\"\n");
        std::fs::write(dir.path().join("innkeeper.toml"), text).expect("it can be written");
        let output = innkeeper(dir.path(), &["check"]);
        let told = told(&output);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("innkeeper.toml:2:13: ") && told.contains(what), "{told}");
    }
    std::fs::write(dir.path().join("innkeeper.toml"), "[plugins.p]\ncomponent = \"gone.wasm\"\n").unwrap();
    let told = told(&innkeeper(dir.path(), &["check"]));
    assert!(told.contains("there is no file") && told.contains("gone.wasm"), "{told}");
}

#[test]
fn init_writes_a_file_that_passes_check_and_never_overwrites_one() {
    let dir = tempfile::tempdir().unwrap();
    assert!(innkeeper(dir.path(), &["init"]).status.success());
    let written = std::fs::read_to_string(dir.path().join("innkeeper.toml")).unwrap();
    assert!(written.contains("[host]") && written.contains("[jobs."), "{written}");
    let output = innkeeper(dir.path(), &["check"]);
    assert!(output.status.success(), "{}", told(&output));
    let again = innkeeper(dir.path(), &["init"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(told(&again).contains("is there already"));
    assert_eq!(std::fs::read_to_string(dir.path().join("innkeeper.toml")).unwrap(), written);
}

#[test]
fn check_prints_one_json_document_also_when_something_is_wrong() {
    let (dir, _) = configuration("[jobs.a]\nplugin = \"probe\"\nhandler = \"ech\"\n");
    let output = innkeeper(dir.path(), &["check", "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).expect("it is one document");
    assert_eq!((&document["ok"], &document["errors"][0]["line"]), (&json!(false), &json!(5)));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_store_that_cannot_be_reached_exits_with_3_and_shows_no_password() {
    let (dir, _) = configuration("[store]\nurl = \"postgres://inn:s3cret@127.0.0.1:9/inn\"\n");
    for command in [["check", ""], ["migrate", ""], ["job", "list"], ["serve", ""]] {
        let args = command.iter().filter(|arg| !arg.is_empty()).copied().collect::<Vec<_>>();
        let output = innkeeper(dir.path(), &args);
        let told = told(&output);
        assert_eq!(output.status.code(), Some(3), "{args:?}: {told}");
        assert!(told.contains("127.0.0.1") && !told.contains("s3cret"), "{args:?}: {told}");
    }
}

#[test]
fn a_machine_that_does_not_give_the_address_space_is_told_what_to_lower() {
    let (dir, _) = configuration("[host]\nconcurrency = 1000\n");
    // 200 GiB.
    let command = format!("ulimit -v 209715200; exec {} serve", binary().display());
    let output =
        Command::new("sh").current_dir(dir.path()).args(["-c", &command]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("lower `concurrency` in [host]"), "{}", told(&output));
}

#[test]
fn one_sqlite_file_as_both_the_store_and_a_plugins_database_is_refused_also_through_a_link() {
    for (name, link) in [("innkeeper.db", false), ("link.db", true)] {
        let (dir, text) = configuration(&format!("[databases.app]\nurl = \"sqlite:{name}\"\n"));
        let data = dir.path().join("innkeeper-data");
        std::fs::create_dir(&data).unwrap();
        if link {
            std::os::unix::fs::symlink(data.join("innkeeper.db"), data.join(name)).unwrap();
        }
        let output = innkeeper(dir.path(), &["check"]);
        assert_eq!(output.status.code(), Some(2), "{}\n{text}", told(&output));
        assert!(told(&output).contains("innkeeper.toml:4:7: "), "{}", told(&output));
    }
}

/// A file with these URLs, and plugins that are granted the database `app` with these lines.
fn granted(store: &str, app: &str, plugins: &[(&str, &str)]) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let mut text = format!("[store]\nurl = {store:?}\n[databases.app]\nurl = {app:?}\n");
    for (plugin, grant) in plugins {
        let component = guest("probe");
        text.push_str(&format!("[plugins.{plugin}]\ncomponent = {component:?}\n"));
        text.push_str(&format!("[[plugins.{plugin}.databases]]\nname = \"app\"\n{grant}\n"));
    }
    std::fs::write(dir.path().join("innkeeper.toml"), &text).expect("it can be written");
    (dir, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn check_refuses_a_login_that_reaches_the_hosts_records() {
    let of_store = Login::new().await;
    let superuser = Login::with("SUPERUSER").await;
    let (reader, nothing) = (Login::new().await, Login::new().await);
    let noinherit = Login::with(&format!("NOINHERIT IN ROLE {}", reader.name())).await;
    let member = Login::with(&format!("NOINHERIT IN ROLE {}", of_store.name())).await;
    let by_schema = Login::new().await;
    let store = TestDatabase::migrated(Engine::Postgres).await;
    let app = TestDatabase::empty(Engine::Postgres).await;
    let mut records = Raw::connect(store.url()).await;
    records.execute(&format!("GRANT SELECT ON innkeeper.job TO {}", reader.name())).await;
    records.execute(&format!("GRANT USAGE ON SCHEMA innkeeper TO {}", by_schema.name())).await;

    let is_stores = "is the login of the host's own store";
    let own = |login: &Login, at: &TestDatabase| format!("url = {:?}", login.at(at.url()));
    let cases = [
        // Without a login of its own it has the database's, wherever the database is.
        (of_store.at(app.url()), String::new(), "7:1", is_stores),
        (app.address(), own(&of_store, &app), "9:7", is_stores),
        (app.address(), own(&superuser, &app), "9:7", "is a superuser, or may become one, on the server"),
        (app.address(), own(&member, &app), "9:7", &format!("is a member of `{}`", of_store.name())),
        (
            app.address(),
            own(&reader, &app),
            "9:7",
            "has rights, of its own or by a role, in schema `innkeeper`",
        ),
        (app.address(), own(&noinherit, &app), "9:7", "has rights, of its own or by a role"),
        (app.address(), own(&by_schema, &app), "9:7", "has rights, of its own or by a role"),
        (store.address(), own(&by_schema, &store), "9:7", "has rights, of its own or by a role"),
    ];
    for (app, grant, place, what) in cases {
        let (dir, text) = granted(&of_store.at(store.url()), &app, &[("probe", &grant)]);
        let output = innkeeper(dir.path(), &["check"]);
        let told = told(&output);
        assert_eq!(output.status.code(), Some(2), "{told}\n{text}");
        let start =
            format!("error: innkeeper.toml:{place}: plugin `probe`: its login in database `app`, `login_");
        assert!(told.starts_with(&start) && told.contains(what), "{what}: {told}\n{text}");
        assert!(told.contains("CREATE ROLE … LOGIN"), "it says what to do: {told}");
    }
    let (dir, _) = granted(&store.address(), &store.address(), &[("probe", "")]);
    let offline = innkeeper(dir.path(), &["check", "--offline"]);
    assert!(offline.status.success(), "it asks no database: {}", told(&offline));
    // The same server, and even the same database, is no reason to refuse one without rights.
    for at in [&app, &store] {
        let (dir, _) = granted(&of_store.at(store.url()), &at.address(), &[("probe", &own(&nothing, at))]);
        let output = innkeeper(dir.path(), &["check"]);
        assert!(output.status.success() && output.stderr.is_empty(), "{}", told(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_warns_of_a_login_that_can_do_more_than_a_plugin_needs() {
    let superuser = Login::with("SUPERUSER").await;
    let becomes = Login::with(&format!("IN ROLE {}", superuser.name())).await;
    let programs = Login::with("CREATEROLE IN ROLE pg_execute_server_program").await;
    let (shared, alone) = (Login::new().await, Login::new().await);
    let app = TestDatabase::empty(Engine::Postgres).await;
    let own = |login: &Login| format!("url = {:?}", login.at(app.url()));
    let warnings = |plugins: &[(&str, &str)]| -> Vec<(u64, String)> {
        let (dir, text) = granted("sqlite:innkeeper.db", &app.address(), plugins);
        let output = innkeeper(dir.path(), &["check", "--json"]);
        assert!(output.status.success(), "{}\n{text}", told(&output));
        let document: Value = serde_json::from_slice(&output.stdout).expect("it is one document");
        let warnings = document["warnings"].as_array().expect("there is a list").iter();
        let warning =
            |one: &Value| (one["line"].as_u64().unwrap(), one["message"].as_str().unwrap().to_owned());
        warnings.map(warning).collect()
    };
    for login in [&superuser, &becomes] {
        let found = warnings(&[("probe", &own(login))]);
        let start =
            format!("plugin `probe`: its login in database `app`, `{}`, is a superuser", login.name());
        assert!(found.len() == 1 && found[0].0 == 9, "{found:?}");
        assert!(found[0].1.replace("` is", "`, is").starts_with(&start), "{found:?}");
    }
    let found = warnings(&[("probe", &own(&programs))]);
    assert!(found[0].1.contains("has `pg_execute_server_program` and `CREATEROLE`"), "{found:?}");

    let found = warnings(&[("a", &own(&shared)), ("b", &own(&alone)), ("c", &own(&shared))]);
    assert_eq!(found.len(), 1, "{found:?}");
    let (line, message) = &found[0];
    assert_eq!(*line, 9, "{message}");
    let start = format!("plugins `a` and `c` have one login, `{}`, in database `app`", shared.name());
    assert!(message.starts_with(&start) && message.contains("prevent accidents only"), "{message}");
    // Without a login of their own, they share the database's.
    let other =
        granted("sqlite:innkeeper.db", &shared.at(app.url()), &[("a", ""), ("b", ""), ("c", &own(&alone))]);
    let output = innkeeper(other.0.path(), &["check"]);
    assert!(output.status.success(), "{}", told(&output));
    assert!(
        told(&output).starts_with("warning: innkeeper.toml:7:1: plugins `a` and `b` have"),
        "{}",
        told(&output)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tries_the_role_and_the_schema_of_a_grant() {
    let (role, other) = (Login::new().await, Login::new().await);
    let login = Login::with(&format!("NOINHERIT IN ROLE {}", role.name())).await;
    let app = TestDatabase::empty(Engine::Postgres).await;
    let mut outside = Raw::connect(app.url()).await;
    outside.execute("CREATE SCHEMA tenant; CREATE SCHEMA \"odd \"\"name\"").await;
    outside.execute(&format!("GRANT USAGE ON SCHEMA tenant TO {}", role.name())).await;
    let url = format!("url = {:?}", login.at(app.url()));
    let check = |grant: &str| {
        let (dir, _) =
            granted("sqlite:innkeeper.db", &app.address(), &[("probe", &format!("{url}\n{grant}"))]);
        let output = innkeeper(dir.path(), &["check"]);
        (output.status.code(), told(&output))
    };
    let fine = check(&format!("role = \"{}\"\nschema = \"tenant\"", role.name()));
    assert!(fine.0 == Some(0) && !fine.1.contains("warning"), "{}", fine.1);

    let (code, told) = check("role = \"nobody\"");
    assert!(
        code == Some(2) && told.starts_with("error: innkeeper.toml:10:8: plugin `probe`: no transaction"),
        "{told}"
    );
    assert!(told.contains("role \"nobody\" does not exist"), "{told}");
    let (code, told) = check(&format!("role = \"{}\"", other.name()));
    assert!(code == Some(2) && told.contains("permission denied to set role"), "{told}");
    assert!(told.contains(&format!("`GRANT \"{}\" TO \"{}\"`", other.name(), login.name())), "{told}");

    let (code, told) = check("schema = \"missing\"");
    assert!(code == Some(0) && told.starts_with("warning: innkeeper.toml:10:10: plugin `probe`: "), "{told}");
    assert!(told.contains("has no schema `missing`"), "{told}");
    let (code, told) = check("schema = \"odd \\\"name\"");
    assert!(code == Some(0) && told.contains("may not use schema `odd \"name`"), "{told}");
    // The rights are those of the role, not of the login.
    let (code, told) = check("schema = \"tenant\"");
    assert!(code == Some(0) && told.contains("may not use schema `tenant`"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_looks_whether_there_can_be_a_fence_out_of_the_plugins_reach() {
    let (of_database, of_plugin) = (Login::new().await, Login::new().await);
    let app = TestDatabase::empty(Engine::Postgres).await;
    let mut outside = Raw::connect(app.url()).await;
    let own = format!("url = {:?}\nfence = true", of_plugin.at(app.url()));
    let check = |grant: &str| {
        let (dir, _) = granted("sqlite:innkeeper.db", &of_database.at(app.url()), &[("probe", grant)]);
        let output = innkeeper(dir.path(), &["check"]);
        (output.status.code(), told(&output))
    };
    for (grant, place) in [("fence = true", "9:9"), (own.as_str(), "10:9")] {
        let (code, told) = check(grant);
        let start = format!("error: innkeeper.toml:{place}: plugin `probe`: database `app` has no fence");
        assert!(code == Some(2) && told.starts_with(&start), "{told}");
    }
    let name = outside.texts("SELECT current_database()::text").await.remove(0);
    outside.execute(&format!("GRANT CREATE ON DATABASE {name} TO {}", of_database.name())).await;
    for grant in ["fence = true", own.as_str()] {
        let (code, told) = check(grant);
        assert!(code == Some(0) && !told.contains("warning"), "the host would make it: {told}");
    }
    outside.execute(&format!("CREATE SCHEMA innkeeper_fence AUTHORIZATION {}", of_database.name())).await;
    let (code, told) = check("fence = true");
    assert!(code == Some(0) && told.starts_with("warning: innkeeper.toml:9:9: plugin `probe`: "), "{told}");
    assert!(told.contains("owns the fence there, so that SQL of the plugin could lower it"), "{told}");
    let (code, told) = check(&own);
    assert!(code == Some(0) && !told.contains("warning"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_of_a_login_that_cannot_be_used_and_one_that_leads_elsewhere() {
    let login = Login::new().await;
    let app = TestDatabase::empty(Engine::Postgres).await;
    let other = TestDatabase::empty(Engine::Postgres).await;
    let nobody = login.at(app.url()).replace(&format!("{}:", login.name()), "nobody:");
    let (dir, _) = granted("sqlite:innkeeper.db", &app.address(), &[("probe", &format!("url = {nobody:?}"))]);
    let output = innkeeper(dir.path(), &["check"]);
    let told_of_it = told(&output);
    assert_eq!(output.status.code(), Some(3), "{told_of_it}");
    let start = "error: innkeeper.toml:9:7: plugin `probe`: its login in database `app` (postgres://nobody@";
    assert!(told_of_it.starts_with(start), "{told_of_it}");
    assert!(!told_of_it.contains(&format!(":{}@", login.name())), "it shows no password: {told_of_it}");

    let elsewhere = format!("url = {:?}", login.at(other.url()));
    let (dir, _) = granted("sqlite:innkeeper.db", &app.address(), &[("probe", &elsewhere)]);
    let output = innkeeper(dir.path(), &["check"]);
    assert!(output.status.success(), "{}", told(&output));
    assert!(told(&output).contains("and that of [databases.app] names"), "{}", told(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_logs_what_check_refuses_and_serves_all_the_same() {
    let scene = Scene::new(Engine::Postgres).await;
    let host = scene.serve(JOBS).await;
    host.wait_for_log("is the login of the host's own store").await;
    let done = scene.innkeeper_json(&["job", "run", "sleep", "--wait"]);
    assert_eq!(done["state"], "succeeded");
    let log = host.stop().await;
    assert_eq!(log.matches("is the login of the host's own store").count(), 1, "{log}");
}

#[test]
fn a_command_that_looks_creates_no_store() {
    let (dir, _) = configuration(JOBS);
    let output = innkeeper(dir.path(), &["job", "list"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(told(&output).contains("innkeeper migrate"), "{}", told(&output));
    assert!(!dir.path().join("innkeeper-data").exists());
}

#[test]
fn usage_errors_exit_with_2() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        vec!["jbo"],
        vec!["job", "run"],
        vec!["execution", "show", "not-an-id"],
        vec!["execution", "list", "--state", "odd"],
    ] {
        let output = innkeeper(dir.path(), &args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", told(&output));
    }
    let output = innkeeper(dir.path(), &["check"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).contains("innkeeper init"), "{}", told(&output));
}

on_both_engines! {
    async fn jobs_can_be_looked_at_and_run_with_and_without_a_host(engine: Engine) {
        let scene = Scene::new(engine).await;
        let host = scene.serve(JOBS).await;
        let run = scene.innkeeper_json(&["job", "run", "sleep", "--wait"]);
        assert_eq!((&run["state"], &run["result"]), (&json!("succeeded"), &json!(null)));

        let failed = scene.innkeeper(&["job", "run", "fail", "--wait", "--json"]);
        assert_eq!(failed.status.code(), Some(1), "a job that did not succeed exits with 1");
        let document: Value = serde_json::from_slice(&failed.stdout).expect("it is one document");
        assert_eq!(document["error"], json!({"kind": "permanent", "message": "no such customer"}));

        let wrong = scene.innkeeper(&["job", "run", "sleep", "--args", "{\"ms\": \"long\"}"]);
        assert_eq!(wrong.status.code(), Some(2));
        assert!(told(&wrong).contains("/ms"), "{}", told(&wrong));
        let deep = scene.innkeeper(&["job", "run", "sleep", "--args", &("[".repeat(65) + &"]".repeat(65))]);
        assert_eq!(deep.status.code(), Some(2));
        assert!(told(&deep).contains("65 deep"), "{}", told(&deep));
        let mistyped = scene.innkeeper(&["execution", "list", "--job", "slep"]);
        assert_eq!(mistyped.status.code(), Some(2), "a mistyped name is no empty history");
        assert!(told(&mistyped).contains("did you mean `sleep`?"), "{}", told(&mistyped));
        let unknown = scene.innkeeper(&["job", "run", "slep"]);
        assert_eq!(unknown.status.code(), Some(2));
        assert!(told(&unknown).contains("did you mean `sleep`?"), "{}", told(&unknown));

        let plugins = scene.innkeeper_json(&["plugin", "list"]);
        assert_eq!(plugins["plugins"][0]["hosts"], json!(["inn-1"]));
        assert!(plugins["plugins"][0]["handlers"].as_array().is_some_and(|handlers| handlers.len() > 5));
        host.stop().await;

        // Without a host everything can still be looked at, and enqueued.
        let jobs = scene.innkeeper_json(&["job", "list"]);
        let names = jobs["jobs"].as_array().unwrap().iter().map(|job| job["name"].as_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(names, ["fail", "nightly", "sleep"]);
        let next = scene.innkeeper_json(&["job", "next", "nightly", "-n", "3"]);
        assert_eq!(next["fires"].as_array().map(Vec::len), Some(3));
        assert!(next["fires"][0]["local"].as_str().unwrap().contains("T02:30:00"), "{next}");
        let queued = scene.innkeeper_json(&["job", "run", "sleep"]);
        assert_eq!(queued["state"], "queued");
        let waiting = scene.innkeeper(&["job", "run", "sleep", "--wait"]);
        assert_eq!(waiting.status.code(), Some(3), "{}", told(&waiting));
        assert!(told(&waiting).contains("no live host"), "{}", told(&waiting));
        assert!(scene.innkeeper_json(&["job", "show", "nightly"])["next_fire_at"].is_string());
    }

    async fn whoever_waits_is_told_for_what_and_outlasts_the_restart_of_a_host(engine: Engine) {
        let jobs = "[jobs.hold]\nplugin = \"probe\"\nhandler = \"hold\"\nargs = { gate = \"main\" }\n\
                    retry = { initial = \"10ms\", maximum = \"10ms\" }\n";
        let scene = Scene::new(engine).await;
        let mut app = Raw::connect(scene.app.url()).await;
        make_gate(&mut app).await;
        let host = scene.serve(jobs).await;
        let mut waiting = Command::new(binary())
            .args(["job", "run", "hold", "--wait", "--json", "--config"])
            .arg(scene.dir().join("inn-1.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut told = BufReader::new(waiting.stderr.take().expect("it is piped")).lines();
        let mut line = || told.next().expect("it is told").expect("it is text");
        let begun = line();
        let id = begun.strip_prefix("enqueued ").and_then(|rest| rest.split(';').next()).unwrap_or_else(|| panic!("{begun}"));
        until("the handler is inside", async || (app.count("select count(*) from inside").await == 1).then_some(())).await;
        host.kill();
        let trouble = line();
        assert!(trouble.contains("no live host has plugin `probe` any more"), "{trouble}");

        let host = scene.serve(jobs).await;
        open_gate(&mut app, "main").await;
        let output = waiting.wait_with_output().expect("it ends");
        let document: Value = serde_json::from_slice(&output.stdout).expect("it is one document");
        assert_eq!((&document["id"], &document["state"]), (&json!(id), &json!("succeeded")));
        assert_eq!((&document["attempt"], output.status.code()), (&json!(2), Some(0)));
        host.stop().await;
    }

    async fn a_job_that_does_not_fire_says_why(engine: Engine) {
        let scene = Scene::new(engine).await;
        scene.serve(JOBS).await.stop().await;
        let mut records = Raw::connect(scene.store.url()).await;
        let prefix = if engine == Engine::Postgres { "innkeeper." } else { "" };
        let now = if engine == Engine::Postgres { "now()" } else { "1700000000000000" };
        records.execute(&format!("update {prefix}job set paused_at = {now} where name = 'nightly'")).await;
        let paused = scene.innkeeper_json(&["job", "next", "nightly"]);
        assert_eq!(paused["fires"], json!([]));
        assert!(paused["reason"].as_str().is_some_and(|why| why.contains("paused since")), "{paused}");
        records.execute(&format!("update {prefix}job set paused_at = null where name = 'nightly'")).await;
        assert_eq!(scene.innkeeper_json(&["job", "next", "nightly"])["reason"], json!(null));

        // The configuration no longer names it.
        scene.serve("").await.stop().await;
        let retired = scene.innkeeper_json(&["job", "next", "nightly"]);
        assert_eq!(retired["fires"], json!([]));
        assert!(retired["reason"].as_str().is_some_and(|why| why.contains("retired")), "{retired}");
        let run = scene.innkeeper(&["job", "run", "nightly"]);
        assert_eq!(run.status.code(), Some(2));
        assert!(told(&run).contains("was retired"), "{}", told(&run));
        let by_hand = scene.innkeeper_json(&["job", "next", "sleep"]);
        assert!(by_hand["reason"].is_string(), "{by_hand}");
    }

    async fn migrate_brings_a_new_store_up_to_date_and_serve_can_be_told_not_to(engine: Engine) {
        let database = TestDatabase::empty(engine).await;
        let dir = tempfile::tempdir().unwrap();
        let url = database.address();
        std::fs::write(dir.path().join("innkeeper.toml"), format!("[store]\nurl = {url:?}\n")).unwrap();
        let refused = innkeeper(dir.path(), &["serve", "--no-migrate"]);
        assert_eq!(refused.status.code(), Some(3), "{}", told(&refused));
        assert!(told(&refused).contains("innkeeper migrate"), "{}", told(&refused));
        let migrated = innkeeper(dir.path(), &["migrate", "--json"]);
        let document: Value = serde_json::from_slice(&migrated.stdout).expect("it is one document");
        assert_eq!(document["applied"][0], "0001_store");
        let again = innkeeper(dir.path(), &["migrate", "--json"]);
        let document: Value = serde_json::from_slice(&again.stdout).expect("it is one document");
        assert_eq!(document["applied"], json!([]));
    }

    async fn a_handler_enqueues_what_its_plugin_was_granted_and_nothing_else(engine: Engine) {
        let jobs = format!("{JOBS}\n[jobs.enqueue]\nplugin = \"probe\"\nhandler = \"enqueue\"\nargs = {{ job = \"sleep\" }}\n");
        let scene = Scene::new(engine).await.with("plugins.probe", "jobs = [\"sleep\"]");
        let host = scene.serve(&jobs).await;
        let store = scene.open_store().await;
        let enqueue = async |args: Value| {
            let id = scene.run("enqueue", &args);
            scene.wait_for_end(&store, id).await.result.expect("it returns what it was told")
        };
        let granted = enqueue(json!({"job": "sleep", "args": {"ms": 1}})).await;
        let id = granted["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("{granted}"));
        let record = scene.wait_for_end(&store, id).await;
        assert_eq!((record.args, record.triggered_by), (json!({"ms": 1}), innkeeper::execution::Trigger::Handler));

        let denied = enqueue(json!({"job": "nightly"})).await;
        assert_eq!(denied["error"]["kind"], "denied");
        assert!(denied["error"]["message"].as_str().unwrap().contains("jobs = [\"nightly\"]"), "{denied}");
        let invalid = enqueue(json!({"job": "sleep", "args": {"ms": -1}})).await;
        assert_eq!(invalid["error"]["kind"], "invalid-args");

        let later = 4_102_444_800_000_u64;
        let first = enqueue(json!({"job": "sleep", "run_at_ms": later, "unique_key": "k"})).await;
        let second = enqueue(json!({"job": "sleep", "unique_key": "k"})).await;
        assert_eq!(first["id"], second["id"], "at most one unfinished execution has the key");
        let id = first["id"].as_str().and_then(|id| id.parse().ok()).unwrap();
        let record = store.execution(id).await.unwrap().expect("it is there");
        assert_eq!(record.state, innkeeper::execution::State::Scheduled);
        host.stop().await;
    }

    async fn what_a_handler_says_of_its_work_is_on_record(engine: Engine) {
        let jobs = r#"
            [jobs.config]
            plugin = "probe"
            handler = "config"

            [jobs.checkpoint]
            plugin = "probe"
            handler = "checkpoint"
            args = { state = { page = 7 }, fail_until = 2 }
            retry = { max_attempts = 2, initial = "5ms", maximum = "5ms" }

            [jobs.progress]
            plugin = "probe"
            handler = "progress"
            args = { steps = [{ done = 3, total = 10, message = "rows" }] }

            [jobs.print]
            plugin = "probe"
            handler = "print"
            args = { stdout = "one\ntwo", stderr = "oops\n" }

            [jobs.panic]
            plugin = "probe"
            handler = "panic"
            args = { message = "boom" }
            retry = { max_attempts = 1 }

            [jobs.allocate]
            plugin = "probe"
            handler = "allocate"
            args = { mib = 100 }
            retry = { max_attempts = 1 }
        "#;
        let scene = Scene::new(engine)
            .await
            .with("plugins.probe", "config = { table = \"sessions\", batch = { size = 10, on = true } }\nlimits = { memory = \"32 MiB\" }");
        let host = scene.serve(jobs).await;
        let run = |job: &str| -> Value {
            let output = scene.innkeeper(&["job", "run", job, "--wait", "--json"]);
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", told(&output)))
        };
        assert_eq!(run("config")["result"], json!({"table": "sessions", "batch.size": "10", "batch.on": "true"}));
        assert_eq!(run("checkpoint")["result"], json!({"page": 7}), "an attempt begins with the checkpoint of the last");
        let progress = &run("progress")["progress"];
        assert_eq!((&progress["done"], &progress["total"], &progress["message"]), (&json!(3), &json!(10), &json!("rows")));

        let printed = run("print");
        let logs = scene.innkeeper_json(&["execution", "logs", printed["id"].as_str().unwrap()]);
        let mut lines = logs["logs"].as_array().unwrap().iter().map(|line| line["message"].as_str().unwrap()).collect::<Vec<_>>();
        lines.sort_unstable();
        assert_eq!(lines, ["one", "oops", "two"]);

        let panicked = run("panic");
        assert_eq!(panicked["error"]["kind"], "trap");
        assert!(panicked["error"]["message"].as_str().unwrap().contains("boom"), "{panicked}");
        let exhausted = run("allocate");
        assert_eq!(exhausted["error"]["kind"], "memory");
        assert!(exhausted["error"]["message"].as_str().unwrap().contains(" of 32 MiB were in use"), "{exhausted}");
        host.stop().await;
    }
}
