//! The queues, as the hosts share their slots between them.

use super::StoreError;
use super::connection::Store;
use super::row::{on_read, row, stored_name};
use crate::job::Name;

/// A queue's number in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub i32);

impl QueueId {
    /// Of [`crate::policy::Queue::DEFAULT`].
    pub const DEFAULT: Self = Self(0);
}

/// A queue as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRecord {
    /// Its number.
    pub id: QueueId,
    /// Its name.
    pub name: Name,
    /// Whose definition it is; empty where nobody's file names it.
    pub owner: String,
    /// Its part of a host's slots where several queues have something to run.
    pub weight: u32,
    /// How many executions run at once over all hosts.
    pub total_limit: Option<u32>,
    /// How many executions run at once on one host.
    pub host_limit: Option<u32>,
    /// Nothing of it is started.
    pub paused: bool,
}

row! {
    struct QueueRow {
        id: i32,
        name: String,
        owner: String,
        weight: i32,
        total_limit: Option<i32>,
        host_limit: Option<i32>,
        paused: bool,
    }
}

impl Store {
    /// The queues, the default one first.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        let rows: Vec<QueueRow> = on_read!(self, sql, conn => {
            sqlx::query_as(sql::QUEUES).fetch_all(conn).await?
        });
        rows.into_iter().map(QueueRow::record).collect()
    }
}

impl QueueRow {
    fn record(self) -> Result<QueueRecord, StoreError> {
        let count = |count: Option<i32>| count.map(super::row::from_count).transpose();
        Ok(QueueRecord {
            id: QueueId(self.id),
            name: stored_name(&self.name)?,
            owner: self.owner,
            weight: super::row::from_count(self.weight)?.max(1),
            total_limit: count(self.total_limit)?,
            host_limit: count(self.host_limit)?,
            paused: self.paused,
        })
    }
}
