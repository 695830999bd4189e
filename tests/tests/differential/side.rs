//! One of the two stores that do the same.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::time::Duration;

use innkeeper::execution::{
    Attempt, Completion, Failure, LogLevel, LogLine, Outcome, Progress, State, Trigger,
};
use innkeeper::job::{History, Job, Name, OnCrash};
use innkeeper::limits::Usage;
use innkeeper::retry::{Backoff, RetryPolicy};
use innkeeper::schedule::{Schedule, Spec};
use innkeeper::store::{
    AttemptRecord, BackfillFate, Claim, ExecutionFilter, Holder, NewExecution, NewSession, PhaseName,
    PluginRoom, Repeated, SessionId, Store, StoreError,
};
use innkeeper_tests::clock::TestClock;
use innkeeper_tests::database::TestDatabase;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::program::{AfterClaim, End, JobChoice, KEYS, Op, RunAt};
use crate::tables::{Columns, Outside, Tables};

/// A database, and a connection to look at it.
pub struct Place {
    database: TestDatabase,
    outside: Outside,
    fresh: Tables,
}

impl Place {
    pub async fn new(database: TestDatabase, columns: &Columns) -> Self {
        let mut outside = Outside::connect(&database).await;
        let fresh = outside.tables(columns).await;
        Self { database, outside, fresh }
    }
}

/// A store on its way through a program, and what its hosts know.
pub struct Side<'a> {
    place: &'a mut Place,
    columns: &'a Columns,
    clock: TestClock,
    store: Store,
    executions: Vec<Uuid>,
    sessions: Vec<Session>,
    attempts: Vec<Held>,
}

struct Session {
    id: SessionId,
    /// A START was not answered.
    in_doubt: bool,
}

/// An attempt that a host has begun. It is kept when it has ended: a host may be late.
struct Held {
    session: usize,
    attempt: Attempt,
    is_recorded: bool,
}

/// What a step answered, and whether it came too late.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub text: String,
    pub was_late: bool,
}

