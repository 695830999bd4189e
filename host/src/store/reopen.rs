//! What waits is looked at again, since its job is not what it was.

use super::StoreError;
use super::connection::Store;
use super::phase::{EngineTx, PhaseName};
use super::row::{json_text, on_engine};
use super::{postgres, sqlite};

/// Marks all that waits of these jobs: their limits are other ones now.
pub(super) async fn open_gates_of_jobs(store: &Store, ids: &[i32]) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut phase = store.begin(PhaseName::Jobs).await?;
    let tx = phase.tx();
    let now = tx.now;
    match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query(postgres::REOPEN_GATES).bind(now).bind(ids).execute(&mut **conn).await?;
        }
        EngineTx::Sqlite(conn) => {
            sqlx::query(sqlite::REOPEN_GATES).bind(now).bind(json_text(&ids)?).execute(&mut **conn).await?;
        }
    }
    phase.commit().await
}

impl Store {
    /// Marks all that waits for permits or for other jobs, so that somebody looks at it. Some marks are
    /// set in a transaction after the one that gave the reason, and a host may die between the two:
    /// this is done when a host starts, and from time to time.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn look_at_all_that_waits(&self) -> Result<(), StoreError> {
        let mut phase = self.begin(PhaseName::Plan).await?;
        let tx = phase.tx();
        let now = tx.now;
        on_engine!(tx, sql, conn => { sqlx::query(sql::REOPEN_ALL_GATES).bind(now).execute(conn).await?; });
        phase.commit().await
    }
}
