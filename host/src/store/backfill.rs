//! A job is run for times of its schedule that have passed.

use std::collections::HashMap;

use jiff::Timestamp;
use uuid::Uuid;

use super::StoreError;
use super::connection::Store;
use super::pause::{JobToChange, job_to_change};
use super::phase::{PhaseName, PhaseTx};
use super::place::{Hold, NewRow, Placement, insert_executions, limit_key, place};
use super::row::{json_text, on_engine, row, to_count};
use super::time::Time;
use crate::execution::Trigger;
use crate::job::{Job, Name};
use crate::schedule::Schedule;

/// What becomes of a time that a job is to be run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackfillFate {
    /// It has a new execution.
    Made(Uuid),
    /// It would have one, if this were not only asked.
    Missing,
    /// It is left out: this execution for it has succeeded.
    Succeeded(Uuid),
    /// It is left out: this execution for it has not ended.
    Unfinished(Uuid),
}

/// How many times one backfill covers.
pub const MOST_BACKFILLED: usize = 10_000;

impl Store {
    /// Runs a job for the times at which its schedule fires from `from` to before `until`: an
    /// execution for each, due now, whose `scheduled_at` is the time.
    ///
    /// A time is left out for which an execution has succeeded or has not ended, whether its
    /// schedule made it or a backfill, unless `again` is true. It may have failed, been cancelled,
    /// been recorded as skipped, or never been fired.
    ///
    /// The answer has every time, the earliest first.
    ///
    /// # Errors
    /// [`StoreError::UnknownJob`] where there is no such job; [`StoreError::Invalid`] where it is
    /// retired or has no fixed times, where `until` is later than now or not after `from`, and where
    /// there are more than [`MOST_BACKFILLED`] times.
    pub async fn backfill(
        &self,
        job: &Name,
        from: Timestamp,
        until: Timestamp,
        again: bool,
    ) -> Result<Vec<(Timestamp, BackfillFate)>, StoreError> {
        let mut phase = self.begin(PhaseName::Jobs).await?;
        let tx = phase.tx();
        let (row, definition, mut fates) = fates(tx, job, from, until, again).await?;
        make(self, tx, &row, &definition, &mut fates).await?;
        phase.commit().await?;
        Ok(fates)
    }

    /// What [`Store::backfill`] would do, without doing it.
    ///
    /// # Errors
    /// As [`Store::backfill`].
    pub async fn backfill_preview(
        &self,
        job: &Name,
        from: Timestamp,
        until: Timestamp,
        again: bool,
    ) -> Result<Vec<(Timestamp, BackfillFate)>, StoreError> {
        let mut phase = self.begin(PhaseName::Jobs).await?;
        let (_, _, fates) = fates(phase.tx(), job, from, until, again).await?;
        Ok(fates)
    }
}

row! {
    struct ExecutionOfTimeRow {
        id: Uuid,
        scheduled_at: Time,
        succeeded: bool,
    }
}

type Fates = Vec<(Timestamp, BackfillFate)>;

/// The job, locked so that two backfills at once do not make the same, and its times.
async fn fates(
    tx: &mut PhaseTx,
    name: &Name,
    from: Timestamp,
    until: Timestamp,
    again: bool,
) -> Result<(JobToChange, Job, Fates), StoreError> {
    let row = job_to_change(tx, name).await?;
    row.check_not_retired("backfill")?;
    let job = row.job()?;
    check_period(from, until, row.now.0)?;
    let times = times(&job, from, until)?;
    let (first, id) = (Time(from), row.id);
    let mut there: HashMap<Timestamp, BackfillFate> = HashMap::new();
    if !again {
        let rows: Vec<ExecutionOfTimeRow> = on_engine!(tx, sql, conn => {
            sqlx::query_as(sql::EXECUTIONS_OF_TIMES).bind(id).bind(first).bind(Time(until)).fetch_all(conn).await?
        });
        for row in rows {
            let unfinished = BackfillFate::Unfinished(row.id);
            let fate = if row.succeeded { BackfillFate::Succeeded(row.id) } else { unfinished };
            there.insert(row.scheduled_at.0, fate);
        }
    }
    let fate = |time| (time, there.get(&time).copied().unwrap_or(BackfillFate::Missing));
    Ok((row, job, times.into_iter().map(fate).collect()))
}

fn check_period(from: Timestamp, until: Timestamp, now: Timestamp) -> Result<(), StoreError> {
    let wrong = if from >= until {
        format!("a backfill from {from} until {until} covers no time: `until` has to be after `from`")
    } else if until > now {
        format!(
            "a backfill until {until} goes beyond now ({now}): times that are still to come are fired by the \
             schedule itself. Give an earlier `until`"
        )
    } else {
        return Ok(());
    };
    Err(StoreError::Invalid(wrong))
}

/// The times of the job's schedule.
fn times(job: &Job, from: Timestamp, until: Timestamp) -> Result<Vec<Timestamp>, StoreError> {
    let name = &job.name;
    let fixed = |schedule: &&Schedule| schedule.every_after().is_none();
    let Some(schedule) = job.schedule.as_ref().filter(fixed) else {
        return Err(StoreError::Invalid(format!(
            "there are no times to run the job `{name}` for: it has {}. Run it with `innkeeper job run {name}`",
            if job.schedule.is_some() { "a schedule that counts from its last end" } else { "no schedule" }
        )));
    };
    let start = Timestamp::from_microsecond(from.as_microsecond() - 1).unwrap_or(Timestamp::MIN);
    let mut times = Vec::new();
    let mut next = schedule.next_after(start);
    while let Some(time) = next.filter(|time| *time < until) {
        if times.len() == MOST_BACKFILLED {
            return Err(StoreError::Invalid(format!(
                "the job `{name}` fires more than {MOST_BACKFILLED} times from {from} until {until}: backfill \
                 a shorter period, such as until {time}, and then the next one"
            )));
        }
        times.push(time);
        next = schedule.next_after(time);
    }
    Ok(times)
}

async fn make(
    store: &Store,
    tx: &mut PhaseTx,
    row: &JobToChange,
    job: &Job,
    fates: &mut Fates,
) -> Result<(), StoreError> {
    let (facts, args, limit_key) = (row.facts(), json_text(&job.args)?, limit_key(job, &job.args));
    let hold = match facts {
        _ if facts.paused => Hold::Paused,
        _ if facts.gated => Hold::Permit,
        _ => Hold::None,
    };
    let mut missing: Vec<_> = fates.iter_mut().filter(|(_, fate)| *fate == BackfillFate::Missing).collect();
    for missing in missing.chunks_mut(1_000) {
        let mut rows = Vec::with_capacity(missing.len());
        for (time, fate) in missing.iter_mut().map(|of| (&of.0, &mut of.1)) {
            let id = store.new_id(row.now);
            *fate = BackfillFate::Made(id);
            rows.push(NewRow {
                id,
                job: facts,
                args: args.clone(),
                triggered_by: Trigger::Backfill,
                scheduled_at: Time(*time),
                fire_time: None,
                max_attempts: to_count(job.retry.max_attempts),
                unique_key: None,
                limit_key: limit_key.clone(),
                retry_of: None,
            });
        }
        insert_executions(tx, &rows).await?;
        let placements: Vec<Placement> = rows
            .iter()
            .map(|new| Placement {
                execution: new.id,
                job: facts,
                due: row.now,
                attempt: 0,
                limit_key: limit_key.clone(),
                hold,
            })
            .collect();
        place(tx, &placements).await?;
    }
    Ok(())
}
