//! Jobs, components, plugins, hosts.

use std::time::Duration;

use innkeeper::execution::{State, Trigger};
use innkeeper::job::Job;
use innkeeper::store::{LastExecution, NewExecution, StoreError};
use innkeeper_tests::clock::instant;
use serde_json::json;

use crate::rule;
use crate::world::{TTL, World, by_hand, every, job, name};

rule!(a_schedule_that_did_not_change_keeps_its_fire_time_over_a_restart, async |world: &World| {
    world.jobs(&[every("j", 3600)]).await;
    world.clock.advance(Duration::from_secs(2 * 3600));
    // The arguments changed, the schedule did not.
    world.jobs(&[Job { args: json!({ "days": 1 }), ..every("j", 3600) }]).await;
    let record = world.store.job(&name("j")).await.unwrap();
    assert_eq!(record.next_fire_at, Some(instant("2026-03-01T13:00:00Z")));
    assert_eq!(record.job.args, json!({ "days": 1 }));
    let fired = world.store.plan(10).await.unwrap().fired;
    assert_eq!(fired[0].fire_time, instant("2026-03-01T14:00:00Z"), "the latest that was missed");
});

rule!(a_schedule_that_changed_fires_from_now_on, async |world: &World| {
    world.jobs(&[every("j", 3600)]).await;
    world.clock.advance(Duration::from_secs(90 * 60));
    let sync = world.store.sync_jobs("file", &[every("j", 60)]).await.unwrap();
    assert_eq!((sync.added, sync.changed, sync.retired), (vec![], vec![name("j")], vec![]));
    let next = world.store.job(&name("j")).await.unwrap().next_fire_at;
    assert_eq!(next, Some(instant("2026-03-01T13:31:00Z")));
});

rule!(a_job_that_is_enabled_again_fires_from_now_on, async |world: &World| {
    world.jobs(&[Job { enabled: false, ..every("j", 3600) }]).await;
    assert_eq!(world.store.job(&name("j")).await.unwrap().next_fire_at, None);
    world.clock.advance(Duration::from_secs(90 * 60));
    world.jobs(&[every("j", 3600)]).await;
    let next = world.store.job(&name("j")).await.unwrap().next_fire_at;
    assert_eq!(next, Some(instant("2026-03-01T14:00:00Z")));
});

rule!(
    a_job_that_is_named_no_more_is_retired_and_fires_from_now_when_it_is_named_again,
    async |world: &World| {
        world.jobs(&[every("j", 3600), every("k", 3600)]).await;
        let sync = world.store.sync_jobs("file", &[every("k", 3600)]).await.unwrap();
        assert_eq!((sync.added, sync.changed, sync.retired), (vec![], vec![], vec![name("j")]));
        let retired = world.store.job(&name("j")).await.unwrap();
        assert_eq!((retired.retired_at, retired.next_fire_at), (Some(world.clock.now()), None));

        world.clock.advance(Duration::from_secs(90 * 60));
        let sync = world.store.sync_jobs("file", &[every("j", 3600), every("k", 3600)]).await.unwrap();
        assert_eq!((sync.added, sync.changed, sync.retired), (vec![name("j")], vec![], vec![]));
        let again = world.store.job(&name("j")).await.unwrap();
        assert_eq!((again.retired_at, again.next_fire_at), (None, Some(instant("2026-03-01T14:00:00Z"))));
    }
);

rule!(a_file_retires_only_its_own_jobs, async |world: &World| {
    world.store.sync_jobs("one", &[job("a")]).await.unwrap();
    world.store.sync_jobs("two", &[job("b")]).await.unwrap();
    world.store.sync_jobs("one", &[]).await.unwrap();
    let jobs = world.store.jobs().await.unwrap();
    let retired: Vec<_> =
        jobs.iter().map(|record| (record.job.name.as_str(), record.retired_at.is_some())).collect();
    assert_eq!(retired, [("a", true), ("b", false)]);
});

rule!(hosts_that_write_the_same_jobs_at_once_do_not_trip_over_each_other, async |world: &World| {
    let jobs: Vec<Job> = (0..10).map(|number| every(&format!("j{number}"), 60)).collect();
    let mut hosts = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = world.another_store(1).await;
        let jobs = jobs.clone();
        hosts.spawn(async move { store.sync_jobs("file", &jobs).await.unwrap().added.len() });
    }
    assert_eq!(hosts.join_all().await.into_iter().sum::<usize>(), 10);
    assert_eq!(world.count("job", "true").await, 10);
});

