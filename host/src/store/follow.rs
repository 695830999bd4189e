//! Jobs that follow others: a fire that waits until they have succeeded, a job that their success
//! triggers, a job that runs when one has finally failed.
//!
//! COMPLETION leaves word of each end that somebody follows (`signal`, see [`super::effects`]); here
//! it is acted on.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::blocked::{self, BlockedRow, PASS_AFTER, UNBLOCK, blocked, unblock};
use super::connection::Store;
use super::effects::Follows;
use super::gate::Gate;
use super::phase::{EngineTx, PhaseTx};
use super::place::{Hold, NewRow, Placement, ReadyRow, insert_executions, limit_key, place_and_mark};
use super::row::{LoadedJob, hex_list, json_text, on_engine, row, stored_json, to_count};
use super::time::Time;
use super::unstarted::{Unstarted, end_unstarted};
use super::{StoreError, postgres, sqlite};
use crate::bounds;
use crate::execution::Trigger;
use crate::job::Job;
use crate::policy::{After, CatchUpMode, When};

/// What has to be done at the end of the transaction, and what was done.
#[derive(Default)]
pub(super) struct Then {
    /// Where somebody has to look next.
    pub(super) gates: Vec<Gate>,
    /// What may start now.
    pub(super) ready: Vec<ReadyRow>,
    pub(super) triggered: usize,
    pub(super) skipped: usize,
}

/// Signals that one look takes on.
const BATCH: u32 = 100;

row! {
    struct SignalRow {
        id: i64,
        upstream_id: i32,
        execution_id: Uuid,
    }
}

row! {
    #[derive(Clone)]
    struct EndRow {
        id: Uuid,
        job: String,
        scheduled_at: Time,
        attempt: i32,
        result: Option<String>,
        error: Option<String>,
    }
}

/// Acts on what a job has been told of the jobs that it follows.
pub(super) async fn pass(
    store: &Store,
    tx: &mut PhaseTx,
    loaded: &LoadedJob,
    then: &mut Then,
) -> Result<(), StoreError> {
    // Another binary can read it, and finds the word that was left.
    let Ok(job) = &loaded.job else { return Ok(()) };
    let failures = oldest(tx, loaded.facts.id, Follows::Failure).await?;
    trigger_each(store, tx, loaded, job, Follows::Failure, failures, then).await?;
    let Some(after) = &job.policies.after else {
        return forget(tx, loaded.facts.id, Follows::Success, i64::MAX).await;
    };
    if job.schedule.is_some() {
        return let_go(tx, loaded, job, after, then).await;
    }
    match after.when {
        When::Any => {
            let successes = oldest(tx, loaded.facts.id, Follows::Success).await?;
            trigger_each(store, tx, loaded, job, Follows::Success, successes, then).await
        }
        When::All => {
            let Some(latest) = complete(tx, loaded.facts.id, When::All).await? else { return Ok(()) };
            let last = latest.iter().map(|signal| signal.id).max().unwrap_or(0);
            trigger(store, tx, loaded, job, Follows::Success, &latest, then).await?;
            forget(tx, loaded.facts.id, Follows::Success, last).await
        }
    }
}

/// Of the ends that would trigger a job that is paused, the newest of each job stays, for when it is
/// resumed; for the others it does not run, which is put on record: it is not to be flooded then.
pub(super) async fn pass_while_paused(
    store: &Store,
    tx: &mut PhaseTx,
    loaded: &LoadedJob,
    then: &mut Then,
) -> Result<(), StoreError> {
    let Ok(job) = &loaded.job else { return Ok(()) };
    let after = job.policies.after.as_ref();
    let by_any = job.schedule.is_none() && after.is_some_and(|after| after.when == When::Any);
    for (kind, each) in [(Follows::Failure, true), (Follows::Success, by_any)] {
        let latest = latest(tx, loaded.facts.id, kind).await?;
        let is_latest = |signal: &SignalRow| latest.iter().any(|latest| latest.id == signal.id);
        let signals = if each { oldest(tx, loaded.facts.id, kind).await? } else { Vec::new() };
        for signal in signals.iter().filter(|signal| !is_latest(signal)) {
            let id = make(store, tx, loaded, job, kind, std::slice::from_ref(signal)).await?;
            let why = "the job is paused, and a later end of the same job will run it when it is resumed";
            let ended = end_unstarted(tx, &[(id.execution, 0)], Unstarted::Skipped, why).await?;
            then.gates.extend(ended);
            then.skipped += 1;
        }
        on_engine!(tx, sql, conn => {
            sqlx::query(sql::FORGET_OLD_SIGNALS)
                .bind(loaded.facts.id)
                .bind(kind.as_str())
                .bind(if signals.len() == BATCH as usize { signals.last().map_or(0, |last| last.id) } else { i64::MAX })
                .execute(conn)
                .await?;
        });
        if signals.len() == BATCH as usize {
            then.gates.push(Gate::of_after(loaded.facts.id));
        }
    }
    Ok(())
}

