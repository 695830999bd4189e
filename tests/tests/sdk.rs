//! What the Rust SDK makes of transactions, with a real guest in the real runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use innkeeper::config::{DatabaseConfig, GrantConfig, PluginConfig};
use innkeeper::execution::{FailureKind, LogLine, Outcome, Progress};
use innkeeper::interfaces::db::{Databases, Grants, Session};
use innkeeper::interfaces::granted::Granted;
use innkeeper::interfaces::{EnqueueError, EnqueueRequest, Port};
use innkeeper::limits::Limits;
use innkeeper::plugin::Source;
use innkeeper::runtime::{Call, LoadedComponent, Runtime, Stop};
use innkeeper_tests::attempt::{attempt, name};
use innkeeper_tests::database::{Engine, TestDatabase};
use innkeeper_tests::host::guest;
use innkeeper_tests::on_both_engines;
use innkeeper_tests::raw::Raw;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, mpsc};

const MEMORY: u64 = 64 << 20;

/// Longer than any test.
const LONG: Duration = Duration::from_secs(60);

/// The probe, loaded once for all tests.
async fn probe() -> &'static (Runtime, LoadedComponent) {
    static PROBE: OnceCell<(Runtime, LoadedComponent)> = OnceCell::const_new();
    let load = async || {
        let runtime = Runtime::new(32, MEMORY).expect("there is room");
        let source = Source::read(&guest("probe")).expect("it is there");
        let component = runtime.load(&source, Limits::default()).await.expect("it can be loaded");
        (runtime, component)
    };
    PROBE.get_or_init(load).await
}

/// A plugin, and the database that it is granted.
struct Scene {
    app: TestDatabase,
    raw: Raw,
    grants: Arc<Grants>,
}

impl Scene {
    /// With a table `t` of numbers that has no number twice, and holds 1.
    async fn new(engine: Engine) -> Self {
        let app = TestDatabase::empty(engine).await;
        let mut raw = Raw::connect(app.url()).await;
        raw.execute("create table t (n integer primary key, v integer); insert into t values (1, 0)").await;
        let acquire_timeout = Duration::from_millis(500);
        let config =
            DatabaseConfig { url: app.url().clone(), max_connections: 4, acquire_timeout, max_size: None };
        let databases = Databases::open(&BTreeMap::from([(name("app"), config)]));
        let plugin = PluginConfig {
            component: PathBuf::new().into(),
            digest: None,
            config: BTreeMap::new(),
            jobs: BTreeSet::new(),
            limits: Limits { memory: MEMORY, timeout: LONG, ..Limits::default() },
            capabilities: innkeeper::capability::Capabilities::default(),
            databases: BTreeMap::from([(name("app"), GrantConfig::default())]),
            default_database: Some(name("app")),
        };
        let grants = Arc::new(Grants::new(&databases, &name("probe"), &plugin));
        Self { app, raw, grants }
    }

    async fn call(&self, handler: &str, args: Value) -> Outcome {
        self.call_for(handler, args, LONG, Arc::new(Lines::default())).await
    }

    async fn call_for(&self, handler: &str, args: Value, timeout: Duration, port: Arc<Lines>) -> Outcome {
        let (runtime, component) = probe().await;
        let call = Call {
            attempt: &attempt("probe", handler, args, timeout),
            config: Arc::default(),
            capabilities: Arc::new(Granted::nothing()),
            session: Session::new(Arc::clone(&self.grants), format!("job {handler}"), timeout),
            port,
            limits: Limits::default(),
            stop: &Stop::new(),
        };
        runtime.call(component, call).await.outcome
    }

    /// The result of a call that must succeed.
    async fn result(&self, handler: &str, args: Value) -> Value {
        match self.call(handler, args).await {
            Outcome::Succeeded(result) => result,
            other => panic!("it did not succeed: {other:?}"),
        }
    }

    /// The numbers in the table.
    async fn numbers(&mut self) -> Vec<String> {
        self.raw.texts("select cast(n as text) from t order by t.n").await
    }
}

/// A port that passes on the messages of log lines.
#[derive(Default)]
struct Lines(Option<mpsc::UnboundedSender<String>>);

