//! History is removed when it has been kept for long enough.

use std::time::Duration;

use innkeeper::execution::{LogLevel, LogLine, Progress, State};
use innkeeper::job::{History, Job};
use innkeeper::store::{JobHistory, NewExecution, Pruned, SessionId};
use innkeeper_tests::database::Engine;
use serde_json::json;
use uuid::Uuid;

use crate::rule;
use crate::world::{World, by_hand, every, failure, holder, job, name, success};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Everything that an execution may leave behind.
const TABLES: &[&str] = &["execution", "start", "completion", "log", "progress", "checkpoint", "stale"];

/// A job whose executions are kept for ten days after their end.
fn kept(job_name: &str) -> Job {
    Job { history: History { keep: Some(10 * DAY), last: None }, ..job(job_name) }
}

/// A job of which this many executions are kept, however old.
fn newest(job_name: &str, last: u32) -> Job {
    Job { history: History { keep: None, last: Some(last) }, ..job(job_name) }
}

/// One round, as a host does it; what it knows is kept for the next. Returns how many went.
async fn round(world: &World, known: &mut Vec<JobHistory>) -> usize {
    *known = world.store.job_histories(known).await.unwrap();
    let mut removed = 0;
    for history in known.iter_mut() {
        loop {
            match world.store.prune(history, 7).await.unwrap() {
                Pruned::Some(count) => removed += count,
                Pruned::Done(count) => {
                    removed += count;
                    break;
                }
                Pruned::Elsewhere => panic!("nobody else prunes"),
            }
        }
    }
    world.store.prune_leftovers(100).await.unwrap();
    removed
}

async fn first_round(world: &World) -> usize {
    round(world, &mut Vec::new()).await
}

/// A host that lives all the while.
async fn awake(world: &World, session: SessionId) {
    world.store.heartbeat(session, crate::world::TTL, None).await.unwrap();
}

/// Enqueues, starts and ends an execution.
async fn execute(world: &World, session: SessionId, job: &str) -> Uuid {
    let id = world.enqueue(job).await;
    let attempt = world.claim_one(session).await;
    assert_eq!(attempt.execution, id);
    world.record(session, success(&attempt)).await;
    id
}

fn line(world: &World) -> LogLine {
    let fields = serde_json::Map::new();
    LogLine { at: world.clock.now(), level: LogLevel::Info, message: "x".repeat(200), fields }
}

/// How many rows each of [`TABLES`] has.
async fn all(world: &World) -> Vec<i64> {
    let mut counts = Vec::new();
    for table in TABLES {
        counts.push(world.count(table, "true").await);
    }
    counts
}

rule!(an_execution_goes_with_all_that_belongs_to_it_when_its_time_is_over, async |world: &World| {
    world.jobs(&[kept("j")]).await;
    let session = world.host("inn-1").await;
    let old = world.enqueue("j").await;
    let attempt = world.claim_one(session).await;
    let holder = holder(session, &attempt);
    world.store.append_log(holder, &[line(world)]).await.unwrap();
    let progress = Progress { done: 1, total: Some(2), message: None };
    world.store.save_progress(holder, &progress).await.unwrap();
    world.store.save_checkpoint(holder, &json!({ "at": 7 })).await.unwrap();
    world.record(session, success(&attempt)).await;
    world.store.save_checkpoint(holder, &json!({ "late": true })).await.unwrap_err();
    assert_eq!(all(world).await, [1; 7], "it left something of everything");
    let newer = execute(world, session, "j").await;

    world.clock.advance(10 * DAY - Duration::from_secs(1));
    assert_eq!(first_round(world).await, 0);
    world.clock.advance(Duration::from_secs(1));
    execute(world, session, "j").await;
    assert_eq!(first_round(world).await, 2);
    for id in [old, newer] {
        assert_eq!(world.store.execution(id).await.unwrap(), None);
    }
    assert_eq!(all(world).await, [1, 1, 1, 0, 0, 0, 0], "what is left is the newest's");
});

