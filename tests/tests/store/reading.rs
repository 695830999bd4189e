//! Lists of executions.

use std::time::Duration;

use innkeeper::execution::{Failure, FailureKind, Outcome, State};
use innkeeper::store::{ExecutionFilter, NewExecution, StoreError};
use uuid::Uuid;

use crate::rule;
use crate::world::{World, by_hand, failure, job, name, success};

rule!(executions_are_found_by_state_and_by_job_the_newest_first, async |world: &World| {
    world.jobs(&[job("j"), job("k")]).await;
    let session = world.host("inn-1").await;
    let mut of_j = Vec::new();
    let mut of_k = Vec::new();
    // One of each state for each job, the oldest is the first to be claimed.
    for (name, list) in [("j", &mut of_j), ("k", &mut of_k)] {
        for _ in 0..4 {
            list.push(world.enqueue(name).await);
        }
        let attempts = world.store.claim(session, 4).await.unwrap();
        let permanent = Outcome::Failed(Failure::new(FailureKind::Permanent, "no"));
        let ends = [success(&attempts[0]), attempts[1].finish(permanent), failure(&attempts[2])];
        world.store.record(session, &ends).await.unwrap();
    }
    for (job_name, list) in [("j", &mut of_j), ("k", &mut of_k)] {
        list.push(world.enqueue(job_name).await);
        let (job, run_at) = (name(job_name), Some(world.clock.now() + Duration::from_secs(60)));
        let later = NewExecution { run_at, ..by_hand(&job) };
        list.push(world.store.enqueue(&later).await.unwrap().id);
    }
    let states =
        [State::Succeeded, State::Failed, State::Retrying, State::Running, State::Queued, State::Scheduled];
    for (index, state) in states.into_iter().enumerate() {
        assert_eq!(world.list(Some("j"), Some(state)).await, [of_j[index]], "{state:?}");
        assert_eq!(world.list(None, Some(state)).await, [of_k[index], of_j[index]], "{state:?}");
        assert_eq!(world.state(of_j[index]).await, state);
    }
    for state in [State::Cancelled, State::Skipped] {
        assert_eq!(world.list(None, Some(state)).await, [] as [Uuid; 0]);
    }
    assert_eq!(world.list(None, None).await.len(), 12);
    let newest_first: Vec<Uuid> = of_k.iter().rev().copied().collect();
    assert_eq!(world.list(Some("k"), None).await, newest_first);
});

rule!(a_list_goes_on_where_a_page_ended, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let mut expected = Vec::new();
    for _ in 0..5 {
        expected.insert(0, world.enqueue("j").await);
    }
    for state in [None, Some(State::Queued)] {
        let mut found = Vec::new();
        loop {
            let filter = ExecutionFilter { job: None, state, before: found.last().copied(), limit: 2 };
            let page = world.store.executions(&filter).await.unwrap();
            if page.is_empty() {
                break;
            }
            found.extend(page.into_iter().map(|execution| execution.id));
        }
        assert_eq!(found, expected);
    }
});

rule!(an_execution_that_is_not_there_is_none_and_a_job_that_is_not_there_an_error, async |world: &World| {
    assert_eq!(world.store.execution(Uuid::nil()).await.unwrap(), None);
    assert_eq!(world.store.logs(Uuid::nil()).await.unwrap(), []);
    let filter = ExecutionFilter { job: Some(name("j")), state: None, before: None, limit: 10 };
    let error = world.store.executions(&filter).await.unwrap_err();
    assert!(matches!(error, StoreError::UnknownJob { .. }), "{error:?}");
});

rule!(an_outcome_that_no_innkeeper_wrote_is_reported_and_not_guessed, async |world: &World| {
    let (session, attempt) = world.running().await;
    world.record(session, success(&attempt)).await;
    world.tamper("update {}completion set outcome = 'mislaid'").await;
    let error = world.store.execution(attempt.execution).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
    assert!(error.to_string().contains("mislaid"), "{error}");
});
