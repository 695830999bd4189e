//! COMPLETION: ends of attempts are recorded, guarded by their leases.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::json;

use super::cancel::heed_requests;
use super::connection::Store;
use super::handler::Holder;
use super::phase::{EngineTx, PhaseName, PhaseTx};
use super::row::{json_text, micros, on_engine, outcome_code, row, to_count};
use super::session::SessionId;
use super::{StoreError, effects, postgres, sqlite};
use crate::execution::{Completion, Failure, FailureKind, Next, Outcome};

/// What became of a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recording {
    /// It is on record (also where it was already, from a commit whose answer was lost).
    Recorded,
    /// The attempt had ended otherwise: it changed nothing, and is on record as stale.
    Stale,
}

impl PhaseTx {
    /// Records the ends of attempts, one answer for each in the same order.
    ///
    /// # Errors
    /// Where the store fails. A dead host session is none: its completions are stale.
    pub async fn complete(
        &mut self,
        session: SessionId,
        completions: &[Completion],
    ) -> Result<Vec<Recording>, StoreError> {
        if completions.is_empty() {
            return Ok(Vec::new());
        }
        let completions = &*heed_requests(self, completions).await?;
        let recorded = if self.lock_live_session(session).await? {
            write_completions(self, session, completions).await?
        } else {
            HashSet::new()
        };
        let rejected: Vec<&Completion> =
            completions.iter().filter(|completion| !recorded.contains(&completion.lease)).collect();
        let existing = existing_completions(self, &rejected).await?;
        let mut recordings = Vec::with_capacity(completions.len());
        for completion in completions {
            let fate = if recorded.contains(&completion.lease) || existing.contains(completion)? {
                Recording::Recorded
            } else {
                let holder = Holder { session, lease: completion.lease, execution: completion.execution };
                self.insert_stale(holder, "completion", &stale_detail(completion)).await?;
                Recording::Stale
            };
            recordings.push(fate);
        }
        Ok(recordings)
    }

    /// Locks the session's row against the rescuer. False: the session is dead.
    pub(super) async fn lock_live_session(&mut self, session: SessionId) -> Result<bool, StoreError> {
        Ok(on_engine!(self, sql, conn => {
            sqlx::query(sql::LOCK_LIVE_SESSION).bind(session.0).fetch_optional(conn).await?.is_some()
        }))
    }

    /// Puts on record what came too late to count.
    pub(super) async fn insert_stale(
        &mut self,
        holder: Holder,
        kind: &str,
        detail: &serde_json::Value,
    ) -> Result<(), StoreError> {
        let (now, detail) = (self.now, json_text(detail)?);
        on_engine!(self, sql, conn => {
            sqlx::query(sql::INSERT_STALE)
                .bind(now)
                .bind(holder.execution)
                .bind(holder.lease)
                .bind(holder.session.0)
                .bind(kind)
                .bind(detail)
                .execute(conn)
                .await?;
        });
        Ok(())
    }
}

impl Store {
    /// COMPLETION as a whole: begin, [`PhaseTx::complete`], commit. May be repeated with the
    /// same completions after [`StoreError::Unavailable`].
    ///
    /// # Errors
    /// As [`PhaseTx::complete`].
    pub async fn record(
        &self,
        session: SessionId,
        completions: &[Completion],
    ) -> Result<Vec<Recording>, StoreError> {
        let mut phase = self.begin(PhaseName::Completion).await?;
        let recordings = phase.tx().complete(session, completions).await?;
        phase.commit().await?;
        Ok(recordings)
    }
}

/// Writes the completions whose starts are the session's and open, and what follows from them.
/// Returns the leases that it ended. The caller has locked the session.
pub(super) async fn write_completions(
    tx: &mut PhaseTx,
    session: SessionId,
    completions: &[Completion],
) -> Result<HashSet<i64>, StoreError> {
    let rows = completions.iter().map(CompletionRow::new).collect::<Result<Vec<_>, _>>()?;
    let recorded = insert_completions(tx, session, completions, &rows).await?;
    let written = || completions.iter().filter(|completion| recorded.contains(&completion.lease));

    let retries: Vec<(&Completion, Duration)> = written()
        .filter_map(|completion| match completion.next {
            Next::RetryIn(wait) => Some((completion, wait)),
            Next::Final | Next::Requeue => None,
        })
        .collect();
    insert_retries(tx, &retries).await?;
    let requeued: Vec<&Completion> =
        written().filter(|completion| completion.next == Next::Requeue).collect();
    requeue(tx, &requeued).await?;
    let keyed: Vec<&Completion> =
        written().filter(|completion| completion.has_unique_key && completion.next == Next::Final).collect();
    release_unique_keys(tx, &keyed).await?;
    let with_effects: Vec<&Completion> =
        written().filter(|completion| !completion.effects.is_none()).collect();
    if !with_effects.is_empty() {
        effects::apply(tx, &with_effects).await?;
    }
    Ok(recorded)
}