rule!(what_has_not_ended_is_never_removed, async |world: &World| {
    world.jobs(&[kept("j"), newest("k", 1)]).await;
    let session = world.host("inn-1").await;
    let mut open = Vec::new();
    for job in ["j", "k"] {
        open.push((world.enqueue(job).await, State::Running));
        world.claim_one(session).await;
        open.push((world.enqueue(job).await, State::Retrying));
        let attempt = world.claim_one(session).await;
        world.record(session, failure(&attempt)).await;
        let name = name(job);
        let later = NewExecution { run_at: Some(world.clock.now() + 100 * DAY), ..by_hand(&name) };
        open.push((world.store.enqueue(&later).await.unwrap().id, State::Scheduled));
    }
    for job in ["j", "k"] {
        open.push((world.enqueue(job).await, State::Queued));
    }
    world.clock.advance(50 * DAY);
    assert_eq!(first_round(world).await, 0);
    for (id, state) in open {
        assert_eq!(world.state(id).await, state);
    }
});

rule!(an_old_execution_that_is_open_holds_up_none_and_goes_after_its_own_end, async |world: &World| {
    world.jobs(&[kept("j")]).await;
    let session = world.host("inn-1").await;
    world.enqueue("j").await;
    let open = world.claim_one(session).await;
    for _ in 0..20 {
        execute(world, session, "j").await;
    }
    let mut known = Vec::new();
    world.clock.advance(11 * DAY);
    execute(world, session, "j").await;
    assert_eq!(round(world, &mut known).await, 20);
    world.record(session, success(&open)).await;
    assert_eq!(round(world, &mut known).await, 0, "its time begins with its end");
    world.clock.advance(10 * DAY);
    execute(world, session, "j").await;
    assert_eq!(round(world, &mut known).await, 2);
});

rule!(of_a_job_that_bounds_their_number_the_newest_that_ended_stay, async |world: &World| {
    world.jobs(&[newest("j", 3), kept("k")]).await;
    let session = world.host("inn-1").await;
    let mut ended = Vec::new();
    for _ in 0..10 {
        ended.push(execute(world, session, "j").await);
        execute(world, session, "k").await;
    }
    assert_eq!(first_round(world).await, 0, "whoever waits for one can still see it");
    // A long queue is no reason to forget what has ended.
    for _ in 0..10 {
        world.enqueue("j").await;
    }
    world.clock.advance(Duration::from_secs(61));
    assert_eq!(first_round(world).await, 7);
    ended.reverse();
    assert_eq!(world.list(Some("j"), Some(State::Succeeded)).await, ended[..3]);
    assert_eq!(world.list(Some("k"), None).await.len(), 10, "another job's are its own");
});

rule!(the_newest_execution_of_a_job_stays_whatever_its_age, async |world: &World| {
    world.jobs(&[kept("j")]).await;
    let session = world.host("inn-1").await;
    execute(world, session, "j").await;
    let newest = execute(world, session, "j").await;
    world.clock.advance(1000 * DAY);
    assert_eq!(first_round(world).await, 1);
    let last = world.store.job(&name("j")).await.unwrap().last.expect("how it went can be told");
    assert_eq!((last.id, last.state), (newest, State::Succeeded));
});

rule!(the_history_of_a_retired_job_goes_as_well, async |world: &World| {
    world.jobs(&[kept("j")]).await;
    let session = world.host("inn-1").await;
    for _ in 0..3 {
        execute(world, session, "j").await;
    }
    world.jobs(&[]).await;
    world.clock.advance(11 * DAY);
    assert_eq!(first_round(world).await, 2);
});

rule!(a_step_is_bounded_and_the_next_goes_on_where_it_ended, async |world: &World| {
    world.jobs(&[kept("j")]).await;
    let session = world.host("inn-1").await;
    for _ in 0..11 {
        execute(world, session, "j").await;
    }
    world.clock.advance(11 * DAY);
    let mut history = world.store.job_histories(&[]).await.unwrap().remove(0);
    for expected in [Pruned::Some(4), Pruned::Some(4), Pruned::Done(2)] {
        assert_eq!(world.store.prune(&mut history, 4).await.unwrap(), expected);
    }
    assert_eq!(world.count("execution", "true").await, 1);
});

