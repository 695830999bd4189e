//! What a running handler leaves behind.

use innkeeper::execution::{LogLevel, LogLine, Progress};
use innkeeper::execution::{State, Trigger};
use innkeeper::store::{LogPosition, NewExecution, StoreError};
use innkeeper_tests::clock::instant;
use serde_json::json;

use crate::rule;
use crate::world::{World, by_hand, failure, holder, name, success};

fn line(message: &str) -> LogLine {
    LogLine {
        at: instant("2026-03-01T12:00:00.123456Z"),
        level: LogLevel::Warn,
        message: message.into(),
        fields: [("n".to_owned(), json!(1))].into_iter().collect(),
    }
}

rule!(log_lines_come_back_in_the_order_of_writing_with_their_attempts, async |world: &World| {
    let (session, first) = world.running().await;
    world.store.append_log(holder(session, &first), &[line("a"), line("b\u{0}c")]).await.unwrap();
    world.store.append_log(holder(session, &first), &[line("d")]).await.unwrap();
    world.record(session, failure(&first)).await;
    world.clock.advance(std::time::Duration::from_secs(10));
    world.store.plan(10).await.unwrap();
    let second = world.claim_one(session).await;
    world.store.append_log(holder(session, &second), &[line("e")]).await.unwrap();

    let logs = world.store.logs(first.execution).await.unwrap();
    let shown: Vec<_> = logs.iter().map(|log| (log.attempt, log.seq, log.line.message.as_str())).collect();
    assert_eq!(shown, [(1, 1, "a"), (1, 2, "b\u{fffd}c"), (1, 3, "d"), (2, 1, "e")]);
    assert_eq!(logs[0].line, line("a"));
});

rule!(a_log_is_read_in_pages_over_all_attempts, async |world: &World| {
    let (session, first) = world.running().await;
    world.store.append_log(holder(session, &first), &[line("a"), line("b"), line("c")]).await.unwrap();
    world.record(session, failure(&first)).await;
    world.clock.advance(std::time::Duration::from_secs(10));
    world.store.plan(10).await.unwrap();
    let second = world.claim_one(session).await;
    world.store.append_log(holder(session, &second), &[line("d")]).await.unwrap();

    let id = first.execution;
    let mut position = LogPosition::default();
    let mut pages = Vec::new();
    loop {
        let page = world.store.logs_after(id, position, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        position = last.position();
        pages.push(page.into_iter().map(|log| log.line.message).collect::<Vec<_>>());
    }
    assert_eq!(pages, [["a", "b"], ["c", "d"]]);
    world.store.append_log(holder(session, &second), &[line("e")]).await.unwrap();
    let page = world.store.logs_after(id, position, 2).await.unwrap();
    assert_eq!(page.iter().map(|log| log.line.message.as_str()).collect::<Vec<_>>(), ["e"], "as it grows");
});

rule!(lines_written_at_once_are_all_kept, async |world: &World| {
    let (session, attempt) = world.running().await;
    let holder = holder(session, &attempt);
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..6 {
        let store = world.another_store(1).await;
        writers.spawn(async move { store.append_log(holder, &[line(&number.to_string())]).await.unwrap() });
    }
    writers.join_all().await;
    let logs = world.store.logs(attempt.execution).await.unwrap();
    assert_eq!(logs.iter().map(|log| log.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
});

rule!(progress_is_the_latest_that_was_said, async |world: &World| {
    let (session, attempt) = world.running().await;
    let mut progress = Progress { done: 1, total: Some(10), message: Some("one\u{0}".into()) };
    world.store.save_progress(holder(session, &attempt), &progress).await.unwrap();
    progress = Progress { done: 5, total: None, message: None };
    world.store.save_progress(holder(session, &attempt), &progress).await.unwrap();
    assert_eq!(world.execution(attempt.execution).await.progress, Some(progress));
    let any = Progress { done: u64::MAX, total: Some(u64::MAX), message: None };
    world.store.save_progress(holder(session, &attempt), &any).await.unwrap();
});

rule!(a_checkpoint_is_there_for_the_next_attempt, async |world: &World| {
    let (session, attempt) = world.running().await;
    for page in [3, 4] {
        let state = json!({ "page": page });
        world.store.save_checkpoint(holder(session, &attempt), &state).await.unwrap();
    }
    world.record(session, failure(&attempt)).await;
    world.clock.advance(std::time::Duration::from_secs(10));
    world.store.plan(10).await.unwrap();
    assert_eq!(world.claim_one(session).await.checkpoint, Some(json!({ "page": 4 })));
});

rule!(a_handler_enqueues_on_behalf_of_its_attempt, async |world: &World| {
    let (session, attempt) = world.running().await;
    let j = name("j");
    let new =
        NewExecution { triggered_by: Trigger::Handler, by: Some(holder(session, &attempt)), ..by_hand(&j) };
    let id = world.store.enqueue(&new).await.unwrap().id;
    let execution = world.execution(id).await;
    assert_eq!((execution.state, execution.triggered_by), (State::Queued, Trigger::Handler));
});

rule!(nothing_is_recorded_for_an_attempt_that_is_over_but_that_it_was_tried, async |world: &World| {
    let (session, attempt) = world.running().await;
    let holder = holder(session, &attempt);
    world.record(session, success(&attempt)).await;
    refuses_all(world, holder, 1).await;
});

rule!(nothing_is_recorded_for_a_dead_session_but_that_it_was_tried, async |world: &World| {
    let (session, attempt) = world.running().await;
    world.crash_all().await;
    refuses_all(world, holder(session, &attempt), 1).await;
});

async fn refuses_all(world: &World, holder: innkeeper::store::Holder, times: i64) {
    let j = name("j");
    let new = NewExecution { by: Some(holder), ..by_hand(&j) };
    let progress = Progress { done: 1, total: None, message: None };
    let refused = [
        ("log", world.store.append_log(holder, &[line("late")]).await),
        ("progress", world.store.save_progress(holder, &progress).await),
        ("checkpoint", world.store.save_checkpoint(holder, &json!(1)).await),
        ("enqueue", world.store.enqueue(&new).await.map(drop)),
    ];
    for (kind, result) in refused {
        assert!(matches!(result, Err(StoreError::LeaseLost { .. })), "{kind}: {result:?}");
        assert_eq!(world.count("stale", &format!("kind = '{kind}'")).await, times, "{kind}");
    }
    for table in ["log", "progress", "checkpoint"] {
        assert_eq!(world.count(table, "true").await, 0, "{table}");
    }
    assert_eq!(world.count("execution", "true").await, 1);
}
