//! Looking at the hosts, and asking them to drain.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::StoreError;
use super::connection::Store;
use super::phase::PhaseName;
use super::row::{from_count, on_engine, on_read, row, stored_name};
use super::session::SessionId;
use super::time::Time;
use crate::job::Name;

/// A host session, and what it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRecord {
    /// Its number.
    pub session: SessionId,
    /// The host's name.
    pub host: String,
    /// Of its process: sessions that follow one another in a process have the same.
    pub boot_id: Uuid,
    /// The version of its binary.
    pub version: String,
    /// Where it stands.
    pub state: HostState,
    /// When it registered.
    pub started_at: Timestamp,
    /// The last heartbeat; none of a version that did not say.
    pub heartbeat_at: Option<Timestamp>,
    /// How long ago that is, by the store's clock; none of a session that has ended.
    pub heartbeat_age: Option<Duration>,
    /// When it expires, unless another heartbeat comes before.
    pub expires_at: Timestamp,
    /// When its end was recorded, by itself or by whoever found it expired.
    pub ended_at: Option<Timestamp>,
    /// When it was first asked to drain.
    pub drain_requested_at: Option<Timestamp>,
    /// When it was first known to start nothing new any more.
    pub draining_at: Option<Timestamp>,
    /// How many executions it runs at once; none of a version that did not say, which does not
    /// know of [`Store::request_drain`] either.
    pub slots: Option<u32>,
    /// How many executions it runs, also where fewer are in `executions`.
    pub running: u64,
    /// What it runs, the longest first.
    pub executions: Vec<RunningExecution>,
}

/// An execution that a host runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningExecution {
    /// The execution.
    pub execution: Uuid,
    /// Its job.
    pub job: Name,
    /// The attempt, 1 for the first.
    pub attempt: u32,
    /// Since when.
    pub started_at: Timestamp,
}

/// Where a host session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostState {
    /// It starts what there is to do.
    Active,
    /// It was asked to stop, or says that it starts nothing new.
    Draining,
    /// It was not renewed in time. What it ran is tried again by another host.
    Expired,
    /// It ended by itself, after a drain.
    Ended,
}

impl HostState {
    /// The state as it is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Expired => "expired",
            Self::Ended => "ended",
        }
    }

    fn of(row: &HostSessionRow) -> Self {
        match row {
            HostSessionRow { has_expired: true, .. } => Self::Expired,
            HostSessionRow { dead_at: Some(_), .. } => Self::Ended,
            HostSessionRow { drain_requested_at: None, draining_at: None, .. } => Self::Active,
            _ => Self::Draining,
        }
    }
}

/// Which host sessions are looked for.
#[derive(Clone, Copy, Debug)]
pub struct HostFilter<'a> {
    /// Of the host of this name only.
    pub host: Option<&'a str>,
    /// So many at most of those that have ended, the newest first.
    pub ended: u32,
    /// So many executions at most of each.
    pub executions: u32,
}

impl Store {
    /// The host sessions whose end was not recorded, by name, and then those that have ended.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn hosts(&self, filter: &HostFilter<'_>) -> Result<Vec<HostRecord>, StoreError> {
        let (sessions, running) = on_read!(self, sql, conn => {
            let mut sessions: Vec<HostSessionRow> = sqlx::query_as(sql::LIVE_SESSIONS)
                .bind(self.now())
                .bind(filter.host)
                .fetch_all(&mut *conn)
                .await?;
            if filter.ended > 0 {
                let ended = sqlx::query_as(sql::ENDED_SESSIONS).bind(i64::from(filter.ended)).bind(filter.host);
                sessions.extend(ended.fetch_all(&mut *conn).await?);
            }
            // The first of each tells how many there are.
            let executions = i64::from(filter.executions.max(1));
            let running: Vec<RunningRow> =
                sqlx::query_as(sql::RUNNING_ON_HOSTS).bind(executions).fetch_all(&mut *conn).await?;
            (sessions, running)
        });
        let mut by_session: HashMap<i64, Vec<RunningRow>> = HashMap::new();
        for row in running {
            by_session.entry(row.session_id).or_default().push(row);
        }
        let record = |row: HostSessionRow| {
            let running = by_session.remove(&row.id).unwrap_or_default();
            row.record(running, filter.executions as usize)
        };
        sessions.into_iter().map(record).collect()
    }

    /// Asks the live sessions of a host to drain; they notice with their next heartbeat. A host
    /// of a version that does not know of this is left alone. Asking again changes nothing.
    /// Returns how many were asked.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn request_drain(&self, host: &str) -> Result<u64, StoreError> {
        let mut phase = self.begin(PhaseName::Definition).await?;
        let tx = phase.tx();
        let now = tx.now;
        let asked = on_engine!(tx, sql, conn => {
            sqlx::query(sql::REQUEST_DRAIN).bind(now).bind(host).execute(conn).await?.rows_affected()
        });
        phase.commit().await?;
        Ok(asked)
    }
}

row! {
    struct HostSessionRow {
        id: i64,
        host: String,
        boot_id: Uuid,
        version: String,
        started_at: Time,
        heartbeat_at: Option<Time>,
        expires_at: Time,
        dead_at: Option<Time>,
        slots: Option<i32>,
        drain_requested_at: Option<Time>,
        draining_at: Option<Time>,
        /// Now; null where it is dead.
        looked_at: Option<Time>,
        /// Before it was dead, or now.
        has_expired: bool,
    }
}

row! {
    struct RunningRow {
        session_id: i64,
        execution_id: Uuid,
        job: String,
        attempt: i32,
        started_at: Time,
        /// Of the session, in all.
        running: i64,
    }
}

impl HostSessionRow {
    fn heartbeat_age(&self) -> Option<Duration> {
        let age = self.looked_at?.0.duration_since(self.heartbeat_at?.0);
        // On PostgreSQL it may have come while its age was being asked for.
        Some(Duration::try_from(age).unwrap_or_default())
    }

    fn record(self, running: Vec<RunningRow>, most: usize) -> Result<HostRecord, StoreError> {
        Ok(HostRecord {
            session: SessionId(self.id),
            state: HostState::of(&self),
            heartbeat_age: self.heartbeat_age(),
            host: self.host,
            boot_id: self.boot_id,
            version: self.version,
            started_at: self.started_at.0,
            heartbeat_at: self.heartbeat_at.map(|time| time.0),
            expires_at: self.expires_at.0,
            ended_at: self.dead_at.map(|time| time.0),
            drain_requested_at: self.drain_requested_at.map(|time| time.0),
            draining_at: self.draining_at.map(|time| time.0),
            slots: self.slots.map(from_count).transpose()?,
            running: running.first().map_or(0, |row| row.running.max(0).unsigned_abs()),
            executions: running.into_iter().take(most).map(RunningRow::record).collect::<Result<_, _>>()?,
        })
    }
}

impl RunningRow {
    fn record(self) -> Result<RunningExecution, StoreError> {
        Ok(RunningExecution {
            execution: self.execution_id,
            job: stored_name(&self.job)?,
            attempt: from_count(self.attempt)?,
            started_at: self.started_at.0,
        })
    }
}
