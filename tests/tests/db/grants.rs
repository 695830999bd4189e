//! What a grant allows: logins of a plugin's own, and reading only.

use std::sync::Arc;
use std::time::Duration;

use innkeeper::config::GrantConfig;
use innkeeper::interfaces::db::{BeginOptions, Connections, Ended, ErrorKind, Grants, Session};
use innkeeper_tests::login::Login;

use crate::database::{Engine, until};
use crate::{Scene, TIME, assert_kind, name, on_both_engines, options, plugin_config, show_rows};

on_both_engines!(
    a_plugin_that_may_only_read_is_denied_every_statement_that_writes,
    who_chose_to_read_only_is_told_that_the_statement_is_wrong,
);

/// What the configuration grants a plugin in the database of a scene.
pub fn grants(scene: &Scene, plugin: &str, grant: GrantConfig) -> Arc<Grants> {
    let mut config = plugin_config(&[], None);
    config.databases.insert(name("app"), grant);
    Arc::new(Grants::new(&scene.databases, &name(plugin), &config))
}

/// An execution of a plugin.
pub fn execution(grants: &Arc<Grants>) -> Arc<Session> {
    Session::new(Arc::clone(grants), "job j, execution 1".into(), TIME)
}

/// With a login that may use the table of the scene.
async fn with_login(scene: &Scene, login: &Login) -> GrantConfig {
    scene.outside.run(&format!("GRANT SELECT, INSERT ON t TO {}", login.name())).await;
    GrantConfig { url: Some(login.at(&scene.outside.url())), ..GrantConfig::default() }
}

async fn server_processes(scene: &Scene, login: &Login) -> i64 {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND application_name LIKE 'innkeeper plugin %'",
        login.name()
    );
    scene.outside.number(&sql).await
}

