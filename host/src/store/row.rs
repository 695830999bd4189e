//! What is shared by both engines: rows, codes, and the two macros that let one piece of Rust
//! work on either.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::StoreError;
use super::phase::{EngineTx, PhaseTx};
use super::place::JobFacts;
use super::session::SessionId;
use crate::execution::{Effects, Failure, FailureKind, Next, Outcome, State, Trigger};
use crate::job::{Job, Name};
use crate::limits::Usage;
use serde_json::Value;
use uuid::Uuid;

/// Runs `$body` with the statements of the transaction's engine as `$sql` and its connection
/// as `$conn`. The body is compiled once for each engine.
macro_rules! on_engine {
    ($tx:expr, $sql:ident, $conn:ident => $body:expr) => {
        match &mut $tx.engine {
            $crate::store::phase::EngineTx::Postgres(tx) => {
                #[allow(unused_imports, reason = "not every body names a statement")]
                use $crate::store::postgres as $sql;
                let $conn: &mut $crate::store::pool::Connection = &mut *tx;
                $body
            }
            $crate::store::phase::EngineTx::Sqlite(tx) => {
                #[allow(unused_imports, reason = "not every body names a statement")]
                use $crate::store::sqlite as $sql;
                let $conn: &mut sqlx::SqliteConnection = &mut *tx;
                $body
            }
        }
    };
}

/// As [`on_engine`], on a connection for reading instead of a phase.
macro_rules! on_read {
    ($store:expr, $sql:ident, $conn:ident => $body:expr) => {
        match &$store.pools {
            $crate::store::connection::Pools::Postgres { phases, .. } => {
                use $crate::store::postgres as $sql;
                let mut connection = $store.lend(phases).await?;
                let $conn: &mut $crate::store::pool::Connection = &mut connection;
                $body
            }
            $crate::store::connection::Pools::Sqlite { read, .. } => {
                use $crate::store::sqlite as $sql;
                let mut connection = read.acquire().await.map_err(|error| $store.unreachable(error))?;
                let $conn: &mut sqlx::SqliteConnection = &mut connection;
                $body
            }
        }
    };
}

/// A row that both engines return, its columns named as its fields.
macro_rules! row {
    ($(#[$meta:meta])* struct $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub(super) struct $name { $($(#[$doc])* pub(super) $field: $type),* }
        $crate::store::row::row!(@for sqlx::postgres::PgRow, $name, $($field),*);
        $crate::store::row::row!(@for sqlx::sqlite::SqliteRow, $name, $($field),*);
    };
    (@for $row:ty, $name:ident, $($field:ident),*) => {
        impl sqlx::FromRow<'_, $row> for $name {
            fn from_row(row: &$row) -> sqlx::Result<Self> {
                Ok(Self { $($field: sqlx::Row::try_get(row, stringify!($field).trim_start_matches("r#"))?),* })
            }
        }
    };
}

