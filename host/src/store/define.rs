//! What a host has loaded becomes what the store knows of it, in one transaction: components,
//! plugins, queues and jobs, and which plugins the host's session runs from then on.

use serde_json::Value;

use super::StoreError;
use super::connection::Store;
use super::phase::{PhaseName, PhaseTx};
use super::reopen::open_gates_of_jobs;
use super::row::{json_text, on_engine, storable};
use super::session::{SessionId, component_is_not_saved, insert_host_plugins};
use super::sync::{JobSync, change_jobs, change_queues};
use crate::job::{Job, Name};
use crate::policy::Queue;

/// All that a host's configuration and its components say, or what of it is to be recorded.
#[derive(Clone, Copy, Debug)]
pub struct Definitions<'a> {
    /// The host's name.
    pub host: &'a str,
    /// In whose name jobs and queues are kept.
    pub owner: &'a str,
    /// The host session that has these plugins from now on, and no others. None: it registers later.
    pub session: Option<SessionId>,
    /// The plugins.
    pub plugins: &'a [PluginDefinition],
    /// The jobs. None: they stay as they are.
    pub jobs: Option<&'a [Job]>,
    /// The queues. None: they stay as they are.
    pub queues: Option<&'a [Queue]>,
}

/// A plugin that a host has loaded.
#[derive(Clone, Debug)]
pub struct PluginDefinition {
    /// Its name.
    pub name: Name,
    /// The digest of the component that runs.
    pub component: String,
    /// What its handlers are, as JSON.
    pub descriptions: Value,
    /// The digest of the component that the configuration names: another one where an operator
    /// went back to the one before.
    pub configured: String,
}

/// What [`Store::define`] changed.
#[derive(Clone, Debug, Default)]
pub struct Defined {
    /// Queues that are others now.
    pub queues: Vec<Name>,
    /// Jobs.
    pub jobs: JobSync,
}

/// Why definitions were not recorded.
#[derive(Debug, thiserror::Error)]
pub enum DefineError {
    /// Nothing was written.
    #[error(transparent)]
    Refused(StoreError),
    /// They may have been: recording the same again makes it known.
    #[error(transparent)]
    Unknown(StoreError),
}

impl From<DefineError> for StoreError {
    fn from(error: DefineError) -> Self {
        match error {
            DefineError::Refused(error) | DefineError::Unknown(error) => error,
        }
    }
}

impl Store {
    /// Records all of it or nothing: see [`Store::sync_jobs`] and [`Store::sync_queues`] for what
    /// becomes of jobs and queues.
    ///
    /// # Errors
    /// [`DefineError::Refused`] with [`StoreError::SessionLost`] where the session is dead.
    pub async fn define(&self, definitions: &Definitions<'_>) -> Result<Defined, DefineError> {
        let mut phase = self.begin(PhaseName::Jobs).await.map_err(DefineError::Refused)?;
        let (defined, changed) = write(phase.tx(), self, definitions).await.map_err(DefineError::Refused)?;
        phase.commit().await.map_err(|error| match error {
            error @ StoreError::Unavailable(_) => DefineError::Unknown(error),
            error => DefineError::Refused(error),
        })?;
        open_gates_of_jobs(self, &changed).await.map_err(DefineError::Unknown)?;
        Ok(defined)
    }

    /// As [`Store::define`], after one of the same that may have been committed: which jobs it changed
    /// is known no more, so all that waits is looked at.
    ///
    /// # Errors
    /// As [`Store::define`].
    pub async fn define_again(&self, definitions: &Definitions<'_>) -> Result<Defined, DefineError> {
        let defined = self.define(definitions).await?;
        self.look_at_all_that_waits().await.map_err(DefineError::Unknown)?;
        Ok(defined)
    }
}

/// The jobs last, since others wait for them until the transaction has ended.
async fn write(
    tx: &mut PhaseTx,
    store: &Store,
    definitions: &Definitions<'_>,
) -> Result<(Defined, Vec<i32>), StoreError> {
    let Definitions { host, owner, session, plugins, jobs, queues } = *definitions;
    if let Some(session) = session {
        tx.hold_session(session).await?;
    }
    // In one order, so that two hosts that load at once do not wait for each other.
    let mut in_order: Vec<&PluginDefinition> = plugins.iter().collect();
    in_order.sort_by(|a, b| a.component.cmp(&b.component).then_with(|| a.name.cmp(&b.name)));
    for plugin in &in_order {
        save_component(tx, plugin).await?;
    }
    in_order.sort_by(|a, b| a.name.cmp(&b.name));
    for plugin in &in_order {
        save_plugin(tx, host, plugin).await?;
    }
    if let Some(session) = session {
        on_engine!(tx, sql, conn => {
            sqlx::query(sql::DELETE_HOST_PLUGINS).bind(session.0).execute(conn).await?;
        });
        let digests: Vec<(Name, String)> =
            plugins.iter().map(|plugin| (plugin.name.clone(), plugin.component.clone())).collect();
        insert_host_plugins(tx, session, &digests).await?;
    }
    let queues = match queues {
        Some(queues) => change_queues(tx, owner, queues).await?,
        None => Vec::new(),
    };
    let (jobs, changed) = match jobs {
        Some(jobs) => change_jobs(tx, store, owner, jobs).await?,
        None => (JobSync::default(), Vec::new()),
    };
    Ok((Defined { queues, jobs }, changed))
}

async fn save_component(tx: &mut PhaseTx, plugin: &PluginDefinition) -> Result<(), StoreError> {
    let now = tx.now;
    on_engine!(tx, sql, conn => {
        sqlx::query(sql::SAVE_COMPONENT)
            .bind(now)
            .bind(storable(&plugin.component))
            .bind(json_text(&plugin.descriptions)?)
            .execute(conn)
            .await?;
    });
    Ok(())
}

async fn save_plugin(tx: &mut PhaseTx, host: &str, plugin: &PluginDefinition) -> Result<(), StoreError> {
    let now = tx.now;
    let saved = on_engine!(tx, sql, conn => {
        let saved = sqlx::query(sql::SAVE_PLUGIN)
            .bind(now)
            .bind(plugin.name.as_str())
            .bind(storable(&plugin.component))
            .execute(&mut *conn)
            .await?;
        sqlx::query(sql::INSERT_PLUGIN_VERSION)
            .bind(now)
            .bind(plugin.name.as_str())
            .bind(storable(&plugin.configured))
            .bind(storable(host))
            .execute(conn)
            .await?;
        saved.rows_affected()
    });
    if saved == 0 { Err(component_is_not_saved(&plugin.name, &plugin.component)) } else { Ok(()) }
}
