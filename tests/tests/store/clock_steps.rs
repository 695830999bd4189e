//! The clock is set.

use std::time::Duration;

use innkeeper::job::Job;
use innkeeper::policy::{CatchUp, CatchUpMode, Policies, Rate};
use innkeeper::store::NewExecution;
use innkeeper_tests::clock::instant;

use crate::rule;
use crate::world::{TTL, World, by_hand, every, failure, job, name};

rule!(a_clock_that_is_set_forward_and_back_neither_floods_nor_silences, async |world: &World| {
    world.jobs(&[every("j", 3_600)]).await;
    world.clock.set("2026-03-11T12:30:00Z");
    assert_eq!(world.store.plan(10).await.unwrap().fired.len(), 1, "the latest, of ten days");
    world.clock.set("2026-03-01T12:30:00Z");
    assert_eq!(world.store.turn_back().await.unwrap(), 1);
    let next = world.store.job(&name("j")).await.unwrap().next_fire_at;
    assert_eq!(next, Some(instant("2026-03-01T13:00:00Z")));
    // It goes on, without a second execution of any time; the first of a range stays skipped.
    world.clock.set("2026-03-01T13:00:00Z");
    assert_eq!(world.store.plan(10).await.unwrap().fired, []);
    world.clock.set("2026-03-01T14:00:00Z");
    let fired = world.store.plan(10).await.unwrap().fired;
    assert_eq!(fired[0].fire_time, instant("2026-03-01T14:00:00Z"));
    world.clock.set("2026-03-11T12:00:00Z");
    assert_eq!(world.store.plan(10).await.unwrap().fired, [], "it has run");
    let twice = "select count(fire_time) - count(distinct fire_time) from {}execution";
    assert_eq!(world.scalar(twice).await, 0);
    let next = world.store.job(&name("j")).await.unwrap().next_fire_at;
    assert_eq!(next, Some(instant("2026-03-11T13:00:00Z")));
});

rule!(all_runs_its_number_at_most_when_the_clock_is_set_forward, async |world: &World| {
    let catch_up = CatchUp { mode: CatchUpMode::All, window: None, max: 3 };
    world.jobs(&[Job { policies: Policies { catch_up, ..Policies::default() }, ..every("j", 60) }]).await;
    world.clock.set("2026-03-11T12:30:30Z");
    assert_eq!(world.store.plan(10).await.unwrap().fired.len(), 4, "three that were missed, one on time");
});

rule!(jobs_that_are_not_too_late_are_left_as_they_are, async |world: &World| {
    world.jobs(&[every("j", 3_600), every("k", 60)]).await;
    world.clock.set("2026-03-01T12:59:30Z");
    world.store.plan(10).await.unwrap();
    world.clock.set("2026-03-01T12:30:00Z");
    assert_eq!(world.store.turn_back().await.unwrap(), 1, "an hourly one is still right");
});

rule!(a_paused_job_is_turned_back_as_well, async |world: &World| {
    world.jobs(&[every("j", 3_600)]).await;
    world.set_next_fire("j", "2026-03-11T13:00:00Z").await;
    world.store.pause_job(&name("j"), None).await.unwrap();
    assert_eq!(world.store.turn_back().await.unwrap(), 1);
    world.clock.set("2026-03-01T13:30:00Z");
    assert_eq!(world.store.resume_job(&name("j")).await.unwrap().skipped, 1);
});

rule!(a_host_that_died_while_the_clock_was_ahead_is_found_once_it_is_set_back, async |world: &World| {
    world.clock.set("2026-03-11T12:00:00Z");
    let (_, attempt) = world.running().await;
    world.clock.set("2026-03-01T12:00:00Z");
    world.store.turn_back().await.unwrap();
    assert_eq!(world.store.rescue(10, &[]).await.unwrap(), [], "it may live");
    world.clock.advance(TTL);
    let rescued = world.store.rescue(10, &[]).await.unwrap();
    assert_eq!(rescued.len(), 1);
    assert_eq!(rescued[0].execution, attempt.execution);
});

