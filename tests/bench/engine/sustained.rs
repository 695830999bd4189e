//! Hosts at work for minutes while others enqueue, on PostgreSQL: what an execution costs the
//! server, and how late it starts.

use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use innkeeper::database_url::DatabaseUrl;
use innkeeper_tests::database::{Engine, TestDatabase};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::host::{CONCURRENCY, Host};
use super::scene::{ARGS, noop};
use crate::Selection;
use crate::figure::{Figure, Goal, Report};
use crate::rounds::{quantile, sorted};

/// What is measured, in this order.
const NAMES: [&str; 9] = [
    "sustained_rate",
    "sustained_wal",
    "sustained_commits",
    "sustained_host_cpu",
    "sustained_dead_rows",
    "due_rate",
    "due_to_started_p50",
    "due_to_started_p99",
    "fdatasync",
];

/// How long there is always something ready.
const SATURATED: Duration = Duration::from_secs(600);

/// How long a thousand executions are due in every second.
const DUE: Duration = Duration::from_secs(120);

/// Either, in a quick run.
const QUICK: Duration = Duration::from_secs(10);

/// Executions that wait to be started, at least, while it is saturated.
const BACKLOG: i64 = 20_000;

/// Executions that one statement enqueues.
const PIECE: usize = 5_000;

/// Due in a second.
const DUE_PER_SECOND: usize = 1_000;

/// How long before they are due they are enqueued.
const AHEAD: Duration = Duration::from_secs(2);

const ENQUEUE_READY: &str = "
    with made as (
        insert into innkeeper.execution
            (id, job_id, queue_id, args, triggered_by, scheduled_at, priority, max_attempts, created_at)
        select q.id, j.id, 0, $2::json, 'manual', now(), 0, 3, now()
        from unnest($1::uuid[]) as q (id), innkeeper.job j
        returning id, job_id, scheduled_at
    )
    insert into innkeeper.ready (queue_id, rank, execution_id, job_id, attempt)
    select 0, (extract(epoch from scheduled_at) * 1000000)::bigint, id, job_id, 0 from made";

/// Evenly over a tenth of a second that begins in `$3` seconds.
const ENQUEUE_DUE: &str = "
    with made as (
        insert into innkeeper.execution
            (id, job_id, queue_id, args, triggered_by, scheduled_at, priority, max_attempts, created_at)
        select q.id, j.id, 0, $2::json, 'manual',
               now() + make_interval(secs => $3 + 0.1 * (q.n - 1) / cardinality($1::uuid[])), 0, 3, now()
        from unnest($1::uuid[]) with ordinality as q (id, n), innkeeper.job j
        returning id, job_id, scheduled_at
    )
    insert into innkeeper.waiting (execution_id, job_id, attempt, due_at, blocker)
    select id, job_id, 0, scheduled_at, 'due' from made";

/// Counters of the server.
struct Counters {
    wal: f64,
    commits: f64,
    done: f64,
    at: Instant,
}

/// Measures what is selected.
pub async fn measure(selection: &Selection, report: &mut Report) {
    if NAMES.iter().any(|name| selection.wants(name)) {
        match run(selection.quick).await {
            Ok(figures) => figures.into_iter().for_each(|figure| {
                let name = figure.name.clone();
                report.add(&name, Ok(figure));
            }),
            Err(error) => report.add("sustained", Err(error)),
        }
    }
}

async fn run(quick: bool) -> Result<Vec<Figure>> {
    let (saturated, due) = if quick { (QUICK, QUICK) } else { (SATURATED, DUE) };
    let database = TestDatabase::migrated(Engine::Postgres).await;
    let store = database.store(1).await;
    store.sync_jobs("bench", &[noop()?]).await?;
    store.close().await;
    let DatabaseUrl::Postgres(url) = database.url() else { unreachable!("it is PostgreSQL") };
    let mut connection = PgConnection::connect(url).await?;
    let host = Host::start(&database, "bench", CONCURRENCY)?;
    let mut figures = saturate(&mut connection, &host, saturated).await?;
    drain(&mut connection).await?;
    figures.extend(trickle(&mut connection, due).await?);
    figures.push(Figure::alone("fdatasync", fdatasync()?, "us"));
    drop(host);
    connection.close().await?;
    Ok(figures)
}

