//! What there is to run: components, plugins, jobs.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::StoreError;
use super::connection::Store;
use super::phase::PhaseName;
use super::read::ExecutionRow;
use super::row::{json_text, on_engine, on_read, row, storable, stored_json, stored_name};
use super::session::component_is_not_saved;
use super::time::Time;
use crate::execution::State;
use crate::job::{Job, Name};

/// A job as the store has it.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRecord {
    /// The definition.
    pub job: Job,
    /// Whose definition it is.
    pub owner: String,
    /// When its schedule fires next. None: it has none, is disabled or paused, has fired for the last
    /// time, or counts from the end of an execution that is under way.
    pub next_fire_at: Option<Timestamp>,
    /// Since when it is paused. It has no next fire time meanwhile.
    pub paused_at: Option<Timestamp>,
    /// Why, as whoever paused it said.
    pub paused_reason: Option<String>,
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
    pub async fn save_component(&self, digest: &str, descriptions: &Value) -> Result<(), StoreError> {
        let mut phase = self.begin(PhaseName::Definition).await?;
        let tx = phase.tx();
        let now = tx.now;
        on_engine!(tx, sql, conn => {
            sqlx::query(sql::SAVE_COMPONENT)
                .bind(now)
                .bind(storable(digest))
                .bind(json_text(descriptions)?)
                .execute(conn)
                .await?;
        });
        phase.commit().await
    }

    /// The descriptions of a component's handlers, if any host has saved them.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn component_descriptions(&self, digest: &str) -> Result<Option<Value>, StoreError> {
        let text: Option<String> = on_read!(self, sql, conn => {
            sqlx::query_scalar(sql::COMPONENT_DESCRIPTIONS).bind(storable(digest)).fetch_optional(conn).await?
        });
        text.map(|text| stored_json("the descriptions of a component", &text)).transpose()
    }

    /// Says which component a plugin is.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where the component has not been saved.
    pub async fn save_plugin(&self, name: &Name, digest: &str) -> Result<(), StoreError> {
        let mut phase = self.begin(PhaseName::Definition).await?;
        let tx = phase.tx();
        let now = tx.now;
        let saved = on_engine!(tx, sql, conn => {
            sqlx::query(sql::SAVE_PLUGIN)
                .bind(now)
                .bind(name.as_str())
                .bind(storable(digest))
                .execute(conn)
                .await?
                .rows_affected()
        });
        if saved == 0 {
            return Err(component_is_not_saved(name, digest));
        }
        phase.commit().await
    }

    /// The descriptions of a plugin's handlers, if any host has saved them.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn plugin_handlers(&self, name: &Name) -> Result<Option<Value>, StoreError> {
        let text: Option<String> = on_read!(self, sql, conn => {
            sqlx::query_scalar(sql::PLUGIN_DESCRIPTIONS).bind(name.as_str()).fetch_optional(conn).await?
        });
        text.map(|text| stored_json("the descriptions of a component", &text)).transpose()
    }

    /// The plugins, by name.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn plugins(&self) -> Result<Vec<PluginRecord>, StoreError> {
        let rows: Vec<PluginRow> =
            on_read!(self, sql, conn => sqlx::query_as(sql::PLUGINS).fetch_all(conn).await?);
        let live = self.live_host_plugins().await?;
        rows.into_iter()
            .map(|row| {
                let hosts = live.iter().filter(|live| live.plugin == row.name);
                Ok(PluginRecord {
                    name: stored_name(&row.name)?,
                    digest: row.digest,
                    descriptions: stored_json("the descriptions of a component", &row.descriptions)?,
                    updated_at: row.updated_at.0,
                    hosts: hosts.map(|live| live.host.clone()).collect(),
                })
            })
            .collect()
    }

    /// The job of this name, retired or not.
    ///
    /// # Errors
    /// [`StoreError::UnknownJob`] where there never was one.
    pub async fn job(&self, name: &Name) -> Result<JobRecord, StoreError> {
        let (row, last): (Option<JobRow>, Option<ExecutionRow>) = on_read!(self, sql, conn => (
            sqlx::query_as(sql::JOB).bind(name.as_str()).fetch_optional(&mut *conn).await?,
            sqlx::query_as(sql::LATEST_OF_JOB).bind(name.as_str()).fetch_optional(conn).await?,
        ));
        match row {
            Some(row) => row.record(last.as_ref()),
            None => Err(self.unknown_job(name).await?),
        }
    }

    /// The jobs, by name, those that are retired included.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn jobs(&self) -> Result<Vec<JobRecord>, StoreError> {
        let (rows, last): (Vec<JobRow>, Vec<ExecutionRow>) = on_read!(self, sql, conn => (
            sqlx::query_as(sql::JOBS).fetch_all(&mut *conn).await?,
            sqlx::query_as(sql::LATEST_OF_EACH_JOB).fetch_all(conn).await?,
        ));
        let last: HashMap<&str, &ExecutionRow> = last.iter().map(|row| (row.job.as_str(), row)).collect();
        rows.iter().map(|row| row.record(last.get(row.name.as_str()).copied())).collect()
    }

    /// The error for a job that is not there, with those that are.
    pub(super) async fn unknown_job(&self, name: &Name) -> Result<StoreError, StoreError> {
        let known = on_read!(self, sql, conn => {
            sqlx::query_scalar(sql::JOB_NAMES).fetch_all(conn).await?
        });
        Ok(StoreError::UnknownJob { name: name.clone(), known })
    }
}

row! {
    struct PluginRow {
        name: String,
        digest: String,
        descriptions: String,
        updated_at: Time,
    }
}

row! {
    struct JobRow {
        name: String,
        owner: String,
        spec: String,
        next_fire_at: Option<Time>,
        paused_at: Option<Time>,
        paused_reason: Option<String>,
        retired_at: Option<Time>,
    }
}

impl JobRow {
    fn record(&self, last: Option<&ExecutionRow>) -> Result<JobRecord, StoreError> {
        let job = serde_json::from_str(&self.spec).map_err(|error| {
            StoreError::Corrupt(format!("the definition of job `{}`: {error}", self.name))
        })?;
        let last = last
            .map(|row| Ok::<_, StoreError>(LastExecution { id: row.id, state: row.state()? }))
            .transpose()?;
        Ok(JobRecord {
            job,
            owner: self.owner.clone(),
            next_fire_at: self.next_fire_at.map(|time| time.0),
            paused_at: self.paused_at.map(|time| time.0),
            paused_reason: self.paused_reason.clone(),
            retired_at: self.retired_at.map(|time| time.0),
            last,
        })
    }
}
