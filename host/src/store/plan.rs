//! Due jobs become executions, and waiting executions ready ones.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::StoreError;
use super::connection::Store;
use crate::job::Name;

/// What a round of planning did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    /// The executions that it made.
    pub fired: Vec<FiredExecution>,
    /// How many waiting executions may start now.
    pub promoted: usize,
    /// How long until there is more to do, by the store's clock; zero where the limit was
    /// reached. None: nothing is due at any time.
    pub next_due: Option<Duration>,
}

/// A fire of a schedule that became an execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FiredExecution {
    /// The job.
    pub job: Name,
    /// The execution.
    pub execution: Uuid,
    /// The time that it was due.
    pub fire_time: Timestamp,
}

impl Store {
    /// Makes executions of jobs that are due, and lets executions start whose wait is over.
    ///
    /// Of fire times that were missed the latest becomes an execution. The same fire time
    /// never becomes two, whoever else plans.
    ///
    /// `limit`: at most this many jobs, and this many waiting executions.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn plan(&self, _limit: u32) -> Result<Planned, StoreError> {
        unimplemented!()
    }
}
