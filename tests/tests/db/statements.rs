//! What a plugin may say, and what it is told when something goes wrong.

use innkeeper::interfaces::db::ErrorKind;

use crate::database::Engine;
use crate::{Scene, assert_kind, int, on_both_engines, options, show_rows, text};

on_both_engines!(
    the_hosts_transaction_cannot_be_ended_by_sql,
    a_text_holds_one_statement,
    violations_of_constraints_have_their_own_kinds,
    a_statement_that_is_not_understood_says_where,
    the_number_of_parameters_must_fit,
    the_columns_have_names_and_types_also_without_rows,
    a_table_that_has_changed_is_seen_as_it_is,
);

async fn the_hosts_transaction_cannot_be_ended_by_sql(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let hidden = ["", ";", " ;\n;", "-- x\n", "/* x */", "/**/-- x\n;/* ; */"];
    let texts = [
        "COMMIT",
        "commit and chain",
        "END",
        "ROLLBACK",
        "ABORT",
        "BEGIN",
        "SAVEPOINT s",
        "RELEASE s",
        "START TRANSACTION",
        "PREPARE TRANSACTION 'x'",
        "SET ROLE x",
        "RESET ALL",
        "DISCARD ALL",
        "COPY t FROM STDIN",
        "LISTEN x",
        "ATTACH ':memory:' AS x",
        "DETACH x",
        "VACUUM",
        "VACUUM INTO 'x'",
        "PRAGMA query_only = 1",
        "PRAGMA table_info(t)",
        "DEALLOCATE ALL",
        "PREPARE x AS SELECT 1",
    ];
    for before in hidden {
        for statement in texts {
            let statement = format!("{before}{statement}");
            let id = session.begin(options()).await.unwrap();
            session.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
            assert_kind(session.execute_in(id, statement.clone(), vec![]).await, ErrorKind::Denied);
            session.rollback(id).await.unwrap();
            assert_kind(session.query(statement, vec![]).await, ErrorKind::Denied);
        }
    }
    assert_eq!(scene.rows().await, 0);
    scene.assert_clean().await;
}

async fn a_text_holds_one_statement(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    for statement in [
        "SELECT 1; COMMIT",
        "INSERT INTO t VALUES (1, 'a'); INSERT INTO t VALUES (2, 'b')",
        "SELECT 1;;/* x */ DELETE FROM t",
        "INSERT INTO t VALUES (1, 'a'); -- x\n COMMIT",
        "SELECT 1; no SQL",
    ] {
        for params in [vec![], vec![int(1)]] {
            assert_kind(session.query(statement.into(), params.clone()).await, ErrorKind::Statement);
            assert_kind(session.execute(statement.into(), params).await, ErrorKind::Statement);
        }
    }
    assert_eq!(scene.rows().await, 0);
    for (number, statement) in [
        "INSERT INTO t VALUES (0, 'a;b'); ",
        "INSERT INTO t VALUES (1, 'a''; COMMIT') ; -- and no more",
        "INSERT INTO t VALUES (2, '/*'); /* ; */ ;",
        "INSERT INTO t (id, \"note\") VALUES (3, '--');",
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(session.execute(statement.into(), vec![]).await.unwrap(), 1, "{statement}");
        assert_eq!(scene.rows().await, number as i64 + 1);
    }
    scene.assert_clean().await;
}

