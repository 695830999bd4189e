//! START: who gets what.

use std::collections::HashSet;
use std::time::Duration;

use innkeeper::execution::{FailureKind, State, Trigger};
use innkeeper::job::Job;
use innkeeper::store::{NewExecution, PhaseName, StoreError};
use innkeeper_tests::database::Engine;
use serde_json::json;

use crate::rule;
use crate::world::{TTL, World, by_hand, job, name, success};

rule!(an_attempt_has_all_that_a_handler_is_called_with, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let session = world.host("inn-1").await;
    let j = name("j");
    let args = json!({ "days": 30 });
    let id = world.store.enqueue(&NewExecution { args: Some(&args), ..by_hand(&j) }).await.unwrap().id;
    let scheduled_at = world.clock.now();
    world.clock.advance(Duration::from_micros(1_500_001));
    let attempt = world.claim_one(session).await;
    assert_eq!(attempt.execution, id);
    assert_eq!((attempt.attempt, attempt.max_attempts), (1, 3));
    assert_eq!(*attempt.job, job("j"));
    assert_eq!(attempt.args, args);
    assert_eq!(attempt.triggered_by, Trigger::Manual);
    assert_eq!(attempt.scheduled_at, scheduled_at);
    assert_eq!(attempt.started_at, world.clock.now());
    assert_eq!(attempt.checkpoint, None);
    assert!(!attempt.has_unique_key);

    let execution = world.execution(id).await;
    assert_eq!(execution.state, State::Running);
    assert_eq!(execution.started_at, Some(world.clock.now()));
    assert_eq!(execution.host.as_deref(), Some("inn-1"));
    assert_eq!(execution.component_digest.as_deref(), Some("sha256:c0ffee"));
});

rule!(claims_at_once_never_overlap, async |world: &World| {
    world.jobs(&[job("j")]).await;
    for _ in 0..60 {
        world.enqueue("j").await;
    }
    let mut hosts = tokio::task::JoinSet::new();
    for number in 0..4 {
        let session = world.host(&format!("inn-{number}")).await;
        let store = world.another_store(1).await;
        hosts.spawn(async move {
            let mut claimed = Vec::new();
            for _ in 0..10 {
                claimed.extend(store.claim(session, 4).await.unwrap());
            }
            claimed
        });
    }
    let claimed: Vec<_> = hosts.join_all().await.into_iter().flatten().collect();
    assert_eq!(claimed.len(), 60);
    let executions: HashSet<_> = claimed.iter().map(|attempt| attempt.execution).collect();
    let leases: HashSet<_> = claimed.iter().map(|attempt| attempt.lease).collect();
    assert_eq!((executions.len(), leases.len()), (60, 60));
    assert_eq!(world.count("ready", "true").await, 0);
});

rule!(a_claim_passes_by_what_another_host_is_claiming, async |world: &World| {
    if world.database.engine() == Engine::Sqlite {
        // It has one writer: claims come one after the other.
        return;
    }
    world.jobs(&[job("j")]).await;
    let (first, second) = (world.enqueue("j").await, world.enqueue("j").await);
    let (one, other) = (world.host("inn-1").await, world.host("inn-2").await);
    let mut start = world.store.begin(PhaseName::Start).await.unwrap();
    assert_eq!(start.tx().start(one, 1).await.unwrap()[0].execution, first);
    assert_eq!(world.claim_one(other).await.execution, second);
    start.commit().await.unwrap();
});

rule!(what_has_been_due_longest_starts_first, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let mut enqueued = Vec::new();
    for _ in 0..3 {
        enqueued.push(world.enqueue("j").await);
        world.clock.advance(Duration::from_secs(1));
    }
    let session = world.host("inn-1").await;
    for expected in enqueued {
        assert_eq!(world.store.claim(session, 1).await.unwrap()[0].execution, expected);
    }
});

rule!(a_host_starts_only_what_its_plugins_can_run, async |world: &World| {
    world.jobs(&[Job { plugin: name("q"), ..job("j") }, job("k")]).await;
    let other = world.enqueue("j").await;
    let own = world.enqueue("k").await;
    let session = world.host_with("inn-1", &["p"]).await;
    assert_eq!(world.claim_one(session).await.execution, own);
    assert!(world.store.claim(session, 10).await.unwrap().is_empty());
    let session = world.host_with("inn-2", &["q"]).await;
    assert_eq!(world.claim_one(session).await.execution, other);
});

rule!(a_retired_job_s_queued_executions_still_run, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let id = world.enqueue("j").await;
    world.jobs(&[]).await;
    let session = world.host("inn-1").await;
    assert_eq!(world.claim_one(session).await.execution, id);
});

rule!(
    an_execution_whose_definition_cannot_be_read_fails_and_stands_in_nobody_s_way,
    async |world: &World| {
        world.jobs(&[job("a"), job("b")]).await;
        let (broken, fine) = (world.enqueue("a").await, world.enqueue("b").await);
        world.tamper("update {}job set spec = '{\"from\": \"the future\"}' where name = 'a'").await;
        let session = world.host("inn-1").await;
        assert_eq!(world.claim_one(session).await.execution, fine);
        let execution = world.execution(broken).await;
        assert_eq!(execution.state, State::Retrying, "another host may be able to read it");
        assert_eq!(execution.error.unwrap().kind, FailureKind::Host);
    }
);

rule!(one_connection_suffices_for_all_of_it_at_once, async |world: &World| {
    let store = world.another_store(1).await;
    world.jobs(&[job("j")]).await;
    let session = world.host("inn-1").await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            let j = name("j");
            store.enqueue(&by_hand(&j)).await.unwrap();
            store.heartbeat(session, TTL, None).await.unwrap();
            let attempts = store.claim(session, 1).await.unwrap();
            for attempt in &attempts {
                store.record(session, &[success(attempt)]).await.unwrap();
            }
            store.plan(10).await.unwrap();
            store.rescue(10, &[]).await.unwrap();
            store.jobs().await.unwrap();
            store.plugins().await.unwrap();
            attempts.len()
        });
    }
    assert_eq!(tasks.join_all().await.into_iter().sum::<usize>(), 8);
    assert_eq!(world.list(None, Some(State::Succeeded)).await.len(), 8);
});

rule!(a_heartbeat_does_not_wait_for_the_phases_connections, async |world: &World| {
    if world.database.engine() == Engine::Sqlite {
        // SQLite has one writer, and a heartbeat writes.
        return;
    }
    let store = world.another_store(1).await;
    let session = world.host("inn-1").await;
    let mut phase = store.begin(PhaseName::Start).await.unwrap();
    phase.tx().start(session, 1).await.unwrap();
    store.heartbeat(session, TTL, None).await.unwrap();
    drop(phase);
});

rule!(a_start_whose_answer_was_lost_is_given_back_and_costs_no_attempt, async |world: &World| {
    let (session, known) = world.running().await;
    let id = world.enqueue("j").await;
    let lost = world.claim_one(session).await;
    let released = world.store.release_unknown(session, &[known.lease]).await.unwrap();
    assert_eq!(released, [id]);
    assert_eq!((world.state(id).await, world.state(known.execution).await), (State::Queued, State::Running));
    assert_eq!(world.execution(id).await.attempt, 0);
    let again = world.claim_one(session).await;
    assert_eq!((again.execution, again.attempt), (id, 1));
    assert_ne!(again.lease, lost.lease);
    world.crash_all().await;
    let refused = world.store.release_unknown(session, &[]).await;
    assert!(matches!(refused, Err(StoreError::SessionLost)), "{refused:?}");
});
