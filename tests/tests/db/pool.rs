//! The connections that plugins share out among them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use innkeeper::config::DatabaseConfig;
use innkeeper::database_url::DatabaseUrl;
use innkeeper::interfaces::db::{
    BeginOptions, Connections, Database, Databases, Ended, ErrorKind, Grants, Session,
};

use crate::database::{Engine, until};
use crate::{Scene, TIME, assert_kind, name, on_both_engines, options, plugin_config, show_rows};

on_both_engines!(
    who_gets_no_connection_is_told_who_has_them,
    two_executions_that_wait_for_each_other_are_told_so_at_once,
    an_execution_that_has_every_connection_is_told_so_at_once,
    a_wait_over_two_databases_ends_in_time,
    whoever_waits_longest_is_served_first,
    an_execution_that_ends_while_it_waits_leaves_the_queue,
    two_plugins_never_share_a_connection,
    a_plugin_gets_its_own_connection_again,
    nothing_of_a_session_is_left_for_the_next_call,
    one_bound_holds_over_all_plugins,
    the_check_connects_and_leaves_nothing_behind,
    a_guest_never_learns_where_a_database_is,
    after_closing_no_connection_is_left,
);

async fn who_gets_no_connection_is_told_who_has_them(engine: Engine) {
    let scene = Scene::with(engine, 2, Duration::from_millis(200)).await;
    let (one, two) = (scene.session_of("one"), scene.session_of("two"));
    let first = one.begin(reading()).await.unwrap();
    two.begin(reading()).await.unwrap();
    let third = scene.session_of("three");
    let started = Instant::now();
    let error = assert_kind(third.query("SELECT 1".into(), vec![]).await, ErrorKind::Busy);
    assert!(started.elapsed() >= Duration::from_millis(200));
    for part in ["database `app`", "2 of 2", "1 by plugin `one` (job one-job, execution 1)", "plugin `two`"] {
        assert!(error.message.contains(part), "{}", error.message);
    }
    assert!(error.hint.unwrap().contains("[databases.app]"));
    one.commit(first).await.unwrap();
    third.query("SELECT 1".into(), vec![]).await.unwrap();
}

/// So that on SQLite two of them can be open at once.
fn reading() -> BeginOptions {
    BeginOptions { read_only: true, ..options() }
}

async fn two_executions_that_wait_for_each_other_are_told_so_at_once(engine: Engine) {
    let scene = Scene::with(engine, 2, Duration::from_secs(600)).await;
    let (one, two) = (scene.session_of("one"), scene.session_of("two"));
    let first = one.begin(reading()).await.unwrap();
    let second = two.begin(reading()).await.unwrap();
    let waits = {
        let one = Arc::clone(&one);
        tokio::spawn(async move { one.begin(reading()).await })
    };
    until("the first waits", async || scene.database().waiting() == 1).await;
    // It does not have to wait to learn that the other waits for it.
    let error = assert_kind(two.begin(reading()).await, ErrorKind::Busy);
    for part in ["everybody who has one waits for another", "2 of 2", "plugin `one`", "plugin `two`"] {
        assert!(error.message.contains(part), "{}", error.message);
    }
    assert!(!waits.is_finished() && scene.database().waiting() == 1, "the other waits on");
    two.query_in(second, "SELECT 1".into(), vec![]).await.expect("what it has, it can use");
    two.commit(second).await.unwrap();
    let third = waits.await.unwrap().expect("the other goes on");
    one.commit(third).await.unwrap();
    one.commit(first).await.unwrap();
    scene.assert_clean().await;
}

async fn an_execution_that_has_every_connection_is_told_so_at_once(engine: Engine) {
    let scene = Scene::with(engine, 1, Duration::from_secs(600)).await;
    let session = scene.session();
    let id = session.begin(reading()).await.unwrap();
    assert_kind(session.query("SELECT 1".into(), vec![]).await, ErrorKind::Busy);
    session.commit(id).await.unwrap();
    session.query("SELECT 1".into(), vec![]).await.unwrap();
}

