//! Hosts that come late, with the real binary: what a handler had under way when its host was
//! given up.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use innkeeper::execution::State;
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, TestHost, until};
use innkeeper_tests::on_both_engines;
use innkeeper_tests::raw::Raw;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Every attempt runs the program of its arguments; attempts follow at once.
const JOBS: &str = r#"
[jobs.sql]
plugin = "probe"
handler = "sql"
args = { steps = [] }
timeout = "5m"
retry = { max_attempts = 3, initial = "10ms", maximum = "10ms" }
"#;

/// Notes who writes, waits while the test holds the lock, and commits.
fn write_and_commit() -> Value {
    json!({"steps": [
        {"op": "begin", "tx": 1, "must": true},
        {"op": "tx-execute", "tx": 1, "sql": "insert into t values (pg_backend_pid())", "must": true},
        {"op": "tx-query", "tx": 1, "sql": "select pg_advisory_xact_lock_shared(1)", "must": true},
        {"op": "commit", "tx": 1, "must": true},
    ]})
}

/// The server process that has a transaction of a plugin open, once it is in this state.
async fn writer(app: &mut Raw, state: &str) -> String {
    let sql = format!(
        "select pid::text from pg_stat_activity where datname = current_database() \
         and application_name like 'innkeeper plugin%' and {state}"
    );
    until("a transaction is open", async || app.texts(&sql).await.pop()).await
}

async fn until_stale(scene: &Scene) {
    let mut records = Raw::connect(scene.store.url()).await;
    let sql = "select count(*) from innkeeper.stale where kind = 'completion'";
    until("the late completion is on record", async || (records.count(sql).await == 1).then_some(())).await;
}

async fn a_host_is_stopped_before_its_commit(grant: &str) {
    let scene = Scene::new(Engine::Postgres).await.with("grant", grant);
    let mut app = Raw::connect(scene.app.url()).await;
    app.execute("create table t (pid int)").await;
    let late = scene.serve(JOBS).await;
    let store = scene.open_store().await;
    app.execute("select pg_advisory_lock(1)").await;
    let id = scene.enqueue(&store, "sql", &write_and_commit()).await;
    let of_late = writer(&mut app, "wait_event_type = 'Lock'").await;
    late.suspend().await;
    // Its statement ends, and its host does not see that.
    app.execute("select pg_advisory_unlock(1)").await;

    let rescuer = scene.serve_as("inn-2", JOBS).await;
    let record = scene.wait_for_end(&store, id).await;
    assert_eq!((record.state, record.attempt), (State::Succeeded, 2));
    late.signal(libc::SIGCONT);
    // Either its handler is stopped, or asks for a commit before that.
    until_stale(&scene).await;
    let rows = app.texts("select pid::text from t").await;
    assert!(rows.len() == 1 && rows[0] != of_late, "only the second attempt's: {rows:?}, not {of_late}");
    // It goes on as a host with another session.
    for host in [rescuer, late] {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_stopped_between_a_statement_and_its_commit_does_not_send_it_late() {
    a_host_is_stopped_before_its_commit("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_stopped_between_a_statement_and_its_commit_holds_up_no_fence() {
    a_host_is_stopped_before_its_commit("fence = true").await;
}

/// A way to the database on which a COMMIT can be held up, as by a network.
struct Relay {
    url: String,
    holds: Arc<AtomicBool>,
    held: Arc<AtomicUsize>,
    let_go: Arc<Notify>,
}

impl Relay {
    async fn to(database: &str) -> Self {
        let (login, place) = database.rsplit_once('@').expect("the URL names its login");
        let (server, name) = place.split_once('/').expect("the URL names the database");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let relay = Self {
            url: format!("{login}@127.0.0.1:{port}/{name}?sslmode=disable"),
            holds: Arc::default(),
            held: Arc::default(),
            let_go: Arc::default(),
        };
        let (holds, held, let_go) = (relay.holds.clone(), relay.held.clone(), relay.let_go.clone());
        let server = server.to_owned();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else { return };
                tokio::spawn(pass(client, server, holds.clone(), held.clone(), let_go.clone()));
            }
        });
        relay
    }
}