#[async_trait]
impl Port for Lines {
    async fn log(&self, lines: Vec<LogLine>) {
        for (line, lines) in lines.into_iter().zip(self.0.iter().cycle()) {
            let _nobody_listens = lines.send(line.message);
        }
    }

    async fn progress(&self, _progress: Progress) {}

    async fn save_checkpoint(&self, _state: Value) -> Result<(), String> {
        Ok(())
    }

    fn cancelled(&self) -> bool {
        false
    }

    async fn enqueue(&self, _request: EnqueueRequest) -> Result<uuid::Uuid, EnqueueError> {
        Err(EnqueueError::Denied("nothing is enqueued here".to_owned()))
    }
}

/// Its kind and its message.
#[track_caller]
fn failure(outcome: Outcome) -> (FailureKind, String) {
    match outcome {
        Outcome::Failed(failure) => (failure.kind, failure.message),
        other => panic!("it did not fail: {other:?}"),
    }
}

const INSERT_2: &str = "insert into t values (2, 0)";
const INSERT_1_AGAIN: &str = "insert into t values (1, 0)";

on_both_engines! {
    async fn a_whole_call_is_committed_when_the_handler_returns(engine: Engine) {
        let mut scene = Scene::new(engine).await;
        let args = json!({"statements": [INSERT_2, "update t set v = 1"]});
        assert_eq!(scene.result("whole-call", args).await, json!([1, 2]));
        assert_eq!(scene.numbers().await, ["1", "2"]);
    }

    async fn a_whole_call_is_rolled_back_when_the_handler_does_not_return(engine: Engine) {
        let mut scene = Scene::new(engine).await;
        for (then, kind, said) in [
            ("fail", FailureKind::Handler, "told to fail"),
            ("fail-permanently", FailureKind::Permanent, "told to fail"),
            ("panic", FailureKind::Trap, "told to panic"),
            ("spin", FailureKind::Timeout, "time-out"),
            ("sleep", FailureKind::Timeout, "time-out"),
        ] {
            let timeout = if kind == FailureKind::Timeout { Duration::from_secs(1) } else { LONG };
            let args = json!({"statements": [INSERT_2], "then": then});
            let outcome = scene.call_for("whole-call", args, timeout, Arc::default()).await;
            let (found, message) = failure(outcome);
            assert!(found == kind && message.contains(said), "{then}: {found:?}: {message}");
            assert_eq!(scene.numbers().await, ["1"], "{then}");
            // The writer's turn is free as well, and the table is not locked.
            scene.raw.execute("begin; update t set v = v + 1; rollback").await;
        }
    }

    async fn a_whole_call_whose_statement_failed_commits_nothing_even_if_the_handler_goes_on(engine: Engine) {
        let mut scene = Scene::new(engine).await;
        let args = json!({"statements": [INSERT_2, INSERT_1_AGAIN], "ignore_errors": true});
        let (kind, message) = failure(scene.call("whole-call", args).await);
        assert!(kind == FailureKind::Permanent && message.contains("nothing was committed"), "{message}");
        assert_eq!(scene.numbers().await, ["1"]);
    }

    async fn a_whole_call_whose_result_the_host_cannot_keep_commits_nothing(engine: Engine) {
        let mut scene = Scene::new(engine).await;
        let args = json!({"statements": [INSERT_2], "then": "return-too-much"});
        let (kind, message) = failure(scene.call("whole-call", args).await);
        assert!(kind == FailureKind::Permanent && message.contains("at most 1048576"), "{message}");
        assert!(message.contains("rolled back"), "{message}");
        assert_eq!(scene.numbers().await, ["1"]);
    }

    async fn the_free_functions_are_no_part_of_a_whole_call(engine: Engine) {
        let mut scene = Scene::new(engine).await;
        let args = json!({"statements": [INSERT_2], "free": "insert into t values (3, 0)", "then": "fail"});
        let (kind, message) = failure(scene.call("whole-call", args).await);
        assert_eq!(kind, FailureKind::Handler, "{message}");
        match engine {
            Engine::Postgres => {
                assert_eq!(scene.numbers().await, ["1", "3"], "what they have committed stays");
            }
            // One writer at a time: it would wait for itself.
            Engine::Sqlite => {
                assert!(message.contains("one writer at a time"), "{message}");
                assert_eq!(scene.numbers().await, ["1"]);
            }
        }
    }

    async fn the_options_of_a_whole_call_reach_the_database(engine: Engine) {
        let mut scene = Scene::new(engine).await;
        let read = json!({"sql": "select count(*) from t"});
        assert_eq!(scene.result("whole-read", read).await, json!(1));
        let write = json!({"sql": "insert into t values (2, 0) returning n"});
        let (kind, message) = failure(scene.call("whole-read", write).await);
        assert!(kind == FailureKind::Permanent && message.contains("read-only"), "{message}");
        assert_eq!(scene.numbers().await, ["1"]);
        if engine == Engine::Postgres {
            let level = "select (current_setting('transaction_isolation') = 'serializable')::int::int8";
            assert_eq!(scene.result("whole-read", json!({"sql": level})).await, json!(1));
        }
    }

    async fn a_group_of_statements_fails_alone_when_it_is_nested(engine: Engine) {
        let mut scene = Scene::new(engine).await;
        let groups = json!({"groups": [
            [INSERT_2],
            ["insert into t values (3, 0)", INSERT_1_AGAIN, "insert into t values (4, 0)"],
            ["insert into t values (5, 0)"],
        ]});
        let result = scene.result("nested", groups).await;
        assert_eq!((&result[0], &result[2]), (&Value::Null, &Value::Null));
        assert_eq!(result[1]["kind"], "unique-violation");
        assert_eq!(scene.numbers().await, ["1", "2", "5"]);
    }

    async fn savepoints_bring_a_failed_transaction_back(engine: Engine) {
        let mut scene = Scene::new(engine).await;
        let step = |op: &str, sql: &str| json!({"op": op, "tx": 1, "sql": sql});
        let to = |op: &str, savepoint: u32| json!({"op": op, "tx": 1, "savepoint": savepoint});
        // Their numbers are the transaction's own, from 1.
        let steps = json!([
            step("begin", ""),
            step("savepoint", ""),
            step("tx-execute", INSERT_2),
            step("savepoint", ""),
            step("tx-execute", INSERT_1_AGAIN),
            step("tx-query", "select 1"),
            to("rollback-to", 2),
            step("tx-query", "select count(*) from t"),
            to("release", 1),
            to("rollback-to", 2),
            step("commit", ""),
        ]);
        let result = scene.result("sql", json!({"steps": steps})).await;
        assert_eq!(result[1], json!({"savepoint": 1}));
        assert_eq!(result[4]["error"]["kind"], "unique-violation");
        assert_eq!(result[5]["error"]["kind"], "statement", "a failed transaction takes no statement");
        assert_eq!((&result[6], &result[7]["rows"]), (&json!({"ok": true}), &json!([[2]])));
        assert_eq!(result[8], json!({"ok": true}));
        assert_eq!(result[9]["error"]["kind"], "closed", "it was forgotten with the one before it");
        assert_eq!(result[10], json!({"ok": true}), "which has failed no transaction");
        assert_eq!(scene.numbers().await, ["1", "2"]);
    }

    async fn many_parameter_lists_are_one_transaction(engine: Engine) {
        let mut scene = Scene::new(engine).await;
        let many = |op: &str, lists: Value| {
            json!({"op": op, "tx": 1, "sql": "insert into t values ($1, $2)", "lists": lists})
        };
        let result = scene
            .result("sql", json!({"steps": [
                many("execute-many", json!([[2, 0], [3, null]])),
                many("execute-many", json!([[4, 0], [1, 0], [5, 0]])),
                {"op": "begin", "tx": 1},
                many("tx-execute-many", json!([[6, 0]])),
                many("tx-execute-many", json!([])),
                {"op": "commit", "tx": 1},
            ]}))
            .await;
        assert_eq!(result[0], json!({"changed": 2}));
        assert_eq!(result[1]["error"]["kind"], "unique-violation");
        assert_eq!((&result[3], &result[4]), (&json!({"changed": 1}), &json!({"changed": 0})));
        assert_eq!(scene.numbers().await, ["1", "2", "3", "6"], "all or nothing of each");
    }

    async fn a_million_rows_pass_a_guest_in_little_memory(engine: Engine) {
        let scene = Scene::new(engine).await;
        let series = match engine {
            Engine::Postgres => "select n::int8, repeat('x', 100) from generate_series(1, 1000000) as s(n)",
            Engine::Sqlite => {
                "with recursive s(n) as (select 1 union all select n + 1 from s where n < 1000000) \
                 select n, printf('%.100c', 'x') from s"
            }
        };
        let result = scene.result("stream", json!({"sql": series, "batch": 1000})).await;
        assert_eq!((&result["count"], &result["sum"]), (&json!(1_000_000), &json!(500_000_500_000_u64)));
        let bytes = |key: &str| result[key].as_u64().expect("it is a number");
        let grown = bytes("memory_after") - bytes("memory_before");
        assert!(grown < 4 << 20, "of 100 MB of rows, {grown} bytes are held");
    }
}