async fn a_wait_over_two_databases_ends_in_time(engine: Engine) {
    let scene = Scene::new(engine).await;
    let url = || scene.outside.url();
    let acquire_timeout = Duration::from_millis(300);
    let config = || DatabaseConfig { url: url(), max_connections: 1, acquire_timeout, max_size: None };
    let databases = Databases::open(&BTreeMap::from([(name("a"), config()), (name("b"), config())]));
    let session = |plugin| {
        let grants = Grants::new(&databases, &name(plugin), &plugin_config(&["a", "b"], None));
        Session::new(Arc::new(grants), format!("job {plugin}-job, execution 1"), TIME)
    };
    let on = |database: &str| BeginOptions { database: Some(database.to_owned()), ..reading() };
    let (one, two) = (session("one"), session("two"));
    let of_one = one.begin(on("a")).await.unwrap();
    let of_two = two.begin(on("b")).await.unwrap();
    // Each waits for what the other has, and no single database knows it.
    let (for_b, for_a) = tokio::join!(one.begin(on("b")), two.begin(on("a")));
    assert_kind(for_b, ErrorKind::Busy);
    assert_kind(for_a, ErrorKind::Busy);
    one.commit(of_one).await.unwrap();
    two.commit(of_two).await.unwrap();
    one.commit(one.begin(on("b")).await.unwrap()).await.unwrap();
}

async fn whoever_waits_longest_is_served_first(engine: Engine) {
    let scene = Scene::with(engine, 1, Duration::from_secs(600)).await;
    let holder = scene.session_of("holder");
    let held = holder.begin(reading()).await.unwrap();
    let served = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for number in 0..5 {
        // The holder's own plugin, whose connection it is, does not come first.
        let session = scene.session_of(["c", "a", "holder", "b", "d"][number]);
        let served = Arc::clone(&served);
        waiting.push(tokio::spawn(async move {
            let id = session.begin(reading()).await.unwrap();
            served.lock().unwrap().push(number);
            session.commit(id).await.unwrap();
        }));
        until("it waits", async || scene.database().waiting() == number + 1).await;
    }
    holder.commit(held).await.unwrap();
    for one in waiting {
        one.await.unwrap();
    }
    assert_eq!(*served.lock().unwrap(), [0, 1, 2, 3, 4]);
}

async fn an_execution_that_ends_while_it_waits_leaves_the_queue(engine: Engine) {
    let scene = Scene::with(engine, 1, Duration::from_secs(600)).await;
    let (holder, ends, stays) = (scene.session_of("a"), scene.session_of("b"), scene.session_of("c"));
    let held = holder.begin(reading()).await.unwrap();
    let mut waiting = Vec::new();
    for session in [&ends, &stays] {
        let session = Arc::clone(session);
        waiting.push(tokio::spawn(async move { session.query("SELECT 1".into(), vec![]).await }));
        until("it waits", async || scene.database().waiting() == waiting.len()).await;
    }
    let started = Instant::now();
    assert_eq!(ends.end().await, Ended::default(), "it had nothing");
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
    assert_kind(waiting.remove(0).await.unwrap(), ErrorKind::Closed);
    assert_eq!(scene.database().waiting(), 1);
    holder.commit(held).await.unwrap();
    waiting.remove(0).await.unwrap().expect("the next one's turn comes");
    assert_eq!(scene.database().waiting(), 0);
}

