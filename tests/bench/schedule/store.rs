//! What jobs cost that are not due: a tick of the planner and a START among many jobs, against the
//! same among few, and how long a start of the host takes to write them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use innkeeper::job::{History, Job, Name, OnCrash};
use innkeeper::policy::Policies;
use innkeeper::retry::RetryPolicy;
use innkeeper::schedule::{Schedule, Spec};
use innkeeper::store::{NewExecution, NewSession, SessionId, Store};
use innkeeper_tests::clock::TestClock;
use innkeeper_tests::database::{Engine, TestDatabase};
use uuid::Uuid;

use crate::Selection;
use crate::figure::{Figure, Goal, Report};
use crate::rounds::{Comparison, Round, alternate};

const FEW: usize = 1_000;
const MANY: usize = 100_000;

/// Jobs that are due in a tick.
const DUE: usize = 100;

const AMONG_FEW: &str = "among 1,000 jobs";

/// Neither side does more with more jobs, up to the depth of an index.
const GOAL: Goal = Goal::AtMost(1.3);

/// Measures what is selected.
pub(super) async fn measure(selection: &Selection, report: &mut Report) -> Result<()> {
    for (engine, suffix) in [(Engine::Sqlite, "sqlite"), (Engine::Postgres, "postgres")] {
        let names = ["idle_tick", "due_tick", "start", "save_jobs", "same_jobs"];
        let [idle, due, start, save, same] = names.map(|name| format!("{name}_100k_{suffix}"));
        if ![&idle, &due, &start, &save, &same].into_iter().any(|name| selection.wants(name)) {
            continue;
        }
        let few = Side::new(engine, FEW).await?;
        let many = Side::new(engine, MANY).await?;
        report.add(&save, Ok(Figure::alone(&save, millis(many.saved), "ms")));
        let began = Instant::now();
        many.store.sync_jobs("bench", &many.jobs).await.context("the same jobs again")?;
        report.add(&same, Ok(Figure::alone(&same, millis(began.elapsed()), "ms")));
        let rounds = selection.rounds(101);
        let compared = alternate(rounds, async || round(&few, &many, Side::idle_tick).await).await;
        report.add(&idle, compared.map(|compared| against_few(&idle, compared)));
        let compared = alternate(rounds, async || round(&few, &many, Side::due_tick).await).await;
        report.add(&due, compared.map(|compared| against_few(&due, compared)));
        let compared = alternate(rounds, async || round(&few, &many, Side::start).await).await;
        report.add(&start, compared.map(|compared| against_few(&start, compared)));
    }
    Ok(())
}

fn against_few(name: &str, compared: Comparison) -> Figure {
    Figure {
        against: Some(AMONG_FEW),
        ratio: Some(compared.ratio),
        goal: Some(GOAL),
        between: Some(compared.between),
        ..Figure::alone(name, compared.value, "us")
    }
}

async fn round(few: &Side, many: &Side, step: impl AsyncFn(&Side) -> Result<Duration>) -> Result<Round> {
    let theirs = step(few).await?;
    let ours = step(many).await?;
    Ok(Round { ours: ours.as_secs_f64() * 1e6, theirs: theirs.as_secs_f64() * 1e6 })
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A store with so many jobs that fire once a year, and some that fire every minute.
struct Side {
    store: Store,
    clock: TestClock,
    session: SessionId,
    jobs: Vec<Job>,
    saved: Duration,
    /// Dropped last, since dropping it removes the database.
    _database: TestDatabase,
}

impl Side {
    async fn new(engine: Engine, count: usize) -> Result<Self> {
        let database = TestDatabase::migrated(engine).await;
        let clock = TestClock::at("2026-03-01T12:00:30Z");
        let store = database.store(2).await.with_clock(clock.for_store());
        store.save_component("sha256:c0ffee", &serde_json::json!([])).await?;
        let jobs = (0..count).map(job).collect::<Result<Vec<_>>>()?;
        let began = Instant::now();
        store.sync_jobs("bench", &jobs).await?;
        let saved = began.elapsed();
        let plugins = [(Name::new("p")?, "sha256:c0ffee".to_owned())];
        let session = NewSession {
            host: "bench",
            boot_id: Uuid::new_v4(),
            version: "0.0.0",
            ttl: Duration::from_secs(1_000_000),
            slots: 100,
            plugins: &plugins,
        };
        let session = store.register_session(&session).await?;
        Ok(Self { store, clock, session, jobs, saved, _database: database })
    }

    async fn idle_tick(&self) -> Result<Duration> {
        let began = Instant::now();
        self.store.plan(500).await?;
        Ok(began.elapsed())
    }

    async fn due_tick(&self) -> Result<Duration> {
        self.clock.advance(Duration::from_secs(60));
        let began = Instant::now();
        let planned = self.store.plan(500).await?;
        let took = began.elapsed();
        anyhow::ensure!(planned.fired.len() == DUE, "{} jobs fired", planned.fired.len());
        while !self.store.claim(self.session, 500).await?.is_empty() {}
        Ok(took)
    }

    async fn start(&self) -> Result<Duration> {
        let name = &self.jobs[0].name;
        let execution = NewExecution {
            job: name,
            args: None,
            triggered_by: innkeeper::execution::Trigger::Manual,
            run_at: None,
            unique_key: None,
            by: None,
        };
        self.store.enqueue(&execution).await?;
        let began = Instant::now();
        let started = self.store.claim(self.session, 32).await?;
        anyhow::ensure!(started.len() == 1, "{} executions were started", started.len());
        Ok(began.elapsed())
    }
}

/// The first are due every minute, the others once a year.
fn job(number: usize) -> Result<Job> {
    let cron = if number < DUE {
        "* * * * *".to_owned()
    } else {
        format!("{} {} {} 1 *", number % 60, number / 60 % 24, number / 1_440 % 28 + 1)
    };
    let zone = Some("Europe/Berlin".to_owned());
    let schedule = Schedule::new(&Spec { cron: Some(cron), timezone: zone, ..Spec::default() })?;
    Ok(Job {
        name: Name::new(format!("job-{number}"))?,
        plugin: Name::new("p")?,
        handler: "h".into(),
        args: serde_json::json!({}),
        schedule: Some(schedule),
        enabled: true,
        retry: RetryPolicy::default(),
        timeout: Duration::from_secs(60),
        on_crash: OnCrash::Retry,
        history: History::default(),
        policies: Policies::default(),
    })
}
