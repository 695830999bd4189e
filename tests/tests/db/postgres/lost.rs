//! A connection that is lost just when the server answers a commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use innkeeper::config::DatabaseConfig;
use innkeeper::database_url::DatabaseUrl;
use innkeeper::interfaces::db::ErrorKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::one;
use crate::database::{Engine, TestDatabase};
use crate::{Scene, assert_kind, options};

/// Pass everything on.
const WHOLE: u8 = 0;
/// Hang up before the answer to COMMIT.
const BEFORE: u8 = 1;
/// Hang up behind it, so that what it was sent with stays without an answer.
const AFTER: u8 = 2;

/// A relay that hangs up where it is told to.
async fn scene_behind_a_relay() -> (Scene, Arc<AtomicU8>) {
    let outside = TestDatabase::empty(Engine::Postgres).await;
    let DatabaseUrl::Postgres(url) = outside.url() else { unreachable!("a database of PostgreSQL") };
    let (before, rest) = url.split_once('@').unwrap();
    let (server, database) = rest.split_once('/').unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("{before}@127.0.0.1:{}/{database}", listener.local_addr().unwrap().port());
    let cut = Arc::new(AtomicU8::new(WHOLE));
    let (server, told) = (server.to_owned(), Arc::clone(&cut));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(pass(client, server, Arc::clone(&told)));
        }
    });
    let config = DatabaseConfig {
        url: DatabaseUrl::Postgres(url),
        max_connections: 1,
        acquire_timeout: Duration::from_secs(10),
        max_size: None,
    };
    (Scene::at(Engine::Postgres, outside, config).await, cut)
}

async fn pass(client: TcpStream, server: TcpStream, told: Arc<AtomicU8>) {
    let ((mut from, mut back), (mut answers, mut to)) = (client.into_split(), server.into_split());
    tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = answers.read(&mut buffer).await {
        // A message of the type `C` and twelve bytes, with the name of what was completed.
        let answer = b"C\0\0\0\x0bCOMMIT\0";
        let found = buffer[..length].windows(answer.len()).position(|part| part == answer);
        let end = match (told.load(Ordering::SeqCst), found) {
            (BEFORE, Some(at)) => at,
            (AFTER, Some(at)) => at + answer.len(),
            _ => length,
        };
        if back.write_all(&buffer[..end]).await.is_err() || end < length {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_was_answered_is_one_whatever_comes_after() {
    let (scene, cut) = scene_behind_a_relay().await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    session.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
    cut.store(AFTER, Ordering::SeqCst);
    session.commit(id).await.unwrap();
    assert_eq!(scene.rows().await, 1);
    // The connection is not kept.
    assert_eq!(scene.database().connections().idle, 0);
    cut.store(WHOLE, Ordering::SeqCst);
    one(&session, "SELECT 1", vec![]).await;
    assert_eq!(session.end().await.unconfirmed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_without_an_answer_is_in_doubt() {
    let (scene, cut) = scene_behind_a_relay().await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    session.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
    cut.store(BEFORE, Ordering::SeqCst);
    let error = assert_kind(session.commit(id).await, ErrorKind::Connection);
    assert!(error.message.contains("is not known"), "{}", error.message);
    // Here it did take effect.
    assert_eq!(scene.rows().await, 1);
    assert_eq!(session.end().await.unconfirmed, 1);
}