rule!(a_retry_waits_no_longer_once_the_clock_is_set_back, async |world: &World| {
    world.clock.set("2026-03-11T12:00:00Z");
    let (session, attempt) = world.running().await;
    world.record(session, failure(&attempt)).await;
    world.clock.set("2026-03-01T12:00:00Z");
    world.store.turn_back().await.unwrap();
    assert_eq!(world.store.plan(10).await.unwrap().next_due, Some(Duration::from_secs(10)));
    world.store.turn_back().await.unwrap();
    assert_eq!(world.store.plan(10).await.unwrap().next_due, Some(Duration::from_secs(10)), "not twice");
    world.clock.advance(Duration::from_secs(10));
    assert_eq!(world.store.plan(10).await.unwrap().promoted, 1);
});

rule!(a_time_that_was_asked_for_stays_when_the_clock_is_set_back, async |world: &World| {
    world.jobs(&[job("j")]).await;
    world.clock.set("2026-03-11T12:00:00Z");
    let run_at = Some(instant("2026-03-12T12:00:00Z"));
    world.store.enqueue(&NewExecution { run_at, ..by_hand(&name("j")) }).await.unwrap();
    world.clock.set("2026-03-11T11:00:00Z");
    world.store.turn_back().await.unwrap();
    assert_eq!(world.store.plan(10).await.unwrap().next_due, Some(Duration::from_secs(25 * 3_600)));
});

rule!(a_rate_counts_no_start_of_the_future_once_the_clock_is_set_back, async |world: &World| {
    let rate = Some(Rate { count: 1, period: Duration::from_secs(60) });
    let policies = Policies { rate, ..Policies::default() };
    world.clock.set("2026-03-11T12:00:00Z");
    world.jobs(&[Job { policies, ..job("j") }]).await;
    let session = world.host("inn-1").await;
    world.enqueue("j").await;
    world.enqueue("j").await;
    world.store.plan(10).await.unwrap();
    world.claim_one(session).await;
    world.clock.set("2026-03-01T12:00:00Z");
    world.store.turn_back().await.unwrap();
    world.store.plan(10).await.unwrap();
    assert_eq!(world.count("ready", "true").await, 0, "it has just started one");
    world.clock.advance(Duration::from_secs(60));
    world.store.plan(10).await.unwrap();
    assert_eq!(world.count("ready", "true").await, 1);
});

rule!(a_host_that_starts_finds_who_died_before_the_clock_was_set_back, async |world: &World| {
    world.clock.set("2026-03-11T12:00:00Z");
    world.running().await;
    world.clock.set("2026-03-01T12:00:00Z");
    world.store.turn_back_what_waits().await.unwrap();
    world.clock.advance(TTL);
    assert_eq!(world.store.rescue(10, &[]).await.unwrap().len(), 1);
});

rule!(a_host_that_starts_turns_back_its_own_jobs, async |world: &World| {
    world.jobs(&[every("j", 3_600)]).await;
    world.clock.set("2026-03-11T12:30:00Z");
    world.store.plan(10).await.unwrap();
    world.clock.set("2026-03-01T12:30:00Z");
    world.jobs(&[every("j", 3_600)]).await;
    let next = world.store.job(&name("j")).await.unwrap().next_fire_at;
    assert_eq!(next, Some(instant("2026-03-01T13:00:00Z")));
});

rule!(many_jobs_are_turned_back_in_several_rounds, async |world: &World| {
    let jobs: Vec<Job> = (0..2_100).map(|number| every(&format!("j{number}"), 3_600)).collect();
    world.jobs(&jobs).await;
    let later = match world.database.engine() {
        innkeeper_tests::database::Engine::Sqlite => "next_fire_at + 86400000000",
        innkeeper_tests::database::Engine::Postgres => "next_fire_at + interval '1 day'",
    };
    world.tamper(&format!("update {{}}job set next_fire_at = {later}")).await;
    assert_eq!(world.store.turn_back().await.unwrap(), 2_100);
    world.clock.advance(Duration::from_secs(3_600));
    assert_eq!(world.store.plan(500).await.unwrap().fired.len(), 500);
});
