//! The phases of an execution, with the real binary: what must hold between START, the call
//! and COMPLETION, whatever happens in them.

use std::collections::BTreeSet;

use innkeeper::execution::{FailureKind, State};
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, until};
use innkeeper_tests::on_both_engines;
use innkeeper_tests::raw::{Raw, make_gate, open_gate};
use serde_json::{Value, json};

/// Jobs without a schedule, one for each handler that is used here; attempts follow at once.
const JOBS: &str = r#"
[jobs.hold]
plugin = "probe"
handler = "hold"
args = { gate = "main" }
timeout = "5m"
retry = { max_attempts = 3, initial = "10ms", maximum = "10ms" }

[jobs.hold-or-fail]
plugin = "probe"
handler = "hold"
args = { gate = "main" }
timeout = "5m"
on_crash = "fail"

[jobs.sql]
plugin = "probe"
handler = "sql"
args = { steps = [] }
timeout = "1s"
retry = { max_attempts = 1 }

[jobs.slow-sql]
plugin = "probe"
handler = "sql"
args = { steps = [] }
timeout = "5m"
retry = { max_attempts = 1 }

[jobs.flaky]
plugin = "probe"
handler = "fail-until"
args = { attempt = 3 }
retry = { max_attempts = 3, initial = "10ms", maximum = "10ms" }

[jobs.echo]
plugin = "probe"
handler = "echo"
"#;

/// Waits until so many handlers are inside their calls.
async fn wait_inside(app: &mut Raw, count: i64) {
    until(&format!("{count} handlers are inside"), async || {
        (app.count("select count(*) from inside").await >= count).then_some(())
    })
    .await;
}

/// Waits until a backend of the host's store waits for a lock.
async fn wait_until_blocked(store: &mut Raw) {
    let blocked = "select count(*) from pg_stat_activity where datname = current_database() \
                   and application_name like 'innkeeper%' and wait_event_type = 'Lock'";
    until("the host waits for the lock", async || (store.count(blocked).await > 0).then_some(())).await;
}