/// A fire that waits for others goes on once they have succeeded. Of several that wait the newest
/// does, unless the job catches up with all of them: the others would run one after the other on
/// the same data.
async fn let_go(
    tx: &mut PhaseTx,
    loaded: &LoadedJob,
    job: &Job,
    after: &After,
    then: &mut Then,
) -> Result<(), StoreError> {
    let id = loaded.facts.id;
    on_engine!(tx, sql, conn => {
        let kind = Follows::Success.as_str();
        sqlx::query(sql::FORGET_OLD_SIGNALS).bind(id).bind(kind).bind(i64::MAX).execute(conn).await?;
    });
    let keeps_all = job.policies.catch_up.mode == CatchUpMode::All;
    let mut waiting = blocked(tx, id, "after", "", blocked::BATCH).await?;
    if !keeps_all && waiting.len() > 1 {
        let newest = waiting.split_off(waiting.len() - 1);
        skip_older(tx, waiting, newest[0].execution_id, then).await?;
        waiting = newest;
    }
    let Some(first) = waiting.into_iter().next() else { return Ok(()) };
    let Some(latest) = complete(tx, id, after.when).await? else { return Ok(()) };
    let last = latest.iter().map(|signal| signal.id).max().unwrap_or(0);
    forget(tx, id, Follows::Success, last).await?;
    if loaded.facts.gated {
        then.gates.push(Gate::of_limit(id, first.limit_key.as_deref()));
        return unblock(tx, PASS_AFTER, "after", vec![first]).await.map(drop);
    }
    let passed = unblock(tx, UNBLOCK, "after", vec![first]).await?;
    then.ready.extend(passed.iter().map(|row| row.ready(id)));
    Ok(())
}

async fn skip_older(
    tx: &mut PhaseTx,
    older: Vec<BlockedRow>,
    newest: Uuid,
    then: &mut Then,
) -> Result<(), StoreError> {
    let older = unblock(tx, UNBLOCK, "after", older).await?;
    let ended: Vec<_> = older.iter().map(|row| (row.execution_id, row.attempt)).collect();
    let why = format!(
        "the jobs that it comes after had not succeeded when it was due again, as execution {newest}"
    );
    then.gates.extend(end_unstarted(tx, &ended, Unstarted::Skipped, &why).await?);
    then.skipped += older.len();
    Ok(())
}

/// The newest word of each job that this one comes after, where it is enough.
async fn complete(tx: &mut PhaseTx, job: i32, when: When) -> Result<Option<Vec<SignalRow>>, StoreError> {
    let kind = Follows::Success;
    let upstreams: Vec<i32> = on_engine!(tx, sql, conn => {
        sqlx::query_scalar(sql::UPSTREAMS).bind(job).bind(kind.as_str()).fetch_all(conn).await?
    });
    let latest = latest(tx, job, kind).await?;
    let told = |upstream: &i32| latest.iter().any(|signal| signal.upstream_id == *upstream);
    let enough = match when {
        When::All => !upstreams.is_empty() && upstreams.iter().all(told),
        When::Any => upstreams.iter().any(told),
    };
    Ok(enough.then_some(latest))
}

async fn latest(tx: &mut PhaseTx, job: i32, kind: Follows) -> Result<Vec<SignalRow>, StoreError> {
    Ok(on_engine!(tx, sql, conn => {
        sqlx::query_as(sql::LATEST_SIGNALS).bind(job).bind(kind.as_str()).fetch_all(conn).await?
    }))
}

async fn oldest(tx: &mut PhaseTx, job: i32, kind: Follows) -> Result<Vec<SignalRow>, StoreError> {
    Ok(on_engine!(tx, sql, conn => {
        sqlx::query_as(sql::OLDEST_SIGNALS)
            .bind(job)
            .bind(kind.as_str())
            .bind(i64::from(BATCH))
            .fetch_all(conn)
            .await?
    }))
}

async fn forget(tx: &mut PhaseTx, job: i32, kind: Follows, last: i64) -> Result<(), StoreError> {
    on_engine!(tx, sql, conn => {
        sqlx::query(sql::FORGET_SIGNALS).bind(job).bind(kind.as_str()).bind(last).execute(conn).await?;
    });
    Ok(())
}

