//! Limits over all hosts: of a job, of a key, of a queue, and in a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use innkeeper::execution::{Attempt, Next, Outcome, State};
use innkeeper::job::Job;
use innkeeper::policy::{Concurrency, PerKey, Policies, Rate, WhenFull};
use innkeeper::store::{Claim, NewExecution, QueueId, SessionId};
use serde_json::json;
use uuid::Uuid;

use crate::rule;
use crate::world::{World, by_hand, failure, job, name, success};

fn limited(limit: u32, when_full: WhenFull) -> Job {
    with(Concurrency { limit: Some(limit), per_key: None, when_full })
}

fn per_customer(limit: Option<u32>, per_key: u32) -> Job {
    let per_key = Some(PerKey { pointer: "/customer".into(), limit: per_key });
    with(Concurrency { limit, per_key, when_full: WhenFull::Queue })
}

fn with(concurrency: Concurrency) -> Job {
    Job { policies: Policies { concurrency: Some(concurrency), ..Policies::default() }, ..job("j") }
}

fn rated(count: u32, seconds: u64) -> Job {
    let rate = Some(Rate { count, period: Duration::from_secs(seconds) });
    Job { policies: Policies { rate, ..Policies::default() }, ..job("j") }
}

impl World {
    /// Lets on what may go on, and claims all of it.
    async fn start_all(&self, session: SessionId) -> Vec<Attempt> {
        self.store.plan(100).await.unwrap();
        self.store.claim(session, 100).await.unwrap()
    }

    async fn enqueue_many(&self, count: usize) -> Vec<Uuid> {
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(self.enqueue("j").await);
        }
        ids
    }

    async fn enqueue_for(&self, customer: &str) -> Uuid {
        let (j, args) = (name("j"), json!({ "customer": customer }));
        self.store.enqueue(&NewExecution { args: Some(&args), ..by_hand(&j) }).await.unwrap().id
    }

    async fn why(&self, id: Uuid) -> String {
        self.execution(id).await.error.expect("it has a reason").message
    }
}

rule!(
    no_more_run_at_once_than_the_job_allows_and_the_next_goes_on_when_one_has_ended,
    async |world: &World| {
        world.jobs(&[limited(2, WhenFull::Queue)]).await;
        let session = world.host("inn-1").await;
        let ids = world.enqueue_many(4).await;
        let first = world.start_all(session).await;
        assert_eq!(first.iter().map(|a| a.execution).collect::<Vec<_>>(), ids[..2]);
        assert!(world.start_all(session).await.is_empty(), "the limit is reached");
        world.record(session, success(&first[0])).await;
        let next = world.start_all(session).await;
        assert_eq!(next.iter().map(|a| a.execution).collect::<Vec<_>>(), ids[2..3]);
    }
);

rule!(a_limit_holds_over_all_hosts_however_they_race, async |world: &World| {
    const LIMIT: usize = 3;
    world.jobs(&[limited(3, WhenFull::Queue)]).await;
    world.enqueue_many(60).await;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let done = Arc::new(AtomicUsize::new(0));
    let mut hosts = Vec::new();
    for host in ["inn-1", "inn-2", "inn-3"] {
        let (session, store) = (world.host(host).await, world.another_store(2).await);
        let (running, most, done) = (running.clone(), most.clone(), done.clone());
        hosts.push(tokio::spawn(async move {
            while done.load(Ordering::SeqCst) < 60 {
                store.plan(10).await.unwrap();
                let attempts = store.claim(session, 2).await.unwrap();
                let now = running.fetch_add(attempts.len(), Ordering::SeqCst) + attempts.len();
                most.fetch_max(now, Ordering::SeqCst);
                for attempt in attempts {
                    tokio::task::yield_now().await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    store.record(session, &[success(&attempt)]).await.unwrap();
                    done.fetch_add(1, Ordering::SeqCst);
                }
            }
        }));
    }
    for host in hosts {
        host.await.unwrap();
    }
    let most = most.load(Ordering::SeqCst);
    assert!((1..=LIMIT).contains(&most), "{most} ran at once");
    assert_eq!(world.count("permit", "true").await, 0);
});

