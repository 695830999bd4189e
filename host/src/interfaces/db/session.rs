//! The transactions of one execution.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::job::Name;

use super::{BeginOptions, Database, Error, ErrorKind, RowSet, Value, error};

/// The databases that one plugin may use.
#[derive(Debug)]
pub struct Grants {
    /// The plugin, by its name in the configuration.
    pub plugin: Name,
    /// Its databases, by name.
    pub databases: BTreeMap<Name, Arc<Database>>,
    /// The one that is meant where a call names none.
    pub default: Option<Name>,
}

/// Everything that one execution has open in its plugin's databases.
#[derive(Debug)]
pub struct Session {
    _grants: Option<Arc<Grants>>,
}

/// What was open when an execution ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Transactions that were open and have been rolled back.
    pub rolled_back: usize,
    /// Transactions whose end could not be confirmed in time. Their connections are closed,
    /// so the database will roll them back as soon as it notices.
    pub unconfirmed: usize,
}

impl Session {
    /// For one execution. `owner` is who it is in messages, such as `job nightly, execution
    /// 0190163d-8694-739b-aea5-966c26f8ad91`.
    #[must_use]
    pub fn new(grants: Arc<Grants>, _owner: String) -> Arc<Self> {
        Arc::new(Self { _grants: Some(grants) })
    }

    /// A session whose every call is denied: what `handlers.describe` gets.
    #[must_use]
    pub fn refused() -> Arc<Self> {
        Arc::new(Self { _grants: None })
    }

    /// Runs one statement of the default database in a transaction of its own.
    ///
    /// # Errors
    /// As the WIT says. Nothing was changed then, unless the kind is `connection`.
    pub async fn query(&self, _statement: String, _params: Vec<Value>) -> Result<RowSet, Error> {
        Err(error::new(ErrorKind::Other, "not built yet"))
    }

    /// As [`Self::query`], for the number of rows that the statement changed.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn execute(&self, _statement: String, _params: Vec<Value>) -> Result<u64, Error> {
        Err(error::new(ErrorKind::Other, "not built yet"))
    }

    /// Opens a transaction and returns its number in this session, never used again.
    ///
    /// # Errors
    /// As the WIT says.
    pub async fn begin(&self, _options: BeginOptions) -> Result<u64, Error> {
        Err(error::new(ErrorKind::Other, "not built yet"))
    }

    /// Runs one statement in a transaction of [`Self::begin`].
    ///
    /// # Errors
    /// As the WIT says. The transaction has failed then, and only `rollback` is left.
    pub async fn query_in(&self, _id: u64, _statement: String, _params: Vec<Value>) -> Result<RowSet, Error> {
        Err(error::new(ErrorKind::Other, "not built yet"))
    }

    /// As [`Self::query_in`], for the number of rows that the statement changed.
    ///
    /// # Errors
    /// As [`Self::query_in`].
    pub async fn execute_in(&self, _id: u64, _statement: String, _params: Vec<Value>) -> Result<u64, Error> {
        Err(error::new(ErrorKind::Other, "not built yet"))
    }

    /// Commits. Whatever it answers, the transaction has ended.
    ///
    /// # Errors
    /// Where nothing was committed, or (`connection`) where that is not known.
    pub async fn commit(&self, _id: u64) -> Result<(), Error> {
        Err(error::new(ErrorKind::Other, "not built yet"))
    }

    /// Rolls back, and ends as [`Self::commit`] does.
    ///
    /// # Errors
    /// Where it had ended before (`closed`), or the connection was lost (and so the
    /// transaction with it).
    pub async fn rollback(&self, _id: u64) -> Result<(), Error> {
        Err(error::new(ErrorKind::Other, "not built yet"))
    }

    /// Ends the execution's use of its databases: cancels what runs, rolls back what is open,
    /// and gives back or closes every connection, in at most five seconds. Every call answers
    /// `closed` from then on. May be called again, and whatever became of the guest's future.
    pub async fn end(&self) -> Ended {
        Ended::default()
    }
}