async fn current_user(session: &Session) -> String {
    let user = "SELECT current_user::text || ' ' || session_user::text".to_owned();
    show_rows(&session.query(user, vec![]).await.unwrap()).remove(0).remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_plugin_uses_the_login_of_its_own_under_one_bound() {
    let (one, two) = (Login::new().await, Login::new().await);
    let scene = Scene::with(Engine::Postgres, 2, Duration::from_millis(100)).await;
    let of_one = execution(&grants(&scene, "one", with_login(&scene, &one).await));
    let of_two = execution(&grants(&scene, "two", with_login(&scene, &two).await));
    let of_database = scene.session_of("three");
    assert!(current_user(&of_one).await.contains(&format!("{0} {0}", one.name())));
    assert!(current_user(&of_two).await.contains(&format!("{0} {0}", two.name())));
    assert!(current_user(&of_database).await.contains("postgres"));

    let first = of_one.begin(options()).await.unwrap();
    let second = of_two.begin(options()).await.unwrap();
    let error = assert_kind(of_database.query("SELECT 1".into(), vec![]).await, ErrorKind::Busy);
    assert!(error.message.contains("2 of 2"), "the bound is one for all logins: {}", error.message);
    assert_eq!(scene.database().connections(), Connections { max: 2, in_use: 2, idle: 0 });
    of_one.commit(first).await.unwrap();
    of_two.commit(second).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_idle_connection_of_another_login_makes_room() {
    let (one, two) = (Login::new().await, Login::new().await);
    let scene = Scene::with(Engine::Postgres, 1, Duration::from_secs(60)).await;
    let of_one = execution(&grants(&scene, "one", with_login(&scene, &one).await));
    let of_two = execution(&grants(&scene, "two", with_login(&scene, &two).await));
    for _ in 0..3 {
        of_one.execute("INSERT INTO t SELECT count(*) FROM t".into(), vec![]).await.unwrap();
        assert_eq!(scene.database().connections(), Connections { max: 1, in_use: 0, idle: 1 });
        assert!(current_user(&of_two).await.contains(two.name()));
        until("the other login has no connection", async || server_processes(&scene, &one).await == 0).await;
    }
    assert_eq!((scene.rows().await, server_processes(&scene, &two).await), (3, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_of_a_login_of_its_own_is_stopped_and_leaves_nothing() {
    let (login, other) = (Login::new().await, Login::new().await);
    let scene = Scene::new(Engine::Postgres).await;
    let session = execution(&grants(&scene, "one", with_login(&scene, &login).await));
    let beside = execution(&grants(&scene, "two", with_login(&scene, &other).await));
    let open = beside.begin(options()).await.unwrap();
    let runs = {
        let (session, endless) = (Arc::clone(&session), scene.endless());
        tokio::spawn(async move { session.query(endless, vec![]).await })
    };
    scene.until_endless_runs().await;
    // The control connection is that of the login, which may not stop another's statements.
    assert_eq!(session.end().await, Ended { rolled_back: 1, unconfirmed: 0 });
    assert_kind(runs.await.unwrap(), ErrorKind::Closed);
    beside.query_in(open, "SELECT 1".into(), vec![]).await.expect("the other one goes on");
    beside.commit(open).await.unwrap();
    scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_is_refused_hurts_nobody_else() {
    let login = Login::new().await;
    let scene = Scene::with(Engine::Postgres, 1, Duration::from_secs(60)).await;
    let good = execution(&grants(&scene, "good", with_login(&scene, &login).await));
    let url = with_login(&scene, &login).await.url.map(|url| url.replace("login_", "nobody_"));
    let refused = execution(&grants(&scene, "bad", GrantConfig { url, ..GrantConfig::default() }));
    for _ in 0..3 {
        let error = assert_kind(refused.query("SELECT 1".into(), vec![]).await, ErrorKind::Connection);
        assert!(!error.message.contains("nobody_"), "{}", error.message);
        good.query("SELECT count(*) FROM t".into(), vec![]).await.unwrap();
    }
}

async fn a_plugin_that_may_only_read_is_denied_every_statement_that_writes(engine: Engine) {
    let scene = Scene::new(engine).await;
    scene.outside.run("INSERT INTO t VALUES (1, 'a')").await;
    let read_only = GrantConfig { read_only: true, ..GrantConfig::default() };
    let session = execution(&grants(&scene, "reader", read_only));
    let mut writes = vec![
        "INSERT INTO t VALUES (2, 'b')",
        "UPDATE t SET note = 'c'",
        "DELETE FROM t",
        "CREATE TABLE other (x INTEGER)",
        "DROP TABLE t",
        "WITH n AS (SELECT 7 AS id) INSERT INTO t SELECT id, 'x' FROM n",
    ];
    if engine == Engine::Postgres {
        writes.extend([
            "WITH d AS (DELETE FROM t RETURNING id) SELECT count(*) FROM d",
            "DO $$ BEGIN INSERT INTO t VALUES (3, 'd'); END $$",
            "TRUNCATE t",
        ]);
    }
    for write in writes {
        let error = assert_kind(session.execute(write.into(), vec![]).await, ErrorKind::Denied);
        for part in ["plugin `reader`", "database `app`", "`access = \"read-only\"`"] {
            assert!(error.message.contains(part), "{}", error.message);
        }
        for read_only in [false, true] {
            let id = session.begin(BeginOptions { read_only, ..options() }).await.unwrap();
            session.query_in(id, "SELECT count(*) FROM t".into(), vec![]).await.unwrap();
            assert_kind(session.execute_in(id, write.into(), vec![]).await, ErrorKind::Denied);
            assert_kind(session.query_in(id, "SELECT 1".into(), vec![]).await, ErrorKind::Statement);
            session.rollback(id).await.unwrap();
        }
    }
    if engine == Engine::Postgres {
        // It cannot be taken back from inside.
        for escape in [
            "SELECT set_config('transaction_read_only', 'off', false)",
            "DO $$ BEGIN SET TRANSACTION READ WRITE; INSERT INTO t VALUES (4, 'e'); END $$",
            "DO $$ BEGIN SET LOCAL transaction_read_only = off; INSERT INTO t VALUES (5, 'f'); END $$",
        ] {
            let id = session.begin(options()).await.unwrap();
            session.query_in(id, escape.into(), vec![]).await.unwrap_err();
            session.rollback(id).await.unwrap();
            session.query(escape.into(), vec![]).await.unwrap_err();
        }
        // A setting for later transactions is not asked.
        let later = "SELECT set_config('default_transaction_read_only', 'off', false)";
        let _set = session.query(later.into(), vec![]).await;
        assert_kind(session.execute("DELETE FROM t".into(), vec![]).await, ErrorKind::Denied);
    }
    assert_eq!(scene.rows().await, 1);
    scene.assert_clean().await;
}

async fn who_chose_to_read_only_is_told_that_the_statement_is_wrong(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let id = session.begin(BeginOptions { read_only: true, ..options() }).await.unwrap();
    let error = assert_kind(
        session.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await,
        ErrorKind::Statement,
    );
    assert!(!error.message.contains("access"), "{}", error.message);
}
