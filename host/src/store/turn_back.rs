//! The clock was set back: fires that were planned under the wrong time are planned anew.
//!
//! A job never fires later than its schedule says from now on. That is broken only by a clock that
//! goes back, and the job would be silent until the wrong time comes again.

use super::StoreError;
use super::connection::Store;
use super::phase::PhaseName;
use super::plan::move_fire_times;
use super::row::{JobRow, on_engine, row};
use super::time::Time;

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
    /// Looks at every job that has a schedule: to be called when the clock was set back, not all
    /// the time. Returns how many jobs it changed.
    ///
    /// # Errors
    /// Where the store fails. What was changed until then is.
    pub async fn turn_back(&self) -> Result<usize, StoreError> {
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
