//! What a statement can make the host keep in memory.

use std::time::{Duration, Instant};

use innkeeper::interfaces::db::{Ended, ErrorKind};

use crate::database::Engine;
use crate::{MEMORY, Scene, assert_kind, on_both_engines, options, show_rows};

on_both_engines!(
    a_result_that_the_guest_has_no_memory_for_is_refused,
    a_result_up_to_the_bound_arrives_whole,
    what_follows_the_bound_is_not_waited_for,
    after_a_result_that_is_too_large_the_transaction_can_only_be_rolled_back,
    the_end_rolls_back_a_transaction_whose_result_was_too_large,
    a_statement_has_a_longest_text,
    a_long_error_is_cut,
    a_database_is_not_looked_for_by_an_endless_name,
);

/// Far above what it takes, and far below the time that the statements would take.
const PROMPT: Duration = Duration::from_secs(20);

/// More small rows than fit: some ten megabytes in the guest.
const MANY: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400000) SELECT i FROM n";

/// Rows of a hundred thousand bytes, so that ten of them fit.
fn wide(engine: Engine, rows: u32) -> String {
    let value = match engine {
        Engine::Postgres => "repeat('x', 100000)",
        Engine::Sqlite => "hex(zeroblob(50000))",
    };
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) SELECT {value} FROM n"
    )
}

/// Rows that do not fit, and after them a time without any.
fn wide_then_endless(scene: &Scene) -> String {
    format!(
        "SELECT * FROM ({}) AS a UNION ALL SELECT b.* FROM ({}) AS b",
        wide(scene.engine, 15),
        endless(scene)
    )
}

fn endless(scene: &Scene) -> String {
    match scene.engine {
        Engine::Postgres => "SELECT pg_sleep(600)::text".to_owned(),
        Engine::Sqlite => scene.endless(),
    }
}

async fn a_result_that_the_guest_has_no_memory_for_is_refused(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    for statement in [MANY.to_owned(), wide(engine, 11)] {
        let error = assert_kind(session.query(statement, vec![]).await, ErrorKind::LimitExceeded);
        assert!(error.message.contains(&MEMORY.to_string()), "{}", error.message);
        let hint = error.hint.unwrap();
        assert!(hint.contains("LIMIT") && hint.contains("`limits.memory`"), "{hint}");
        scene.assert_clean().await;
    }
    let after = session.query("SELECT 1".into(), vec![]).await.unwrap();
    assert_eq!(show_rows(&after), [["Value::Integer(1)"]]);
}

async fn a_result_up_to_the_bound_arrives_whole(engine: Engine) {
    let scene = Scene::new(engine).await;
    let rows = scene.session().query(wide(engine, 10), vec![]).await.unwrap();
    assert_eq!(rows.rows.len(), 10);
    assert_eq!(scene.database().connections().idle, 1, "the connection was not kept");
}

async fn what_follows_the_bound_is_not_waited_for(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let started = Instant::now();
    let read = session.query(wide_then_endless(&scene), vec![]).await;
    assert_kind(read, ErrorKind::LimitExceeded);
    assert!(started.elapsed() < PROMPT, "it took {:?}", started.elapsed());
    scene.assert_clean().await;
    session.execute("INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
}

async fn after_a_result_that_is_too_large_the_transaction_can_only_be_rolled_back(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    for commit in [true, false] {
        let id = session.begin(options()).await.unwrap();
        session.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
        let read = session.query_in(id, wide_then_endless(&scene), vec![]).await;
        assert_kind(read, ErrorKind::LimitExceeded);
        let next = session.query_in(id, "SELECT 1".into(), vec![]).await;
        assert_kind(next, ErrorKind::Statement);
        if commit {
            assert_kind(session.commit(id).await, ErrorKind::Statement);
        } else {
            session.rollback(id).await.unwrap();
        }
        scene.assert_clean().await;
    }
    assert_eq!(scene.rows().await, 0);
}

async fn the_end_rolls_back_a_transaction_whose_result_was_too_large(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    session.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
    let read = session.query_in(id, wide_then_endless(&scene), vec![]).await;
    assert_kind(read, ErrorKind::LimitExceeded);
    assert_eq!(session.end().await, Ended { rolled_back: 1, unconfirmed: 0 });
    assert_eq!(scene.rows().await, 0);
    scene.assert_clean().await;
}

/// PostgreSQL gives everything as text that no value can carry, so that it has no such row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_cannot_be_read_ends_the_statement() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    let unreadable = format!("SELECT CAST(x'ff' AS TEXT) UNION ALL SELECT * FROM ({})", endless(&scene));
    let started = Instant::now();
    assert_kind(session.query(unreadable, vec![]).await, ErrorKind::Conversion);
    assert!(started.elapsed() < PROMPT, "it took {:?}", started.elapsed());
    scene.assert_clean().await;
    session.query("SELECT 1".into(), vec![]).await.unwrap();
}

async fn a_statement_has_a_longest_text(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let padded = |length: usize| format!("SELECT 1{}", " ".repeat(length - 8));
    session.query(padded(1024 * 1024), vec![]).await.unwrap();
    let error = assert_kind(session.query(padded(1024 * 1024 + 1), vec![]).await, ErrorKind::LimitExceeded);
    assert!(error.message.contains("1048577 bytes, and 1048576 are allowed"), "{}", error.message);
}

async fn a_long_error_is_cut(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let failing = match engine {
        Engine::Postgres => {
            "DO $$ BEGIN RAISE EXCEPTION '%', repeat('ä', 100000) USING DETAIL = repeat('ä', 100000); END $$"
                .to_owned()
        }
        Engine::Sqlite => format!("SELECT [{}] FROM t", "ä".repeat(100_000)),
    };
    let error = session.execute(failing.clone(), vec![]).await.unwrap_err();
    for text in [Some(error.message), error.detail, error.hint].into_iter().flatten() {
        assert!(text.len() < 8_200, "it has {} bytes", text.len());
    }
    let id = session.begin(options()).await.unwrap();
    session.execute_in(id, failing, vec![]).await.unwrap_err();
    let error = session.commit(id).await.unwrap_err();
    assert!(error.message.len() < 8_200, "it has {} bytes", error.message.len());
}

async fn a_database_is_not_looked_for_by_an_endless_name(engine: Engine) {
    let scene = Scene::new(engine).await;
    let named =
        innkeeper::interfaces::db::BeginOptions { database: Some("x".repeat(10_000_000)), ..options() };
    let error = assert_kind(scene.session().begin(named).await, ErrorKind::Denied);
    assert!(error.message.len() < 1_000, "it has {} bytes", error.message.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_makes_no_value_that_is_larger_than_the_guest() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    session.query(format!("SELECT length(zeroblob({MEMORY}))"), vec![]).await.unwrap();
    for statement in ["SELECT length(hex(zeroblob(600000)))", "SELECT zeroblob(1000000000)"] {
        let error = assert_kind(session.query(statement.into(), vec![]).await, ErrorKind::LimitExceeded);
        assert!(error.hint.unwrap().contains("`limits.memory`"));
    }
    scene.assert_clean().await;
}