impl<'a> Side<'a> {
    /// In an empty database.
    pub async fn begin(place: &'a mut Place, columns: &'a Columns, clock: &TestClock) -> Side<'a> {
        place.outside.clear(&place.fresh, columns).await;
        let store = place.database.store(2).await.with_clock(clock.for_store());
        let (executions, sessions, attempts) = (Vec::new(), Vec::new(), Vec::new());
        Self { place, columns, clock: clock.clone(), store, executions, sessions, attempts }
    }

    pub async fn end(self) {
        self.store.close().await;
    }

    /// Does the step that has this number.
    pub async fn step(&mut self, number: usize, op: &Op) -> Answer {
        match self.perform(number, op).await {
            Ok(text) => Answer { was_late: text == LATE, text },
            Err(error) => {
                let was_late = matches!(error, StoreError::LeaseLost { .. });
                Answer { text: told(&error), was_late }
            }
        }
    }

    pub async fn tables(&mut self) -> Tables {
        let tables = self.place.outside.tables(self.columns).await;
        // Skipped fires, which no answer names. Ids are in the order in which they were made.
        let ids = tables.rows("execution").iter().map(|row| row["id"].parse::<Uuid>().unwrap());
        let mut unnamed: Vec<Uuid> = ids.filter(|id| !self.executions.contains(id)).collect();
        unnamed.sort_unstable();
        self.executions.extend(unnamed);
        let names = self.executions.iter().enumerate();
        let names: HashMap<String, String> =
            names.map(|(place, id)| (id.simple().to_string(), execution_name(place))).collect();
        tables.named(&names)
    }

    async fn perform(&mut self, number: usize, op: &Op) -> Result<String, StoreError> {
        match op {
            Op::SaveComponent(component) => {
                self.store.save_component(&digest(*component), &json!([number])).await.map(done)
            }
            Op::SavePlugin { plugin, component } => {
                self.store.save_plugin(&plugin_name(*plugin), &digest(*component)).await.map(done)
            }
            Op::SyncJobs { owner, jobs } => {
                let mut named = BTreeSet::new();
                let jobs: Vec<Job> = jobs.iter().filter(|choice| named.insert(choice.job)).map(job).collect();
                self.store.sync_jobs(["file", "api"][*owner], &jobs).await.map(|sync| format!("{sync:?}"))
            }
            Op::Pause { .. } | Op::Resume(_) | Op::TurnBack | Op::Backfill { .. } => self.plan_jobs(op).await,
            Op::Register { host, plugins, ttl } => self.register(number, *host, plugins, *ttl).await,
            Op::Heartbeat { session, ttl } => {
                let Some(session) = self.session(*session) else { return Ok(nothing()) };
                let (id, lowest) = (self.sessions[session].id, self.lowest_open(session));
                let beaten = self.store.heartbeat(id, Duration::from_millis(*ttl), lowest).await;
                beaten.map(|heartbeat| format!("{heartbeat:?}"))
            }
            Op::EndSession(session) => {
                let Some(session) = self.session(*session) else { return Ok(nothing()) };
                let rescued = self.store.end_session(self.sessions[session].id).await?;
                Ok(self.rename(&rescued))
            }
            Op::Rescue { limit, own } => {
                let own = own.and_then(|own| self.session(own)).map(|own| self.sessions[own].id);
                let rescued = self.store.rescue(*limit, own.as_slice()).await?;
                Ok(self.rename(&rescued))
            }
            // The clock is that of both, and is turned for both.
            Op::Wait(_) => Ok(done(())),
            Op::Plan => {
                let planned = self.store.plan(1_000).await?;
                self.executions.extend(planned.fired.iter().map(|fired| fired.execution));
                Ok(self.rename(&planned))
            }
            Op::Enqueue { .. } => self.enqueue(op).await,
            Op::Claim { session, limit, room, then } => self.claim(*session, *limit, *room, *then).await,
            Op::ReleaseUnknown(session) => self.release_unknown(*session).await,
            Op::Complete { attempt, more, end, session } => {
                self.complete(*attempt, *more, end, *session).await
            }
            Op::Log { .. } | Op::Progress { .. } | Op::Checkpoint { .. } => self.leave(op).await,
            Op::Cancel { .. } | Op::Settle(_) | Op::Repeat { .. } => self.end_or_repeat(op).await,
        }
    }

    /// What changes when jobs fire.
    async fn plan_jobs(&mut self, op: &Op) -> Result<String, StoreError> {
        match op {
            Op::Pause { job, reason } => {
                let reason = reason.map(words);
                let paused = self.store.pause_job(&job_name(*job), reason.as_deref()).await?;
                Ok(format!("{paused}"))
            }
            Op::Resume(job) => {
                self.store.resume_job(&job_name(*job)).await.map(|resumed| format!("{resumed:?}"))
            }
            Op::TurnBack => self.store.turn_back().await.map(|jobs| format!("{jobs}")),
            Op::Backfill { job, seconds, again } => {
                let now = self.clock.now();
                let from = now - jiff::SignedDuration::from_secs(*seconds);
                let fates = self.store.backfill(&job_name(*job), from, now, *again).await?;
                let made = fates.iter().filter_map(|(_, fate)| match fate {
                    BackfillFate::Made(id) => Some(*id),
                    _ => None,
                });
                self.executions.extend(made);
                Ok(self.rename(&fates))
            }
            other => unreachable!("{other:?} is none of these"),
        }
    }

    /// What a handler leaves behind.
    async fn leave(&mut self, op: &Op) -> Result<String, StoreError> {
        match op {
            Op::Log { attempt, lines, text } => {
                let Some(holder) = self.holder(*attempt) else { return Ok(nothing()) };
                let lines: Vec<LogLine> = (0..*lines).map(|line| self.log_line(text + line)).collect();
                self.store.append_log(holder, &lines).await.map(done)
            }
            Op::Progress { attempt, done: units, total } => {
                let Some(holder) = self.holder(*attempt) else { return Ok(nothing()) };
                let progress = Progress { done: *units, total: *total, message: Some(words(*attempt)) };
                self.store.save_progress(holder, &progress).await.map(done)
            }
            Op::Checkpoint { attempt, state } => {
                let Some(holder) = self.holder(*attempt) else { return Ok(nothing()) };
                self.store.save_checkpoint(holder, &value(*state)).await.map(done)
            }
            other => unreachable!("{other:?} is none of these"),
        }
    }

    /// What an operator does to executions.
    async fn end_or_repeat(&mut self, op: &Op) -> Result<String, StoreError> {
        match op {
            Op::Cancel { execution, more, reason } => {
                let ids: Vec<Uuid> =
                    (0..=*more).filter_map(|next| self.execution(execution + next)).collect();
                let results = self.store.cancel(&ids, &words(*reason)).await?;
                Ok(self.rename(&results))
            }
            Op::Settle(session) => self.settle(*session).await,
            Op::Repeat { execution, even_succeeded } => {
                let Some(id) = self.execution(*execution) else { return Ok(nothing()) };
                let repeated = self.store.repeat(id, *even_succeeded).await?;
                if let Repeated::As(new) = repeated {
                    self.executions.push(new);
                }
                Ok(self.rename(&repeated))
            }
            other => unreachable!("{other:?} is none of these"),
        }
    }

    async fn register(
        &mut self,
        number: usize,
        host: usize,
        plugins: &[(usize, usize)],
        ttl: u64,
    ) -> Result<String, StoreError> {
        let plugins: Vec<(Name, String)> =
            plugins.iter().map(|(plugin, component)| (plugin_name(*plugin), digest(*component))).collect();
        let session = NewSession {
            host: ["inn-1", "inn-2", "gästehaus"][host],
            boot_id: Uuid::from_u128(number as u128),
            version: "0.1.0",
            ttl: Duration::from_millis(ttl),
            slots: 4,
            plugins: &plugins,
        };
        let id = self.store.register_session(&session).await?;
        self.sessions.push(Session { id, in_doubt: false });
        Ok(done(()))
    }

    async fn enqueue(&mut self, op: &Op) -> Result<String, StoreError> {
        let Op::Enqueue { job, args, run_at, key, by } = op else { unreachable!("it is asked to enqueue") };
        let (job, args) = (job_name(*job), args.map(value));
        // The last is one that PostgreSQL has no text for.
        let key = key.map(|key| if key == KEYS { "k\0".to_owned() } else { format!("k{key}") });
        let by = by.and_then(|by| self.holder(by));
        let new = NewExecution {
            job: &job,
            args: args.as_ref(),
            triggered_by: if by.is_some() { Trigger::Handler } else { Trigger::Manual },
            run_at: run_at.map(|run_at| match run_at {
                RunAt::Seconds(seconds) => self.clock.now() + jiff::SignedDuration::from_secs(seconds),
                RunAt::Extreme(false) => Timestamp::MIN,
                RunAt::Extreme(true) => Timestamp::MAX,
            }),
            unique_key: key.as_deref(),
            by,
        };
        let enqueued = self.store.enqueue(&new).await?;
        if enqueued.created {
            self.executions.push(enqueued.id);
        }
        Ok(self.rename(&enqueued))
    }

    async fn claim(
        &mut self,
        session: usize,
        limit: u32,
        room: Option<u32>,
        then: AfterClaim,
    ) -> Result<String, StoreError> {
        let Some(session) = self.session(session) else { return Ok(nothing()) };
        let rooms: Vec<_> =
            room.into_iter().map(|free| PluginRoom { plugin: plugin_name(0), free }).collect();
        let mut phase = self.store.begin(PhaseName::Start).await?;
        let id = self.sessions[session].id;
        phase.tx().hold_session(id).await?;
        let started = phase.tx().start_from(id, Claim { rooms: &rooms, ..Claim::any(limit) }).await?;
        let looked = (started.lowest_rank, started.found, started.to_the_end, started.highest_rank);
        let attempts = started.attempts;
        let claimed: Vec<String> = attempts.iter().map(|attempt| self.claimed(attempt)).collect();
        match then {
            AfterClaim::RollBack => drop(phase),
            AfterClaim::LoseAnswer => {
                phase.commit().await?;
                self.sessions[session].in_doubt = true;
            }
            AfterClaim::Commit => {
                phase.commit().await?;
                let held = |attempt| Held { session, attempt, is_recorded: false };
                self.attempts.extend(attempts.into_iter().map(held));
            }
        }
        Ok(format!("{claimed:?} {looked:?}"))
    }

    /// All of an attempt but its lease: the number of a START that is rolled back is used up on
    /// PostgreSQL, and given again on SQLite.
    fn claimed(&self, attempt: &Attempt) -> String {
        self.rename(&Attempt { lease: 0, ..attempt.clone() })
    }

    async fn release_unknown(&mut self, session: usize) -> Result<String, StoreError> {
        let Some(session) = self.session(session) else { return Ok(nothing()) };
        let open = self.attempts.iter().filter(|held| held.session == session && !held.is_recorded);
        let known: Vec<i64> = open.map(|held| held.attempt.lease).collect();
        let released = self.store.release_unknown(self.sessions[session].id, &known).await?;
        self.sessions[session].in_doubt = false;
        Ok(self.rename(&released))
    }

    async fn complete(
        &mut self,
        attempt: usize,
        more: usize,
        end: &End,
        session: Option<usize>,
    ) -> Result<String, StoreError> {
        if self.attempts.is_empty() {
            return Ok(nothing());
        }
        let first = attempt % self.attempts.len();
        let own = self.attempts[first].session;
        let batch: Vec<usize> = (first..self.attempts.len())
            .filter(|held| self.attempts[*held].session == own)
            .take(1 + more)
            .collect();
        let usage = |held: usize| Usage { wall_us: held as u64, db_calls: more as u64, ..Usage::default() };
        let completion = |held: &usize| {
            let usage = Some(usage(*held)).filter(|_| more != 1);
            Completion { usage, ..self.attempts[*held].attempt.finish(outcome(end)) }
        };
        let completions: Vec<_> = batch.iter().map(completion).collect();
        let session = session.and_then(|session| self.session(session)).unwrap_or(own);
        let recordings = self.store.record(self.sessions[session].id, &completions).await?;
        if session == own {
            batch.iter().for_each(|held| self.attempts[*held].is_recorded = true);
        }
        let is_late = recordings.iter().all(|recording| *recording == innkeeper::store::Recording::Stale);
        Ok(if is_late { LATE.to_owned() } else { format!("{recordings:?}") })
    }

    /// What a host reads of the requests, and what becomes of those that nothing runs for.
    async fn settle(&mut self, session: usize) -> Result<String, StoreError> {
        let Some(session) = self.session(session) else { return Ok(nothing()) };
        let mut answers = Vec::new();
        for request in self.store.cancel_requests(self.sessions[session].id, 100).await? {
            let settled = match request.lease {
                None => Some(self.store.settle_request(&request).await?),
                Some(_) => None,
            };
            answers.push((request.execution, request.reason, settled));
        }
        Ok(self.rename(&answers))
    }

    /// What people see of the store: jobs, plugins, and every execution in every state.
    pub async fn view(&self) -> Vec<String> {
        let mut view = vec![
            self.rename(&self.store.jobs().await.unwrap()),
            self.rename(&self.store.plugins().await.unwrap()),
        ];
        for state in State::ALL.map(Some).into_iter().chain([None]) {
            for limit in [2, 1_000] {
                let filter = ExecutionFilter { job: None, state, before: None, limit };
                view.push(self.rename(&self.store.executions(&filter).await.unwrap()));
            }
        }
        for id in &self.executions {
            view.push(self.rename(&self.store.execution(*id).await.unwrap()));
            let attempts = self.store.attempts(*id, 1_000).await.unwrap();
            let attempts: Vec<_> =
                attempts.into_iter().map(|attempt| AttemptRecord { lease: 0, ..attempt }).collect();
            view.push(self.rename(&attempts));
            let lines = self.store.logs(*id).await.unwrap();
            let lines: Vec<_> = lines.iter().map(|line| (line.seq, line.attempt, &line.line)).collect();
            view.push(format!("{lines:?}"));
        }
        view
    }

    /// Counted from the newest.
    fn session(&self, pick: usize) -> Option<usize> {
        let back = pick.checked_rem(self.sessions.len())?;
        Some(self.sessions.len() - 1 - back)
    }

    /// Counted from the newest.
    fn execution(&self, pick: usize) -> Option<Uuid> {
        let back = pick.checked_rem(self.executions.len())?;
        Some(self.executions[self.executions.len() - 1 - back])
    }

    fn holder(&self, pick: usize) -> Option<Holder> {
        let held = &self.attempts[pick.checked_rem(self.attempts.len())?];
        let session = self.sessions[held.session].id;
        Some(Holder { session, lease: held.attempt.lease, execution: held.attempt.execution })
    }

    /// As a host says it with its heartbeat.
    fn lowest_open(&self, session: usize) -> Option<i64> {
        let open = self.attempts.iter().filter(|held| held.session == session && !held.is_recorded);
        let lowest = open.map(|held| held.attempt.lease).min();
        lowest.filter(|_| !self.sessions[session].in_doubt)
    }

    fn log_line(&self, number: usize) -> LogLine {
        LogLine {
            at: self.clock.now(),
            level: LogLevel::ALL[number % LogLevel::ALL.len()],
            message: words(number),
            fields: json!({ "value": value(number) }).as_object().cloned().unwrap_or_default(),
        }
    }

    /// What is said of an answer, with the executions' ids replaced by their names.
    fn rename(&self, answer: &impl Debug) -> String {
        let mut text = format!("{answer:?}");
        for (place, id) in self.executions.iter().enumerate() {
            text = text.replace(&id.to_string(), &execution_name(place));
        }
        text
    }
}

