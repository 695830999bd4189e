//! A host that works on a store whose server belongs to the test, through a network that does.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use innkeeper::database_url::DatabaseUrl;
use innkeeper::store::{Store, StoreOptions};
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, TestHost, until};
use innkeeper_tests::http::get;
use innkeeper_tests::raw::{Raw, make_gate, open_gate};
use innkeeper_tests::relay::Relay;
use innkeeper_tests::server::{OwnServer, url_at};
use serde_json::{Value, json};
use uuid::Uuid;

const JOBS: &str = r#"
[jobs.hold]
plugin = "probe"
handler = "hold"
args = { gate = "main" }
timeout = "5m"

[jobs.echo]
plugin = "probe"
handler = "echo"
args = {}
"#;

/// A session that lasts longer than any of the faults: what runs goes on running.
const HOST: &str = "concurrency = 8\nsession_timeout = \"90s\"\ndrain_timeout = \"30s\"";

/// The database of the store.
pub const DATABASE: &str = "inn";

/// A host at work.
pub struct Stage {
    scene: Scene,
    host: TestHost,
    /// Where the host's health is.
    address: SocketAddr,
    /// The store, as it is reached now without the network.
    pub store: DatabaseUrl,
    app: Raw,
    /// Handlers that are held while a fault begins.
    held: usize,
    released: bool,
}

impl Stage {
    /// A host whose store is on this server, in the database [`DATABASE`] that is made with
    /// `attributes`, through a relay.
    pub async fn on(server: &OwnServer, attributes: &str) -> (Self, Relay) {
        server.execute(&format!("create database {DATABASE} {attributes}")).await;
        let relay = Relay::to(server.address()).await;
        let url = url_at(relay.address(), DATABASE);
        (Self::at(&server.database(DATABASE), &url, "timeout = \"1s\"").await, relay)
    }

    /// A host that names its store as `written`, with these further lines of `[store]`.
    pub async fn at(store: &DatabaseUrl, written: &str, lines: &str) -> Self {
        Self::in_place(store, written, lines, Ipv4Addr::LOCALHOST, &[]).await
    }

    /// The same, started `by` another program, and asked for its health at `listen`.
    pub async fn in_place(
        store: &DatabaseUrl,
        written: &str,
        lines: &str,
        listen: Ipv4Addr,
        by: &[&str],
    ) -> Self {
        let options = StoreOptions { create: true, ..StoreOptions::default() };
        let looking = Store::connect(store, &options).await.expect("the server answers");
        looking.migrate().await.expect("the schema can be made");
        looking.close().await;
        let lines = format!("max_connections = 2\n{lines}");
        let host = format!("{HOST}\nlisten = \"{listen}:0\"");
        let scene = Scene::new(Engine::Sqlite).await.with("host", &host).with("store", &lines);
        let mut app = Raw::connect(scene.app.url()).await;
        make_gate(&mut app).await;
        let config = scene.configure("inn-1", JOBS);
        let text = std::fs::read_to_string(&config).expect("it was written");
        let text = text.replace(&format!("{:?}", scene.store.address()), &format!("{written:?}"));
        std::fs::write(&config, text).expect("it can be written");
        let host = TestHost::start_by(by, &config);
        let address = host.address().await;
        let stage = Self { scene, host, address, store: store.clone(), app, held: 0, released: false };
        stage.until_ready().await;
        stage
    }

    /// Handlers run, others are done, and more are waiting: the fault may come.
    pub async fn until_busy(&mut self) {
        self.hold(3).await;
        self.enqueue("echo", 300, &json!({})).await;
        self.until_count("some are done", "select count(*) from {}completion", 20).await;
    }

    /// Starts so many handlers, at most eight, that run until [`Stage::release`].
    pub async fn hold(&mut self, count: usize) {
        self.held = count;
        self.enqueue("hold", count, &json!({ "gate": "main" })).await;
        let inside = "select count(*) from inside";
        until("the handlers run", async || {
            (self.app.count(inside).await == i64::try_from(count).ok()?).then_some(())
        })
        .await;
    }

    /// Lets the handlers go.
    pub async fn release(&mut self) {
        if !std::mem::replace(&mut self.released, true) {
            open_gate(&mut self.app, "main").await;
        }
    }

