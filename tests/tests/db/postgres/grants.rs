//! Roles, schemas and time-outs of a grant.

use std::sync::Arc;
use std::time::Duration;

use innkeeper::config::GrantConfig;
use innkeeper::interfaces::db::{BeginOptions, ErrorKind, Grants, Session, Value};

use super::one;
use crate::database::Engine;
use crate::{Scene, TIME, assert_kind, int, name, options, plugin_config, show, text};

fn session_with(scene: &Scene, plugin: &str, grant: GrantConfig) -> Arc<Session> {
    let mut config = plugin_config(&["app"], None);
    config.databases.insert(name("app"), grant);
    let grants = Arc::new(Grants::new(&scene.databases, &name(plugin), &config));
    Session::new(grants, format!("job {plugin}-job, execution 1"), TIME)
}

async fn scene() -> Scene {
    Scene::with(Engine::Postgres, 2, Duration::from_secs(10)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_takes_the_role_of_its_grant() {
    let scene = scene().await;
    let session = session_with(
        &scene,
        "good",
        GrantConfig { role: Some("pg_monitor".into()), ..GrantConfig::default() },
    );
    for _ in 0..2 {
        assert_eq!(
            show(&one(&session, "SELECT current_user::text", vec![]).await),
            show(&text("pg_monitor"))
        );
        assert_kind(session.query("SELECT * FROM t".into(), vec![]).await, ErrorKind::Denied);
        // It prevents accidents, and no more.
        let none = "SELECT set_config('role', 'none', false)";
        one(&session, none, vec![]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_cannot_be_taken_is_denied_and_the_error_says_what_to_do() {
    let scene = scene().await;
    let login = format!("login_{}", uuid::Uuid::new_v4().simple());
    scene.outside.run(&format!("CREATE ROLE {login} LOGIN")).await;
    let url = scene.outside.url();
    let innkeeper::database_url::DatabaseUrl::Postgres(url) = url else { unreachable!() };
    let (_, server) = url.rsplit_once('@').unwrap();
    let as_login = Some(format!("postgres://{login}@{server}"));
    for (plugin, role, url, parts) in [
        (
            "one",
            "no such role",
            None,
            ["role `no such role` of plugin `one`", "`CREATE ROLE \"no such role\"`"],
        ),
        ("two", "a\"b", None, ["role `a\"b`", "does not exist"]),
        ("three", "none", None, ["role `none`", "does not exist"]),
        (
            "four",
            "pg_monitor",
            as_login,
            ["plugin `four` may not take on the role `pg_monitor`", "`GRANT \"pg_monitor\" TO \"login_"],
        ),
    ] {
        let grant = GrantConfig { role: Some(role.into()), url, ..GrantConfig::default() };
        let session = session_with(&scene, plugin, grant);
        for _ in 0..2 {
            let error = assert_kind(session.query("SELECT 1".into(), vec![]).await, ErrorKind::Denied);
            assert!(parts.iter().all(|part| error.message.contains(part)), "{}", error.message);
            assert_kind(session.begin(options()).await, ErrorKind::Denied);
        }
        // No transaction is left open, and the connection can be used.
        scene.assert_clean().await;
        let session = session_with(&scene, plugin, GrantConfig::default());
        let rows = session.query("SELECT current_user = session_user".into(), vec![]).await.unwrap();
        assert_eq!(show(&rows.rows[0][0]), show(&Value::Boolean(true)));
    }
    scene.databases.close().await;
    scene.outside.run(&format!("DROP ROLE {login}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_looked_up_in_the_schema_of_the_grant() {
    let scene = scene().await;
    scene
        .outside
        .run(
            "CREATE SCHEMA a; CREATE SCHEMA \"b \\ \"\"x\"\", 'y'\"; CREATE TABLE a.v (x int4); \
             CREATE TABLE \"b \\ \"\"x\"\", 'y'\".v (x text); INSERT INTO a.v VALUES (7); \
             INSERT INTO \"b \\ \"\"x\"\", 'y'\".v VALUES ('seven')",
        )
        .await;
    let schema = |schema: &str| GrantConfig { schema: Some(schema.into()), ..GrantConfig::default() };
    let one_session = session_with(&scene, "one", schema("a"));
    let two_session = session_with(&scene, "two", schema("b \\ \"x\", 'y'"));
    for _ in 0..2 {
        assert_eq!(show(&one(&one_session, "SELECT x FROM v", vec![]).await), show(&int(7)));
        assert_eq!(show(&one(&two_session, "SELECT x FROM v", vec![]).await), show(&text("seven")));
        // A setting of the plugin's own does not outlive its call.
        let change = "SELECT set_config('search_path', 'pg_catalog', false)";
        one(&one_session, change, vec![]).await;
        one(&two_session, change, vec![]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_cannot_be_used_is_denied_and_the_error_says_what_to_do() {
    let scene = scene().await;
    let schema = |schema: &str| GrantConfig { schema: Some(schema.into()), ..GrantConfig::default() };
    let session = session_with(&scene, "one", schema("missing"));
    for _ in 0..2 {
        let error = assert_kind(session.query("SELECT 1".into(), vec![]).await, ErrorKind::Denied);
        assert!(error.message.contains("schema `missing` of plugin `one`"), "{}", error.message);
        assert!(error.message.contains("`CREATE SCHEMA \"missing\"`"), "{}", error.message);
    }
    scene.outside.run("CREATE SCHEMA missing").await;
    session.query("SELECT 1".into(), vec![]).await.unwrap();
    scene.outside.run("CREATE SCHEMA closed").await;
    let grant = GrantConfig { role: Some("pg_monitor".into()), ..schema("closed") };
    let session = session_with(&scene, "two", grant);
    let error = assert_kind(session.begin(options()).await, ErrorKind::Denied);
    assert!(
        error.message.contains("`GRANT USAGE ON SCHEMA \"closed\" TO \"pg_monitor\"`"),
        "{}",
        error.message
    );
    scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_has_time_limits_of_its_own_should_the_host_be_gone() {
    let scene = scene().await;
    let limit = Some(Duration::from_millis(1_500));
    let session =
        session_with(&scene, "good", GrantConfig { statement_timeout: limit, ..GrantConfig::default() });
    let read = "SELECT current_setting('statement_timeout') || ' ' || current_setting('idle_in_transaction_session_timeout') \
                || ' ' || current_setting('client_connection_check_interval')";
    assert_eq!(show(&one(&session, read, vec![]).await), show(&text("1500ms 1min 10s")));
    let id = session.begin(options()).await.unwrap();
    let rows = session.query_in(id, read.into(), vec![]).await.unwrap();
    let shown = show(&rows.rows[0][0]);
    // The execution has ten minutes, and the server ten seconds more.
    assert!(shown.contains("1500ms 60") && shown.contains("ms 10s"), "{shown}");
    session.rollback(id).await.unwrap();
    let error = session.query("SELECT pg_sleep(60)".into(), vec![]).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_deref()), (ErrorKind::Timeout, Some("57014")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_grant_stays_one() {
    let scene = scene().await;
    let session = session_with(&scene, "good", GrantConfig { read_only: true, ..GrantConfig::default() });
    let insert = "INSERT INTO t VALUES (1, 'a')";
    session.execute(insert.into(), vec![]).await.unwrap_err();
    let id = session.begin(BeginOptions { read_only: false, ..options() }).await.unwrap();
    let off = "SELECT set_config('transaction_read_only', 'off', true)";
    session.query_in(id, off.into(), vec![]).await.unwrap_err();
    session.rollback(id).await.unwrap();
    assert_eq!(scene.rows().await, 0);
}