rule!(each_key_has_a_limit_of_its_own, async |world: &World| {
    world.jobs(&[per_customer(None, 1)]).await;
    let session = world.host("inn-1").await;
    let (a1, a2) = (world.enqueue_for("a").await, world.enqueue_for("a").await);
    let b1 = world.enqueue_for("b").await;
    let first = world.start_all(session).await;
    assert_eq!(first.iter().map(|a| a.execution).collect::<Vec<_>>(), [a1, b1]);
    world.record(session, success(&first[0])).await;
    let next = world.start_all(session).await;
    assert_eq!(next.iter().map(|a| a.execution).collect::<Vec<_>>(), [a2]);
});

rule!(a_job_may_have_a_limit_for_each_key_and_one_for_all, async |world: &World| {
    world.jobs(&[per_customer(Some(2), 1)]).await;
    let session = world.host("inn-1").await;
    for customer in ["a", "a", "b", "c", "c"] {
        world.enqueue_for(customer).await;
    }
    let mut customers = Vec::new();
    for _ in 0..10 {
        let started = world.start_all(session).await;
        assert!(started.len() <= 2);
        let keys: Vec<_> = started.iter().map(|a| a.args["customer"].clone()).collect();
        assert!(keys.len() < 2 || keys[0] != keys[1], "{keys:?}");
        customers.extend(keys);
        for attempt in &started {
            world.record(session, success(attempt)).await;
        }
    }
    assert_eq!(customers.len(), 5, "{customers:?}");
});

rule!(what_finds_the_limit_reached_is_skipped_where_the_job_says_so, async |world: &World| {
    world.jobs(&[limited(1, WhenFull::Skip)]).await;
    let session = world.host("inn-1").await;
    let first = world.enqueue("j").await;
    let attempt = world.start_all(session).await.remove(0);
    let late = world.enqueue("j").await;
    assert!(world.start_all(session).await.is_empty());
    assert_eq!(world.state(late).await, State::Skipped);
    assert_eq!(world.why(late).await, format!("the limit of 1 at once was reached by {first}"));
    world.record(session, success(&attempt)).await;
    assert!(world.start_all(session).await.is_empty(), "what was skipped does not come back");
});

rule!(a_retry_waits_in_line_also_where_new_ones_are_skipped, async |world: &World| {
    world.jobs(&[limited(1, WhenFull::Skip)]).await;
    let session = world.host("inn-1").await;
    let first = world.enqueue("j").await;
    let attempt = world.start_all(session).await.remove(0);
    world.record(session, failure(&attempt)).await;
    let second = world.enqueue("j").await;
    let other = world.start_all(session).await.remove(0);
    assert_eq!(other.execution, second, "while one waits to be tried again, others go on");
    world.clock.advance(Duration::from_secs(10));
    assert!(world.start_all(session).await.is_empty());
    world.record(session, success(&other)).await;
    assert_eq!(world.start_all(session).await[0].execution, first);
});

rule!(the_newest_replaces_what_runs_and_what_waits, async |world: &World| {
    world.jobs(&[limited(1, WhenFull::Replace)]).await;
    let session = world.host("inn-1").await;
    let running = world.enqueue("j").await;
    let attempt = world.start_all(session).await.remove(0);
    let [older, newest] = [world.enqueue("j").await, world.enqueue("j").await];
    assert!(world.start_all(session).await.is_empty(), "it waits until the other has ended");
    assert_eq!(world.state(older).await, State::Skipped);
    assert_eq!(world.why(older).await, format!("replaced by execution {newest}"));
    let requests = world.store.cancel_requests(session, 10).await.unwrap();
    assert_eq!(requests.iter().map(|request| request.execution).collect::<Vec<_>>(), [running]);
    let cancelled = attempt.finish(Outcome::Cancelled(requests[0].reason.clone()));
    world.record(session, cancelled).await;
    assert_eq!(world.state(running).await, State::Cancelled);
    assert_eq!(world.start_all(session).await[0].execution, newest);
});