rule!(a_job_comes_back_as_it_was_with_its_latest_execution, async |world: &World| {
    world.jobs(&[every("j", 60), job("k")]).await;
    world.enqueue("k").await;
    let id = world.enqueue("k").await;
    let jobs = world.store.jobs().await.unwrap();
    assert_eq!(jobs.iter().map(|record| &record.job).collect::<Vec<_>>(), [&every("j", 60), &job("k")]);
    assert_eq!(jobs[0].last, None);
    assert_eq!(jobs[1].last, Some(LastExecution { id, state: State::Queued }));
    assert_eq!(world.store.job(&name("k")).await.unwrap(), jobs[1]);
});

rule!(an_unknown_job_is_refused_with_the_name_that_was_meant, async |world: &World| {
    world.jobs(&[job("session-cleanup"), job("gone")]).await;
    world.jobs(&[job("session-cleanup")]).await;
    let unknown = name("sesion-cleanup");
    let error = world.store.enqueue(&by_hand(&unknown)).await.unwrap_err();
    assert!(matches!(error, StoreError::UnknownJob { .. }), "{error:?}");
    assert!(error.to_string().contains("did you mean `session-cleanup`?"), "{error}");
    assert!(matches!(world.store.job(&unknown).await, Err(StoreError::UnknownJob { .. })));
    let gone = name("gone");
    let retired = world.store.enqueue(&by_hand(&gone)).await;
    assert!(matches!(retired, Err(StoreError::UnknownJob { .. })), "{retired:?}");
});

rule!(times_keep_their_microseconds, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let j = name("j");
    for time in ["1969-12-31T23:59:59.999999Z", "2026-06-30T23:59:59.000001Z", "9999-12-30T22:00:00Z"] {
        let new =
            NewExecution { run_at: Some(instant(time)), triggered_by: Trigger::Backfill, ..by_hand(&j) };
        let id = world.store.enqueue(&new).await.unwrap().id;
        assert_eq!(world.execution(id).await.scheduled_at, instant(time));
    }
});

rule!(descriptions_are_kept_by_digest_and_found_by_plugin, async |world: &World| {
    let (p, old, new) = (name("p"), json!([{ "name": "h" }]), json!([{ "name": "h2" }]));
    assert_eq!(world.store.plugin_handlers(&p).await.unwrap(), None);
    world.store.save_component("sha256:1", &old).await.unwrap();
    world.store.save_component("sha256:2", &new).await.unwrap();
    world.store.save_plugin(&p, "sha256:1").await.unwrap();
    assert_eq!(world.store.plugin_handlers(&p).await.unwrap(), Some(old.clone()));
    world.store.save_plugin(&p, "sha256:2").await.unwrap();
    assert_eq!(world.store.plugin_handlers(&p).await.unwrap(), Some(new));
    assert_eq!(world.store.component_descriptions("sha256:1").await.unwrap(), Some(old));
    assert_eq!(world.store.component_descriptions("sha256:3").await.unwrap(), None);
    let unsaved = world.store.save_plugin(&p, "sha256:3").await;
    assert!(matches!(unsaved, Err(StoreError::Invalid(_))), "{unsaved:?}");
});

rule!(a_plugin_is_listed_with_the_live_hosts_that_have_it, async |world: &World| {
    world.host_with("inn-1", &["p", "q"]).await;
    world.clock.advance(TTL / 2);
    world.host_with("inn-2", &["p"]).await;
    world.store.save_plugin(&name("p"), "sha256:c0ffee").await.unwrap();
    assert_eq!(world.store.live_hosts_with_plugin(&name("p")).await.unwrap(), ["inn-1", "inn-2"]);
    assert_eq!(world.store.live_hosts_with_plugin(&name("q")).await.unwrap(), ["inn-1"]);
    world.clock.advance(TTL / 2);
    // It has expired, though nobody has buried it yet.
    assert_eq!(world.store.live_hosts_with_plugin(&name("p")).await.unwrap(), ["inn-2"]);
    let plugins = world.store.plugins().await.unwrap();
    assert_eq!(plugins.len(), 1);
    assert_eq!((plugins[0].name.as_str(), plugins[0].digest.as_str()), ("p", "sha256:c0ffee"));
    assert_eq!(plugins[0].hosts, ["inn-2"]);
});
