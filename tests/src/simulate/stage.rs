//! The stage: the store, the two clocks and the hosts, and how the time goes on.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use anyhow::{Result, ensure};
use innkeeper::database_url::DatabaseUrl;
use innkeeper::job::Job;
use innkeeper::policy::Queue;
use innkeeper::store::{JobHistory, SessionId, Store};
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::host::Host;
use super::ledger::Ledger;
use super::limits::Limits;
use super::records::Records;
use super::{Options, Report, Violation, cast};
use crate::clock::TestClock;

/// Microseconds.
pub const SECOND: i64 = 1_000_000;
pub const MINUTE: i64 = 60 * SECOND;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;

/// How long host sessions last without a heartbeat.
pub const TTL: Duration = Duration::from_secs(60);

/// How often a host looks at all that waits. (A real one does it more often.)
const LOOK: i64 = 3 * HOUR;

/// How many events a violation tells of.
const TOLD: usize = 60;

/// Simulations begin before a change of the clock somewhere.
const STARTS: &[&str] = &[
    "2026-03-20T12:00:00Z",
    "2026-10-12T12:00:00Z",
    "2026-04-01T00:00:00Z",
    "2026-09-24T06:00:00Z",
    "2026-02-25T18:00:00Z",
];

/// An attempt that was started and has not ended.
#[derive(Clone, Debug)]
pub struct Open {
    pub lease: i64,
    pub execution: Uuid,
    pub session: SessionId,
    pub job: String,
    pub key: Option<String>,
    pub queue: String,
}

/// All of it.
pub struct Stage {
    pub options: Options,
    pub store: Store,
    clock: TestClock,
    pub records: Records,
    pub random: fastrand::Rng,
    pub start: Timestamp,
    /// What has really passed since then, in microseconds.
    pub real: i64,
    /// How far the store's clock is ahead.
    pub offset: i64,
    /// The store's clock was set just now.
    pub stepped: bool,
    pub hosts: Vec<Host>,
    /// The file as it is now, and all that it could have.
    pub file: Vec<Job>,
    pub all_jobs: Vec<Job>,
    pub queues: Vec<Queue>,
    pub paused: BTreeSet<String>,
    pub paused_queues: BTreeSet<String>,
    pub open: BTreeMap<i64, Open>,
    /// Executions that were asked to end.
    pub requested: HashSet<Uuid>,
    pub ledger: Ledger,
    pub limits: Limits,
    pub histories: Vec<JobHistory>,
    /// When there is something for a planner, by the store's clock.
    pub plan_at: Timestamp,
    pub may_cancel: bool,
    pub next_event: i64,
    pub correct_at: Option<i64>,
    /// Since when the clock was not set, and some host was up.
    pub undisturbed_since: i64,
    look_at: i64,
    audit_at: i64,
    events: VecDeque<String>,
    fingerprint: u64,
    counts: BTreeMap<&'static str, u64>,
    violation: Option<Violation>,
}

impl Stage {
    pub async fn new(options: Options, store: Store, url: &DatabaseUrl) -> Result<Self> {
        let mut random = fastrand::Rng::with_seed(options.seed);
        let start = STARTS[random.usize(..STARTS.len())];
        let clock = TestClock::at(start);
        let start = clock.now();
        let store = store.with_clock(clock.for_store());
        store.save_component("sha256:c0ffee", &json!([])).await?;
        let all_jobs = cast::jobs(start)?;
        Ok(Self {
            options,
            store,
            records: Records::open(url).await?,
            random,
            start,
            real: 0,
            offset: 0,
            stepped: false,
            hosts: (1..=3).map(Host::new).collect(),
            file: all_jobs.clone(),
            all_jobs,
            queues: cast::queues(),
            paused: BTreeSet::new(),
            paused_queues: BTreeSet::new(),
            open: BTreeMap::new(),
            requested: HashSet::new(),
            ledger: Ledger::default(),
            limits: Limits::default(),
            histories: Vec::new(),
            plan_at: start,
            may_cancel: false,
            next_event: HOUR,
            correct_at: None,
            undisturbed_since: 0,
            look_at: LOOK,
            audit_at: DAY,
            events: VecDeque::new(),
            fingerprint: 0xcbf2_9ce4_8422_2325,
            counts: BTreeMap::new(),
            violation: None,
            clock,
        })
    }

