//! Cursors: results in pieces, with other statements in between.

use std::time::Duration;

use innkeeper::interfaces::db::{ErrorKind, Session, Value};

use super::session_with;
use crate::database::Engine;
use crate::{MEMORY, Scene, TIME, assert_kind, int, options, show};

const NUMBERS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1) SELECT i FROM n";

/// Everything that is left of a cursor.
async fn rest(session: &Session, id: u64, cursor: u64, limit: u32) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    loop {
        let more = session.fetch(id, cursor, limit).await.unwrap();
        assert!(more.len() <= limit as usize);
        if more.is_empty() {
            return rows;
        }
        rows.extend(more);
    }
}

fn numbers(rows: &[Vec<Value>]) -> Vec<i64> {
    let number = |row: &Vec<Value>| match row[0] {
        Value::Integer(number) => number,
        ref other => panic!("{other:?} is no number"),
    };
    rows.iter().map(number).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_arrives_once_and_in_order() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    for (count, limit) in [(0, 1), (1, 1), (1, 5), (10, 3), (10, 10), (10, 100), (50_000, 1_000)] {
        let id = session.begin(options()).await.unwrap();
        let sql = format!("SELECT * FROM ({NUMBERS}) WHERE i <= $2");
        let (cursor, columns) = session.open_cursor(id, sql, vec![int(60_000), int(count)]).await.unwrap();
        assert_eq!(columns.len(), 1);
        assert_eq!(columns[0].name, "i");
        let rows = rest(&session, id, cursor, limit).await;
        assert_eq!(numbers(&rows), (1..=count).collect::<Vec<_>>());
        assert!(session.fetch(id, cursor, limit).await.unwrap().is_empty(), "it has ended");
        session.commit(id).await.unwrap();
        assert_kind(session.fetch(id, cursor, limit).await, ErrorKind::Closed);
    }
    scene.assert_clean().await;
    assert_eq!(scene.database().connections().idle, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_columns_are_those_of_the_tables_as_they_are() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    for (change, columns) in [("SELECT 1", 2), ("ALTER TABLE t ADD COLUMN extra REAL", 3)] {
        for rows in ["DELETE FROM t", "INSERT INTO t (id) VALUES (1)"] {
            scene.outside.run(&format!("{change}; {rows}").replace("SELECT 1; ", "")).await;
            let id = session.begin(options()).await.unwrap();
            let (cursor, found) = session.open_cursor(id, "SELECT * FROM t".into(), vec![]).await.unwrap();
            assert_eq!(found.len(), columns);
            assert!(rest(&session, id, cursor, 9).await.iter().all(|row| row.len() == columns));
            session.rollback(id).await.unwrap();
            if change != "SELECT 1" {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_statements_run_between_two_fetches() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    let (one, _) = session.open_cursor(id, NUMBERS.into(), vec![int(6)]).await.unwrap();
    let (two, _) = session.open_cursor(id, NUMBERS.into(), vec![int(3)]).await.unwrap();
    let mut sum = 0;
    for _ in 0..3 {
        let row = numbers(&session.fetch(id, one, 2).await.unwrap());
        let other = numbers(&session.fetch(id, two, 1).await.unwrap());
        sum += row.iter().sum::<i64>() + other[0];
        let insert = format!("INSERT INTO t VALUES ({sum}, 'x')");
        session.execute_in(id, insert.clone(), vec![]).await.unwrap();
        let savepoint = session.savepoint(id).await.unwrap();
        session.execute_in(id, insert, vec![]).await.unwrap_err();
        session.rollback_to(id, savepoint).await.unwrap();
        session.release(id, savepoint).await.unwrap();
    }
    assert!(session.fetch(id, one, 2).await.unwrap().is_empty());
    session.close_cursor(id, two).await;
    session.execute_in(id, "CREATE TABLE u (x)".into(), vec![]).await.unwrap();
    session.commit(id).await.unwrap();
    assert_eq!(scene.rows().await, 3);
    scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_reads_a_table_that_is_written_meanwhile() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    let fill = format!("INSERT INTO t SELECT i, 'x' FROM ({NUMBERS})");
    session.execute_in(id, fill, vec![int(1_000)]).await.unwrap();
    let (cursor, _) = session.open_cursor(id, "SELECT id FROM t ORDER BY id".into(), vec![]).await.unwrap();
    let mut seen = numbers(&session.fetch(id, cursor, 10).await.unwrap());
    session.execute_in(id, "UPDATE t SET note = 'y'".into(), vec![]).await.unwrap();
    session.execute_in(id, "DELETE FROM t WHERE id <= 500 AND id > 11".into(), vec![]).await.unwrap();
    seen.extend(numbers(&rest(&session, id, cursor, 100).await));
    assert_eq!(seen.last(), Some(&1_000));
    assert!(seen.len() >= 510, "{} rows", seen.len());
    session.commit(id).await.unwrap();
    assert_eq!(scene.rows().await, 511);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_to_a_savepoint_ends_the_cursors_opened_after_it() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    let (before, _) = session.open_cursor(id, NUMBERS.into(), vec![int(6)]).await.unwrap();
    let savepoint = session.savepoint(id).await.unwrap();
    let (after, _) = session.open_cursor(id, NUMBERS.into(), vec![int(6)]).await.unwrap();
    session.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
    session.rollback_to(id, savepoint).await.unwrap();
    assert_eq!(numbers(&session.fetch(id, before, 9).await.unwrap()), [1, 2, 3, 4, 5, 6]);
    assert_kind(session.fetch(id, after, 9).await, ErrorKind::Closed);
    session.commit(id).await.unwrap();
    assert_eq!(scene.rows().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_reads_is_opened() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    for statement in [
        "INSERT INTO t VALUES (1, 'a') RETURNING id",
        "WITH x AS (SELECT 1) DELETE FROM t",
        "CREATE TABLE u (x)",
        "CREATE TABLE IF NOT EXISTS t (x)",
        "SELECT 1; SELECT 2",
        "SELECT $1",
        "SELECT missing FROM t",
    ] {
        let id = session.begin(options()).await.unwrap();
        let refused = session.open_cursor(id, statement.into(), vec![]).await;
        assert_kind(refused, ErrorKind::Statement);
        session.rollback(id).await.unwrap();
    }
    let id = session.begin(options()).await.unwrap();
    assert_kind(session.open_cursor(id, "COMMIT".into(), vec![]).await, ErrorKind::Denied);
    session.rollback(id).await.unwrap();
    let id = session.begin(options()).await.unwrap();
    let denied = "SELECT load_extension('x')".to_owned();
    assert_kind(session.open_cursor(id, denied, vec![]).await, ErrorKind::Denied);
    session.rollback(id).await.unwrap();
    assert_eq!(scene.rows().await, 0);
    scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_fetch_brings_no_more_than_the_guest_can_hold() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    let large = |half: u64| {
        format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 40) SELECT i, hex(zeroblob({half})) FROM n"
        )
    };
    let (cursor, _) = session.open_cursor(id, large(50_000), vec![]).await.unwrap();
    let (mut found, mut fetches) = (Vec::new(), 0);
    loop {
        let rows = session.fetch(id, cursor, 1_000).await.unwrap();
        assert!(rows.len() as u64 * 100_000 <= MEMORY / 2, "{} rows at once", rows.len());
        if rows.is_empty() {
            break;
        }
        found.extend(numbers(&rows));
        fetches += 1;
    }
    assert_eq!(found, (1..=40).collect::<Vec<_>>());
    assert!(fetches < 20, "{fetches} fetches");
    // Two rows do not fit, but each of them alone.
    let (cursor, _) = session.open_cursor(id, large(MEMORY / 2 - 4_000), vec![]).await.unwrap();
    for expected in 1..=3 {
        assert_eq!(numbers(&session.fetch(id, cursor, 1_000).await.unwrap()), [expected]);
    }
    session.rollback(id).await.unwrap();
    let bounded = session_with(&scene, TIME, |grant| grant.max_bytes = Some(100_000));
    let id = bounded.begin(options()).await.unwrap();
    let (cursor, _) = bounded.open_cursor(id, large(60_000), vec![]).await.unwrap();
    assert_kind(bounded.fetch(id, cursor, 1).await, ErrorKind::LimitExceeded);
    bounded.rollback(id).await.unwrap();
    scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_takes_too_long_is_stopped_and_so_is_one_that_its_execution_leaves() {
    let scene = Scene::new(Engine::Sqlite).await;
    let slow = format!("SELECT 1 UNION ALL SELECT * FROM ({})", scene.endless());
    let limited =
        session_with(&scene, TIME, |grant| grant.statement_timeout = Some(Duration::from_millis(100)));
    let id = limited.begin(options()).await.unwrap();
    let (cursor, _) = limited.open_cursor(id, slow.clone(), vec![]).await.unwrap();
    let late = limited.fetch(id, cursor, 9).await;
    assert!(assert_kind(late, ErrorKind::Timeout).message.contains("100ms"));
    limited.rollback(id).await.unwrap();
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    let (cursor, _) = session.open_cursor(id, slow, vec![]).await.unwrap();
    assert_eq!(show(&session.fetch(id, cursor, 1).await.unwrap()[0][0]), show(&int(1)));
    tokio::select! {
        _ = session.fetch(id, cursor, 1) => panic!("the statement is endless"),
        () = tokio::task::yield_now() => {}
    }
    let ended = session.end().await;
    assert_eq!((ended.rolled_back, ended.unconfirmed), (1, 0));
    scene.assert_clean().await;
}
