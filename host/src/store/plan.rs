//! Due jobs become executions, and waiting executions ready ones. What was missed is caught up as the
//! job says, or put on record as skipped.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::admission::Admitted;
use super::connection::Store;
use super::phase::{EngineTx, PhaseName, PhaseTx};
use super::place::{Hold, JobFacts, NewRow, Placement, insert_executions, limit_key, place};
use super::promote::promote;
use super::row::{JobRow, json_text, on_engine, on_read, row, stored_name, to_count};
use super::skip::{SkippedFires, record_skips};
use super::time::Time;
use super::{StoreError, postgres, sqlite};
use crate::catch_up::{self, Gap, Skips};
use crate::execution::Trigger;
use crate::job::{Job, Name};

/// What a round of planning did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    /// The executions that it made.
    pub fired: Vec<FiredExecution>,
    /// How many waiting executions may start now.
    pub promoted: usize,
    /// What became of executions that waited for permits or other jobs.
    pub admitted: Admitted,
    /// How many records of fires were made that are not run.
    pub skipped: usize,
    /// The store's clock.
    pub now: Timestamp,
    /// Due jobs that cannot fire, since this binary cannot read their definitions, and why.
    pub unreadable: Vec<String>,
    /// How long until there is more to do, by the store's clock; zero where the limit was
    /// reached. None: nothing is due at any time.
    pub next_due: Option<Duration>,
    /// No execution was found waiting that had been due before, by the store's clock, in
    /// microseconds since 1970.
    pub lowest_due: Option<i64>,
}

/// A fire of a schedule that became an execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FiredExecution {
    /// The job.
    pub job: Name,
    /// The execution.
    pub execution: Uuid,
    /// The time that it was due.
    pub fire_time: Timestamp,
}

impl Store {
    /// Makes executions of jobs that are due, and lets executions start whose wait is over.
    ///
    /// Of fires that were missed those become executions that the job's catch-up says, and the
    /// others are recorded as skipped. The same fire time never becomes two, whoever else plans.
    ///
    /// `limit`: at most this many jobs, and this many waiting executions.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn plan(&self, limit: u32) -> Result<Planned, StoreError> {
        self.plan_from(limit, None).await
    }

    /// As [`Store::plan`], of waiting executions that were due at this time or later, in
    /// microseconds since 1970. Whoever passes [`Planned::lowest_due`] of the round before
    /// spares the database a walk over what was promoted then, and has to look at everything
    /// from time to time: an execution may be inserted below it.
    ///
    /// # Errors
    /// As [`Store::plan`].
    pub async fn plan_from(&self, limit: u32, floor: Option<i64>) -> Result<Planned, StoreError> {
        // What was due when it was enqueued never waits.
        let floor = floor.and_then(|floor| Timestamp::from_microsecond(floor).ok());
        let floor = Time(floor.unwrap_or(Timestamp::UNIX_EPOCH));
        // Most rounds find nothing to do, and need no transaction for that.
        let due = self.next_due(floor).await?;
        let lowest_due = Some(due.waiting_due.map_or(due.now.0, |first| first.0.min(due.now.0)));
        let lowest_due = lowest_due.map(Timestamp::as_microsecond);
        if due.wait() != Some(Duration::ZERO) {
            return Ok(Planned { next_due: due.wait(), lowest_due, now: due.now.0, ..Planned::default() });
        }
        let mut planned = Planned { lowest_due, ..Planned::default() };
        // A transaction each: what one of them holds, the next one must not wait for.
        if due.is_due(due.job_due) {
            let mut phase = self.begin(PhaseName::Plan).await?;
            let due = fire_due_jobs(phase.tx(), self, limit, &mut planned.unreadable).await?;
            (planned.fired, planned.skipped) = due;
            phase.commit().await?;
        }
        if due.is_due(due.waiting_due) {
            let mut phase = self.begin(PhaseName::Plan).await?;
            planned.promoted = promote(phase.tx(), limit, floor).await?;
            phase.commit().await?;
        }
        let mut due = self.next_due(floor).await?;
        if due.is_due(due.gate_due) {
            planned.admitted = self.admit(limit).await?;
            due = self.next_due(floor).await?;
        }
        (planned.next_due, planned.now) = (due.wait(), due.now.0);
        if !planned.did_something() {
            // What is due is in another planner's hands, or of no use to this binary.
            planned.next_due = planned.next_due.map(|wait| wait.max(OTHERS_TURN));
        }
        Ok(planned)
    }

    async fn next_due(&self, floor: Time) -> Result<NextDueRow, StoreError> {
        Ok(on_read!(self, sql, conn => {
            sqlx::query_as(sql::NEXT_DUE).bind(self.now()).bind(floor).fetch_one(conn).await?
        }))
    }
}

