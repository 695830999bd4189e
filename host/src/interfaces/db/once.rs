//! One statement in a transaction of its own, which is over when the guest has its answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::caller::Caller;
use super::connection::{Connection, Ending, Term, supervise};
use super::error::Failure;
use super::grant::Grant;
use super::pool::{Database, Lease};
use super::statement::Dialect;
use super::transaction::Transaction;
use super::work::{Begin, Left, Output, Purpose, TIMEOUT_MARGIN, Task, Work};
use super::{ErrorKind, error, statement};

/// Runs one statement in a transaction of its own.
///
/// # Errors
/// As the WIT says. Nothing was changed then, unless the kind is `connection`.
pub(super) async fn run(
    database: &Arc<Database>,
    grant: &Arc<Grant>,
    caller: &Arc<Caller>,
    sql: &str,
    task: Task<'_>,
) -> Result<Output, Failure> {
    let what = statement::check(sql, database.dialect())?;
    match database.dialect() {
        Dialect::Postgres => step_by_step(database, grant, caller, &Work { sql, what, task }).await,
        Dialect::Sqlite => {
            let ran = in_one_go(database, grant, caller, &Work { sql, what, task }).await;
            ran.map_err(|failure| grant.explain(failure))
        }
    }
}

async fn step_by_step(
    database: &Arc<Database>,
    grant: &Arc<Grant>,
    caller: &Arc<Caller>,
    work: &Work<'_>,
) -> Result<Output, Failure> {
    let purpose = Purpose::Statement(work.what);
    let mut transaction = Transaction::begin(database, grant, caller, purpose).await?;
    match transaction.run(work.sql, work.task).await {
        Ok(output) => {
            transaction.commit().await?;
            Ok(output)
        }
        Err(failure) => {
            // The guest is told why the statement failed. That the connection is lost as well
            // is counted by the rollback.
            let _lost = transaction.rollback().await;
            Err(failure)
        }
    }
}

/// Begin, statement and commit are one question to the connection, which makes sure that nothing
/// is left open.
async fn in_one_go(
    database: &Arc<Database>,
    grant: &Arc<Grant>,
    caller: &Arc<Caller>,
    work: &Work<'_>,
) -> Result<Output, Failure> {
    let begin = Begin { purpose: Purpose::Statement(work.what), grant, caller };
    let mut lease = database.acquire(grant, caller).await?;
    let limit = grant.statement_timeout;
    let until = limit.and_then(|limit| Instant::now().checked_add(limit + TIMEOUT_MARGIN));
    let term = Term { closing: &caller.closing, grace: Duration::ZERO, until };
    let (connection, canceller) = lease.connection()?;
    let Connection::Sqlite(connection) = connection else {
        return Err(error::new(ErrorKind::Other, "this database takes its transactions step by step").into());
    };
    let ending = supervise(connection.once(&begin, work), &canceller, term).await;
    let (ran, may_commit) = (connection.ran(), connection.may_commit());
    let left_after_error = connection.left();
    if ran {
        caller.counts.transaction();
    }
    match ending {
        Ending::Done(Ok((output, left))) => {
            give_back(lease, left).await;
            Ok(output)
        }
        // It was committed before the word reached it.
        Ending::Stopped(Ok((output, _))) | Ending::Overdue(Ok((output, _))) => {
            lease.close().await;
            Ok(output)
        }
        Ending::Done(Err(failure)) => {
            count(caller, &failure, ran);
            give_back(lease, if failure.broken { Left::Something } else { left_after_error }).await;
            Err(failure)
        }
        Ending::Stopped(Err(failure)) => {
            count(caller, &failure, ran);
            lease.close().await;
            Err(error::execution_ended().into())
        }
        Ending::Overdue(Err(failure)) => {
            count(caller, &failure, ran);
            lease.close().await;
            Err(error::overdue(limit.unwrap_or_default()).into())
        }
        Ending::Silent => {
            // Hung up on: its thread rolls back as soon as it can.
            drop(lease);
            caller.unconfirmed.fetch_add(1, Ordering::Relaxed);
            Err(match (may_commit, caller.closing.is_cancelled()) {
                (true, _) => error::in_doubt("the database did not answer"),
                (false, true) => error::execution_ended(),
                (false, false) => error::overdue(limit.unwrap_or_default()),
            }
            .into())
        }
    }
}

/// What was rolled back, or is not known to be, because its execution has ended.
fn count(caller: &Caller, failure: &Failure, ran: bool) {
    if ran && caller.closing.is_cancelled() {
        let count = if failure.broken { &caller.unconfirmed } else { &caller.rolled_back };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

async fn give_back(lease: Lease, left: Left) {
    match left {
        Left::Nothing => lease.release().await,
        Left::Something => lease.close().await,
    }
}
