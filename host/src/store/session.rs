//! Host sessions: one life of a host process each, renewed by its heartbeat.

use std::time::Duration;

use uuid::Uuid;

use super::StoreError;
use super::connection::Store;
use crate::job::Name;

/// The number of a host session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub i64);

/// A host that registers.
#[derive(Clone, Debug)]
pub struct NewSession<'a> {
    /// The host's name, from its configuration.
    pub host: &'a str,
    /// Of this process, made at its start.
    pub boot_id: Uuid,
    /// Of this binary.
    pub version: &'a str,
    /// How long the session lasts without a heartbeat.
    pub ttl: Duration,
    /// The plugins that it has, with the digests of their components. The components have
    /// been saved with [`Store::save_component`].
    pub plugins: &'a [(Name, String)],
}

impl Store {
    /// Registers a host.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where a component has not been saved.
    pub async fn register_session(&self, _session: &NewSession<'_>) -> Result<SessionId, StoreError> {
        unimplemented!()
    }

    /// Renews a host session, on a connection that no phase ever waits for or holds up.
    ///
    /// `lowest_open_lease`: no START of this host with a lower lease is open, nor will be:
    /// the lowest of those that are running or may be under way. None: unchanged. It bounds
    /// what a rescue has to look through.
    ///
    /// # Errors
    /// [`StoreError::SessionLost`] where the session is dead. One that has expired but was not
    /// yet found is renewed.
    pub async fn heartbeat(
        &self,
        _session: SessionId,
        _ttl: Duration,
        _lowest_open_lease: Option<i64>,
    ) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Ends a host session after a drain. What is still open is treated as after a crash.
    ///
    /// # Errors
    /// [`StoreError::SessionLost`] where it was dead already.
    pub async fn end_session(&self, _session: SessionId) -> Result<Vec<super::RescuedExecution>, StoreError> {
        unimplemented!()
    }

    /// The names of the live hosts that have a plugin.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn live_hosts_with_plugin(&self, _plugin: &Name) -> Result<Vec<String>, StoreError> {
        unimplemented!()
    }
}
