//! The hosts: what a host process does with the store, without the process.

use anyhow::{Context, Result};
use innkeeper::execution::{Attempt, Completion, Failure, FailureKind, Outcome};
use innkeeper::store::{Claim, NewSession, QueueId, Recording, SessionId, StoreError};
use serde_json::json;
use uuid::Uuid;

use super::cast;
use super::stage::{MINUTE, Open, SECOND, Stage, TTL};

/// How many executions a host runs at once.
const SLOTS: usize = 4;

/// One host.
pub struct Host {
    pub name: String,
    pub mode: Mode,
    boot: Uuid,
    pub session: SessionId,
    /// When the session ends if nothing is heard of the host, by the store's clock.
    pub expires: i64,
    beaten: i64,
    /// When it has got its session.
    registered: i64,
    /// What it runs.
    pub running: Vec<Run>,
    /// What it still works at under a session that it has lost.
    late: Vec<Run>,
    /// The answer to a START was lost.
    missed: bool,
    /// How far the store's clock was from this host's own when it looked last.
    offset: Option<i64>,
}

/// What a host is doing; times are real ones, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Up,
    /// It stopped, or crashed.
    Down {
        until: i64,
    },
    /// The machine sleeps.
    Asleep {
        until: i64,
    },
}

/// An attempt that a host runs.
pub struct Run {
    pub attempt: Attempt,
    session: SessionId,
    pub queue: QueueId,
    pub ends: i64,
    outcome: Outcome,
}

impl Host {
    pub fn new(number: usize) -> Self {
        Self {
            name: format!("inn-{number}"),
            mode: Mode::Down { until: 0 },
            boot: Uuid::nil(),
            session: SessionId(0),
            expires: 0,
            beaten: 0,
            registered: 0,
            running: Vec::new(),
            late: Vec::new(),
            missed: false,
            offset: None,
        }
    }

    pub fn is_up(&self) -> bool {
        self.mode == Mode::Up
    }

    /// True where it is down, and was not heard of since then.
    pub fn is_gone_since(&self, then: i64) -> bool {
        matches!(self.mode, Mode::Down { .. }) && self.beaten < then
    }

    /// True where its session is younger than this: the one before may not have expired yet.
    pub fn is_new_since(&self, then: i64) -> bool {
        self.registered > then
    }

    /// When it has something to do by itself.
    pub fn next(&self) -> Option<i64> {
        match self.mode {
            Mode::Down { until } | Mode::Asleep { until } => Some(until),
            Mode::Up => self.running.iter().chain(&self.late).map(|run| run.ends).min(),
        }
    }

    pub fn free(&self) -> usize {
        SLOTS.saturating_sub(self.running.len())
    }

    /// Notices that the store's clock was set back.
    pub fn notices_a_step_back(&mut self, offset: i64) -> bool {
        self.offset.replace(offset).is_some_and(|seen| offset < seen - SECOND)
    }
}

