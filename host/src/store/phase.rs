//! A phase: one transaction of the store, from begin to commit.

use std::sync::Arc;

use sqlx::{Sqlite, Transaction};

use super::StoreError;
use super::connection::Store;
use super::pool::Lent;
use super::time::Time;

/// What a transaction of the store is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhaseName {
    /// Executions are claimed and their attempts recorded.
    Start,
    /// Ends of attempts are recorded.
    Completion,
    /// Due jobs become executions, and waiting executions ready ones.
    Plan,
    /// The attempts of a dead host are ended.
    Rescue,
    /// An execution is asked for.
    Enqueue,
    /// Executions are cancelled.
    Cancel,
    /// A handler's log, progress or checkpoint.
    Handler,
    /// Jobs, components, plugins and host sessions.
    Definition,
    /// The jobs of a file, or what an operator asks of a job's schedule.
    Jobs,
    /// History is removed.
    Prune,
    /// Other hosts are told that there may be something to do.
    Hint,
    /// The schema is brought up to date.
    Migration,
}

impl PhaseName {
    /// The name as it stands in messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "START",
            Self::Completion => "COMPLETION",
            Self::Plan => "planning",
            Self::Rescue => "rescue",
            Self::Enqueue => "enqueuing",
            Self::Cancel => "cancelling",
            Self::Handler => "a handler's record",
            Self::Definition => "definitions",
            Self::Jobs => "changing jobs",
            Self::Prune => "pruning",
            Self::Hint => "a hint to other hosts",
            Self::Migration => "migrating",
        }
    }
}

/// One open transaction of the store. Dropping it rolls it back.
#[derive(Debug)]
#[must_use = "a phase that is dropped is rolled back"]
pub struct Phase {
    tx: PhaseTx,
    name: PhaseName,
}

/// What the parts of a phase are given: its transaction, without the right to commit.
#[derive(Debug)]
pub struct PhaseTx {
    pub(super) engine: EngineTx,
    /// What is bound as "now"; see [`super::StoreClock`].
    pub(super) now: Option<Time>,
    pub(super) place: Arc<str>,
}

#[derive(Debug)]
pub(super) enum EngineTx {
    Postgres(Lent),
    Sqlite(Transaction<'static, Sqlite>),
}

impl Store {
    /// Begins a phase. On SQLite it holds the one write lock from here on.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where no connection came free or could be opened in time.
    pub async fn begin(&self, name: PhaseName) -> Result<Phase, StoreError> {
        let (engine, now) = self.begin_transaction(name).await.map_err(|error| {
            error.context(format_args!("the store {} cannot be reached for {}", self.place(), name.as_str()))
        })?;
        Ok(Phase { tx: PhaseTx { engine, now, place: self.place.clone() }, name })
    }
}

impl Phase {
    /// The transaction, for the functions that make up this phase.
    pub fn tx(&mut self) -> &mut PhaseTx {
        &mut self.tx
    }

    /// Commits.
    ///
    /// # Errors
    /// Where the database refuses or breaks off. After [`StoreError::Unavailable`] it is not
    /// known whether the commit took place: what was done must bear being done again.
    pub async fn commit(self) -> Result<(), StoreError> {
        let committed = match self.tx.engine {
            EngineTx::Postgres(tx) => tx.commit().await,
            EngineTx::Sqlite(tx) => tx.commit().await,
        };
        committed.map_err(|error| {
            // The database's own word is certain; a connection that broke off leaves both possible.
            let fate = match error {
                sqlx::Error::Database(_) => "was not committed",
                _ => "may have been committed or not",
            };
            StoreError::from(error).context(format_args!(
                "{} of the store {} {fate}",
                self.name.as_str(),
                self.tx.place
            ))
        })
    }
}
