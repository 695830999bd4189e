//! What an operator sees of an execution: its log as it grows, its attempts, and what they have used.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use innkeeper::execution::{Completion, Failure, FailureKind, Outcome, State};
use innkeeper::limits::Usage;
use innkeeper::store::{NewSession, SessionId, Store};
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, binary};
use innkeeper_tests::on_both_engines;
use innkeeper_tests::raw::{Raw, make_gate, open_gate};
use serde_json::{Value, json};
use uuid::Uuid;

const JOBS: &str = r#"
[jobs.narrate]
plugin = "probe"
handler = "narrate"
args = { gate = "main" }
timeout = "5m"
retry = { max_attempts = 3, initial = "5ms", maximum = "5ms" }
"#;

/// `innkeeper execution logs ID --follow`, while it runs.
struct Following {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Following {
    fn start(scene: &Scene, id: Uuid, more: &[&str]) -> Self {
        let config: PathBuf = scene.dir().join("inn-1.toml");
        let mut child = Command::new(binary())
            .arg("--config")
            .arg(config)
            .args(["execution", "logs", &id.to_string(), "--follow"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary can be started");
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, lines }
    }

    /// Waits for the next line.
    fn next(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it is text");
        line.trim_end().to_owned()
    }

    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("a process id is an i32");
        #[expect(unsafe_code, reason = "std cannot send any signal but SIGKILL")]
        // SAFETY: kill takes two integers, and the process is a child that was not waited for.
        let status = unsafe { libc::kill(pid, signal) };
        assert_eq!(status, 0, "signal {signal} was not sent");
    }

