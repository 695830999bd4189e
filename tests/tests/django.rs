//! What a real framework leaves behind: the sessions of Django, cleaned up by the maintenance
//! plugin as its README configures it, judged by Django.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, TestHost, guest, until};
use innkeeper_tests::on_both_engines;
use serde_json::{Value, json};

/// Enough for several batches of the plugin's default size, half of them expired.
const SESSIONS: usize = 5000;

on_both_engines! {
    async fn sessions_of_django_go_when_they_have_expired_and_the_others_still_load(engine: Engine) {
        let scene = Scene::new(engine).await;
        let django = Django::new(&scene);
        let expired = django.create(SESSIONS);
        assert!(expired > SESSIONS / 3, "{expired} of {SESSIONS} sessions have expired");
        let complaint = django.verify().expect_err("Django still has the expired sessions");
        assert!(complaint.contains("expired sessions are still in the table"), "{complaint}");

        let host = TestHost::start(&configure(&scene));
        host.wait_for_log("serving").await;
        let executions = until("the schedule has deleted as many sessions as had expired", async || {
            let executions = succeeded(&scene);
            let deleted: u64 = executions.iter().filter_map(|it| it["result"]["deleted"].as_u64()).sum();
            (deleted >= expired as u64).then_some(executions)
        })
        .await;
        host.stop().await;

        for execution in &executions {
            assert_eq!(execution["triggered_by"], "schedule", "{execution}");
            assert_eq!(execution["result"]["complete"], json!(true), "{execution}");
        }
        django.verify().expect("Django has the sessions that have not expired, and no other");
    }
}

/// The executions of the README's job that have succeeded so far.
fn succeeded(scene: &Scene) -> Vec<Value> {
    let list = ["execution", "list", "--job", "session-cleanup", "--state", "succeeded", "--limit", "1000"];
    let listed = scene.innkeeper_json(&list);
    listed["executions"].as_array().unwrap_or_else(|| panic!("a list: {listed}")).clone()
}

/// Writes the configuration: that of the README, word for word, but for the database and with
/// a schedule that fires at once.
fn configure(scene: &Scene) -> PathBuf {
    let [both, postgres, sqlite] = readme_examples();
    let schedule = both.lines().find(|line| line.starts_with("schedule")).expect("the job has a schedule");
    let both = both.replace(schedule, "schedule = { every = \"1s\" }");
    let both = replace(&both, "${APP_DATABASE_URL}", &scene.app.address());
    let sessions = match scene.engine {
        Engine::Postgres => postgres,
        Engine::Sqlite => sqlite,
    };
    let store = scene.store.address();
    let text = format!("[host]\ndata_dir = \"data\"\n\n[store]\nurl = {store:?}\n\n{both}\n{sessions}");
    let plugins = scene.dir().join("plugins");
    std::fs::create_dir(&plugins).expect("a folder can be made");
    std::fs::copy(guest("maintenance"), plugins.join("maintenance.wasm")).expect("the plugin can be copied");
    let path = scene.dir().join("inn-1.toml");
    std::fs::write(&path, text).expect("the configuration can be written");
    path
}

fn replace(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from} is once in {text}");
    text.replace(from, to)
}

/// The examples of the README's section on Django: what both engines have in common, then what
/// is for PostgreSQL and what is for SQLite.
fn readme_examples() -> [String; 3] {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/maintenance/README.md");
    let readme = std::fs::read_to_string(path).expect("the plugin has a README");
    let (_, section) = readme.split_once("\n## Django\n").expect("it has a section on Django");
    let section = section.split("\n## ").next().unwrap_or_default();
    let examples: Vec<String> = section
        .split("```toml\n")
        .skip(1)
        .map(|example| example.split("```").next().unwrap_or_default().to_owned())
        .collect();
    examples.try_into().unwrap_or_else(|found| panic!("there are three examples: {found:?}"))
}

/// A Django project on the scene's application database.
struct Django {
    python: PathBuf,
    database: String,
    /// What Django has made, for it to compare with later.
    made: PathBuf,
}

impl Django {
    fn new(scene: &Scene) -> Self {
        let python = std::env::var_os("INNKEEPER_TEST_PYTHON").map(PathBuf::from).unwrap_or_else(|| {
            panic!("INNKEEPER_TEST_PYTHON is not set: run `cargo xtask test`, which installs Django")
        });
        Self { python, database: scene.app.address(), made: scene.dir().join("sessions.json") }
    }

    /// Makes Django's tables and sessions; returns how many of them have expired.
    fn create(&self, count: usize) -> usize {
        let output = self.run("create", &["--count", &count.to_string()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let made = std::fs::read(&self.made).expect("the script has written the file");
        let made: Value = serde_json::from_slice(&made).expect("it is JSON");
        made["expired"].as_array().map_or(0, Vec::len)
    }

    /// Asks Django whether it has exactly the sessions that have not expired; an error is what
    /// Django has to say.
    fn verify(&self) -> Result<(), String> {
        let output = self.run("verify", &[]);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0) => Ok(()),
            Some(1) => Err(complaint),
            _ => panic!("the script ended with {}: {complaint}", output.status),
        }
    }

    fn run(&self, command: &str, args: &[&str]) -> Output {
        Command::new(&self.python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("django/sessions.py"))
            .args([command, "--database", &self.database, "--file"])
            .arg(&self.made)
            .args(args)
            .env_remove("PYTHONPATH")
            .env("PYTHONUTF8", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{} could not be started: {error}", self.python.display()))
    }
}
