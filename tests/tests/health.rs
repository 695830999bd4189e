//! What a host says of its health on `[host] listen`, with the real binary.

use std::net::SocketAddr;
use std::path::Path;

use innkeeper::database_url::DatabaseUrl;
use innkeeper::execution::State;
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, TestHost, until};
use innkeeper_tests::http::{Answer, get};
use innkeeper_tests::on_both_engines;
use innkeeper_tests::raw::{Raw, make_gate, open_gate};
use serde_json::{Value, json};

const HOLD: &str = r#"
[jobs.hold]
plugin = "probe"
handler = "hold"
args = { gate = "main" }
timeout = "5m"
"#;

/// Any port that is free, so that tests do not get into each other's way.
const LISTENING: &str =
    "concurrency = 4\nsession_timeout = \"3s\"\ndrain_timeout = \"60s\"\nlisten = \"127.0.0.1:0\"";

const PASSWORD: &str = "s3cret";

async fn scene(engine: Engine) -> Scene {
    Scene::new(engine).await.with("host", LISTENING)
}

async fn ask(address: SocketAddr, path: &str) -> Answer {
    get(address, path).await.unwrap_or_else(|| panic!("{path} is not answered"))
}

async fn wait_until_ready(address: SocketAddr) {
    let ready = async || (ask(address, "/readyz").await.status == 200).then_some(());
    until("the host is ready", ready).await;
}

/// The message about `what`, once there is a problem with it.
async fn wait_for_problem(address: SocketAddr, what: &str) -> Value {
    until(&format!("there is a problem with the {what}"), async || {
        let answer = ask(address, "/readyz").await;
        let problems = answer.body["problems"].as_array().expect("a list");
        let found = problems.iter().find(|problem| problem["what"] == what).cloned()?;
        assert_eq!((answer.status, &answer.body["ready"]), (503, &json!(false)), "{answer:?}");
        found["since"].as_str().expect("a time").parse::<jiff::Timestamp>().expect("RFC 3339");
        Some(found)
    })
    .await
}

/// Puts a password into the URLs of a configuration, which the tests' server does not ask for.
fn add_passwords(config: &Path) {
    let text = std::fs::read_to_string(config).expect("it was written");
    let text = text.replace("@", &format!(":{PASSWORD}@"));
    std::fs::write(config, text).expect("it can be written");
}

