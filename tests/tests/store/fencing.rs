//! Sessions and leases: who was given up can change nothing any more.

use std::time::Duration;

use innkeeper::execution::{LogLevel, LogLine, Outcome, Progress, State, Trigger};
use innkeeper::store::{Holder, NewExecution, PhaseName, Recording, Store, StoreError, StoreOptions};
use innkeeper_tests::clock::instant;
use innkeeper_tests::database::Engine;
use serde_json::json;

use crate::rule;
use crate::world::{TTL, World, by_hand, failure, holder, job, name, success};

rule!(a_completion_after_a_rescue_changes_nothing_and_is_on_record_as_stale, async |world: &World| {
    let (session, attempt) = world.running().await;
    world.crash_all().await;
    assert_eq!(world.record(session, success(&attempt)).await, Recording::Stale);
    let execution = world.execution(attempt.execution).await;
    assert_eq!(execution.state, State::Retrying);
    assert_eq!(execution.result, None);
    assert_eq!(world.count("stale", "kind = 'completion'").await, 1);
    assert_eq!(world.count("completion", "true").await, 1);
});

rule!(a_completion_of_a_lease_that_another_session_holds_is_stale, async |world: &World| {
    let (session, attempt) = world.running().await;
    let other = world.host("inn-2").await;
    assert_eq!(world.record(other, success(&attempt)).await, Recording::Stale);
    assert_eq!(world.state(attempt.execution).await, State::Running);
    assert_eq!(world.record(session, success(&attempt)).await, Recording::Recorded);
});

rule!(a_completion_of_a_lease_that_never_was_is_stale, async |world: &World| {
    let (session, attempt) = world.running().await;
    let mut completion = success(&attempt);
    completion.lease += 1000;
    assert_eq!(world.record(session, completion).await, Recording::Stale);
    assert_eq!(world.state(attempt.execution).await, State::Running);
});

rule!(what_a_late_host_sends_changes_nothing_of_the_attempt_that_another_one_runs, async |world: &World| {
    let (session, first) = world.running().await;
    let late = holder(session, &first);
    world.store.append_log(late, &[line("first")]).await.unwrap();
    world.crash_all().await;
    world.clock.advance(Duration::from_secs(10));
    world.store.plan(10).await.unwrap();
    let other = world.host("inn-2").await;
    let second = world.claim_one(other).await;
    let live = holder(other, &second);
    world.store.append_log(live, &[line("second")]).await.unwrap();
    world.store.save_progress(live, &progress(5)).await.unwrap();
    world.store.save_checkpoint(live, &json!("second")).await.unwrap();

    for kind in KINDS {
        let sent = send(&world.store, late, kind).await;
        assert!(matches!(sent, Err(StoreError::LeaseLost { .. })), "{kind}: {sent:?}");
        assert_eq!(world.count("stale", &stale(kind, first.lease)).await, 1, "{kind}");
    }
    assert_eq!(world.record(session, success(&first)).await, Recording::Stale);
    assert_eq!(world.count("stale", &stale("completion", first.lease)).await, 1);

    let execution = world.execution(second.execution).await;
    assert_eq!((execution.state, execution.attempt), (State::Running, 2));
    assert_eq!(execution.progress, Some(progress(5)));
    let logs = world.store.logs(second.execution).await.unwrap();
    assert_eq!(logs.iter().map(|log| log.line.message.as_str()).collect::<Vec<_>>(), ["first", "second"]);
    assert_eq!(world.count("checkpoint", &format!("lease = {}", second.lease)).await, 1);
    assert_eq!(world.count("execution", "true").await, 1, "nothing was enqueued");
    assert_eq!(world.count("waiting", "true").await + world.count("ready", "true").await, 0);
    assert_eq!(world.record(other, failure(&second)).await, Recording::Recorded);
    world.clock.advance(Duration::from_secs(1_000));
    world.store.plan(10).await.unwrap();
    assert_eq!(world.claim_one(other).await.checkpoint, Some(json!("second")));
});