on_both_engines! {
    async fn while_handlers_run_the_host_holds_no_transaction_on_their_behalf(engine: Engine) {
        let scene = Scene::new(engine).await;
        let mut app = Raw::connect(scene.app.url()).await;
        make_gate(&mut app).await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let mut ids = Vec::new();
        for _ in 0..32 {
            ids.push(scene.run("hold", &json!({"gate": "main"})));
        }
        wait_inside(&mut app, 32).await;

        let mut records = Raw::connect(scene.store.url()).await;
        if engine == Engine::Postgres {
            // What was open at this moment and still is can only be held for the executions:
            // every phase of others ends by itself.
            let since = records.texts("select now()::text").await.remove(0);
            let held = format!(
                "select count(*) from pg_stat_activity where datname = current_database() \
                 and application_name like 'innkeeper%' and xact_start <= '{since}'"
            );
            until("no transaction is held", async || (records.count(&held).await == 0).then_some(())).await;
            // `max_connections = 1` in the scene: one for the phases, one for the heartbeat.
            let connections = "select count(*) from pg_stat_activity where datname = current_database() \
                               and application_name like 'innkeeper%' and pid <> pg_backend_pid() \
                               and client_addr is not null";
            assert!(records.count(connections).await <= 2 + 2, "two of the host, two of this test");
        } else {
            // SQLite lets one write: it has a turn for somebody else while 32 handlers run.
            records.lock("").await;
            records.unlock().await;
        }
        assert_eq!(app.count("select count(*) from gate").await, 0, "nobody was let out");

        open_gate(&mut app, "main").await;
        for id in ids {
            assert_eq!(scene.wait_for_end(&store, id).await.state, State::Succeeded);
        }
        host.stop().await;
    }

    async fn every_transaction_has_ended_before_the_completion_is_recorded(engine: Engine) {
        let scene = Scene::new(engine).await;
        let mut app = Raw::connect(scene.app.url()).await;
        app.execute("create table t (id integer primary key, who text); insert into t values (1, 'before')").await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let endless = match engine {
            Engine::Postgres => "select pg_sleep(600)",
            Engine::Sqlite => "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n",
        };
        let recursive = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";
        let update = json!({"op": "tx-execute", "tx": 1, "sql": "update t set who = 'guest' where id = 1", "must": true});
        let begin = json!({"op": "begin", "tx": 1, "must": true});
        let ends = [
            ("return", State::Succeeded, None),
            ("leak", State::Succeeded, None),
            ("fail-permanently", State::Failed, Some(FailureKind::Permanent)),
            ("panic", State::Failed, Some(FailureKind::Trap)),
            ("spin", State::Failed, Some(FailureKind::Timeout)),
            ("sleep", State::Failed, Some(FailureKind::Timeout)),
        ];
        let mut cases = ends
            .map(|(then, state, kind)| {
                let program = json!({"steps": [begin, update], "then": then, "message": "m", "ms": 600_000});
                (then, program, state, kind)
            })
            .to_vec();
        for (name, query) in [("a query that waits", endless), ("a query that never ends", recursive)] {
            let query = json!({"op": "tx-query", "tx": 1, "sql": query});
            let program = json!({"steps": [begin, update, query]});
            cases.push((name, program, State::Failed, Some(FailureKind::Timeout)));
        }
        for (name, program, state, kind) in cases {
            let id = scene.run("sql", &program);
            let record = scene.wait_for_end(&store, id).await;
            assert_eq!((record.state, record.error.map(|error| error.kind)), (state, kind), "{name}");
            // At this very moment the row is free, and nothing of the guest's is left.
            app.execute("begin; update t set who = 'test' where id = 1; rollback").await;
            assert_eq!(app.texts("select who from t").await, ["before"], "{name}");
            if engine == Engine::Postgres {
                let open = "select count(*) from pg_stat_activity where datname = current_database() \
                            and pid <> pg_backend_pid() and state <> 'idle'";
                assert_eq!(app.count(open).await, 0, "{name}");
            }
        }
        host.stop().await;
    }

    async fn a_handler_that_works_and_then_fails_leaves_exactly_what_it_committed(engine: Engine) {
        let scene = Scene::new(engine).await;
        let mut app = Raw::connect(scene.app.url()).await;
        app.execute("create table t (who text)").await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let program = json!({
            "steps": [
                {"op": "execute", "sql": "insert into t values ('on its own')", "must": true},
                {"op": "begin", "tx": 1, "must": true},
                {"op": "tx-execute", "tx": 1, "sql": "insert into t values ('committed')", "must": true},
                {"op": "commit", "tx": 1, "must": true},
                {"op": "begin", "tx": 2, "must": true},
                {"op": "tx-execute", "tx": 2, "sql": "insert into t values ('open')", "must": true},
            ],
            "then": "fail",
            "message": "the report could not be sent",
        });
        let id = scene.run("sql", &program);
        let record = scene.wait_for_end(&store, id).await;
        assert_eq!(record.state, State::Failed);
        let error = record.error.expect("a failure has an error");
        assert_eq!((error.kind, error.message.as_str()), (FailureKind::Handler, "the report could not be sent"));
        assert_eq!(app.texts("select who from t order by who").await, ["committed", "on its own"]);
        host.stop().await;
    }

    async fn a_failed_attempt_is_tried_again_until_one_succeeds(engine: Engine) {
        let scene = Scene::new(engine).await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let id = scene.run("flaky", &json!({"attempt": 3}));
        let record = scene.wait_for_end(&store, id).await;
        assert_eq!((record.state, record.attempt, record.result), (State::Succeeded, 3, Some(json!(3))));
        let id = scene.run("flaky", &json!({"attempt": 4}));
        let record = scene.wait_for_end(&store, id).await;
        assert_eq!((record.state, record.attempt), (State::Failed, 3));
        host.stop().await;
    }

    async fn a_host_that_is_killed_while_handlers_run_loses_none_and_each_is_treated_as_its_job_says(engine: Engine) {
        let scene = Scene::new(engine).await;
        let mut app = Raw::connect(scene.app.url()).await;
        make_gate(&mut app).await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let retried = scene.run("hold", &json!({"gate": "main"}));
        let failed = scene.run("hold-or-fail", &json!({"gate": "main"}));
        wait_inside(&mut app, 2).await;
        host.kill();
        open_gate(&mut app, "main").await;

        let host = scene.serve(JOBS).await;
        let record = scene.wait_for_end(&store, retried).await;
        assert_eq!((record.state, record.attempt), (State::Succeeded, 2), "the crash counts as an attempt");
        let record = scene.wait_for_end(&store, failed).await;
        let error = record.error.expect("a failure has an error");
        assert_eq!((record.state, record.attempt, error.kind), (State::Failed, 1, FailureKind::Crashed));
        assert!(error.message.contains("inn-1"), "it names the host: {}", error.message);
        host.stop().await;
    }

    async fn a_host_that_is_killed_before_its_completion_is_recorded_runs_the_execution_again(engine: Engine) {
        let scene = Scene::new(engine).await;
        let mut app = Raw::connect(scene.app.url()).await;
        app.execute("create table t (who text)").await;
        make_gate(&mut app).await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let id = scene.run("hold", &json!({"gate": "main"}));
        wait_inside(&mut app, 1).await;
        let mut records = Raw::connect(scene.store.url()).await;
        records.lock("innkeeper.completion").await;
        open_gate(&mut app, "main").await;
        if engine == Engine::Postgres {
            wait_until_blocked(&mut records).await;
        }
        host.kill();
        records.unlock().await;
        let record = store.execution(id).await.unwrap().expect("it is there");
        assert_eq!(record.state, State::Running, "no host has looked yet");

        let host = scene.serve(JOBS).await;
        let record = scene.wait_for_end(&store, id).await;
        assert_eq!((record.state, record.attempt), (State::Succeeded, 2));
        host.stop().await;
    }

    async fn a_host_that_is_killed_before_a_start_is_recorded_costs_no_attempt(engine: Engine) {
        let scene = Scene::new(engine).await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let mut records = Raw::connect(scene.store.url()).await;
        let id = if engine == Engine::Postgres {
            records.lock("innkeeper.start").await;
            // Not by the command line, which looks at the execution, and so at its starts.
            let id = enqueue(&store, "echo").await;
            wait_until_blocked(&mut records).await;
            id
        } else {
            // SQLite has one writer, so that nothing can be enqueued beside the lock; what
            // another process does between the two is the race that is meant.
            let id = scene.run("echo", &json!(1));
            records.lock("").await;
            id
        };
        host.kill();
        records.unlock().await;
        let before = store.execution(id).await.unwrap().expect("it is there");

        let host = scene.serve(JOBS).await;
        let record = scene.wait_for_end(&store, id).await;
        assert_eq!(record.state, State::Succeeded);
        if before.state == State::Queued {
            assert_eq!(record.attempt, 1);
        }
        host.stop().await;
    }

    async fn a_host_that_is_killed_before_a_fire_is_recorded_makes_it_up(engine: Engine) {
        let jobs = "[jobs.tick]\nplugin = \"probe\"\nhandler = \"echo\"\nschedule = { every = \"1s\" }\n";
        let scene = Scene::new(engine).await;
        let host = scene.serve(jobs).await;
        let store = scene.open_store().await;
        wait_for_fires(&store, 1).await;
        let mut records = Raw::connect(scene.store.url()).await;
        records.lock("innkeeper.execution").await;
        if engine == Engine::Postgres {
            wait_until_blocked(&mut records).await;
        }
        host.kill();
        records.unlock().await;
        let before = fires(&store).await;

        let host = scene.serve(jobs).await;
        wait_for_fires(&store, before.len() + 2).await;
        let after = fires(&store).await;
        host.stop().await;
        assert_unique(&after);
        assert!(before.iter().all(|at| after.contains(at)), "what was recorded is still there");
    }

    async fn the_hosts_records_never_wait_for_a_plugins_pool(engine: Engine) {
        let scene = Scene::new(engine).await.with("databases.app", "max_connections = 2\nacquire_timeout = \"100ms\"");
        let mut app = Raw::connect(scene.app.url()).await;
        app.execute("create table t (who text)").await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let read_only = engine == Engine::Sqlite;
        let program = json!({
            "steps": [
                {"op": "begin", "tx": 1, "must": true, "read_only": read_only},
                {"op": "tx-query", "tx": 1, "sql": "select * from t", "must": true},
            ],
            "then": "sleep",
            "ms": 600_000,
        });
        let taken = [scene.run("slow-sql", &program), scene.run("slow-sql", &program)];
        // Every connection is taken once a third handler is told so.
        until("the pool is empty", async || {
            let query = json!({"steps": [{"op": "query", "sql": "select * from t"}]});
            let id = scene.run("slow-sql", &query);
            let record = scene.wait_for_end(&store, id).await;
            let result = record.result.expect("it returns what it was told");
            (result[0]["error"]["kind"] == "busy").then_some(())
        })
        .await;

        let mut records = Raw::connect(scene.store.url()).await;
        let table = if engine == Engine::Postgres { "innkeeper.host_session" } else { "host_session" };
        let expiry = match engine {
            Engine::Postgres => format!("select max(extract(epoch from expires_at) * 1000000)::bigint from {table}"),
            Engine::Sqlite => format!("select max(expires_at) from {table}"),
        };
        let before = records.count(&expiry).await;
        for number in 0..20 {
            let id = scene.run("echo", &json!(number));
            assert_eq!(scene.wait_for_end(&store, id).await.state, State::Succeeded);
        }
        until("heartbeats go on", async || (records.count(&expiry).await > before).then_some(())).await;
        for id in taken {
            let state = store.execution(id).await.unwrap().expect("it is there").state;
            assert_eq!(state, State::Running, "the connections were taken all the while");
        }
        host.kill();
    }

    async fn a_host_that_is_killed_across_fire_times_makes_each_of_them_one_execution_at_most(engine: Engine) {
        let jobs = "[jobs.tick]\nplugin = \"probe\"\nhandler = \"echo\"\nschedule = { every = \"1s\" }\n";
        let scene = Scene::new(engine).await;
        let host = scene.serve(jobs).await;
        let store = scene.open_store().await;
        wait_for_fires(&store, 2).await;
        host.kill();
        let killed_at = innkeeper::clock::now();
        until("three fire times have passed", async || {
            (innkeeper::clock::now().duration_since(killed_at).as_secs() >= 4).then_some(())
        })
        .await;
        let before = fires(&store).await;

        let host = scene.serve(jobs).await;
        wait_for_fires(&store, before.len() + 2).await;
        let after = fires(&store).await;
        host.stop().await;
        assert_unique(&after);
        let missed = after.iter().filter(|at| **at > killed_at && !before.contains(at)).min().expect("it went on");
        let gap = missed.duration_since(killed_at).as_secs();
        assert!(gap >= 2, "of the missed fires the latest alone runs, not one {gap} s after the kill");
        let skipped = skipped(&store).await;
        assert!(skipped.len() >= 2, "the others are on record: {skipped:?}");
        assert_unique(&after.into_iter().chain(skipped).collect::<Vec<_>>());
    }

    async fn a_drain_tells_handlers_to_stop_and_gives_back_what_does_not(engine: Engine) {
        let jobs = "[jobs.polite]\nplugin = \"probe\"\nhandler = \"cancelled\"\n\n\
                    [jobs.stubborn]\nplugin = \"probe\"\nhandler = \"spin\"\ntimeout = \"5m\"\n";
        let scene = Scene::new(engine).await.with("host", "drain_timeout = \"1s\"");
        let host = scene.serve(jobs).await;
        let store = scene.open_store().await;
        let polite = scene.run("polite", &Value::Null);
        let stubborn = scene.run("stubborn", &Value::Null);
        for id in [polite, stubborn] {
            scene.wait_for(&store, id, &[State::Running]).await;
        }
        host.stop().await;
        let record = store.execution(polite).await.unwrap().expect("it is there");
        assert_eq!((record.state, record.result), (State::Succeeded, Some(json!({"cancelled": true}))));
        let record = store.execution(stubborn).await.unwrap().expect("it is there");
        assert_eq!((record.state, record.attempt), (State::Queued, 0), "a drain costs no attempt");
    }
}