    /// Asks for executions, past the host.
    pub async fn enqueue(&self, job: &str, count: usize, args: &Value) -> Vec<Uuid> {
        let store = self.look().await;
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(self.scene.enqueue(&store, job, args).await);
        }
        store.close().await;
        ids
    }

    /// Waits until the host says why it is not ready, in these words.
    pub async fn until_unready(&self, reason: &str) {
        let mut last = String::new();
        until(&format!("the host says {reason:?}"), async || {
            let answer = get(self.address, "/readyz").await.expect("the host is up");
            let healthy = get(self.address, "/healthz").await.expect("the host is up");
            assert_eq!(healthy.status, 200, "a restart would not help: {}", healthy.text);
            if answer.text != last {
                last = answer.text.clone();
                eprintln!("{} {}", answer.status, answer.body);
            }
            (answer.status == 503 && answer.text.contains(reason)).then_some(())
        })
        .await;
    }

    /// Waits until the host is ready.
    pub async fn until_ready(&self) {
        until("the host is ready", async || {
            (get(self.address, "/readyz").await.expect("the host is up").status == 200).then_some(())
        })
        .await;
    }

    /// Waits until the log has this text so often.
    pub async fn until_logged(&self, text: &str, times: usize) {
        until(text, async || (self.host.log().matches(text).count() >= times).then_some(())).await;
    }

    /// Waits until there are at least so many.
    pub async fn until_count(&self, what: &str, sql: &str, least: i64) {
        let mut store = self.raw().await;
        let sql = self.qualified(sql);
        until(what, async || (store.count(&sql).await >= least).then_some(())).await;
    }

    /// The executions that are on record as done.
    pub async fn done(&self) -> BTreeSet<String> {
        let sql = match self.store {
            DatabaseUrl::Postgres(_) => {
                "select execution_id || ' ' || lease || ' ' || finished_at from {}completion where final"
            }
            DatabaseUrl::Sqlite(_) => {
                "select hex(execution_id) || lease || finished_at from {}completion where final"
            }
        };
        self.raw().await.texts(&self.qualified(sql)).await.into_iter().collect()
    }

    /// The fault is over: the host goes on, and all ends as if nothing had been. It has said so,
    /// and once.
    pub async fn all_ends_well(self) {
        says_it_once(&self.ends_well().await);
    }

    /// The same where the host may not have noticed. Returns the log.
    pub async fn ends_well(mut self) -> String {
        self.release().await;
        self.until_ready().await;
        self.enqueue("echo", 1, &json!({})).await;
        let open = "select count(*) from {}execution e where not exists
            (select 1 from {}completion c where c.execution_id = e.id and c.final)";
        let sql = self.qualified(open);
        let mut store = self.raw().await;
        until("every execution has ended", async || (store.count(&sql).await == 0).then_some(())).await;
        self.until_ready().await;
        let prefix = prefix(&self.store);
        let log = self.host.stop().await;
        for (rule, sql) in [
            (
                "one final outcome for each execution",
                "select count(*) from {}execution e where 1 <>
                 (select count(*) from {}completion c where c.execution_id = e.id and c.final)",
            ),
            (
                "one end for each start",
                "select count(*) from {}start s where 1 <> (select count(*) from {}completion c
                 where c.execution_id = s.execution_id and c.lease = s.lease)",
            ),
            (
                "nothing failed, and no attempt was lost",
                "select count(*) from {}completion where outcome not in ('succeeded', 'released')",
            ),
            (
                "what ran during the fault was not started again",
                &format!(
                    "select count(*) - {} from {{}}start s join {{}}execution e on e.id = s.execution_id
                     join {{}}job j on j.id = e.job_id where j.name = 'hold'",
                    self.held
                ),
            ),
            ("nothing came too late", "select count(*) from {}stale"),
        ] {
            let sql = sql.replace("{}", prefix);
            assert_eq!(store.count(&sql).await, 0, "{rule}");
        }
        log
    }

    /// The store, by a connection that is not older than this moment.
    async fn look(&self) -> Store {
        Store::connect(&self.store, &StoreOptions::default()).await.expect("the store answers")
    }

    async fn raw(&self) -> Raw {
        Raw::connect(&self.store).await
    }

    fn qualified(&self, sql: &str) -> String {
        sql.replace("{}", prefix(&self.store))
    }
}

fn prefix(store: &DatabaseUrl) -> &'static str {
    if matches!(store, DatabaseUrl::Postgres(_)) { "innkeeper." } else { "" }
}

/// However long it lasted and whoever noticed it.
fn says_it_once(log: &str) {
    let complaints =
        log.lines().filter(|line| line.contains("ERROR") || line.contains("WARN")).collect::<Vec<_>>();
    assert!(complaints.iter().any(|line| line.contains("the store failed")), "it says so:\n{log}");
    assert!(complaints.len() <= 12, "it says so once:\n{}", complaints.join("\n"));
    assert!(log.contains("the store works again"), "{log}");
}
