//! Executions that somebody wants to end: before they start, while they run, and afterwards.

use std::collections::BTreeSet;
use std::time::Duration;

use innkeeper::execution::{FailureKind, Next, Outcome, State};
use innkeeper::job::Job;
use innkeeper::policy::{Concurrency, Policies, WhenFull};
use innkeeper::schedule::{Schedule, Spec};
use innkeeper::store::{CancelRequest, CancelResult, NewExecution, PhaseName, Recording, Store};
use innkeeper_tests::database::Engine;
use uuid::Uuid;

use crate::rule;
use crate::world::{World, by_hand, failure, job, name, success};

const WHY: &str = "the wrong customer";

async fn cancel(world: &World, id: Uuid) -> CancelResult {
    let results = world.store.cancel(&[id], WHY).await.unwrap();
    assert_eq!(results.len(), 1);
    assert_eq!(results[0].0, id);
    results[0].1
}

/// It was ended, for the reason that was given, and nothing will start it.
async fn assert_cancelled(world: &World, id: Uuid, attempt: u32) {
    let record = world.execution(id).await;
    assert_eq!((record.state, record.attempt), (State::Cancelled, attempt));
    assert_eq!(record.finished_at, Some(world.clock.now()));
    let error = record.error.unwrap();
    assert_eq!(error.kind, FailureKind::Cancelled);
    assert!(error.message.starts_with(WHY), "{}", error.message);
    assert_eq!(world.list(Some("j"), Some(State::Cancelled)).await, [id]);
    world.clock.advance(Duration::from_secs(20));
    world.store.plan(10).await.unwrap();
    let session = world.host("inn-9").await;
    assert!(world.store.claim(session, 10).await.unwrap().is_empty());
}

async fn requests(world: &World) -> i64 {
    world.count("cancel_request", "true").await
}

/// What each host does from time to time: settles the requests that have no handler to tell.
async fn settle_all(world: &World, store: &Store) {
    let session = world.host("inn-settles").await;
    for request in store.cancel_requests(session, 100).await.unwrap() {
        assert_eq!(request.lease, None, "nothing runs in that session");
        store.settle_request(&request).await.unwrap();
    }
}

rule!(what_is_queued_never_starts, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let id = world.enqueue("j").await;
    assert_eq!(cancel(world, id).await, CancelResult::Cancelled);
    assert_cancelled(world, id, 0).await;
    assert_eq!(requests(world).await, 0);
});

rule!(what_is_due_later_never_starts, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let run_at = Some(world.clock.now() + Duration::from_secs(10));
    let id = world.store.enqueue(&NewExecution { run_at, ..by_hand(&name("j")) }).await.unwrap().id;
    assert_eq!(cancel(world, id).await, CancelResult::Cancelled);
    assert_cancelled(world, id, 0).await;
});

rule!(what_waits_for_another_attempt_keeps_those_that_it_made, async |world: &World| {
    let (session, attempt) = world.running().await;
    world.record(session, failure(&attempt)).await;
    assert_eq!(cancel(world, attempt.execution).await, CancelResult::Cancelled);
    assert_cancelled(world, attempt.execution, 1).await;
});

rule!(an_attempt_that_was_given_back_is_not_counted_in_what_is_cancelled, async |world: &World| {
    let (session, attempt) = world.running().await;
    world.record(session, attempt.finish(Outcome::Released)).await;
    assert_eq!(cancel(world, attempt.execution).await, CancelResult::Cancelled);
    assert_cancelled(world, attempt.execution, 0).await;
});

rule!(what_runs_is_asked_to_end_and_its_host_is_told_why, async |world: &World| {
    let (session, attempt) = world.running().await;
    assert_eq!(cancel(world, attempt.execution).await, CancelResult::Requested);
    assert_eq!(cancel(world, attempt.execution).await, CancelResult::Requested, "asking again does no harm");
    let record = world.execution(attempt.execution).await;
    assert_eq!((record.state, record.cancel_requested.as_deref()), (State::Running, Some(WHY)));
    let expected =
        CancelRequest { execution: attempt.execution, reason: WHY.into(), lease: Some(attempt.lease) };
    assert_eq!(world.store.cancel_requests(session, 10).await.unwrap(), [expected]);
    let another = world.host("inn-2").await;
    assert_eq!(world.store.cancel_requests(another, 10).await.unwrap(), [], "it does not run there");
});

rule!(an_attempt_that_fails_after_a_request_is_cancelled_and_not_tried_again, async |world: &World| {
    let (session, attempt) = world.running().await;
    cancel(world, attempt.execution).await;
    let completion = failure(&attempt);
    assert_eq!(world.record(session, completion.clone()).await, Recording::Recorded);
    // As after an answer that was lost.
    assert_eq!(world.record(session, completion).await, Recording::Recorded);
    assert_cancelled(world, attempt.execution, 1).await;
    let error = world.execution(attempt.execution).await.error.unwrap();
    assert!(error.message.contains("`handler`: the disk is full"), "{}", error.message);
    settle_all(world, &world.store).await;
    assert_eq!(requests(world).await, 0);
});

