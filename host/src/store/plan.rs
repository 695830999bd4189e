//! Due jobs become executions, and waiting executions ready ones.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::admission::Admitted;
use super::connection::Store;
use super::phase::{EngineTx, PhaseName, PhaseTx};
use super::place::{Hold, JobFacts, NewRow, Placement, insert_executions, limit_key, place};
use super::promote::promote;
use super::row::{JobRow, json_text, on_engine, on_read, row, stored_name, to_count};
use super::time::Time;
use super::{StoreError, postgres, sqlite};
use crate::clock;
use crate::execution::Trigger;
use crate::job::Name;

/// What a round of planning did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    /// The executions that it made.
    pub fired: Vec<FiredExecution>,
    /// How many waiting executions may start now.
    pub promoted: usize,
    /// What became of executions that waited for permits or other jobs.
    pub admitted: Admitted,
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
    /// Of fire times that were missed the latest becomes an execution. The same fire time
    /// never becomes two, whoever else plans.
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
            return Ok(Planned { next_due: due.wait(), lowest_due, ..Planned::default() });
        }
        let mut planned = Planned { lowest_due, ..Planned::default() };
        // A transaction each: what one of them holds, the next one must not wait for.
        if due.is_due(due.job_due) {
            let mut phase = self.begin(PhaseName::Plan).await?;
            planned.fired = fire_due_jobs(phase.tx(), self, limit, &mut planned.unreadable).await?;
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
        planned.next_due = due.wait();
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
        !self.fired.is_empty() || self.promoted > 0 || self.admitted.looked > 0
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

/// A due job, what it fires, and when it does so next.
struct Fire {
    job: Name,
    row: NewRow,
    fire_time: Time,
    waits_for_others: bool,
    next: Option<Time>,
}

async fn fire_due_jobs(
    tx: &mut PhaseTx,
    store: &Store,
    limit: u32,
    unreadable: &mut Vec<String>,
) -> Result<Vec<FiredExecution>, StoreError> {
    let now = tx.now;
    let due: Vec<DueJobRow> = on_engine!(tx, sql, conn => {
        sqlx::query_as(sql::LOCK_DUE_JOBS).bind(now).bind(i64::from(limit)).fetch_all(conn).await?
    });
    let mut fires = Vec::with_capacity(due.len());
    for row in due {
        // One definition that this binary cannot read does not hold up the others.
        match fire(store, row) {
            Ok(fire) => fires.push(fire),
            Err(error) => unreadable.push(error.to_string()),
        }
    }
    if fires.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<NewRow> = fires.iter().map(|fire| fire.row.clone()).collect();
    let new = insert_executions(tx, &rows).await?;
    move_fire_times(tx, &fires).await?;
    fires.retain(|fire| new.contains(&fire.row.id));
    place(tx, &fires.iter().map(Fire::placement).collect::<Vec<_>>()).await?;
    Ok(fires
        .into_iter()
        .map(|fire| FiredExecution { job: fire.job, execution: fire.row.id, fire_time: fire.fire_time.0 })
        .collect())
}

/// What a due job fires: of the times that were missed, the latest.
fn fire(store: &Store, row: DueJobRow) -> Result<Fire, StoreError> {
    let name = stored_name(&row.name)?;
    let DueJobRow { id, queue_id, priority, gated, .. } = row;
    let facts = JobFacts { id, queue_id, priority, gated, paused: false };
    let job = JobRow { id: row.id, name: row.name, spec: row.spec }.job()?;
    let (now, first) = (row.now.0, row.next_fire_at.0);
    // A job that lost its schedule has no next fire time; this one lost it to a mistake.
    let latest = job.schedule.as_ref().map_or(first, |schedule| schedule.latest_until(first, now));
    let next = job.schedule.as_ref().and_then(|schedule| schedule.next_after(latest.max(now)));
    let fire_time = Time(clock::truncate(latest));
    let limit_key = limit_key(&job, &job.args);
    Ok(Fire {
        job: name,
        row: NewRow {
            id: store.new_id(row.now),
            job: facts,
            args: json_text(&job.args)?,
            triggered_by: Trigger::Schedule,
            scheduled_at: fire_time,
            fire_time: Some(fire_time),
            max_attempts: to_count(job.retry.max_attempts),
            unique_key: None,
            limit_key,
            retry_of: None,
        },
        fire_time,
        waits_for_others: job.policies.after.is_some(),
        next: next.map(|next| Time(clock::truncate(next))),
    })
}

impl Fire {
    fn placement(&self) -> Placement {
        let hold = match self.row.job {
            _ if self.waits_for_others => Hold::After,
            JobFacts { gated: true, .. } => Hold::Permit,
            JobFacts { gated: false, .. } => Hold::None,
        };
        Placement {
            execution: self.row.id,
            job: self.row.job,
            due: self.fire_time,
            attempt: 0,
            limit_key: self.row.limit_key.clone(),
            hold,
        }
    }
}

/// Sets when the jobs fire next.
async fn move_fire_times(tx: &mut PhaseTx, fires: &[Fire]) -> Result<(), StoreError> {
    match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query(postgres::MOVE_FIRE_TIMES)
                .bind(fires.iter().map(|fire| fire.row.job.id).collect::<Vec<_>>())
                .bind(fires.iter().map(|fire| fire.next).collect::<Vec<_>>())
                .execute(&mut **conn)
                .await?;
        }
        EngineTx::Sqlite(conn) => {
            for fire in fires {
                sqlx::query(sqlite::MOVE_FIRE_TIMES)
                    .bind(fire.row.job.id)
                    .bind(fire.next)
                    .execute(&mut **conn)
                    .await?;
            }
        }
    }
    Ok(())
}
