//! A bare loop: the least that must be done, one thing after the other.
//!
//! Five hundred executions are claimed and their starts recorded; each is called; the
//! completions are recorded: the same rows in the same tables as the host writes them, in as
//! many transactions, and nothing else: no host session, no lease that is checked, no time-out,
//! no limit, no log, no second host.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use innkeeper::database_url::DatabaseUrl;
use innkeeper_tests::database::TestDatabase;
use rusqlite::params;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::guest::BareGuest;

/// Executions of one transaction.
const BATCH: i64 = 500;

/// Runs everything that is ready, and returns how long that took and how many there were.
/// Without a guest, only the store's part.
///
/// # Errors
/// Where something fails.
pub async fn run(database: &TestDatabase, guest: Option<&BareGuest>) -> Result<(Duration, usize)> {
    match database.url() {
        DatabaseUrl::Postgres(url) => postgres(url, guest).await,
        DatabaseUrl::Sqlite(path) => sqlite(path, guest),
    }
}

fn call(guest: Option<&BareGuest>, execution: Uuid, args: &str) -> Result<String> {
    match guest {
        Some(guest) => guest.call(&execution.to_string(), args),
        None => Ok("null".to_owned()),
    }
}

const CLAIM: &str = "
    with taken as (
        delete from innkeeper.ready
        where ctid = any (array(
            select ctid from innkeeper.ready where queue_id = 0 and rank > $2
            order by queue_id, rank, execution_id limit $1 for update skip locked))
        returning rank, execution_id, attempt
    ), started as (
        insert into innkeeper.start (execution_id, attempt, session_id, component_id, started_at)
        select execution_id, attempt + 1, 1, 1, now() from taken
        returning lease, execution_id
    )
    select s.lease, e.id, e.args::text, (select max(rank) from taken)
    from started s join innkeeper.execution e on e.id = s.execution_id";

const COMPLETE: &str = "
    insert into innkeeper.completion
        (execution_id, lease, attempt, outcome, final, finished_at, result)
    select c.execution_id, c.lease, 1, 'succeeded', true, now(), c.result::json
    from unnest($1::uuid[], $2::bigint[], $3::text[]) as c (execution_id, lease, result)";

async fn postgres(url: &str, guest: Option<&BareGuest>) -> Result<(Duration, usize)> {
    let mut connection = PgConnection::connect(url).await?;
    // It has all that the host's phases have to be fast with: one plan for all batches, and no
    // walk over what it has deleted.
    sqlx::raw_sql("set plan_cache_mode = force_generic_plan").execute(&mut connection).await?;
    let start = Instant::now();
    let (mut done, mut last) = (0, i64::MIN);
    loop {
        let mut tx = connection.begin().await?;
        let claimed: Vec<(i64, Uuid, String, i64)> =
            sqlx::query_as(CLAIM).bind(BATCH).bind(last).fetch_all(&mut *tx).await?;
        tx.commit().await?;
        if claimed.is_empty() {
            break;
        }
        done += claimed.len();
        last = claimed.first().map_or(last, |(.., rank)| *rank);
        let mut results = Vec::with_capacity(claimed.len());
        for (_, id, args, _) in &claimed {
            results.push(call(guest, *id, args)?);
        }
        let mut tx = connection.begin().await?;
        sqlx::query(COMPLETE)
            .bind(claimed.iter().map(|(_, id, ..)| *id).collect::<Vec<_>>())
            .bind(claimed.iter().map(|(lease, ..)| *lease).collect::<Vec<_>>())
            .bind(results)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
    }
    let took = start.elapsed();
    connection.close().await?;
    Ok((took, done))
}

fn sqlite(path: &std::path::Path, guest: Option<&BareGuest>) -> Result<(Duration, usize)> {
    let mut connection = rusqlite::Connection::open(path)?;
    let mode: String = connection.query_row("pragma journal_mode = wal", [], |row| row.get(0))?;
    ensure!(mode == "wal", "the journal's mode is {mode}");
    connection.pragma_update(None, "synchronous", "full")?;
    let start = Instant::now();
    let mut done = 0;
    loop {
        let claimed = claim_sqlite(&mut connection)?;
        if claimed.is_empty() {
            return Ok((start.elapsed(), done));
        }
        done += claimed.len();
        let mut results = Vec::with_capacity(claimed.len());
        for (_, id, args) in &claimed {
            results.push(call(guest, *id, args)?);
        }
        let tx = connection.transaction()?;
        {
            let mut insert = tx.prepare_cached(
                "insert into completion (execution_id, lease, attempt, outcome, final, finished_at, result)
                 values (?1, ?2, 1, 'succeeded', 1, 0, ?3)",
            )?;
            for ((lease, id, _), result) in claimed.iter().zip(&results) {
                insert.execute(params![id.as_bytes(), lease, result])?;
            }
        }
        tx.commit()?;
    }
}

fn claim_sqlite(connection: &mut rusqlite::Connection) -> Result<Vec<(i64, Uuid, String)>> {
    let tx = connection.transaction()?;
    let mut claimed = Vec::new();
    {
        let mut select = tx.prepare_cached(
            "select r.rank, r.execution_id, e.args from ready r cross join execution e on e.id = r.execution_id
             where r.queue_id = 0 order by r.queue_id, r.rank, r.execution_id limit ?1",
        )?;
        let mut delete =
            tx.prepare_cached("delete from ready where queue_id = 0 and rank = ?1 and execution_id = ?2")?;
        let mut insert = tx.prepare_cached(
            "insert into start (execution_id, attempt, session_id, component_id, started_at)
             values (?1, 1, 1, 1, 0)",
        )?;
        let ready = select
            .query_map([BATCH], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<Result<Vec<(i64, [u8; 16], String)>, _>>()?;
        for (rank, id, args) in ready {
            delete.execute(params![rank, id])?;
            insert.execute([id])?;
            claimed.push((tx.last_insert_rowid(), Uuid::from_bytes(id), args));
        }
    }
    tx.commit()?;
    Ok(claimed)
}