rule!(an_attempt_that_is_given_back_after_a_request_is_cancelled, async |world: &World| {
    let (session, attempt) = world.running().await;
    cancel(world, attempt.execution).await;
    world.record(session, attempt.finish(Outcome::Released)).await;
    assert_cancelled(world, attempt.execution, 1).await;
});

rule!(an_attempt_that_succeeds_in_spite_of_a_request_has_succeeded, async |world: &World| {
    let (session, attempt) = world.running().await;
    cancel(world, attempt.execution).await;
    world.record(session, success(&attempt)).await;
    let record = world.execution(attempt.execution).await;
    assert_eq!((record.state, record.cancel_requested), (State::Succeeded, None));
    settle_all(world, &world.store).await;
    assert_eq!(requests(world).await, 0, "the request has come to its end");
    assert_eq!(cancel(world, attempt.execution).await, CancelResult::Ended(State::Succeeded));
});

rule!(what_was_to_end_when_its_host_died_is_cancelled_and_not_tried_again, async |world: &World| {
    let (_, attempt) = world.running().await;
    cancel(world, attempt.execution).await;
    let rescued = world.crash_all().await;
    assert_eq!(rescued[0].next, Next::Final);
    assert_cancelled(world, attempt.execution, 1).await;
    let error = world.execution(attempt.execution).await.error.unwrap();
    assert!(error.message.contains("`crashed`: host `inn-1`"), "{}", error.message);
});

rule!(a_request_that_found_no_attempt_any_more_ends_the_wait_for_the_next, async |world: &World| {
    let (session, attempt) = world.running().await;
    world.record(session, failure(&attempt)).await;
    // As if it had been asked for while that completion was about to be committed.
    let late = "insert into {}cancel_request (execution_id, requested_at, reason)
        select id, created_at, 'the wrong customer' from {}execution";
    world.tamper(late).await;
    settle_all(world, &world.store).await;
    assert_cancelled(world, attempt.execution, 1).await;
    assert_eq!(requests(world).await, 0);
});

rule!(what_has_ended_and_what_never_was_is_told_apart, async |world: &World| {
    let (session, attempt) = world.running().await;
    world.record(session, success(&attempt)).await;
    let queued = world.enqueue("j").await;
    let nobody = Uuid::now_v7();
    let results = world.store.cancel(&[nobody, queued, attempt.execution, queued], WHY).await.unwrap();
    let expected = [
        (nobody, CancelResult::Unknown),
        (queued, CancelResult::Cancelled),
        (attempt.execution, CancelResult::Ended(State::Succeeded)),
        (queued, CancelResult::Cancelled),
    ];
    assert_eq!(results, expected, "in the order of the question");
    assert_eq!(cancel(world, queued).await, CancelResult::Ended(State::Cancelled));
});

rule!(the_unique_key_of_what_was_cancelled_is_free_again, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let j = name("j");
    let keyed = NewExecution { unique_key: Some("customer-7"), ..by_hand(&j) };
    let first = world.store.enqueue(&keyed).await.unwrap();
    cancel(world, first.id).await;
    let second = world.store.enqueue(&keyed).await.unwrap();
    assert!(second.created);
    let session = world.host("inn-1").await;
    let attempt = world.claim_one(session).await;
    cancel(world, second.id).await;
    world.record(session, failure(&attempt)).await;
    assert!(world.store.enqueue(&keyed).await.unwrap().created);
});

fn one_at_a_time(name: &str) -> Job {
    let limit = Concurrency { limit: Some(1), per_key: None, when_full: WhenFull::Queue };
    Job { policies: Policies { concurrency: Some(limit), ..Policies::default() }, ..job(name) }
}

rule!(what_held_up_others_sets_them_free, async |world: &World| {
    world.jobs(&[one_at_a_time("j")]).await;
    let session = world.host("inn-1").await;
    let (first, second) = (world.enqueue("j").await, world.enqueue("j").await);
    world.store.plan(10).await.unwrap();
    assert_eq!(world.count("ready", "true").await, 1, "the other one waits for the first");
    assert_eq!(cancel(world, first).await, CancelResult::Cancelled);
    world.store.plan(10).await.unwrap();
    let attempt = world.claim_one(session).await;
    assert_eq!(attempt.execution, second);
    let third = world.enqueue("j").await;
    assert_eq!(cancel(world, second).await, CancelResult::Requested);
    world.record(session, failure(&attempt)).await;
    world.store.plan(10).await.unwrap();
    assert_eq!(world.claim_one(session).await.execution, third, "a cancelled attempt has given its place up");
    assert_eq!(world.count("permit", "true").await, 1);
});

