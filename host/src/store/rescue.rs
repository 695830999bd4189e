//! The attempts of dead hosts are ended.

use uuid::Uuid;

use super::StoreError;
use super::connection::Store;
use crate::execution::Next;
use crate::job::Name;

/// An execution whose host died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RescuedExecution {
    /// The execution.
    pub execution: Uuid,
    /// Its job.
    pub job: Name,
    /// The attempt that ended.
    pub attempt: u32,
    /// The host that died.
    pub host: String,
    /// What becomes of it, by the job's policy.
    pub next: Next,
}

impl Store {
    /// Ends the host sessions that have expired, `limit` at most, and their open attempts.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn rescue(&self, _limit: u32) -> Result<Vec<RescuedExecution>, StoreError> {
        unimplemented!()
    }
}
