//! The fence in a PostgreSQL database: what makes it, passes it and raises it. `fence.sql` says
//! how.

use std::time::Duration;

use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection};
use tokio::time::timeout;
use uuid::Uuid;

use super::control::Control;
use super::{Connection, options};
use crate::interfaces::db::error::Failure;
use crate::interfaces::db::fence::Pass;
use crate::interfaces::db::{ErrorKind, error};

/// Makes the fence. It can be run again.
pub(in crate::interfaces::db) const MAKE: &str = include_str!("fence.sql");

/// SQLSTATE of a transaction that did not pass, in the class of nobody's.
pub(super) const FENCED_OFF: &str = "IK001";

/// How long raising may take, before it is tried again: it waits for commits that are under way,
/// which may wait for a standby.
const PATIENCE: Duration = Duration::from_secs(15);

/// Two hosts that make the fence at once would be in each other's way.
const ONE_AT_A_TIME: &str = "SELECT pg_catalog.pg_advisory_xact_lock(5282047563171623475); ";

/// In `pg_catalog` alone, since the plugin may have put names of its own before it.
const LOOK: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n \
                    ON n.oid OPERATOR(pg_catalog.=) p.pronamespace \
                    WHERE n.nspname OPERATOR(pg_catalog.=) 'innkeeper_fence' \
                    AND p.proname OPERATOR(pg_catalog.=) 'pass')";

/// Ends what an earlier attempt has left open: it can never commit, and the next attempt would wait
/// for its locks until the server gives it up as idle. `pg_catalog` is all that this connection
/// looks names up in. One that is active and has no transaction id has just committed, or reads.
const END_EARLIER: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                           WHERE datname = current_database() AND usename = session_user AND application_name = $1 \
                           AND (backend_xid IS NOT NULL OR state <> 'active')";

/// What the server processes of an execution with a fence are called, while they have a
/// transaction open. Names have 63 bytes.
pub(super) fn name_of(execution: Uuid) -> String {
    format!("innkeeper plugin {execution}")
}

/// The statement before COMMIT. What has changed nothing, and locked no row, has no transaction id
/// and passes without a look.
pub(super) fn statement(pass: Pass) -> String {
    let Pass { execution, lease } = pass;
    format!(
        "SELECT CASE WHEN pg_catalog.txid_current_if_assigned() IS NOT NULL \
         THEN innkeeper_fence.pass('{execution}', {lease}) END"
    )
}

/// True where the database has no fence, or only a part of one.
pub(in crate::interfaces::db) fn is_missing(failure: &Failure) -> bool {
    // invalid_schema_name, undefined_function, undefined_table
    matches!(failure.error.code.as_deref(), Some("3F000" | "42883" | "42P01"))
}

impl Connection {
    /// True where the database has a fence.
    pub(in crate::interfaces::db) async fn has_fence(&mut self) -> Result<bool, Failure> {
        Ok(sqlx::query_scalar(LOOK).persistent(false).fetch_one(&mut self.inner).await?)
    }
}

impl Control {
    /// Makes the fence, by this login.
    pub(in crate::interfaces::db) async fn make_fence(&self) -> Result<(), Failure> {
        self.on_fence(async |connection| {
            let sql = AssertSqlSafe(format!("{ONE_AT_A_TIME}{MAKE}"));
            sqlx::raw_sql(sql).execute(connection).await.map(drop)
        })
        .await
    }

    /// Raises the fence: what is of an earlier attempt can no longer commit when this returns.
    pub(in crate::interfaces::db) async fn raise_fence(&self, to: Pass) -> Result<(), Failure> {
        self.on_fence(async |connection| {
            let raise = "SELECT innkeeper_fence.raise($1, $2)";
            let raised = sqlx::query_scalar(raise).bind(to.execution).bind(to.lease);
            if !raised.fetch_one(&mut *connection).await? {
                return Ok(());
            }
            let end = sqlx::query(END_EARLIER).bind(name_of(to.execution)).execute(connection).await;
            // The fence is raised all the same, and the server ends them later.
            if let Err(error) = end {
                tracing::debug!(%error, "transactions of an earlier attempt were not ended");
            }
            Ok(())
        })
        .await
    }

    /// Does something on the connection that is kept for the fence. It does not count toward the
    /// pool, which executions that wait for a fence could use up.
    async fn on_fence(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<(), sqlx::Error>,
    ) -> Result<(), Failure> {
        let done = timeout(PATIENCE, async {
            let mut kept = self.fence.lock().await;
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => connect(self.url()).await?,
            };
            let done = work(&mut connection).await;
            // One that has died is replaced the next time.
            if !matches!(&done, Err(error) if error.as_database_error().is_none()) {
                *kept = Some(connection);
            }
            Ok::<_, Failure>(done?)
        });
        match done.await {
            Ok(done) => done,
            Err(_elapsed) => Err(error::new(ErrorKind::Timeout, "it does not answer").into()),
        }
    }
}

/// Every statement here is a transaction of its own, whatever the login is set to.
async fn connect(url: &str) -> Result<PgConnection, Failure> {
    let settings = [
        ("search_path", "pg_catalog"),
        ("default_transaction_isolation", "read committed"),
        ("default_transaction_read_only", "off"),
        ("lock_timeout", "10s"),
    ];
    Ok(options(url, "innkeeper fence")?.options(settings).connect().await?)
}
