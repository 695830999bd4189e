//! Hints between the processes that share a store on PostgreSQL: there may be something to do.
//!
//! A hint may be lost, and nothing depends on one: hosts ask the store anyway. Each is a
//! transaction of its own, never a part of a phase, since PostgreSQL lets transactions that notify
//! commit one after the other.

use sqlx::pool::PoolOptions;
use sqlx::postgres::PgListener;

use super::StoreError;
use super::connection::{Pools, Store};
use super::phase::{EngineTx, PhaseName};

/// Not in the list of statements: SQLite has nothing like it.
const WAKE: &str = "select pg_notify('innkeeper', $1)";
const CHANNEL: &str = "innkeeper";

/// A connection that hints are sent and heard on.
#[derive(Debug)]
pub struct WakeUps(PgListener);

impl Store {
    /// Opens a connection for hints. `None` where none can be heard: on SQLite, and behind a
    /// pooler whose sessions last no longer than a transaction.
    ///
    /// # Errors
    /// Where the store cannot be reached. A server that does not answer is waited for.
    pub async fn listen(&self) -> Result<Option<WakeUps>, StoreError> {
        let Some(options) = self.settings_to_listen() else { return Ok(None) };
        let pool = PoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(options);
        let listener = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.ignore_pool_close_event(true);
            // What was missed meanwhile has to be asked for by whoever has the connection.
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok::<_, sqlx::Error>(WakeUps(listener))
        };
        listener.await.map(Some).map_err(|error| self.unreachable(error))
    }

    /// Sends a hint to every host, for those who have no connection of their own for it. On SQLite
    /// nobody hears it.
    ///
    /// # Errors
    /// Where the store fails: then the hosts find out by themselves.
    pub async fn wake_hosts(&self) -> Result<(), StoreError> {
        if let Pools::Sqlite { .. } = self.pools {
            return Ok(());
        }
        let mut phase = self.begin(PhaseName::Hint).await?;
        if let EngineTx::Postgres(conn) = &mut phase.tx().engine {
            sqlx::query(WAKE).bind("").execute(&mut **conn).await?;
        }
        phase.commit().await
    }
}

impl WakeUps {
    /// The next hint, and whose it is: also those of this connection. May be dropped at any time.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where the connection is lost.
    pub async fn next(&mut self) -> Result<String, StoreError> {
        match self.0.try_recv().await? {
            Some(hint) => Ok(hint.payload().to_owned()),
            None => Err(StoreError::Unavailable("the connection was closed".into())),
        }
    }

    /// Sends a hint in the name of `sender`.
    ///
    /// # Errors
    /// Where the connection fails.
    pub async fn send(&mut self, sender: &str) -> Result<(), StoreError> {
        sqlx::query(WAKE).bind(sender).execute(&mut self.0).await?;
        Ok(())
    }
}
