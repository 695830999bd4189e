//! Executions are cancelled. What has not started ends at once; what runs is asked to end, by a row
//! that its host reads.
//!
//! A request that came too late, or whose attempt ended otherwise, is settled by whichever host
//! comes across it ([`Store::settle_request`]), so that no COMPLETION has to look for one that it
//! does not need.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use uuid::Uuid;

use super::connection::Store;
use super::gate::{Gate, open_gates};
use super::phase::{EngineTx, PhaseName, PhaseTx};
use super::row::{hex_list, on_read, row, state_of_outcome, storable};
use super::session::SessionId;
use super::unstarted::{Unstarted, end_unstarted, run};
use super::{StoreError, postgres, sqlite};
use crate::execution::{Completion, Next, Outcome, State};

/// What became of the wish to cancel an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelResult {
    /// It had not started, and never will.
    Cancelled,
    /// It runs, and its host is to end it: it still may succeed.
    Requested,
    /// It had ended before.
    Ended(State),
    /// There is no such execution, or no longer.
    Unknown,
}

/// A running execution that somebody wants to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelRequest {
    /// The execution.
    pub execution: Uuid,
    /// Why, for the person who reads it.
    pub reason: String,
    /// Its open attempt. None: it has none, and the request is to be settled.
    pub lease: Option<i64>,
}

/// How often an execution is looked for that is on its way from one table to another, and the
/// first and the longest pause between two looks: longer in all than any phase takes.
const LOOKS: u32 = 60;
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

impl Store {
    /// Cancels executions, one answer for each in the same order.
    ///
    /// Hosts find a request within a second; [`Store::wake_hosts`] has them look at once.
    ///
    /// # Errors
    /// Where the store fails: some may have been cancelled, and doing it again does no harm.
    pub async fn cancel(&self, ids: &[Uuid], reason: &str) -> Result<Vec<(Uuid, CancelResult)>, StoreError> {
        let mut results: HashMap<Uuid, CancelResult> = HashMap::new();
        let mut left = ids.to_vec();
        // One order, so that two who cancel the same do not wait for each other.
        left.sort_unstable();
        left.dedup();
        let mut pause = FIRST_PAUSE;
        for look in 0..LOOKS {
            if left.is_empty() {
                break;
            }
            if look > 0 {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            let mut phase = self.begin(PhaseName::Cancel).await?;
            let done = try_to_cancel(phase.tx(), &left, reason).await?;
            phase.commit().await?;
            results.extend(done);
            left.retain(|id| !results.contains_key(id));
        }
        if let Some(id) = left.first() {
            return Err(StoreError::Unavailable(format!(
                "execution {id} is in another transaction of the store that does not end: it was not cancelled"
            )));
        }
        Ok(ids.iter().filter_map(|id| Some((*id, *results.get(id)?))).collect())
    }

    /// The requests for what runs in a session, and those that are to be settled; `limit` at most.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn cancel_requests(
        &self,
        session: SessionId,
        limit: u32,
    ) -> Result<Vec<CancelRequest>, StoreError> {
        let rows: Vec<RequestRow> = on_read!(self, sql, conn => {
            sqlx::query_as(sql::CANCEL_REQUESTS).bind(session.0).bind(i64::from(limit)).fetch_all(conn).await?
        });
        Ok(rows
            .into_iter()
            .map(|row| CancelRequest { execution: row.execution_id, reason: row.reason, lease: row.lease })
            .collect())
    }

    /// Settles a request whose execution has no open attempt: one that waits for another attempt
    /// is cancelled, and a request that has come to its end is removed. One that cannot be
    /// settled now is left for the next time.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn settle_request(&self, request: &CancelRequest) -> Result<Option<CancelResult>, StoreError> {
        let mut phase = self.begin(PhaseName::Cancel).await?;
        let tx = phase.tx();
        let ids = [request.execution];
        let result =
            try_to_cancel(tx, &ids, &request.reason).await?.into_iter().next().map(|(_, result)| result);
        if matches!(result, Some(CancelResult::Cancelled | CancelResult::Ended(_) | CancelResult::Unknown)) {
            run(tx, postgres::FORGET_CANCEL_REQUESTS, sqlite::FORGET_CANCEL_REQUESTS, &ids).await?;
        }
        phase.commit().await?;
        Ok(result)
    }
}