async fn nothing_of_a_session_is_left_for_the_next_call(engine: Engine) {
    let scene = Scene::with(engine, 1, Duration::from_secs(10)).await;
    let session = scene.session();
    session.execute("CREATE TEMP TABLE secret AS SELECT 7 AS x".into(), vec![]).await.unwrap();
    assert_kind(session.query("SELECT x FROM secret".into(), vec![]).await, ErrorKind::Statement);
    if engine == Engine::Postgres {
        let change = "SELECT set_config('innkeeper.test', 'kept', false), pg_advisory_lock(7)::text";
        session.query(change.into(), vec![]).await.unwrap();
        let look = "SELECT coalesce(current_setting('innkeeper.test', true), ''), \
                    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())";
        let rows = show_rows(&session.query(look.into(), vec![]).await.unwrap());
        assert!(!format!("{rows:?}").contains("kept") && format!("{rows:?}").contains('0'), "{rows:?}");
        // It is the same connection: what was undone was not just hung up on.
        assert_eq!(scene.database().connections().idle, 1);
    }
}

async fn two_plugins_never_share_a_connection(engine: Engine) {
    for max_connections in [1, 4] {
        let scene = Scene::with(engine, max_connections, Duration::from_secs(10)).await;
        let (one, two) = (scene.session_of("one"), scene.session_of("two"));
        for _ in 0..3 {
            one.execute("CREATE TEMP TABLE IF NOT EXISTS secret AS SELECT 7 AS x".into(), vec![])
                .await
                .unwrap();
            let seen = two.query("SELECT * FROM secret".into(), vec![]).await;
            assert_kind(seen, ErrorKind::Statement);
            assert_kind(one.query("SELECT x FROM secret".into(), vec![]).await, ErrorKind::Statement);
        }
        let Connections { max, in_use, idle } = scene.database().connections();
        assert_eq!(in_use, 0);
        assert!(idle <= max, "{idle} connections are open, of {max}");
    }
}

async fn a_plugin_gets_its_own_connection_again(engine: Engine) {
    let scene = Scene::new(engine).await;
    for _ in 0..5 {
        scene.session_of("one").query("SELECT 1".into(), vec![]).await.unwrap();
        scene.session_of("two").query("SELECT 1".into(), vec![]).await.unwrap();
    }
    assert_eq!(scene.database().connections(), Connections { max: 4, in_use: 0, idle: 2 });
}

async fn one_bound_holds_over_all_plugins(engine: Engine) {
    let scene = Arc::new(Scene::with(engine, 3, Duration::from_secs(60)).await);
    let mut calls = Vec::new();
    for number in 0..60 {
        let scene = Arc::clone(&scene);
        calls.push(tokio::spawn(async move {
            let session = scene.session_of(["a", "b", "c", "d"][number % 4]);
            let id = session.begin(options()).await.unwrap();
            session.query_in(id, "SELECT count(*) FROM t".into(), vec![]).await.unwrap();
            let insert = format!("INSERT INTO t VALUES ({number}, 'x')");
            session.execute_in(id, insert, vec![]).await.unwrap();
            session.commit(id).await.unwrap();
            session.query("SELECT count(*) FROM t".into(), vec![]).await.unwrap();
        }));
    }
    while !calls.iter().all(tokio::task::JoinHandle::is_finished) {
        let Connections { in_use, idle, .. } = scene.database().connections();
        assert!(in_use + idle <= 3, "{in_use} in use, {idle} idle");
        tokio::task::yield_now().await;
    }
    for call in calls {
        call.await.unwrap();
    }
    if engine == Engine::Postgres {
        // A server process takes a moment to end after its connection.
        let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                    AND application_name LIKE 'innkeeper plugin %'";
        until("the server has three connections", async || scene.outside.number(open).await <= 3).await;
    }
    assert_eq!(scene.rows().await, 60);
    scene.assert_clean().await;
}

async fn the_check_connects_and_leaves_nothing_behind(engine: Engine) {
    let scene = Scene::new(engine).await;
    scene.database().check().await.unwrap();
    assert_eq!(scene.database().connections(), Connections { max: 4, in_use: 0, idle: 0 });
    let message = Database::new(name("wrong"), &unreachable(&scene)).check().await.unwrap_err();
    assert!(message.contains("database `wrong`"), "{message}");
    let place = if engine == Engine::Postgres { "postgres://operator@127.0.0.1:1/place" } else { "app.db" };
    assert!(message.contains(place), "{message}");
    assert!(!message.contains("s3cret"), "{message}");
}

