//! The use of a connection, from the pool and back to it.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::Database;
use crate::interfaces::db::connection::{Canceller, Connection};
use crate::interfaces::db::statement::Dialect;
use crate::interfaces::db::{Error, ErrorKind, error};

/// A connection in use. Dropped without a word, it is closed, and never used again.
pub(in crate::interfaces::db) struct Lease {
    connection: Option<Connection>,
    /// It had been used before and may have died since.
    pub(in crate::interfaces::db) reused: bool,
    slot: Slot,
}

/// One of the connections that may be in use.
pub(super) struct Slot {
    database: Arc<Database>,
    id: u64,
    /// The grant that the connection is used under, by its number.
    grant: u64,
    _permit: OwnedSemaphorePermit,
}

impl Slot {
    /// For the use of a connection that the pool has noted by this number.
    pub(super) fn new(database: &Arc<Database>, id: u64, grant: u64, permit: OwnedSemaphorePermit) -> Self {
        Self { database: Arc::clone(database), id, grant, _permit: permit }
    }
}

impl Lease {
    pub(super) fn new(connection: Connection, reused: bool, slot: Slot) -> Self {
        Self { connection: Some(connection), reused, slot }
    }

    pub(in crate::interfaces::db) fn dialect(&self) -> Dialect {
        self.slot.database.dialect()
    }

    /// The connection, and what stops a statement on it.
    pub(in crate::interfaces::db) fn connection(&mut self) -> Result<(&mut Connection, Canceller), Error> {
        let connection = self.connection.as_mut();
        let connection =
            connection.ok_or_else(|| error::new(ErrorKind::Closed, "the connection is closed"))?;
        let canceller = connection.canceller();
        Ok((connection, canceller))
    }

    /// Gives the connection back, for the same grant's next use. It has no transaction open,
    /// and nothing else of its session is left.
    pub(in crate::interfaces::db) async fn release(mut self) {
        let Some(connection) = self.connection.take() else { return };
        if let Some(connection) = self.slot.database.keep(self.slot.id, self.slot.grant, connection) {
            connection.close().await;
        }
    }

    /// Closes the connection, which is not fit to be used again.
    pub(in crate::interfaces::db) async fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close().await;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.database.pool().in_use.remove(&self.id);
    }
}
