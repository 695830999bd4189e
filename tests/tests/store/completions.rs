//! What follows from how an attempt ended.

use std::time::Duration;

use innkeeper::execution::{Failure, FailureKind, Next, Outcome, State};
use innkeeper::store::{NewExecution, Recording};
use serde_json::{Value, json};

use crate::rule;
use crate::world::{World, by_hand, failure, job, name, success};

rule!(a_success_is_final_and_keeps_its_result, async |world: &World| {
    let (session, attempt) = world.running().await;
    world.clock.advance(Duration::from_secs(2));
    let finished_at = world.clock.now();
    world.record(session, success(&attempt)).await;
    let execution = world.execution(attempt.execution).await;
    assert_eq!(execution.state, State::Succeeded);
    assert_eq!(execution.result, Some(json!({ "deleted": 3 })));
    assert_eq!(execution.finished_at, Some(finished_at));
    assert_eq!(execution.error, None);
});

rule!(a_failed_attempt_waits_and_is_ready_again_when_its_wait_is_over, async |world: &World| {
    let (session, attempt) = world.running().await;
    world.record(session, failure(&attempt)).await;
    let execution = world.execution(attempt.execution).await;
    assert_eq!((execution.state, execution.attempt), (State::Retrying, 1));
    assert_eq!(execution.error.unwrap().message, "the disk is full");
    assert_eq!(execution.due_at, Some(world.clock.now() + Duration::from_secs(10)));

    world.clock.advance(Duration::from_millis(9_999));
    assert_eq!(world.store.plan(10).await.unwrap().next_due, Some(Duration::from_millis(1)));
    assert!(world.store.claim(session, 10).await.unwrap().is_empty());
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(world.store.plan(10).await.unwrap().promoted, 1);
    assert_eq!(world.state(attempt.execution).await, State::Queued);

    let second = world.claim_one(session).await;
    assert_eq!((second.execution, second.attempt), (attempt.execution, 2));
    assert_eq!(world.execution(attempt.execution).await.error, None);
});

rule!(the_last_failed_attempt_is_final, async |world: &World| {
    let (session, mut attempt) = world.running().await;
    for number in 1..=3 {
        assert_eq!(attempt.attempt, number);
        world.record(session, failure(&attempt)).await;
        world.clock.advance(Duration::from_secs(10));
        world.store.plan(10).await.unwrap();
        if number < 3 {
            attempt = world.claim_one(session).await;
        }
    }
    let execution = world.execution(attempt.execution).await;
    assert_eq!((execution.state, execution.attempt), (State::Failed, 3));
    assert_eq!(execution.error.unwrap().kind, FailureKind::Handler);
    assert_eq!(world.store.plan(10).await.unwrap().next_due, None);
});

rule!(a_released_attempt_does_not_count_and_keeps_its_place_in_line, async |world: &World| {
    let (session, attempt) = world.running().await;
    world.clock.advance(Duration::from_secs(1));
    let later = world.enqueue("j").await;
    world.record(session, attempt.finish(Outcome::Released)).await;
    let execution = world.execution(attempt.execution).await;
    assert_eq!((execution.state, execution.attempt), (State::Queued, 0));
    let again = world.store.claim(session, 1).await.unwrap().remove(0);
    assert_eq!((again.execution, again.attempt), (attempt.execution, 1));
    assert_eq!(world.claim_one(session).await.execution, later);
});

rule!(one_phase_ends_many_attempts_each_in_its_own_way, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let session = world.host("inn-1").await;
    for _ in 0..4 {
        world.enqueue("j").await;
    }
    let attempts = world.store.claim(session, 10).await.unwrap();
    let mut unknown = success(&attempts[3]);
    unknown.lease += 1000;
    let completions =
        [success(&attempts[0]), failure(&attempts[1]), attempts[2].finish(Outcome::Released), unknown];
    let recordings = world.store.record(session, &completions).await.unwrap();
    let expected = [Recording::Recorded, Recording::Recorded, Recording::Recorded, Recording::Stale];
    assert_eq!(recordings, expected);
    let states = [State::Succeeded, State::Retrying, State::Queued, State::Running];
    for (attempt, state) in attempts.iter().zip(states) {
        assert_eq!(world.state(attempt.execution).await, state);
    }
});

