//! The file changes: what becomes of jobs, their fires, their queues and what they follow.

use std::time::Duration;

use innkeeper::execution::State;
use innkeeper::job::Job;
use innkeeper::policy::{After, Concurrency, Policies, Queue, When, WhenFull};
use innkeeper::schedule::{Schedule, Spec};
use innkeeper::store::JobSync;
use innkeeper_tests::clock::instant;

use crate::rule;
use crate::world::{World, every, job, name};

fn paced(seconds: u64) -> Job {
    let spec = Spec { every_after: Some(Duration::from_secs(seconds)), ..Spec::default() };
    Job { schedule: Some(Schedule::new(&spec).unwrap()), ..job("j") }
}

fn after(job: Job, upstream: &[&str]) -> Job {
    let jobs = upstream.iter().map(|job| name(job)).collect();
    let after = Some(After { jobs, when: When::All });
    Job { policies: Policies { after, ..job.policies }, ..job }
}

fn on_failure(job: Job, follower: &str) -> Job {
    Job { policies: Policies { on_failure: Some(name(follower)), ..job.policies }, ..job }
}

/// `job kind upstream` of each dependency.
async fn dependencies(world: &World, job: &str, kind: &str, upstream: &str) -> i64 {
    let id = |job: &str| format!("(select id from {{}}job where name = '{job}')");
    let (job, upstream) = (id(job), id(upstream));
    let count = "select count(*) from {}dependency";
    world
        .scalar(&format!("{count} where job_id = {job} and kind = '{kind}' and upstream_id = {upstream}"))
        .await
}

rule!(
    fires_that_an_old_schedule_had_due_are_on_record_and_the_new_one_fires_from_now,
    async |world: &World| {
        world.jobs(&[every("j", 60)]).await;
        world.clock.advance(Duration::from_secs(150));
        let sync = world.store.sync_jobs("file", &[every("j", 3_600)]).await.unwrap();
        assert_eq!((sync.changed, sync.skipped), (vec![name("j")], 2));
        assert_eq!(world.store.plan(10).await.unwrap().fired, []);
        let skipped = world.list_all("j", State::Skipped).await;
        let times: Vec<_> = skipped.iter().map(|record| record.scheduled_at).collect();
        assert_eq!(times, [instant("2026-03-01T12:02:00Z"), instant("2026-03-01T12:01:00Z")]);
        let message = &skipped[0].error.as_ref().unwrap().message;
        assert_eq!(message, "the job's schedule was changed before it was run");
        assert_eq!(
            world.store.job(&name("j")).await.unwrap().next_fire_at,
            Some(instant("2026-03-01T13:00:00Z"))
        );
    }
);

rule!(fires_of_a_job_that_is_disabled_or_taken_out_are_on_record, async |world: &World| {
    world.jobs(&[every("j", 60), every("k", 60)]).await;
    world.clock.advance(Duration::from_secs(60));
    let sync = world.store.sync_jobs("file", &[Job { enabled: false, ..every("j", 60) }]).await.unwrap();
    assert_eq!((sync.retired, sync.skipped), (vec![name("k")], 2));
    for (job, message) in [
        ("j", "the job was disabled before it was run"),
        ("k", "the job was taken out of the configuration before it was run"),
    ] {
        let skipped = world.list_all(job, State::Skipped).await;
        assert_eq!(skipped[0].error.as_ref().unwrap().message, message);
    }
    // Enabled again: from now on.
    world.clock.advance(Duration::from_secs(90));
    let sync = world.store.sync_jobs("file", &[every("j", 60), every("k", 60)]).await.unwrap();
    assert_eq!(sync.skipped, 0);
    assert_eq!(world.store.plan(10).await.unwrap().next_due, Some(Duration::from_secs(30)));
});

rule!(a_job_of_which_only_the_policies_change_keeps_its_next_fire, async |world: &World| {
    world.jobs(&[every("j", 60)]).await;
    world.clock.advance(Duration::from_secs(61));
    let priority = Job { policies: Policies { priority: 3, ..Policies::default() }, ..every("j", 60) };
    let sync = world.store.sync_jobs("file", &[priority]).await.unwrap();
    assert_eq!((sync.changed.len(), sync.skipped), (1, 0));
    assert_eq!(world.store.plan(10).await.unwrap().fired.len(), 1);
    assert_eq!(world.count("job", "priority = 3").await, 1);
});

