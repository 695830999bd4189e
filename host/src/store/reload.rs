//! How running hosts are asked to load anew, and how they answer. The store is the only thing that
//! a command and a host have in common.

use jiff::Timestamp;
use uuid::Uuid;

use super::StoreError;
use super::connection::Store;
use super::phase::{EngineTx, PhaseName};
use super::row::{json_text, on_engine, on_read, row, storable};
use super::time::Time;
use super::{postgres, sqlite};
use crate::job::Name;

/// The migration that brought this: a host that does not know it would never answer.
const KNOWN_SINCE: i32 = 6;

/// What hosts are asked to load anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadWish {
    /// The configuration, and with it everything.
    Configuration,
    /// The components of all plugins, under the configuration that runs.
    Plugins,
    /// The component of this one.
    Plugin(Name),
}

/// A request that a host has not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadRequest {
    /// Its number.
    pub id: i64,
    /// What is wanted.
    pub wish: ReloadWish,
}

/// A request, as whoever made it sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadAsked {
    /// Its number.
    pub id: i64,
    /// The host that was asked.
    pub host: String,
    /// When the host answered.
    pub done_at: Option<Timestamp>,
    /// Why everything is as it was there; none: it was done, if it was answered.
    pub error: Option<String>,
    /// The process that was asked still lives.
    pub is_alive: bool,
}

impl ReloadWish {
    fn stored(&self) -> Option<&str> {
        match self {
            Self::Configuration => None,
            Self::Plugins => Some(""),
            Self::Plugin(name) => Some(name.as_str()),
        }
    }

    fn of_stored(plugin: Option<&str>) -> Result<Self, StoreError> {
        Ok(match plugin {
            None => Self::Configuration,
            Some("") => Self::Plugins,
            Some(name) => Self::Plugin(super::row::stored_name(name)?),
        })
    }
}

impl Store {
    /// Asks every live host to load anew, or the one of this name; where a plugin is named, those that
    /// have it. They notice with their next heartbeat. Hosts that end, or are of a version that does not
    /// know of this, are not asked. Returns the numbers of the requests, one for each process.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn request_reload(
        &self,
        wish: &ReloadWish,
        host: Option<&str>,
    ) -> Result<Vec<i64>, StoreError> {
        let mut phase = self.begin(PhaseName::Definition).await?;
        let tx = phase.tx();
        let now = tx.now;
        let plugin = match wish {
            ReloadWish::Plugin(name) => Some(name.as_str()),
            _ => None,
        };
        let asked: Vec<i64> = on_engine!(tx, sql, conn => {
            sqlx::query(sql::FORGET_RELOADS).bind(now).execute(&mut *conn).await?;
            sqlx::query_scalar(sql::REQUEST_RELOADS)
                .bind(now)
                .bind(wish.stored())
                .bind(host)
                .bind(plugin)
                .bind(KNOWN_SINCE)
                .fetch_all(conn)
                .await?
        });
        phase.commit().await?;
        Ok(asked)
    }

    /// What became of these requests, by host.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn reloads(&self, ids: &[i64]) -> Result<Vec<ReloadAsked>, StoreError> {
        let mut phase = self.begin(PhaseName::Definition).await?;
        let tx = phase.tx();
        let now = tx.now;
        let rows: Vec<AskedRow> = match &mut tx.engine {
            EngineTx::Postgres(conn) => {
                sqlx::query_as(postgres::RELOADS).bind(now).bind(ids).fetch_all(&mut **conn).await?
            }
            EngineTx::Sqlite(conn) => {
                let ids = json_text(&ids)?;
                sqlx::query_as(sqlite::RELOADS).bind(now).bind(ids).fetch_all(&mut **conn).await?
            }
        };
        phase.commit().await?;
        Ok(rows.into_iter().map(AskedRow::record).collect())
    }

    /// What a process was asked for and has not answered, in the order of asking.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn open_reloads(&self, boot: Uuid) -> Result<Vec<ReloadRequest>, StoreError> {
        let rows: Vec<RequestRow> =
            on_read!(self, sql, conn => sqlx::query_as(sql::OPEN_RELOADS).bind(boot).fetch_all(conn).await?);
        let request = |row: RequestRow| {
            Ok(ReloadRequest { id: row.id, wish: ReloadWish::of_stored(row.plugin.as_deref())? })
        };
        rows.into_iter().map(request).collect()
    }

    /// Answers a request; `error`: why everything is as it was.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn answer_reload(&self, id: i64, error: Option<&str>) -> Result<(), StoreError> {
        let mut phase = self.begin(PhaseName::Definition).await?;
        let tx = phase.tx();
        let now = tx.now;
        on_engine!(tx, sql, conn => {
            sqlx::query(sql::ANSWER_RELOAD)
                .bind(now)
                .bind(id)
                .bind(error.map(storable))
                .execute(conn)
                .await?;
        });
        phase.commit().await
    }
}

row! {
    struct RequestRow {
        id: i64,
        plugin: Option<String>,
    }
}

row! {
    struct AskedRow {
        id: i64,
        host: String,
        done_at: Option<Time>,
        error: Option<String>,
        is_alive: bool,
    }
}

impl AskedRow {
    fn record(self) -> ReloadAsked {
        ReloadAsked {
            id: self.id,
            host: self.host,
            done_at: self.done_at.map(|time| time.0),
            error: self.error,
            is_alive: self.is_alive,
        }
    }
}
