//! What a statement can make the host keep in memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use innkeeper::config::GrantConfig;
use innkeeper::interfaces::db::{BeginOptions, Ended, Error, ErrorKind, Session};

use crate::database::{Engine, until};
use crate::grants::{execution, grants};
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
    a_result_has_as_many_rows_and_bytes_as_the_grant_allows,
    an_execution_has_as_many_transactions_open_as_the_grant_allows,
    an_execution_has_as_many_cursors_open_as_the_grant_allows,
    a_cursor_brings_as_much_at_a_time_as_the_grant_allows,
    a_plugin_has_as_many_statements_running_as_the_grant_allows,
    a_statement_that_a_limit_kept_from_running_has_not_failed_its_transaction,
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

fn series(rows: u32) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) SELECT i, 'x' FROM n"
    )
}

/// It names the number and the key, and leaves nothing behind.
fn assert_limit<T: std::fmt::Debug>(result: Result<T, Error>, number: u64, key: &str) {
    let error = assert_kind(result, ErrorKind::LimitExceeded);
    let parts = [number.to_string(), format!("`{key}`")];
    assert!(parts.iter().all(|part| error.message.contains(part)), "{}", error.message);
    assert!(error.hint.is_some(), "{error:?}");
}

async fn a_result_has_as_many_rows_and_bytes_as_the_grant_allows(engine: Engine) {
    let scene = Scene::new(engine).await;
    let few = GrantConfig { max_rows: 10, max_bytes: Some(100_000), ..GrantConfig::default() };
    let session = execution(&grants(&scene, "good", few));
    assert_eq!(session.query(series(10), vec![]).await.unwrap().rows.len(), 10);
    assert_limit(session.query(series(11), vec![]).await, 10, "max_rows");
    assert_limit(session.query(series(1_000_000), vec![]).await, 10, "max_rows");
    // One value of a hundred thousand bytes, and what it takes beside them.
    assert_limit(session.query(wide(engine, 1), vec![]).await, 100_000, "max_bytes");
    scene.assert_clean().await;
    // What it changes is not read, and so has no bound.
    let insert = format!("INSERT INTO t {}", series(100));
    assert_eq!(session.execute(insert, vec![]).await.unwrap(), 100);

    let id = session.begin(options()).await.unwrap();
    session.execute_in(id, "DELETE FROM t".into(), vec![]).await.unwrap();
    assert_limit(session.query_in(id, series(11), vec![]).await, 10, "max_rows");
    // It was cut off while it ran.
    assert_kind(session.query_in(id, "SELECT 1".into(), vec![]).await, ErrorKind::Statement);
    session.rollback(id).await.unwrap();
    assert_eq!(scene.rows().await, 100);
    session.query("SELECT 1".into(), vec![]).await.unwrap();
    scene.assert_clean().await;
}

async fn an_execution_has_as_many_transactions_open_as_the_grant_allows(engine: Engine) {
    let scene = Scene::new(engine).await;
    let grants = grants(&scene, "good", GrantConfig { max_open_transactions: 2, ..GrantConfig::default() });
    let session = execution(&grants);
    let reading = || BeginOptions { read_only: true, ..options() };
    let open = [session.begin(reading()).await.unwrap(), session.begin(reading()).await.unwrap()];
    for _ in 0..3 {
        assert_limit(session.begin(reading()).await, 2, "max_open_transactions");
    }
    assert_eq!(scene.database().connections().in_use, 2, "a begin that was refused uses no connection");
    session.query("SELECT 1".into(), vec![]).await.expect("a call of its own is none of them");
    let other = execution(&grants);
    let of_other = other.begin(reading()).await.expect("another execution has its own");
    other.rollback(of_other).await.unwrap();
    session.rollback(open[0]).await.unwrap();
    let third = session.begin(reading()).await.unwrap();
    for id in [open[1], third] {
        session.query_in(id, "SELECT 1".into(), vec![]).await.unwrap();
        session.commit(id).await.unwrap();
    }
    // One that could not be begun does not count.
    let elsewhere = BeginOptions { database: Some("elsewhere".into()), ..options() };
    for _ in 0..3 {
        assert_kind(session.begin(elsewhere.clone()).await, ErrorKind::Denied);
    }
    session.begin(reading()).await.unwrap();
    session.end().await;
    scene.assert_clean().await;
}