rule!(a_file_that_did_not_change_writes_nothing, async |world: &World| {
    let jobs = [every("j", 60), after(job("k"), &["j"])];
    world.jobs(&jobs).await;
    let seen = match world.database.url() {
        innkeeper::database_url::DatabaseUrl::Postgres(_) => "select max(xmin::text::bigint) from {}job",
        innkeeper::database_url::DatabaseUrl::Sqlite(_) => "select max(updated_at) from job",
    };
    let before = world.scalar(seen).await;
    world.clock.advance(Duration::from_secs(90));
    assert_eq!(world.store.sync_jobs("file", &jobs).await.unwrap(), JobSync::default());
    assert_eq!(world.scalar(seen).await, before);
});

rule!(
    a_job_that_two_files_name_belongs_to_who_named_it_last_and_is_not_retired_by_the_other,
    async |world: &World| {
        world.store.sync_jobs("one", &[every("j", 60), job("k")]).await.unwrap();
        world.clock.advance(Duration::from_secs(61));
        let sync = world.store.sync_jobs("two", &[every("j", 60)]).await.unwrap();
        assert_eq!(sync.taken_over, [(name("j"), "one".to_owned())]);
        assert_eq!((sync.changed, sync.skipped), (vec![name("j")], 0));
        let sync = world.store.sync_jobs("one", &[job("k")]).await.unwrap();
        assert_eq!(sync, JobSync::default());
        let record = world.store.job(&name("j")).await.unwrap();
        assert_eq!((record.owner.as_str(), record.retired_at), ("two", None));
        assert_eq!(record.next_fire_at, Some(instant("2026-03-01T12:01:00Z")), "what is due stays due");
    }
);

rule!(hosts_that_share_an_owner_do_not_take_over_from_each_other, async |world: &World| {
    let both = [every("j", 60), job("k")];
    world.store.sync_jobs("reports", &both).await.unwrap();
    assert_eq!(world.store.sync_jobs("reports", &both).await.unwrap(), JobSync::default());
    let sync = world.store.sync_jobs("reports", &both[..1]).await.unwrap();
    assert_eq!((sync.retired, sync.taken_over), (vec![name("k")], vec![]));
});

rule!(what_a_job_follows_is_kept_as_its_definition_says, async |world: &World| {
    world.jobs(&[job("a"), job("b"), after(every("c", 60), &["a", "b"]), on_failure(job("d"), "b")]).await;
    assert_eq!(world.count("dependency", "true").await, 3);
    assert_eq!(dependencies(world, "c", "success", "a").await, 1);
    assert_eq!(dependencies(world, "b", "failure", "d").await, 1);
    world.jobs(&[job("a"), job("b"), after(every("c", 60), &["b"]), on_failure(job("d"), "a")]).await;
    assert_eq!(world.count("dependency", "true").await, 2);
    assert_eq!(dependencies(world, "a", "failure", "d").await, 1);
    world.jobs(&[job("a"), job("b"), job("d")]).await;
    assert_eq!(world.count("dependency", "true").await, 0);
});

rule!(a_job_that_is_retired_follows_nothing_and_one_that_others_follow_stays_known, async |world: &World| {
    world.store.sync_jobs("one", &[job("a")]).await.unwrap();
    world.store.sync_jobs("two", &[after(job("b"), &["a"])]).await.unwrap();
    assert_eq!(dependencies(world, "b", "success", "a").await, 1);
    world.store.sync_jobs("one", &[]).await.unwrap();
    assert_eq!(dependencies(world, "b", "success", "a").await, 1);
    world.store.sync_jobs("two", &[]).await.unwrap();
    assert_eq!(world.count("dependency", "true").await, 0);
});