/// Asks for the end of executions that run, or may: of one that does not, the request is settled.
pub(super) async fn request_cancel(tx: &mut PhaseTx, ids: &[Uuid], reason: &str) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    let now = tx.now;
    let reason = storable(reason);
    match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            let insert = sqlx::query(postgres::INSERT_CANCEL_REQUESTS).bind(now).bind(ids).bind(reason);
            insert.execute(&mut **conn).await?;
        }
        EngineTx::Sqlite(conn) => {
            let insert =
                sqlx::query(sqlite::INSERT_CANCEL_REQUESTS).bind(now).bind(hex_list(ids)?).bind(reason);
            insert.execute(&mut **conn).await?;
        }
    }
    Ok(())
}

/// The completions as they are to be recorded: an attempt that did not succeed while somebody
/// wanted its execution to end is cancelled, and not tried again. Costs a look only where an
/// attempt did not succeed.
pub(super) async fn heed_requests<'a>(
    tx: &mut PhaseTx,
    completions: &'a [Completion],
) -> Result<Cow<'a, [Completion]>, StoreError> {
    let may_be_cancelled =
        |completion: &Completion| matches!(completion.outcome, Outcome::Failed(_) | Outcome::Released);
    let ids: Vec<Uuid> = completions.iter().filter(|c| may_be_cancelled(c)).map(|c| c.execution).collect();
    if ids.is_empty() {
        return Ok(Cow::Borrowed(completions));
    }
    let requested: Vec<ReasonRow> = match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query_as(postgres::REQUESTED).bind(&ids).fetch_all(&mut **conn).await?
        }
        EngineTx::Sqlite(conn) => {
            sqlx::query_as(sqlite::REQUESTED).bind(hex_list(&ids)?).fetch_all(&mut **conn).await?
        }
    };
    if requested.is_empty() {
        return Ok(Cow::Borrowed(completions));
    }
    let mut completions = completions.to_vec();
    for completion in completions.iter_mut().filter(|completion| may_be_cancelled(completion)) {
        if let Some(row) = requested.iter().find(|row| row.execution_id == completion.execution) {
            completion.outcome = completion.outcome.clone().after_a_request(&row.reason);
            completion.next = Next::Final;
        }
    }
    Ok(Cow::Owned(completions))
}

/// Cancels what can be cancelled now. What is missing from the answer is in the middle of another
/// transaction: it is looked for again in another one, since this one may be what that waits for.
async fn try_to_cancel(
    tx: &mut PhaseTx,
    ids: &[Uuid],
    reason: &str,
) -> Result<Vec<(Uuid, CancelResult)>, StoreError> {
    let waiting = lock_gates(tx, ids).await?;
    let taken = take_unstarted(tx, ids, &waiting).await?;
    let freed = end_unstarted(tx, &taken, Unstarted::Cancelled, reason).await?;
    open_gates(tx, freed, None).await?;
    let mut results: Vec<_> = taken.iter().map(|(id, _)| (*id, CancelResult::Cancelled)).collect();
    let rest: Vec<Uuid> =
        ids.iter().filter(|id| !taken.iter().any(|(taken, _)| taken == *id)).copied().collect();
    if rest.is_empty() {
        return Ok(results);
    }
    let standing: Vec<StandingRow> = match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query_as(postgres::STANDING).bind(&rest).fetch_all(&mut **conn).await?
        }
        EngineTx::Sqlite(conn) => {
            sqlx::query_as(sqlite::STANDING).bind(hex_list(&rest)?).fetch_all(&mut **conn).await?
        }
    };
    let mut running = Vec::new();
    for row in standing {
        let result = match row.outcome.as_deref() {
            Some(outcome) => CancelResult::Ended(state_of_outcome(row.execution_id, outcome)?),
            None if row.is_running => {
                running.push(row.execution_id);
                CancelResult::Requested
            }
            None if row.is_known => continue,
            None => CancelResult::Unknown,
        };
        results.push((row.execution_id, result));
    }
    request_cancel(tx, &running, reason).await?;
    Ok(results)
}