async fn an_execution_has_as_many_cursors_open_as_the_grant_allows(engine: Engine) {
    let scene = Scene::new(engine).await;
    let grants = grants(&scene, "good", GrantConfig { max_open_cursors: 2, ..GrantConfig::default() });
    let (session, other) = (execution(&grants), execution(&grants));
    let reading = || BeginOptions { read_only: true, ..options() };
    let (one, two) = (session.begin(reading()).await.unwrap(), session.begin(reading()).await.unwrap());
    let of_other = other.begin(reading()).await.unwrap();
    let open = async |session: &Session, id| session.open_cursor(id, series(100), vec![]).await;
    let (first, _) = open(&session, one).await.unwrap();
    let (second, _) = open(&session, two).await.unwrap();
    for id in [one, two] {
        assert_limit(open(&session, id).await, 2, "max_open_cursors");
        session.query_in(id, "SELECT 1".into(), vec![]).await.expect("the transaction has not failed");
    }
    open(&other, of_other).await.expect("another execution has its own");
    // One that was dropped makes room, and so does a transaction that has ended.
    session.close_cursor(one, first).await;
    let (third, _) = open(&session, one).await.unwrap();
    session.commit(two).await.unwrap();
    let (fourth, _) = open(&session, one).await.unwrap();
    assert_kind(session.fetch(two, second, 1).await, ErrorKind::Closed);
    for cursor in [third, fourth] {
        assert_eq!(session.fetch(one, cursor, 7).await.unwrap().len(), 7);
    }
    // One that could not be opened does not count.
    session.close_cursor(one, third).await;
    let failed = session.open_cursor(one, "SELECT nothing FROM nowhere".into(), vec![]).await;
    assert_kind(failed, ErrorKind::Statement);
    session.rollback(one).await.unwrap();
    let three = session.begin(reading()).await.unwrap();
    for _ in 0..2 {
        open(&session, three).await.unwrap();
    }
    session.end().await;
    other.end().await;
    scene.assert_clean().await;
}

async fn a_cursor_brings_as_much_at_a_time_as_the_grant_allows(engine: Engine) {
    let scene = Scene::new(engine).await;
    let few = GrantConfig { max_rows: 10, max_bytes: Some(300_000), ..GrantConfig::default() };
    let session = execution(&grants(&scene, "good", few));
    let id = session.begin(BeginOptions { read_only: true, ..options() }).await.unwrap();
    for (statement, rows, limit, most) in [(series(95), 95, 1_000, 10), (wide(engine, 9), 9, 2, 2)] {
        let (cursor, _) = session.open_cursor(id, statement, vec![]).await.unwrap();
        let mut fetched = 0;
        loop {
            let some = session.fetch(id, cursor, limit).await.unwrap().len();
            assert!(some <= most, "{some} rows at a time");
            fetched += some;
            if some == 0 {
                break;
            }
        }
        assert_eq!(fetched, rows, "none is lost");
        session.close_cursor(id, cursor).await;
    }
    session.commit(id).await.unwrap();
}

async fn a_plugin_has_as_many_statements_running_as_the_grant_allows(engine: Engine) {
    let scene = Scene::new(engine).await;
    let one = GrantConfig { max_running_statements: Some(1), ..GrantConfig::default() };
    let grants = grants(&scene, "good", one);
    let (busy, session) = (execution(&grants), execution(&grants));
    let id = session.begin(BeginOptions { read_only: true, ..options() }).await.unwrap();
    session.query_in(id, "SELECT 1".into(), vec![]).await.unwrap();
    let runs = {
        let (busy, endless) = (Arc::clone(&busy), scene.endless());
        tokio::spawn(async move { busy.query(endless, vec![]).await })
    };
    until("it has a connection", async || scene.database().connections().in_use == 2).await;
    for _ in 0..3 {
        assert_limit(session.query("SELECT 1".into(), vec![]).await, 1, "max_running_statements");
        let refused = session.query_in(id, "SELECT 1".into(), vec![]).await;
        assert_limit(refused, 1, "max_running_statements");
    }
    assert_eq!(scene.database().connections().in_use, 2, "what was refused uses no connection");
    scene.session_of("other").query("SELECT 1".into(), vec![]).await.expect("another plugin has its own");
    busy.end().await;
    assert_kind(runs.await.unwrap(), ErrorKind::Closed);
    session.query_in(id, "SELECT 1".into(), vec![]).await.expect("the transaction has not failed");
    session.commit(id).await.unwrap();
    session.query("SELECT 1".into(), vec![]).await.unwrap();
    scene.assert_clean().await;
}

async fn a_statement_that_a_limit_kept_from_running_has_not_failed_its_transaction(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    session.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
    let too_long = format!("SELECT 1{}", " ".repeat(1024 * 1024));
    assert_kind(session.query_in(id, too_long.clone(), vec![]).await, ErrorKind::LimitExceeded);
    assert_kind(session.open_cursor(id, too_long, vec![]).await, ErrorKind::LimitExceeded);
    session.execute_in(id, "INSERT INTO t VALUES (2, 'b')".into(), vec![]).await.unwrap();
    session.commit(id).await.unwrap();
    assert_eq!(scene.rows().await, 2);
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
