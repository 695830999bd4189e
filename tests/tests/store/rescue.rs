//! What becomes of a dead host's attempts.

use std::time::Duration;

use innkeeper::execution::{FailureKind, Next, State};
use innkeeper::job::{Job, OnCrash};
use innkeeper::store::{Recording, StoreError};

use crate::rule;
use crate::world::{TTL, World, job, success};

rule!(a_crashed_attempt_is_tried_again_while_attempts_are_left, async |world: &World| {
    let (_, attempt) = world.running().await;
    let rescued = world.crash_all().await;
    assert_eq!(rescued.len(), 1);
    assert_eq!(rescued[0].execution, attempt.execution);
    assert_eq!(rescued[0].host, "inn-1");
    assert_eq!(rescued[0].next, Next::RetryIn(Duration::from_secs(10)));
    let execution = world.execution(attempt.execution).await;
    assert_eq!((execution.state, execution.attempt), (State::Retrying, 1));
    let error = execution.error.unwrap();
    assert_eq!(error.kind, FailureKind::Crashed);
    assert!(error.message.contains("`inn-1`"), "{}", error.message);
});

rule!(a_crashed_attempt_has_failed_where_the_job_says_so, async |world: &World| {
    let (_, attempt) = world.running_of(Job { on_crash: OnCrash::Fail, ..job("j") }).await;
    assert_eq!(world.crash_all().await[0].next, Next::Final);
    assert_eq!(world.state(attempt.execution).await, State::Failed);
});

rule!(a_crash_counts_as_an_attempt, async |world: &World| {
    let (_, attempt) = world.running().await;
    for number in 2..=3 {
        world.crash_all().await;
        world.clock.advance(Duration::from_secs(10));
        world.store.plan(10).await.unwrap();
        let session = world.host("inn-1").await;
        assert_eq!(world.claim_one(session).await.attempt, number);
    }
    world.crash_all().await;
    assert_eq!(world.state(attempt.execution).await, State::Failed);
});

rule!(a_live_session_is_left_alone, async |world: &World| {
    let (session, attempt) = world.running().await;
    world.clock.advance(TTL - Duration::from_micros(1));
    assert_eq!(world.store.rescue(10, &[]).await.unwrap(), []);
    world.store.heartbeat(session, TTL, None).await.unwrap();
    world.clock.advance(Duration::from_secs(5));
    assert_eq!(world.store.rescue(10, &[]).await.unwrap(), []);
    assert_eq!(world.state(attempt.execution).await, State::Running);
});

rule!(attempts_that_have_ended_are_not_rescued, async |world: &World| {
    let (session, attempt) = world.running().await;
    world.record(session, success(&attempt)).await;
    assert_eq!(world.crash_all().await, []);
    assert_eq!(world.state(attempt.execution).await, State::Succeeded);
});

rule!(the_lease_that_a_heartbeat_names_as_lowest_is_still_found, async |world: &World| {
    let (session, first) = world.running().await;
    let execution = world.enqueue("j").await;
    let second = world.claim_one(session).await;
    world.record(session, success(&first)).await;
    world.store.heartbeat(session, TTL, Some(second.lease)).await.unwrap();
    assert_eq!(world.list(None, Some(State::Running)).await, [execution]);
    let rescued = world.crash_all().await;
    assert_eq!(rescued.iter().map(|rescued| rescued.execution).collect::<Vec<_>>(), [execution]);
});

rule!(two_rescuers_at_once_end_an_attempt_once, async |world: &World| {
    let (_, attempt) = world.running().await;
    world.clock.advance(TTL);
    let mut rescuers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = world.another_store(1).await;
        rescuers.spawn(async move { store.rescue(10, &[]).await.unwrap().len() });
    }
    assert_eq!(rescuers.join_all().await.into_iter().sum::<usize>(), 1);
    assert_eq!(world.count("completion", "true").await, 1);
    assert_eq!(world.state(attempt.execution).await, State::Retrying);
});

rule!(a_session_that_ends_after_a_drain_has_nothing_to_rescue, async |world: &World| {
    let (session, attempt) = world.running().await;
    world.record(session, success(&attempt)).await;
    assert_eq!(world.store.end_session(session).await.unwrap(), []);
    assert!(matches!(world.store.end_session(session).await, Err(StoreError::SessionLost)));
    assert!(matches!(world.store.claim(session, 1).await, Err(StoreError::SessionLost)));
});

rule!(what_a_session_leaves_open_when_it_ends_is_treated_as_after_a_crash, async |world: &World| {
    let (session, attempt) = world.running().await;
    let rescued = world.store.end_session(session).await.unwrap();
    assert_eq!(rescued.len(), 1);
    assert_eq!(world.state(attempt.execution).await, State::Retrying);
});

rule!(a_host_does_not_rescue_what_it_has_yet_to_record, async |world: &World| {
    let (session, attempt) = world.running().await;
    world.clock.advance(TTL + TTL);
    assert_eq!(world.store.rescue(10, &[session]).await.unwrap(), []);
    assert_eq!(world.record(session, success(&attempt)).await, Recording::Recorded);
    assert_eq!(world.state(attempt.execution).await, State::Succeeded);
});