/// Locks the gates that these executions wait at, and those that their end will open, before any
/// row that whoever has a gate may wait for: nobody lets an execution pass that is about to be
/// cancelled. Returns what waits, as it was before: behind a gate it only moves on with that.
async fn lock_gates(tx: &mut PhaseTx, ids: &[Uuid]) -> Result<Vec<WaitingRow>, StoreError> {
    let (waiting, held): (Vec<WaitingRow>, Vec<HeldRow>) = match &mut tx.engine {
        EngineTx::Postgres(conn) => (
            sqlx::query_as(postgres::SEEN_WAITING).bind(ids).fetch_all(&mut **conn).await?,
            sqlx::query_as(postgres::HELD_GATES).bind(ids).fetch_all(&mut **conn).await?,
        ),
        EngineTx::Sqlite(conn) => {
            let ids = hex_list(ids)?;
            (
                sqlx::query_as(sqlite::SEEN_WAITING).bind(&ids).fetch_all(&mut **conn).await?,
                sqlx::query_as(sqlite::HELD_GATES).bind(&ids).fetch_all(&mut **conn).await?,
            )
        }
    };
    let of_held = held.into_iter().map(|row| Gate::of_limit(row.job_id, row.key.as_deref()));
    let gates = waiting.iter().filter_map(WaitingRow::gate).chain(of_held).collect();
    open_gates(tx, gates, None).await?;
    Ok(waiting)
}

/// Takes executions out of `waiting` and `ready`, but for those that somebody else is taking, and
/// those that no longer wait for what they did.
async fn take_unstarted(
    tx: &mut PhaseTx,
    ids: &[Uuid],
    waiting: &[WaitingRow],
) -> Result<Vec<(Uuid, i32)>, StoreError> {
    let taken: Vec<TakenRow> = match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query_as(postgres::TAKE_UNSTARTED)
                .bind(ids)
                .bind(waiting.iter().map(|row| row.execution_id).collect::<Vec<_>>())
                .bind(waiting.iter().map(|row| row.blocker.as_str()).collect::<Vec<_>>())
                .bind(waiting.iter().map(|row| row.key.as_str()).collect::<Vec<_>>())
                .fetch_all(&mut **conn)
                .await?
        }
        // Nobody else is there.
        EngineTx::Sqlite(conn) => {
            let ids = hex_list(ids)?;
            let taken = sqlx::query_as(sqlite::TAKE_UNSTARTED).bind(&ids).fetch_all(&mut **conn).await?;
            sqlx::query(sqlite::FORGET_WAITING).bind(&ids).execute(&mut **conn).await?;
            sqlx::query(sqlite::FORGET_READY).bind(&ids).execute(&mut **conn).await?;
            taken
        }
    };
    Ok(taken.into_iter().map(|row| (row.execution_id, row.attempt)).collect())
}

row! {
    struct WaitingRow {
        execution_id: Uuid,
        job_id: i32,
        blocker: String,
        key: String,
    }
}

impl WaitingRow {
    /// What it waits at, besides a time.
    fn gate(&self) -> Option<Gate> {
        match self.blocker.as_str() {
            "after" => Some(Gate::of_after(self.job_id)),
            "key" => Some(Gate::of_limit(self.job_id, Some(&self.key))),
            "limit" => Some(Gate::of_limit(self.job_id, None)),
            _ => None,
        }
    }
}

row! {
    /// Where others wait for what an execution holds.
    struct HeldRow {
        job_id: i32,
        /// None: of the job as a whole.
        key: Option<String>,
    }
}

row! {
    struct TakenRow {
        execution_id: Uuid,
        attempt: i32,
    }
}

row! {
    struct StandingRow {
        execution_id: Uuid,
        is_known: bool,
        /// Of the final completion.
        outcome: Option<String>,
        is_running: bool,
    }
}

row! {
    struct ReasonRow {
        execution_id: Uuid,
        reason: String,
    }
}

row! {
    struct RequestRow {
        execution_id: Uuid,
        reason: String,
        lease: Option<i64>,
    }
}
