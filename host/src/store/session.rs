//! Host sessions: one life of a host process each, renewed by its heartbeat.

use std::time::Duration;

use uuid::Uuid;

use super::connection::{Pools, Store};
use super::migrate::check_to_register;
use super::phase::{PhaseName, PhaseTx};
use super::rescue::{RescuedExecution, bury};
use super::row::{micros, on_engine, on_read, row, storable, to_count};
use super::{StoreError, postgres, sqlite};
use crate::job::Name;

/// The number of a host session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub i64);

/// The answer to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Somebody asked for a drain with [`Store::request_drain`].
    pub drain_requested: bool,
    /// Somebody asked for a reload with [`Store::request_reload`], which was not answered yet.
    pub reload_requested: bool,
}

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
    /// How many executions it runs at once.
    pub slots: u32,
    /// The plugins that it has, with the digests of their components. The components have
    /// been saved with [`Store::save_component`].
    pub plugins: &'a [(Name, String)],
}

impl Store {
    /// Registers a host.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where a component has not been saved, [`StoreError::TooOld`] where
    /// the schema has become too new for this binary.
    pub async fn register_session(&self, session: &NewSession<'_>) -> Result<SessionId, StoreError> {
        let mut phase = self.begin(PhaseName::Definition).await?;
        let tx = phase.tx();
        check_to_register(tx, self).await?;
        let now = tx.now;
        let id = on_engine!(tx, sql, conn => {
            let id: i64 = sqlx::query_scalar(sql::INSERT_SESSION)
                .bind(now)
                .bind(storable(session.host))
                .bind(session.boot_id)
                .bind(storable(session.version))
                .bind(micros(session.ttl))
                .bind(to_count(session.slots))
                .bind(self.newest_migration())
                .fetch_one(&mut *conn)
                .await?;
            id
        });
        insert_host_plugins(tx, SessionId(id), session.plugins).await?;
        phase.commit().await?;
        Ok(SessionId(id))
    }

    /// Renews a host session, on a connection that no phase of this host waits for or holds up.
    ///
    /// `lowest_open_lease`: no START of this host with a lower lease is open, or may still turn
    /// out to have been recorded. None: unchanged. It bounds what a rescue looks through.
    ///
    /// # Errors
    /// [`StoreError::SessionLost`] where the session is dead. One that has expired but was not
    /// yet found is renewed.
    pub async fn heartbeat(
        &self,
        session: SessionId,
        ttl: Duration,
        lowest_open_lease: Option<i64>,
    ) -> Result<Heartbeat, StoreError> {
        self.beat(session, ttl, lowest_open_lease, false).await
    }

    /// As [`Store::heartbeat`], of a host that starts nothing new any more.
    ///
    /// # Errors
    /// As [`Store::heartbeat`].
    pub async fn heartbeat_while_draining(
        &self,
        session: SessionId,
        ttl: Duration,
        lowest_open_lease: Option<i64>,
    ) -> Result<Heartbeat, StoreError> {
        self.beat(session, ttl, lowest_open_lease, true).await
    }

    async fn beat(
        &self,
        session: SessionId,
        ttl: Duration,
        lowest_open_lease: Option<i64>,
        draining: bool,
    ) -> Result<Heartbeat, StoreError> {
        macro_rules! beat {
            ($sql:ident, $conn:expr) => {
                sqlx::query_as($sql::HEARTBEAT)
                    .bind(self.now())
                    .bind(session.0)
                    .bind(micros(ttl))
                    .bind(lowest_open_lease)
                    .bind(draining)
                    .fetch_all($conn)
                    .await?
            };
        }
        let renewed: Vec<(bool, bool)> = match &self.pools {
            Pools::Postgres { heartbeat, .. } => {
                let mut lent = self.lend(heartbeat).await?;
                let renewed = beat!(postgres, &mut *lent);
                lent.commit().await?;
                renewed
            }
            Pools::Sqlite { write, .. } => {
                beat!(sqlite, &mut *write.acquire().await.map_err(|error| self.unreachable(error))?)
            }
        };
        match renewed.first() {
            Some(&(drain_requested, reload_requested)) => Ok(Heartbeat { drain_requested, reload_requested }),
            None => Err(StoreError::SessionLost),
        }
    }

    /// Ends a host session after a drain. What is still open is treated as after a crash.
    ///
    /// # Errors
    /// [`StoreError::SessionLost`] where it was dead already.
    pub async fn end_session(&self, session: SessionId) -> Result<Vec<RescuedExecution>, StoreError> {
        let mut phase = self.begin(PhaseName::Rescue).await?;
        let tx = phase.tx();
        let locked: Option<SessionRow> = on_engine!(tx, sql, conn => {
            sqlx::query_as(sql::LOCK_SESSION_TO_END).bind(session.0).fetch_optional(conn).await?
        });
        let locked = locked.ok_or(StoreError::SessionLost)?;
        let rescued = bury(tx, session, &locked).await?;
        phase.commit().await?;
        Ok(rescued)
    }

    /// The names of the live hosts that have a plugin.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn live_hosts_with_plugin(&self, plugin: &Name) -> Result<Vec<String>, StoreError> {
        let hosts = self.live_host_plugins().await?;
        Ok(hosts.into_iter().filter(|row| row.plugin == plugin.as_str()).map(|row| row.host).collect())
    }

    /// Which plugins the live hosts have, by plugin and host.
    pub(super) async fn live_host_plugins(&self) -> Result<Vec<HostPluginRow>, StoreError> {
        Ok(on_read!(self, sql, conn => {
            sqlx::query_as(sql::LIVE_HOST_PLUGINS).bind(self.now()).fetch_all(conn).await?
        }))
    }
}

row! {
    /// A host session that is locked to be ended.
    struct SessionRow {
        host: String,
        lease_floor: i64,
    }
}

row! {
    struct HostPluginRow {
        plugin: String,
        host: String,
    }
}

/// Says which plugins a host session has.
pub(super) async fn insert_host_plugins(
    tx: &mut PhaseTx,
    session: SessionId,
    plugins: &[(Name, String)],
) -> Result<(), StoreError> {
    for (plugin, digest) in plugins {
        let inserted = on_engine!(tx, sql, conn => {
            sqlx::query(sql::INSERT_HOST_PLUGIN)
                .bind(session.0)
                .bind(plugin.as_str())
                .bind(storable(digest))
                .execute(conn)
                .await?
                .rows_affected()
        });
        if inserted == 0 {
            return Err(component_is_not_saved(plugin, digest));
        }
    }
    Ok(())
}

pub(super) fn component_is_not_saved(plugin: &Name, digest: &str) -> StoreError {
    StoreError::Invalid(format!("plugin `{plugin}` has component {digest}, which has not been saved"))
}