/// Takes the store away from the host, and gives it back.
struct Outage(Raw, &'static str);

impl Outage {
    /// PostgreSQL: nobody is let in, and who was is thrown out. SQLite: somebody else writes, and
    /// does not come to an end.
    async fn begin(scene: &Scene) -> Self {
        match scene.store.url() {
            DatabaseUrl::Postgres(url) => {
                let name = url.rsplit('/').next().and_then(|rest| rest.split('?').next()).expect("a name");
                let mut server = Raw::connect(scene.app.url()).await;
                server.execute(&format!("alter database {name} allow_connections false")).await;
                server
                    .execute(&format!(
                        "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"
                    ))
                    .await;
                Self(server, Box::leak(format!("alter database {name} allow_connections true").into()))
            }
            DatabaseUrl::Sqlite(_) => {
                let mut file = Raw::connect(scene.store.url()).await;
                file.lock("").await;
                Self(file, "rollback")
            }
        }
    }

    async fn end(mut self) {
        self.0.execute(self.1).await;
    }
}

on_both_engines! {
    async fn a_host_that_serves_is_alive_and_ready(engine: Engine) {
        let scene = scene(engine).await;
        let host = scene.serve(HOLD).await;
        let address = host.address().await;
        wait_until_ready(address).await;
        assert_eq!(ask(address, "/readyz").await.body, json!({ "ready": true, "problems": [] }));
        let alive = ask(address, "/healthz").await;
        assert_eq!((alive.status, alive.body), (200, json!({ "alive": true, "problems": [] })));
        assert_eq!(ask(address, "/").await.status, 404);
        host.stop().await;
        assert!(get(address, "/healthz").await.is_none(), "nobody answers once it has stopped");
    }

    async fn while_the_store_is_away_the_host_is_alive_and_says_why_it_is_not_ready(engine: Engine) {
        let scene = scene(engine).await;
        let config = scene.configure("inn-1", HOLD);
        add_passwords(&config);
        let host = TestHost::start(&config);
        let address = host.address().await;
        wait_until_ready(address).await;

        let outage = Outage::begin(&scene).await;
        let store = wait_for_problem(address, "store").await;
        let message = until("the store is said to be away", async || {
            let message = wait_for_problem(address, "store").await["message"].as_str()?.to_owned();
            let reason = match engine {
                Engine::Postgres => "not currently accepting connections",
                Engine::Sqlite => "not answered in time",
            };
            (message.contains(reason) && message.contains("heartbeat")).then_some(message)
        })
        .await;
        assert!(message.starts_with("the store fails ("), "{message}");
        assert_eq!(wait_for_problem(address, "store").await["since"], store["since"], "since it began");

        let session = wait_for_problem(address, "session").await;
        assert!(session["message"].as_str().expect("text").contains("not be renewed in time"), "{session}");
        assert_eq!(ask(address, "/healthz").await.status, 200, "a restart would not help");
        for path in ["/readyz", "/healthz"] {
            let text = ask(address, path).await.text;
            assert!(!text.contains(PASSWORD), "{text}");
        }

        outage.end().await;
        wait_until_ready(address).await;
        let log = host.stop().await;
        assert!(!log.contains(PASSWORD), "{log}");
    }

    async fn a_host_that_drains_is_alive_and_takes_no_more(engine: Engine) {
        let scene = scene(engine).await;
        let mut app = Raw::connect(scene.app.url()).await;
        make_gate(&mut app).await;
        let host = scene.serve(HOLD).await;
        let address = host.address().await;
        let store = scene.open_store().await;
        let id = scene.enqueue(&store, "hold", &json!({ "gate": "main" })).await;
        scene.wait_for(&store, id, &[State::Running]).await;
        wait_until_ready(address).await;

        host.signal(libc::SIGTERM);
        let problem = wait_for_problem(address, "host").await;
        assert!(problem["message"].as_str().expect("text").starts_with("the host is draining"), "{problem}");
        assert_eq!(ask(address, "/healthz").await.status, 200);
        open_gate(&mut app, "main").await;
        let (status, log) = host.wait().await;
        assert!(status.success(), "{log}");
    }

    async fn a_client_that_says_nothing_does_not_hold_up_the_end(engine: Engine) {
        let scene = scene(engine).await;
        let host = scene.serve(HOLD).await;
        let address = host.address().await;
        let silent = tokio::net::TcpStream::connect(address).await.expect("it listens");
        // Accepted one after the other: the silent one is in.
        wait_until_ready(address).await;
        host.stop().await;
        drop(silent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_host_on_the_same_address_says_so_and_does_not_start() {
    let scene = scene(Engine::Sqlite).await;
    let first = scene.serve(HOLD).await;
    let address = first.address().await;
    let config = scene.configure("inn-2", HOLD);
    let text = std::fs::read_to_string(&config).expect("it was written");
    std::fs::write(&config, text.replace("127.0.0.1:0", &address.to_string())).expect("it can be written");
    let (status, log) = TestHost::start(&config).wait().await;
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains("inn-2.toml:7:10: `listen`: "), "{log}");
    assert!(log.contains(&address.to_string()) && log.contains("choose another port"), "{log}");
    wait_until_ready(address).await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_the_key_opens_nothing() {
    let listening = async |scene: Scene| {
        let host = scene.serve(HOLD).await;
        let sockets = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| std::fs::read_to_string(table).ok());
        let sockets = sockets.into_iter().flatten().collect::<String>();
        let open = host.open_files();
        let count = sockets.lines().filter(|line| {
            let fields = line.split_whitespace().collect::<Vec<_>>();
            // proc(5): the fourth is the state, 0A is LISTEN; the tenth is the inode.
            fields.get(3) == Some(&"0A")
                && fields.get(9).is_some_and(|inode| open.contains(&format!("socket:[{inode}]")))
        });
        let count = count.count();
        host.stop().await;
        count
    };
    assert_eq!(listening(scene(Engine::Sqlite).await).await, 1, "with the key");
    assert_eq!(listening(Scene::new(Engine::Sqlite).await).await, 0, "without");
}
