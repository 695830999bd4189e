//! One statement in a transaction of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use innkeeper::interfaces::db::{Ended, ErrorKind};
use sqlx::{Connection as _, SqliteConnection};

use super::{FILL, session_with};
use crate::database::{Engine, until};
use crate::{Scene, TIME, assert_kind, int, options, show_rows, text};

/// Somebody outside of the host who has the lock to write.
async fn writer_outside(scene: &Scene) -> SqliteConnection {
    let innkeeper::database_url::DatabaseUrl::Sqlite(path) = scene.outside.url() else {
        panic!("it is SQLite")
    };
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.unwrap();
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_reads_never_waits_for_a_lock() {
    let scene = Scene::with(Engine::Sqlite, 4, Duration::from_millis(300)).await;
    let session = scene.session();
    session.query("SELECT 1".into(), vec![]).await.unwrap();
    let outside = writer_outside(&scene).await;
    let inside = scene.session_of("other");
    for statement in [
        "SELECT * FROM t",
        "VALUES (1)",
        "WITH x AS (SELECT 1) SELECT * FROM x, t",
        "EXPLAIN SELECT * FROM t",
        "EXPLAIN DELETE FROM t",
    ] {
        session.query(statement.into(), vec![]).await.unwrap();
        inside.execute(statement.into(), vec![]).await.unwrap();
    }
    let writing = "WITH x AS (SELECT 1 AS i) INSERT INTO t SELECT i, 'a' FROM x";
    for statement in ["DELETE FROM t", writing] {
        let error = assert_kind(session.execute(statement.into(), vec![]).await, ErrorKind::Conflict);
        assert!(error.message.contains("outside of this host"), "{}", error.message);
    }
    outside.close().await.unwrap();
    assert_eq!(session.execute(writing.into(), vec![]).await.unwrap(), 1);
    assert_eq!(scene.rows().await, 1);
    scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_writes_waits_for_a_writer_outside_of_the_host() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    let outside = writer_outside(&scene).await;
    let waiting = {
        let session = Arc::clone(&session);
        tokio::spawn(async move { session.execute("INSERT INTO t VALUES (1, 'a')".into(), vec![]).await })
    };
    until("it waits", async || scene.database().connections().in_use == 1).await;
    outside.close().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), 1);
    assert_eq!(scene.rows().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_that_a_statement_waits_for_its_turn_counts() {
    let scene = Scene::new(Engine::Sqlite).await;
    let (holder, other) = (scene.session(), scene.session_of("other"));
    let limited =
        session_with(&scene, TIME, |grant| grant.statement_timeout = Some(Duration::from_millis(100)));
    let started = Instant::now();
    let inside = holder.begin(options()).await.unwrap();
    let late = limited.execute("DELETE FROM t".into(), vec![]).await;
    assert!(assert_kind(late, ErrorKind::Timeout).message.contains("`statement_timeout` of 100ms"));
    holder.commit(inside).await.unwrap();
    let outside = writer_outside(&scene).await;
    let late = limited.execute("DELETE FROM t".into(), vec![]).await;
    assert_kind(late, ErrorKind::Timeout);
    outside.close().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
    other.execute("INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
    scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_it_fails_by_nothing_is_left_open() {
    let scene = Scene::new(Engine::Sqlite).await;
    scene
        .outside
        .run(
            "INSERT INTO t VALUES (1, 'a'); CREATE TABLE u (x INTEGER REFERENCES t (id) DEFERRABLE INITIALLY \
             DEFERRED); CREATE TRIGGER no BEFORE DELETE ON t BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
        )
        .await;
    let session = scene.session();
    for statement in [
        "INSERT INTO t VALUES (2, 'b'), (1, 'c')",
        "INSERT OR ROLLBACK INTO t VALUES (2, 'b'), (1, 'c')",
        "INSERT OR FAIL INTO t VALUES (2, 'b'), (1, 'c')",
        "DELETE FROM t",
        "INSERT INTO u VALUES (7)",
        "INSERT INTO t VALUES ($1, $2)",
        "INSERT INTO t SELECT id + 1, CAST(x'ff' AS TEXT) FROM t RETURNING note",
        "no SQL",
        "INSERT no SQL",
    ] {
        session.query(statement.into(), vec![]).await.unwrap_err();
        assert_eq!(scene.rows().await, 1, "{statement}");
        scene.assert_clean().await;
        assert_eq!(scene.database().connections().idle, 1, "{statement}");
    }
    let lists = vec![vec![int(2), text("b")], vec![int(1), text("c")]];
    let many = session.execute_many("INSERT INTO t VALUES ($1, $2)".into(), lists).await;
    assert_kind(many, ErrorKind::UniqueViolation);
    assert_eq!(scene.rows().await, 1);
    let uneven = vec![vec![int(2), text("b")], vec![int(3)]];
    let many = session.execute_many("INSERT INTO t VALUES ($1, $2)".into(), uneven).await;
    assert_kind(many, ErrorKind::Statement);
    assert_eq!(scene.rows().await, 1);
    let rows = session.query("SELECT * FROM t".into(), vec![]).await.unwrap();
    assert_eq!(show_rows(&rows).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_writes_is_stopped_by_the_end_and_rolled_back() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    let running = {
        let session = Arc::clone(&session);
        tokio::spawn(async move { session.execute(FILL.into(), vec![]).await })
    };
    let innkeeper::database_url::DatabaseUrl::Sqlite(path) = scene.outside.url() else {
        panic!("it is SQLite")
    };
    let log = path.with_extension("db-wal");
    until("it writes to disk", async || std::fs::metadata(&log).is_ok_and(|log| log.len() > 2_000_000)).await;
    assert_eq!(session.end().await, Ended { rolled_back: 1, unconfirmed: 0 });
    assert_kind(running.await.unwrap(), ErrorKind::Closed);
    assert_eq!(scene.rows().await, 0);
    scene.assert_clean().await;
}