    /// Waits for its end: the exit code, the lines that were left, and what else it told.
    fn end(mut self) -> (Option<i32>, String, String) {
        let (mut rest, mut told) = (String::new(), String::new());
        self.lines.read_to_string(&mut rest).expect("it is text");
        let stderr = self.child.stderr.as_mut().expect("it is piped");
        stderr.read_to_string(&mut told).expect("it is text");
        (self.child.wait().expect("it ends").code(), rest, told)
    }
}

/// A test that failed leaves nobody behind who follows.
impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn stage(engine: Engine) -> (Scene, Store, Raw) {
    let scene = Scene::new(engine).await;
    let mut app = Raw::connect(scene.app.url()).await;
    make_gate(&mut app).await;
    let store = scene.open_store().await;
    (scene, store, app)
}

on_both_engines! {
    async fn a_log_is_followed_line_by_line_through_all_attempts_to_the_end(engine: Engine) {
        let (scene, store, mut app) = stage(engine).await;
        let host = scene.serve(JOBS).await;
        let id = scene.enqueue(&store, "narrate", &json!({ "gate": "main", "fail_until": 2 })).await;
        let mut following = Following::start(&scene, id, &[]);
        for attempt in 1..=2 {
            // Its handler is held at the gate: nothing but the line itself can have brought this.
            let line = following.next();
            assert!(line.contains(&format!(" [{attempt}] info  before")), "{line}");
            open_gate(&mut app, &format!("main-{attempt}")).await;
            let line = following.next();
            assert!(line.contains(&format!(" [{attempt}] warn  after attempt={attempt}")), "{line}");
        }
        let (code, rest, told) = following.end();
        assert_eq!((code, rest.as_str()), (Some(0), ""), "{told}");
        assert!(told.contains("attempt 1 of 3 ended on host `inn-1`: handler: not yet"), "{told}");
        assert!(told.trim_end().ends_with(&format!("execution {id} succeeded")), "{told}");
        host.stop().await;
    }

    async fn a_followed_log_is_a_document_in_each_line_however_long_it_is(engine: Engine) {
        let (scene, store, mut app) = stage(engine).await;
        let host = scene.serve(JOBS).await;
        let id = scene.enqueue(&store, "narrate", &json!({ "gate": "main", "lines": 1_200 })).await;
        open_gate(&mut app, "main-1").await;
        assert_eq!(scene.wait_for_end(&store, id).await.state, State::Succeeded);
        let (code, lines, told) = Following::start(&scene, id, &["--json"]).end();
        assert_eq!(code, Some(0), "{told}");
        let documents: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(documents.len(), 1_202);
        for (number, document) in documents[..1_200].iter().enumerate() {
            assert_eq!(document["message"], format!("line {number}"));
        }
        let last = &documents[1_201];
        assert_eq!((&last["level"], &last["attempt"], &last["fields"]), (&json!("warn"), &json!(1), &json!({"attempt": 1})));
        let text = scene.innkeeper(&["execution", "logs", &id.to_string()]).stdout;
        assert_eq!(String::from_utf8_lossy(&text).lines().count(), 1_202, "as it is without following it");
        let whole = scene.innkeeper_json(&["execution", "logs", &id.to_string()]);
        assert_eq!(whole["logs"].as_array(), Some(&documents));
        host.stop().await;
    }

    async fn following_ends_by_ctrl_c_and_changes_nothing(engine: Engine) {
        let (scene, store, _app) = stage(engine).await;
        let host = scene.serve(JOBS).await;
        let id = scene.enqueue(&store, "narrate", &json!({ "gate": "main" })).await;
        let mut following = Following::start(&scene, id, &[]);
        assert!(following.next().ends_with("before"));
        following.signal(libc::SIGINT);
        let (code, rest, told) = following.end();
        assert_eq!((code, rest.as_str()), (Some(130), ""));
        assert!(!told.contains("error"), "{told}");
        assert_eq!(store.execution(id).await.unwrap().unwrap().state, State::Running);
        host.kill();
    }

    async fn following_what_is_not_there_is_refused(engine: Engine) {
        let (scene, _store, _app) = stage(engine).await;
        scene.configure("inn-1", JOBS);
        let (code, lines, told) = Following::start(&scene, Uuid::nil(), &[]).end();
        assert_eq!((code, lines.as_str()), (Some(2), ""));
        assert!(told.contains("there is no execution 00000000-0000-0000-0000-000000000000"), "{told}");
    }

    async fn an_execution_shows_what_each_attempt_has_used_and_which_component_ran(engine: Engine) {
        let (scene, store, _app) = stage(engine).await;
        // A host that serves knows its jobs; the attempts are made by hand.
        scene.serve(JOBS).await.stop().await;
        let id = scene.enqueue(&store, "narrate", &json!({ "gate": "main" })).await;
        let old = host_of(&store, "inn-1", "sha256:0123456789abcdef").await;
        let failure = Outcome::Failed(Failure::new(FailureKind::Memory, "out of memory: 64 of 64 MiB"));
        let used = Usage { wall_us: 1_230_000, cpu_us: 400_000, memory_peak_bytes: 64 << 20, ..Usage::default() };
        end_attempt(&store, old, failure, used).await;
        scene.wait_for(&store, id, &[State::Retrying]).await;
        let text = show(&scene, id);
        assert!(text.contains("used          wall 1.23s, cpu 0.40s, memory 64.0 MiB at most\n"), "{text}");
        assert!(!text.contains("ATTEMPT"), "there is only one: {text}");

        innkeeper_tests::host::until("the next attempt is due", async || {
            store.plan(10).await.unwrap();
            (store.execution(id).await.unwrap()?.state == State::Queued).then_some(())
        })
        .await;
        let new = host_of(&store, "inn-2", "sha256:fedcba9876543210").await;
        let used = Usage { wall_us: 2_000, cpu_us: 900, db_calls: 12, db_transactions: 5, db_rows_read: 1_200, db_rows_changed: 7, db_bytes: 3 << 20, log_lines: 1, log_bytes: 80, ..Usage::default() };
        end_attempt(&store, new, Outcome::Succeeded(json!(3)), used).await;
        let text = show(&scene, id);
        let told = "wall 2000us, cpu 900us, db 12 calls in 5 transactions (1,200 rows read, 7 changed, 3.0 MiB), log 1 line (80 B)";
        assert!(text.contains(&format!("used          {told}\n")), "{text}");
        let attempts: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("ATTEMPT")).collect();
        assert_eq!(attempts.len(), 3, "{text}");
        for (line, parts) in attempts[1..].iter().zip([
            ["1 ", "inn-1  0123456789ab  ", "memory: out of memory: 64 of 64 MiB  wall 1.23s"],
            ["2 ", "inn-2  fedcba987654  ", &format!("succeeded                            {told}")],
        ]) {
            assert!(line.starts_with(parts[0]) && parts.iter().all(|part| line.contains(part)), "{line}");
        }

        let document = scene.innkeeper_json(&["execution", "show", &id.to_string()]);
        assert_eq!((&document["usage"]["db_rows_read"], &document["usage"]["fuel"]), (&json!(1_200), &Value::Null));
        let attempts = document["attempts"].as_array().unwrap();
        let parts = |key: &str| attempts.iter().map(|attempt| attempt[key].clone()).collect::<Vec<_>>();
        assert_eq!(parts("attempt"), [1, 2]);
        assert_eq!(parts("outcome"), ["failed", "succeeded"]);
        assert_eq!(parts("component_digest"), ["sha256:0123456789abcdef", "sha256:fedcba9876543210"]);
        assert_eq!(attempts[0]["error"]["kind"], "memory");
        assert_eq!(attempts[0]["usage"]["memory_peak_bytes"], 64 << 20);
        let listed = scene.innkeeper_json(&["execution", "list"]);
        assert_eq!(listed["executions"][0]["usage"]["wall_us"], 2_000);
    }
}

async fn host_of(store: &Store, host: &str, digest: &str) -> SessionId {
    store.save_component(digest, &json!([])).await.unwrap();
    let plugins = [(innkeeper::job::Name::new("probe").unwrap(), digest.to_owned())];
    let session = NewSession {
        host,
        boot_id: Uuid::new_v4(),
        version: "0.1.0",
        ttl: Duration::from_secs(60),
        slots: 1,
        plugins: &plugins,
    };
    store.register_session(&session).await.unwrap()
}

/// Claims the one execution that is ready, and records how its attempt ended.
async fn end_attempt(store: &Store, session: SessionId, outcome: Outcome, usage: Usage) {
    let attempts = store.claim(session, 10).await.unwrap();
    assert_eq!(attempts.len(), 1);
    let completion = Completion { usage: Some(usage), ..attempts[0].finish(outcome) };
    store.record(session, &[completion]).await.unwrap();
}

fn show(scene: &Scene, id: Uuid) -> String {
    let output = scene.innkeeper(&["execution", "show", &id.to_string()]);
    String::from_utf8(output.stdout).expect("it is text")
}
