//! Jobs that are paused and resumed.

use std::time::Duration;

use innkeeper::execution::{Failure, FailureKind, Outcome, State};
use innkeeper::job::Job;
use innkeeper::policy::{After, Concurrency, Policies, Rate, When, WhenFull};
use innkeeper::schedule::{Schedule, Spec};
use innkeeper::store::{NewExecution, Resumed, StoreError};
use innkeeper_tests::clock::instant;
use innkeeper_tests::database::Engine;
use serde_json::json;

use crate::rule;
use crate::world::{World, by_hand, every, failure, job, name, success};

fn limited(job: Job) -> Job {
    let concurrency = Some(Concurrency { limit: Some(1), per_key: None, when_full: WhenFull::Queue });
    Job { policies: Policies { concurrency, ..Policies::default() }, ..job }
}

rule!(a_paused_job_does_not_fire_and_says_since_when_and_why, async |world: &World| {
    world.jobs(&[every("j", 60)]).await;
    assert!(world.store.pause_job(&name("j"), Some("the disk is full")).await.unwrap());
    let record = world.store.job(&name("j")).await.unwrap();
    assert_eq!(record.paused_at, Some(instant("2026-03-01T12:00:00Z")));
    assert_eq!(record.paused_reason.as_deref(), Some("the disk is full"));
    assert_eq!(record.next_fire_at, None);
    world.clock.advance(Duration::from_secs(600));
    let planned = world.store.plan(10).await.unwrap();
    assert_eq!((planned.fired, planned.skipped, planned.next_due), (vec![], 0, None));
});

rule!(a_resumed_job_fires_from_now_on_and_what_was_due_meanwhile_is_on_record, async |world: &World| {
    world.jobs(&[every("j", 60)]).await;
    world.store.pause_job(&name("j"), Some("the disk is full")).await.unwrap();
    world.clock.advance(Duration::from_secs(200));
    let resumed = world.store.resume_job(&name("j")).await.unwrap();
    let next = instant("2026-03-01T12:04:00Z");
    let paused_at = Some(instant("2026-03-01T12:00:00Z"));
    assert_eq!(resumed, Resumed { paused_at, skipped: 3, next_fire_at: Some(next) });
    let skipped = world.list_all("j", State::Skipped).await;
    assert_eq!(skipped.len(), 3);
    let error = skipped[0].error.clone().unwrap();
    assert_eq!(error.kind, FailureKind::Skipped);
    assert_eq!(
        error.message,
        "the job was paused from 2026-03-01T12:00:00Z to 2026-03-01T12:03:20Z: the disk is full"
    );
    assert_eq!(world.store.plan(10).await.unwrap().fired, [], "it does not flood");
    world.clock.advance(Duration::from_secs(40));
    assert_eq!(world.store.plan(10).await.unwrap().fired.len(), 1);
});

rule!(pausing_and_resuming_twice_is_as_good_as_once, async |world: &World| {
    world.jobs(&[every("j", 60)]).await;
    let j = name("j");
    assert!(world.store.pause_job(&j, Some("one")).await.unwrap());
    world.clock.advance(Duration::from_secs(90));
    assert!(!world.store.pause_job(&j, None).await.unwrap());
    let record = world.store.job(&j).await.unwrap();
    assert_eq!(
        (record.paused_at, record.paused_reason),
        (Some(instant("2026-03-01T12:00:00Z")), Some("one".into()))
    );
    assert!(!world.store.pause_job(&j, Some("two")).await.unwrap());
    assert_eq!(world.store.job(&j).await.unwrap().paused_reason.as_deref(), Some("two"));
    assert_eq!(world.store.resume_job(&j).await.unwrap().skipped, 1);
    let again = world.store.resume_job(&j).await.unwrap();
    let next_fire_at = Some(instant("2026-03-01T12:02:00Z"));
    assert_eq!(again, Resumed { paused_at: None, skipped: 0, next_fire_at });
});