impl Stage {
    /// Hosts whose time has come start, or wake up.
    pub async fn wake_hosts(&mut self) -> Result<()> {
        for number in 0..self.hosts.len() {
            match self.hosts[number].mode {
                Mode::Down { until } if until <= self.real => self.start_host(number).await?,
                Mode::Asleep { until } if until <= self.real => {
                    self.say(format!("{} wakes up", self.hosts[number].name));
                    self.hosts[number].mode = Mode::Up;
                    self.plan_at = self.now();
                    // It may write first what has ended meanwhile, or renew its session first.
                    if self.random.bool() {
                        self.record_ended(number).await?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn start_host(&mut self, number: usize) -> Result<()> {
        self.sync().await?;
        let boot = Uuid::from_u128(self.random.u128(..));
        let host = &mut self.hosts[number];
        (host.boot, host.mode, host.offset) = (boot, Mode::Up, Some(self.offset));
        self.register(number).await?;
        self.store.turn_back_what_waits().await?;
        self.store.look_at_all_that_waits().await?;
        self.say(format!("{} is up, session {}", self.hosts[number].name, self.hosts[number].session.0));
        self.plan_at = self.now();
        self.may_cancel = true;
        Ok(())
    }

    async fn register(&mut self, number: usize) -> Result<()> {
        let plugins = [(cast::name(cast::PLUGIN), "sha256:c0ffee".to_owned())];
        let expires = self.now().as_microsecond() + i64::try_from(TTL.as_micros())?;
        let host = &mut self.hosts[number];
        let session = NewSession {
            host: &host.name,
            boot_id: host.boot,
            version: "0.1.0",
            ttl: TTL,
            slots: u32::try_from(SLOTS)?,
            plugins: &plugins,
        };
        host.session = self.store.register_session(&session).await?;
        (host.expires, host.beaten, host.registered) = (expires, self.real, self.real);
        Ok(())
    }

    /// Heartbeats, where they are due.
    pub async fn beat(&mut self) -> Result<()> {
        for number in 0..self.hosts.len() {
            let host = &self.hosts[number];
            let third = i64::try_from(TTL.as_micros() / 3)?;
            if !host.is_up() || (self.real - host.beaten < third && !self.stepped) {
                continue;
            }
            let lowest = host.running.iter().map(|run| run.attempt.lease).min().filter(|_| !host.missed);
            match self.store.heartbeat(host.session, TTL, lowest).await {
                Ok(_) => {
                    let now = self.now().as_microsecond();
                    let host = &mut self.hosts[number];
                    (host.beaten, host.expires) = (self.real, now + i64::try_from(TTL.as_micros())?);
                }
                Err(StoreError::SessionLost) => self.lose_session(number).await?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// A host hears that others have given it up: it begins anew, and what it ran is for nothing.
    async fn lose_session(&mut self, number: usize) -> Result<()> {
        let (old, running) = {
            let host = &mut self.hosts[number];
            host.missed = false;
            (host.session, std::mem::take(&mut host.running))
        };
        if let Some(open) = self.open.values().find(|open| open.session == old) {
            let what = format!("session {} is dead, and lease {} of it is open", old.0, open.lease);
            self.violate(what);
        }
        for run in running {
            // A handler that cannot be stopped at once still ends, and says so.
            if self.random.bool() {
                self.hosts[number].late.push(run);
            }
        }
        self.register(number).await?;
        let host = &self.hosts[number];
        self.say(format!("{} lost session {} and has session {}", host.name, old.0, host.session.0));
        Ok(())
    }

    /// Rescues what dead hosts left, as a host that is up does.
    pub async fn rescue(&mut self) -> Result<()> {
        let now = self.now().as_microsecond();
        let known: Vec<SessionId> = self.hosts.iter().map(|host| host.session).collect();
        let is_expired = self.hosts.iter().any(|host| host.expires <= now)
            || self.open.values().any(|open| !known.contains(&open.session));
        let Some(rescuer) = self.any_host_up().filter(|_| is_expired) else { return Ok(()) };
        let host = &self.hosts[rescuer];
        let own: Vec<SessionId> =
            if host.running.is_empty() && !host.missed { Vec::new() } else { vec![host.session] };
        for rescued in self.store.rescue(10, &own).await? {
            let open = self.open.values().find(|open| open.execution == rescued.execution);
            let Some((lease, session)) = open.map(|open| (open.lease, open.session)) else {
                self.violate(format!("{} was rescued, and had no open start", rescued.execution));
                continue;
            };
            let living =
                self.hosts.iter().find(|host| host.is_up() && host.session == session && host.expires > now);
            if let Some(living) = living {
                let what = format!("lease {lease} of {} was rescued while it lived", living.name);
                self.violate(what);
            }
            self.open.remove(&lease);
            self.say(format!("rescued {} lease {lease}: {:?}", rescued.job, rescued.next));
            self.count("executions rescued");
            self.plan_at = self.now();
        }
        for host in &mut self.hosts {
            // Whoever is dead does not die again.
            if host.expires <= now && !own.contains(&host.session) {
                host.expires = i64::MAX;
            }
        }
        Ok(())
    }

    /// Records what has ended on hosts that are up.
    pub async fn finish_attempts(&mut self) -> Result<()> {
        for number in 0..self.hosts.len() {
            if self.hosts[number].is_up() {
                self.record_ended(number).await?;
            }
        }
        Ok(())
    }

    async fn record_ended(&mut self, number: usize) -> Result<()> {
        let real = self.real;
        let host = &mut self.hosts[number];
        let mut ended: Vec<Run> = host.running.extract_if(.., |run| run.ends <= real).collect();
        ended.extend(host.late.extract_if(.., |run| run.ends <= real));
        for run in ended {
            let completion = run.attempt.finish(run.outcome);
            let recorded = self.record(run.session, completion.clone()).await?;
            // The answer may be lost, and the completion be sent again.
            if recorded == Recording::Recorded && self.random.u8(..20) == 0 {
                let again = self.store.record(run.session, std::slice::from_ref(&completion)).await?;
                let was_cancelled = self.requested.contains(&completion.execution);
                if again != [Recording::Recorded] && !was_cancelled {
                    self.violate(format!("lease {} was recorded, and again is {again:?}", completion.lease));
                }
            }
        }
        Ok(())
    }

    async fn record(&mut self, session: SessionId, completion: Completion) -> Result<Recording> {
        let (lease, job) = (completion.lease, completion.job.to_string());
        let recorded = self.store.record(session, std::slice::from_ref(&completion)).await?;
        let [recorded] = recorded[..] else { anyhow::bail!("one answer for one completion") };
        let was_open = self.open.remove(&lease).is_some();
        let expected = if was_open { Recording::Recorded } else { Recording::Stale };
        let outcome = outcome(&completion.outcome);
        if recorded != expected {
            self.violate(format!(
                "lease {lease} of {job} ended as {outcome}: {recorded:?}, not {expected:?}"
            ));
        }
        self.say(format!("{job} lease {lease} {outcome}: {recorded:?}, {:?}", completion.next));
        self.count(match recorded {
            Recording::Recorded => "attempts ended",
            Recording::Stale => "attempts that came too late",
        });
        if recorded == Recording::Recorded && matches!(completion.outcome, Outcome::Succeeded(_)) {
            self.succeeded(&job);
        }
        self.plan_at = self.now();
        Ok(recorded)
    }

    /// Has a host stop: it gives back what it runs.
    pub async fn drain_host(&mut self, number: usize, until: i64) -> Result<()> {
        let session = self.hosts[number].session;
        self.say(format!("{} stops", self.hosts[number].name));
        if let Err(StoreError::SessionLost) = self.store.heartbeat_while_draining(session, TTL, None).await {
            self.lose_session(number).await?;
        }
        self.release_missed(number).await?;
        for run in std::mem::take(&mut self.hosts[number].running) {
            self.record(run.session, run.attempt.finish(Outcome::Released)).await?;
        }
        let left = self.store.end_session(self.hosts[number].session).await.context("end a session")?;
        if !left.is_empty() {
            self.violate(format!("a host that drained left {left:?}"));
        }
        let host = &mut self.hosts[number];
        host.late.clear();
        (host.mode, host.expires) = (Mode::Down { until }, i64::MAX);
        Ok(())
    }

    /// Has a host crash: nobody hears of it.
    pub fn crash_host(&mut self, number: usize, until: i64) {
        self.say(format!("{} crashes", self.hosts[number].name));
        let host = &mut self.hosts[number];
        host.running.clear();
        host.late.clear();
        host.missed = false;
        host.mode = Mode::Down { until };
    }

    /// Gives back what a lost answer started.
    async fn release_missed(&mut self, number: usize) -> Result<()> {
        if !std::mem::take(&mut self.hosts[number].missed) {
            return Ok(());
        }
        let host = &self.hosts[number];
        let known: Vec<i64> = host.running.iter().map(|run| run.attempt.lease).collect();
        let mut released = match self.store.release_unknown(host.session, &known).await {
            Err(StoreError::SessionLost) => return Ok(()),
            released => released?,
        };
        let session = host.session;
        let is_unknown = |open: &Open| open.session == session && !known.contains(&open.lease);
        let mut expected: Vec<Uuid> =
            self.open.values().filter(|open| is_unknown(open)).map(|open| open.execution).collect();
        self.open.retain(|_, open| !is_unknown(open));
        released.sort_unstable();
        expected.sort_unstable();
        if released != expected {
            self.violate(format!("released {released:?}, not {expected:?}"));
        }
        self.say(format!("{} gave back {} that it did not know of", session.0, expected.len()));
        Ok(())
    }

    /// Fills the slots of every host that is up. True: something was started.
    pub async fn claim(&mut self) -> Result<bool> {
        let mut hosts: Vec<usize> = (0..self.hosts.len()).filter(|at| self.hosts[*at].is_up()).collect();
        self.random.shuffle(&mut hosts);
        for number in &hosts {
            self.release_missed(*number).await?;
        }
        // A host that asks for nothing is what takes most of the time of a simulation.
        let ready = self.records.queues_with_something().await?;
        let mut queues = self.store.queues().await?;
        queues.retain(|queue| ready.contains(&queue.id.0));
        let mut any = false;
        for number in hosts {
            self.random.shuffle(&mut queues);
            for queue in &queues {
                let host = &self.hosts[number];
                let here = host.running.iter().filter(|run| run.queue == queue.id).count();
                let most = queue.host_limit.map_or(usize::MAX, |most| (most as usize).saturating_sub(here));
                let limit = u32::try_from(host.free().min(most))?;
                if queue.paused || limit == 0 {
                    continue;
                }
                let is_limited = queue.total_limit.is_some();
                let claim = Claim { queue: queue.id, limit, floor: None, is_limited, rooms: &[] };
                let started = match self.store.claim_from(host.session, claim).await {
                    Err(StoreError::SessionLost) => {
                        self.lose_session(number).await?;
                        break;
                    }
                    started => started?,
                };
                any |= !started.attempts.is_empty();
                let is_lost = !started.attempts.is_empty() && self.random.u8(..100) == 0;
                for attempt in started.attempts {
                    self.started(number, queue, &attempt);
                    if !is_lost {
                        let run = self.run(number, queue.id, attempt);
                        self.hosts[number].running.push(run);
                    }
                }
                if is_lost {
                    self.say(format!("{} does not hear of what it started", self.hosts[number].name));
                    self.hosts[number].missed = true;
                    break;
                }
            }
        }
        Ok(any)
    }

    /// How long an attempt takes, and how it ends.
    fn run(&mut self, number: usize, queue: QueueId, attempt: Attempt) -> Run {
        let longest = match attempt.job.name.as_str() {
            "one" | "skip" | "replace" => 600 * MINUTE,
            "rated-two" | "keyed" | "keyed-replace" | "urgent" | "patient" => 120 * MINUTE,
            _ => 20 * MINUTE,
        };
        let mut takes = self.random.i64(SECOND..longest);
        let failed = |kind| Outcome::Failed(Failure::new(kind, "it did not work"));
        let outcome = match self.random.u8(..100) {
            0..75 => Outcome::Succeeded(json!({ "done": attempt.lease })),
            75..86 => failed(FailureKind::Handler),
            86..90 => failed(FailureKind::Permanent),
            90..94 => failed(FailureKind::Trap),
            94..97 => {
                takes = i64::try_from(attempt.job.timeout.as_micros()).unwrap_or(takes);
                failed(FailureKind::Timeout)
            }
            _ => {
                let mut failure = Failure::new(FailureKind::Handler, "later");
                failure.retry_after = Some(std::time::Duration::from_secs(self.random.u64(60..10_000)));
                Outcome::Failed(failure)
            }
        };
        Run { session: self.hosts[number].session, queue, ends: self.real + takes, outcome, attempt }
    }

    /// Heeds what was asked to end.
    pub async fn heed_cancels(&mut self) -> Result<()> {
        if !self.may_cancel {
            return Ok(());
        }
        let mut any = false;
        for number in 0..self.hosts.len() {
            if !self.hosts[number].is_up() {
                continue;
            }
            for request in self.store.cancel_requests(self.hosts[number].session, 1_000).await? {
                any = true;
                self.requested.insert(request.execution);
                let Some(lease) = request.lease else {
                    let result = self.store.settle_request(&request).await?;
                    self.say(format!("settled a request: {result:?}"));
                    self.plan_at = self.now();
                    continue;
                };
                let (grace, succeeds) = (self.random.i64(0..10 * SECOND), self.random.u8(..5) == 0);
                let real = self.real;
                let run = self.hosts[number].running.iter_mut().find(|run| run.attempt.lease == lease);
                if let Some(run) = run.filter(|run| run.ends > real + 10 * SECOND) {
                    run.ends = real + grace;
                    if !succeeds {
                        run.outcome = Outcome::Cancelled(request.reason);
                    }
                }
            }
        }
        self.may_cancel = any;
        Ok(())
    }
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Succeeded(_) => "succeeded".to_owned(),
        Outcome::Failed(failure) => format!("failed ({})", failure.kind.as_str()),
        Outcome::Cancelled(_) => "cancelled".to_owned(),
        Outcome::Released => "released".to_owned(),
    }
}