async fn violations_of_constraints_have_their_own_kinds(engine: Engine) {
    let scene = Scene::new(engine).await;
    scene
        .outside
        .run(
            "INSERT INTO t VALUES (1, 'a'); CREATE TABLE c (id INTEGER NOT NULL, \
             parent INTEGER REFERENCES t (id), n INTEGER CONSTRAINT small CHECK (n < 10))",
        )
        .await;
    let session = scene.session();
    for (statement, kind) in [
        ("INSERT INTO t VALUES (1, 'b')", ErrorKind::UniqueViolation),
        ("INSERT INTO c VALUES (1, 7, 1)", ErrorKind::ForeignKeyViolation),
        ("INSERT INTO c VALUES (NULL, 1, 1)", ErrorKind::NotNullViolation),
        ("INSERT INTO c VALUES (1, 1, 10)", ErrorKind::CheckViolation),
    ] {
        let error = assert_kind(session.execute(statement.into(), vec![]).await, kind);
        assert!(error.code.is_some(), "{error:?}");
        if kind == ErrorKind::CheckViolation {
            assert_eq!(error.constraint.as_deref(), Some("small"));
        }
    }
    if engine == Engine::Postgres {
        scene.outside.run("CREATE TABLE e (x int4range, EXCLUDE USING gist (x WITH &&))").await;
        let insert = "INSERT INTO e VALUES (int4range(1, 5))";
        session.execute(insert.into(), vec![]).await.unwrap();
        let error = assert_kind(session.execute(insert.into(), vec![]).await, ErrorKind::ExclusionViolation);
        assert!(error.detail.is_some(), "{error:?}");
    }
}

async fn a_statement_that_is_not_understood_says_where(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let error = session.query("SELECT 'é', missing FROM t".into(), vec![]).await;
    let error = assert_kind(error, ErrorKind::Statement);
    assert_eq!(error.position, Some(13), "{error:?}");
    assert!(error.message.contains("missing"), "{error:?}");
    assert_eq!(error.code.as_deref(), Some(if engine == Engine::Postgres { "42703" } else { "1" }));
}

async fn the_number_of_parameters_must_fit(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let statement = "INSERT INTO t VALUES ($1, $2)";
    for params in [vec![], vec![int(1)], vec![int(1), text("a"), int(3)]] {
        let given = params.len();
        let error = session.execute(statement.into(), params).await;
        let error = assert_kind(error, ErrorKind::Statement);
        assert!(error.message.contains("has 2 parameters"), "{}", error.message);
        assert!(error.message.contains(&format!("and {given} w")), "{}", error.message);
    }
    let reversed = session.execute("INSERT INTO t VALUES ($2, $1)".into(), vec![text("a"), int(1)]).await;
    assert_eq!(reversed.unwrap(), 1);
    let twice = session.query("SELECT id FROM t WHERE id = $1 AND id <= $1".into(), vec![int(1)]).await;
    assert_eq!(show_rows(&twice.unwrap()).len(), 1);
    assert_kind(session.query("SELECT $1, $3".into(), vec![int(1); 3]).await, ErrorKind::Statement);
    assert_kind(session.query("SELECT $0".into(), vec![int(1)]).await, ErrorKind::Statement);
    if engine == Engine::Sqlite {
        for statement in ["INSERT INTO t VALUES (?2, ?1)", "INSERT INTO t (note, id) VALUES (?, ?)"] {
            session.execute("DELETE FROM t".into(), vec![]).await.unwrap();
            session.execute(statement.into(), vec![text("a"), int(7)]).await.unwrap();
            assert_eq!(scene.outside.number("SELECT count(*) FROM t WHERE id = 7 AND note = 'a'").await, 1);
        }
        for statement in ["SELECT ?1, ?", "SELECT :a", "SELECT @a", "SELECT $a", "SELECT ?1, ?3"] {
            let refused = session.query(statement.into(), vec![int(1), int(2)]).await;
            assert_kind(refused, ErrorKind::Statement);
        }
    }
    scene.assert_clean().await;
}

async fn the_columns_have_names_and_types_also_without_rows(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let rows = session.query("SELECT id, note AS remark FROM t".into(), vec![]).await.unwrap();
    let columns: Vec<_> = rows.columns.iter().map(|c| (c.name.as_str(), c.type_name.as_str())).collect();
    let types = if engine == Engine::Postgres { ["int4", "text"] } else { ["INTEGER", "TEXT"] };
    assert_eq!(columns, [("id", types[0]), ("remark", types[1])]);
    assert!(rows.rows.is_empty());
    let none = session.query("DELETE FROM t".into(), vec![]).await.unwrap();
    assert!(none.columns.is_empty() && none.rows.is_empty());
}