async fn pass(
    client: TcpStream,
    server: TcpStream,
    holds: Arc<AtomicBool>,
    held: Arc<AtomicUsize>,
    let_go: Arc<Notify>,
) {
    let ((mut from, mut back), (mut answers, mut to)) = (client.into_split(), server.into_split());
    tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let commits = buffer[..length].windows(8).any(|part| part == b"; COMMIT");
        if commits && holds.load(Ordering::SeqCst) {
            held.fetch_add(1, Ordering::SeqCst);
            let_go.notified().await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// A configuration whose plugin reaches its database by the relay.
fn configure_by(relay: &Relay, scene: &Scene) -> PathBuf {
    let path = scene.configure("inn-1", JOBS);
    let text = std::fs::read_to_string(&path).expect("it was just written");
    let by_relay = text.replace(&scene.app.address(), &relay.url);
    assert_ne!(text, by_relay);
    std::fs::write(&path, by_relay).expect("it can be written again");
    path
}

/// The rows that are there when a COMMIT takes effect that was sent in time, and came late; and
/// the server process that it came to.
async fn a_commit_comes_late(grant: &str) -> (Vec<String>, String) {
    let scene = Scene::new(Engine::Postgres).await.with("grant", grant);
    let mut app = Raw::connect(scene.app.url()).await;
    app.execute("create table t (pid int)").await;
    let relay = Relay::to(&scene.app.address()).await;
    let late = TestHost::start(&configure_by(&relay, &scene));
    late.wait_for_log("serving").await;
    let store = scene.open_store().await;
    relay.holds.store(true, Ordering::SeqCst);
    let id = scene.enqueue(&store, "sql", &write_and_commit()).await;
    until("the commit is under way", async || (relay.held.load(Ordering::SeqCst) > 0).then_some(())).await;
    let of_late = writer(&mut app, "state = 'idle in transaction'").await;
    late.suspend().await;

    let rescuer = scene.serve_as("inn-2", JOBS).await;
    let record = scene.wait_for_end(&store, id).await;
    assert_eq!((record.state, record.attempt), (State::Succeeded, 2));
    relay.let_go.notify_one();
    // It is refused with an error, or committed; the host is not there to end it.
    let open = format!(
        "select count(*) from pg_stat_activity where pid = {of_late} and state in ('active', 'idle in transaction')"
    );
    until("the late transaction has ended", async || (app.count(&open).await == 0).then_some(())).await;
    let rows = app.texts("select pid::text from t").await;
    relay.holds.store(false, Ordering::SeqCst);
    late.signal(libc::SIGCONT);
    until_stale(&scene).await;
    for host in [rescuer, late] {
        host.stop().await;
    }
    (rows, of_late)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_fence_the_database_refuses_a_commit_that_comes_after_the_retry() {
    let (rows, of_late) = a_commit_comes_late("fence = true").await;
    assert!(rows.len() == 1 && rows[0] != of_late, "only the second attempt's: {rows:?}, not {of_late}");
}

/// The window that `docs/db.md` states. Should this fail, the fence above proves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_fence_a_commit_that_was_sent_in_time_may_come_after_the_retry() {
    let (rows, of_late) = a_commit_comes_late("").await;
    assert!(rows.len() == 2 && rows.contains(&of_late), "both attempts': {rows:?}, with {of_late}");
}

/// Whether a handler has a transaction open that writes.
async fn writes(app: &mut Raw) -> bool {
    match app {
        Raw::Postgres(_) => {
            let open = "select count(*) from pg_stat_activity where datname = current_database() \
                        and state = 'idle in transaction'";
            app.count(open).await > 0
        }
        Raw::Sqlite(_) => app.try_execute("begin immediate; rollback").await.is_err(),
    }
}

on_both_engines! {
    async fn a_host_that_cannot_renew_its_session_stops_its_handlers_before_the_session_ends(engine: Engine) {
        let lines = "concurrency = 4\nsession_timeout = \"12s\"\ndrain_timeout = \"20s\"";
        let scene = Scene::new(engine).await.with("host", lines);
        let mut app = Raw::connect(scene.app.url()).await;
        app.execute("create table t (n int)").await;
        let host = scene.serve(JOBS).await;
        let store = scene.open_store().await;
        let program = json!({
            "steps": [
                {"op": "begin", "tx": 1, "must": true},
                {"op": "tx-execute", "tx": 1, "sql": "insert into t values (1)", "must": true},
            ],
            "then": "sleep",
            "ms": 600_000,
        });
        scene.enqueue(&store, "sql", &program).await;
        until("the handler writes", async || writes(&mut app).await.then_some(())).await;
        // The store answers no heartbeat any more.
        let mut records = Raw::connect(scene.store.url()).await;
        records.lock("innkeeper.host_session").await;
        host.wait_for_log("could not be renewed in time; stopping its handlers").await;
        until("its transaction has ended", async || (!writes(&mut app).await).then_some(())).await;
        let live = match engine {
            Engine::Postgres => "select count(*) from innkeeper.host_session \
                                 where dead_at is null and expires_at > clock_timestamp()".to_owned(),
            Engine::Sqlite => format!(
                "select count(*) from host_session where dead_at is null and expires_at > {}",
                innkeeper::clock::now().as_microsecond()
            ),
        };
        assert_eq!(records.count(&live).await, 1, "no other host can have taken it over by now");
        records.unlock().await;
        host.kill();
    }
}
