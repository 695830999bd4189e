//! Fires that were missed: each is run, or on record as skipped.

use std::time::Duration;

use innkeeper::execution::{FailureKind, State, Trigger};
use innkeeper::job::Job;
use innkeeper::policy::{CatchUp, CatchUpMode, Policies};
use innkeeper_tests::clock::instant;
use serde_json::json;

use crate::rule;
use crate::world::{World, every, name};

fn hourly(mode: CatchUpMode, window: Option<u64>, max: u32) -> Job {
    let catch_up = CatchUp { mode, window: window.map(Duration::from_secs), max };
    Job { policies: Policies { catch_up, ..Policies::default() }, ..every("j", 3_600) }
}

/// The times of the executions in a state, the earliest first.
async fn times(world: &World, state: State) -> Vec<String> {
    let mut times = Vec::new();
    for id in world.list(Some("j"), Some(state)).await {
        times.push(world.execution(id).await.scheduled_at.to_string());
    }
    times.reverse();
    times
}

rule!(none_records_what_was_missed_and_runs_nothing_of_it, async |world: &World| {
    world.jobs(&[hourly(CatchUpMode::None, None, 1)]).await;
    world.clock.advance(Duration::from_secs(3 * 3_600 + 120));
    let planned = world.store.plan(10).await.unwrap();
    assert_eq!((planned.fired, planned.skipped), (vec![], 3));
    assert_eq!(planned.next_due, Some(Duration::from_secs(3_600 - 120)));
    let skipped = times(world, State::Skipped).await;
    assert_eq!(skipped, ["2026-03-01T13:00:00Z", "2026-03-01T14:00:00Z", "2026-03-01T15:00:00Z"]);
});

rule!(latest_runs_one_and_records_the_others, async |world: &World| {
    world.jobs(&[hourly(CatchUpMode::Latest, None, 1)]).await;
    world.clock.advance(Duration::from_secs(3 * 3_600 + 120));
    assert_eq!(world.store.plan(10).await.unwrap().fired.len(), 1);
    assert_eq!(times(world, State::Queued).await, ["2026-03-01T15:00:00Z"]);
    assert_eq!(times(world, State::Skipped).await, ["2026-03-01T13:00:00Z", "2026-03-01T14:00:00Z"]);
    assert_eq!(world.store.plan(10).await.unwrap().skipped, 0);
});

rule!(all_runs_the_newest_in_their_order_and_records_the_others, async |world: &World| {
    world.jobs(&[hourly(CatchUpMode::All, None, 2)]).await;
    world.clock.advance(Duration::from_secs(3 * 3_600 + 120));
    let fired = world.store.plan(10).await.unwrap().fired;
    let fired: Vec<_> = fired.iter().map(|fired| fired.fire_time).collect();
    assert_eq!(fired, [instant("2026-03-01T14:00:00Z"), instant("2026-03-01T15:00:00Z")]);
    assert_eq!(times(world, State::Skipped).await, ["2026-03-01T13:00:00Z"]);
    let session = world.host("inn-1").await;
    let claimed = world.store.claim(session, 10).await.unwrap();
    let claimed: Vec<_> = claimed.iter().map(|attempt| attempt.scheduled_at).collect();
    assert_eq!(claimed, fired);
});

rule!(a_skipped_fire_says_why_and_never_started, async |world: &World| {
    world.jobs(&[hourly(CatchUpMode::Latest, Some(60), 1)]).await;
    world.clock.advance(Duration::from_secs(3_600 + 120));
    assert_eq!(world.store.plan(10).await.unwrap().fired, []);
    let skipped = world.execution(world.list(Some("j"), Some(State::Skipped)).await[0]).await;
    let error = skipped.error.unwrap();
    assert_eq!(error.kind, FailureKind::Skipped);
    assert!(
        error.message.contains("only the latest is run, where it is at most 1m late"),
        "{}",
        error.message
    );
    assert_eq!(
        (skipped.state, skipped.triggered_by, skipped.attempt),
        (State::Skipped, Trigger::Schedule, 0)
    );
    assert_eq!((skipped.started_at, skipped.finished_at), (None, Some(world.clock.now())));
    assert_eq!(skipped.result, None);
    assert_eq!(world.count("completion", "lease = 0").await, 1);
    assert_eq!(world.count("ready", "true").await + world.count("waiting", "true").await, 0);
});

rule!(a_year_without_a_host_is_one_run_a_hundred_records_and_a_range, async |world: &World| {
    let job = every("j", 10);
    world.jobs(std::slice::from_ref(&job)).await;
    world.clock.advance(Duration::from_secs(365 * 86_400));
    let planned = world.store.plan(10).await.unwrap();
    assert_eq!((planned.fired.len(), planned.skipped), (1, 101));
    assert_eq!(world.count("execution", "true").await, 102);
    let skipped = world.list(Some("j"), Some(State::Skipped)).await;
    let range = world.list_all("j", State::Skipped).await.pop().unwrap();
    assert_eq!(skipped.len(), 100, "a page");
    assert_eq!(range.scheduled_at, instant("2026-03-01T12:00:10Z"));
    let result = range.result.unwrap();
    assert_eq!(
        result,
        json!({ "first": "2026-03-01T12:00:10Z", "last": "2027-03-01T11:43:10Z", "fires": null })
    );
    let message = range.error.unwrap().message;
    assert!(message.contains("all fires from 2026-03-01T12:00:10Z to 2027-03-01T11:43:10Z"), "{message}");
});

rule!(a_few_hundred_fires_that_were_missed_are_counted, async |world: &World| {
    world.jobs(&[every("j", 60)]).await;
    world.clock.advance(Duration::from_secs(5 * 3_600));
    world.store.plan(10).await.unwrap();
    let range = world.list_all("j", State::Skipped).await.pop().unwrap();
    assert_eq!(range.result.unwrap()["fires"], json!(199));
});

rule!(a_range_is_recorded_although_its_first_fire_has_run, async |world: &World| {
    world.jobs(&[every("j", 60)]).await;
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(world.store.plan(10).await.unwrap().fired.len(), 1);
    world.clock.advance(Duration::from_secs(5 * 3_600));
    // As after a restored backup of the job alone.
    world.set_next_fire("j", "2026-03-01T12:01:00Z").await;
    world.store.plan(10).await.unwrap();
    assert_eq!(world.list_all("j", State::Skipped).await.pop().unwrap().result.unwrap()["fires"], json!(200));
    assert_eq!(world.count("execution", "fire_time is not null").await, 102);
});

rule!(jobs_that_missed_much_are_caught_up_in_several_rounds, async |world: &World| {
    let jobs: Vec<Job> =
        (0..60).map(|number| Job { name: name(&format!("j{number}")), ..every("j", 60) }).collect();
    world.jobs(&jobs).await;
    world.clock.advance(Duration::from_secs(86_400));
    let planned = world.store.plan(100).await.unwrap();
    assert!(planned.fired.len() < 60, "{}", planned.fired.len());
    assert_eq!(planned.next_due, Some(Duration::ZERO));
    let mut fired = planned.fired.len();
    while let more @ 1.. = world.store.plan(100).await.unwrap().fired.len() {
        fired += more;
    }
    assert_eq!(fired, 60);
    assert_eq!(world.count("execution", "true").await, 60 * 102);
});
