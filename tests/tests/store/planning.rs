//! Fire times and waits.

use std::time::Duration;

use innkeeper::execution::{State, Trigger};
use innkeeper::job::Job;
use innkeeper_tests::clock::instant;
use innkeeper_tests::database::Engine;

use crate::rule;
use crate::world::{World, every, job, name};

rule!(a_due_job_becomes_one_execution_and_its_fire_time_moves_on, async |world: &World| {
    world.jobs(&[every("j", 60)]).await;
    assert_eq!(world.store.plan(10).await.unwrap().fired, []);
    world.clock.advance(Duration::from_secs(60));
    let planned = world.store.plan(10).await.unwrap();
    assert_eq!(planned.fired.len(), 1);
    assert_eq!(planned.fired[0].fire_time, instant("2026-03-01T12:01:00Z"));
    assert_eq!(planned.next_due, Some(Duration::from_secs(60)));
    let execution = world.execution(planned.fired[0].execution).await;
    assert_eq!(execution.state, State::Queued);
    assert_eq!(execution.triggered_by, Trigger::Schedule);
    assert_eq!(execution.scheduled_at, instant("2026-03-01T12:01:00Z"));
    assert_eq!(execution.args, job("j").args);
    assert_eq!(world.store.plan(10).await.unwrap().fired, []);
});

rule!(of_fire_times_that_were_missed_the_latest_runs, async |world: &World| {
    world.jobs(&[every("j", 60)]).await;
    world.clock.advance(Duration::from_secs(3 * 3600 + 30));
    let planned = world.store.plan(10).await.unwrap();
    let fired: Vec<_> = planned.fired.iter().map(|fired| fired.fire_time).collect();
    assert_eq!(fired, [instant("2026-03-01T15:00:00Z")]);
    assert_eq!(planned.next_due, Some(Duration::from_secs(30)));
});

rule!(many_planners_at_once_never_make_two_executions_of_one_fire_time, async |world: &World| {
    let jobs: Vec<Job> = (0..20).map(|number| every(&format!("j{number}"), 60)).collect();
    world.jobs(&jobs).await;
    world.clock.advance(Duration::from_secs(60));
    let mut planners = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let store = world.another_store(1).await;
        planners.spawn(async move { store.plan(7).await.unwrap().fired.len() });
    }
    let mut fired: usize = planners.join_all().await.into_iter().sum();
    while let more @ 1.. = world.store.plan(7).await.unwrap().fired.len() {
        fired += more;
    }
    assert_eq!(fired, 20);
    assert_eq!(world.count("execution", "true").await, 20);
    assert_eq!(world.count("ready", "true").await, 20);
});

rule!(a_planner_passes_by_a_job_that_another_has_in_its_hands, async |world: &World| {
    if world.database.engine() == Engine::Sqlite {
        // It has one writer: planners come one after the other.
        return;
    }
    world.jobs(&[every("a", 60), every("b", 60)]).await;
    world.clock.advance(Duration::from_secs(60));
    let hands = world.hold("begin; select 1 from {}job where name = 'a' for no key update").await;
    let planned = world.store.plan(10).await.unwrap();
    assert_eq!(planned.fired.iter().map(|fired| fired.job.as_str()).collect::<Vec<_>>(), ["b"]);
    // What is left is due, but not a reason to ask again without a pause.
    let again = world.store.plan(10).await.unwrap().next_due;
    assert!(again.is_some_and(|wait| !wait.is_zero()), "{again:?}");
    drop(hands);
});

rule!(a_fire_time_that_has_its_execution_already_makes_no_second_one, async |world: &World| {
    world.jobs(&[every("j", 60)]).await;
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(world.store.plan(10).await.unwrap().fired.len(), 1);
    // As after a restored backup of the job alone.
    let back = match world.database.engine() {
        Engine::Sqlite => "next_fire_at - 60000000",
        Engine::Postgres => "next_fire_at - interval '60 seconds'",
    };
    world.tamper(&format!("update {{}}job set next_fire_at = {back}")).await;
    assert_eq!(world.store.plan(10).await.unwrap().fired, []);
    assert_eq!(world.count("execution", "true").await, 1);
    let next = world.store.job(&name("j")).await.unwrap().next_fire_at;
    assert_eq!(next, Some(instant("2026-03-01T12:02:00Z")));
});

rule!(jobs_that_are_disabled_paused_or_retired_do_not_fire, async |world: &World| {
    let jobs = [Job { enabled: false, ..every("disabled", 60) }, every("paused", 60), every("retired", 60)];
    world.jobs(&jobs).await;
    world.jobs(&jobs[..2]).await;
    let now = match world.database.engine() {
        Engine::Sqlite => "0",
        Engine::Postgres => "now()",
    };
    world.tamper(&format!("update {{}}job set paused_at = {now} where name = 'paused'")).await;
    world.clock.advance(Duration::from_secs(600));
    let planned = world.store.plan(10).await.unwrap();
    assert_eq!((planned.fired.len(), planned.next_due), (0, None));
});

rule!(a_planner_that_reached_its_limit_goes_on_at_once, async |world: &World| {
    world.jobs(&[every("a", 60), every("b", 60), every("c", 60)]).await;
    world.clock.advance(Duration::from_secs(60));
    let planned = world.store.plan(2).await.unwrap();
    assert_eq!((planned.fired.len(), planned.next_due), (2, Some(Duration::ZERO)));
    let planned = world.store.plan(2).await.unwrap();
    assert_eq!((planned.fired.len(), planned.next_due), (1, Some(Duration::from_secs(60))));
});

rule!(a_definition_that_cannot_be_read_does_not_hold_up_other_jobs, async |world: &World| {
    world.jobs(&[every("a", 60), every("b", 60)]).await;
    world.tamper("update {}job set spec = '{\"from\": \"the future\"}' where name = 'a'").await;
    world.clock.advance(Duration::from_secs(60));
    let planned = world.store.plan(10).await.unwrap();
    assert_eq!(planned.fired.iter().map(|fired| fired.job.as_str()).collect::<Vec<_>>(), ["b"]);
});

rule!(waits_that_are_over_end_in_batches_the_earliest_first, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let j = name("j");
    let mut executions = Vec::new();
    for seconds in [30, 10, 20] {
        let run_at = Some(world.clock.now() + Duration::from_secs(seconds));
        let new = innkeeper::store::NewExecution { run_at, ..crate::world::by_hand(&j) };
        executions.push(world.store.enqueue(&new).await.unwrap().id);
    }
    assert_eq!(world.state(executions[0]).await, State::Scheduled);
    assert_eq!(world.store.plan(10).await.unwrap().next_due, Some(Duration::from_secs(10)));
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(world.store.plan(2).await.unwrap().promoted, 2);
    let session = world.host("inn-1").await;
    let claimed = world.store.claim(session, 10).await.unwrap();
    let claimed: Vec<_> = claimed.iter().map(|attempt| attempt.execution).collect();
    assert_eq!(claimed, [executions[1], executions[2]]);
    assert_eq!(world.store.plan(2).await.unwrap().promoted, 1);
    assert_eq!(world.count("waiting", "true").await, 0);
});
