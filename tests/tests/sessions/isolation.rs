//! Task types that run at once and hold their transactions open share nothing.

use innkeeper::execution::{FailureKind, State};
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, until};
use innkeeper_tests::on_both_engines;
use serde_json::{Value, json};

use crate::stage::{Stage, begin, commit, execute, job, own_query, query, reach, wait};

const ALL: &str = "select who from t order by who";

/// What a session has besides its transaction.
fn belongings(engine: Engine) -> Value {
    query(match engine {
        Engine::Postgres => {
            "select (select count(*) from pg_class where relnamespace = pg_my_temp_schema()), \
             (select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'), \
             coalesce(nullif(current_setting('innkeeper.who', true), ''), 'nobody')"
        }
        Engine::Sqlite => "select count(*), 0, 'nobody' from sqlite_temp_master",
    })
}

/// What a handler does in its transaction before it waits there. SQLite has one writer at a time:
/// the others only read.
fn enter(engine: Engine, who: &str, writes: bool) -> Vec<Value> {
    let mut steps = vec![begin(&json!({"read_only": !writes}))];
    if writes {
        steps.push(execute("create temp table mine (who text)"));
        steps.push(execute(&format!("insert into mine values ('{who}')")));
        steps.push(execute(&format!("insert into t values ('{who}')")));
    }
    if engine == Engine::Postgres {
        steps.push(query(&format!("select set_config('innkeeper.who', '{who}', false)")));
        steps.push(query(&format!("select pg_advisory_lock(hashtext('{who}'))::text")));
    }
    steps.extend([query(ALL), reach(1), wait(who), query(ALL), belongings(engine), own_query(ALL)]);
    steps
}

