//! What is SQLite's own: what its statements may do in the host's process, and for how long.

mod cursors;
mod guard;
mod once;

use std::sync::Arc;
use std::time::{Duration, Instant};

use innkeeper::config::{DatabaseConfig, GrantConfig};
use innkeeper::interfaces::db::{Ended, ErrorKind, Grants, Session};

use crate::database::{Engine, TestDatabase, until};
use crate::{Scene, TIME, assert_kind, int, name, options, plugin_config, show_rows};

/// A session that is granted the database in its own way.
fn session_with(scene: &Scene, time: Duration, change: impl FnOnce(&mut GrantConfig)) -> Arc<Session> {
    let mut config = plugin_config(&["app"], None);
    change(config.databases.get_mut(&name("app")).unwrap());
    let grants = Arc::new(Grants::new(&scene.databases, &name("good"), &config));
    Session::new(grants, "job good-job, execution 1".into(), time)
}

async fn bounded_scene(max_size: u64) -> Scene {
    let outside = TestDatabase::empty(Engine::Sqlite).await;
    let config = DatabaseConfig {
        url: outside.url(),
        max_connections: 4,
        acquire_timeout: Duration::from_secs(10),
        max_size: Some(max_size),
    };
    Scene::at(Engine::Sqlite, outside, config).await
}

