//! What a plugin's SQL may do in a SQLite file, and what it may not.

use std::time::{Duration, Instant};

use innkeeper::interfaces::db::ErrorKind;

use super::session_with;
use crate::database::Engine;
use crate::{Scene, TIME, assert_kind, int, options, show_rows, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_makes_and_changes_its_own_tables() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    for statement in [
        "CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, n INTEGER CHECK (n > 0), \
         twice INTEGER GENERATED ALWAYS AS (n * 2) STORED, note TEXT DEFAULT 'x' COLLATE NOCASE)",
        "CREATE TABLE IF NOT EXISTS a (x)",
        "CREATE UNIQUE INDEX a_n ON a (n) WHERE n > 10",
        "CREATE INDEX a_lower ON a (lower(note))",
        "CREATE VIEW seen AS SELECT id, n FROM a WHERE n > 1",
        "CREATE TABLE log (a INTEGER REFERENCES a (id) ON DELETE CASCADE)",
        "CREATE TRIGGER logged AFTER INSERT ON a BEGIN INSERT INTO log VALUES (new.id); SELECT CASE WHEN 1 THEN 2 END; END",
        "INSERT INTO a (n) VALUES (1), (2), (3)",
        "INSERT INTO a (id, n) VALUES (1, 5) ON CONFLICT (id) DO UPDATE SET n = excluded.n RETURNING id",
        "CREATE TABLE copy AS SELECT * FROM a",
        "ALTER TABLE copy RENAME TO renamed",
        "ALTER TABLE renamed RENAME COLUMN note TO remark",
        "ALTER TABLE renamed ADD COLUMN extra TEXT",
        "ALTER TABLE renamed DROP COLUMN extra",
        "CREATE TABLE w (k TEXT PRIMARY KEY, v ANY) STRICT, WITHOUT ROWID",
        "REPLACE INTO w VALUES ('a', 1)",
        "UPDATE sqlite_sequence SET seq = 100 WHERE name = 'a'",
        "ANALYZE",
        "REINDEX",
        "REINDEX a_n",
        "DELETE FROM a WHERE id = 3",
        "EXPLAIN SELECT * FROM a",
        "EXPLAIN QUERY PLAN SELECT * FROM a",
        "DROP TRIGGER logged",
        "DROP VIEW seen",
        "DROP INDEX a_n",
        "DROP TABLE renamed",
    ] {
        let made = session.query(statement.into(), vec![]).await;
        made.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    let id = session.begin(options()).await.unwrap();
    session.execute_in(id, "CREATE TABLE b (x)".into(), vec![]).await.unwrap();
    session.execute_in(id, "ALTER TABLE b RENAME COLUMN x TO y".into(), vec![]).await.unwrap();
    session.commit(id).await.unwrap();
    assert_eq!(scene.outside.number("SELECT count(*) FROM log").await, 2);
    scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_asks_whatever_sqlite_can_answer() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    for (statement, answer) in [
        (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT sum(i) FROM n",
            "45",
        ),
        ("SELECT sum(value) OVER (ORDER BY key) FROM json_each('[1,2,3]') ORDER BY 1 DESC LIMIT 1", "6"),
        ("SELECT '[1,{\"a\":2}]' -> 1 ->> 'a'", "2"),
        ("SELECT count(*) FROM pragma_table_info('t')", "2"),
        ("SELECT count(*) FROM pragma_table_list WHERE name = 't'", "1"),
        ("SELECT count(*) FROM pragma_index_list('t')", "0"),
        ("SELECT count(*) FROM sqlite_schema WHERE name = 't'", "1"),
        ("SELECT count(*) > 100 FROM pragma_function_list", "1"),
        ("SELECT user_version FROM pragma_user_version", "0"),
        ("SELECT value FROM generate_series(5, 5)", "no such table"),
    ] {
        let answered = match session.query(statement.into(), vec![]).await {
            Ok(rows) => format!("{:?}", show_rows(&rows)),
            Err(error) => error.message,
        };
        assert!(answered.contains(answer), "{statement}: {answered}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_text_search_and_spatial_indexes_work() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    for module in ["fts5", "fts4", "fts3"] {
        let found = format!("SELECT count(*) FROM {module}_t WHERE {module}_t MATCH 'seven'");
        for statement in [
            format!("CREATE VIRTUAL TABLE {module}_t USING {module}(note)"),
            format!(
                "CREATE TRIGGER {module}_kept AFTER INSERT ON t BEGIN INSERT INTO {module}_t (note) VALUES (new.note); END"
            ),
            "INSERT INTO t (note) VALUES ('six seven eight'), ('nine')".to_owned(),
            format!("UPDATE {module}_t SET note = 'seven nine' WHERE note = 'nine'"),
            format!("INSERT INTO {module}_t ({module}_t) VALUES ('optimize')"),
            format!("INSERT INTO {module}_t ({module}_t) VALUES ('rebuild')"),
            format!("INSERT INTO {module}_t ({module}_t) VALUES ('integrity-check')"),
            format!(
                "SELECT snippet({module}_t{}) FROM {module}_t WHERE {module}_t MATCH 'nine'",
                if module == "fts5" { ", 0, '[', ']', '', 9" } else { "" }
            ),
        ] {
            let done = session.query(statement.clone(), vec![]).await;
            done.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        }
        assert_eq!(show_rows(&session.query(found, vec![]).await.unwrap()), [["Value::Integer(2)"]]);
        for statement in [
            format!("ALTER TABLE {module}_t RENAME TO {module}_u"),
            format!("DROP TABLE {module}_u"),
            format!("DROP TRIGGER {module}_kept"),
        ] {
            let done = session.query(statement.clone(), vec![]).await;
            done.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        }
    }
    session.execute("CREATE VIRTUAL TABLE place USING rtree(id, x0, x1)".into(), vec![]).await.unwrap();
    session.execute("INSERT INTO place VALUES (1, 0, 5), (2, 7, 9)".into(), vec![]).await.unwrap();
    let inside = session.query("SELECT id FROM place WHERE x0 > 6".into(), vec![]).await.unwrap();
    assert_eq!(show_rows(&inside), [["Value::Integer(2)"]]);
    scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_reaches_beyond_the_data_is_denied_and_says_what_to_do() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    session.execute("CREATE VIRTUAL TABLE ft USING fts4(x)".into(), vec![]).await.unwrap();
    session.execute("CREATE VIEW hidden AS SELECT load_extension('x') AS x".into(), vec![]).await.unwrap();
    for (statement, words) in [
        ("SELECT load_extension('x')", "`load_extension`"),
        ("SELECT * FROM hidden", "unsafe use of load_extension()"),
        ("SELECT fts3_tokenizer('simple')", "`fts3_tokenizer`"),
        ("SELECT optimize(ft) FROM ft", "VALUES ('optimize')"),
        ("SELECT * FROM pragma_database_list", "`database_list`"),
        ("SELECT * FROM pragma_journal_mode", "`journal_mode`"),
        ("SELECT * FROM pragma_integrity_check", "`integrity_check`"),
        ("CREATE VIRTUAL TABLE x USING dbstat", "`dbstat`"),
        ("CREATE VIRTUAL TABLE x USING csv(filename='/etc/passwd')", "`csv`"),
        (
            "INSERT INTO sqlite_schema VALUES ('table', 'x', 'x', 0, 'CREATE TABLE x (y)')",
            "may not be modified",
        ),
        ("UPDATE sqlite_master SET sql = 'x'", "may not be modified"),
        ("DELETE FROM sqlite_schema", "may not be modified"),
        ("DELETE FROM ft_segments", "may not be modified"),
        ("WITH x AS (SELECT 1) DELETE FROM sqlite_schema", "may not be modified"),
    ] {
        for once in [true, false] {
            let id = session.begin(options()).await.unwrap();
            let denied = if once {
                session.commit(id).await.unwrap();
                session.query(statement.into(), vec![]).await
            } else {
                let denied = session.query_in(id, statement.into(), vec![]).await;
                session.rollback(id).await.unwrap();
                denied
            };
            let error = denied.expect_err(statement);
            assert_eq!(error.kind, ErrorKind::Denied, "{statement}: {error:?}");
            assert!(error.message.contains(words), "{statement}: {}", error.message);
        }
    }
    // What was denied says nothing of what comes next.
    let error = session.query("SELECT missing FROM t".into(), vec![]).await;
    assert_kind(error, ErrorKind::Statement);
    scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_only_reads_cannot_write_by_any_way() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = session_with(&scene, TIME, |grant| grant.read_only = true);
    for statement in [
        "INSERT INTO t VALUES (1, 'a')",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT 1, 'a' FROM x",
        "CREATE TABLE u (x)",
        "CREATE TEMP TABLE u (x)",
    ] {
        let error = assert_kind(session.execute(statement.into(), vec![]).await, ErrorKind::Denied);
        assert!(error.message.contains("read-only"), "{statement}: {}", error.message);
        let id = session.begin(options()).await.unwrap();
        assert_kind(session.execute_in(id, statement.into(), vec![]).await, ErrorKind::Denied);
        session.rollback(id).await.unwrap();
    }
    session.query("SELECT * FROM t".into(), vec![]).await.unwrap();
    assert_eq!(scene.rows().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_has_bounds_that_no_text_exceeds() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    let started = Instant::now();
    for (statement, kind) in [
        (format!("SELECT {}1{}", "(".repeat(600), ")".repeat(600)), None),
        (format!("SELECT {}", vec!["1"; 600].join("+")), Some(ErrorKind::Statement)),
        (vec!["SELECT 1"; 600].join(" UNION ALL "), Some(ErrorKind::Statement)),
        (format!("SELECT max({})", vec!["1"; 128].join(",")), Some(ErrorKind::Statement)),
        (format!("SELECT '' LIKE '{}'", "%a".repeat(600)), Some(ErrorKind::Statement)),
        // Compiled one by one, each would be compiled with all that follow it.
        ("SELECT 1;".repeat(100_000), Some(ErrorKind::Statement)),
        (format!("VALUES {}", vec!["(1)"; 200_000].join(",")), Some(ErrorKind::LimitExceeded)),
    ] {
        let start: String = statement.chars().take(40).collect();
        match (session.query(statement, vec![]).await, kind) {
            (Ok(_), None) => {}
            (Err(error), Some(kind)) => assert_eq!(error.kind, kind, "{start}: {error:?}"),
            (result, _) => panic!("{start}: {result:?}"),
        }
    }
    assert!(started.elapsed() < Duration::from_secs(10), "it took {:?}", started.elapsed());
    let rows = vec!["(1)"; 200_000].join(",");
    let inserted = session.execute(format!("INSERT INTO t (note) VALUES {rows}"), vec![]).await.unwrap();
    assert_eq!(inserted, 200_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_misspelt_in_quotes_is_no_text() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    let error = session.query("SELECT \"notte\" FROM t".into(), vec![]).await;
    let error = assert_kind(error, ErrorKind::Statement);
    assert_eq!(error.position, Some(8), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_of_two_kinds_in_one_statement_are_refused() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    // SQLite itself would give `?1` the value of `$2`.
    let mixed = session.query("SELECT $2, $1, ?1".into(), vec![int(1), text("b")]).await;
    assert_kind(mixed, ErrorKind::Statement);
    let rows = session.query("SELECT $2, $1, $2".into(), vec![int(1), int(2)]).await.unwrap();
    assert_eq!(show_rows(&rows), [["Value::Integer(2)", "Value::Integer(1)", "Value::Integer(2)"]]);
}