on_both_engines! {
    async fn handlers_that_hold_transactions_open_at_once_share_no_session(engine: Engine) {
        let plugins = ["alpha", "beta", "gamma", "delta", "reader", "visitor"];
        let jobs = plugins.map(|plugin| job(plugin, if plugin == "delta" { "3s" } else { "5m" })).concat();
        let scene = Scene::new(engine).await;
        let mut stage = Stage::new(scene, "create table t (who text)", &plugins, &jobs).await;
        let write = engine == Engine::Postgres;
        let end = |who: &str, writes, last: Value| [enter(engine, who, writes), vec![last]].concat();
        let alpha = stage.script("alpha", &end("alpha", true, commit())).await;
        let beta = stage.script("beta", &end("beta", write, json!({"fail": {"message": "no"}}))).await;
        let gamma = stage.script("gamma", &end("gamma", write, json!({"panic": {"message": "no"}}))).await;
        let snapshot = [
            begin(&json!({"read_only": true, "repeatable_read": true})), query(ALL), reach(1), wait("reader"),
            query(ALL), own_query(ALL), commit(),
        ];
        let reader = stage.script("reader", &snapshot).await;
        for id in [alpha, beta, gamma, reader] {
            stage.reached(id, 1).await;
        }
        // It runs out of time at a gate that is never opened.
        let delta = stage.script("delta", &enter(engine, "delta", write)).await;
        stage.reached(delta, 1).await;
        if engine == Engine::Postgres {
            let sessions = "select count(distinct pid) from pg_stat_activity where datname = current_database() \
                            and state = 'idle in transaction' and application_name like 'innkeeper plugin %'";
            assert_eq!(stage.app.count(sessions).await, 5, "each holds a transaction of its own");
        }

        // Beside them, another one sees none of what they have, and commits what it has.
        let mut visit = vec![begin(&json!({"read_only": !write})), belongings(engine), query(ALL)];
        if write {
            visit.push(execute("insert into t values ('visitor')"));
        }
        visit.extend([commit(), own_query(ALL)]);
        let seen = stage.play("visitor", &visit).await;
        let visited = if write { json!([["visitor"]]) } else { json!([]) };
        assert_eq!((&seen[1], &seen[2]), (&json!([[0, 0, "nobody"]]), &json!([])), "{seen}");
        assert_eq!(seen.as_array().and_then(|answers| answers.last()), Some(&visited), "{seen}");

        // An error, a panic and a time-out undo what is theirs and nothing else.
        let late = stage.scene.wait_for_end(&stage.store, delta).await;
        assert_eq!(late.error.map(|error| error.kind), Some(FailureKind::Timeout));
        for (id, who, kind) in [(beta, "beta", FailureKind::Handler), (gamma, "gamma", FailureKind::Trap)] {
            stage.open_gate(who).await;
            let record = stage.scene.wait_for_end(&stage.store, id).await;
            assert_eq!((record.state, record.error.map(|error| error.kind)), (State::Failed, Some(kind)), "{who}");
            let alphas = stage.store.execution(alpha).await.expect("the store answers").expect("it is there");
            assert_eq!(alphas.state, State::Running, "nobody else's end is its own");
            assert_eq!(json!(stage.app.texts(ALL).await.into_iter().map(|who| [who]).collect::<Vec<_>>()), visited);
        }

        stage.open_gate("alpha").await;
        let record = stage.scene.wait_for_end(&stage.store, alpha).await;
        assert_eq!(record.state, State::Succeeded, "{:?}", record.error);
        let answers = record.result.expect("a success has a result");
        let answers = answers.as_array().expect("a list");
        let own = if write { json!([["alpha"], ["visitor"]]) } else { json!([["alpha"]]) };
        let [before, inside, belongings, beside, committed] = &answers[answers.len() - 5..] else { unreachable!() };
        assert_eq!(before, &json!([["alpha"]]), "it sees its own work, and nobody else's");
        assert_eq!(inside, &own, "still its own, and what was committed since");
        let locks = i64::from(engine == Engine::Postgres);
        assert_eq!((&belongings[0][0], &belongings[0][1]), (&json!(1), &json!(locks)), "{belongings}");
        assert_eq!(beside, &visited, "a call beside the transaction does not see into it");
        assert_eq!(committed, &json!("ok"));

        stage.open_gate("reader").await;
        let record = stage.scene.wait_for_end(&stage.store, reader).await;
        let answers = record.result.unwrap_or_else(|| panic!("{:?}", record.error));
        assert_eq!((&answers[1], &answers[2]), (&json!([]), &json!([])), "its snapshot has stood still: {answers}");
        assert_eq!(answers[3], own, "and a call beside it sees what was committed: {answers}");
        stage.host.stop().await;
    }

    async fn nothing_of_a_session_passes_to_the_next_execution_or_to_another_plugin(engine: Engine) {
        let plugins = ["alpha", "beta"];
        let jobs = plugins.map(|plugin| job(plugin, "1m")).concat();
        for connections in [1, 4] {
            let pool = format!("max_connections = {connections}");
            let scene = Scene::new(engine).await.with("databases.app", &pool);
            let mut stage = Stage::new(scene, "create table t (who text)", &plugins, &jobs).await;
            let look = [begin(&json!({})), belongings(engine), json!({"query": {"tx": 1, "sql": "select * from mine"}})];
            for ending in [commit(), json!({"rollback": {"tx": 1}}), json!({"fail": {"message": "no"}})] {
                let mut steps = enter(engine, "nobody-waits", true);
                steps.retain(|step| step.get("wait").is_none());
                // The pool may have no second connection for a call beside the transaction.
                steps.retain(|step| *step != own_query(ALL));
                let id = stage.script("alpha", &[steps, vec![ending]].concat()).await;
                stage.scene.wait_for_end(&stage.store, id).await;
                for plugin in ["alpha", "beta", "alpha"] {
                    let seen = stage.play(plugin, &look).await;
                    assert_eq!(seen[1], json!([[0, 0, "nobody"]]), "{plugin}: {seen}");
                    assert_eq!(seen[2], json!({"error": "statement"}), "there is no such table: {seen}");
                }
            }
            assert_eq!(stage.app.count("select count(*) from t").await, 1, "one of three was committed");
            if engine == Engine::Postgres {
                let locks = "select count(*) from pg_locks where locktype = 'advisory'";
                until("no lock is left", async || (stage.app.count(locks).await == 0).then_some(())).await;
            }
            stage.host.stop().await;
        }
    }
}
