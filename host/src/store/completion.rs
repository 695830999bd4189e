//! COMPLETION: ends of attempts are recorded, guarded by their leases.

use super::StoreError;
use super::connection::Store;
use super::phase::PhaseTx;
use super::session::SessionId;
use crate::execution::Completion;

/// What became of a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recording {
    /// It is on record (also where it was already, from a commit whose answer was lost).
    Recorded,
    /// The attempt had ended otherwise: it changed nothing, and is on record as stale.
    Stale,
}

impl PhaseTx {
    /// Records the ends of attempts, one answer for each in the same order.
    ///
    /// # Errors
    /// Where the store fails. A dead host session is none: its completions are stale.
    pub async fn complete(
        &mut self,
        _session: SessionId,
        _completions: &[Completion],
    ) -> Result<Vec<Recording>, StoreError> {
        unimplemented!()
    }
}

impl Store {
    /// COMPLETION as a whole: begin, [`PhaseTx::complete`], commit. May be repeated with the
    /// same completions after [`StoreError::Unavailable`].
    ///
    /// # Errors
    /// As [`PhaseTx::complete`].
    pub async fn record(
        &self,
        session: SessionId,
        completions: &[Completion],
    ) -> Result<Vec<Recording>, StoreError> {
        let mut phase = self.begin(super::PhaseName::Completion).await?;
        let recordings = phase.tx().complete(session, completions).await?;
        phase.commit().await?;
        Ok(recordings)
    }
}
