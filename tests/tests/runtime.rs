//! Handlers that say too much or break the rules: the host, its store and the other
//! executions take no harm, and whose fault it was is on record.

use std::sync::Arc;
use std::time::Duration;

use innkeeper::execution::{FailureKind, Outcome, State};
use innkeeper::interfaces::ClosedPort;
use innkeeper::interfaces::db::Session;
use innkeeper::interfaces::granted::Granted;
use innkeeper::limits::Limits;
use innkeeper::plugin::Source;
use innkeeper::runtime::{Call, Runtime, Stop};
use innkeeper::store::ExecutionRecord;
use innkeeper_tests::attempt::attempt;
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, guest};
use innkeeper_tests::on_both_engines;
use serde_json::{Value, json};

const JOBS: &str = r#"
[jobs.excess]
plugin = "probe"
handler = "excess"
args = { what = "result", amount = 0 }
retry = { max_attempts = 1 }

[jobs.break-rules]
plugin = "probe"
handler = "break-rules"
args = { how = "invalid-utf8" }
retry = { max_attempts = 1 }
"#;

const MIB: usize = 1024 * 1024;

/// What is wrong with the execution: its kind and its message.
fn failure(record: &ExecutionRecord) -> (FailureKind, &str) {
    let error = record.error.as_ref().unwrap_or_else(|| panic!("it did not fail: {:?}", record.state));
    (error.kind, error.message.as_str())
}

#[tokio::test]
async fn a_call_that_is_stopped_before_it_begins_runs_nothing() {
    let runtime = Runtime::new(1, 64 << 20).expect("there is room");
    let source = Source::read(&guest("probe")).expect("it is there");
    let component = runtime.load(&source, Limits::default()).await.expect("it can be loaded");
    let attempt = attempt("probe", "echo", json!("anything"), Duration::from_secs(60));
    let call = async |stop: &Stop| {
        let call = Call {
            attempt: &attempt,
            config: Arc::default(),
            capabilities: Arc::new(Granted::nothing()),
            session: Session::refused(),
            port: Arc::new(ClosedPort),
            limits: Limits::default(),
            stop,
        };
        runtime.call(&component, call).await.outcome
    };
    let stop = Stop::new();
    assert!(matches!(call(&stop).await, Outcome::Succeeded(_)), "it returns at once");
    stop.cancel();
    assert_eq!(call(&stop).await, Outcome::Released);
}

on_both_engines! {
    async fn what_a_handler_says_too_much_is_cut_or_refused_and_everything_else_can_be_read(engine: Engine) {
        let scene = Scene::new(engine).await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let excess = async |what: &str, amount: usize| {
            let id = scene.run("excess", &json!({"what": what, "amount": amount}));
            scene.wait_for_end(&store, id).await
        };
        let logs = |record: &ExecutionRecord| -> Vec<Value> {
            let document = scene.innkeeper_json(&["execution", "logs", &record.id.to_string()]);
            document["logs"].as_array().cloned().unwrap_or_else(|| panic!("{document}"))
        };

        let record = excess("result", MIB - 2).await;
        assert_eq!(record.state, State::Succeeded);
        for (what, amount, message) in [
            ("result", MIB - 1, "the handler's result has 1048577 bytes, and at most 1048576 are kept"),
            ("nested-result", 100, "the handler's result has lists and objects within each other, 100 deep"),
        ] {
            let record = excess(what, amount).await;
            let (kind, told) = failure(&record);
            assert!(kind == FailureKind::Result && told.starts_with(message), "{kind:?}: {told}");
        }
        let record = excess("failure", 5 * MIB).await;
        let (kind, told) = failure(&record);
        assert!(kind == FailureKind::Handler && told.len() < MIB / 10, "{kind:?}: {} bytes", told.len());

        for (what, amount) in [("checkpoint", 2 * MIB), ("nested-checkpoint", 100)] {
            let record = excess(what, amount).await;
            let (_, told) = failure(&record);
            assert!(told.contains("the checkpoint was not recorded: it has"), "the handler is told: {told}");
        }

        let lines = logs(&excess("log", MIB / 10).await);
        let message = lines[0]["message"].as_str().expect("it has a message");
        assert!(message.ends_with("more bytes were cut off]"), "{} bytes", message.len());
        assert_eq!(lines[1]["fields"]["fields_not_kept"], json!(MIB / 10 - 64));
        let lines = logs(&excess("nested-field", 127).await);
        assert!(lines[0]["fields"]["deep"].is_string(), "what nests too deep to be read again is kept as text");
        let progress = excess("progress", MIB).await.progress.and_then(|progress| progress.message);
        assert!(progress.is_some_and(|message| message.len() < MIB / 10));
        let lines = logs(&excess("empty-lines", 4 * MIB).await);
        let last = lines.last().and_then(|line| line["message"].as_str()).expect("there are lines");
        assert!(lines.len() < MIB / 50 && last.contains("not kept"), "{} lines, {last}", lines.len());
        host.stop().await;
    }

    async fn what_a_handler_does_wrong_is_its_own_fault_and_the_host_goes_on(engine: Engine) {
        let scene = Scene::new(engine).await.with("plugins.probe", "limits = { memory = \"32 MiB\" }");
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        for (how, why) in [("invalid-utf8", "utf-8"), ("out-of-bounds", "out of bounds")] {
            let id = scene.run("break-rules", &json!({"how": how}));
            let record = scene.wait_for_end(&store, id).await;
            let (kind, told) = failure(&record);
            assert!(kind == FailureKind::Trap && told.contains(why), "{how}: {kind:?}: {told}");
        }
        let id = scene.run("excess", &json!({"what": "memory", "amount": 100}));
        let record = scene.wait_for_end(&store, id).await;
        let (kind, told) = failure(&record);
        assert_eq!(kind, FailureKind::Permanent, "a handler may do without the memory: {told}");
        assert!(told.starts_with("no such customer (memory: false)\nnote: ") && told.contains(" of 32 MiB "), "{told}");
        host.stop().await;
    }
}