/// Nobody listens there, or it is below a file.
fn unreachable(scene: &Scene) -> DatabaseConfig {
    let url = match scene.outside.url() {
        DatabaseUrl::Postgres(_) => {
            DatabaseUrl::Postgres("postgres://operator:s3cret@127.0.0.1:1/place".into())
        }
        DatabaseUrl::Sqlite(path) => DatabaseUrl::Sqlite(path.join("place.db")),
    };
    DatabaseConfig { url, max_connections: 1, acquire_timeout: Duration::from_secs(5), max_size: None }
}

async fn a_guest_never_learns_where_a_database_is(engine: Engine) {
    let scene = Scene::new(engine).await;
    let mut configs = vec![unreachable(&scene)];
    if let DatabaseUrl::Postgres(url) = scene.outside.url() {
        // The server's own words name the role, and the database.
        let (_, place) = url.rsplit_once('@').unwrap();
        let (server, _) = place.split_once('/').unwrap();
        let existing = place.split_once('/').unwrap().1;
        for url in [
            format!("postgres://operator:s3cret@{server}/{existing}"),
            url.replace(existing, "place_that_is_not_there"),
        ] {
            configs.push(DatabaseConfig { url: DatabaseUrl::Postgres(url), ..unreachable(&scene) });
        }
    }
    for config in configs {
        let databases = Databases::open(&BTreeMap::from([(name("app"), config)]));
        let grants = Grants::new(&databases, &name("good"), &plugin_config(&["app"], None));
        let session = Session::new(Arc::new(grants), "job j".into(), TIME);
        for _ in 0..2 {
            let error = assert_kind(session.query("SELECT 1".into(), vec![]).await, ErrorKind::Connection);
            assert!(error.message.starts_with("database `app` cannot be opened: "), "{}", error.message);
            let told = format!("{error:?}");
            for part in ["operator", "s3cret", "place", "127.0.0.1", "://", "sqlite:", "app.db"] {
                assert!(!told.contains(part), "{part} in {told}");
            }
        }
    }
}

async fn after_closing_no_connection_is_left(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    session.query("SELECT 1".into(), vec![]).await.unwrap();
    let id = session.begin(options()).await.unwrap();
    scene.databases.close().await;
    session.commit(id).await.unwrap();
    assert_eq!(scene.database().connections(), Connections { max: 4, in_use: 0, idle: 0 });
    assert_kind(scene.session().query("SELECT 1".into(), vec![]).await, ErrorKind::Connection);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_died_while_it_was_idle_is_replaced() {
    let scene = Scene::new(Engine::Postgres).await;
    let session = scene.session();
    session.query("SELECT 1".into(), vec![]).await.unwrap();
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                WHERE application_name = 'innkeeper plugin good' AND datname = current_database()";
    assert_eq!(scene.outside.number(kill).await, 1);
    until("it is gone", async || {
        let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'innkeeper plugin good' \
                    AND datname = current_database()";
        scene.outside.number(left).await == 0
    })
    .await;
    session.query("SELECT 1".into(), vec![]).await.unwrap();
    assert_eq!(scene.database().connections().idle, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_dies_in_a_transaction_is_told_and_not_kept() {
    let scene = Scene::new(Engine::Postgres).await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    session.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                WHERE application_name = 'innkeeper plugin good' AND datname = current_database()";
    assert_eq!(scene.outside.number(kill).await, 1);
    assert_kind(session.commit(id).await, ErrorKind::Connection);
    assert_eq!(scene.rows().await, 0);
    assert_eq!(scene.database().connections(), Connections { max: 4, in_use: 0, idle: 0 });
}
