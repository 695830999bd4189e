//! Connections that wait for their plugin's next call, and for how long they do.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

use super::Database;
use crate::interfaces::db::connection::Connection;

/// How long a connection is kept without being used. Opening one takes milliseconds, and a job
/// that runs every few minutes finds its own again; one that runs each night leaves nothing on
/// the server for the day.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// A connection that nobody uses.
pub(super) struct Idle {
    /// Whose it was, and will be, by the number of the grant.
    pub(super) grant: u64,
    pub(super) connection: Connection,
    /// When it was given back.
    pub(super) since: Instant,
}

/// A connection that is being closed because nobody has used it for long. Until this is
/// dropped it counts toward the bound.
struct Expired {
    database: Arc<Database>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Expired {
    fn drop(&mut self) {
        self.database.pool().expired -= 1;
    }
}

impl Database {
    /// Keeps a connection that the execution of this number gives back, for the next call under its
    /// grant. Returns it where it must be closed instead.
    pub(super) fn keep(self: &Arc<Self>, id: u64, grant: u64, connection: Connection) -> Option<Connection> {
        let mut pool = self.pool();
        if pool.closed {
            return Some(connection);
        }
        if pool.in_use.remove(&id).is_none() {
            return Some(connection);
        }
        pool.idle.push(Idle { grant, connection, since: Instant::now() });
        if !std::mem::replace(&mut pool.expiring, true) {
            tokio::spawn(expire(Arc::downgrade(self)));
        }
        None
    }

    /// Takes the connection that has been idle for longest, if its time is over; else tells when
    /// to look again, if there is anything to look for.
    fn expired(self: &Arc<Self>) -> Result<(Connection, Expired), Option<Instant>> {
        let mut pool = self.pool();
        let Some(oldest) = pool.idle.first() else {
            pool.expiring = false;
            return Err(None);
        };
        let (now, end) = (Instant::now(), oldest.since + self.idle_timeout);
        if now < end {
            return Err(Some(end));
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            // As many as may be are about to be in use, and this one may be closed for one of them.
            return Err(Some(now + self.idle_timeout));
        };
        pool.expired += 1;
        let idle = pool.idle.remove(0);
        Ok((idle.connection, Expired { database: Arc::clone(self), _permit: permit }))
    }
}

/// Closes connections when their time is over, until there are none.
async fn expire(database: Weak<Database>) {
    loop {
        let Some(found) = database.upgrade().map(|database| database.expired()) else { return };
        match found {
            Ok((connection, expired)) => {
                connection.close().await;
                drop(expired);
            }
            Err(Some(again)) => sleep_until(again).await,
            Err(None) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::config::{DatabaseConfig, GrantConfig, PluginConfig};
    use crate::database_url::DatabaseUrl;
    use crate::interfaces::db::pool::{Connections, Databases};
    use crate::interfaces::db::{BeginOptions, Grants, Session};
    use crate::job::Name;
    use crate::limits::Limits;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn session(databases: &Databases, plugin: &str) -> Arc<Session> {
        let config = PluginConfig {
            component: std::path::PathBuf::new().into(),
            digest: None,
            config: BTreeMap::new(),
            jobs: std::collections::BTreeSet::new(),
            limits: Limits::default(),
            capabilities: crate::capability::Capabilities::default(),
            databases: BTreeMap::from([(name("app"), GrantConfig::default())]),
            default_database: None,
        };
        let grants = Arc::new(Grants::new(databases, &name(plugin), &config));
        Session::new(grants, "job j".to_owned(), Duration::from_secs(600))
    }

    #[tokio::test]
    async fn what_nobody_uses_for_long_is_closed_and_what_is_in_use_stays() {
        let folder = tempfile::tempdir().unwrap();
        let url = DatabaseUrl::Sqlite(folder.path().join("app.db"));
        let acquire_timeout = Duration::from_secs(10);
        let config = DatabaseConfig { url, max_connections: 3, acquire_timeout, max_size: None };
        let mut database = Database::new(name("app"), &config);
        database.idle_timeout = Duration::from_millis(20);
        let database = Arc::new(database);
        let databases = Databases(BTreeMap::from([(name("app"), Arc::clone(&database))]));
        let options = BeginOptions { database: None, isolation: None, read_only: true };

        let open = session(&databases, "a");
        let id = open.begin(options).await.unwrap();
        // Twice, since the task that closes them ends in between.
        for _ in 0..2 {
            for plugin in ["a", "b"] {
                session(&databases, plugin).query("SELECT 1".to_owned(), vec![]).await.unwrap();
            }
            let left = Connections { max: 3, in_use: 1, idle: 0 };
            tokio::time::timeout(Duration::from_secs(60), async {
                while database.connections() != left || database.pool().expiring {
                    tokio::task::yield_now().await;
                }
            })
            .await
            .expect("idle connections are closed");
            assert_eq!(database.permits.available_permits(), 2, "their places are free again");
        }
        open.query_in(id, "SELECT 1".to_owned(), vec![]).await.unwrap();
        open.commit(id).await.unwrap();
    }
}
