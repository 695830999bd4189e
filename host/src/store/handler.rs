//! What a running handler leaves behind: log lines, progress, a checkpoint. Each in a short
//! transaction of its own, guarded by the lease.

use serde_json::Value;
use uuid::Uuid;

use super::StoreError;
use super::connection::Store;
use super::session::SessionId;
use crate::execution::{LogLine, Progress};

/// The attempt on whose behalf something is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The host session.
    pub session: SessionId,
    /// The lease.
    pub lease: i64,
    /// The execution.
    pub execution: Uuid,
}

/// A line of an execution's log, as it was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRecord {
    /// The START during which it was written.
    pub lease: i64,
    /// Its number among the lines of this attempt, 1 for the first.
    pub seq: i32,
    /// The attempt, 1 for the first.
    pub attempt: u32,
    /// What was written.
    pub line: LogLine,
}

impl Store {
    /// Adds lines to an execution's log.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] where the attempt is over.
    pub async fn append_log(&self, _holder: Holder, _lines: &[LogLine]) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Says how far an execution is.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] where the attempt is over.
    pub async fn save_progress(&self, _holder: Holder, _progress: &Progress) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Saves state for later attempts of the same execution.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] where the attempt is over.
    pub async fn save_checkpoint(&self, _holder: Holder, _state: &Value) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// The log of an execution, all attempts, in the order of writing.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn logs(&self, _execution: Uuid) -> Result<Vec<LogRecord>, StoreError> {
        unimplemented!()
    }
}
