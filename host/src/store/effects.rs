//! What the ends of attempts set free or set off: permits, jobs that follow, the next fire of a
//! schedule that counts from the end. Part of COMPLETION, for the attempts that have any of it.

use uuid::Uuid;

use super::gate::{Gate, open_gates};
use super::phase::{EngineTx, PhaseTx};
use super::row::{hex_list, json_text, load_jobs, on_engine};
use super::time::Time;
use super::{StoreError, permit, postgres, sqlite};
use crate::clock;
use crate::execution::{Completion, Next, Outcome};

/// What a job follows of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    /// Its successes (`after`).
    Success,
    /// Its final failures (`on_failure`).
    Failure,
}

impl Follows {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// Does what follows from these ends, which are on record in the same transaction.
pub(super) async fn apply(tx: &mut PhaseTx, ended: &[&Completion]) -> Result<(), StoreError> {
    let with = |has: fn(&Completion) -> bool| {
        ended
            .iter()
            .filter(|completion| has(completion))
            .map(|completion| completion.execution)
            .collect::<Vec<_>>()
    };
    // What goes back to the queue stays within its job's limits.
    permit::release_of_queues(tx, &with(|c| c.effects.permits && c.next == Next::Requeue)).await?;
    let mut gates = permit::release(tx, &with(|c| c.effects.permits && c.next != Next::Requeue)).await?;
    let signals: Vec<(Uuid, Follows)> = ended
        .iter()
        .filter(|completion| completion.effects.followed && completion.next == Next::Final)
        .filter_map(|completion| Some((completion.execution, followed_as(&completion.outcome)?)))
        .collect();
    gates.extend(signal(tx, &signals).await?);
    pace(tx, &with(|c| c.effects.paced && c.next == Next::Final)).await?;
    open_gates(tx, gates, None).await
}

fn followed_as(outcome: &Outcome) -> Option<Follows> {
    match outcome {
        Outcome::Succeeded(_) => Some(Follows::Success),
        Outcome::Failed(_) => Some(Follows::Failure),
        // Somebody wanted it to end: that is no failure to act on.
        Outcome::Cancelled(_) | Outcome::Released => None,
    }
}

/// Leaves word to the jobs that follow. Returns where somebody has to look.
async fn signal(tx: &mut PhaseTx, signals: &[(Uuid, Follows)]) -> Result<Vec<Gate>, StoreError> {
    if signals.is_empty() {
        return Ok(Vec::new());
    }
    let now = tx.now;
    let jobs: Vec<i32> = match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query_scalar(postgres::INSERT_SIGNALS)
                .bind(now)
                .bind(signals.iter().map(|(execution, _)| *execution).collect::<Vec<_>>())
                .bind(signals.iter().map(|(_, kind)| kind.as_str()).collect::<Vec<_>>())
                .fetch_all(&mut **conn)
                .await?
        }
        EngineTx::Sqlite(conn) => {
            let list: Vec<_> =
                signals.iter().map(|(id, kind)| (id.simple().to_string(), kind.as_str())).collect();
            sqlx::query_scalar(sqlite::INSERT_SIGNALS)
                .bind(now)
                .bind(json_text(&list)?)
                .fetch_all(&mut **conn)
                .await?
        }
    };
    Ok(jobs.into_iter().map(Gate::of_after).collect())
}

/// Sets when the schedules of these executions fire next, which count from now.
pub(super) async fn pace(tx: &mut PhaseTx, executions: &[Uuid]) -> Result<(), StoreError> {
    if executions.is_empty() {
        return Ok(());
    }
    let bound = tx.now;
    let now: Time = on_engine!(tx, sql, conn => {
        sqlx::query_scalar(sql::NOW).bind(bound).fetch_one(conn).await?
    });
    let jobs: Vec<i32> = match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query_scalar(postgres::JOBS_OF).bind(executions).fetch_all(&mut **conn).await?
        }
        EngineTx::Sqlite(conn) => {
            let list = hex_list(executions)?;
            sqlx::query_scalar(sqlite::JOBS_OF).bind(list).fetch_all(&mut **conn).await?
        }
    };
    for (id, loaded) in load_jobs(tx, jobs).await? {
        let job = loaded.job.as_ref().ok().filter(|job| job.enabled);
        let schedule = job.and_then(|job| job.schedule.as_ref());
        let next = schedule.and_then(|schedule| schedule.after_finish(now.0));
        let Some(next) = next.map(|next| Time(clock::truncate(next))) else { continue };
        on_engine!(tx, sql, conn => {
            sqlx::query(sql::SET_PACE).bind(id).bind(next).execute(conn).await?;
        });
    }
    Ok(())
}
