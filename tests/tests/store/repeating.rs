//! Executions that have ended are repeated, as new ones.

use innkeeper::execution::{Failure, FailureKind, Outcome, State, Trigger};
use innkeeper::store::{NewExecution, Repeated};
use serde_json::json;
use uuid::Uuid;

use crate::rule;
use crate::world::{World, by_hand, failure, job, name, success};

async fn repeated(world: &World, id: Uuid) -> Uuid {
    match world.store.repeat(id, false).await.unwrap() {
        Repeated::As(new) => new,
        other => panic!("{other:?}"),
    }
}

rule!(what_has_finally_failed_is_repeated_as_a_new_execution, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let session = world.host("inn-1").await;
    let (j, args) = (name("j"), json!({ "days": 30 }));
    let id = world.store.enqueue(&NewExecution { args: Some(&args), ..by_hand(&j) }).await.unwrap().id;
    let attempt = world.claim_one(session).await;
    let permanent = Failure::new(FailureKind::Permanent, "no such customer");
    world.record(session, attempt.finish(Outcome::Failed(permanent))).await;
    let new = world.execution(repeated(world, id).await).await;
    assert_ne!(new.id, id);
    assert_eq!((new.state, new.attempt), (State::Queued, 0));
    assert_eq!((new.retry_of, new.triggered_by), (Some(id), Trigger::Manual));
    assert_eq!(new.args, args, "its own arguments, not those of the job");
    let old = world.execution(id).await;
    assert_eq!((old.state, old.retry_of), (State::Failed, None), "history stays as it was");
});

rule!(what_was_cancelled_can_be_repeated_and_the_repetition_too, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let id = world.enqueue("j").await;
    world.store.cancel(&[id], "not now").await.unwrap();
    let second = repeated(world, id).await;
    world.store.cancel(&[second], "not yet").await.unwrap();
    let third = repeated(world, second).await;
    assert_eq!(world.execution(third).await.retry_of, Some(second));
});

rule!(what_has_succeeded_is_repeated_only_if_that_is_wanted_too, async |world: &World| {
    let (session, attempt) = world.running().await;
    world.record(session, success(&attempt)).await;
    assert_eq!(world.store.repeat(attempt.execution, false).await.unwrap(), Repeated::Succeeded);
    assert!(matches!(world.store.repeat(attempt.execution, true).await.unwrap(), Repeated::As(_)));
});

rule!(what_has_not_ended_is_not_repeated, async |world: &World| {
    let (session, attempt) = world.running().await;
    let unfinished = async |id| match world.store.repeat(id, true).await.unwrap() {
        Repeated::Unfinished(state) => state,
        other => panic!("{other:?}"),
    };
    assert_eq!(unfinished(attempt.execution).await, State::Running);
    world.record(session, failure(&attempt)).await;
    assert_eq!(unfinished(attempt.execution).await, State::Retrying);
    assert_eq!(unfinished(world.enqueue("j").await).await, State::Queued);
    assert_eq!(world.store.repeat(Uuid::now_v7(), true).await.unwrap(), Repeated::Unknown);
});

rule!(an_execution_of_a_retired_job_is_not_repeated, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let id = world.enqueue("j").await;
    world.store.cancel(&[id], "not now").await.unwrap();
    world.jobs(&[job("another")]).await;
    let expected = Repeated::Retired { job: name("j"), at: world.clock.now() };
    assert_eq!(world.store.repeat(id, false).await.unwrap(), expected);
});

rule!(a_repetition_has_the_unique_key_and_gives_way_to_who_has_it, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let j = name("j");
    let keyed = NewExecution { unique_key: Some("customer-7"), ..by_hand(&j) };
    let id = world.store.enqueue(&keyed).await.unwrap().id;
    world.store.cancel(&[id], "not now").await.unwrap();
    let new = repeated(world, id).await;
    assert_eq!(world.store.enqueue(&keyed).await.unwrap().id, new, "it has the key");
    assert_eq!(world.store.repeat(id, false).await.unwrap(), Repeated::KeyTaken(new));
});