/// A completion's columns that are not its own fields.
#[derive(Debug)]
struct CompletionRow {
    outcome: &'static str,
    is_final: bool,
    result: Option<String>,
    error: Option<String>,
}

impl CompletionRow {
    fn new(completion: &Completion) -> Result<Self, StoreError> {
        let (result, error) = match &completion.outcome {
            Outcome::Succeeded(result) => (Some(json_text(result)?), None),
            Outcome::Failed(failure) => (None, Some(json_text(failure)?)),
            Outcome::Cancelled(why) => {
                (None, Some(json_text(&Failure::new(FailureKind::Cancelled, why.as_str()))?))
            }
            Outcome::Released => (None, None),
        };
        let is_final = completion.next == Next::Final;
        Ok(Self { outcome: outcome_code(&completion.outcome), is_final, result, error })
    }
}

async fn insert_completions(
    tx: &mut PhaseTx,
    session: SessionId,
    completions: &[Completion],
    rows: &[CompletionRow],
) -> Result<HashSet<i64>, StoreError> {
    if completions.is_empty() {
        return Ok(HashSet::new());
    }
    let now = tx.now;
    Ok(match &mut tx.engine {
        EngineTx::Postgres(conn) => sqlx::query_scalar(postgres::INSERT_COMPLETION)
            .bind(now)
            .bind(session.0)
            .bind(executions(completions))
            .bind(leases(completions))
            .bind(rows.iter().map(|row| row.outcome).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.is_final).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.result.as_deref()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.error.as_deref()).collect::<Vec<_>>())
            .bind(usages(completions)?)
            .fetch_all(&mut **conn)
            .await?
            .into_iter()
            .collect(),
        EngineTx::Sqlite(conn) => {
            let ended: Vec<_> = completions
                .iter()
                .zip(rows)
                .map(|(completion, row)| {
                    let execution = completion.execution.simple().to_string();
                    let CompletionRow { outcome, is_final, result, error } = row;
                    (execution, completion.lease, outcome, is_final, result, error, &completion.usage)
                })
                .collect();
            // A row that comes back costs more than it takes SQLite to insert it.
            let before: i64 = sqlx::query_scalar(sqlite::LAST_COMPLETION).fetch_one(&mut **conn).await?;
            sqlx::query(sqlite::INSERT_COMPLETION)
                .bind(now)
                .bind(session.0)
                .bind(json_text(&ended)?)
                .execute(&mut **conn)
                .await?;
            let leases: String =
                sqlx::query_scalar(sqlite::COMPLETIONS_AFTER).bind(before).fetch_one(&mut **conn).await?;
            serde_json::from_str(&leases)
                .map_err(|error| StoreError::Corrupt(format!("the leases of completions: {error}")))?
        }
    })
}

async fn insert_retries(tx: &mut PhaseTx, retries: &[(&Completion, Duration)]) -> Result<(), StoreError> {
    if retries.is_empty() {
        return Ok(());
    }
    let now = tx.now;
    match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query(postgres::INSERT_RETRY)
                .bind(now)
                .bind(retries.iter().map(|(completion, _)| completion.execution).collect::<Vec<_>>())
                .bind(retries.iter().map(|(completion, _)| to_count(completion.attempt)).collect::<Vec<_>>())
                .bind(retries.iter().map(|(_, wait)| micros(*wait)).collect::<Vec<_>>())
                .execute(&mut **conn)
                .await?;
        }
        EngineTx::Sqlite(conn) => {
            for (completion, wait) in retries {
                sqlx::query(sqlite::INSERT_RETRY)
                    .bind(now)
                    .bind(completion.execution)
                    .bind(to_count(completion.attempt))
                    .bind(micros(*wait))
                    .execute(&mut **conn)
                    .await?;
            }
        }
    }
    Ok(())
}

