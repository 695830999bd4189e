//! The host's own records: jobs, executions, starts, completions, host sessions.
//!
//! Two engines behind one type: [`Store`] is on SQLite or on PostgreSQL, with SQL written for
//! each in `postgres` and `sqlite` (the same constants in the same order) and the decisions
//! made here, once, in Rust.
//!
//! A transaction of the store is a [`Phase`]. Functions that make up part of one take its
//! [`PhaseTx`], which cannot commit; only the phase can.
//!
//! ```
//! # use innkeeper::store::{Phase, PhaseTx, SessionId, Store, StoreError};
//! async fn part(tx: &mut PhaseTx, session: SessionId) -> Result<(), StoreError> {
//!     tx.start(session, 10).await.map(drop)
//! }
//! async fn whole(mut phase: Phase, session: SessionId) -> Result<(), StoreError> {
//!     part(phase.tx(), session).await?;
//!     phase.commit().await
//! }
//! ```
//!
//! The same with a part that commits does not compile:
//!
//! ```compile_fail
//! # use innkeeper::store::{Phase, PhaseTx, SessionId, Store, StoreError};
//! async fn part(tx: &mut PhaseTx, session: SessionId) -> Result<(), StoreError> {
//!     tx.start(session, 10).await.map(drop)?;
//!     tx.commit().await
//! }
//! async fn whole(mut phase: Phase, session: SessionId) -> Result<(), StoreError> {
//!     part(phase.tx(), session).await?;
//!     phase.commit().await
//! }
//! ```
//!
//! What holds, and how:
//! - START and COMPLETION share-lock the row of their live host session, the rescuer locks it
//!   exclusively before it marks it dead and ends its open starts. So neither misses the other.
//! - A lease is the number of one START and never used again. A completion, log line, progress,
//!   checkpoint or enqueued execution under a lease that has ended changes nothing and is put
//!   on record in `stale`.
//! - Due times and expiry are by the database's clock (on SQLite, which has no host of its own,
//!   by this machine's). Tests bring their own, see [`Store::with_clock`].

mod admission;
mod attempts;
mod backfill;
mod backup;
mod blocked;
mod cancel;
mod completion;
mod connection;
mod define;
mod definition;
mod dependency;
mod effects;
mod enqueue;
mod error;
mod explain;
mod follow;
mod gate;
mod handler;
mod host;
mod migrate;
mod pause;
mod permit;
mod phase;
mod place;
mod plan;
mod pool;
mod pooler;
mod postgres;
mod promote;
mod prune;
mod queue;
mod rate;
mod read;
mod reload;
mod reopen;
mod repeat;
mod rescue;
mod rollback;
mod row;
mod session;
mod skip;
mod sqlite;
mod start;
mod sync;
mod time;
mod turn_back;
mod unstarted;
mod wake;

use crate::database_url::DatabaseUrl;

pub use admission::Admitted;
pub use attempts::{AttemptOutcome, AttemptRecord};
pub use backfill::{BackfillFate, MOST_BACKFILLED};
pub use backup::{Backup, BackupError, backup};
pub use cancel::{CancelRequest, CancelResult};
pub use completion::Recording;
pub use connection::{Store, StoreOptions};
pub use define::{DefineError, Defined, Definitions, PluginDefinition};
pub use definition::{JobRecord, LastExecution, PluginRecord};
pub use enqueue::{Enqueued, NewExecution};
pub use error::StoreError;
pub use explain::{
    JobLook, KeyLook, PermitHolder, PermitHolders, QueueLook, RateLook, Upstream, WaitingLook,
};
pub use handler::{Holder, LogPosition, LogRecord};
pub use host::{HostFilter, HostRecord, HostState, RunningExecution};
pub use migrate::{AppliedMigration, Migration, MigrationReport};
pub use pause::Resumed;
pub use phase::{Phase, PhaseName, PhaseTx};
pub use plan::{FiredExecution, Planned};
pub use pooler::Pooler;
pub use prune::{JobHistory, Pruned};
pub use queue::{QueueId, QueueRecord};
pub use read::{Blocker, ExecutionFilter, ExecutionRecord};
pub use reload::{ReloadAsked, ReloadRequest, ReloadWish};
pub use repeat::Repeated;
pub use rescue::RescuedExecution;
pub use rollback::{PluginVersion, Rollback, VERSIONS_KEPT};
pub use session::{Heartbeat, NewSession, SessionId};
pub use start::{Claim, PluginRoom, Started};
pub use sync::JobSync;
pub use time::StoreClock;
pub use tracing::Level;
pub use wake::WakeUps;

/// The migrations of an engine, in order.
#[doc(hidden)]
#[must_use]
pub fn migrations(url: &DatabaseUrl) -> &'static [Migration] {
    match url {
        DatabaseUrl::Postgres(_) => migrate::POSTGRES,
        DatabaseUrl::Sqlite(_) => migrate::SQLITE,
    }
}

/// The statements of an engine by their names, so that a test can have each prepared.
#[doc(hidden)]
#[must_use]
pub fn statements(url: &DatabaseUrl) -> Vec<(&'static str, &'static str)> {
    match url {
        DatabaseUrl::Postgres(_) => postgres::statements(),
        DatabaseUrl::Sqlite(_) => sqlite::statements(),
    }
}