rule!(a_limit_that_is_changed_lets_those_that_wait_be_looked_at, async |world: &World| {
    let limited = |limit| Job {
        policies: Policies {
            concurrency: Some(Concurrency { limit: Some(limit), per_key: None, when_full: WhenFull::Queue }),
            ..Policies::default()
        },
        ..job("j")
    };
    world.jobs(&[limited(1)]).await;
    world.enqueue("j").await;
    world.tamper("delete from {}gate").await;
    world.jobs(&[limited(2)]).await;
    assert_eq!(world.count("gate", "key = ''").await, 1);
});

rule!(a_queue_that_a_job_names_is_there, async |world: &World| {
    let reports =
        Job { policies: Policies { queue: Some(name("reports")), ..Policies::default() }, ..job("j") };
    world.jobs(&[reports, job("k")]).await;
    assert_eq!(world.count("queue", "name = 'reports' and weight = 1 and total_limit is null").await, 1);
    world.enqueue("j").await;
    let of_queue = "queue_id = (select id from {}queue where name = 'reports')";
    let of_queue = world.scalar(&format!("select count(*) from {{}}ready where {of_queue}")).await;
    assert_eq!(of_queue, 1);
});

rule!(the_queues_of_a_file_are_saved_and_go_back_to_the_defaults_without_it, async |world: &World| {
    let queue = |queue: &str, weight, limit| Queue { name: name(queue), weight, limit, limit_per_host: None };
    let both = [queue("default", 2, None), queue("reports", 3, Some(7))];
    assert_eq!(world.store.sync_queues("file", &both).await.unwrap(), [name("default"), name("reports")]);
    assert_eq!(world.store.sync_queues("file", &both).await.unwrap(), []);
    assert_eq!(world.count("queue", "id = 0 and weight = 2").await, 1);
    assert_eq!(world.count("queue", "name = 'reports' and weight = 3 and total_limit = 7").await, 1);
    assert_eq!(world.store.sync_queues("another", &[]).await.unwrap(), []);
    assert_eq!(world.store.sync_queues("file", &both[..1]).await.unwrap(), [name("reports")]);
    assert_eq!(world.count("queue", "name = 'reports' and weight = 1 and total_limit is null").await, 1);
    assert_eq!(world.store.sync_queues("file", &both[..1]).await.unwrap(), []);
});

rule!(
    a_schedule_that_counts_from_the_last_end_is_silent_while_its_execution_is_under_way,
    async |world: &World| {
        world.jobs(&[paced(60)]).await;
        world.clock.advance(Duration::from_secs(60));
        let planned = world.store.plan(10).await.unwrap();
        assert_eq!((planned.fired.len(), planned.next_due), (1, None));
        let next = async || world.store.job(&name("j")).await.unwrap().next_fire_at;
        for changed in [paced(60), paced(90)] {
            world.jobs(&[changed]).await;
            assert_eq!(next().await, None);
        }
        world.store.pause_job(&name("j"), None).await.unwrap();
        world.clock.advance(Duration::from_secs(600));
        let resumed = world.store.resume_job(&name("j")).await.unwrap();
        assert_eq!((resumed.skipped, resumed.next_fire_at), (0, None));
    }
);

rule!(
    a_schedule_that_counts_from_the_last_end_starts_anew_where_nothing_is_under_way,
    async |world: &World| {
        world.jobs(&[paced(60)]).await;
        world.clock.advance(Duration::from_secs(30));
        world.jobs(&[paced(60)]).await;
        let next = async || world.store.job(&name("j")).await.unwrap().next_fire_at;
        assert_eq!(next().await, Some(instant("2026-03-01T12:01:00Z")), "a restart does not put it off");
        // Lost, as by a host of the version before.
        world.tamper("update {}job set next_fire_at = null").await;
        world.jobs(&[paced(60)]).await;
        assert_eq!(next().await, Some(instant("2026-03-01T12:01:30Z")));
        // Of another kind: the execution of the old schedule does not count.
        world.jobs(&[every("j", 10)]).await;
        world.clock.advance(Duration::from_secs(10));
        world.store.plan(10).await.unwrap();
        world.jobs(&[paced(60)]).await;
        assert_eq!(next().await, Some(instant("2026-03-01T12:01:40Z")));
    }
);
