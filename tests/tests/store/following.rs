//! Jobs that follow others: fires that wait for them, jobs that they trigger, jobs that run when they
//! have failed.

use std::time::Duration;

use innkeeper::execution::{Failure, FailureKind, Outcome, State, Trigger};
use innkeeper::job::Job;
use innkeeper::policy::{After, CatchUp, CatchUpMode, Concurrency, Policies, When, WhenFull};
use innkeeper::store::SessionId;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rule;
use crate::world::{World, every, job, name, success};

fn after(job: Job, jobs: &[&str], when: When) -> Job {
    let after = Some(After { jobs: jobs.iter().map(|job| name(job)).collect(), when });
    Job { policies: Policies { after, ..job.policies.clone() }, ..job }
}

fn on_failure(job: Job, then: &str) -> Job {
    Job { policies: Policies { on_failure: Some(name(then)), ..job.policies.clone() }, ..job }
}

impl World {
    /// Runs everything that may run, until nothing more does; the executions in their order.
    async fn run_all(&self, session: SessionId) -> Vec<Uuid> {
        let mut ran = Vec::new();
        loop {
            self.store.plan(100).await.unwrap();
            let attempts = self.store.claim(session, 100).await.unwrap();
            if attempts.is_empty() {
                return ran;
            }
            for attempt in attempts {
                ran.push(attempt.execution);
                self.record(session, success(&attempt)).await;
            }
        }
    }

    async fn fail(&self, session: SessionId, job: &str) -> Uuid {
        let id = self.enqueue(job).await;
        let attempt = self.claim_one(session).await;
        let failure = Failure::new(FailureKind::Permanent, "the disk is full");
        self.record(session, attempt.finish(Outcome::Failed(failure))).await;
        id
    }

    async fn only(&self, job: &str) -> innkeeper::store::ExecutionRecord {
        let ids = self.list(Some(job), None).await;
        assert_eq!(ids.len(), 1, "one execution of {job}");
        self.execution(ids[0]).await
    }
}

rule!(a_fire_waits_until_the_jobs_before_it_have_succeeded_since_its_last_run, async |world: &World| {
    let report = after(every("report", 3600), &["a", "b"], When::All);
    world.jobs(&[job("a"), job("b"), report]).await;
    let session = world.host("inn-1").await;
    world.clock.advance(Duration::from_secs(3600));
    assert!(world.run_all(session).await.is_empty(), "neither has succeeded");
    world.enqueue("a").await;
    assert_eq!(world.run_all(session).await.len(), 1, "only a");
    world.enqueue("b").await;
    assert_eq!(world.run_all(session).await.len(), 2, "b, and then the report");
    assert_eq!(world.only("report").await.state, State::Succeeded);

    world.clock.advance(Duration::from_secs(3600));
    world.enqueue("a").await;
    assert_eq!(world.run_all(session).await.len(), 1, "b has not succeeded since");
});

rule!(a_failure_does_not_let_a_fire_go_on, async |world: &World| {
    world.jobs(&[job("a"), after(every("report", 3600), &["a"], When::All)]).await;
    let session = world.host("inn-1").await;
    world.fail(session, "a").await;
    world.clock.advance(Duration::from_secs(3600));
    assert!(world.run_all(session).await.is_empty());
});

rule!(of_fires_that_wait_for_others_the_newest_goes_on_and_the_rest_is_on_record, async |world: &World| {
    world.jobs(&[job("a"), after(every("report", 3600), &["a"], When::All)]).await;
    let session = world.host("inn-1").await;
    for _ in 0..3 {
        world.clock.advance(Duration::from_secs(3600));
        assert!(world.run_all(session).await.is_empty());
    }
    world.enqueue("a").await;
    assert_eq!(world.run_all(session).await.len(), 2);
    let states: Vec<State> = {
        let mut states = Vec::new();
        for id in world.list(Some("report"), None).await {
            states.push(world.state(id).await);
        }
        states
    };
    assert_eq!(states, [State::Succeeded, State::Skipped, State::Skipped], "the newest first");
});

rule!(a_job_that_catches_up_with_all_runs_each_fire_after_a_success_of_its_own, async |world: &World| {
    let mut report = after(every("report", 3600), &["a"], When::All);
    report.policies.catch_up = CatchUp { mode: CatchUpMode::All, ..CatchUp::default() };
    world.jobs(&[job("a"), report]).await;
    let session = world.host("inn-1").await;
    world.clock.advance(Duration::from_secs(3600));
    world.run_all(session).await;
    world.clock.advance(Duration::from_secs(3600));
    world.run_all(session).await;
    for _ in 0..2 {
        world.enqueue("a").await;
        assert_eq!(world.run_all(session).await.len(), 2);
    }
});

rule!(a_job_without_a_schedule_runs_after_each_success_with_its_result, async |world: &World| {
    world.jobs(&[job("a"), job("b"), after(job("next"), &["a", "b"], When::Any)]).await;
    let session = world.host("inn-1").await;
    let a = world.enqueue("a").await;
    assert_eq!(world.run_all(session).await.len(), 2);
    let next = world.only("next").await;
    assert_eq!((next.state, next.triggered_by), (State::Succeeded, Trigger::Dependency));
    assert_eq!(next.args["days"], 7, "its own arguments are there as well");
    assert_eq!(next.args["after"]["a"]["execution"], a.to_string());
    assert_eq!(next.args["after"]["a"]["result"], json!({ "deleted": 3 }));
    assert_eq!(next.args["after"]["b"], Value::Null);
    world.enqueue("b").await;
    world.enqueue("b").await;
    assert_eq!(world.run_all(session).await.len(), 4);
});