/// Retries on PostgreSQL, where two transactions can meet in a statement or at the commit.
mod conflicts {
    use super::*;

    /// Two readers of all that each add a row: either order explains one of them, none both.
    fn write_skew(times: u32) -> Value {
        json!({
            "isolation": "serializable",
            "before": ["select sum(v) from t", "insert into t values (2, 1)"],
            "interfere": ["select sum(v) from t", "insert into t values ((select max(n) + 100 from t), 1)"],
            "times": times,
            "after": [],
        })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_transaction_that_loses_at_its_commit_is_run_again() {
        let mut scene = Scene::new(Engine::Postgres).await;
        let result = scene.result("retry-on-conflict", write_skew(2)).await;
        assert_eq!(result, json!({"runs": 3, "error": null}));
        assert_eq!(scene.numbers().await, ["1", "2", "101", "201"], "it is committed once");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_transaction_that_loses_in_a_statement_is_run_again_whatever_the_closure_makes_of_the_error() {
        for on_error in ["pass-on", "reword", "ignore"] {
            let mut scene = Scene::new(Engine::Postgres).await;
            let args = json!({
                "isolation": "repeatable-read",
                "before": ["select * from t"],
                "interfere": ["update t set v = v + 1"],
                "times": 1,
                "after": ["update t set v = v + 10"],
                "on_error": on_error,
            });
            let result = scene.result("retry-on-conflict", args).await;
            assert_eq!(result, json!({"runs": 2, "error": null}), "{on_error}");
            assert_eq!(scene.raw.count("select v::int8 from t").await, 11, "{on_error}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_transaction_that_always_loses_gives_up_after_five_runs() {
        let mut scene = Scene::new(Engine::Postgres).await;
        let result = scene.result("retry-on-conflict", write_skew(100)).await;
        assert_eq!(result["runs"], json!(5));
        let error = result["error"].as_str().expect("it fails in the end");
        assert!(error.contains("conflict, code 40001"), "{error}");
        assert_eq!(scene.numbers().await, ["1", "101", "201", "301", "401", "501"], "nothing of it is there");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_error_that_is_no_conflict_is_not_run_again() {
        let scene = Scene::new(Engine::Postgres).await;
        let args = json!({"before": [], "after": [INSERT_1_AGAIN]});
        let result = scene.result("retry-on-conflict", args).await;
        assert_eq!(result["runs"], json!(1));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn on_sqlite_a_transaction_that_waited_in_vain_for_its_turn_begins_again() {
        let scene = Scene::new(Engine::Sqlite).await;
        let mut other = Raw::connect(scene.app.url()).await;
        other.lock("").await;
        let (sender, mut lines) = mpsc::unbounded_channel();
        let args = json!({"before": [], "after": [INSERT_2]});
        let call = scene.call_for("retry-on-conflict", args, LONG, Arc::new(Lines(Some(sender))));
        let unlock = async {
            let line = lines.recv().await.expect("it says that it begins again");
            assert!(line.contains("runs again, 2 of 5 times") && line.contains("writer's turn"), "{line}");
            other.unlock().await;
        };
        let (outcome, ()) = tokio::join!(call, unlock);
        assert_eq!(outcome, Outcome::Succeeded(json!({"runs": 1, "error": null})));
    }
}