async fn enqueue(store: &innkeeper::store::Store, job: &str) -> uuid::Uuid {
    let execution = innkeeper::store::NewExecution {
        job: &innkeeper::job::Name::new(job).expect("a name"),
        args: None,
        triggered_by: innkeeper::execution::Trigger::Manual,
        run_at: None,
        unique_key: None,
        by: None,
    };
    store.enqueue(&execution).await.expect("it is enqueued").id
}

/// The fire times that were run, or are to be.
async fn fires(store: &innkeeper::store::Store) -> Vec<jiff::Timestamp> {
    let filter = innkeeper::store::ExecutionFilter { job: None, state: None, before: None, limit: 1000 };
    let records = store.executions(&filter).await.expect("the store answers");
    let run = records.into_iter().filter(|record| record.state != State::Skipped);
    run.map(|record| record.scheduled_at).collect()
}

/// The fire times that are on record as skipped.
async fn skipped(store: &innkeeper::store::Store) -> Vec<jiff::Timestamp> {
    let state = Some(State::Skipped);
    let filter = innkeeper::store::ExecutionFilter { job: None, state, before: None, limit: 1000 };
    let records = store.executions(&filter).await.expect("the store answers");
    records.into_iter().map(|record| record.scheduled_at).collect()
}

async fn wait_for_fires(store: &innkeeper::store::Store, count: usize) {
    until(&format!("it has fired {count} times"), async || (fires(store).await.len() >= count).then_some(()))
        .await;
}

fn assert_unique(fires: &[jiff::Timestamp]) {
    let unique = fires.iter().collect::<BTreeSet<_>>();
    assert_eq!(unique.len(), fires.len(), "a fire time became two executions: {fires:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_on_one_postgresql_make_one_execution_of_each_fire_time() {
    let jobs = "[jobs.tick]\nplugin = \"probe\"\nhandler = \"echo\"\nschedule = { every = \"500ms\" }\n";
    let scene = Scene::new(Engine::Postgres).await;
    let first = scene.serve_as("inn-1", jobs).await;
    let second = scene.serve_as("inn-2", jobs).await;
    let store = scene.open_store().await;
    wait_for_fires(&store, 8).await;
    let all = fires(&store).await;
    first.stop().await;
    second.stop().await;
    assert_unique(&all);
    let mut records = Raw::connect(scene.store.url()).await;
    let twice =
        "select count(*) from (select execution_id from innkeeper.start group by 1 having count(*) > 1) t";
    assert_eq!(records.count(twice).await, 0, "no execution was started twice");
}
