//! Cursors of the server.

use std::sync::Arc;

use innkeeper::config::GrantConfig;
use innkeeper::interfaces::db::{ErrorKind, Grants, Session, Value};

use crate::database::Engine;
use crate::{Scene, TIME, assert_kind, int, name, options, plugin_config, show, text};

/// Every row of a cursor, and how many fetches brought them.
async fn drain(session: &Arc<Session>, id: u64, cursor: u64, limit: u32) -> (Vec<Vec<Value>>, usize) {
    let (mut all, mut fetches) = (Vec::new(), 0);
    loop {
        let rows = session.fetch(id, cursor, limit).await.unwrap();
        assert!(rows.len() <= limit as usize);
        if rows.is_empty() {
            return (all, fetches);
        }
        fetches += 1;
        all.extend(rows);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_brings_every_row_once_and_in_order() {
    let scene = Scene::new(Engine::Postgres).await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    let sql = " ;; /* a */ SELECT i, 'row ' || i FROM generate_series($1::int4, $2) i; -- b";
    let (cursor, columns) = session.open_cursor(id, sql.into(), vec![int(1), int(10_000)]).await.unwrap();
    let columns: Vec<_> = columns.iter().map(|c| (c.name.as_str(), c.type_name.as_str())).collect();
    assert_eq!(columns, [("i", "int4"), ("?column?", "text")]);
    let (rows, _) = drain(&session, id, cursor, 777).await;
    assert_eq!(rows.len(), 10_000);
    for (row, number) in rows.iter().zip(1..) {
        assert_eq!(
            (show(&row[0]), show(&row[1])),
            (show(&int(number)), show(&text(&format!("row {number}"))))
        );
    }
    // Also after its end.
    assert!(session.fetch(id, cursor, 1).await.unwrap().is_empty());
    session.close_cursor(id, cursor).await;
    session.commit(id).await.unwrap();
    assert_kind(session.fetch(id, cursor, 1).await, ErrorKind::Closed);
    scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_and_other_cursors_run_between_two_fetches() {
    let scene = Scene::new(Engine::Postgres).await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    let sql = "SELECT i FROM generate_series(1, 300) i";
    let (one, _) = session.open_cursor(id, sql.into(), vec![]).await.unwrap();
    let (two, _) = session.open_cursor(id, sql.into(), vec![]).await.unwrap();
    let (mut of_one, mut of_two) = (Vec::new(), Vec::new());
    loop {
        let rows = session.fetch(id, one, 7).await.unwrap();
        if rows.is_empty() {
            break;
        }
        for row in rows {
            session.execute_in(id, "INSERT INTO t VALUES ($1, 'a')".into(), row.clone()).await.unwrap();
            of_one.push(show(&row[0]));
        }
        of_two.extend(session.fetch(id, two, 5).await.unwrap().iter().map(|row| show(&row[0])));
    }
    session.close_cursor(id, one).await;
    of_two.extend(drain(&session, id, two, 1_000).await.0.iter().map(|row| show(&row[0])));
    assert_eq!(of_one, of_two);
    assert_eq!(of_one.len(), 300);
    session.commit(id).await.unwrap();
    assert_eq!(scene.rows().await, 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_brings_values_of_every_type() {
    let scene = Scene::new(Engine::Postgres).await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    let sql = "SELECT NULL::int4, 1.50, ARRAY[1, NULL], inet '1.2.3.4', timestamptz '2024-02-29 00:00:00Z', \
               E'\\\\x00ff'::bytea, -1::int8, 0.5::float4, true, ($1::inet)::text";
    let expected = session.query_in(id, sql.into(), vec![text("10.0.0.1")]).await.unwrap();
    let (cursor, columns) = session.open_cursor(id, sql.into(), vec![text("10.0.0.1")]).await.unwrap();
    let rows = session.fetch(id, cursor, 10).await.unwrap();
    assert_eq!(format!("{rows:?}"), format!("{:?}", expected.rows));
    assert_eq!(format!("{columns:?}"), format!("{:?}", expected.columns));
    session.rollback(id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_a_cursor_is_refused_with_what_to_use() {
    let scene = Scene::new(Engine::Postgres).await;
    let session = scene.session();
    for sql in [
        "INSERT INTO t VALUES (1, 'a') RETURNING id",
        "UPDATE t SET note = 'b' RETURNING id",
        "WITH x AS (SELECT 1) DELETE FROM t RETURNING id",
        "SHOW work_mem",
        "EXPLAIN SELECT 1",
        "CREATE TABLE u (x int)",
    ] {
        let id = session.begin(options()).await.unwrap();
        let refused = session.open_cursor(id, sql.into(), vec![]).await;
        let error = assert_kind(refused, ErrorKind::Statement);
        assert!(error.message.contains("run this statement by `query`"), "{}", error.message);
        session.rollback(id).await.unwrap();
    }
    let id = session.begin(options()).await.unwrap();
    let sql = "WITH x AS (DELETE FROM t RETURNING id) SELECT * FROM x";
    assert_kind(session.open_cursor(id, sql.into(), vec![]).await, ErrorKind::Statement);
    session.rollback(id).await.unwrap();
    assert_eq!(scene.rows().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_brings_fewer_rows_where_they_are_large() {
    let scene = Scene::new(Engine::Postgres).await;
    let mut config = plugin_config(&["app"], None);
    let grant = GrantConfig { max_bytes: Some(400_000), ..GrantConfig::default() };
    config.databases.insert(name("app"), grant);
    let grants = Arc::new(Grants::new(&scene.databases, &name("good"), &config));
    let session = Session::new(grants, "job good-job, execution 1".into(), TIME);
    let id = session.begin(options()).await.unwrap();
    // Small rows, then larger ones, then some of which only few fit.
    let sql = "SELECT i, repeat('x', CASE WHEN i <= 2000 THEN 10 WHEN i <= 3000 THEN 300 \
               WHEN i <= 3100 THEN 3000 ELSE 40000 END) FROM generate_series(1, 3200) i";
    let (cursor, _) = session.open_cursor(id, sql.into(), vec![]).await.unwrap();
    let (mut number, mut largest) = (0, 0);
    loop {
        let rows = session.fetch(id, cursor, 1_000).await.unwrap();
        if rows.is_empty() {
            break;
        }
        let bytes: usize = rows.iter().map(|row| show(&row[1]).len()).sum();
        assert!(bytes <= 100_000, "{bytes}");
        largest = largest.max(rows.len());
        for row in rows {
            number += 1;
            assert_eq!(show(&row[0]), show(&int(number)));
        }
    }
    assert_eq!((number, largest), (3_200, 1_000));
    // A row that is larger than all of that comes alone.
    let sql = "SELECT repeat('x', 150000) FROM generate_series(1, 2)";
    let (cursor, _) = session.open_cursor(id, sql.into(), vec![]).await.unwrap();
    for _ in 0..2 {
        assert_eq!(session.fetch(id, cursor, 10).await.unwrap().len(), 1);
    }
    let (cursor, _) = session.open_cursor(id, "SELECT repeat('x', 500000)".into(), vec![]).await.unwrap();
    assert_kind(session.fetch(id, cursor, 1).await, ErrorKind::LimitExceeded);
    session.rollback(id).await.unwrap();
    scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_to_a_savepoint_ends_the_cursors_opened_since_and_no_others() {
    let scene = Scene::new(Engine::Postgres).await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    let sql = "SELECT i FROM generate_series(1, 5) i";
    let (before, _) = session.open_cursor(id, sql.into(), vec![]).await.unwrap();
    assert_eq!(session.fetch(id, before, 2).await.unwrap().len(), 2);
    let savepoint = session.savepoint(id).await.unwrap();
    let (since, _) = session.open_cursor(id, sql.into(), vec![]).await.unwrap();
    session.execute_in(id, "SELECT 1 / 0".into(), vec![]).await.unwrap_err();
    session.rollback_to(id, savepoint).await.unwrap();
    assert_kind(session.fetch(id, since, 1).await, ErrorKind::Closed);
    session.close_cursor(id, since).await;
    let rows = session.fetch(id, before, 2).await.unwrap();
    assert_eq!(show(&rows[0][0]), show(&int(3)));
    session.commit(id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_a_fetch_fails_the_transaction() {
    let scene = Scene::new(Engine::Postgres).await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    let sql = "SELECT 1 / (i - 500) FROM generate_series(1, 1000) i";
    let (cursor, _) = session.open_cursor(id, sql.into(), vec![]).await.unwrap();
    session.fetch(id, cursor, 10).await.unwrap();
    let error = session.fetch(id, cursor, 900).await.unwrap_err();
    assert_eq!(error.code.as_deref(), Some("22012"));
    session.commit(id).await.unwrap_err();
    // A block of the plugin may close it: the plugin is told so.
    let id = session.begin(options()).await.unwrap();
    let (cursor, _) = session.open_cursor(id, "SELECT 1".into(), vec![]).await.unwrap();
    let close = "DO $$ BEGIN EXECUTE 'CLOSE ALL'; EXCEPTION WHEN OTHERS THEN NULL; END $$";
    let _closed = session.execute_in(id, close.into(), vec![]).await;
    let fetched = session.fetch(id, cursor, 1).await;
    assert!(fetched.is_ok() || fetched.is_err_and(|error| error.kind == ErrorKind::Closed));
    session.rollback(id).await.unwrap();
    scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_rows_read_ahead_comes_where_they_are_asked_for() {
    let scene = Scene::new(Engine::Postgres).await;
    let session = scene.session();
    let sql = "SELECT 1 / (i - 500) FROM generate_series(1, 1000) i";
    let id = session.begin(options()).await.unwrap();
    session.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
    let savepoint = session.savepoint(id).await.unwrap();
    let (cursor, _) = session.open_cursor(id, sql.into(), vec![]).await.unwrap();
    for _ in 0..4 {
        assert_eq!(session.fetch(id, cursor, 100).await.unwrap().len(), 100);
    }
    let error = assert_kind(session.fetch(id, cursor, 100).await, ErrorKind::Statement);
    assert_eq!(error.code.as_deref(), Some("22012"));
    session.rollback_to(id, savepoint).await.unwrap();
    session.commit(id).await.unwrap();
    assert_eq!(scene.rows().await, 1);
    // Who reads a little reads no more than that.
    let id = session.begin(options()).await.unwrap();
    let (cursor, _) = session.open_cursor(id, sql.into(), vec![]).await.unwrap();
    assert_eq!(session.fetch(id, cursor, 499).await.unwrap().len(), 499);
    session.close_cursor(id, cursor).await;
    session.commit(id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_locks_no_rows_that_nobody_has_asked_for() {
    let scene = Scene::new(Engine::Postgres).await;
    scene.outside.run("INSERT INTO t SELECT i, 'a' FROM generate_series(1, 100) i").await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    let sql = "SELECT id FROM t ORDER BY id FOR UPDATE";
    let (cursor, _) = session.open_cursor(id, sql.into(), vec![]).await.unwrap();
    for _ in 0..6 {
        assert_eq!(session.fetch(id, cursor, 10).await.unwrap().len(), 10);
    }
    // Every command waits for what the one before it has begun.
    session.execute_in(id, "SELECT 1".into(), vec![]).await.unwrap();
    let free = "SELECT count(*) FROM (SELECT id FROM t FOR UPDATE SKIP LOCKED) q";
    assert_eq!(scene.outside.number(free).await, 40);
    session.rollback(id).await.unwrap();
}
