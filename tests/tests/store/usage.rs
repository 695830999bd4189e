//! What attempts have used, and each with the component that ran.

use std::time::Duration;

use innkeeper::execution::{Completion, Outcome, State};
use innkeeper::limits::Usage;
use innkeeper::store::{AttemptOutcome, NewSession, SessionId};
use serde_json::json;
use uuid::Uuid;

use crate::rule;
use crate::world::{TTL, World, failure, job, name, success};

fn usage() -> Usage {
    Usage {
        wall_us: 1_234_567,
        cpu_us: 89_000,
        memory_peak_bytes: 12 << 20,
        fuel: Some(0),
        db_calls: 12,
        db_transactions: 5,
        db_rows_read: u64::MAX,
        log_lines: 3,
        ..Usage::default()
    }
}

fn with(usage: &Usage, completion: Completion) -> Completion {
    Completion { usage: Some(usage.clone()), ..completion }
}

async fn host_of(world: &World, host: &str, digest: &str) -> SessionId {
    world.store.save_component(digest, &json!([])).await.unwrap();
    let plugins = [(name("p"), digest.to_owned())];
    let boot_id = Uuid::new_v4();
    let session = NewSession { host, boot_id, version: "0.1.0", ttl: TTL, slots: 4, plugins: &plugins };
    world.store.register_session(&session).await.unwrap()
}

rule!(what_an_attempt_has_used_is_read_back_as_it_was_measured, async |world: &World| {
    let (session, attempt) = world.running().await;
    assert_eq!(world.execution(attempt.execution).await.usage, None, "it runs");
    let other = {
        world.enqueue("j").await;
        world.claim_one(session).await
    };
    let ends = [with(&usage(), success(&attempt)), success(&other)];
    world.store.record(session, &ends).await.unwrap();
    assert_eq!(world.execution(attempt.execution).await.usage, Some(usage()));
    assert_eq!(world.execution(other.execution).await.usage, None, "nobody has measured it");
});

rule!(an_execution_shows_what_its_last_attempt_has_used, async |world: &World| {
    let (session, attempt) = world.running().await;
    let first = Usage { wall_us: 1, ..Usage::default() };
    world.record(session, with(&first, failure(&attempt))).await;
    assert_eq!(world.execution(attempt.execution).await.usage, Some(first.clone()));
    world.clock.advance(Duration::from_secs(10));
    world.store.plan(10).await.unwrap();
    let again = world.claim_one(session).await;
    assert_eq!(world.execution(attempt.execution).await.usage, None, "another attempt runs");
    world.record(session, with(&usage(), success(&again))).await;
    assert_eq!(world.execution(attempt.execution).await.usage, Some(usage()));
    let all = world.store.attempts(attempt.execution, 10).await.unwrap();
    assert_eq!(
        all.into_iter().map(|attempt| attempt.usage).collect::<Vec<_>>(),
        [Some(first), Some(usage())]
    );
});

rule!(each_attempt_shows_its_host_its_component_and_how_it_ended, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let old = host_of(world, "inn-1", "sha256:01d").await;
    let id = world.enqueue("j").await;
    let released = world.claim_one(old).await;
    world.record(old, released.finish(Outcome::Released)).await;
    let failed = world.claim_one(old).await;
    world.clock.advance(Duration::from_secs(2));
    world.record(old, with(&usage(), failure(&failed))).await;
    world.clock.advance(Duration::from_secs(10));
    world.store.plan(10).await.unwrap();
    let new = host_of(world, "inn-2", "sha256:4e3").await;
    let crashed = world.claim_one(new).await;
    world.crash_all().await;
    world.clock.advance(Duration::from_secs(10));
    world.store.plan(10).await.unwrap();
    let new = host_of(world, "inn-2", "sha256:4e3").await;
    let running = world.claim_one(new).await;
    assert_eq!(world.state(id).await, State::Running);

    let attempts = world.store.attempts(id, 10).await.unwrap();
    let leases: Vec<_> = attempts.iter().map(|attempt| attempt.lease).collect();
    assert_eq!(leases, [released.lease, failed.lease, crashed.lease, running.lease]);
    let ends: Vec<_> = attempts.iter().map(|attempt| attempt.outcome).collect();
    let (released, failed) = (Some(AttemptOutcome::Released), Some(AttemptOutcome::Failed));
    assert_eq!(ends, [released, failed, failed, None]);
    let numbers: Vec<_> = attempts.iter().map(|attempt| attempt.attempt).collect();
    assert_eq!(numbers, [1, 1, 2, 3]);
    let ran: Vec<_> = attempts.iter().map(|a| (a.host.as_deref(), a.component_digest.as_deref())).collect();
    let (old, new) = ((Some("inn-1"), Some("sha256:01d")), (Some("inn-2"), Some("sha256:4e3")));
    assert_eq!(ran, [old, old, new, new]);
    let took = |at: usize| attempts[at].finished_at.map(|end| end.duration_since(attempts[at].started_at));
    assert_eq!(took(1).map(|took| took.as_secs()), Some(2));
    assert_eq!((took(3), attempts[1].usage.clone(), attempts[2].usage.clone()), (None, Some(usage()), None));
    assert_eq!(attempts[1].error.as_ref().map(|error| error.message.as_str()), Some("the disk is full"));
});

rule!(of_very_many_attempts_the_newest_are_shown_the_oldest_of_them_first, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let session = world.host("inn-1").await;
    let id = world.enqueue("j").await;
    let mut leases = Vec::new();
    for _ in 0..4 {
        let attempt = world.claim_one(session).await;
        leases.push(attempt.lease);
        world.record(session, attempt.finish(Outcome::Released)).await;
    }
    let attempts = world.store.attempts(id, 3).await.unwrap();
    assert_eq!(attempts.iter().map(|attempt| attempt.lease).collect::<Vec<_>>(), leases[1..]);
    assert_eq!(world.store.attempts(Uuid::nil(), 3).await.unwrap(), []);
});

rule!(
    a_completion_that_is_sent_again_after_its_answer_was_lost_keeps_what_was_used,
    async |world: &World| {
        let (session, attempt) = world.running().await;
        for _ in 0..2 {
            world.record(session, with(&usage(), success(&attempt))).await;
        }
        assert_eq!(world.execution(attempt.execution).await.usage, Some(usage()));
        assert_eq!(world.count("stale", "true").await, 0);
    }
);