rule!(a_job_after_all_of_several_runs_once_each_has_succeeded, async |world: &World| {
    world.jobs(&[job("a"), job("b"), after(job("next"), &["a", "b"], When::All)]).await;
    let session = world.host("inn-1").await;
    world.enqueue("a").await;
    let a = world.enqueue("a").await;
    assert_eq!(world.run_all(session).await.len(), 2);
    let b = world.enqueue("b").await;
    assert_eq!(world.run_all(session).await.len(), 2);
    let next = world.only("next").await;
    assert_eq!(next.args["after"]["a"]["execution"], a.to_string(), "the latest");
    assert_eq!(next.args["after"]["b"]["execution"], b.to_string());
    world.enqueue("b").await;
    assert_eq!(world.run_all(session).await.len(), 1, "a has not succeeded since");
});

rule!(a_job_runs_when_another_has_finally_failed_and_is_told_why, async |world: &World| {
    world.jobs(&[on_failure(job("a"), "tell"), job("tell")]).await;
    let session = world.host("inn-1").await;
    world.enqueue("a").await;
    assert_eq!(world.run_all(session).await.len(), 1, "a success tells nobody");
    let failed = world.fail(session, "a").await;
    assert_eq!(world.run_all(session).await.len(), 1);
    let told = world.only("tell").await;
    assert_eq!(told.args["failed"]["job"], "a");
    assert_eq!(told.args["failed"]["execution"], failed.to_string());
    assert_eq!(told.args["failed"]["error"]["message"], "the disk is full");
});

rule!(a_crash_tells_of_a_failure_once_it_was_the_last_attempt, async |world: &World| {
    world.jobs(&[on_failure(job("a"), "tell"), job("tell")]).await;
    world.enqueue("a").await;
    for attempt in 1..=3 {
        world.clock.advance(Duration::from_secs(10));
        let session = world.host("inn-1").await;
        world.store.plan(100).await.unwrap();
        assert!(world.list(Some("tell"), None).await.is_empty(), "attempt {attempt} is to come");
        assert_eq!(world.claim_one(session).await.attempt, attempt);
        world.crash_all().await;
    }
    world.store.plan(100).await.unwrap();
    assert_eq!(world.only("tell").await.args["failed"]["error"]["kind"], "crashed");
});

rule!(what_follows_keeps_within_its_own_limits, async |world: &World| {
    let mut next = after(job("next"), &["a"], When::Any);
    next.policies.concurrency =
        Some(Concurrency { limit: Some(1), per_key: None, when_full: WhenFull::Queue });
    world.jobs(&[job("a"), next]).await;
    let session = world.host("inn-1").await;
    for _ in 0..3 {
        world.enqueue("a").await;
    }
    for attempt in world.store.claim(session, 100).await.unwrap() {
        world.record(session, success(&attempt)).await;
    }
    world.store.plan(100).await.unwrap();
    assert_eq!(world.list(Some("next"), None).await.len(), 3);
    assert_eq!(world.store.claim(session, 100).await.unwrap().len(), 1);
});

rule!(a_disabled_job_follows_nobody, async |world: &World| {
    let next = Job { enabled: false, ..after(job("next"), &["a"], When::Any) };
    world.jobs(&[job("a"), next]).await;
    let session = world.host("inn-1").await;
    world.enqueue("a").await;
    assert_eq!(world.run_all(session).await.len(), 1);
    world.jobs(&[job("a"), after(job("next"), &["a"], When::Any)]).await;
    assert!(world.run_all(session).await.is_empty(), "nor later, when it is enabled");
});

rule!(a_schedule_that_counts_from_the_end_fires_so_long_after_it, async |world: &World| {
    let spec = innkeeper::schedule::Spec {
        every_after: Some(Duration::from_secs(60)),
        ..innkeeper::schedule::Spec::default()
    };
    let schedule = Some(innkeeper::schedule::Schedule::new(&spec).unwrap());
    world.jobs(&[Job { schedule, ..job("j") }]).await;
    let session = world.host("inn-1").await;
    world.clock.advance(Duration::from_secs(60));
    world.store.plan(100).await.unwrap();
    let attempt = world.claim_one(session).await;
    world.clock.advance(Duration::from_secs(600));
    world.store.plan(100).await.unwrap();
    assert!(world.store.claim(session, 100).await.unwrap().is_empty(), "it is not over");
    world.record(session, success(&attempt)).await;
    world.clock.advance(Duration::from_secs(59));
    world.store.plan(100).await.unwrap();
    assert!(world.store.claim(session, 100).await.unwrap().is_empty());
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.run_all(session).await.len(), 1);
});

rule!(
    a_job_that_is_resumed_is_not_flooded_by_what_ended_meanwhile_and_the_rest_is_on_record,
    async |world: &World| {
        world.jobs(&[job("a"), after(job("next"), &["a"], When::Any)]).await;
        let session = world.host("inn-1").await;
        world.store.pause_job(&name("next"), None).await.unwrap();
        for _ in 0..3 {
            world.enqueue("a").await;
        }
        assert_eq!(world.run_all(session).await.len(), 3);
        assert_eq!(world.list(Some("next"), Some(State::Skipped)).await.len(), 2);
        world.store.resume_job(&name("next")).await.unwrap();
        assert_eq!(world.run_all(session).await.len(), 1);
        assert_eq!(world.list(Some("next"), None).await.len(), 3);
    }
);
