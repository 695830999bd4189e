//! What a session keeps, and what a plugin could make it keep.

use std::time::Duration;

use innkeeper::interfaces::db::{BeginOptions, ErrorKind, Value};

use super::one;
use crate::database::Engine;
use crate::{Scene, assert_kind, int, options, show, text};

/// A scene with one connection, so that every call meets what the last one has left.
async fn scene_with_one_connection() -> Scene {
    Scene::with(Engine::Postgres, 1, Duration::from_secs(10)).await
}

const PID: &str = "SELECT pg_backend_pid()";

/// Leaves something of a session, and looks for it.
const LEFT: [(&str, &str, &str); 12] = [
    ("SELECT set_config('work_mem', '123kB', false)", "SELECT current_setting('work_mem')", "123kB"),
    (
        "SELECT set_config('search_path', 'pg_catalog', false)",
        "SELECT current_setting('search_path')",
        "pg_catalog",
    ),
    ("SELECT set_config('role', 'pg_monitor', false)", "SELECT current_user::text", "pg_monitor"),
    ("SELECT set_config('role', 'pg_monitor', false)", "SELECT current_setting('role')", "pg_monitor"),
    (
        "SELECT set_config('session_authorization', 'pg_monitor', false)",
        "SELECT session_user || current_user",
        "pg_monitor",
    ),
    (
        "SELECT set_config('session_authorization', 'pg_monitor', false), set_config('role', 'pg_monitor', false)",
        "SELECT session_user || current_user || current_setting('role')",
        "pg_monitor",
    ),
    ("CREATE TEMP TABLE secret AS SELECT 7 AS x", "SELECT string_agg(relname, ',') FROM pg_class", "secret"),
    (
        "CREATE FUNCTION pg_temp.secret() RETURNS int LANGUAGE sql AS 'SELECT 7'",
        "SELECT string_agg(proname, ',') FROM pg_proc",
        "secret",
    ),
    (
        "DO $$ BEGIN EXECUTE 'DECLARE kept CURSOR WITH HOLD FOR SELECT 1'; END $$",
        "SELECT coalesce(string_agg(name, ','), '') FROM pg_cursors",
        "kept",
    ),
    (
        "DO $$ BEGIN EXECUTE 'LISTEN kept'; END $$",
        "SELECT coalesce(string_agg(c, ','), '') FROM pg_listening_channels() c",
        "kept",
    ),
    (
        "SELECT pg_advisory_lock(7), pg_advisory_lock_shared(8)",
        "SELECT CASE WHEN count(*) > 0 THEN 'held' ELSE '' END FROM pg_locks \
         WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
        "held",
    ),
    (
        "SELECT set_config('default_transaction_read_only', 'on', false)",
        "SELECT current_setting('transaction_read_only')",
        "on",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_session_is_left_after_a_commit_or_a_rollback() {
    let scene = scene_with_one_connection().await;
    let session = scene.session();
    let pid = one(&session, PID, vec![]).await;
    for (leave, look, left) in LEFT {
        let before = show(&one(&session, look, vec![]).await);
        assert!(!before.contains(left), "{look}: {before}");
        session.execute(leave.into(), vec![]).await.unwrap();
        assert_eq!(show(&one(&session, look, vec![]).await), before, "{leave}");

        let id = session.begin(options()).await.unwrap();
        session.execute_in(id, leave.into(), vec![]).await.unwrap();
        session.rollback(id).await.unwrap();
        assert_eq!(show(&one(&session, look, vec![]).await), before, "{leave}");

        let id = session.begin(options()).await.unwrap();
        session.execute_in(id, leave.into(), vec![]).await.unwrap();
        session.execute_in(id, "SELECT 1 / 0".into(), vec![]).await.unwrap_err();
        session.commit(id).await.unwrap_err();
        assert_eq!(show(&one(&session, look, vec![]).await), before, "{leave}");
    }
    let currval = "SELECT currval('s')";
    session.execute("CREATE SEQUENCE s".into(), vec![]).await.unwrap();
    one(&session, "SELECT nextval('s')", vec![]).await;
    let error = assert_kind(session.query(currval.into(), vec![]).await, ErrorKind::Statement);
    assert_eq!(error.code.as_deref(), Some("55000"));
    // It was the same connection all the time: nothing was just hung up on.
    assert_eq!(show(&one(&session, PID, vec![]).await), show(&pid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notification_to_oneself_breaks_nothing() {
    let scene = scene_with_one_connection().await;
    let session = scene.session();
    let listen = "DO $$ BEGIN EXECUTE 'LISTEN kept'; NOTIFY kept; END $$";
    for _ in 0..3 {
        session.execute(listen.into(), vec![]).await.unwrap();
        scene.outside.run("NOTIFY kept").await;
        one(&session, "SELECT 1", vec![]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_with_another_mark_is_not_committed() {
    let scene = scene_with_one_connection().await;
    let session = scene.session();
    for statement in [
        "SELECT set_config('innkeeper.transaction', 'mine', true)",
        "SELECT set_config('innkeeper.transaction', '', false)",
        "SELECT set_config('innkeeper.transaction', (current_setting('innkeeper.transaction')::int + 1)::text, true)",
    ] {
        let id = session.begin(options()).await.unwrap();
        session.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
        session.execute_in(id, statement.into(), vec![]).await.unwrap();
        assert_kind(session.commit(id).await, ErrorKind::Closed);
        assert_eq!(scene.rows().await, 0);
    }
    session.execute("INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
    assert_eq!(scene.rows().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_of_a_plugin_do_not_stand_in_for_the_servers() {
    let scene = scene_with_one_connection().await;
    scene
        .outside
        .run(
            "CREATE SCHEMA own; \
             CREATE FUNCTION own.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT 'own' $$; \
             CREATE FUNCTION own.int4div(int, int) RETURNS int LANGUAGE sql AS $$ SELECT 1 $$; \
             CREATE FUNCTION own.texteq(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT false $$; \
             CREATE FUNCTION own.pg_advisory_unlock_all() RETURNS void LANGUAGE sql AS $$ SELECT NULL::void $$",
        )
        .await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    let own = "SELECT set_config('search_path', 'own, public, pg_catalog', true), pg_advisory_lock(7)";
    session.execute_in(id, own.into(), vec![]).await.unwrap();
    let shadowed = session.query_in(id, "SELECT current_setting('work_mem')".into(), vec![]).await.unwrap();
    assert_eq!(show(&shadowed.rows[0][0]), show(&text("own")));
    session.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
    session.commit(id).await.unwrap();
    assert_eq!(scene.rows().await, 1);
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(scene.outside.number(locks).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_touches_prepared_statements_harms_only_that_call() {
    let scene = scene_with_one_connection().await;
    let session = scene.session();
    let statement = "SELECT 7, $1::int4";
    let all = "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$";
    let taken = "DO $$ BEGIN FOR i IN 1..300 LOOP EXECUTE format('PREPARE sqlx_s_%s AS SELECT 1', i); \
                 END LOOP; END $$";
    for hostile in [all, taken, all] {
        session.query(statement.into(), vec![int(1)]).await.unwrap();
        // It fails where it takes a name that is in use.
        let _done = session.execute(hostile.into(), vec![]).await;
        for _ in 0..3 {
            let rows = session.query(statement.into(), vec![int(1)]).await.unwrap();
            assert_eq!(show(&rows.rows[0][1]), show(&int(1)), "{hostile}");
        }
    }
    // In one transaction, it is a conflict: what was kept is forgotten then.
    let id = session.begin(options()).await.unwrap();
    session.query_in(id, statement.into(), vec![int(1)]).await.unwrap();
    session.execute_in(id, all.into(), vec![]).await.unwrap();
    assert_kind(session.query_in(id, statement.into(), vec![int(1)]).await, ErrorKind::Conflict);
    session.rollback(id).await.unwrap();
    session.query(statement.into(), vec![int(1)]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_put_in_the_place_of_another_is_an_error_and_no_panic() {
    let scene = scene_with_one_connection().await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    let statement = "SELECT 7, 8";
    session.query_in(id, statement.into(), vec![]).await.unwrap();
    let replace = "DO $$ DECLARE n text; BEGIN SELECT name INTO n FROM pg_prepared_statements \
                   WHERE statement = 'SELECT 7, 8'; EXECUTE 'DEALLOCATE ' || n; \
                   EXECUTE 'PREPARE ' || n || ' AS SELECT 1'; END $$";
    session.execute_in(id, replace.into(), vec![]).await.unwrap();
    let error = session.query_in(id, statement.into(), vec![]).await.unwrap_err();
    assert!(error.message.contains("other columns than it had described"), "{}", error.message);
    session.rollback(id).await.unwrap();
    one(&session, "SELECT 1", vec![]).await;
    scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_text_under_another_search_path_is_right_or_a_conflict() {
    let scene = scene_with_one_connection().await;
    scene
        .outside
        .run(
            "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.v (x int4); CREATE TABLE b.v (x text, y int8); \
             INSERT INTO a.v VALUES (7); INSERT INTO b.v VALUES ('seven', 8)",
        )
        .await;
    let session = scene.session();
    let read = "SELECT * FROM v";
    let write = "INSERT INTO v (x) VALUES ($1)";
    let mut right = 0;
    for round in 0..12 {
        let (schema, value, written) =
            if round % 2 == 0 { ("a", int(7), int(9)) } else { ("b", text("seven"), text("nine")) };
        let id = session.begin(options()).await.unwrap();
        let path = format!("SELECT set_config('search_path', '{schema}', true)");
        session.execute_in(id, path, vec![]).await.unwrap();
        // The first to come again after a conflict is right.
        let read = session.query_in(id, read.into(), vec![]).await;
        match read {
            Ok(rows) => {
                assert_eq!(show(&rows.rows[0][0]), show(&value), "{schema}");
                right += 1;
                match session.execute_in(id, write.into(), vec![written]).await {
                    Ok(changed) => assert_eq!(changed, 1),
                    Err(error) => assert_eq!(error.kind, ErrorKind::Conflict, "{error:?}"),
                }
            }
            Err(error) => assert_eq!(error.kind, ErrorKind::Conflict, "{error:?}"),
        }
        session.rollback(id).await.unwrap();
    }
    assert!(right >= 6, "{right}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_that_change_between_two_calls_are_seen_as_they_are() {
    let scene = scene_with_one_connection().await;
    let session = scene.session();
    scene.outside.run("CREATE TABLE c (x int4); INSERT INTO c VALUES (1)").await;
    let (read, write) = ("SELECT x FROM c", "UPDATE c SET x = $1");
    for (kind, given, expected) in [
        ("int8", int(1 << 40), int(1 << 40)),
        ("text", text("a"), text("a")),
        ("inet USING '1.2.3.4'", text("1.2.3.4"), Value::Other("1.2.3.4".into())),
        ("text", text("a"), text("a")),
        ("int4[] USING '{1}'", Value::IntegerArray(vec![None]), Value::IntegerArray(vec![None])),
        ("numeric USING 1", Value::Decimal("1.50".into()), Value::Decimal("1.50".into())),
    ] {
        session.query(read.into(), vec![]).await.unwrap();
        session.execute(write.into(), vec![Value::Null]).await.unwrap();
        scene.outside.run(&format!("ALTER TABLE c ALTER x TYPE {kind}")).await;
        session.execute(write.into(), vec![given]).await.unwrap();
        assert_eq!(show(&one(&session, read, vec![]).await), show(&expected), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_execution_on_the_same_connection_chooses_its_isolation() {
    let scene = scene_with_one_connection().await;
    scene.session().query(PID.into(), vec![]).await.unwrap();
    let session = scene.session();
    let repeatable = Some(innkeeper::interfaces::db::Isolation::RepeatableRead);
    let id =
        session.begin(innkeeper::interfaces::db::BeginOptions { isolation: repeatable, ..options() }).await;
    let isolation = session.query_in(id.unwrap(), "SHOW transaction_isolation".into(), vec![]).await.unwrap();
    assert_eq!(show(&isolation.rows[0][0]), show(&text("repeatable read")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_only_reads_for_a_while_is_no_fault_of_the_statement() {
    let scene = scene_with_one_connection().await;
    let session = scene.session();
    let insert = || "INSERT INTO t VALUES (1, 'a')".to_owned();
    scene
        .outside
        .run(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', \
                       current_database()); END $$",
        )
        .await;
    let error = assert_kind(session.execute(insert(), vec![]).await, ErrorKind::Other);
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("standby")), "{error:?}");
    let id = session.begin(options()).await.unwrap();
    assert_kind(session.execute_in(id, insert(), vec![]).await, ErrorKind::Other);
    session.rollback(id).await.unwrap();
    let id = session.begin(BeginOptions { read_only: true, ..options() }).await.unwrap();
    assert_kind(session.execute_in(id, insert(), vec![]).await, ErrorKind::Statement);
    session.rollback(id).await.unwrap();
}