impl Planned {
    /// True where something was found that was due.
    #[must_use]
    pub fn did_something(&self) -> bool {
        !self.fired.is_empty() || self.skipped > 0 || self.promoted > 0 || self.admitted.looked > 0
    }
}

impl NextDueRow {
    fn is_due(&self, time: Option<Time>) -> bool {
        time.is_some_and(|time| time <= self.now)
    }

    /// How long until something is due; zero where it is already.
    fn wait(&self) -> Option<Duration> {
        let first = [self.job_due, self.waiting_due, self.gate_due].into_iter().flatten().min();
        first.map(|first| Duration::try_from(first.0.duration_since(self.now.0)).unwrap_or_default())
    }
}

/// How soon to look again at what another planner has in its hands, or this binary cannot read.
const OTHERS_TURN: Duration = Duration::from_secs(1);

row! {
    struct NextDueRow {
        now: Time,
        job_due: Option<Time>,
        waiting_due: Option<Time>,
        gate_due: Option<Time>,
    }
}

row! {
    struct DueJobRow {
        id: i32,
        name: String,
        spec: String,
        queue_id: i32,
        priority: i32,
        gated: bool,
        next_fire_at: Time,
        now: Time,
    }
}

/// A due job, and what becomes of its fires.
struct Due {
    name: Name,
    facts: JobFacts,
    job: Job,
    /// Its fires that run, the earliest first.
    run: Vec<Timestamp>,
    skip: Skips,
    now: Timestamp,
}

/// A fire that is to become an execution.
struct Fire<'a> {
    due: &'a Due,
    row: NewRow,
}

/// How many executions one round makes, by and large: a job whose missed fires all run is the last
/// of its round, and the next round follows at once.
const MOST_ROWS: usize = 5_000;

async fn fire_due_jobs(
    tx: &mut PhaseTx,
    store: &Store,
    limit: u32,
    unreadable: &mut Vec<String>,
) -> Result<(Vec<FiredExecution>, usize), StoreError> {
    let now = tx.now;
    let rows: Vec<DueJobRow> = on_engine!(tx, sql, conn => {
        sqlx::query_as(sql::LOCK_DUE_JOBS).bind(now).bind(i64::from(limit)).fetch_all(conn).await?
    });
    let Some(now) = rows.first().map(|row| row.now) else { return Ok((Vec::new(), 0)) };
    let (mut due, mut skips, mut made) = (Vec::with_capacity(rows.len()), Vec::new(), 0);
    for row in rows {
        // One definition that this binary cannot read does not hold up the others.
        match Due::new(row) {
            Ok(mut job) => {
                made += job.run.len() + job.skip.single.len() + 1;
                skips.extend(job.skipped());
                due.push(job);
            }
            Err(error) => unreadable.push(error.to_string()),
        }
        if made >= MOST_ROWS {
            break;
        }
    }
    // First, so that the ids are in the order of the times.
    let skipped = record_skips(tx, store, now, &skips).await?;
    let mut fires = Vec::new();
    for job in &due {
        job.fires(store, &mut fires)?;
    }
    let rows: Vec<NewRow> = fires.iter().map(|fire| fire.row.clone()).collect();
    let new = insert_executions(tx, &rows).await?;
    fires.retain(|fire| new.contains(&fire.row.id));
    let running: HashSet<i32> = fires.iter().map(|fire| fire.due.facts.id).collect();
    let next: Vec<_> =
        due.iter().map(|job| (job.facts.id, job.next(running.contains(&job.facts.id)))).collect();
    move_fire_times(tx, &next).await?;
    place(tx, &fires.iter().map(Fire::placement).collect::<Vec<_>>()).await?;
    let fired = fires.into_iter().map(Fire::fired).collect();
    Ok((fired, skipped))
}

