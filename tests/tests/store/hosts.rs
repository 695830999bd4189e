//! Looking at hosts and asking them to drain, also beside hosts of the version before.

use std::time::Duration;

use innkeeper::store::{HostFilter, HostRecord, HostState, NewSession, SessionId, StoreError};
use innkeeper_tests::database::{Engine, TestDatabase};
use uuid::Uuid;

use crate::rule;
use crate::world::{TTL, World, job, success};

/// All that there are, with so many executions of each.
async fn hosts(world: &World, executions: u32) -> Vec<HostRecord> {
    world.store.hosts(&HostFilter { host: None, ended: 100, executions }).await.unwrap()
}

async fn only(world: &World) -> HostRecord {
    let mut hosts = hosts(world, 10).await;
    assert_eq!(hosts.len(), 1, "{hosts:?}");
    hosts.remove(0)
}

async fn drain_requested(world: &World, session: SessionId) -> bool {
    world.store.heartbeat(session, TTL, None).await.unwrap().drain_requested
}

/// Registers as the version before did, and does not say more.
async fn host_of_the_version_before(world: &World) -> SessionId {
    let session = world.host("old").await;
    let forget = "update {}host_session set slots = null, heartbeat_at = null where id = ";
    world.tamper(&format!("{forget}{}", session.0)).await;
    session
}

rule!(a_host_is_shown_with_its_heartbeat_its_slots_and_its_version, async |world: &World| {
    let session = world.host("inn-1").await;
    let registered = only(world).await;
    assert_eq!((registered.session, registered.host.as_str()), (session, "inn-1"));
    assert_eq!((registered.version.as_str(), registered.slots), ("0.1.0", Some(4)));
    assert_eq!((registered.state, registered.running), (HostState::Active, 0));
    assert_eq!(registered.heartbeat_at, Some(registered.started_at));
    world.clock.advance(Duration::from_secs(5));
    world.store.heartbeat(session, TTL, None).await.unwrap();
    let renewed = only(world).await;
    assert_eq!(renewed.started_at, registered.started_at);
    assert_eq!(renewed.heartbeat_at, Some(registered.started_at + Duration::from_secs(5)));
    assert_eq!(renewed.expires_at, registered.expires_at + Duration::from_secs(5));
    let age = |host: &HostRecord| host.heartbeat_age.map(|age| age.as_secs());
    assert_eq!((age(&registered), age(&renewed)), (Some(0), Some(0)));
    world.clock.advance(Duration::from_secs(7));
    assert_eq!(age(&only(world).await), Some(7));
    world.store.end_session(session).await.unwrap();
    assert_eq!(age(&only(world).await), None, "it has ended");
});

rule!(what_each_host_runs_is_counted_whole_and_listed_up_to_a_bound, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let (one, two) = (world.host("inn-1").await, world.host("inn-2").await);
    for _ in 0..4 {
        world.enqueue("j").await;
    }
    let of_one = world.store.claim(one, 3).await.unwrap();
    let of_two = world.store.claim(two, 3).await.unwrap();
    assert_eq!((of_one.len(), of_two.len()), (3, 1));
    world.record(one, success(&of_one[0])).await;
    let seen = hosts(world, 1).await;
    assert_eq!(
        seen.iter().map(|host| (host.session, host.running)).collect::<Vec<_>>(),
        [(one, 2), (two, 1)]
    );
    let [first] = &seen[0].executions[..] else { panic!("one of two is listed: {seen:?}") };
    assert_eq!((first.execution, first.job.as_str()), (of_one[1].execution, "j"));
    assert_eq!((first.attempt, first.started_at), (1, of_one[1].started_at));
    assert_eq!(seen[1].executions[0].execution, of_two[0].execution);
    let counted = hosts(world, 0).await;
    assert_eq!((counted[0].running, counted[0].executions.len()), (2, 0));
});

rule!(a_host_without_a_heartbeat_has_expired_also_once_its_attempts_were_ended, async |world: &World| {
    let (session, attempt) = world.running().await;
    world.clock.advance(TTL);
    let found = only(world).await;
    assert_eq!((found.state, found.ended_at), (HostState::Expired, None));
    assert_eq!(found.executions[0].execution, attempt.execution, "nobody else runs it yet");
    world.store.rescue(10, &[]).await.unwrap();
    let rescued = only(world).await;
    assert_eq!((rescued.session, rescued.state, rescued.running), (session, HostState::Expired, 0));
    assert!(rescued.ended_at.is_some());
});

rule!(hosts_that_have_ended_come_last_the_newest_first_and_bounded, async |world: &World| {
    let mut ended = Vec::new();
    for _ in 0..3 {
        let session = world.host("inn-1").await;
        world.store.end_session(session).await.unwrap();
        ended.push(session);
    }
    let live = world.host("inn-1").await;
    world.host("inn-2").await;
    let filter = HostFilter { host: Some("inn-1"), ended: 2, executions: 1 };
    let seen = world.store.hosts(&filter).await.unwrap();
    let seen = seen.iter().map(|host| (host.session, host.state)).collect::<Vec<_>>();
    let (newest, next) = (ended[2], ended[1]);
    assert_eq!(seen, [(live, HostState::Active), (newest, HostState::Ended), (next, HostState::Ended)]);
    let alive = world.store.hosts(&HostFilter { host: None, ended: 0, executions: 1 }).await.unwrap();
    assert_eq!(alive.len(), 2);
});