rule!(what_a_handler_sends_waits_for_a_rescue_under_way_and_is_then_stale, async |world: &World| {
    let (session, attempt) = world.running().await;
    let late = holder(session, &attempt);
    let rescue = world.half_a_rescue(session).await;
    let mut sending = tokio::task::JoinSet::new();
    for kind in KINDS {
        let store = world.another_store(1).await;
        sending.spawn(async move { (kind, send(&store, late, kind).await) });
    }
    world.until_blocked(|| false).await;
    rescue.finish().await;
    for (kind, sent) in sending.join_all().await {
        assert!(matches!(sent, Err(StoreError::LeaseLost { .. })), "{kind}: {sent:?}");
        assert_eq!(world.count("stale", &stale(kind, attempt.lease)).await, 1, "{kind}");
    }
    for table in ["log", "progress", "checkpoint"] {
        assert_eq!(world.count(table, "true").await, 0, "{table}");
    }
    assert_eq!(world.count("execution", "true").await, 1, "nothing was enqueued");
});

/// What a handler can have its host write, besides its completion.
const KINDS: [&str; 4] = ["log", "progress", "checkpoint", "enqueue"];

/// Sends one of them, as on behalf of a handler.
async fn send(store: &Store, holder: Holder, kind: &str) -> Result<(), StoreError> {
    let j = name("j");
    match kind {
        "log" => store.append_log(holder, &[line("late")]).await,
        "progress" => store.save_progress(holder, &progress(1)).await,
        "checkpoint" => store.save_checkpoint(holder, &json!("late")).await,
        _ => {
            let new = NewExecution { triggered_by: Trigger::Handler, by: Some(holder), ..by_hand(&j) };
            store.enqueue(&new).await.map(drop)
        }
    }
}

fn line(message: &str) -> LogLine {
    let at = instant("2026-03-01T12:00:00Z");
    LogLine { at, level: LogLevel::Info, message: message.into(), fields: serde_json::Map::new() }
}

fn progress(done: u64) -> Progress {
    Progress { done, total: None, message: None }
}

fn stale(kind: &str, lease: i64) -> String {
    format!("kind = '{kind}' and lease = {lease}")
}

rule!(a_completion_whose_answer_was_lost_can_be_repeated, async |world: &World| {
    let (session, attempt) = world.running().await;
    for _ in 0..2 {
        assert_eq!(world.record(session, success(&attempt)).await, Recording::Recorded);
    }
    // Also after the session has ended: what counts is what is on record.
    world.crash_all().await;
    assert_eq!(world.record(session, success(&attempt)).await, Recording::Recorded);
    assert_eq!(world.count("completion", "true").await, 1);
    assert_eq!(world.count("stale", "true").await, 0);
});

rule!(a_second_completion_that_says_otherwise_is_stale, async |world: &World| {
    let (session, attempt) = world.running().await;
    world.record(session, success(&attempt)).await;
    assert_eq!(world.record(session, failure(&attempt)).await, Recording::Stale);
    assert_eq!(world.state(attempt.execution).await, State::Succeeded);
    assert_eq!(world.count("waiting", "true").await, 0);
});

rule!(a_dead_session_starts_nothing, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let session = world.host("inn-1").await;
    world.crash_all().await;
    let execution = world.enqueue("j").await;
    assert!(matches!(world.store.claim(session, 10).await, Err(StoreError::SessionLost)));
    assert_eq!(world.state(execution).await, State::Queued);
});

rule!(a_dead_session_cannot_be_renewed, async |world: &World| {
    let session = world.host("inn-1").await;
    world.crash_all().await;
    let renewed = world.store.heartbeat(session, TTL, None).await;
    assert!(matches!(renewed, Err(StoreError::SessionLost)), "{renewed:?}");
});

rule!(a_session_that_has_expired_but_was_not_yet_found_can_be_renewed, async |world: &World| {
    let (session, attempt) = world.running().await;
    world.clock.advance(TTL * 2);
    world.store.heartbeat(session, TTL, None).await.unwrap();
    assert_eq!(world.store.rescue(10, &[]).await.unwrap(), []);
    assert_eq!(world.record(session, success(&attempt)).await, Recording::Recorded);
});