impl Due {
    fn new(row: DueJobRow) -> Result<Self, StoreError> {
        let name = stored_name(&row.name)?;
        let DueJobRow { id, queue_id, priority, gated, .. } = row;
        let facts = JobFacts { id, queue_id, priority, gated, paused: false };
        let job = JobRow { id: row.id, name: row.name, spec: row.spec }.job()?;
        let (now, first) = (row.now.0, row.next_fire_at.0);
        // A job that lost its schedule has no next fire time; this one lost it to a mistake.
        let gap = job
            .schedule
            .as_ref()
            .map(|schedule| catch_up::catch_up(schedule, &job.policies.catch_up, first, now));
        let Gap { run, skip } = gap.unwrap_or_default();
        Ok(Self { name, facts, job, run, skip, now })
    }

    fn skipped(&mut self) -> Option<SkippedFires> {
        let fires = std::mem::take(&mut self.skip);
        let reason = || catch_up::rule(&self.job.policies.catch_up);
        let skipped = || SkippedFires {
            facts: self.facts,
            job: self.job.clone(),
            reason: reason(),
            fires: fires.clone(),
        };
        (!fires.is_empty()).then(skipped)
    }

    fn fires<'a>(&'a self, store: &Store, fires: &mut Vec<Fire<'a>>) -> Result<(), StoreError> {
        let args = json_text(&self.job.args)?;
        let limit_key = limit_key(&self.job, &self.job.args);
        for fire in &self.run {
            let fire_time = Time(*fire);
            let row = NewRow {
                id: store.new_id(Time(self.now)),
                job: self.facts,
                args: args.clone(),
                triggered_by: Trigger::Schedule,
                scheduled_at: fire_time,
                fire_time: Some(fire_time),
                max_attempts: to_count(self.job.retry.max_attempts),
                unique_key: None,
                limit_key: limit_key.clone(),
                retry_of: None,
            };
            fires.push(Fire { due: self, row });
        }
        Ok(())
    }

    /// When it fires next. With `every_after` the end of its execution decides.
    fn next(&self, is_running: bool) -> Option<Time> {
        let schedule = self.job.schedule.as_ref()?;
        let is_paced = is_running && schedule.every_after().is_some();
        if is_paced { None } else { schedule.next_after(self.now).map(Time) }
    }
}

impl Fire<'_> {
    fn placement(&self) -> Placement {
        let hold = match self.row.job {
            _ if self.due.job.policies.after.is_some() => Hold::After,
            JobFacts { gated: true, .. } => Hold::Permit,
            JobFacts { gated: false, .. } => Hold::None,
        };
        Placement {
            execution: self.row.id,
            job: self.row.job,
            due: self.row.scheduled_at,
            attempt: 0,
            limit_key: self.row.limit_key.clone(),
            hold,
        }
    }

    fn fired(self) -> FiredExecution {
        let (job, execution) = (self.due.name.clone(), self.row.id);
        FiredExecution { job, execution, fire_time: self.row.scheduled_at.0 }
    }
}

/// Sets when jobs fire next, or would if they were not paused.
pub(super) async fn move_fire_times(
    tx: &mut PhaseTx,
    next: &[(i32, Option<Time>)],
) -> Result<(), StoreError> {
    for next in next.chunks(1_000) {
        match &mut tx.engine {
            EngineTx::Postgres(conn) => {
                sqlx::query(postgres::MOVE_FIRE_TIMES)
                    .bind(next.iter().map(|(id, _)| *id).collect::<Vec<_>>())
                    .bind(next.iter().map(|(_, at)| *at).collect::<Vec<_>>())
                    .execute(&mut **conn)
                    .await?;
            }
            EngineTx::Sqlite(conn) => {
                let list: Vec<_> = next.iter().map(|(id, at)| (id, at.map(Time::micros))).collect();
                sqlx::query(sqlite::MOVE_FIRE_TIMES).bind(json_text(&list)?).execute(&mut **conn).await?;
            }
        }
    }
    Ok(())
}