/// Something is always ready.
async fn saturate(connection: &mut PgConnection, host: &Host, time: Duration) -> Result<Vec<Figure>> {
    // The host starts, statements are prepared, files grow.
    fill(connection).await?;
    while counters(connection).await?.done < 1_000.0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (before, processor) = (counters(connection).await?, host.processor()?);
    while before.at.elapsed() < time {
        fill(connection).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (after, processor) = (counters(connection).await?, host.processor()? - processor);
    let dead: i64 = sqlx::query_scalar(
        "select coalesce(sum(n_dead_tup), 0)::bigint from pg_stat_user_tables where schemaname = 'innkeeper'",
    )
    .fetch_one(&mut *connection)
    .await?;
    let done = after.done - before.done;
    let took = after.at.duration_since(before.at).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    let dead = dead as f64;
    Ok(vec![
        Figure::alone("sustained_rate", done / took, "/s"),
        Figure::alone("sustained_wal", (after.wal - before.wal) / done, "B"),
        Figure::alone("sustained_commits", (after.commits - before.commits) / done, ""),
        Figure::alone("sustained_host_cpu", processor.as_secs_f64() * 1e6 / done, "us"),
        Figure::alone("sustained_dead_rows", dead, ""),
    ])
}

/// A thousand are due in each second.
async fn trickle(connection: &mut PgConnection, time: Duration) -> Result<Vec<Figure>> {
    let begin = Instant::now();
    let before = counters(connection).await?.done;
    let mut pieces = 0_u32;
    while begin.elapsed() < time {
        let ids = new_ids(DUE_PER_SECOND / 10);
        sqlx::query(ENQUEUE_DUE)
            .bind(&ids)
            .bind(ARGS)
            .bind(AHEAD.as_secs_f64())
            .execute(&mut *connection)
            .await?;
        pieces += 1;
        tokio::time::sleep_until((begin + Duration::from_millis(100) * pieces).into()).await;
    }
    tokio::time::sleep(AHEAD).await;
    drain(connection).await?;
    let late: Vec<f64> = sqlx::query_scalar(
        "select extract(epoch from s.started_at - e.scheduled_at)::float8 * 1000
         from innkeeper.start s join innkeeper.execution e on e.id = s.execution_id
         order by s.lease desc limit $1",
    )
    .bind(i64::from(pieces) * i64::try_from(DUE_PER_SECOND / 10)?)
    .fetch_all(&mut *connection)
    .await?;
    let done = counters(connection).await?.done - before;
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    let counted = late.len() as f64;
    ensure!((done - counted).abs() < 1.0, "{done} executions ended, and {counted} were started");
    let late = sorted(late.into_iter());
    let bounded = |name: &str, value: f64, goal: Option<f64>| Figure {
        ratio: goal.map(|goal| value / goal),
        goal: goal.map(|_| Goal::AtMost(1.0)),
        against: goal.map(|_| "20 ms"),
        ..Figure::alone(name, value, "ms")
    };
    Ok(vec![
        Figure::alone("due_rate", done / time.as_secs_f64(), "/s"),
        bounded("due_to_started_p50", quantile(&late, 0.5), None),
        bounded("due_to_started_p99", quantile(&late, 0.99), Some(20.0)),
    ])
}

/// Keeps the backlog.
async fn fill(connection: &mut PgConnection) -> Result<()> {
    let count = "select count(*) from (select 1 from innkeeper.ready limit $1) r";
    let mut ready: i64 = sqlx::query_scalar(count).bind(BACKLOG).fetch_one(&mut *connection).await?;
    while ready < BACKLOG {
        sqlx::query(ENQUEUE_READY).bind(new_ids(PIECE)).bind(ARGS).execute(&mut *connection).await?;
        ready += i64::try_from(PIECE)?;
    }
    Ok(())
}

/// Waits until everything that was started has ended.
async fn drain(connection: &mut PgConnection) -> Result<()> {
    let left = "select (select count(*) from innkeeper.ready) + (select count(*) from innkeeper.waiting)
        + (select count(*) from innkeeper.start) - (select count(*) from innkeeper.completion)";
    let since = Instant::now();
    while sqlx::query_scalar::<_, i64>(left).fetch_one(&mut *connection).await? > 0 {
        ensure!(since.elapsed() < Duration::from_secs(120), "the host does not come to an end");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn counters(connection: &mut PgConnection) -> Result<Counters> {
    let (wal, commits, done): (f64, f64, f64) = sqlx::query_as(
        "select (pg_current_wal_lsn() - '0/0')::float8,
                (select xact_commit from pg_stat_database where datname = current_database())::float8,
                (select count(*) from innkeeper.completion where final)::float8",
    )
    .fetch_one(connection)
    .await?;
    Ok(Counters { wal, commits, done, at: Instant::now() })
}

/// What it takes this machine to make 8 KiB durable, in microseconds: the median of many.
fn fdatasync() -> Result<f64> {
    let file = tempfile::tempfile()?;
    let page = [0_u8; 8192];
    let mut times = Vec::new();
    for number in 0..200_u64 {
        file.write_all_at(&page, number * 8192)?;
        let start = Instant::now();
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(quantile(&sorted(times.into_iter()), 0.5))
}

fn new_ids(count: usize) -> Vec<Uuid> {
    (0..count).map(|_| Uuid::now_v7()).collect()
}