rule!(a_crash_gives_the_permit_back, async |world: &World| {
    world.jobs(&[limited(1, WhenFull::Queue)]).await;
    let session = world.host("inn-1").await;
    let ids = world.enqueue_many(2).await;
    world.start_all(session).await;
    world.crash_all().await;
    let session = world.host("inn-2").await;
    let next = world.start_all(session).await;
    assert_eq!(next.iter().map(|a| a.execution).collect::<Vec<_>>(), ids[1..]);
});

rule!(what_a_drain_gives_back_stays_within_the_limit, async |world: &World| {
    world.jobs(&[limited(1, WhenFull::Queue)]).await;
    let session = world.host("inn-1").await;
    let ids = world.enqueue_many(2).await;
    let attempt = world.start_all(session).await.remove(0);
    let released = attempt.finish(Outcome::Released);
    assert_eq!(released.next, Next::Requeue);
    world.record(session, released).await;
    let again = world.start_all(session).await;
    assert_eq!(again.iter().map(|a| a.execution).collect::<Vec<_>>(), ids[..1]);
});

rule!(one_that_is_cancelled_while_it_holds_a_permit_gives_it_back, async |world: &World| {
    world.jobs(&[limited(1, WhenFull::Queue)]).await;
    let session = world.host("inn-1").await;
    let ids = world.enqueue_many(3).await;
    world.store.plan(100).await.unwrap();
    // The first is ready, and the second waits behind it.
    world.store.cancel(&ids[..2], "not today").await.unwrap();
    assert_eq!(world.start_all(session).await[0].execution, ids[2]);
    assert_eq!(world.count("permit", "true").await, 1);
});

rule!(a_limit_that_is_taken_away_lets_go_of_what_it_held, async |world: &World| {
    world.jobs(&[limited(1, WhenFull::Queue)]).await;
    let session = world.host("inn-1").await;
    world.enqueue_many(3).await;
    let first = world.start_all(session).await.remove(0);
    world.jobs(&[job("j")]).await;
    world.record(session, success(&first)).await;
    let rest = world.start_all(session).await;
    assert_eq!(rest.len(), 2);
    for attempt in rest {
        world.record(session, success(&attempt)).await;
    }
    assert_eq!(world.count("permit", "true").await, 0);
});

rule!(a_limit_that_is_raised_lets_more_go_on, async |world: &World| {
    world.jobs(&[limited(1, WhenFull::Queue)]).await;
    let session = world.host("inn-1").await;
    world.enqueue_many(3).await;
    world.start_all(session).await;
    world.jobs(&[limited(2, WhenFull::Queue)]).await;
    assert_eq!(world.start_all(session).await.len(), 1);
});

rule!(no_span_of_its_period_sees_more_starts_than_a_rate_allows, async |world: &World| {
    world.jobs(&[rated(3, 60)]).await;
    let session = world.host("inn-1").await;
    world.enqueue_many(8).await;
    // One at 12:00:00, and two at 12:00:50.
    world.store.plan(100).await.unwrap();
    assert_eq!(world.store.claim(session, 1).await.unwrap().len(), 1);
    world.clock.advance(Duration::from_secs(50));
    assert_eq!(world.start_all(session).await.len(), 2);
    world.clock.advance(Duration::from_micros(9_999_999));
    assert_eq!(world.start_all(session).await.len(), 0);
    world.clock.advance(Duration::from_micros(1));
    assert_eq!(world.start_all(session).await.len(), 1, "the first one is a minute ago");
    world.clock.advance(Duration::from_secs(49));
    assert_eq!(world.start_all(session).await.len(), 0);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.start_all(session).await.len(), 2);
});