/// Fills `t` for ever.
const FILL: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                    INSERT INTO t SELECT i, hex(randomblob(500)) FROM n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_connection_has_changed_in_the_tables_is_seen_by_a_statement_that_was_kept() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    scene.outside.run("INSERT INTO t VALUES (1, 'a')").await;
    let columns = async || {
        let rows = session.query("SELECT * FROM t".into(), vec![]).await.unwrap();
        assert!(rows.rows.iter().all(|row| row.len() == rows.columns.len()));
        rows.columns.into_iter().map(|column| (column.name, column.type_name)).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        assert_eq!(columns().await.len(), 2);
    }
    scene.outside.run("ALTER TABLE t ADD COLUMN extra REAL DEFAULT 0.5").await;
    assert_eq!(columns().await[2], ("extra".to_owned(), "REAL".to_owned()));
    scene.outside.run("ALTER TABLE t RENAME COLUMN extra TO other; DELETE FROM t").await;
    assert_eq!(columns().await[2].0, "other");
    scene.outside.run("ALTER TABLE t DROP COLUMN other").await;
    assert_eq!(columns().await.len(), 2);
    assert_eq!(scene.database().connections().idle, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_sqlite_has_rolled_back_cannot_be_rolled_back_to_a_savepoint() {
    let scene = Scene::new(Engine::Sqlite).await;
    scene.outside.run("INSERT INTO t VALUES (-1, 'a')").await;
    let session = scene.session();
    for ending in ["INSERT OR ROLLBACK INTO t VALUES (-1, 'c')", FILL] {
        let session = match ending {
            FILL => session_with(&scene, TIME, |grant| {
                grant.statement_timeout = Some(Duration::from_millis(100));
            }),
            _ => Arc::clone(&session),
        };
        let id = session.begin(options()).await.unwrap();
        session.execute_in(id, "INSERT INTO t VALUES (-2, 'b')".into(), vec![]).await.unwrap();
        let savepoint = session.savepoint(id).await.unwrap();
        let error = session.execute_in(id, ending.into(), vec![]).await.unwrap_err();
        if ending != FILL {
            assert!(error.hint.unwrap().contains("rolled back the whole transaction"), "{}", error.message);
        }
        assert_kind(session.rollback_to(id, savepoint).await, ErrorKind::Closed);
        // Nothing runs outside of the transaction.
        session.execute_in(id, "INSERT INTO t VALUES (-3, 'd')".into(), vec![]).await.unwrap_err();
        session.commit(id).await.unwrap_err();
        assert_eq!(scene.rows().await, 1, "{ending}");
    }
    scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_database_ends_the_transaction_and_nothing_else() {
    let scene = bounded_scene(400_000).await;
    let session = scene.session();
    let error = assert_kind(session.execute(FILL.into(), vec![]).await, ErrorKind::Other);
    assert!(error.hint.unwrap().contains("`max_size`"), "{}", error.message);
    let id = session.begin(options()).await.unwrap();
    session.execute_in(id, "INSERT INTO t VALUES (-1, 'a')".into(), vec![]).await.unwrap();
    session.execute_in(id, FILL.into(), vec![]).await.unwrap_err();
    session.execute_in(id, "INSERT INTO t VALUES (-2, 'b')".into(), vec![]).await.unwrap_err();
    session.rollback(id).await.unwrap();
    assert_eq!(scene.rows().await, 0);
    session.execute("INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
    let temporary = format!(
        "CREATE TEMP TABLE fill AS {}",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT hex(randomblob(500)) FROM n"
    );
    assert_kind(session.execute(temporary, vec![]).await, ErrorKind::Other);
    scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_statement_is_undone_by_a_rollback_to_a_savepoint_and_the_rest_goes_on() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    let insert = |row: &str| format!("INSERT INTO t VALUES ({row}, 'x')");
    session.execute_in(id, insert("1"), vec![]).await.unwrap();
    let outer = session.savepoint(id).await.unwrap();
    session.execute_in(id, insert("2"), vec![]).await.unwrap();
    let inner = session.savepoint(id).await.unwrap();
    session.execute_in(id, insert("1"), vec![]).await.unwrap_err();
    session.rollback_to(id, inner).await.unwrap();
    session.execute_in(id, insert("3"), vec![]).await.unwrap();
    session.release(id, inner).await.unwrap();
    assert_kind(session.rollback_to(id, inner).await, ErrorKind::Closed);
    session.rollback_to(id, outer).await.unwrap();
    session.execute_in(id, insert("4"), vec![]).await.unwrap();
    session.commit(id).await.unwrap();
    assert_eq!(scene.outside.number("SELECT group_concat(id, '') + 0 FROM t").await, 14);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_takes_too_long_is_told_its_limit() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = session_with(&scene, TIME, |grant| {
        grant.statement_timeout = Some(Duration::from_millis(100));
    });
    let started = Instant::now();
    let error = assert_kind(session.query(scene.endless(), vec![]).await, ErrorKind::Timeout);
    assert!(error.message.contains("`statement_timeout` of 100ms"), "{}", error.message);
    // It only reads, so that its transaction is still there.
    let id = session.begin(options()).await.unwrap();
    let savepoint = session.savepoint(id).await.unwrap();
    assert_kind(session.query_in(id, scene.endless(), vec![]).await, ErrorKind::Timeout);
    session.rollback_to(id, savepoint).await.unwrap();
    session.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
    session.commit(id).await.unwrap();
    assert_eq!(scene.rows().await, 1);
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
    assert_eq!(scene.database().connections().idle, 1, "the connection was not kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_runs_beyond_the_time_of_its_execution() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = session_with(&scene, Duration::from_millis(200), |_| {});
    let error = assert_kind(session.query(scene.endless(), vec![]).await, ErrorKind::Timeout);
    assert!(error.message.contains("the time of the execution"), "{}", error.message);
    let many = "INSERT INTO t SELECT $1, 'x' WHERE false".to_owned();
    let error = assert_kind(session.execute_many(many, vec![vec![int(1)]; 1_000]).await, ErrorKind::Timeout);
    assert!(error.message.contains("the time of the execution"), "{}", error.message);
}

/// How often this process has the file open.
fn opened(scene: &Scene) -> usize {
    let innkeeper::database_url::DatabaseUrl::Sqlite(path) = scene.outside.url() else {
        panic!("it is SQLite")
    };
    let path = std::fs::canonicalize(path).unwrap();
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.filter(|file| std::fs::read_link(file.path()).is_ok_and(|target| target == path)).count()
}

#[cfg(target_os = "linux")]
#[test]
fn a_connection_that_is_dropped_without_a_word_stops_what_runs_and_closes_the_file() {
    let here = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let scene = here.block_on(Scene::new(Engine::Sqlite));
    for writing in [true, false] {
        let gone =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let session = scene.session();
        let running = Arc::clone(&session);
        let statement = if writing { FILL.to_owned() } else { scene.endless() };
        gone.spawn(async move {
            let id = running.begin(options()).await.unwrap();
            running.execute_in(id, "INSERT INTO t VALUES (-1, 'lost')".into(), vec![]).await.unwrap();
            running.query_in(id, statement, vec![]).await
        });
        here.block_on(until("the file is open", async || opened(&scene) > 0));
        gone.shutdown_background();
        here.block_on(until("the file is closed", async || opened(&scene) == 0));
        assert_eq!(here.block_on(scene.rows()), 0);
        drop(session);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_plugin_makes_temporarily_ends_with_the_call_and_everything_else_keeps_the_connection() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    for lasting in
        ["CREATE TABLE u (x INTEGER)", "ALTER TABLE u ADD COLUMN y", "CREATE VIEW w AS SELECT * FROM u"]
    {
        session.execute(lasting.into(), vec![]).await.unwrap();
        assert_eq!(scene.database().connections().idle, 1, "{lasting}");
    }
    for temporary in [
        "CREATE TEMP TABLE secret AS SELECT 7 AS x",
        "CREATE TABLE temp.secret (x)",
        "CREATE TEMPORARY VIEW secret AS SELECT 7 AS x",
        "CREATE TEMP TRIGGER secret AFTER INSERT ON u BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE temp.secret USING fts5(x)",
    ] {
        session.execute(temporary.into(), vec![]).await.unwrap();
        assert_eq!(scene.database().connections().idle, 0, "{temporary}");
        let seen = session.query("SELECT count(*) FROM sqlite_temp_schema".into(), vec![]).await.unwrap();
        assert_eq!(show_rows(&seen), [["Value::Integer(0)"]], "{temporary}");
    }
    let id = session.begin(options()).await.unwrap();
    session.execute_in(id, "CREATE TEMP TABLE mine (x)".into(), vec![]).await.unwrap();
    session.execute_in(id, "INSERT INTO mine VALUES (1)".into(), vec![]).await.unwrap();
    session.commit(id).await.unwrap();
    assert_eq!(scene.database().connections().idle, 0);
    assert_eq!(session.end().await, Ended { rolled_back: 0, unconfirmed: 0 });
}