rule!(what_is_ready_waits_while_its_job_is_paused_and_keeps_its_place, async |world: &World| {
    world.jobs(&[job("j"), job("k")]).await;
    let first = world.enqueue("j").await;
    world.clock.advance(Duration::from_secs(1));
    let other = world.enqueue("k").await;
    world.store.pause_job(&name("j"), None).await.unwrap();
    assert_eq!(world.count("waiting", "blocker = 'paused' and due_at is null").await, 1);
    assert_eq!((world.state(first).await, world.count("ready", "true").await), (State::Queued, 1));
    world.store.resume_job(&name("j")).await.unwrap();
    assert_eq!(world.count("waiting", "true").await, 0);
    let session = world.host("inn-1").await;
    let claimed = world.store.claim(session, 10).await.unwrap();
    assert_eq!(claimed.iter().map(|attempt| attempt.execution).collect::<Vec<_>>(), [first, other]);
});

rule!(a_paused_job_that_is_run_by_hand_runs_when_it_is_resumed, async |world: &World| {
    world.jobs(&[job("j")]).await;
    world.store.pause_job(&name("j"), None).await.unwrap();
    let id = world.enqueue("j").await;
    let session = world.host("inn-1").await;
    assert!(world.store.claim(session, 10).await.unwrap().is_empty());
    world.store.resume_job(&name("j")).await.unwrap();
    assert_eq!(world.claim_one(session).await.execution, id);
});

rule!(what_awaits_a_permit_awaits_it_again_after_a_pause, async |world: &World| {
    world.jobs(&[limited(job("j"))]).await;
    world.enqueue("j").await;
    world.enqueue("j").await;
    assert_eq!(world.count("waiting", "blocker = 'limit'").await, 2);
    world.store.pause_job(&name("j"), None).await.unwrap();
    assert_eq!(world.count("waiting", "blocker = 'paused'").await, 2);
    world.tamper("delete from {}gate").await;
    world.store.resume_job(&name("j")).await.unwrap();
    assert_eq!(world.count("waiting", "blocker = 'limit'").await, 2);
    assert_eq!(world.count("gate", "key = ''").await, 1, "somebody looks whether they may go on");
});

rule!(a_job_that_lost_its_limit_while_it_was_paused_starts_what_waits, async |world: &World| {
    world.jobs(&[limited(job("j"))]).await;
    world.enqueue("j").await;
    world.store.pause_job(&name("j"), None).await.unwrap();
    world.jobs(&[job("j")]).await;
    world.store.resume_job(&name("j")).await.unwrap();
    assert_eq!((world.count("ready", "true").await, world.count("waiting", "true").await), (1, 0));
});

rule!(an_execution_that_is_set_aside_gives_up_its_permit_and_its_part_of_the_rate, async |world: &World| {
    let rate = Some(Rate { count: 1, period: Duration::from_secs(60) });
    world.jobs(&[Job { policies: Policies { rate, ..Policies::default() }, ..job("j") }]).await;
    let id = world.enqueue("j").await;
    // As admission lets it go on.
    let bytes = id.simple();
    let id = match world.database.engine() {
        Engine::Sqlite => format!("x'{bytes}'"),
        Engine::Postgres => format!("'{bytes}'"),
    };
    let now = if world.database.engine() == Engine::Sqlite { "0" } else { "now()" };
    world
        .tamper(&format!(
            "insert into {{}}ready select 0, rank, execution_id, job_id, attempt from {{}}waiting;
             delete from {{}}waiting;
             insert into {{}}permit select {id}, 'job', id, '', {now} from {{}}job;
             insert into {{}}rate_use select id, {id}, 0, null from {{}}job;"
        ))
        .await;
    world.store.pause_job(&name("j"), None).await.unwrap();
    assert_eq!(world.count("permit", "true").await + world.count("rate_use", "true").await, 0);
    assert_eq!(world.count("waiting", "blocker = 'paused'").await, 1);
});

