//! Every way in which an execution can end while a transaction with a change is open, and where
//! it makes sense a statement is running: by its own doing, by its time, and by the host's end.

use innkeeper::execution::{FailureKind, State};
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::until;
use innkeeper_tests::on_both_engines;
use serde_json::{Value, json};

use crate::ground::Ground;

const CATCHER: &str = "do $$ begin loop begin perform pg_sleep(600); \
                       exception when query_canceled then null; end; end loop; end $$";

const ENDLESS: &str = "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n";

const ENDLESS_CHANGE: &str = "insert into t with recursive n(i) as (select 2 union all select i + 1 from n) \
                              select i, 'more' from n";

/// Opens a transaction and changes a row in it.
fn opened() -> Vec<Value> {
    vec![
        json!({"op": "begin", "tx": 1, "must": true}),
        json!({"op": "tx-execute", "tx": 1, "sql": "update t set who = 'guest' where id = 1", "must": true}),
    ]
}

/// The steps so far, and this statement.
fn and(sql: &str) -> Vec<Value> {
    [opened(), vec![json!({"op": "tx-query", "tx": 1, "sql": sql})]].concat()
}

/// How each case ends, and what is recorded of it.
fn cases(engine: Engine) -> Vec<(&'static str, Value, State, Option<FailureKind>)> {
    let timed_out = (State::Failed, Some(FailureKind::Timeout));
    let mut cases = Vec::new();
    for (then, state, kind) in [
        ("return", State::Succeeded, None),
        ("leak", State::Succeeded, None),
        ("fail", State::Failed, Some(FailureKind::Handler)),
        ("fail-permanently", State::Failed, Some(FailureKind::Permanent)),
        ("panic", State::Failed, Some(FailureKind::Trap)),
        ("allocate", State::Failed, Some(FailureKind::Memory)),
        ("spin", timed_out.0, timed_out.1),
        ("sleep", timed_out.0, timed_out.1),
    ] {
        let program = |steps| json!({"steps": steps, "then": then, "message": "m", "ms": 600_000, "mib": 64});
        cases.push((then, program(opened()), state, kind));
        // With a savepoint, a cursor half-way, and a statement that has failed.
        let more = [
            json!({"op": "savepoint", "tx": 1, "must": true}),
            json!({"op": "open-cursor", "tx": 1, "cursor": 1, "sql": "select id from t union select 2", "must": true}),
            json!({"op": "fetch", "cursor": 1, "limit": 1, "must": true}),
            json!({"op": "tx-query", "tx": 1, "sql": "select * from missing"}),
        ];
        cases.push((then, program([opened(), more.to_vec()].concat()), state, kind));
    }
    let statements: &[&str] = match engine {
        Engine::Postgres => &["select pg_sleep(600)", ENDLESS, ENDLESS_CHANGE, CATCHER],
        Engine::Sqlite => &[ENDLESS, ENDLESS_CHANGE],
    };
    for sql in statements {
        cases.push((*sql, json!({"steps": and(sql)}), timed_out.0, timed_out.1));
        let alone = json!({"steps": [{"op": "query", "sql": *sql}]});
        cases.push((*sql, alone, timed_out.0, timed_out.1));
    }
    cases
}

on_both_engines! {
    async fn however_an_execution_ends_its_transaction_is_undone_before_that_is_recorded(engine: Engine) {
        let mut ground = Ground::new(engine, "").await;
        for (name, program, state, kind) in cases(engine) {
            let record = ground.run("end", &program).await;
            assert_eq!((record.state, record.error.as_ref().map(|error| error.kind)), (state, kind), "{name}: {:?}", record.error);
            // At this very moment the row is free.
            if engine == Engine::Sqlite {
                ground.app.execute("pragma busy_timeout = 5000").await;
            }
            ground.app.execute("begin; update t set who = 'test' where id = 1; rollback").await;
            assert_eq!(ground.app.texts("select who from t").await, ["before"], "{name}");
            ground.assert_clean(name).await;
        }
        ground.end("all of them").await;
    }

    async fn a_host_that_is_told_to_stop_leaves_nothing_open(engine: Engine) {
        let mut ground = Ground::new(engine, "").await;
        ground.rest().await;
        let held = hold_in_every_way(&mut ground, engine).await;
        ground.take_host().await.stop().await;
        // At this very moment, too.
        ground.app.execute("begin; update t set who = 'test' where id = 1; rollback").await;
        assert_eq!(ground.app.texts("select who from t").await, ["before"]);
        ground.assert_clean("SIGTERM").await;
        for id in held {
            let record = ground.store.execution(id).await.expect("the store answers").expect("it is there");
            assert_eq!((record.state, record.attempt), (State::Queued, 0), "a drain costs no attempt");
        }
    }

    async fn a_host_that_is_killed_leaves_nothing_open_for_long(engine: Engine) {
        let mut ground = Ground::new(engine, "").await;
        ground.rest().await;
        let held = hold_in_every_way(&mut ground, engine).await;
        ground.take_host().await.kill();
        // PostgreSQL notices within ten seconds, also in the middle of a statement.
        ground.assert_clean("SIGKILL").await;
        ground.app.execute("begin; update t set who = 'test' where id = 1; rollback").await;
        assert_eq!(ground.app.texts("select who from t").await, ["before"]);
        ground.restart().await;
        for id in held {
            let record = ground.scene.wait_for_end(&ground.store, id).await;
            let kind = record.error.map(|error| error.kind);
            assert_eq!((record.state, kind), (State::Failed, Some(FailureKind::Crashed)));
        }
        ground.end("a new host").await;
    }
}

/// Executions that hold a transaction open: one idle, and others in the middle of a statement.
async fn hold_in_every_way(ground: &mut Ground, engine: Engine) -> Vec<uuid::Uuid> {
    let mut held = Vec::new();
    let sleep = json!({"steps": opened(), "then": "sleep", "ms": 600_000});
    let statements: &[&str] = match engine {
        // The first one has the row, so that the others only read.
        Engine::Postgres => &["select pg_sleep(600)", ENDLESS],
        Engine::Sqlite => &[ENDLESS],
    };
    held.push(ground.enqueue("long-end", &sleep).await);
    for sql in statements {
        let read = json!({"op": "begin", "tx": 1, "read_only": true, "must": true});
        let steps = json!({"steps": [read, {"op": "tx-query", "tx": 1, "sql": sql}]});
        held.push(ground.enqueue("long-end", &steps).await);
    }
    for id in &held {
        ground.scene.wait_for(&ground.store, *id, &[State::Running]).await;
    }
    let count = i64::try_from(held.len()).expect("a few");
    if engine == Engine::Postgres {
        let open = "select count(*) from pg_stat_activity where datname = current_database() \
                    and application_name = 'innkeeper plugin ender' and xact_start is not null";
        until("all are in their transactions", async || {
            (ground.app.count(open).await == count).then_some(())
        })
        .await;
    } else {
        until("the writer's lock is held", async || {
            ground.app.try_execute("begin immediate; rollback").await.is_err().then_some(())
        })
        .await;
    }
    held
}
