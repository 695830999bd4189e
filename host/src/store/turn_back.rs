//! The clock was set back: what was written under the wrong time is put right.
//!
//! A job never fires later than its schedule says from now on. That is broken only by a clock that
//! goes back, and the job would be silent until the wrong time comes again. So would be a retry that
//! waits, a rate that counts starts of the future, and what runs on a host that died meanwhile, whose
//! session would not expire.

use super::connection::Store;
use super::phase::{EngineTx, PhaseName};
use super::plan::move_fire_times;
use super::row::{JobRow, on_engine, row};
use super::time::Time;
use super::{StoreError, postgres, sqlite};

row! {
    struct EarlyJobRow {
        id: i32,
        name: String,
        spec: String,
        fire_at: Time,
        now: Time,
    }
}

/// Jobs that one transaction looks at.
const BATCH: i64 = 1_000;

impl Store {
    /// Plans jobs anew whose next fire is later than it can be by the store's clock. What has its
    /// execution, or is recorded as skipped, does not fire again.
    ///
    /// Sessions whose last heartbeat is later than now last as long from now as they did from then, a
    /// retry waits as long from now as it would have after its failure, and a start that is later
    /// than now counts against its rate as one of now. A time that somebody asked for stays.
    ///
    /// Looks at every job that has a schedule: to be called when the clock was set back, not all
    /// the time; by several hosts at once, it does no harm. (A retry may come earlier then, by no more than
    /// the clock was set back for each of them.) Returns how many jobs it changed.
    ///
    /// # Errors
    /// Where the store fails. What was changed until then is.
    pub async fn turn_back(&self) -> Result<usize, StoreError> {
        self.turn_back_what_waits().await?;
        let (mut changed, mut seen) = (0, 0);
        loop {
            let mut phase = self.begin(PhaseName::Jobs).await?;
            let tx = phase.tx();
            let bound = tx.now;
            let rows: Vec<EarlyJobRow> = on_engine!(tx, sql, conn => {
                sqlx::query_as(sql::JOBS_TO_TURN_BACK).bind(bound).bind(seen).bind(BATCH).fetch_all(conn).await?
            });
            let Some(last) = rows.last().map(|row| row.id) else { return Ok(changed) };
            let moved: Vec<(i32, Option<Time>)> = rows.into_iter().filter_map(EarlyJobRow::earlier).collect();
            move_fire_times(tx, &moved).await?;
            phase.commit().await?;
            (changed, seen) = (changed + moved.len(), last);
        }
    }

    /// The part of [`Store::turn_back`] that is not about fires: sessions, retries, rates and marks. To
    /// be called when a host starts, too: nobody may have been there when the clock was set back.
    ///
    /// # Errors
    /// As [`Store::turn_back`].
    pub async fn turn_back_what_waits(&self) -> Result<(), StoreError> {
        // A transaction each: none of them holds what another table's users wait for.
        for (on_postgres, on_sqlite) in [
            (postgres::TURN_BACK_SESSIONS, sqlite::TURN_BACK_SESSIONS),
            (postgres::TURN_BACK_RETRIES, sqlite::TURN_BACK_RETRIES),
            (postgres::TURN_BACK_RATE_USES, sqlite::TURN_BACK_RATE_USES),
            (postgres::TURN_BACK_GATES, sqlite::TURN_BACK_GATES),
        ] {
            let mut phase = self.begin(PhaseName::Plan).await?;
            let tx = phase.tx();
            let now = tx.now;
            match &mut tx.engine {
                EngineTx::Postgres(conn) => {
                    sqlx::query(on_postgres).bind(now).execute(&mut **conn).await?;
                }
                EngineTx::Sqlite(conn) => {
                    sqlx::query(on_sqlite).bind(now).execute(&mut **conn).await?;
                }
            }
            phase.commit().await?;
        }
        Ok(())
    }
}

impl EarlyJobRow {
    /// Its next fire by the clock as it is now, where that is earlier.
    fn earlier(self) -> Option<(i32, Option<Time>)> {
        // A definition that cannot be read is for another binary to plan.
        let job = JobRow { id: self.id, name: self.name, spec: self.spec }.job().ok()?;
        let next = job.schedule?.next_after(self.now.0).map(Time)?;
        (next < self.fire_at).then_some((self.id, Some(next)))
    }
}
