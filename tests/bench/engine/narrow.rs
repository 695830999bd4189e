//! Three narrow tables: what the same steps take where nothing is asked of the rows but that
//! they are there. It bounds what any schema could reach.

use std::time::{Duration, Instant};

use anyhow::Result;
use innkeeper::database_url::DatabaseUrl;
use innkeeper_tests::database::{Engine, TestDatabase};
use sqlx::{Connection as _, PgConnection};

/// Executions of one transaction.
const BATCH: i64 = 500;

const TABLES: &str = "
    create table ready (rank bigint primary key, id uuid not null);
    create table start (lease bigint generated always as identity primary key, id uuid not null, at timestamptz not null);
    create table completion (lease bigint primary key, id uuid not null, at timestamptz not null, outcome smallint not null)";

const START: &str = "
    with taken as (
        delete from ready where ctid = any (array(
            select ctid from ready where rank > $2 order by rank limit $1 for update skip locked))
        returning rank, id
    ), started as (
        insert into start (id, at) select id, now() from taken returning lease, id
    )
    select lease, id, (select max(rank) from taken) from started";

const COMPLETE: &str = "
    insert into completion (lease, id, at, outcome)
    select c.lease, c.id, now(), 1 from unnest($1::bigint[], $2::uuid[]) as c (lease, id)";

/// Runs so many on a PostgreSQL database of its own; returns how long that took.
///
/// # Errors
/// Where the database fails.
pub async fn run(executions: usize) -> Result<Duration> {
    let database = TestDatabase::empty(Engine::Postgres).await;
    let DatabaseUrl::Postgres(url) = database.url() else { unreachable!("it is PostgreSQL") };
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(TABLES).execute(&mut connection).await?;
    sqlx::query("insert into ready select i, gen_random_uuid() from generate_series(1, $1) i")
        .bind(i64::try_from(executions)?)
        .execute(&mut connection)
        .await?;
    for statement in ["vacuum analyze ready", "checkpoint"] {
        sqlx::raw_sql(statement).execute(&mut connection).await?;
    }
    sqlx::raw_sql("set plan_cache_mode = force_generic_plan").execute(&mut connection).await?;
    let start = Instant::now();
    let mut last = i64::MIN;
    loop {
        let mut tx = connection.begin().await?;
        let started: Vec<(i64, uuid::Uuid, i64)> =
            sqlx::query_as(START).bind(BATCH).bind(last).fetch_all(&mut *tx).await?;
        tx.commit().await?;
        if started.is_empty() {
            break;
        }
        last = started.first().map_or(last, |(.., rank)| *rank);
        let (leases, ids): (Vec<i64>, Vec<uuid::Uuid>) =
            started.into_iter().map(|(lease, id, _)| (lease, id)).unzip();
        let mut tx = connection.begin().await?;
        sqlx::query(COMPLETE).bind(leases).bind(ids).execute(&mut *tx).await?;
        tx.commit().await?;
    }
    let took = start.elapsed();
    connection.close().await?;
    Ok(took)
}
