//! What a running handler leaves behind: log lines, progress, a checkpoint. Each in a short
//! transaction of its own, guarded by the lease.

use serde_json::{Value, json};
use uuid::Uuid;

use super::connection::Store;
use super::phase::{EngineTx, Phase, PhaseName, PhaseTx};
use super::row::{from_count, json_text, on_engine, on_read, row, storable, stored_json};
use super::session::SessionId;
use super::time::Time;
use super::{StoreError, postgres, sqlite};
use crate::execution::{LogLevel, LogLine, Progress};

/// The attempt on whose behalf something is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The host session.
    pub session: SessionId,
    /// The lease.
    pub lease: i64,
    /// The execution.
    pub execution: Uuid,
}

/// A line of an execution's log, as it was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRecord {
    /// The START during which it was written.
    pub lease: i64,
    /// Its number among the lines of this attempt, 1 for the first.
    pub seq: i32,
    /// The attempt, 1 for the first.
    pub attempt: u32,
    /// What was written.
    pub line: LogLine,
}

/// A place in an execution's log: before all of it, by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// As in a line.
    pub lease: i64,
    /// As in a line.
    pub seq: i32,
}

impl LogRecord {
    /// Right after this line.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        LogPosition { lease: self.lease, seq: self.seq }
    }
}

impl Store {
    /// Adds lines to an execution's log.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] where the attempt is over.
    pub async fn append_log(&self, holder: Holder, lines: &[LogLine]) -> Result<(), StoreError> {
        if lines.is_empty() {
            return Ok(());
        }
        let detail = || json!({ "lines": lines.len(), "first": lines.first().map(|line| &line.message) });
        let mut phase = self.begin_for(holder, "log", detail).await?;
        insert_log(phase.tx(), holder, lines).await?;
        phase.commit().await
    }

    /// Says how far an execution is.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] where the attempt is over.
    pub async fn save_progress(&self, holder: Holder, progress: &Progress) -> Result<(), StoreError> {
        let detail =
            || json!({ "done": progress.done, "total": progress.total, "message": progress.message });
        let mut phase = self.begin_for(holder, "progress", detail).await?;
        let tx = phase.tx();
        let now = tx.now;
        on_engine!(tx, sql, conn => {
            sqlx::query(sql::SAVE_PROGRESS)
                .bind(now)
                .bind(holder.execution)
                .bind(holder.lease)
                .bind(to_units(progress.done))
                .bind(progress.total.map(to_units))
                .bind(progress.message.as_deref().map(storable))
                .execute(conn)
                .await?;
        });
        phase.commit().await
    }

    /// Saves state for later attempts of the same execution.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] where the attempt is over.
    pub async fn save_checkpoint(&self, holder: Holder, state: &Value) -> Result<(), StoreError> {
        let text = json_text(state)?;
        let mut phase = self.begin_for(holder, "checkpoint", || json!({ "state": state })).await?;
        let tx = phase.tx();
        let now = tx.now;
        on_engine!(tx, sql, conn => {
            sqlx::query(sql::SAVE_CHECKPOINT)
                .bind(now)
                .bind(holder.execution)
                .bind(holder.lease)
                .bind(text)
                .execute(conn)
                .await?;
        });
        phase.commit().await
    }

    /// The log of an execution, all attempts, in the order of writing.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn logs(&self, execution: Uuid) -> Result<Vec<LogRecord>, StoreError> {
        self.logs_after(execution, LogPosition::default(), u32::MAX).await
    }

    /// The lines after `position`, `limit` at most: how to go on after a page. Nothing comes to stand
    /// before a line that was read: those of an attempt are numbered under the lock of its start, and
    /// none is written after its end.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn logs_after(
        &self,
        execution: Uuid,
        position: LogPosition,
        limit: u32,
    ) -> Result<Vec<LogRecord>, StoreError> {
        let rows: Vec<LogRow> = on_read!(self, sql, conn => {
            sqlx::query_as(sql::LOGS)
                .bind(execution)
                .bind(position.lease)
                .bind(position.seq)
                .bind(i64::from(limit))
                .fetch_all(conn)
                .await?
        });
        rows.into_iter().map(LogRow::record).collect()
    }

    /// A phase on behalf of an attempt that is not over. Where it is over, that it was tried is
    /// on record and committed before the error returns.
    pub(super) async fn begin_for(
        &self,
        holder: Holder,
        kind: &str,
        detail: impl FnOnce() -> Value,
    ) -> Result<Phase, StoreError> {
        let mut phase = self.begin(PhaseName::Handler).await?;
        let tx = phase.tx();
        let open = on_engine!(tx, sql, conn => {
            sqlx::query(sql::LOCK_OPEN_START)
                .bind(holder.session.0)
                .bind(holder.lease)
                .bind(holder.execution)
                .fetch_optional(conn)
                .await?
                .is_some()
        });
        if open {
            return Ok(phase);
        }
        tx.insert_stale(holder, kind, &detail()).await?;
        phase.commit().await?;
        Err(StoreError::LeaseLost { lease: holder.lease })
    }
}

async fn insert_log(tx: &mut PhaseTx, holder: Holder, lines: &[LogLine]) -> Result<(), StoreError> {
    let last: i32 = on_engine!(tx, sql, conn => {
        sqlx::query_scalar(sql::LAST_LOG_SEQ)
            .bind(holder.execution)
            .bind(holder.lease)
            .fetch_one(conn)
            .await?
    });
    let fields = lines
        .iter()
        .map(|line| json_text(&Value::Object(line.fields.clone())))
        .collect::<Result<Vec<_>, _>>()?;
    let numbered = || lines.iter().zip(fields.iter()).zip(last + 1..);
    match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query(postgres::INSERT_LOG)
                .bind(holder.execution)
                .bind(holder.lease)
                .bind(numbered().map(|(_, seq)| seq).collect::<Vec<_>>())
                .bind(lines.iter().map(|line| Time(line.at)).collect::<Vec<_>>())
                .bind(lines.iter().map(|line| line.level.as_str()).collect::<Vec<_>>())
                .bind(lines.iter().map(|line| storable(&line.message)).collect::<Vec<_>>())
                .bind(&fields)
                .execute(&mut **conn)
                .await?;
        }
        EngineTx::Sqlite(conn) => {
            for ((line, fields), seq) in numbered() {
                sqlx::query(sqlite::INSERT_LOG)
                    .bind(holder.execution)
                    .bind(holder.lease)
                    .bind(seq)
                    .bind(Time(line.at))
                    .bind(line.level.as_str())
                    .bind(storable(&line.message))
                    .bind(fields)
                    .execute(&mut **conn)
                    .await?;
            }
        }
    }
    Ok(())
}

row! {
    struct LogRow {
        lease: i64,
        seq: i32,
        attempt: i32,
        at: Time,
        level: String,
        message: String,
        fields: String,
    }
}

impl LogRow {
    fn record(self) -> Result<LogRecord, StoreError> {
        let level = LogLevel::ALL.into_iter().find(|level| level.as_str() == self.level);
        let level =
            level.ok_or_else(|| StoreError::Corrupt(format!("a log line of level `{}`", self.level)))?;
        Ok(LogRecord {
            lease: self.lease,
            seq: self.seq,
            attempt: from_count(self.attempt)?,
            line: LogLine {
                at: self.at.0,
                level,
                message: self.message,
                fields: stored_json("the fields of a log line", &self.fields)?
                    .as_object()
                    .cloned()
                    .unwrap_or_default(),
            },
        })
    }
}

/// A handler's number may be any; past this it stands still.
fn to_units(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX)
}
