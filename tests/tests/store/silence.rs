//! A network that loses the answer to a statement. PostgreSQL only: SQLite has no network.

use std::time::Duration;

use innkeeper::database_url::DatabaseUrl;
use innkeeper::execution::State;
use innkeeper::store::{DefineError, Definitions, Recording, Store, StoreError, StoreOptions};
use innkeeper_tests::database::Engine;
use innkeeper_tests::relay::Relay;

use crate::world::{World, success};

/// Another store of the world's, through a network of its own.
async fn through_a_relay(world: &World, timeout: Duration) -> (Store, Relay) {
    let DatabaseUrl::Postgres(url) = world.database.url() else { panic!("it is PostgreSQL") };
    let (login, place) = url.rsplit_once('@').expect("the test server's URL names its login");
    let (server, database) = place.split_once('/').expect("and a database");
    let server = tokio::net::lookup_host(server).await.expect("it has an address").next();
    let relay = Relay::to(server.expect("it has an address")).await;
    let url = format!("{login}@{}/{database}", relay.address());
    let options =
        StoreOptions { timeout, jobs_timeout: timeout, max_connections: 2, ..StoreOptions::default() };
    let store = Store::connect(&DatabaseUrl::Postgres(url), &options).await.expect("the server answers");
    (store.with_clock(world.clock.for_store()), relay)
}

/// What did not get an answer, in the words for a person.
fn unknown_fate(result: Result<impl std::fmt::Debug, StoreError>) -> String {
    match result {
        Err(StoreError::Unavailable(message)) => message,
        other => panic!("it was answered: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_whose_answer_is_lost_is_given_back_and_costs_no_attempt() {
    let world = World::new(Engine::Postgres).await;
    world.jobs(&[crate::world::job("j")]).await;
    let session = world.host("inn-1").await;
    let execution = world.enqueue("j").await;
    let (store, relay) = through_a_relay(&world, Duration::from_secs(1)).await;
    relay.silence_after("commit");
    let message = unknown_fate(store.claim(session, 10).await);
    assert!(message.contains("may have been committed or not: no answer within 1s"), "{message}");
    assert!(!unknown_fate(store.claim(session, 10).await).is_empty(), "nothing passes");
    relay.restore();
    assert_eq!(store.release_unknown(session, &[]).await.unwrap(), [execution]);
    let attempts = store.claim(session, 10).await.unwrap();
    assert_eq!((attempts.len(), attempts[0].attempt), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_whose_answer_is_lost_may_be_on_record_and_bear_being_repeated() {
    let world = World::new(Engine::Postgres).await;
    let session = world.host("inn-1").await;
    let (store, relay) = through_a_relay(&world, Duration::from_secs(1)).await;
    let (plugins, jobs) = ([crate::reloading::plugin("sha256:2")], [crate::world::job("j")]);
    let definitions = Definitions {
        host: "inn-1",
        owner: "file",
        session: Some(session),
        plugins: &plugins,
        jobs: Some(&jobs),
        queues: Some(&[]),
    };
    relay.silence_after("commit");
    let lost = store.define(&definitions).await;
    assert!(matches!(lost, Err(DefineError::Unknown(_))), "{lost:?}");
    let silent = store.define(&definitions).await;
    assert!(matches!(silent, Err(DefineError::Refused(_))), "nothing was sent: {silent:?}");
    world.enqueue("j").await;
    assert_eq!(&*world.claim_one(session).await.component, "sha256:2", "it was committed");
    relay.restore();
    store.define(&definitions).await.unwrap();
    assert_eq!(world.count("plugin_version", "true").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_whose_answer_is_lost_is_on_record_once_when_it_is_repeated() {
    let world = World::new(Engine::Postgres).await;
    let (session, attempt) = world.running().await;
    let (store, relay) = through_a_relay(&world, Duration::from_secs(1)).await;
    relay.silence_after("commit");
    let completion = success(&attempt);
    let message = unknown_fate(store.record(session, std::slice::from_ref(&completion)).await);
    assert!(message.contains("may have been committed or not"), "{message}");
    relay.restore();
    assert_eq!(store.record(session, &[completion]).await.unwrap(), [Recording::Recorded]);
    assert_eq!(world.state(attempt.execution).await, State::Succeeded);
    assert_eq!((world.count("completion", "true").await, world.count("stale", "true").await), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_that_was_recorded_before_its_session_died_is_not_called_late() {
    let world = World::new(Engine::Postgres).await;
    let (session, attempt) = world.running().await;
    let (store, relay) = through_a_relay(&world, Duration::from_secs(1)).await;
    relay.silence_after("commit");
    let completion = success(&attempt);
    unknown_fate(store.record(session, std::slice::from_ref(&completion)).await);
    assert_eq!(world.crash_all().await, [], "it had ended");
    relay.restore();
    assert_eq!(store.record(session, &[completion]).await.unwrap(), [Recording::Recorded]);
    assert_eq!(world.count("stale", "true").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_lock_is_ended_by_the_server_before_the_host_gives_it_up() {
    let world = World::new(Engine::Postgres).await;
    let (session, attempt) = world.running().await;
    let (store, _relay) = through_a_relay(&world, Duration::from_secs(1)).await;
    let lock = world.hold("begin; lock table {}completion in access exclusive mode").await;
    let completion = success(&attempt);
    let message = unknown_fate(store.record(session, std::slice::from_ref(&completion)).await);
    assert!(message.contains("it waited for a lock") && !message.contains("may have been"), "{message}");
    drop(lock);
    assert_eq!(store.record(session, &[completion]).await.unwrap(), [Recording::Recorded]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_vanished_host_has_begun_keeps_nobody_waiting() {
    let world = World::new(Engine::Postgres).await;
    let (session, _attempt) = world.running().await;
    let options = StoreOptions {
        idle_in_transaction_timeout: Duration::from_millis(500),
        max_connections: 1,
        ..StoreOptions::default()
    };
    let vanished = Store::connect(world.database.url(), &options).await.unwrap();
    let vanished = vanished.with_clock(world.clock.for_store());
    let mut phase = vanished.begin(innkeeper::store::PhaseName::Start).await.unwrap();
    // It holds the lock on its session, which a rescuer wants, and is never heard of again.
    phase.tx().start(session, 1).await.unwrap();
    let rescued = innkeeper_tests::host::until("the rescuer gets its lock", async || {
        let rescued = world.crash_all().await;
        (!rescued.is_empty()).then_some(rescued)
    })
    .await;
    assert_eq!(rescued.len(), 1);
    drop(phase);
}