rule!(a_lease_is_never_used_again, async |world: &World| {
    let (session, attempt) = world.running().await;
    world.record(session, attempt.finish(Outcome::Released)).await;
    // As a pruner would: SQLite gives a plain rowid out again.
    world.tamper("delete from {}completion; delete from {}start").await;
    assert!(world.claim_one(session).await.lease > attempt.lease);
});

rule!(a_start_under_way_is_not_missed_by_a_rescuer, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let session = world.host("inn-1").await;
    let execution = world.enqueue("j").await;
    let mut start = world.store.begin(PhaseName::Start).await.unwrap();
    assert_eq!(start.tx().start(session, 1).await.unwrap().len(), 1);
    world.clock.advance(TTL);
    let rescuer = world.another_store(1).await;
    let meanwhile = tokio::spawn(async move { rescuer.rescue(10, &[]).await.unwrap() });
    world.until_blocked(|| meanwhile.is_finished()).await;
    start.commit().await.unwrap();
    // The rescuer passed by, or waited; the next round sees what was committed.
    let mut rescued = meanwhile.await.unwrap();
    rescued.extend(world.store.rescue(10, &[]).await.unwrap());
    assert_eq!(rescued.iter().map(|rescued| rescued.execution).collect::<Vec<_>>(), [execution]);
    assert_eq!(world.state(execution).await, State::Retrying);
});

rule!(a_completion_waits_for_a_rescue_under_way_and_is_then_stale, async |world: &World| {
    let (session, attempt) = world.running().await;
    let rescue = world.half_a_rescue(session).await;
    let store = world.another_store(1).await;
    let completion = success(&attempt);
    let meanwhile = tokio::spawn(async move { store.record(session, &[completion]).await.unwrap() });
    world.until_blocked(|| meanwhile.is_finished()).await;
    rescue.finish().await;
    assert_eq!(meanwhile.await.unwrap(), [Recording::Stale]);
    assert_eq!(world.count("completion", "true").await, 0);
});

rule!(a_start_waits_for_a_rescue_under_way_and_is_then_refused, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let session = world.host("inn-1").await;
    world.enqueue("j").await;
    let rescue = world.half_a_rescue(session).await;
    let store = world.another_store(1).await;
    let meanwhile = tokio::spawn(async move { store.claim(session, 1).await });
    world.until_blocked(|| meanwhile.is_finished()).await;
    rescue.finish().await;
    assert!(matches!(meanwhile.await.unwrap(), Err(StoreError::SessionLost)));
    assert_eq!(world.count("start", "true").await, 0);
});

rule!(a_host_that_was_stopped_in_a_phase_does_not_keep_its_locks, async |world: &World| {
    if world.database.engine() == Engine::Sqlite {
        // Its lock is in this process, and no other host has any use for it.
        return;
    }
    let (session, attempt) = world.running().await;
    let idle_in_transaction_timeout = Duration::from_millis(50);
    let options = StoreOptions { idle_in_transaction_timeout, ..StoreOptions::default() };
    let stopped = Store::connect(world.database.url(), &options).await.unwrap();
    let mut phase = stopped.begin(PhaseName::Completion).await.unwrap();
    phase.tx().complete(session, &[success(&attempt)]).await.unwrap();
    world.clock.advance(TTL);
    let rescued = loop {
        let rescued = world.store.rescue(10, &[]).await.unwrap();
        if !rescued.is_empty() {
            break rescued;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(rescued[0].execution, attempt.execution);
    let late = phase.commit().await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
    assert_eq!(world.state(attempt.execution).await, State::Retrying);
});

rule!(a_phase_that_is_dropped_leaves_nothing_behind, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let session = world.host("inn-1").await;
    let execution = world.enqueue("j").await;
    // One connection: what comes next on it comes after the rollback.
    let store = world.another_store(1).await;
    let mut start = store.begin(PhaseName::Start).await.unwrap();
    assert_eq!(start.tx().start(session, 1).await.unwrap().len(), 1);
    drop(start);
    let attempts = store.claim(session, 10).await.unwrap();
    assert_eq!(attempts.iter().map(|attempt| attempt.execution).collect::<Vec<_>>(), [execution]);
    assert_eq!(attempts[0].attempt, 1);
});