rule!(what_was_let_through_and_starts_late_counts_from_its_start, async |world: &World| {
    world.jobs(&[rated(2, 60)]).await;
    let session = world.host("inn-1").await;
    world.enqueue_many(4).await;
    world.store.plan(100).await.unwrap();
    world.clock.advance(Duration::from_secs(300));
    world.store.plan(100).await.unwrap();
    assert_eq!(world.store.claim(session, 100).await.unwrap().len(), 2, "no host was there to start them");
    assert_eq!(world.start_all(session).await.len(), 0);
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(world.start_all(session).await.len(), 2);
});

rule!(each_attempt_counts_against_a_rate, async |world: &World| {
    world.jobs(&[rated(1, 60)]).await;
    let session = world.host("inn-1").await;
    world.enqueue("j").await;
    let attempt = world.start_all(session).await.remove(0);
    world.record(session, failure(&attempt)).await;
    world.clock.advance(Duration::from_secs(10));
    assert!(world.start_all(session).await.is_empty(), "the retry is due, and the rate used up");
    world.clock.advance(Duration::from_secs(50));
    assert_eq!(world.start_all(session).await[0].attempt, 2);
});

rule!(a_queue_has_a_limit_over_all_hosts, async |world: &World| {
    world.jobs(&[job("j")]).await;
    let [a, b] = [world.host("inn-1").await, world.host("inn-2").await];
    world.tamper("update {}queue set total_limit = 3 where id = 0").await;
    world.enqueue_many(5).await;
    let claim = Claim { is_limited: true, ..Claim::any(2) };
    assert_eq!(claim.queue, QueueId::DEFAULT);
    let first = world.store.claim_from(a, claim).await.unwrap().attempts;
    let second = world.store.claim_from(b, claim).await.unwrap().attempts;
    assert_eq!((first.len(), second.len()), (2, 1));
    assert!(world.store.claim_from(a, claim).await.unwrap().attempts.is_empty());
    world.record(a, first[0].finish(Outcome::Released)).await;
    assert_eq!(world.store.claim_from(b, claim).await.unwrap().attempts.len(), 1, "it was given back");
    world.record(a, success(&first[1])).await;
    assert_eq!(world.store.claim_from(b, claim).await.unwrap().attempts.len(), 1);
});

rule!(a_higher_priority_goes_first_but_not_for_ever, async |world: &World| {
    let important = Job { policies: Policies { priority: 5, ..Policies::default() }, ..job("important") };
    world.jobs(&[job("j"), important]).await;
    let session = world.host("inn-1").await;
    let waiting = world.enqueue("j").await;
    world.clock.advance(Duration::from_secs(60));
    let important = world.enqueue("important").await;
    // Five steps of a minute are not used up before this.
    world.clock.advance(Duration::from_secs(5 * 60));
    let late = world.enqueue("important").await;
    let order: Vec<Uuid> =
        world.store.claim(session, 10).await.unwrap().iter().map(|a| a.execution).collect();
    assert_eq!(order, [important, waiting, late]);
});

rule!(a_cancel_beside_a_planner_loses_no_execution_and_no_permit, async |world: &World| {
    world.jobs(&[limited(2, WhenFull::Queue)]).await;
    let ids = world.enqueue_many(30).await;
    let session = world.host("inn-1").await;
    let stop = Arc::new(AtomicBool::new(false));
    let (planner, stopped) = (world.another_store(2).await, stop.clone());
    let planning = tokio::spawn(async move {
        while !stopped.load(Ordering::SeqCst) {
            planner.plan(10).await.unwrap();
        }
    });
    for id in &ids[..20] {
        world.store.cancel(&[*id], "not today").await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    planning.await.unwrap();
    let mut run = 0;
    loop {
        let started = world.start_all(session).await;
        if started.is_empty() {
            break;
        }
        for attempt in started {
            world.record(session, success(&attempt)).await;
            run += 1;
        }
    }
    assert_eq!(run, 10);
    for id in &ids[..20] {
        assert_eq!(world.state(*id).await, State::Cancelled);
    }
    assert_eq!(world.count("permit", "true").await, 0);
});