rule!(a_host_that_prunes_is_left_to_it, async |world: &World| {
    if world.database.engine() == Engine::Sqlite {
        // It has one writer, who waits for his turn.
        return;
    }
    world.jobs(&[kept("j")]).await;
    let session = world.host("inn-1").await;
    for _ in 0..3 {
        execute(world, session, "j").await;
    }
    world.clock.advance(11 * DAY);
    let mut history = world.store.job_histories(&[]).await.unwrap().remove(0);
    let mut other = world.hold("begin; select pg_advisory_xact_lock(7598807797348065638)").await;
    assert_eq!(world.store.prune(&mut history, 7).await.unwrap(), Pruned::Elsewhere);
    assert_eq!(world.store.prune_leftovers(7).await.unwrap(), 0);
    // A connection that is only dropped keeps its lock until the server has noticed.
    other.run("rollback").await;
    assert_eq!(first_round(world).await, 2);
});

rule!(a_fire_time_whose_execution_was_removed_is_not_planned_again, async |world: &World| {
    let job = Job { history: newest("j", 1).history, ..every("j", 3600) };
    world.jobs(std::slice::from_ref(&job)).await;
    let session = world.host("inn-1").await;
    let mut fired = Vec::new();
    for _ in 0..4 {
        world.clock.advance(HOUR);
        awake(world, session).await;
        fired.extend(world.store.plan(10).await.unwrap().fired.into_iter().map(|fired| fired.fire_time));
        let attempt = world.claim_one(session).await;
        world.record(session, success(&attempt)).await;
    }
    assert_eq!(fired.len(), 4);
    world.clock.advance(Duration::from_secs(61));
    assert_eq!(first_round(world).await, 3);
    // The file as it was, without the job, with it again, and with another schedule and back.
    let hourly = std::slice::from_ref(&job);
    let other = [Job { schedule: every("j", 1800).schedule, ..job.clone() }];
    for jobs in [hourly, &[], hourly, &other, hourly] {
        world.jobs(jobs).await;
        assert_eq!(world.store.plan(10).await.unwrap().fired, []);
    }
    world.clock.advance(HOUR);
    let next = world.store.plan(10).await.unwrap().fired;
    assert!(next.iter().all(|next| !fired.contains(&next.fire_time)) && next.len() == 1, "{next:?}");
});

rule!(a_clock_that_was_set_back_finds_its_fire_times_still_taken, async |world: &World| {
    let job = Job { history: newest("j", 1).history, ..every("j", 3600) };
    world.jobs(std::slice::from_ref(&job)).await;
    let session = world.host("inn-1").await;
    for _ in 0..4 {
        world.clock.advance(HOUR);
        awake(world, session).await;
        world.store.plan(10).await.unwrap();
        let attempt = world.claim_one(session).await;
        world.record(session, success(&attempt)).await;
    }
    // Two hours back. As if they had ended long ago, by whatever clock.
    world.clock.set("2026-03-01T14:30:00Z");
    let back = match world.database.engine() {
        Engine::Sqlite => "finished_at - 86400000000",
        Engine::Postgres => "finished_at - interval '1 day'",
    };
    world.tamper(&format!("update {{}}completion set finished_at = {back}")).await;
    assert_eq!(first_round(world).await, 2, "those of 13:00 and 14:00, which cannot come again");
    // Put back into the file, the job fires from now on: at times that it has fired at.
    world.jobs(&[]).await;
    world.jobs(&[job]).await;
    world.clock.set("2026-03-01T15:00:00Z");
    assert_eq!(world.store.plan(10).await.unwrap().fired, []);
});

rule!(a_unique_key_is_held_until_the_end_and_free_after_it_whatever_was_removed, async |world: &World| {
    world.jobs(&[kept("j")]).await;
    let session = world.host("inn-1").await;
    let (job, key) = (name("j"), Some("k"));
    let keyed = NewExecution { unique_key: key, ..by_hand(&job) };
    world.store.enqueue(&keyed).await.unwrap();
    let attempt = world.claim_one(session).await;
    world.record(session, success(&attempt)).await;
    let holder = world.store.enqueue(&keyed).await.unwrap();
    assert!(holder.created);
    world.clock.advance(11 * DAY);
    assert_eq!(first_round(world).await, 1);
    let again = world.store.enqueue(&keyed).await.unwrap();
    assert_eq!((again.id, again.created), (holder.id, false));
});