rule!(a_pause_and_what_others_do_at_the_same_time_lose_nothing, async |world: &World| {
    world.jobs(&[every("j", 1)]).await;
    let j = name("j");
    let mut hosts = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (store, j) = (world.another_store(2).await, j.clone());
        hosts.spawn(async move {
            for _ in 0..20 {
                store.enqueue(&by_hand(&j)).await.unwrap();
            }
        });
    }
    let (store, clock) = (world.another_store(1).await, world.clock.clone());
    hosts.spawn(async move {
        for _ in 0..20 {
            clock.advance(Duration::from_secs(1));
            store.plan(10).await.unwrap();
        }
    });
    let (store, paused) = (world.another_store(1).await, j.clone());
    hosts.spawn(async move {
        for _ in 0..20 {
            store.pause_job(&paused, None).await.unwrap();
            store.resume_job(&paused).await.unwrap();
        }
    });
    hosts.join_all().await;
    world.store.resume_job(&j).await.unwrap();
    world.store.plan(100).await.unwrap();
    assert_eq!(world.count("waiting", "true").await, 0);
    assert_eq!(world.count("execution", "fire_time is not null").await, 20, "each second once");
    let ended = world.count("completion", "true").await;
    assert_eq!(world.count("ready", "true").await + ended, 60);
});

rule!(
    an_execution_that_is_asked_for_while_its_job_is_resumed_does_not_wait_for_ever,
    async |world: &World| {
        if world.database.engine() == Engine::Sqlite {
            // It has one writer: one comes after the other.
            return;
        }
        world.jobs(&[job("j")]).await;
        world.store.pause_job(&name("j"), None).await.unwrap();
        let mut resuming = world.hold("begin; update {}job set paused_at = null").await;
        let store = world.another_store(1).await;
        let asked = tokio::spawn(async move { store.enqueue(&by_hand(&name("j"))).await.unwrap() });
        world.until_blocked(|| asked.is_finished()).await;
        resuming.run("commit").await;
        asked.await.unwrap();
        assert_eq!((world.count("ready", "true").await, world.count("waiting", "true").await), (1, 0));
    }
);

rule!(a_job_hears_when_it_is_resumed_of_what_it_follows, async |world: &World| {
    let a = Job { policies: Policies { on_failure: Some(name("b")), ..Policies::default() }, ..job("a") };
    let after = Some(After { jobs: vec![name("a")], when: When::All });
    let c = Job { policies: Policies { after, ..Policies::default() }, ..job("c") };
    world.jobs(&[a, job("b"), c]).await;
    let session = world.host("inn-1").await;
    for follower in ["b", "c"] {
        world.store.pause_job(&name(follower), None).await.unwrap();
        world.enqueue("a").await;
        let attempt = world.claim_one(session).await;
        let permanent = Failure::new(FailureKind::Permanent, "the disk is full");
        let outcome = if follower == "b" { Outcome::Failed(permanent) } else { Outcome::Succeeded(json!(1)) };
        world.record(session, attempt.finish(outcome)).await;
        world.store.plan(10).await.unwrap();
        assert_eq!(world.list(Some(follower), None).await.len(), 0, "{follower} is paused");
        world.store.resume_job(&name(follower)).await.unwrap();
        world.store.plan(10).await.unwrap();
        assert_eq!(world.list(Some(follower), None).await.len(), 1, "{follower} was told");
        world.claim_one(session).await;
    }
});

rule!(a_retry_of_a_paused_job_keeps_its_time, async |world: &World| {
    let (session, attempt) = world.running().await;
    world.record(session, failure(&attempt)).await;
    world.store.pause_job(&name("j"), None).await.unwrap();
    assert_eq!(world.count("waiting", "blocker = 'retry' and due_at is not null").await, 1);
});

rule!(a_paused_job_keeps_paused_over_edits_and_its_old_fires_are_on_record, async |world: &World| {
    world.jobs(&[every("j", 60)]).await;
    world.store.pause_job(&name("j"), None).await.unwrap();
    world.clock.advance(Duration::from_secs(125));
    world.jobs(&[every("j", 30)]).await;
    let record = world.store.job(&name("j")).await.unwrap();
    assert!(record.paused_at.is_some() && record.next_fire_at.is_none(), "{record:?}");
    assert_eq!(world.count("execution", "true").await, 2, "of the old schedule");
    world.clock.advance(Duration::from_secs(30));
    let resumed = world.store.resume_job(&name("j")).await.unwrap();
    assert_eq!((resumed.skipped, resumed.next_fire_at), (1, Some(instant("2026-03-01T12:03:00Z"))));
});

