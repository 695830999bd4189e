//! START, where plugins have limits on the host: what there is no room for stays, and stands in nobody's
//! way.

use std::collections::HashSet;
use std::time::Duration;

use innkeeper::job::Job;
use innkeeper::policy::Policies;
use innkeeper::store::{Claim, PhaseName, PluginRoom, SessionId, Started};
use uuid::Uuid;

use crate::rule;
use crate::world::{World, job, name, success};

fn of_plugin(job_name: &str, plugin: &str) -> Job {
    Job { plugin: name(plugin), ..job(job_name) }
}

fn rooms<const N: usize>(free: [(&str, u32); N]) -> Vec<PluginRoom> {
    free.into_iter().map(|(plugin, free)| PluginRoom { plugin: name(plugin), free }).collect()
}

impl World {
    /// Jobs `p1` and `p2` of plugin `p`, `q` of plugin `q`, and a host with both.
    async fn neighbours(&self) -> SessionId {
        self.jobs(&[of_plugin("p1", "p"), of_plugin("p2", "p"), of_plugin("q", "q")]).await;
        self.host_with("inn-1", &["p", "q"]).await
    }

    /// Enqueues these, each a second after the one before.
    async fn line_up<const N: usize>(&self, jobs: [&str; N]) -> [Uuid; N] {
        let mut ids = [Uuid::nil(); N];
        for (id, job) in ids.iter_mut().zip(jobs) {
            *id = self.enqueue(job).await;
            self.clock.advance(Duration::from_secs(1));
        }
        ids
    }

    async fn claim_within(&self, session: SessionId, limit: u32, rooms: &[PluginRoom]) -> Started {
        self.store.claim_from(session, Claim { rooms, ..Claim::any(limit) }).await.unwrap()
    }
}

fn ids(started: &Started) -> Vec<Uuid> {
    started.attempts.iter().map(|attempt| attempt.execution).collect()
}

rule!(what_is_of_a_full_plugin_stays_and_what_stands_behind_it_starts, async |world: &World| {
    let session = world.neighbours().await;
    let [p1, p2, q] = world.line_up(["p1", "p2", "q"]).await;
    let started = world.claim_within(session, 1, &rooms([("p", 0)])).await;
    assert_eq!(ids(&started), [q]);
    assert!(!started.to_the_end, "there may be more");
    let started = world.claim_within(session, 10, &rooms([("p", 0)])).await;
    assert_eq!((ids(&started), started.to_the_end), (vec![], true));
    let started = world.claim_within(session, 10, &rooms([("p", 2)])).await;
    assert_eq!(ids(&started), [p1, p2]);
    assert_eq!(world.count("ready", "true").await, 0);
});

rule!(no_more_of_a_plugin_start_at_once_than_there_is_room_for, async |world: &World| {
    let session = world.neighbours().await;
    let [first, second, third, q] = world.line_up(["p1", "p2", "p1", "q"]).await;
    let started = world.claim_within(session, 10, &rooms([("p", 2), ("q", 7)])).await;
    assert_eq!(ids(&started), [first, second, q], "in the order in which they were due");
    assert_eq!((started.claimed, started.found, started.to_the_end), (3, 4, true));
    assert_eq!(world.list(Some("p1"), Some(innkeeper::execution::State::Queued)).await, [third]);
    let started = world.claim_within(session, 10, &rooms([("p", 1), ("q", 6)])).await;
    assert_eq!(ids(&started), [third]);
});

rule!(
    a_claim_that_meets_too_many_of_a_plugin_says_so_and_the_next_one_goes_on_behind,
    async |world: &World| {
        let session = world.neighbours().await;
        let [first, _, _, q] = world.line_up(["p1", "p1", "p1", "q"]).await;
        let started = world.claim_within(session, 3, &rooms([("p", 1)])).await;
        assert_eq!(ids(&started), [first]);
        assert_eq!((started.claimed, started.found, started.to_the_end), (1, 3, false));
        let (lowest, highest) = (started.lowest_rank.unwrap(), started.highest_rank.unwrap());
        assert_eq!(highest - lowest, 2_000_000, "it looked at three, a second apart");
        let started = world.claim_within(session, 2, &rooms([("p", 0)])).await;
        assert_eq!(ids(&started), [q]);
    }
);

