//! A job is run for times that have passed.

use std::time::Duration;

use innkeeper::execution::{State, Trigger};
use innkeeper::job::Job;
use innkeeper::policy::{CatchUp, CatchUpMode, Policies};
use innkeeper::store::{BackfillFate, MOST_BACKFILLED, StoreError};
use innkeeper_tests::clock::instant;

use crate::rule;
use crate::world::{World, every, job, name, success};

rule!(each_time_of_the_period_gets_an_execution_that_may_start, async |world: &World| {
    world.jobs(&[every("j", 3_600)]).await;
    let (from, until) = (instant("2026-02-28T22:00:00Z"), instant("2026-03-01T01:00:00Z"));
    let preview = world.store.backfill_preview(&name("j"), from, until, false).await.unwrap();
    assert!(preview.iter().all(|(_, fate)| *fate == BackfillFate::Missing));
    assert_eq!(world.count("execution", "true").await, 0);
    let fates = world.store.backfill(&name("j"), from, until, false).await.unwrap();
    let times: Vec<String> = fates.iter().map(|(time, _)| time.to_string()).collect();
    assert_eq!(times, ["2026-02-28T22:00:00Z", "2026-02-28T23:00:00Z", "2026-03-01T00:00:00Z"]);
    let BackfillFate::Made(id) = fates[0].1 else { panic!("{fates:?}") };
    let execution = world.execution(id).await;
    assert_eq!((execution.state, execution.triggered_by), (State::Queued, Trigger::Backfill));
    assert_eq!(execution.scheduled_at, instant("2026-02-28T22:00:00Z"));
    assert_eq!(world.count("execution", "fire_time is null").await, 3);
    let session = world.host("inn-1").await;
    assert_eq!(world.store.claim(session, 10).await.unwrap().len(), 3);
});

rule!(what_has_succeeded_or_is_under_way_is_left_out_unless_it_is_wanted_again, async |world: &World| {
    let catch_up = CatchUp { mode: CatchUpMode::All, window: None, max: 2 };
    world.jobs(&[Job { policies: Policies { catch_up, ..Policies::default() }, ..every("j", 3_600) }]).await;
    world.clock.advance(Duration::from_secs(3 * 3_600 + 120));
    let fired = world.store.plan(10).await.unwrap().fired;
    assert_eq!(fired.len(), 2, "one was skipped");
    let session = world.host("inn-1").await;
    let attempts = world.store.claim(session, 1).await.unwrap();
    world.record(session, success(&attempts[0])).await;
    let (from, until) = (instant("2026-03-01T12:00:00Z"), world.clock.now());
    let backfill = async |again| {
        let fates = world.store.backfill(&name("j"), from, until, again).await.unwrap();
        fates.into_iter().map(|(_, fate)| fate).collect::<Vec<_>>()
    };
    let fates = backfill(false).await;
    let succeeded = BackfillFate::Succeeded(fired[0].execution);
    let unfinished = BackfillFate::Unfinished(fired[1].execution);
    assert!(
        matches!(fates[0], BackfillFate::Made(_)) && matches!(fates[1], BackfillFate::Made(_)),
        "{fates:?}"
    );
    assert_eq!(fates[2..], [succeeded, unfinished]);
    // The second time the first is under way by the backfill itself.
    let fates = backfill(false).await;
    assert!(fates[..2].iter().all(|fate| matches!(fate, BackfillFate::Unfinished(_))), "{fates:?}");
    let fates = backfill(true).await;
    assert!(fates.iter().all(|fate| matches!(fate, BackfillFate::Made(_))), "{fates:?}");
});

rule!(two_backfills_at_once_make_each_time_once, async |world: &World| {
    world.jobs(&[every("j", 60)]).await;
    let (from, until) = (instant("2026-03-01T10:00:00Z"), instant("2026-03-01T11:00:00Z"));
    let mut operators = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let store = world.another_store(1).await;
        operators.spawn(async move { store.backfill(&name("j"), from, until, false).await.unwrap() });
    }
    operators.join_all().await;
    assert_eq!(world.count("execution", "true").await, 60);
});

rule!(a_backfill_of_a_paused_job_waits, async |world: &World| {
    world.jobs(&[every("j", 3_600)]).await;
    world.store.pause_job(&name("j"), None).await.unwrap();
    let (from, until) = (instant("2026-03-01T10:00:00Z"), instant("2026-03-01T12:00:00Z"));
    world.store.backfill(&name("j"), from, until, false).await.unwrap();
    assert_eq!(world.count("waiting", "blocker = 'paused'").await, 2);
});

rule!(a_period_that_cannot_be_backfilled_is_refused_with_what_to_do, async |world: &World| {
    world.jobs(&[every("often", 1), job("never"), job("gone")]).await;
    world.jobs(&[every("often", 1), job("never")]).await;
    let refusal = async |job: &str, from: &str, until: &str| {
        let refused = world.store.backfill(&name(job), instant(from), instant(until), false).await;
        assert_eq!(world.count("execution", "true").await, 0);
        refused.unwrap_err()
    };
    let day = "2026-02-28T00:00:00Z";
    let much = refusal("often", "2026-02-27T00:00:00Z", day).await.to_string();
    assert!(much.contains(&format!("more than {MOST_BACKFILLED} times")), "{much}");
    assert!(much.contains("until 2026-02-27T02:46:40Z"), "{much}");
    let future = refusal("often", day, "2026-03-02T00:00:00Z").await.to_string();
    assert!(future.contains("beyond now") && future.contains("earlier `until`"), "{future}");
    let nothing = refusal("often", day, day).await.to_string();
    assert!(nothing.contains("covers no time"), "{nothing}");
    let unscheduled = refusal("never", "2026-02-27T00:00:00Z", day).await.to_string();
    assert!(
        unscheduled.contains("it has no schedule") && unscheduled.contains("job run never"),
        "{unscheduled}"
    );
    let retired = refusal("gone", "2026-02-27T00:00:00Z", day).await.to_string();
    assert!(retired.contains("retired"), "{retired}");
    assert!(matches!(refusal("gome", "2026-02-27T00:00:00Z", day).await, StoreError::UnknownJob { .. }));
});
