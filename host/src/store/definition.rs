//! What there is to run: components, plugins, jobs.

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::StoreError;
use super::connection::Store;
use crate::execution::State;
use crate::job::{Job, Name};

/// A job as the store has it.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRecord {
    /// The definition.
    pub job: Job,
    /// Whose definition it is.
    pub owner: String,
    /// When its schedule fires next. None: it has none, is disabled, or has fired for the last time.
    pub next_fire_at: Option<Timestamp>,
    /// Since when its schedule is paused.
    pub paused_at: Option<Timestamp>,
    /// Since when no configuration names it any more.
    pub retired_at: Option<Timestamp>,
    /// The execution that was made last.
    pub last: Option<LastExecution>,
}

/// A job's latest execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastExecution {
    /// Its id.
    pub id: Uuid,
    /// Where it stands.
    pub state: State,
}

/// What [`Store::sync_jobs`] changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobSync {
    /// Jobs that were not there, or were retired.
    pub added: Vec<Name>,
    /// Jobs whose definition or owner is another one now.
    pub changed: Vec<Name>,
    /// Jobs of the owner that were not named.
    pub retired: Vec<Name>,
}

/// A plugin as the hosts have told the store.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginRecord {
    /// Its name.
    pub name: Name,
    /// The digest of its component, as a host last loaded it.
    pub digest: String,
    /// What its handlers are: JSON, as given to [`Store::save_component`].
    pub descriptions: Value,
    /// When a host last said so.
    pub updated_at: Timestamp,
    /// The live hosts that have it, with any component.
    pub hosts: Vec<String>,
}

impl Store {
    /// Saves the descriptions of a component's handlers by its digest.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn save_component(&self, _digest: &str, _descriptions: &Value) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// The descriptions of a component's handlers, if any host has saved them.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn component_descriptions(&self, _digest: &str) -> Result<Option<Value>, StoreError> {
        unimplemented!()
    }

    /// Says which component a plugin is.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where the component has not been saved.
    pub async fn save_plugin(&self, _name: &Name, _digest: &str) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// The descriptions of a plugin's handlers, if any host has saved them.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn plugin_handlers(&self, _name: &Name) -> Result<Option<Value>, StoreError> {
        unimplemented!()
    }

    /// The plugins, by name.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn plugins(&self) -> Result<Vec<PluginRecord>, StoreError> {
        unimplemented!()
    }

    /// Makes `jobs` the jobs of `owner`.
    ///
    /// A job whose schedule did not change keeps its next fire time, so that what was missed
    /// while no host was up is caught up; a new or changed schedule fires from now on. Jobs of
    /// this owner that are not named are retired: they fire no more, and their history stays.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn sync_jobs(&self, _owner: &str, _jobs: &[Job]) -> Result<JobSync, StoreError> {
        unimplemented!()
    }

    /// The job of this name, retired or not.
    ///
    /// # Errors
    /// [`StoreError::UnknownJob`] where there never was one.
    pub async fn job(&self, _name: &Name) -> Result<JobRecord, StoreError> {
        unimplemented!()
    }

    /// The jobs, by name, those that are retired included.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn jobs(&self) -> Result<Vec<JobRecord>, StoreError> {
        unimplemented!()
    }
}