rule!(a_request_to_drain_reaches_every_live_session_of_the_name_and_no_other, async |world: &World| {
    let expired = world.host("inn-1").await;
    world.clock.advance(TTL);
    let (one, two) = (world.host("inn-1").await, world.host("inn-1").await);
    let other = world.host("inn-2").await;
    assert_eq!(world.store.request_drain("inn-1").await.unwrap(), 2);
    for session in [one, two] {
        assert!(drain_requested(world, session).await);
    }
    assert!(!drain_requested(world, other).await);
    assert!(!drain_requested(world, expired).await, "it was not live");
    let states = hosts(world, 1).await.into_iter().map(|host| host.state).collect::<Vec<_>>();
    use HostState::{Active, Draining};
    assert_eq!(states, [Active, Draining, Draining, Active]);
    assert_eq!(world.store.request_drain("inn-3").await.unwrap(), 0);
});

rule!(asking_again_changes_nothing, async |world: &World| {
    world.host("inn-1").await;
    world.store.request_drain("inn-1").await.unwrap();
    let first = only(world).await.drain_requested_at;
    world.clock.advance(Duration::from_secs(1));
    world.store.request_drain("inn-1").await.unwrap();
    assert_eq!(only(world).await.drain_requested_at, first);
});

rule!(a_session_after_one_that_was_lost_is_still_asked_to_drain, async |world: &World| {
    let boot_id = Uuid::new_v4();
    let session = NewSession { host: "inn-1", boot_id, version: "0.1.0", ttl: TTL, slots: 4, plugins: &[] };
    let lost = world.store.register_session(&session).await.unwrap();
    world.store.request_drain("inn-1").await.unwrap();
    world.crash_all().await;
    let beat = world.store.heartbeat(lost, TTL, None).await;
    assert!(matches!(beat, Err(StoreError::SessionLost)), "{beat:?}");
    let again = world.store.register_session(&session).await.unwrap();
    assert!(drain_requested(world, again).await, "the process is the same");
    let restarted = NewSession { boot_id: Uuid::new_v4(), ..session };
    let restarted = world.store.register_session(&restarted).await.unwrap();
    assert!(!drain_requested(world, restarted).await, "this is another process");
});

rule!(a_host_that_drains_by_itself_says_so_with_its_heartbeat, async |world: &World| {
    let session = world.host("inn-1").await;
    let answer = world.store.heartbeat_while_draining(session, TTL, None).await.unwrap();
    assert!(!answer.drain_requested);
    let draining = only(world).await;
    assert_eq!((draining.state, draining.drain_requested_at), (HostState::Draining, None));
    world.clock.advance(Duration::from_secs(1));
    world.store.heartbeat_while_draining(session, TTL, None).await.unwrap();
    assert_eq!(only(world).await.draining_at, draining.draining_at, "since when it drains stays");
});

rule!(a_request_to_drain_stands_in_the_way_of_no_phase, async |world: &World| {
    let (session, attempt) = world.running().await;
    world.store.request_drain("inn-1").await.unwrap();
    // SQLite has one writer: there a request and a phase follow one another in any case.
    let request = match world.database.engine() {
        Engine::Postgres => {
            Some(world.hold("begin; update {}host_session set drain_requested_at = now()").await)
        }
        Engine::Sqlite => None,
    };
    world.record(session, success(&attempt)).await;
    world.enqueue("j").await;
    assert_eq!(world.store.claim(session, 1).await.unwrap().len(), 1, "the host decides when it stops");
    drop(request);
});

rule!(a_host_of_the_version_before_is_shown_goes_on_and_is_not_asked, async |world: &World| {
    let session = host_of_the_version_before(world).await;
    let shown = only(world).await;
    assert_eq!((shown.slots, shown.heartbeat_at, shown.state), (None, None, HostState::Active));
    assert_eq!(world.store.request_drain("old").await.unwrap(), 0);
    assert_eq!(only(world).await.drain_requested_at, None);
    assert!(!drain_requested(world, session).await);
});

rule!(the_statements_of_the_version_before_work_on_this_schema, async |world: &World| {
    let now = match world.database.engine() {
        Engine::Postgres => "now()",
        Engine::Sqlite => "1",
    };
    let boot = match world.database.engine() {
        Engine::Postgres => "gen_random_uuid()",
        Engine::Sqlite => "randomblob(16)",
    };
    world
        .tamper(&format!(
            "insert into {{}}host_session (host, boot_id, version, started_at, expires_at, lease_floor)
             values ('old', {boot}, '0.1.0', {now}, {now}, 0);
             update {{}}host_session set expires_at = {now}, lease_floor = 1 where dead_at is null;
             update {{}}host_session set dead_at = {now} where host = 'old'"
        ))
        .await;
    assert_eq!(only(world).await.slots, None);
});

/// An update is heap-only where no index has a column that it changes, neither as a key nor in
/// its condition.
#[tokio::test]
async fn a_heartbeat_changes_no_column_that_an_index_knows() {
    let database = TestDatabase::migrated(Engine::Postgres).await;
    let mut connection = innkeeper_tests::raw::Raw::connect(database.url()).await;
    let indexes =
        "select count(*) from pg_indexes where schemaname = 'innkeeper' and tablename = 'host_session'";
    assert!(connection.count(indexes).await > 0);
    let touched = "expires_at|lease_floor|heartbeat_at|draining_at|drain_requested_at";
    assert_eq!(connection.count(&format!("{indexes} and indexdef ~ '{touched}'")).await, 0);
}
