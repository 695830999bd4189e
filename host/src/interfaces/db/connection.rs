//! A connection of either engine, and how what runs on it is stopped.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::error::Failure;
use super::postgres::{self, Control, Signal};
use super::session::Caller;
use super::sqlite::{self, Access, Writer};
use super::statement::Statement;
use super::{BeginOptions, RowSet, Value};

/// How long each step of stopping waits for an answer: the cancel request, the termination of
/// the server process, the rollback, the closing of the connection. Together they stay within
/// the five seconds that the end of an execution may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// One connection.
pub(super) enum Connection {
    Postgres(postgres::Connection),
    Sqlite(sqlite::Connection),
}

/// What is wanted of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Its rows, up to this many bytes.
    Rows(u64),
    Changes,
}

/// What a statement has brought.
#[derive(Debug)]
pub(super) enum Output {
    Rows(RowSet),
    Changed(u64),
}

/// The transaction to begin.
pub(super) enum Begin<'a> {
    /// That of one statement.
    Statement(&'a str, Statement),
    /// One of the guest's.
    Transaction(&'a BeginOptions),
}

impl Connection {
    pub(super) async fn begin(&mut self, begin: &Begin<'_>, caller: &Caller) -> Result<(), Failure> {
        let writer = || Writer { session: caller.session, owner: caller.to_string() };
        match (self, begin) {
            (Self::Postgres(connection), Begin::Statement(..)) => connection.begin(None, false).await,
            (Self::Postgres(connection), Begin::Transaction(options)) => {
                connection.begin(options.isolation, options.read_only).await
            }
            (Self::Sqlite(connection), Begin::Statement(sql, what)) => {
                connection.begin_for(sql, *what, writer(), &caller.closing).await
            }
            (Self::Sqlite(connection), Begin::Transaction(options)) => {
                let access = if options.read_only { Access::Read } else { Access::Write(writer()) };
                connection.begin(access, &caller.closing).await
            }
        }
    }

    pub(super) async fn run(
        &mut self,
        sql: &str,
        what: Statement,
        params: &[Value],
        want: Want,
    ) -> Result<Output, Failure> {
        match self {
            Self::Postgres(connection) => connection.run(sql, what, params, want).await,
            Self::Sqlite(connection) => connection.run(sql, what, params, want).await,
        }
    }

    pub(super) async fn commit(&mut self) -> Result<(), Failure> {
        match self {
            Self::Postgres(connection) => connection.commit().await,
            Self::Sqlite(connection) => connection.commit().await,
        }
    }

    pub(super) async fn rollback(&mut self) -> Result<(), Failure> {
        match self {
            Self::Postgres(connection) => connection.rollback().await,
            Self::Sqlite(connection) => connection.rollback().await,
        }
    }

    /// Undoes what a session keeps beyond its transactions: settings, temporary tables, locks.
    /// False where that did not succeed, in time.
    pub(super) async fn reset(&mut self) -> bool {
        match self {
            Self::Postgres(connection) => matches!(timeout(PATIENCE, connection.reset()).await, Ok(Ok(()))),
            Self::Sqlite(connection) => connection.is_as_new(),
        }
    }

    /// Closes in good order, or hangs up when that takes too long.
    pub(super) async fn close(self) {
        let closing = async {
            match self {
                Self::Postgres(connection) => connection.close().await,
                Self::Sqlite(connection) => connection.close().await,
            }
        };
        if let Ok(Err(failure)) = timeout(PATIENCE, closing).await {
            tracing::debug!(error = failure.error.message, "a connection did not close in good order");
        }
    }
}

/// What stops the statement that runs on a connection. The connection must not be used for
/// anything but a rollback afterwards.
#[derive(Clone)]
pub(super) enum Canceller {
    Postgres(Arc<Control>, i32),
    Sqlite(Arc<AtomicBool>),
}

impl Canceller {
    /// In a task of its own, so that the control connection is never left in mid-protocol.
    fn send(&self, signal: Signal) -> JoinHandle<bool> {
        match self.clone() {
            Self::Postgres(control, pid) => tokio::spawn(async move { control.signal(signal, pid).await }),
            Self::Sqlite(flag) => {
                flag.store(true, Ordering::Relaxed);
                tokio::spawn(async { true })
            }
        }
    }

    /// Stops a statement whose rows nobody reads any more. False where that could not be done
    /// in time.
    pub(super) async fn stop(&self) -> bool {
        matches!(timeout(PATIENCE, self.send(Signal::Cancel)).await, Ok(Ok(true)))
    }
}

/// How a piece of work on a connection ended.
pub(super) enum Ending<T> {
    /// By itself.
    Done(T),
    /// It was told to stop, and then answered.
    Stopped(T),
    /// It was told to stop, and did not answer. Nobody knows what the connection is doing.
    Silent,
}

/// Waits for `work`. When `closing` is cancelled, the work has `grace` left, and is stopped
/// then: at first its statement, and if that does not help, the server process.
pub(super) async fn supervise<T>(
    work: impl Future<Output = T>,
    canceller: &Canceller,
    closing: &CancellationToken,
    grace: Duration,
) -> Ending<T> {
    let mut work = pin!(work);
    let time_is_up = async {
        closing.cancelled().await;
        sleep(grace).await;
    };
    tokio::select! {
        biased;
        result = &mut work => return Ending::Done(result),
        () = time_is_up => {}
    }
    for signal in [Signal::Cancel, Signal::Terminate] {
        let sent = canceller.send(signal);
        let until = Instant::now() + PATIENCE;
        tokio::select! {
            biased;
            result = &mut work => {
                // A request still under way must not hit the rollback that follows.
                let _sent = timeout(PATIENCE, sent).await;
                return Ending::Stopped(result);
            }
            () = sleep_until(until) => {}
        }
    }
    Ending::Silent
}
