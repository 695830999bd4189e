//! The `awa` crate at the same work as a host of ours, for the figure `noop_vs_awa`.
//!
//! `bench-awa enqueue URL JOBS` makes its tables and enqueues jobs; `bench-awa run URL JOBS` does
//! them and prints how many microseconds that took. Where its settings are from is in
//! `docs/performance.md`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use awa::model::{insert, migrations};
use awa::{
    Client, InsertOpts, JobArgs, JobContext, JobError, JobResult, QueueConfig, QueueStorage,
    QueueStorageConfig, Worker,
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::Notify;

const QUEUE: &str = "bench";

/// Jobs of one COPY.
const PIECE: usize = 10_000;

/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often it is looked whether everything is recorded.
const INTERVAL: Duration = Duration::from_millis(20);

/// Jobs that are recorded as done: as `QueueStorage::queue_counts` counts them, without the
/// seconds which that takes to count those that are not.
const DONE: &str = "
    select (coalesce((select sum(completed_count) from awa.receipt_completion_batches), 0)
        + coalesce((select sum(pruned_completed_count) from awa.queue_terminal_rollups), 0)
        + coalesce((select sum(live_terminal_count) from awa.queue_terminal_live_counts), 0)
        + coalesce((select sum(terminal_delta) from awa.queue_terminal_count_deltas), 0))::bigint";

/// What every job is given: as much as ours.
#[derive(Serialize, Deserialize, JobArgs)]
struct Noop {
    customer: i64,
}

/// Does nothing but count.
struct Nothing(Arc<Count>);

#[derive(Default)]
struct Count {
    called: AtomicUsize,
    wanted: usize,
    first: OnceLock<Instant>,
    all: Notify,
}

#[async_trait::async_trait]
impl Worker for Nothing {
    fn kind(&self) -> &'static str {
        Noop::kind()
    }

    async fn perform(&self, _job: &JobContext) -> Result<JobResult, JobError> {
        self.0.first.get_or_init(Instant::now);
        if self.0.called.fetch_add(1, Ordering::Relaxed) + 1 == self.0.wanted {
            self.0.all.notify_one();
        }
        Ok(JobResult::Completed)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [command, url, jobs] = args.as_slice() else {
        bail!("say `enqueue` or `run`, a URL, and how many jobs")
    };
    let jobs = jobs.parse().context("how many jobs?")?;
    let pool = PgPoolOptions::new().max_connections(20).connect(url).await.context("no database")?;
    match command.as_str() {
        "enqueue" => enqueue(&pool, jobs).await,
        "run" => {
            println!("{}", run(&pool, jobs).await?.as_micros());
            Ok(())
        }
        other => bail!("there is no command `{other}`"),
    }
}

async fn enqueue(pool: &PgPool, jobs: usize) -> Result<()> {
    let store = QueueStorage::new(QueueStorageConfig::default())?;
    migrations::run(pool).await?;
    store.install(pool).await?;
    let opts = InsertOpts { queue: QUEUE.to_owned(), ..InsertOpts::default() };
    let one = insert::params_with(&Noop { customer: 4711 }, opts)?;
    for begin in (0..jobs).step_by(PIECE) {
        let piece = vec![one.clone(); PIECE.min(jobs - begin)];
        store.enqueue_params_copy(pool, &piece).await?;
    }
    Ok(())
}

async fn run(pool: &PgPool, jobs: usize) -> Result<Duration> {
    let count = Arc::new(Count { wanted: jobs, ..Count::default() });
    let config = QueueConfig {
        max_workers: 1024,
        claim_batch_size: 512,
        // Without a deadline a batch of claims is one row.
        deadline_duration: Duration::ZERO,
        poll_interval: Duration::from_millis(50),
        ..QueueConfig::default()
    };
    let client = Client::builder(pool.clone())
        .queue(QUEUE, config)
        .queue_storage(QueueStorageConfig::default(), Duration::from_millis(1_000), Duration::from_millis(50))
        .register_worker(Nothing(Arc::clone(&count)))
        .build()?;
    client.start().await?;
    tokio::time::timeout(PATIENCE, count.all.notified()).await.context("awa is not done")?;
    let first = count.first.get().context("nothing was called")?;
    while sqlx::query_scalar::<_, i64>(DONE).fetch_one(pool).await? < i64::try_from(jobs)? {
        ensure!(first.elapsed() < PATIENCE, "awa has not recorded everything after {PATIENCE:?}");
        tokio::time::sleep(INTERVAL).await;
    }
    let took = first.elapsed();
    client.shutdown(PATIENCE).await;
    Ok(took)
}
