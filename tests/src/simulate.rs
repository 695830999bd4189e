//! A simulation of hosts on one store, with a virtual clock: months in seconds, and everything that
//! happens follows from one number.
//!
//! `cast` is the jobs and queues, `host` the hosts, `operator` what people and misfortune do to them,
//! `stage` all of them with the store and the clock. What has to hold is checked by `ledger` (every
//! fire is on record), `limits` (at each start), `audit` (of the store's tables) and `records` reads
//! them. `docs/simulation.md` says what is simulated.

use std::time::Instant;

use anyhow::{Context as _, Result};
use innkeeper::database_url::DatabaseUrl;
use innkeeper::store::{Store, StoreOptions};

use crate::database::{Engine, TestDatabase};

mod audit;
mod cast;
mod host;
mod ledger;
mod limits;
mod operator;
mod records;
mod report;
mod stage;

pub use report::{Report, Violation};
use stage::Stage;

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides everything that happens.
    pub seed: u64,
    /// For how long, in simulated days.
    pub days: u32,
    /// On which engine.
    pub engine: Engine,
    /// Says on standard error what happens.
    pub is_loud: bool,
}

/// Simulates, and checks all the time. The first thing that does not hold ends it.
///
/// # Errors
/// Where the store fails, with the seed and what happened last.
pub async fn run(options: Options) -> Result<Report> {
    let began = Instant::now();
    let database = Database::new(options.engine).await?;
    let store_options = StoreOptions { max_connections: 2, create: true, ..StoreOptions::default() };
    let store = Store::connect(database.url(), &store_options).await?;
    store.migrate().await?;
    let mut stage = Stage::new(options, store.clone(), database.url()).await?;
    let result = stage.play().await;
    let context = || format!("seed {}, {}\n{}", options.seed, stage.now(), stage.last_events().join("\n"));
    result.with_context(context)?;
    let report = stage.report(began.elapsed());
    drop(stage);
    store.close().await;
    Ok(report)
}

/// A database that lasts as long as the simulation.
enum Database {
    Postgres(TestDatabase),
    /// In memory where there is a folder for that: nothing of it has to survive.
    Sqlite {
        url: DatabaseUrl,
        _folder: tempfile::TempDir,
    },
}

impl Database {
    async fn new(engine: Engine) -> Result<Self> {
        if engine == Engine::Postgres {
            return Ok(Self::Postgres(TestDatabase::migrated(engine).await));
        }
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        let url = DatabaseUrl::Sqlite(folder.path().join("simulated.db"));
        Ok(Self::Sqlite { url, _folder: folder })
    }

    fn url(&self) -> &DatabaseUrl {
        match self {
            Self::Postgres(database) => database.url(),
            Self::Sqlite { url, .. } => url,
        }
    }
}
