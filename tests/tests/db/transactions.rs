//! What commits when, and what is isolated from what.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use innkeeper::config::DatabaseConfig;
use innkeeper::interfaces::db::{BeginOptions, Databases, ErrorKind, Grants, Isolation, Session};

use crate::database::{Engine, TestDatabase};
use crate::{Scene, TIME, assert_kind, int, name, on_both_engines, options, plugin_config, show_rows, text};

on_both_engines!(
    a_statement_that_succeeds_is_committed,
    a_statement_that_fails_changes_nothing,
    a_transaction_commits_only_by_commit,
    nothing_outside_sees_an_open_transaction,
    whatever_commit_and_rollback_answer_the_transaction_has_ended,
    the_number_of_a_transaction_is_never_used_again,
    a_failed_statement_fails_its_transaction,
    every_error_of_a_call_fails_its_transaction,
    a_commit_that_the_database_refuses_is_an_error_and_writes_nothing,
    a_read_only_transaction_refuses_to_write,
    every_isolation_level_is_met,
    a_read_does_not_wait_for_a_writer,
    what_loses_to_another_transaction_is_a_conflict,
    a_database_that_is_not_granted_is_denied_with_the_line_to_add,
    where_several_are_granted_and_none_is_the_default_the_call_must_name_one,
    a_plugin_uses_several_databases_by_name,
    while_handlers_are_described_every_call_is_denied,
    execute_answers_the_number_of_rows_that_it_changed,
);

async fn a_statement_that_succeeds_is_committed(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let changed = session.execute("INSERT INTO t VALUES ($1, $2)".into(), vec![int(1), text("a")]).await;
    assert_eq!(changed.unwrap(), 1);
    assert_eq!(scene.rows().await, 1);
    let returned = session.query("INSERT INTO t VALUES (2, 'b') RETURNING id".into(), vec![]).await.unwrap();
    assert_eq!(show_rows(&returned), [["Value::Integer(2)"]]);
    assert_eq!(scene.rows().await, 2);
    scene.assert_clean().await;
}