    /// All of it, to the end or to the first thing that does not hold.
    pub async fn play(&mut self) -> Result<()> {
        let end = i64::from(self.options.days) * DAY;
        while self.real < end && self.violation.is_none() {
            self.step().await?;
            if self.real >= self.next_event {
                self.next_event = self.real + self.random.i64(10 * MINUTE..5 * HOUR);
                self.something_happens().await?;
            }
            self.correct_the_clock();
            if self.real >= self.audit_at {
                self.audit_at = self.real + DAY;
                self.audit().await?;
            }
            self.advance(end);
        }
        if self.violation.is_none() {
            self.come_to_rest().await?;
        }
        Ok(())
    }

    /// All that is to be done at this moment.
    pub async fn step(&mut self) -> Result<()> {
        self.wake_hosts().await?;
        if self.any_host_up().is_none() {
            self.undisturbed_since = self.real;
        }
        if self.stepped && self.random.bool() {
            self.rescue().await?;
        }
        self.beat().await?;
        self.finish_attempts().await?;
        self.rescue().await?;
        if self.real >= self.look_at && self.any_host_up().is_some() {
            self.look_at = self.real + LOOK;
            self.may_cancel = true;
            self.store.look_at_all_that_waits().await?;
            self.plan_at = self.now();
        }
        self.stepped = false;
        for _ in 0..100 {
            self.plan().await?;
            self.heed_cancels().await?;
            if !self.claim().await? {
                return self.tighten_limits().await;
            }
            self.plan_at = self.now();
        }
        self.violate("hosts start executions without end".to_owned());
        Ok(())
    }

    async fn plan(&mut self) -> Result<()> {
        let Some(_) = self.any_host_up() else { return Ok(()) };
        let offset = self.offset;
        let hosts = self.hosts.iter_mut().filter(|host| host.is_up());
        // Each of them has to notice.
        if hosts.map(|host| host.notices_a_step_back(offset)).filter(|noticed| *noticed).count() > 0 {
            let jobs = self.store.turn_back().await?;
            let now = self.now();
            self.ledger.turned_back(now);
            self.say(format!("{jobs} jobs are planned anew"));
            self.plan_at = now;
        }
        if self.plan_at > self.now() {
            return Ok(());
        }
        let mut fired: BTreeMap<String, BTreeSet<Timestamp>> = BTreeMap::new();
        for _ in 0..200 {
            let planned = self.store.plan_from(500, None).await?;
            ensure!(planned.unreadable.is_empty(), "{:?}", planned.unreadable);
            for fire in planned.fired {
                self.say(format!("{} fires for {}", fire.job, fire.fire_time));
                self.count("fires that became executions");
                self.limits.follows.created(fire.job.as_str(), fire.execution);
                fired.entry(fire.job.to_string()).or_default().insert(fire.fire_time);
            }
            self.count_many("fires skipped, or records of several", planned.skipped);
            let admitted = planned.admitted;
            self.count_many("executions triggered by others", admitted.triggered);
            self.count_many("executions skipped at a limit", admitted.skipped);
            self.may_cancel |= admitted.replaced > 0;
            if planned.next_due != Some(Duration::ZERO) {
                let wait = planned.next_due.unwrap_or(Duration::from_secs(3_600));
                self.plan_at = self.now() + wait;
                self.compare_fires(&fired);
                return Ok(());
            }
        }
        self.violate("a planner does not come to rest".to_owned());
        Ok(())
    }

    /// What fired is what had to.
    fn compare_fires(&mut self, fired: &BTreeMap<String, BTreeSet<Timestamp>>) {
        let now = self.now();
        let paused = self.paused.clone();
        let expected = self.ledger.planned(&self.file, |job| paused.contains(job), now);
        for (job, expected) in &expected {
            let none = BTreeSet::new();
            let fired = fired.get(job).unwrap_or(&none);
            if fired != expected {
                self.violate(format!("{job} fired for {fired:?}, and not for {expected:?}"));
            }
        }
        for job in fired.keys() {
            if paused.contains(job) || self.file.iter().all(|known| known.name.as_str() != job) {
                let what = format!("{job} fired, and is paused or not in the file");
                self.violate(what);
                return;
            }
        }
    }

