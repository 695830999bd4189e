//! The versions of plugins that there were, and which one runs in place of which.

use jiff::Timestamp;

use super::StoreError;
use super::connection::Store;
use super::phase::PhaseName;
use super::row::{on_engine, on_read, row, storable, stored_name};
use super::session::component_is_not_saved;
use super::time::Time;
use crate::job::Name;

/// How many versions of a plugin hosts keep to go back to.
pub const VERSIONS_KEPT: u32 = 3;

/// A component that a plugin was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginVersion {
    /// Its digest.
    pub component: String,
    /// The host that found it first.
    pub host: String,
    /// When.
    pub loaded_at: Timestamp,
}

/// Where a configuration names one component, another one is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollback {
    /// The plugin.
    pub plugin: Name,
    /// The digest of what runs.
    pub component: String,
    /// The digest of what the configuration names. Any other component is run as it is.
    pub replaces: String,
    /// Since when.
    pub since: Timestamp,
    /// Why, as whoever did it said.
    pub reason: Option<String>,
}

impl Store {
    /// The components that a plugin was found to be, the newest first; each time that it was another
    /// one than before.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn plugin_versions(&self, plugin: &Name, most: u32) -> Result<Vec<PluginVersion>, StoreError> {
        let rows: Vec<VersionRow> = on_read!(self, sql, conn => {
            sqlx::query_as(sql::PLUGIN_VERSIONS)
                .bind(plugin.as_str())
                .bind(i64::from(most))
                .fetch_all(conn)
                .await?
        });
        let version = |row: VersionRow| PluginVersion {
            component: row.digest,
            host: row.host,
            loaded_at: row.loaded_at.0,
        };
        Ok(rows.into_iter().map(version).collect())
    }

    /// The components that were a plugin's, are of the last so many versions of none, and that no
    /// rollback names.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn superseded_components(&self, versions: u32) -> Result<Vec<String>, StoreError> {
        Ok(on_read!(self, sql, conn => {
            sqlx::query_scalar(sql::SUPERSEDED_COMPONENTS).bind(i64::from(versions)).fetch_all(conn).await?
        }))
    }

    /// What runs in place of what.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn rollbacks(&self) -> Result<Vec<Rollback>, StoreError> {
        let rows: Vec<RollbackRow> =
            on_read!(self, sql, conn => sqlx::query_as(sql::ROLLBACKS).fetch_all(conn).await?);
        rows.into_iter().map(RollbackRow::record).collect()
    }

    /// From the next reload on, `component` runs wherever a configuration names `replaces` as this
    /// plugin. A plugin has one such rule at most.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where one of the components has not been saved.
    pub async fn roll_back(
        &self,
        plugin: &Name,
        component: &str,
        replaces: &str,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        let mut phase = self.begin(PhaseName::Definition).await?;
        let tx = phase.tx();
        let now = tx.now;
        let saved = on_engine!(tx, sql, conn => {
            sqlx::query(sql::SAVE_ROLLBACK)
                .bind(now)
                .bind(plugin.as_str())
                .bind(storable(component))
                .bind(storable(replaces))
                .bind(reason.map(storable))
                .execute(conn)
                .await?
                .rows_affected()
        });
        if saved == 0 {
            return Err(component_is_not_saved(plugin, component));
        }
        phase.commit().await
    }

    /// From the next reload on, the plugin is again what configurations name. False where it was.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn end_rollback(&self, plugin: &Name) -> Result<bool, StoreError> {
        let mut phase = self.begin(PhaseName::Definition).await?;
        let tx = phase.tx();
        let ended = on_engine!(tx, sql, conn => {
            sqlx::query(sql::DELETE_ROLLBACK).bind(plugin.as_str()).execute(conn).await?.rows_affected()
        });
        phase.commit().await?;
        Ok(ended > 0)
    }
}

row! {
    struct VersionRow {
        digest: String,
        host: String,
        loaded_at: Time,
    }
}

row! {
    struct RollbackRow {
        plugin: String,
        component: String,
        replaces: String,
        since: Time,
        reason: Option<String>,
    }
}

impl RollbackRow {
    fn record(self) -> Result<Rollback, StoreError> {
        Ok(Rollback {
            plugin: stored_name(&self.plugin)?,
            component: self.component,
            replaces: self.replaces,
            since: self.since.0,
            reason: self.reason,
        })
    }
}