async fn a_statement_that_fails_changes_nothing(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let twice = session.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (1, 'c')".into(), vec![]).await;
    assert_kind(twice, ErrorKind::UniqueViolation);
    assert_eq!(scene.rows().await, 0);
    scene.assert_clean().await;
    assert_eq!(session.execute("INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap(), 1);
}

async fn a_transaction_commits_only_by_commit(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    for (end, rows) in [("rollback", 0), ("commit", 1)] {
        let id = session.begin(options()).await.unwrap();
        session.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
        let seen = session.query_in(id, "SELECT count(*) FROM t".into(), vec![]).await.unwrap();
        assert_eq!(show_rows(&seen), [["Value::Integer(1)"]]);
        match end {
            "commit" => session.commit(id).await.unwrap(),
            _ => session.rollback(id).await.unwrap(),
        }
        assert_eq!(scene.rows().await, rows, "after {end}");
        scene.assert_clean().await;
    }
}

async fn nothing_outside_sees_an_open_transaction(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    session.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
    for other in [session.clone(), scene.session(), scene.session_of("other")] {
        let seen = other.query("SELECT count(*) FROM t".into(), vec![]).await.unwrap();
        assert_eq!(show_rows(&seen), [["Value::Integer(0)"]]);
    }
    let stranger = scene.session();
    assert_kind(stranger.commit(id).await, ErrorKind::Closed);
    session.commit(id).await.unwrap();
    assert_eq!(scene.rows().await, 1);
}

async fn whatever_commit_and_rollback_answer_the_transaction_has_ended(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let committed = session.begin(options()).await.unwrap();
    session.commit(committed).await.unwrap();
    let rolled_back = session.begin(options()).await.unwrap();
    session.rollback(rolled_back).await.unwrap();
    let refused = session.begin(options()).await.unwrap();
    session.execute_in(refused, "no SQL".into(), vec![]).await.unwrap_err();
    session.commit(refused).await.unwrap_err();
    for id in [committed, rolled_back, refused] {
        assert_kind(session.query_in(id, "SELECT 1".into(), vec![]).await, ErrorKind::Closed);
        assert_kind(session.execute_in(id, "DELETE FROM t".into(), vec![]).await, ErrorKind::Closed);
        assert_kind(session.commit(id).await, ErrorKind::Closed);
        assert_kind(session.rollback(id).await, ErrorKind::Closed);
    }
    scene.assert_clean().await;
}

async fn the_number_of_a_transaction_is_never_used_again(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let first = session.begin(options()).await.unwrap();
    session.rollback(first).await.unwrap();
    let second = session.begin(options()).await.unwrap();
    assert_ne!(first, second);
    assert_kind(session.commit(first).await, ErrorKind::Closed);
    session.execute_in(second, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
    session.commit(second).await.unwrap();
}

async fn a_failed_statement_fails_its_transaction(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    for end in ["commit", "rollback"] {
        let id = session.begin(options()).await.unwrap();
        session.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
        let twice = session.execute_in(id, "INSERT INTO t VALUES (1, 'b')".into(), vec![]).await;
        let first = assert_kind(twice, ErrorKind::UniqueViolation);
        let refused = session.query_in(id, "SELECT 1".into(), vec![]).await;
        let refused = assert_kind(refused, ErrorKind::Statement);
        assert!(refused.message.contains(&first.message), "{}", refused.message);
        if end == "commit" {
            let refused = assert_kind(session.commit(id).await, ErrorKind::Statement);
            assert!(refused.message.contains("nothing was committed"), "{}", refused.message);
        } else {
            session.rollback(id).await.unwrap();
        }
        assert_eq!(scene.rows().await, 0, "after {end}");
        scene.assert_clean().await;
    }
}

async fn every_error_of_a_call_fails_its_transaction(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    for (statement, params) in [
        ("SELECT * FROM missing", vec![]),
        ("COMMIT", vec![]),
        ("SELECT $1", vec![]),
        ("INSERT INTO t (id) VALUES ($1)", vec![text("no number"), int(2)]),
    ] {
        let id = session.begin(options()).await.unwrap();
        session.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
        session.query_in(id, statement.into(), params).await.unwrap_err();
        assert_kind(session.query_in(id, "SELECT 1".into(), vec![]).await, ErrorKind::Statement);
        assert_kind(session.commit(id).await, ErrorKind::Statement);
        assert_eq!(scene.rows().await, 0, "{statement}");
    }
    scene.assert_clean().await;
}

async fn a_commit_that_the_database_refuses_is_an_error_and_writes_nothing(engine: Engine) {
    let scene = Scene::new(engine).await;
    scene
        .outside
        .run("CREATE TABLE child (parent INTEGER REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED)")
        .await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    session.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
    session.execute_in(id, "INSERT INTO child VALUES (7)".into(), vec![]).await.unwrap();
    assert_kind(session.commit(id).await, ErrorKind::ForeignKeyViolation);
    let once = session.execute("INSERT INTO child VALUES (7)".into(), vec![]).await;
    assert_kind(once, ErrorKind::ForeignKeyViolation);
    assert_eq!(scene.rows().await, 0);
    assert_eq!(scene.outside.number("SELECT count(*) FROM child").await, 0);
    scene.assert_clean().await;
}

async fn a_read_only_transaction_refuses_to_write(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let id = session.begin(BeginOptions { read_only: true, ..options() }).await.unwrap();
    session.query_in(id, "SELECT * FROM t".into(), vec![]).await.unwrap();
    let write = session.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await;
    assert_kind(write, ErrorKind::Statement);
    session.rollback(id).await.unwrap();
    assert_eq!(scene.rows().await, 0);
    // The connection is not read-only for ever.
    session.execute("INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
    let id = session.begin(options()).await.unwrap();
    session.execute_in(id, "INSERT INTO t VALUES (2, 'a')".into(), vec![]).await.unwrap();
    session.commit(id).await.unwrap();
}

async fn every_isolation_level_is_met(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    for (isolation, stable) in [
        (None, engine == Engine::Sqlite),
        (Some(Isolation::ReadCommitted), engine == Engine::Sqlite),
        (Some(Isolation::RepeatableRead), true),
        (Some(Isolation::Serializable), true),
    ] {
        let before = scene.rows().await;
        let id = session.begin(BeginOptions { isolation, read_only: true, ..options() }).await.unwrap();
        let count = async || {
            let rows = session.query_in(id, "SELECT count(*) FROM t".into(), vec![]).await.unwrap();
            show_rows(&rows)[0][0].clone()
        };
        let first = count().await;
        scene.outside.run(&format!("INSERT INTO t VALUES ({}, 'x')", before + 1)).await;
        assert_eq!(first == count().await, stable, "{isolation:?}");
        session.commit(id).await.unwrap();
    }
}

async fn a_read_does_not_wait_for_a_writer(engine: Engine) {
    let scene = Scene::new(engine).await;
    let writer = scene.session();
    let id = writer.begin(options()).await.unwrap();
    writer.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
    let started = Instant::now();
    for session in [writer.clone(), scene.session_of("other")] {
        session.query("SELECT * FROM t".into(), vec![]).await.unwrap();
        session.query("WITH x AS (SELECT 1) SELECT * FROM x, t".into(), vec![]).await.unwrap();
        let id = session.begin(BeginOptions { read_only: true, ..options() }).await.unwrap();
        session.query_in(id, "SELECT * FROM t".into(), vec![]).await.unwrap();
        session.commit(id).await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    writer.rollback(id).await.unwrap();
}

async fn what_loses_to_another_transaction_is_a_conflict(engine: Engine) {
    let scene = Scene::with(engine, 4, Duration::from_millis(300)).await;
    scene.outside.run("INSERT INTO t VALUES (1, 'a')").await;
    let (one, two) = (scene.session(), scene.session_of("other"));
    let serializable = || BeginOptions { isolation: Some(Isolation::Serializable), ..options() };
    let first = one.begin(serializable()).await.unwrap();
    one.query_in(first, "SELECT note FROM t WHERE id = 1".into(), vec![]).await.unwrap();
    if engine == Engine::Sqlite {
        let busy = assert_kind(two.begin(serializable()).await, ErrorKind::Conflict);
        assert!(busy.message.contains("plugin `good` (job good-job"), "{}", busy.message);
        // Waiting for oneself would never end.
        let started = Instant::now();
        let own = one.execute("DELETE FROM t".into(), vec![]).await;
        assert!(assert_kind(own, ErrorKind::Conflict).message.contains("use that transaction"));
        assert!(started.elapsed() < Duration::from_millis(250));
    } else {
        two.execute("UPDATE t SET note = 'b' WHERE id = 1".into(), vec![]).await.unwrap();
        let late = one.execute_in(first, "UPDATE t SET note = 'c' WHERE id = 1".into(), vec![]).await;
        assert_eq!(assert_kind(late, ErrorKind::Conflict).code.as_deref(), Some("40001"));
    }
    one.rollback(first).await.unwrap();
    two.execute("UPDATE t SET note = 'd' WHERE id = 1".into(), vec![]).await.unwrap();
}

async fn a_database_that_is_not_granted_is_denied_with_the_line_to_add(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let other = BeginOptions { database: Some("apq".into()), ..options() };
    let error = assert_kind(session.begin(other).await, ErrorKind::Denied);
    for part in ["[[plugins.good.databases]]", "name = \"apq\"", "did you mean `app`?"] {
        assert!(error.message.contains(part), "{}", error.message);
    }
    let none = Arc::new(Grants::new(&scene.databases, &name("poor"), &plugin_config(&[], None)));
    let session = Session::new(none, "job j".into(), TIME);
    let error = assert_kind(session.query("SELECT 1".into(), vec![]).await, ErrorKind::Denied);
    assert!(error.message.contains("[[plugins.poor.databases]]"), "{}", error.message);
}

async fn where_several_are_granted_and_none_is_the_default_the_call_must_name_one(engine: Engine) {
    let (_outside, databases) = two_databases(engine).await;
    let grants =
        |default| Arc::new(Grants::new(&databases, &name("good"), &plugin_config(&["app", "logs"], default)));
    let session = Session::new(grants(None), "job j".into(), TIME);
    let error = assert_kind(session.query("SELECT 1".into(), vec![]).await, ErrorKind::Denied);
    assert!(error.message.contains("default = true"), "{}", error.message);
    let session = Session::new(grants(Some("logs")), "job j".into(), TIME);
    session.query("SELECT 1".into(), vec![]).await.unwrap();
}

async fn a_plugin_uses_several_databases_by_name(engine: Engine) {
    let (outside, databases) = two_databases(engine).await;
    let config = plugin_config(&["app", "logs"], Some("app"));
    let session =
        Session::new(Arc::new(Grants::new(&databases, &name("good"), &config)), "job j".into(), TIME);
    session.execute("CREATE TABLE here (x INTEGER)".into(), vec![]).await.unwrap();
    let named = BeginOptions { database: Some("logs".into()), ..options() };
    let id = session.begin(named).await.unwrap();
    session.execute_in(id, "CREATE TABLE there (x INTEGER)".into(), vec![]).await.unwrap();
    session.commit(id).await.unwrap();
    assert_eq!(outside[0].number("SELECT count(*) FROM here").await, 0);
    assert_eq!(outside[1].number("SELECT count(*) FROM there").await, 0);
}

async fn two_databases(engine: Engine) -> ([TestDatabase; 2], Databases) {
    let outside = [TestDatabase::empty(engine).await, TestDatabase::empty(engine).await];
    let config = |database: &TestDatabase| DatabaseConfig {
        url: database.url(),
        max_connections: 2,
        acquire_timeout: Duration::from_secs(5),
        max_size: None,
    };
    let configs = BTreeMap::from([(name("app"), config(&outside[0])), (name("logs"), config(&outside[1]))]);
    (outside, Databases::open(&configs))
}

async fn while_handlers_are_described_every_call_is_denied(_engine: Engine) {
    let session = Session::refused();
    assert_kind(session.query("SELECT 1".into(), vec![]).await, ErrorKind::Denied);
    assert_kind(session.execute("SELECT 1".into(), vec![]).await, ErrorKind::Denied);
    assert_kind(session.begin(options()).await, ErrorKind::Denied);
    assert_eq!(session.end().await.rolled_back, 0);
}

async fn execute_answers_the_number_of_rows_that_it_changed(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    for (statement, changed) in [
        ("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')", 3),
        ("SELECT * FROM t", 0),
        ("UPDATE t SET note = 'd' WHERE id > 1", 2),
        ("CREATE TABLE u (x INTEGER)", 0),
        ("DELETE FROM t RETURNING id", 3),
        ("DELETE FROM t", 0),
        ("WITH n AS (SELECT 7 AS id) INSERT INTO t SELECT id, 'x' FROM n", 1),
        ("DROP TABLE u", 0),
    ] {
        let answered = session.execute(statement.into(), vec![]).await.unwrap();
        assert_eq!(answered, changed, "{statement}");
    }
}
