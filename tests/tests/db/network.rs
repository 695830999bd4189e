//! A network that loses what it carries: PostgreSQL behind a relay that can fall silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use innkeeper::config::DatabaseConfig;
use innkeeper::database_url::DatabaseUrl;
use innkeeper::interfaces::db::{Ended, ErrorKind, Session};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::database::{Engine, TestDatabase};
use crate::{Scene, assert_kind};

/// Passes everything on, but for connections of the host's own that stop statements: those up
/// to a number it accepts, and forgets what they say.
struct Relay {
    port: u16,
    controls: Arc<AtomicU64>,
    silent_up_to: Arc<AtomicU64>,
}

impl Relay {
    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (controls, silent_up_to) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (count, silent) = (Arc::clone(&controls), Arc::clone(&silent_up_to));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(pass(client, server, Arc::clone(&count), Arc::clone(&silent)));
            }
        });
        Self { port, controls, silent_up_to }
    }

    /// From now on, whatever is open for control is silent.
    fn silence_open_controls(&self) {
        self.silent_up_to.store(self.controls.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// From now on, and whatever is opened later as well.
    fn silence_every_control(&self) {
        self.silent_up_to.store(u64::MAX, Ordering::SeqCst);
    }
}

async fn pass(client: TcpStream, server: TcpStream, controls: Arc<AtomicU64>, silent_up_to: Arc<AtomicU64>) {
    let ((mut from, mut back), (mut answers, mut to)) = (client.into_split(), server.into_split());
    tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
    let mut number = None;
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        // Which it is stands in the message that a connection begins with.
        if number.is_none() && buffer[..length].windows(17).any(|part| part == b"innkeeper control") {
            number = Some(controls.fetch_add(1, Ordering::SeqCst) + 1);
        }
        if number.is_some_and(|number| number <= silent_up_to.load(Ordering::SeqCst)) {
            continue;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn scene_behind_a_relay() -> (Scene, Relay) {
    let outside = TestDatabase::empty(Engine::Postgres).await;
    let DatabaseUrl::Postgres(url) = outside.url() else { panic!("it is PostgreSQL") };
    let (login, place) = url.rsplit_once('@').unwrap();
    let (server, database) = place.split_once('/').unwrap();
    let relay = Relay::to(server.to_owned()).await;
    let url = DatabaseUrl::Postgres(format!("{login}@127.0.0.1:{}/{database}?sslmode=disable", relay.port));
    let config =
        DatabaseConfig { url, max_connections: 4, acquire_timeout: Duration::from_secs(10), max_size: None };
    (Scene::at(Engine::Postgres, outside, config).await, relay)
}

/// Ends a session while a statement runs.
async fn end_while_running(scene: &Scene) -> Ended {
    let session = scene.session();
    let running = run(&session, scene);
    scene.until_endless_runs().await;
    let ended = session.end().await;
    assert_kind(running.await.unwrap(), ErrorKind::Closed);
    ended
}

fn run(
    session: &Arc<Session>,
    scene: &Scene,
) -> tokio::task::JoinHandle<Result<innkeeper::interfaces::db::RowSet, innkeeper::interfaces::db::Error>> {
    let (session, endless) = (Arc::clone(session), scene.endless());
    tokio::spawn(async move { session.query(endless, vec![]).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_for_control_that_fell_silent_is_replaced() {
    let (scene, relay) = scene_behind_a_relay().await;
    for _ in 0..2 {
        assert_eq!(end_while_running(&scene).await, Ended { rolled_back: 1, unconfirmed: 0 });
        scene.assert_clean().await;
        assert!(relay.controls.load(Ordering::SeqCst) > 0, "nothing was stopped through the relay");
        relay.silence_open_controls();
    }
    assert_eq!(relay.controls.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_stops_though_no_connection_for_control_answers() {
    let (scene, relay) = scene_behind_a_relay().await;
    relay.silence_every_control();
    let started = Instant::now();
    assert_eq!(end_while_running(&scene).await, Ended { rolled_back: 0, unconfirmed: 1 });
    scene.databases.close().await;
    assert!(started.elapsed() < Duration::from_secs(15), "it took {:?}", started.elapsed());
}