rule!(what_waits_for_a_permit_never_gets_one, async |world: &World| {
    world.jobs(&[one_at_a_time("j")]).await;
    let session = world.host("inn-1").await;
    let (_first, second) = (world.enqueue("j").await, world.enqueue("j").await);
    world.store.plan(10).await.unwrap();
    assert_eq!(cancel(world, second).await, CancelResult::Cancelled);
    let attempt = world.claim_one(session).await;
    world.record(session, success(&attempt)).await;
    assert_cancelled(world, second, 0).await;
});

rule!(a_planner_that_lets_it_pass_is_waited_for, async |world: &World| {
    world.jobs(&[one_at_a_time("j")]).await;
    let id = world.enqueue("j").await;
    assert_eq!(world.count("waiting", "blocker = 'limit'").await, 1);
    let begin = match world.database.engine() {
        Engine::Postgres => "begin",
        Engine::Sqlite => "begin immediate",
    };
    // As `admit` does it: takes the gate, reads who waits, and moves those that it has read.
    let read = "delete from {}gate; create temporary table seen as select * from {}waiting";
    let mut planner = world.hold(&format!("{begin}; {read}")).await;
    let store = world.another_store(1).await;
    let cancelling = tokio::spawn(async move { store.cancel(&[id], WHY).await });
    world.until_blocked(|| cancelling.is_finished()).await;
    let pass = "delete from {}waiting where execution_id in (select execution_id from seen);
        insert into {}ready (queue_id, rank, execution_id, job_id, attempt)
            select 0, rank, execution_id, job_id, attempt from seen; commit";
    planner.run(pass).await;
    assert_eq!(cancelling.await.unwrap().unwrap(), [(id, CancelResult::Cancelled)]);
    assert_cancelled(world, id, 0).await;
});

rule!(a_schedule_that_counts_from_the_last_end_goes_on_after_a_cancelled_fire, async |world: &World| {
    let spec = Spec { every_after: Some(Duration::from_secs(60)), ..Spec::default() };
    world.jobs(&[Job { schedule: Some(Schedule::new(&spec).unwrap()), ..job("j") }]).await;
    // However it begins to fire: at once, or after its period.
    world.clock.advance(Duration::from_secs(60));
    let fired = world.store.plan(10).await.unwrap().fired.remove(0).execution;
    // As long as its only one has not ended.
    world.tamper("update {}job set next_fire_at = null").await;
    assert_eq!(cancel(world, fired).await, CancelResult::Cancelled);
    assert_eq!(world.count("job", "next_fire_at is null").await, 0);
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(world.store.plan(10).await.unwrap().fired.len(), 1);
});

rule!(a_start_that_is_under_way_is_waited_for, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let session = world.host("inn-1").await;
    let id = world.enqueue("j").await;
    let mut start = world.store.begin(PhaseName::Start).await.unwrap();
    let attempt = start.tx().start(session, 1).await.unwrap().remove(0);
    // On SQLite there is nothing to look at while somebody else writes.
    if world.database.engine() == Engine::Postgres {
        let request = CancelRequest { execution: id, reason: WHY.into(), lease: None };
        assert_eq!(world.store.settle_request(&request).await.unwrap(), None, "it is neither here nor there");
    }
    let store = world.another_store(1).await;
    let cancelling = tokio::spawn(async move { store.cancel(&[id], WHY).await });
    start.commit().await.unwrap();
    assert_eq!(cancelling.await.unwrap().unwrap(), [(id, CancelResult::Requested)]);
    let requests = world.store.cancel_requests(session, 10).await.unwrap();
    assert_eq!(requests[0].lease, Some(attempt.lease));
});

rule!(what_is_started_and_cancelled_at_once_is_one_of_the_two, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let session = world.host("inn-1").await;
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.push(world.enqueue("j").await);
    }
    let (starter, canceller) = (world.another_store(1).await, world.another_store(1).await);
    let starting = tokio::spawn(async move {
        let mut started = BTreeSet::new();
        for _ in 0..20 {
            let attempts = starter.claim(session, 2).await.unwrap();
            started.extend(attempts.into_iter().map(|attempt| attempt.execution));
        }
        started
    });
    let newest_first: Vec<Uuid> = ids.iter().rev().copied().collect();
    let mut results = Vec::new();
    for some in newest_first.chunks(7) {
        results.extend(canceller.cancel(some, WHY).await.unwrap());
    }
    let mut started = starting.await.unwrap();
    started.extend(world.store.claim(session, 100).await.unwrap().into_iter().map(|a| a.execution));
    assert_eq!(results.len(), ids.len());
    for (id, result) in results {
        match result {
            CancelResult::Cancelled => assert!(!started.contains(&id), "{id} was cancelled and started"),
            CancelResult::Requested => assert!(started.contains(&id), "{id} was not started"),
            other => panic!("{id}: {other:?}"),
        }
    }
});