async fn a_table_that_has_changed_is_seen_as_it_is(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let read = "SELECT * FROM t";
    scene.outside.run("INSERT INTO t VALUES (1, 'a')").await;
    assert_eq!(session.query(read.into(), vec![]).await.unwrap().rows[0].len(), 2);
    scene.outside.run("ALTER TABLE t ADD COLUMN extra INTEGER DEFAULT 3").await;
    assert_eq!(session.query(read.into(), vec![]).await.unwrap().rows[0].len(), 3);

    // In an open transaction PostgreSQL cannot take a statement back.
    let id = session.begin(options()).await.unwrap();
    session.execute_in(id, "ALTER TABLE t ADD COLUMN more INTEGER".into(), vec![]).await.unwrap();
    let changed = session.query_in(id, read.into(), vec![]).await;
    if engine == Engine::Postgres {
        assert_kind(changed, ErrorKind::Conflict);
    } else {
        assert_eq!(changed.unwrap().rows[0].len(), 4);
    }
    session.rollback(id).await.unwrap();
    assert_eq!(session.query(read.into(), vec![]).await.unwrap().rows[0].len(), 3);

    if engine == Engine::Postgres {
        // The type of a parameter follows its column.
        let insert = "INSERT INTO t (id, extra) VALUES ($1, $2)";
        session.execute(insert.into(), vec![int(2), int(2)]).await.unwrap();
        scene.outside.run("ALTER TABLE t ALTER COLUMN extra TYPE text").await;
        session.execute(insert.into(), vec![int(3), text("three")]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_sqlite_has_rolled_back_is_never_committed() {
    let scene = Scene::new(Engine::Sqlite).await;
    scene
        .outside
        .run(
            "INSERT INTO t VALUES (1, 'a'); CREATE TABLE u (x INTEGER); CREATE TRIGGER no BEFORE INSERT ON u \
             BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
        )
        .await;
    let session = scene.session();
    for statement in ["INSERT OR ROLLBACK INTO t VALUES (1, 'c')", "INSERT INTO u VALUES (1)"] {
        for end in ["commit", "rollback"] {
            let id = session.begin(options()).await.unwrap();
            session.execute_in(id, "INSERT INTO t VALUES (2, 'b')".into(), vec![]).await.unwrap();
            session.execute_in(id, statement.into(), vec![]).await.unwrap_err();
            // Nothing later runs in autocommit.
            let later = session.execute_in(id, "INSERT INTO t VALUES (3, 'd')".into(), vec![]).await;
            assert_kind(later, ErrorKind::Closed);
            match end {
                "commit" => drop(assert_kind(session.commit(id).await, ErrorKind::Closed)),
                _ => session.rollback(id).await.unwrap(),
            }
            assert_eq!(scene.rows().await, 1);
        }
        session.execute(statement.into(), vec![]).await.unwrap_err();
    }
    scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_blocks_cannot_end_the_transaction_either() {
    let scene = Scene::new(Engine::Postgres).await;
    scene
        .outside
        .run("CREATE PROCEDURE finish() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (9, 'x'); COMMIT; END $$")
        .await;
    let session = scene.session();
    for statement in [
        "DO $$ BEGIN COMMIT; END $$",
        "DO $$ BEGIN INSERT INTO t VALUES (8, 'x'); ROLLBACK; END $$",
        "CALL finish()",
    ] {
        let id = session.begin(options()).await.unwrap();
        session.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
        session.execute_in(id, statement.into(), vec![]).await.unwrap_err();
        session.commit(id).await.unwrap_err();
        session.execute(statement.into(), vec![]).await.unwrap_err();
    }
    assert_eq!(scene.rows().await, 0);
    scene.assert_clean().await;
}
