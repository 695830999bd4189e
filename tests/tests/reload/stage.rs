//! A host whose component is replaced.

use std::path::PathBuf;
use std::process::Output;

use innkeeper::execution::State;
use innkeeper::store::{ExecutionRecord, Store};
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, TestHost, until};
use innkeeper_tests::raw::{Raw, make_gate};
use innkeeper_tests::release::Release;
use serde_json::{Value, json};
use uuid::Uuid;

pub const JOBS: &str = r#"
[jobs.hold]
plugin = "probe"
handler = "hold"
args = { gate = "main" }
timeout = "30m"
retry = { max_attempts = 1 }

[jobs.echo]
plugin = "probe"
handler = "echo"
retry = { max_attempts = 1 }
"#;

/// Where nothing happens by itself.
pub const UNWATCHED: &str = "session_timeout = \"3s\"\ndrain_timeout = \"20s\"\nwatch = false";

pub struct Stage {
    pub scene: Scene,
    pub store: Store,
    pub app: Raw,
    pub release: Release,
}

impl Stage {
    /// With version 1 of the component, and these lines in `[host]`.
    pub async fn new(engine: Engine, host: &str) -> Self {
        let scene = Scene::new(engine).await.with("host", host);
        let mut app = Raw::connect(scene.app.url()).await;
        make_gate(&mut app).await;
        let release = Release::of_probe(scene.dir());
        let scene = scene.with_component(&release.path);
        Self { store: scene.open_store().await, scene, app, release }
    }

    /// Writes the configuration of a host.
    pub fn configure(&self, host: &str, jobs: &str) -> PathBuf {
        self.configure_as(host, jobs, |text| text)
    }

    /// The same, with whatever else is to be changed.
    pub fn configure_as(&self, host: &str, jobs: &str, change: impl Fn(String) -> String) -> PathBuf {
        let path = self.scene.configure(host, jobs);
        let text = std::fs::read_to_string(&path).expect("it was written");
        std::fs::write(&path, change(text)).expect("it can be written");
        path
    }

    pub async fn serve(&self, jobs: &str) -> TestHost {
        self.serve_as("inn-1", jobs).await
    }

    pub async fn serve_as(&self, host: &str, jobs: &str) -> TestHost {
        let host = TestHost::start(&self.configure(host, jobs));
        host.wait_for_log("serving").await;
        host
    }

    pub async fn enqueue(&self, job: &str, args: &Value) -> Uuid {
        self.scene.enqueue(&self.store, job, args).await
    }

    /// Enqueues one that stays in its call until the gate is open, and waits until it is there.
    pub async fn hold(&mut self) -> Uuid {
        let id = self.enqueue("hold", &json!({ "gate": "main" })).await;
        let inside = format!("select count(*) from inside where execution = '{id}'");
        let app = &mut self.app;
        until("the handler is inside", async || (app.count(&inside).await > 0).then_some(())).await;
        id
    }

    /// Runs one, and tells which component it was.
    pub async fn run(&mut self) -> String {
        let id = self.enqueue("echo", &json!(1)).await;
        let record = self.end_of(id).await;
        assert_eq!(record.state, State::Succeeded, "{record:?}");
        self.component_of(id).await
    }

    pub async fn end_of(&self, id: Uuid) -> ExecutionRecord {
        self.scene.wait_for_end(&self.store, id).await
    }

    /// The components of the execution's starts, in their order.
    pub async fn component_of(&self, id: Uuid) -> String {
        let mut records = Raw::connect(self.scene.store.url()).await;
        let sql = match self.scene.engine {
            Engine::Sqlite => format!(
                "select c.digest from start s join component c on c.id = s.component_id \
                 where s.execution_id = x'{}' order by s.lease",
                id.simple()
            ),
            Engine::Postgres => format!(
                "select c.digest from innkeeper.start s join innkeeper.component c on c.id = s.component_id \
                 where s.execution_id = '{id}' order by s.lease"
            ),
        };
        records.texts(&sql).await.join(" ")
    }

    /// Runs a command on the configuration of `inn-1`.
    pub fn command(&self, args: &[&str]) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = std::process::Command::new(innkeeper_tests::host::binary())
            .arg("--config")
            .arg(self.scene.dir().join("inn-1.toml"))
            .args(args)
            .output()
            .expect("the binary can be started");
        (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
    }

    /// The same, which has to work.
    pub fn done(&self, args: &[&str]) -> String {
        let (code, text) = self.command(args);
        assert_eq!(code, Some(0), "{args:?}: {text}");
        text
    }
}

/// Waits until a line was logged so often.
pub async fn wait_for_lines(host: &TestHost, text: &str, times: usize) {
    until(&format!("{text:?} was logged {times} times"), async || {
        (host.log().matches(text).count() >= times).then_some(())
    })
    .await;
}
