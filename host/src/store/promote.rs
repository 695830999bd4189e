//! Executions whose wait for a time is over: they are ready, or wait for something else.

use serde::Deserialize;

use super::gate::{Gate, open_gates};
use super::phase::{EngineTx, PhaseTx};
use super::row::{json_text, row};
use super::time::Time;
use super::{StoreError, postgres, sqlite};

row! {
    struct PromotedRow {
        found: i64,
        gates: Option<String>,
    }
}

/// What is due of a job that is paused or needs permits, as SQLite lists it.
#[derive(Deserialize, serde::Serialize)]
struct Held(
    /// Execution, in hexadecimal.
    String,
    /// Job.
    i32,
    /// Key.
    String,
    /// Rank.
    i64,
    /// Whether the job is paused.
    u8,
    /// Whether it has a key.
    u8,
);

/// Moves executions whose wait is over to `ready`, or on to what they wait for next. Returns how
/// many.
pub(super) async fn promote(tx: &mut PhaseTx, limit: u32, floor: Time) -> Result<usize, StoreError> {
    let (now, limit) = (tx.now, i64::from(limit));
    let (found, gates) = match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            let promoted: PromotedRow = sqlx::query_as(postgres::PROMOTE)
                .bind(now)
                .bind(limit)
                .bind(floor)
                .fetch_one(&mut **conn)
                .await?;
            let gates: Vec<(i32, String)> = promoted.gates.map_or(Ok(Vec::new()), |gates| listed(&gates))?;
            (promoted.found, gates)
        }
        EngineTx::Sqlite(conn) => {
            let held: String =
                sqlx::query_scalar(sqlite::DUE_AND_HELD).bind(now).bind(limit).fetch_one(&mut **conn).await?;
            let held: Vec<Held> = listed(&held)?;
            if !held.is_empty() {
                sqlx::query(sqlite::HOLD).bind(json_text(&held)?).execute(&mut **conn).await?;
            }
            let promoted = sqlx::query(sqlite::PROMOTE)
                .bind(now)
                .bind(limit)
                .execute(&mut **conn)
                .await?
                .rows_affected();
            sqlx::query(sqlite::FORGET_PROMOTED).bind(now).bind(limit).execute(&mut **conn).await?;
            let found = promoted.saturating_add(held.len() as u64);
            let gated = held.into_iter().filter(|held| held.4 == 0);
            (i64::try_from(found).unwrap_or(i64::MAX), gated.map(|held| (held.1, held.2)).collect())
        }
    };
    // An empty text is no key: a key is JSON.
    let key = |key: &str| (!key.is_empty()).then(|| key.to_owned());
    let gates = gates.into_iter().map(|(job, text)| Gate::of_limit(job, key(&text).as_deref())).collect();
    open_gates(tx, gates, None).await?;
    Ok(usize::try_from(found).unwrap_or(usize::MAX))
}

fn listed<'a, T: Deserialize<'a>>(json: &'a str) -> Result<Vec<T>, StoreError> {
    serde_json::from_str(json).map_err(|error| StoreError::Corrupt(format!("what was promoted: {error}")))
}