/// Defines an engine's statements as constants, and a list of them for the test that has the
/// database prepare each.
macro_rules! statements {
    ($list:ident: $($(#[$doc:meta])* $name:ident = $sql:expr;)*) => {
        $($(#[$doc])* pub(in crate::store) const $name: &str = $sql;)*
        pub(in crate::store) const $list: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

pub(super) use {on_engine, on_read, row, statements};

row! {
    /// A job as START, the rescuer and the planner need it.
    struct JobRow {
        id: i32,
        name: String,
        spec: String,
    }
}

impl JobRow {
    /// The definition, where this binary can read it.
    pub(super) fn job(&self) -> Result<Job, StoreError> {
        serde_json::from_str(&self.spec)
            .map_err(|error| StoreError::Corrupt(format!("the definition of job `{}`: {error}", self.name)))
    }
}

row! {
    struct JobSpecRow {
        id: i32,
        name: String,
        spec: String,
        queue_id: i32,
        priority: i32,
        gated: bool,
        paused: bool,
        followed: bool,
        component: Option<String>,
    }
}

/// A job as the phases need it.
#[derive(Debug)]
pub(super) struct LoadedJob {
    pub(super) name: Name,
    /// A definition that this binary cannot read is an error value, so that one job does not stop
    /// the others.
    pub(super) job: Result<Arc<Job>, StoreError>,
    pub(super) facts: JobFacts,
    /// Other jobs come after it, or are run when it has failed.
    pub(super) followed: bool,
    /// The digest of the component that the host session runs it with.
    pub(super) component: Option<String>,
}

impl LoadedJob {
    fn new(row: JobSpecRow) -> Result<Self, StoreError> {
        let JobSpecRow { id, name, spec, queue_id, priority, gated, paused, followed, component } = row;
        let facts = JobFacts { id, queue_id, priority, gated, paused };
        let row = JobRow { id, name, spec };
        Ok(Self { name: stored_name(&row.name)?, job: row.job().map(Arc::new), facts, followed, component })
    }

    /// What the end of an attempt sets free or sets off.
    pub(super) fn effects(&self, triggered_by: Trigger) -> Effects {
        let schedule = self.job.as_ref().ok().and_then(|job| job.schedule.as_ref());
        let paced = schedule.is_some_and(|schedule| schedule.every_after().is_some());
        Effects {
            permits: self.facts.gated,
            followed: self.followed,
            paced: paced && triggered_by == Trigger::Schedule,
        }
    }
}

/// The jobs with these ids, by id.
pub(super) async fn load_jobs(
    tx: &mut PhaseTx,
    ids: impl IntoIterator<Item = i32>,
) -> Result<HashMap<i32, LoadedJob>, StoreError> {
    load_jobs_of(tx, None, ids).await
}

/// The jobs with these ids, by id, as this host session runs them.
pub(super) async fn load_jobs_of(
    tx: &mut PhaseTx,
    session: Option<SessionId>,
    ids: impl IntoIterator<Item = i32>,
) -> Result<HashMap<i32, LoadedJob>, StoreError> {
    let session = session.map(|session| session.0);
    let mut ids: Vec<i32> = ids.into_iter().collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<JobSpecRow> = match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query_as(super::postgres::JOB_SPECS).bind(&ids).bind(session).fetch_all(&mut **conn).await?
        }
        EngineTx::Sqlite(conn) => {
            let mut rows = Vec::with_capacity(ids.len());
            for id in ids {
                rows.extend(
                    sqlx::query_as::<_, JobSpecRow>(super::sqlite::JOB_SPECS)
                        .bind(id)
                        .bind(session)
                        .fetch_optional(&mut **conn)
                        .await?,
                );
            }
            rows
        }
    };
    rows.into_iter().map(|row| Ok((row.id, LoadedJob::new(row)?))).collect()
}

/// What becomes of an attempt whose job this binary cannot read: another host may.
pub(super) fn next_without_definition(attempt: u32, max_attempts: u32) -> Next {
    if attempt < max_attempts { Next::RetryIn(std::time::Duration::from_secs(60)) } else { Next::Final }
}

/// PostgreSQL has no text with a NUL character in it.
pub(super) fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// A count as the store keeps it.
pub(super) fn to_count(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// A count of the store's, which never wrote a negative one.
pub(super) fn from_count(count: i32) -> Result<u32, StoreError> {
    u32::try_from(count).map_err(|_| StoreError::Corrupt(format!("a count of {count}")))
}

/// A time span in the store's microseconds, 100 years at most: a handler may ask to be retried
/// after any number of milliseconds, and no engine's calendar is endless.
pub(super) fn micros(span: std::time::Duration) -> i64 {
    const LONGEST: i64 = 100 * 366 * 86_400 * 1_000_000;
    i64::try_from(span.as_micros()).map_or(LONGEST, |micros| micros.min(LONGEST))
}

pub(super) fn stored_name(name: &str) -> Result<Name, StoreError> {
    Name::new(name).map_err(|error| StoreError::Corrupt(error.to_string()))
}

pub(super) fn stored_json(what: &str, text: &str) -> Result<Value, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt(format!("{what}: {error}")))
}

pub(super) fn stored_failure(text: &str) -> Result<Failure, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Corrupt(format!("the error of an attempt: {error}")))
}

pub(super) fn stored_usage(text: &str) -> Result<Usage, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Corrupt(format!("what an attempt has used: {error}")))
}

/// Serializes what cannot fail to: our own types and [`Value`]s.
pub(super) fn json_text<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Invalid(format!("this cannot be written as JSON: {error}")))
}

/// Ids as the statements of SQLite read them.
pub(super) fn hex_list(executions: &[Uuid]) -> Result<String, StoreError> {
    json_text(&executions.iter().map(|id| id.simple().to_string()).collect::<Vec<_>>())
}

pub(super) fn stored_trigger(code: &str) -> Result<Trigger, StoreError> {
    Ok(match code {
        "schedule" => Trigger::Schedule,
        "manual" => Trigger::Manual,
        "dependency" => Trigger::Dependency,
        "handler" => Trigger::Handler,
        "backfill" => Trigger::Backfill,
        other => return Err(StoreError::Corrupt(format!("an execution triggered by `{other}`"))),
    })
}

pub(super) fn outcome_code(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded(_) => "succeeded",
        Outcome::Failed(_) => "failed",
        Outcome::Cancelled(_) => "cancelled",
        Outcome::Released => "released",
    }
}

/// What became of an execution whose final completion has this outcome.
pub(super) fn state_of_outcome(execution: Uuid, code: &str) -> Result<State, StoreError> {
    match code {
        "succeeded" => Ok(State::Succeeded),
        "failed" => Ok(State::Failed),
        "cancelled" => Ok(State::Cancelled),
        "skipped" => Ok(State::Skipped),
        other => Err(StoreError::Corrupt(format!("execution {execution} ended as `{other}`"))),
    }
}

pub(super) fn crashed(host: &str) -> Outcome {
    let message = format!("host `{host}` stopped, or lost the store, while this attempt ran");
    Outcome::Failed(Failure::new(FailureKind::Crashed, message))
}