rule!(a_host_session_goes_a_week_after_its_end_when_no_start_is_left_of_it, async |world: &World| {
    world.jobs(&[kept("j")]).await;
    let ended = world.host("ended").await;
    let referred_to = world.host("referred-to").await;
    execute(world, ended, "j").await;
    world.clock.advance(Duration::from_secs(1));
    execute(world, referred_to, "j").await;
    for session in [ended, referred_to] {
        world.store.end_session(session).await.unwrap();
    }
    let left = async || world.count("host_session", "true").await;
    world.clock.advance(6 * DAY);
    first_round(world).await;
    assert_eq!(left().await, 2);
    world.clock.advance(5 * DAY);
    let alive = world.host("alive").await;
    first_round(world).await;
    assert_eq!(left().await, 2, "one is alive, and one has the start of the newest execution");
    assert_eq!(world.count("host_plugin", "true").await, 2, "and its plugins go with it");
    execute(world, alive, "j").await;
    world.clock.advance(11 * DAY);
    first_round(world).await;
    assert_eq!(left().await, 1);
    assert_eq!(world.count("host_session", "host = 'alive'").await, 1, "it was not ended");
});

rule!(what_comes_too_late_for_a_removed_execution_changes_nothing_and_goes_too, async |world: &World| {
    world.jobs(&[kept("j")]).await;
    let session = world.host("inn-1").await;
    world.enqueue("j").await;
    let attempt = world.claim_one(session).await;
    world.record(session, success(&attempt)).await;
    execute(world, session, "j").await;
    world.clock.advance(11 * DAY);
    first_round(world).await;
    let late = world.record(session, failure(&attempt)).await;
    assert_eq!(late, innkeeper::store::Recording::Stale);
    world.store.save_checkpoint(holder(session, &attempt), &json!({})).await.unwrap_err();
    assert_eq!(all(world).await, [1, 1, 1, 0, 0, 0, 2]);
    world.clock.advance(HOUR);
    first_round(world).await;
    assert_eq!(all(world).await, [1, 1, 1, 0, 0, 0, 0]);
});

rule!(under_a_steady_load_the_tables_do_not_grow_from_day_to_day, async |world: &World| {
    let jobs = [
        Job { history: History { keep: Some(5 * DAY), last: None }, ..every("seldom", 7200) },
        Job { history: History { keep: Some(5 * DAY), last: Some(10) }, ..every("often", 3600) },
    ];
    world.jobs(&jobs).await;
    let mut known = Vec::new();
    let (mut sizes, mut pages) = (Vec::new(), Vec::new());
    for _ in 0..14 {
        // Another host every day, which ends.
        let session = world.host("inn").await;
        for _ in 0..24 {
            world.clock.advance(HOUR);
            awake(world, session).await;
            world.store.plan(10).await.unwrap();
            for attempt in world.store.claim(session, 10).await.unwrap() {
                world.store.append_log(holder(session, &attempt), &[line(world)]).await.unwrap();
                world.record(session, success(&attempt)).await;
            }
        }
        world.store.end_session(session).await.unwrap();
        round(world, &mut known).await;
        sizes.push(all(world).await);
        pages.push(match world.database.engine() {
            Engine::Sqlite => world.scalar("select * from pragma_page_count").await,
            Engine::Postgres => 0,
        });
    }
    let per_day = 12 + 10;
    for (day, rows) in sizes.iter().enumerate() {
        assert!(
            rows[..4].iter().all(|rows| (per_day..=5 * 12 + 10 + 12).contains(rows)),
            "day {day}: {rows:?}"
        );
    }
    assert_eq!(sizes[9], sizes[13], "one day is as another");
    assert!(world.count("host_session", "true").await <= 9);
    // On SQLite, what was removed made room for what came after it.
    assert!(pages[13] <= pages[9], "the file grows: {pages:?} pages");
});