/// An execution for each word that was left, the oldest first.
async fn trigger_each(
    store: &Store,
    tx: &mut PhaseTx,
    loaded: &LoadedJob,
    job: &Job,
    kind: Follows,
    signals: Vec<SignalRow>,
    then: &mut Then,
) -> Result<(), StoreError> {
    let Some(last) = signals.last().map(|signal| signal.id) else { return Ok(()) };
    if signals.len() == BATCH as usize {
        then.gates.push(Gate::of_after(loaded.facts.id));
    }
    for signal in signals {
        trigger(store, tx, loaded, job, kind, &[signal], then).await?;
    }
    forget(tx, loaded.facts.id, kind, last).await
}

/// Has the job run after these ends.
async fn trigger(
    store: &Store,
    tx: &mut PhaseTx,
    loaded: &LoadedJob,
    job: &Job,
    kind: Follows,
    signals: &[SignalRow],
    then: &mut Then,
) -> Result<(), StoreError> {
    // `enabled = false` is for what starts by itself.
    if !job.enabled {
        return Ok(());
    }
    let placement = make(store, tx, loaded, job, kind, signals).await?;
    then.gates.extend(place_and_mark(tx, &[placement]).await?);
    then.triggered += 1;
    Ok(())
}

/// Makes an execution that follows these ends, and is told of them in its arguments.
async fn make(
    store: &Store,
    tx: &mut PhaseTx,
    loaded: &LoadedJob,
    job: &Job,
    kind: Follows,
    signals: &[SignalRow],
) -> Result<Placement, StoreError> {
    let bound = tx.now;
    let now: Time = on_engine!(tx, sql, conn => {
        sqlx::query_scalar(sql::NOW).bind(bound).fetch_one(conn).await?
    });
    let ends = ends(tx, signals).await?;
    let args = with_ends(&job.args, kind, &ends)?;
    let id = store.new_id(now);
    let limit_key = limit_key(job, &args);
    let row = NewRow {
        id,
        job: loaded.facts,
        args: json_text(&args)?,
        triggered_by: Trigger::Dependency,
        scheduled_at: now,
        fire_time: None,
        max_attempts: to_count(job.retry.max_attempts),
        unique_key: None,
        limit_key: limit_key.clone(),
        retry_of: None,
    };
    insert_executions(tx, &[row]).await?;
    let hold = if loaded.facts.gated { Hold::Permit } else { Hold::None };
    Ok(Placement { execution: id, job: loaded.facts, due: now, attempt: 0, limit_key, hold })
}

async fn ends(tx: &mut PhaseTx, signals: &[SignalRow]) -> Result<Vec<EndRow>, StoreError> {
    let ids: Vec<Uuid> = signals.iter().map(|signal| signal.execution_id).collect();
    Ok(match &mut tx.engine {
        EngineTx::Postgres(conn) => sqlx::query_as(postgres::ENDS).bind(ids).fetch_all(&mut **conn).await?,
        EngineTx::Sqlite(conn) => {
            sqlx::query_as(sqlite::ENDS).bind(hex_list(&ids)?).fetch_all(&mut **conn).await?
        }
    })
}

/// The job's own arguments, and beside them `after` with what it comes after, by job, or `failed`
/// with what has failed. Arguments that are no object have no room for that and stay as they are.
fn with_ends(args: &Value, kind: Follows, ends: &[EndRow]) -> Result<Value, StoreError> {
    let Value::Object(args) = args else { return Ok(args.clone()) };
    let mut told = args.clone();
    match kind {
        Follows::Success => {
            let mut after = Map::new();
            for end in ends {
                after.insert(end.job.clone(), end.told("result", end.result.as_deref())?);
            }
            told.insert("after".to_owned(), Value::Object(after));
        }
        Follows::Failure => {
            for end in ends {
                let mut failed = end.told("error", end.error.as_deref())?;
                failed["job"] = json!(end.job);
                failed["attempt"] = json!(end.attempt);
                told.insert("failed".to_owned(), failed);
            }
        }
    }
    let told = Value::Object(told);
    if json_text(&told)?.len() <= bounds::DOCUMENT {
        return Ok(told);
    }
    // The results together are more than arguments may be: they are to be asked for.
    let without: Vec<EndRow> =
        ends.iter().filter(|end| end.result.is_some()).map(EndRow::without_result).collect();
    if without.is_empty() {
        Ok(Value::Object(args.clone()))
    } else {
        with_ends(&Value::Object(args.clone()), kind, &without)
    }
}

impl EndRow {
    fn told(&self, what: &str, json: Option<&str>) -> Result<Value, StoreError> {
        let value = json.map(|json| stored_json("how an execution ended", json)).transpose()?;
        let scheduled: Timestamp = self.scheduled_at.0;
        Ok(json!({
            "execution": self.id.to_string(),
            "scheduled_at": scheduled.to_string(),
            what: value,
        }))
    }

    fn without_result(&self) -> Self {
        Self { result: None, ..self.clone() }
    }
}
