//! START on SQLite: whoever is in the transaction is the only one, so that what is read is what
//! is taken.
//!
//! Each statement costs a hop to the connection's thread and each row one back, which is more
//! than what SQLite does meanwhile. So lists go in and come out as one JSON text.

use std::collections::HashMap;

use serde::Deserialize;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{Claim, StartRow, Taken};
use crate::store::row::json_text;
use crate::store::session::SessionId;
use crate::store::time::Time;
use crate::store::{StoreError, sqlite};

/// What may be claimed, as the statement lists it.
#[derive(Deserialize)]
struct Ready(
    /// Rank, in microseconds.
    i64,
    /// Execution, in hexadecimal.
    String,
    /// Attempts that were made.
    i32,
    /// Component.
    i32,
    /// Job.
    i32,
    /// Arguments.
    String,
    /// Trigger.
    String,
    /// Scheduled, in microseconds.
    i64,
    /// Attempts at most.
    i32,
    /// Whether it has a unique key.
    u8,
    /// Checkpoint.
    Option<String>,
    /// Digest of the component.
    String,
    /// Candidates, where plugins have limits.
    #[serde(default)]
    Option<usize>,
    /// The highest rank of a candidate, there.
    #[serde(default)]
    Option<i64>,
);

pub(super) async fn claim(
    conn: &mut SqliteConnection,
    now: Option<Time>,
    session: SessionId,
    claim: Claim<'_>,
) -> Result<Taken, StoreError> {
    let statement = if claim.rooms.is_empty() { sqlite::CLAIM } else { sqlite::CLAIM_WITHIN };
    let mut select = sqlx::query_scalar(statement)
        .bind(session.0)
        .bind(i64::from(claim.limit))
        .bind(claim.floor.unwrap_or(i64::MIN))
        .bind(claim.queue.0);
    if !claim.rooms.is_empty() {
        let (full, free) = claim.full_and_free();
        let free: Vec<_> = free.map(|room| (room.plugin.as_str(), room.free)).collect();
        select = select.bind(json_text(&full)?).bind(json_text(&free)?);
    }
    let ready: String = select.fetch_one(&mut *conn).await?;
    let ready: Vec<Ready> = listed(&ready)?;
    let Some(first) = ready.first() else { return Ok(Taken::default()) };
    let (found, highest_rank) = (first.12.unwrap_or(ready.len()), first.13);
    let started_at = now.unwrap_or(Time(crate::clock::now()));
    let starts: Vec<(&String, i32, i32)> = ready
        .iter()
        .map(|Ready(_, execution, attempts, component, ..)| (execution, attempts + 1, *component))
        .collect();
    let starts = json_text(&starts)?;
    sqlx::query(sqlite::TAKE_READY).bind(&starts).execute(&mut *conn).await?;
    let before: i64 = sqlx::query_scalar(sqlite::LAST_LEASE).fetch_one(&mut *conn).await?;
    sqlx::query(sqlite::INSERT_STARTS)
        .bind(started_at)
        .bind(&starts)
        .bind(session.0)
        .execute(&mut *conn)
        .await?;
    let leases: String = sqlx::query_scalar(sqlite::LEASES_AFTER).bind(before).fetch_one(&mut *conn).await?;
    let leases: HashMap<String, i64> = listed::<(String, i64)>(&leases)?.into_iter().collect();
    let rows =
        ready.into_iter().map(|ready| start_row(ready, started_at, &leases)).collect::<Result<_, _>>()?;
    Ok(Taken { rows, found, highest_rank })
}

fn start_row(ready: Ready, started_at: Time, leases: &HashMap<String, i64>) -> Result<StartRow, StoreError> {
    let Ready(
        rank,
        execution,
        attempts,
        _,
        job_id,
        args,
        triggered_by,
        scheduled,
        max_attempts,
        keyed,
        checkpoint,
        digest,
        ..,
    ) = ready;
    let lease = leases.get(&execution).copied();
    let no_start = || StoreError::Corrupt(format!("no start of execution {execution}"));
    Ok(StartRow {
        lease: lease.ok_or_else(no_start)?,
        execution_id: Uuid::try_parse(&execution).map_err(|error| StoreError::Corrupt(error.to_string()))?,
        attempt: attempts + 1,
        started_at,
        lowest_rank: rank,
        job_id,
        args,
        triggered_by,
        scheduled_at: Time::from_micros(scheduled),
        max_attempts,
        has_unique_key: keyed != 0,
        checkpoint,
        component: digest,
    })
}

/// A list that a statement has put together.
fn listed<'a, T: Deserialize<'a>>(json: &'a str) -> Result<Vec<T>, StoreError> {
    serde_json::from_str(json).map_err(|error| StoreError::Corrupt(format!("what was claimed: {error}")))
}