rule!(any_json_that_a_handler_returns_comes_back_as_it_was, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let session = world.host("inn-1").await;
    let results = [
        Value::Null,
        json!("NUL \u{0} and 🦊"),
        json!([1, 1.5, -0.0, 18_446_744_073_709_551_615_u64, 1e300]),
        json!({ "": { "ä": [] } }),
    ];
    for result in results {
        world.enqueue("j").await;
        let attempt = world.claim_one(session).await;
        world.record(session, attempt.finish(Outcome::Succeeded(result.clone()))).await;
        assert_eq!(world.execution(attempt.execution).await.result, Some(result));
    }
});

rule!(a_message_with_a_nul_character_stops_no_completion, async |world: &World| {
    let (session, attempt) = world.running().await;
    let message = "a\u{0}b";
    let outcome = Outcome::Failed(Failure::new(FailureKind::Permanent, message));
    assert_eq!(world.record(session, attempt.finish(outcome)).await, Recording::Recorded);
    assert_eq!(world.execution(attempt.execution).await.error.unwrap().message, message);
});

rule!(a_wait_without_end_is_cut_to_a_hundred_years, async |world: &World| {
    let (session, attempt) = world.running().await;
    let mut completion = failure(&attempt);
    completion.next = Next::RetryIn(Duration::MAX);
    assert_eq!(world.record(session, completion).await, Recording::Recorded);
    assert_eq!(world.state(attempt.execution).await, State::Retrying);
});

rule!(a_unique_key_finds_the_unfinished_execution_that_has_it, async |world: &World| {
    world.jobs(&[job("j"), job("k")]).await;
    let (j, k) = (name("j"), name("k"));
    let keyed = |job| NewExecution { unique_key: Some("customer-7"), ..by_hand(job) };
    let first = world.store.enqueue(&keyed(&j)).await.unwrap();
    assert!(first.created);
    let second = world.store.enqueue(&keyed(&j)).await.unwrap();
    assert_eq!((second.id, second.created), (first.id, false));
    assert!(world.store.enqueue(&keyed(&k)).await.unwrap().created, "another job's keys are its own");
    assert_eq!(world.count("execution", "true").await, 2);
});

rule!(a_unique_key_is_held_through_retries_and_given_up_with_the_final_outcome, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let session = world.host("inn-1").await;
    let j = name("j");
    let keyed = NewExecution { unique_key: Some("k"), ..by_hand(&j) };
    let first = world.store.enqueue(&keyed).await.unwrap();
    let attempt = world.claim_one(session).await;
    assert!(attempt.has_unique_key);
    world.record(session, failure(&attempt)).await;
    assert_eq!(world.store.enqueue(&keyed).await.unwrap().id, first.id);

    world.clock.advance(Duration::from_secs(10));
    world.store.plan(10).await.unwrap();
    let attempt = world.claim_one(session).await;
    world.record(session, success(&attempt)).await;
    let next = world.store.enqueue(&keyed).await.unwrap();
    assert!(next.created && next.id != first.id);
    assert_eq!(world.count("unique_key", "true").await, 1);
});

rule!(a_crash_that_is_final_gives_up_the_unique_key, async |world: &World| {
    let fail = innkeeper::job::Job { on_crash: innkeeper::job::OnCrash::Fail, ..job("j") };
    world.jobs(&[fail]).await;
    let session = world.host("inn-1").await;
    let j = name("j");
    let keyed = NewExecution { unique_key: Some("k"), ..by_hand(&j) };
    world.store.enqueue(&keyed).await.unwrap();
    world.claim_one(session).await;
    world.crash_all().await;
    assert!(world.store.enqueue(&keyed).await.unwrap().created);
});

rule!(one_key_asked_for_many_times_at_once_makes_one_execution, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let mut askers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = world.another_store(1).await;
        askers.spawn(async move {
            let j = name("j");
            store.enqueue(&NewExecution { unique_key: Some("k"), ..by_hand(&j) }).await.unwrap()
        });
    }
    let answers = askers.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.created).count(), 1);
    assert!(answers.iter().all(|answer| answer.id == answers[0].id));
    assert_eq!(world.count("execution", "true").await, 1);
});