    /// Makes the file's jobs and queues those of the store.
    pub async fn sync(&mut self) -> Result<()> {
        self.store.sync_queues("file", &self.queues).await?;
        let synced = self.store.sync_jobs("file", &self.file).await?;
        let now = self.now();
        self.ledger.synced(&self.file, now);
        self.limits.synced(&self.file, &self.queues);
        self.count_many("fires skipped, or records of several", synced.skipped);
        self.plan_at = now;
        Ok(())
    }

    /// The store's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn set_clock(&mut self) {
        let micros = self.start.as_microsecond() + self.real + self.offset;
        let time = Timestamp::from_microsecond(micros).unwrap_or(self.start);
        self.clock.set(&time.to_string());
    }

    /// Sets the store's clock.
    pub fn step_clock(&mut self, offset: i64) {
        self.say(format!("the clock is set from {:+} s to {:+} s", self.offset / SECOND, offset / SECOND));
        if offset < self.offset {
            self.limits.forget_starts();
        }
        (self.offset, self.stepped) = (offset, true);
        self.undisturbed_since = self.real;
        self.set_clock();
        self.plan_at = self.plan_at.min(self.now());
    }

    fn correct_the_clock(&mut self) {
        if self.correct_at.is_some_and(|at| at <= self.real) {
            self.correct_at = None;
            self.step_clock(0);
        }
    }

    /// On to the next moment at which there is something to do, `end` at the latest.
    pub fn advance(&mut self, end: i64) {
        let is_any_up = self.any_host_up().is_some();
        let by_store = |at: i64, stage: &Self| at.saturating_sub(stage.now().as_microsecond()) + stage.real;
        let mut next = vec![end, self.next_event];
        next.extend(self.correct_at);
        next.extend(self.hosts.iter().filter_map(Host::next));
        if is_any_up {
            next.push(by_store(self.plan_at.as_microsecond(), self));
            next.push(self.look_at);
            let dead = self.hosts.iter().filter(|host| !host.is_up() && host.expires != i64::MAX);
            next.extend(dead.map(|host| by_store(host.expires, self)));
            next.extend(self.may_cancel.then_some(self.real + SECOND));
        }
        if self.stepped {
            next.push(self.real);
        }
        let next = next.into_iter().min().unwrap_or(end).max(self.real + SECOND / 1_000);
        self.real = next;
        self.set_clock();
    }

    /// Any host that is up.
    pub fn any_host_up(&mut self) -> Option<usize> {
        let up: Vec<usize> = (0..self.hosts.len()).filter(|at| self.hosts[*at].is_up()).collect();
        (!up.is_empty()).then(|| up[self.random.usize(..up.len())])
    }

    /// Notes what happened.
    pub fn say(&mut self, what: String) {
        let line = format!("{} {what}", self.now());
        if self.options.is_loud {
            eprintln!("{line}");
        }
        // Ids are the only thing that is not decided by the seed, and no line has one.
        for byte in line.bytes() {
            self.fingerprint = (self.fingerprint ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.events.len() == TOLD {
            self.events.pop_front();
        }
        self.events.push_back(line);
    }

    pub fn count(&mut self, what: &'static str) {
        self.count_many(what, 1);
    }

    pub fn count_many(&mut self, what: &'static str, number: usize) {
        *self.counts.entry(what).or_default() += number as u64;
    }

    /// Notes that something does not hold. The first is what counts.
    pub fn violate(&mut self, what: String) {
        if self.violation.is_none() {
            let events = self.last_events();
            self.violation = Some(Violation { at: self.now().to_string(), what, events });
        }
    }

    pub fn is_violated(&self) -> bool {
        self.violation.is_some()
    }

    pub fn last_events(&self) -> Vec<String> {
        self.events.iter().cloned().collect()
    }

    pub fn report(&mut self, took: Duration) -> Report {
        let verified = self.ledger.verified;
        self.count_many("fire times found on record", verified);
        Report {
            seed: self.options.seed,
            days: self.options.days,
            engine: self.options.engine,
            took,
            counts: self.counts.clone(),
            fingerprint: self.fingerprint,
            violation: self.violation.clone(),
        }
    }
}
