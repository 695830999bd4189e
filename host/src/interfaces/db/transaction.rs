//! One transaction, from its begin to its end, on a connection that it has to itself.
//!
//! It runs in a task of its own, never in the guest's future: what is awaited here is always
//! awaited to its end, or the connection is closed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::connection::{Begin, Ending, Output, PATIENCE, Want, supervise};
use super::error::Failure;
use super::pool::{Database, Lease};
use super::session::Caller;
use super::{Error, ErrorKind, Value, error, statement};

/// How long a rollback may take while the execution goes on: SQLite undoes on disk what it
/// has spilled there.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(60);

/// An open transaction.
pub(super) struct Transaction {
    lease: Lease,
    caller: Arc<Caller>,
    condition: Condition,
    /// The first error of a statement: nothing but a rollback is left.
    failed: Option<String>,
}

/// What may still be done with the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// Everything.
    Sound,
    /// A rollback. It is closed then, because a cancel request may still be on its way.
    Stopped,
    /// Nothing; the database has said that it ended the transaction and the connection.
    Ended,
    /// Nothing; it is lost, or nobody knows what it is doing.
    Lost,
}

impl Transaction {
    /// Takes a connection and begins. A connection that was kept and has died since is
    /// replaced.
    pub(super) async fn begin(
        database: &Arc<Database>,
        caller: &Arc<Caller>,
        begin: &Begin<'_>,
    ) -> Result<Self, Failure> {
        loop {
            let mut lease = database.acquire(caller).await?;
            let reused = lease.reused;
            let (connection, canceller) = lease.connection()?;
            let work = connection.begin(begin, caller);
            match supervise(work, &canceller, &caller.closing, Duration::ZERO).await {
                Ending::Done(Ok(())) => {
                    let caller = Arc::clone(caller);
                    return Ok(Self { lease, caller, condition: Condition::Sound, failed: None });
                }
                Ending::Done(Err(failure)) if failure.broken => {
                    lease.close().await;
                    if !reused {
                        return Err(failure);
                    }
                }
                Ending::Done(Err(failure)) => {
                    lease.release().await;
                    return Err(failure);
                }
                Ending::Stopped(_) => {
                    lease.close().await;
                    return Err(error::execution_ended().into());
                }
                Ending::Silent => return Err(error::execution_ended().into()),
            }
        }
    }

    /// Runs one statement. An error of any kind fails the transaction.
    pub(super) async fn run(&mut self, sql: &str, params: &[Value], want: Want) -> Result<Output, Failure> {
        let result = self.try_run(sql, params, want).await;
        if let Err(failure) = &result {
            self.failed.get_or_insert_with(|| {
                let mut first = failure.error.message.clone();
                error::cut_text(&mut first, 1_000);
                first
            });
        }
        result
    }

    async fn try_run(&mut self, sql: &str, params: &[Value], want: Want) -> Result<Output, Failure> {
        if let Some(first) = &self.failed {
            return Err(has_failed(first).into());
        }
        if self.caller.closing.is_cancelled() {
            return Err(error::execution_ended().into());
        }
        let what = statement::check(sql, self.lease.dialect())?;
        let (connection, canceller) = self.lease.connection()?;
        let work = connection.run(sql, what, params, want);
        match supervise(work, &canceller, &self.caller.closing, Duration::ZERO).await {
            Ending::Done(result) => {
                if let Err(failure) = &result {
                    if failure.broken {
                        self.condition = Condition::Lost;
                    } else if failure.cut_short {
                        // Hung up on where it cannot be stopped: the rest may be endless.
                        let stopped = canceller.stop().await;
                        self.condition = if stopped { Condition::Stopped } else { Condition::Lost };
                    }
                }
                result
            }
            Ending::Stopped(result) => {
                self.condition = after_stop(&result);
                Err(error::execution_ended().into())
            }
            Ending::Silent => {
                self.condition = Condition::Lost;
                Err(error::execution_ended().into())
            }
        }
    }