rule!(a_higher_priority_goes_first_within_a_plugin_s_room, async |world: &World| {
    let urgent = Policies { priority: 5, ..Policies::default() };
    world.jobs(&[job("usual"), Job { policies: urgent, ..job("urgent") }]).await;
    let session = world.host("inn-1").await;
    let [usual, urgent] = world.line_up(["usual", "urgent"]).await;
    let room = rooms([("p", 1)]);
    assert_eq!(ids(&world.claim_within(session, 10, &room).await), [urgent]);
    assert_eq!(ids(&world.claim_within(session, 10, &room).await), [usual]);
});

rule!(a_limit_of_a_plugin_that_has_nothing_to_run_changes_nothing, async |world: &World| {
    let session = world.neighbours().await;
    let all = world.line_up(["p1", "q", "p2"]).await;
    let started = world.claim_within(session, 10, &rooms([("nobody", 0), ("else", 3)])).await;
    assert_eq!(ids(&started), all);
    assert_eq!((started.found, started.to_the_end), (3, true));
});

rule!(only_what_is_passed_by_for_want_of_room_is_there_for_another_host, async |world: &World| {
    let one = world.neighbours().await;
    let [first, second, third] = world.line_up(["p1", "p2", "p1"]).await;
    let other = world.host("inn-2").await;
    assert_eq!(ids(&world.claim_within(one, 10, &rooms([("p", 1)])).await), [first]);
    assert_eq!(ids(&world.claim_within(other, 10, &rooms([("p", 1)])).await), [second]);
    assert!(ids(&world.claim_within(one, 10, &rooms([("p", 0)])).await).is_empty());
    let attempts = world.claim_within(other, 10, &[]).await.attempts;
    assert_eq!(attempts[0].execution, third, "a host without a limit");
    world.record(other, success(&attempts[0])).await;
});

rule!(hosts_that_race_keep_their_limits_and_start_everything_once, async |world: &World| {
    const EACH: u32 = 3;
    let mut jobs: Vec<Job> = (0..4).map(|number| of_plugin(&format!("p-{number}"), "p")).collect();
    jobs.push(of_plugin("q", "q"));
    world.jobs(&jobs).await;
    for number in 0..60 {
        world.enqueue(jobs[number % jobs.len()].name.as_str()).await;
    }
    let mut hosts = tokio::task::JoinSet::new();
    for number in 0..4 {
        let session = world.host_with(&format!("inn-{number}"), &["p", "q"]).await;
        let store = world.another_store(1).await;
        hosts.spawn(async move {
            let mut claimed = Vec::new();
            for _ in 0..12 {
                let rooms = rooms([("p", EACH)]);
                let started =
                    store.claim_from(session, Claim { rooms: &rooms, ..Claim::any(8) }).await.unwrap();
                let of_p = started.attempts.iter().filter(|attempt| attempt.job.plugin == name("p")).count();
                assert!(of_p <= EACH as usize, "{of_p} of plugin p at once");
                for attempt in &started.attempts {
                    store.record(session, &[success(attempt)]).await.unwrap();
                }
                claimed.extend(started.attempts);
            }
            claimed
        });
    }
    let mut claimed: Vec<_> = hosts.join_all().await.into_iter().flatten().collect();
    // What they have passed by, since another one was just claiming it.
    let last = world.host_with("last", &["p", "q"]).await;
    claimed.extend(world.claim_within(last, 60, &[]).await.attempts);
    let executions: HashSet<_> = claimed.iter().map(|attempt| attempt.execution).collect();
    assert_eq!((claimed.len(), executions.len()), (60, 60));
    assert_eq!(world.count("ready", "true").await, 0);
});

rule!(what_another_host_is_claiming_is_passed_by_within_limits_as_well, async |world: &World| {
    if world.database.engine() == innkeeper_tests::database::Engine::Sqlite {
        // It has one writer: claims come one after the other.
        return;
    }
    let one = world.neighbours().await;
    let other = world.host_with("inn-2", &["p", "q"]).await;
    let [first, second] = world.line_up(["p1", "p1"]).await;
    let room = rooms([("p", 1)]);
    let mut start = world.store.begin(PhaseName::Start).await.unwrap();
    start.tx().hold_session(one).await.unwrap();
    let claim = Claim { rooms: &room, ..Claim::any(1) };
    assert_eq!(ids(&start.tx().start_from(one, claim).await.unwrap()), [first]);
    assert_eq!(ids(&world.claim_within(other, 10, &room).await), [second]);
    start.commit().await.unwrap();
});