rule!(a_job_that_is_not_there_or_retired_cannot_be_paused, async |world: &World| {
    world.jobs(&[job("j"), job("gone")]).await;
    world.jobs(&[job("j")]).await;
    let unknown = world.store.pause_job(&name("jj"), None).await;
    assert!(matches!(unknown, Err(StoreError::UnknownJob { .. })), "{unknown:?}");
    let retired = world.store.pause_job(&name("gone"), None).await.unwrap_err().to_string();
    assert!(retired.contains("`gone` was retired at") && retired.contains("configuration"), "{retired}");
    let retired = world.store.resume_job(&name("gone")).await;
    assert!(matches!(retired, Err(StoreError::Invalid(_))), "{retired:?}");
});

rule!(a_paused_execution_that_is_due_later_stays_scheduled, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let j = name("j");
    let run_at = Some(world.clock.now() + Duration::from_secs(60));
    world.store.enqueue(&NewExecution { run_at, ..by_hand(&j) }).await.unwrap();
    world.store.pause_job(&j, None).await.unwrap();
    assert_eq!(world.count("waiting", "blocker = 'due' and due_at is not null").await, 1);
});

rule!(what_a_job_is_triggered_by_while_it_is_paused_triggers_it_when_it_is_resumed, async |world: &World| {
    let after = Some(After { jobs: vec![name("up")], when: When::All });
    let follower = Job { policies: Policies { after, ..Policies::default() }, ..job("j") };
    world.jobs(&[job("up"), follower]).await;
    world.store.pause_job(&name("j"), None).await.unwrap();
    let session = world.host("inn-1").await;
    world.enqueue("up").await;
    let attempt = world.claim_one(session).await;
    world.record(session, success(&attempt)).await;
    world.store.plan(10).await.unwrap();
    assert!(world.list(Some("j"), None).await.is_empty());
    world.store.resume_job(&name("j")).await.unwrap();
    world.store.plan(10).await.unwrap();
    assert_eq!(world.list(Some("j"), Some(State::Queued)).await.len(), 1);
});

rule!(a_schedule_that_counts_from_an_end_goes_on_where_that_came_during_a_pause, async |world: &World| {
    let spec = Spec { every_after: Some(Duration::from_secs(60)), ..Spec::default() };
    world.jobs(&[Job { schedule: Some(Schedule::new(&spec).unwrap()), ..job("j") }]).await;
    world.clock.advance(Duration::from_secs(60));
    world.store.plan(10).await.unwrap();
    let session = world.host("inn-1").await;
    let attempt = world.claim_one(session).await;
    world.store.pause_job(&name("j"), None).await.unwrap();
    world.record(session, success(&attempt)).await;
    assert_eq!(world.store.job(&name("j")).await.unwrap().next_fire_at, None);
    world.clock.advance(Duration::from_secs(30));
    let resumed = world.store.resume_job(&name("j")).await.unwrap();
    assert_eq!((resumed.skipped, resumed.next_fire_at), (0, Some(instant("2026-03-01T12:02:00Z"))));
});

rule!(a_wait_that_ends_while_its_job_is_resumed_does_not_last_for_ever, async |world: &World| {
    if world.database.engine() == Engine::Sqlite {
        // It has one writer: one comes after the other.
        return;
    }
    world.jobs(&[job("j")]).await;
    let j = name("j");
    let run_at = Some(world.clock.now() + Duration::from_secs(60));
    world.store.enqueue(&NewExecution { run_at, ..by_hand(&j) }).await.unwrap();
    world.store.pause_job(&j, None).await.unwrap();
    world.clock.advance(Duration::from_secs(60));
    let mut resuming = world.hold("begin; update {}job set paused_at = null").await;
    let store = world.another_store(1).await;
    let planned = tokio::spawn(async move { store.plan(10).await.unwrap() });
    world.until_blocked(|| planned.is_finished()).await;
    resuming.run("commit").await;
    planned.await.unwrap();
    assert_eq!((world.count("ready", "true").await, world.count("waiting", "true").await), (1, 0));
});