    /// Commits. Only `Ok` means that it is committed; with the kind `connection` nobody knows,
    /// and with any other it is rolled back.
    pub(super) async fn commit(mut self) -> Result<(), Error> {
        if let Some(first) = self.failed.take() {
            self.rollback().await?;
            return Err(Error {
                hint: Some("end it with `rollback`, or stop at the first error".to_owned()),
                ..error::new(
                    ErrorKind::Statement,
                    format!(
                        "nothing was committed: a statement of the transaction had failed ({first}), and so \
                         it was rolled back"
                    ),
                )
            });
        }
        if self.caller.closing.is_cancelled() {
            self.rollback().await?;
            return Err(error::execution_ended());
        }
        let (connection, canceller) = self.lease.connection()?;
        // A commit that is under way gets some time to come through.
        match supervise(connection.commit(), &canceller, &self.caller.closing, PATIENCE).await {
            Ending::Done(Ok(())) => {
                self.lease.release().await;
                Ok(())
            }
            Ending::Stopped(Ok(())) => {
                self.lease.close().await;
                Ok(())
            }
            Ending::Done(Err(failure)) if !failure.broken => {
                self.rollback().await?;
                Err(failure.error)
            }
            Ending::Stopped(Err(failure)) if !failure.broken => {
                self.condition = Condition::Stopped;
                self.rollback().await?;
                Err(failure.error)
            }
            Ending::Done(Err(failure)) | Ending::Stopped(Err(failure)) => {
                self.caller.unconfirmed.fetch_add(1, Ordering::Relaxed);
                Err(in_doubt(&failure.error.message))
            }
            Ending::Silent => {
                self.caller.unconfirmed.fetch_add(1, Ordering::Relaxed);
                Err(in_doubt("the database did not answer"))
            }
        }
    }

    /// Rolls back, and gives the connection back or closes it.
    pub(super) async fn rollback(mut self) -> Result<(), Error> {
        let ending = self.caller.closing.is_cancelled();
        let rolled_back = match self.condition {
            Condition::Lost => Err(error::new(ErrorKind::Connection, "the connection was lost")),
            Condition::Ended => Ok(()),
            Condition::Sound | Condition::Stopped => {
                let limit = if ending { PATIENCE } else { ROLLBACK_TIMEOUT };
                let (connection, _) = self.lease.connection()?;
                match timeout(limit, connection.rollback()).await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(failure)) => Err(failure.error),
                    Err(_elapsed) => Err(error::new(ErrorKind::Connection, "the database did not answer")),
                }
            }
        };
        let count = if rolled_back.is_ok() { &self.caller.rolled_back } else { &self.caller.unconfirmed };
        if ending {
            count.fetch_add(1, Ordering::Relaxed);
        }
        match (&rolled_back, self.condition) {
            (Ok(()), Condition::Sound) => self.lease.release().await,
            (Ok(()), _) => self.lease.close().await,
            // Hung up on, so that the database rolls back as soon as it notices.
            (Err(_), _) => drop(self.lease),
        }
        rolled_back
    }
}

/// A connection whose statement was stopped: the server may have ended it altogether.
fn after_stop<T>(result: &Result<T, Failure>) -> Condition {
    match result {
        Err(failure) if failure.broken && failure.error.code.is_some() => Condition::Ended,
        Err(failure) if failure.broken => Condition::Lost,
        _ => Condition::Stopped,
    }
}

fn has_failed(first: &str) -> Error {
    let message =
        format!("the transaction has failed and can only be rolled back; its first error was: {first}");
    error::new(ErrorKind::Statement, message)
}

fn in_doubt(why: &str) -> Error {
    let message =
        format!("the connection was lost during the commit, and whether it took effect is not known: {why}");
    error::new(ErrorKind::Connection, message)
}

/// What a guest asks of its open transaction.
pub(super) enum Command {
    Run { sql: String, params: Vec<Value>, want: Want, reply: oneshot::Sender<Result<Output, Error>> },
    Commit { reply: oneshot::Sender<Result<(), Error>> },
    Rollback { reply: oneshot::Sender<Result<(), Error>> },
}

/// Serves a transaction until it ends: by the guest's word, because nobody can ask any more,
/// or because the execution ends. Whether the guest still waits for an answer changes nothing.
pub(super) async fn serve(mut transaction: Transaction, mut commands: mpsc::Receiver<Command>) {
    let caller = Arc::clone(&transaction.caller);
    loop {
        let command = tokio::select! {
            biased;
            () = caller.closing.cancelled() => None,
            command = commands.recv() => command,
        };
        match command {
            Some(Command::Run { sql, params, want, reply }) => {
                let result = transaction.run(&sql, &params, want).await;
                let _gone = reply.send(result.map_err(|failure| failure.error));
            }
            Some(Command::Commit { reply }) => {
                // The connection is back before the guest goes on.
                let result = transaction.commit().await;
                let _gone = reply.send(result);
                return;
            }
            Some(Command::Rollback { reply }) => {
                let result = transaction.rollback().await;
                let _gone = reply.send(result);
                return;
            }
            None => break,
        }
    }
    if let Err(error) = transaction.rollback().await {
        tracing::warn!(%caller, error = error.message, "a transaction was left open, and its rollback is not confirmed");
    }
}
