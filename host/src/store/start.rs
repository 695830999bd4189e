//! START: executions are claimed, and their attempts recorded.

use super::StoreError;
use super::connection::Store;
use super::phase::PhaseTx;
use super::session::SessionId;
use crate::execution::Attempt;

impl PhaseTx {
    /// Claims up to `limit` executions whose plugins the host has, by rank, and records the
    /// starts of their attempts. Executions that another host is claiming are left to it.
    ///
    /// The plugins are those that the host registered with its session.
    ///
    /// # Errors
    /// [`StoreError::SessionLost`] where the host session is dead.
    pub async fn start(&mut self, _session: SessionId, _limit: u32) -> Result<Vec<Attempt>, StoreError> {
        unimplemented!()
    }
}

impl Store {
    /// START as a whole: begin, [`PhaseTx::start`], commit.
    ///
    /// # Errors
    /// As [`PhaseTx::start`]. Where the commit's outcome is unknown, attempts may be open that
    /// the host does not know of: only a new host session gets rid of them.
    pub async fn claim(&self, session: SessionId, limit: u32) -> Result<Vec<Attempt>, StoreError> {
        let mut phase = self.begin(super::PhaseName::Start).await?;
        let attempts = phase.tx().start(session, limit).await?;
        phase.commit().await?;
        Ok(attempts)
    }
}
