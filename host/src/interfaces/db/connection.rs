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
use super::grant::Bounds;
use super::postgres::{self, Control, Signal};
use super::sqlite;
use super::work::{Begin, Left, Output, Work};
use super::{Column, Value};

/// How long each step of stopping waits for an answer: the cancel request, the termination of
/// the server process, the rollback, the closing of the connection. Together they stay within
/// the five seconds that the end of an execution may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// One connection.
pub(super) enum Connection {
    Postgres(postgres::Connection),
    Sqlite(sqlite::Connection),
}

/// Calls the method of the same name of the engine's own connection.
macro_rules! on_engine {
    ($connection:expr, $method:ident($($argument:expr),*)) => {
        match $connection {
            Connection::Postgres(connection) => connection.$method($($argument),*).await,
            Connection::Sqlite(connection) => connection.$method($($argument),*).await,
        }
    };
}

impl Connection {
    /// Begins a transaction.
    pub(super) async fn begin(&mut self, begin: &Begin<'_>) -> Result<(), Failure> {
        on_engine!(self, begin(begin))
    }

    /// Runs a statement.
    pub(super) async fn run(&mut self, work: &Work<'_>) -> Result<Output, Failure> {
        on_engine!(self, run(work))
    }

    /// Opens a cursor by a number that the transaction has not used before.
    pub(super) async fn open_cursor(&mut self, number: u64, work: &Work<'_>) -> Result<Vec<Column>, Failure> {
        on_engine!(self, open_cursor(number, work))
    }

    /// At most `limit` further rows of a cursor, and no more than `bounds`; fewer only where
    /// they are large, none only at the end.
    pub(super) async fn fetch(
        &mut self,
        number: u64,
        limit: u32,
        bounds: Bounds,
    ) -> Result<Vec<Vec<Value>>, Failure> {
        on_engine!(self, fetch(number, limit, bounds))
    }

    /// Reads on in a cursor, as far as the engine gains by it, before the next rows are asked for.
    pub(super) async fn read_ahead(&mut self, number: u64, bounds: Bounds) -> Result<(), Failure> {
        match self {
            Self::Postgres(connection) => connection.read_ahead(number, bounds).await,
            Self::Sqlite(_) => Ok(()),
        }
    }

    /// Closes a cursor of a transaction that has not failed.
    pub(super) async fn close_cursor(&mut self, number: u64) -> Result<(), Failure> {
        on_engine!(self, close_cursor(number))
    }

    /// Marks a place to roll back to, by a number that the transaction has not used before.
    pub(super) async fn savepoint(&mut self, number: u32) -> Result<(), Failure> {
        on_engine!(self, savepoint(number))
    }

    /// Undoes what was done since, also after a statement that failed.
    pub(super) async fn rollback_to(&mut self, number: u32) -> Result<(), Failure> {
        on_engine!(self, rollback_to(number))
    }

    /// Forgets the savepoint, and keeps what was done since.
    pub(super) async fn release(&mut self, number: u32) -> Result<(), Failure> {
        on_engine!(self, release(number))
    }

    /// True where the database has ended the transaction by itself, so that not even a savepoint
    /// is left to roll back to. PostgreSQL never does without closing the connection.
    pub(super) fn has_rolled_back(&self) -> bool {
        match self {
            Self::Postgres(_) => false,
            Self::Sqlite(connection) => connection.has_rolled_back(),
        }
    }

    /// Commits. Only `Ok` says that it is committed.
    pub(super) async fn commit(&mut self) -> Result<Left, Failure> {
        on_engine!(self, commit())
    }

    /// Rolls back. `Ok` also where the database has done so by itself.
    pub(super) async fn rollback(&mut self) -> Result<Left, Failure> {
        on_engine!(self, rollback())
    }

    /// Closes in good order, or hangs up when that takes too long.
    pub(super) async fn close(self) {
        let closing = async { on_engine!(self, close()) };
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
                flag.store(true, Ordering::SeqCst);
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

/// Until when a piece of work may go on.
#[derive(Clone, Copy)]
pub(super) struct Term<'a> {
    /// Cancelled when the execution ends.
    pub(super) closing: &'a CancellationToken,
    /// How long the work may still go on then.
    pub(super) grace: Duration,
    /// When its own time is over, if it has one.
    pub(super) until: Option<Instant>,
}

/// How a piece of work on a connection ended.
pub(super) enum Ending<T> {
    /// By itself.
    Done(T),
    /// It was told to stop because the execution ends, and then answered.
    Stopped(T),
    /// It was told to stop because its own time was over, and then answered.
    Overdue(T),
    /// It was told to stop, and did not answer. Nobody knows what the connection is doing.
    Silent,
}

/// Waits for `work`. When its term is over it is stopped: at first its statement, and if that
/// does not help, the server process.
pub(super) async fn supervise<T>(
    work: impl Future<Output = T>,
    canceller: &Canceller,
    term: Term<'_>,
) -> Ending<T> {
    let mut work = pin!(work);
    let ended = async {
        term.closing.cancelled().await;
        sleep(term.grace).await;
    };
    let own_time = async {
        match term.until {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
    };
    let overdue = tokio::select! {
        biased;
        result = &mut work => return Ending::Done(result),
        () = ended => false,
        () = own_time => true,
    };
    for signal in [Signal::Cancel, Signal::Terminate] {
        let sent = canceller.send(signal);
        let until = Instant::now() + PATIENCE;
        tokio::select! {
            biased;
            result = &mut work => {
                // A request still under way must not hit the rollback that follows.
                let _sent = timeout(PATIENCE, sent).await;
                return if overdue { Ending::Overdue(result) } else { Ending::Stopped(result) };
            }
            () = sleep_until(until) => {}
        }
    }
    Ending::Silent
}