const LATE: &str = "too late";

fn done((): ()) -> String {
    "done".to_owned()
}

fn nothing() -> String {
    "there is nothing to do it with".to_owned()
}

/// An error without what differs from one database to the other.
fn told(error: &StoreError) -> String {
    match error {
        StoreError::SessionLost => "the session is lost".to_owned(),
        StoreError::LeaseLost { .. } => "the lease is lost".to_owned(),
        StoreError::UnknownJob { .. } | StoreError::Invalid(_) => format!("{error}"),
        // Not an answer that either store may give here.
        other => panic!("{other}"),
    }
}

fn execution_name(place: usize) -> String {
    format!("execution {}", place + 1)
}

fn digest(component: usize) -> String {
    format!("sha256:c{component}")
}

fn name(name: &str) -> Name {
    Name::new(name).unwrap()
}

fn plugin_name(plugin: usize) -> Name {
    name(["p", "q"][plugin])
}

fn job_name(job: usize) -> Name {
    name(&format!("j{job}"))
}

fn job(choice: &JobChoice) -> Job {
    let every = choice.every.map(Duration::from_secs);
    let spec = Spec { every, ..Spec::default() };
    Job {
        name: job_name(choice.job),
        plugin: plugin_name(choice.plugin),
        handler: "h".into(),
        args: value(choice.job),
        schedule: every.map(|_| Schedule::new(&spec).unwrap()),
        enabled: choice.enabled,
        retry: RetryPolicy {
            max_attempts: choice.max_attempts,
            backoff: if choice.exponential { Backoff::Exponential } else { Backoff::Constant },
            initial: Duration::from_secs(5),
            maximum: Duration::from_secs(60),
            // It would be drawn from the id, which is random.
            jitter: 0.0,
        },
        timeout: Duration::from_secs(60),
        on_crash: if choice.retry_on_crash { OnCrash::Retry } else { OnCrash::Fail },
        history: History::default(),
        policies: innkeeper::policy::Policies::default(),
    }
}

fn outcome(end: &End) -> Outcome {
    match end {
        End::Succeeded(result) => Outcome::Succeeded(value(*result)),
        End::Failed { kind, retry_after, message } => {
            let mut failure = Failure::new(*kind, words(*message));
            failure.retry_after = retry_after.map(Duration::from_secs);
            Outcome::Failed(failure)
        }
        End::Released => Outcome::Released,
    }
}

/// Text that one of the engines might change.
fn words(number: usize) -> String {
    let words =
        ["", "plain", "a\0b", "ünï 🦀 ∅", "'; drop table job; --", "line\nline\ttab", "\\u0000", "%s {} $1"];
    words[number % words.len()].to_owned()
}

/// JSON that one of the engines might change.
fn value(number: usize) -> Value {
    let values = [
        Value::Null,
        json!({}),
        json!({ "b": 1, "a": [1.5, -0.0, 1e300, u64::MAX, i64::MIN] }),
        json!("a\u{0}b 🦀"),
        json!({ "": { "'": "\"", "\\": "\u{7f}" } }),
        json!([[[], {}], [null, true]]),
        json!(1.0),
        json!("  spaces  "),
    ];
    values[number % values.len()].clone()
}