/// Back to `ready`, with one attempt less: the one that was given back does not count.
async fn requeue(tx: &mut PhaseTx, completions: &[&Completion]) -> Result<(), StoreError> {
    if completions.is_empty() {
        return Ok(());
    }
    let before = |completion: &Completion| to_count(completion.attempt.saturating_sub(1));
    match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query(postgres::REQUEUE)
                .bind(executions(completions.iter().copied()))
                .bind(completions.iter().map(|completion| before(completion)).collect::<Vec<_>>())
                .execute(&mut **conn)
                .await?;
        }
        EngineTx::Sqlite(conn) => {
            for completion in completions {
                sqlx::query(sqlite::REQUEUE)
                    .bind(completion.execution)
                    .bind(before(completion))
                    .execute(&mut **conn)
                    .await?;
            }
        }
    }
    Ok(())
}

async fn release_unique_keys(tx: &mut PhaseTx, completions: &[&Completion]) -> Result<(), StoreError> {
    if completions.is_empty() {
        return Ok(());
    }
    match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query(postgres::RELEASE_UNIQUE_KEY)
                .bind(executions(completions.iter().copied()))
                .execute(&mut **conn)
                .await?;
        }
        EngineTx::Sqlite(conn) => {
            for completion in completions {
                sqlx::query(sqlite::RELEASE_UNIQUE_KEY)
                    .bind(completion.execution)
                    .execute(&mut **conn)
                    .await?;
            }
        }
    }
    Ok(())
}

row! {
    struct ExistingRow {
        lease: i64,
        outcome: String,
        r#final: bool,
        result: Option<String>,
        error: Option<String>,
    }
}

/// The completions that are on record already, by lease.
struct Existing(HashMap<i64, ExistingRow>);

impl Existing {
    /// True when exactly this completion is on record: a repetition, not a rival. A rescuer's
    /// row says `crashed`, which no host says of itself.
    fn contains(&self, completion: &Completion) -> Result<bool, StoreError> {
        let Some(existing) = self.0.get(&completion.lease) else { return Ok(false) };
        let row = CompletionRow::new(completion)?;
        Ok(existing.outcome == row.outcome
            && existing.r#final == row.is_final
            && existing.result == row.result
            && existing.error == row.error)
    }
}

async fn existing_completions(tx: &mut PhaseTx, completions: &[&Completion]) -> Result<Existing, StoreError> {
    if completions.is_empty() {
        return Ok(Existing(HashMap::new()));
    }
    let rows: Vec<ExistingRow> = match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query_as(postgres::EXISTING_COMPLETION)
                .bind(executions(completions.iter().copied()))
                .bind(leases(completions.iter().copied()))
                .fetch_all(&mut **conn)
                .await?
        }
        EngineTx::Sqlite(conn) => {
            let mut rows = Vec::new();
            for completion in completions {
                rows.extend(
                    sqlx::query_as::<_, ExistingRow>(sqlite::EXISTING_COMPLETION)
                        .bind(completion.execution)
                        .bind(completion.lease)
                        .fetch_optional(&mut **conn)
                        .await?,
                );
            }
            rows
        }
    };
    Ok(Existing(rows.into_iter().map(|row| (row.lease, row)).collect()))
}

fn stale_detail(completion: &Completion) -> serde_json::Value {
    let mut detail = json!({ "attempt": completion.attempt, "outcome": outcome_code(&completion.outcome) });
    match &completion.outcome {
        Outcome::Succeeded(result) => detail["result"] = result.clone(),
        Outcome::Failed(failure) => {
            detail["error"] = json!({ "kind": failure.kind.as_str(), "message": failure.message });
        }
        Outcome::Cancelled(why) => detail["error"] = json!({ "kind": "cancelled", "message": why }),
        Outcome::Released => {}
    }
    detail
}

fn usages(completions: &[Completion]) -> Result<Vec<Option<String>>, StoreError> {
    completions.iter().map(|completion| completion.usage.as_ref().map(json_text).transpose()).collect()
}

fn executions<'a>(completions: impl IntoIterator<Item = &'a Completion>) -> Vec<uuid::Uuid> {
    completions.into_iter().map(|completion| completion.execution).collect()
}

fn leases<'a>(completions: impl IntoIterator<Item = &'a Completion>) -> Vec<i64> {
    completions.into_iter().map(|completion| completion.lease).collect()
}
