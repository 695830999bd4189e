//! Hosts on one PostgreSQL wake each other, and do without where they cannot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use innkeeper::execution::State;
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, TestHost, until};
use innkeeper_tests::raw::Raw;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const JOBS: &str = r#"
[jobs.echo]
plugin = "probe"
handler = "echo"

[jobs.enqueue]
plugin = "probe"
handler = "enqueue"
args = { job = "echo" }
"#;

const HEARD: &str = "hints between hosts are heard";
const WOKEN: &str = "woken by another process";

/// How many connections hosts have for hints.
async fn listening(records: &mut Raw) -> i64 {
    let listening = "select count(*) from pg_stat_activity where datname = current_database() \
                     and application_name = 'innkeeper-listen'";
    records.count(listening).await
}

/// Waits until hints are heard on a second connection.
async fn heard_again(host: &TestHost) {
    let heard = || host.log().matches(HEARD).count();
    until("hints are heard again", async || (heard() >= 2).then_some(())).await;
}

/// Waits until a host was woken once more than it had been.
async fn woken_again(host: &TestHost, before: usize) {
    until("the host is woken", async || (times_woken(host) > before).then_some(())).await;
}

fn times_woken(host: &TestHost) -> usize {
    host.log().matches(WOKEN).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_a_handler_and_a_schedule_make_wakes_the_other_hosts() {
    let scene = Scene::new(Engine::Postgres).await.with("plugins.probe", "jobs = [\"echo\"]");
    let hosts = [scene.serve(JOBS).await, scene.serve_as("inn-2", JOBS).await];
    let store = scene.open_store().await;
    for host in &hosts {
        host.wait_for_log(HEARD).await;
    }

    let before = hosts.each_ref().map(times_woken);
    let id = scene.run("echo", &json!(1));
    for (host, before) in hosts.iter().zip(before) {
        woken_again(host, before).await;
    }
    assert_eq!(scene.wait_for_end(&store, id).await.state, State::Succeeded);

    // The host whose handler enqueued it needs no hint; the other one gets it.
    let before = hosts.each_ref().map(times_woken);
    let id = scene.enqueue(&store, "enqueue", &json!({"job": "echo"})).await;
    let record = scene.wait_for_end(&store, id).await;
    assert_eq!(record.state, State::Succeeded, "{:?}", record.error);
    let other = usize::from(record.host.as_deref() == Some("inn-1"));
    woken_again(&hosts[other], before[other]).await;

    let before = hosts.each_ref().map(times_woken).iter().sum::<usize>();
    let later = innkeeper::clock::now() + std::time::Duration::from_millis(200);
    let job = innkeeper::job::Name::new("echo").unwrap();
    let due = innkeeper::store::NewExecution {
        job: &job,
        args: Some(&json!(2)),
        triggered_by: innkeeper::execution::Trigger::Manual,
        run_at: Some(later),
        unique_key: None,
        by: None,
    };
    store.enqueue(&due).await.unwrap();
    until("the one that did not plan it is woken", async || {
        (hosts.each_ref().map(times_woken).iter().sum::<usize>() > before).then_some(())
    })
    .await;
    for host in hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_for_hints_that_was_closed_is_replaced() {
    let scene = Scene::new(Engine::Postgres).await;
    let host = scene.serve(JOBS).await;
    let mut records = Raw::connect(scene.store.url()).await;
    host.wait_for_log(HEARD).await;
    let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
               where datname = current_database() and application_name = 'innkeeper-listen'";
    assert_eq!(records.count(end).await, 1);
    host.wait_for_log("looking for work without them").await;
    heard_again(&host).await;
    assert_eq!(listening(&mut records).await, 1);
    let before = times_woken(&host);
    scene.run("echo", &json!(1));
    woken_again(&host, before).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_for_hints_that_fell_silent_is_replaced_and_work_goes_on_meanwhile() {
    let scene = Scene::new(Engine::Postgres).await;
    let relay = Relay::to(&scene.store.address()).await;
    let config = scene.configure("inn-1", JOBS);
    let text = std::fs::read_to_string(&config).unwrap();
    let direct = text.replace(&scene.store.address(), &relay.url);
    std::fs::write(&config, direct).unwrap();
    let host = TestHost::start(&config);
    host.wait_for_log(HEARD).await;
    let store = scene.open_store().await;
    relay.silent.store(true, Ordering::SeqCst);
    let id = scene.enqueue(&store, "echo", &json!(1)).await;
    assert_eq!(scene.wait_for_end(&store, id).await.state, State::Succeeded);
    host.wait_for_log("looking for work without them").await;
    relay.silent.store(false, Ordering::SeqCst);
    heard_again(&host).await;
    let before = times_woken(&host);
    scene.run("echo", &json!(2));
    woken_again(&host, before).await;
    host.stop().await;
}

/// Passes everything on; what connections for hints say is lost while it is silent.
struct Relay {
    url: String,
    silent: Arc<AtomicBool>,
}

impl Relay {
    async fn to(url: &str) -> Self {
        let (login, place) = url.rsplit_once('@').expect("a login");
        let (server, database) = place.split_once('/').expect("a database");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let silent = Arc::new(AtomicBool::new(false));
        let (server, is_silent) = (server.to_owned(), silent.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(pass(client, server, is_silent.clone()));
            }
        });
        Self { url: format!("{login}@127.0.0.1:{port}/{database}?sslmode=disable"), silent }
    }
}

async fn pass(client: TcpStream, server: TcpStream, silent: Arc<AtomicBool>) {
    let ((mut from, mut back), (mut answers, mut to)) = (client.into_split(), server.into_split());
    tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
    let mut for_hints = false;
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        // What a connection is for stands in the message that it begins with.
        for_hints = for_hints || buffer[..length].windows(16).any(|part| part == b"innkeeper-listen");
        if for_hints && silent.load(Ordering::SeqCst) {
            continue;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
