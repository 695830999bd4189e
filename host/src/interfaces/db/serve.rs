//! The task that serves an open transaction: what a guest asks of it, in order.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::error::Failure;
use super::grant::{Bounds, Running};
use super::transaction::Transaction;
use super::work::{Output, Task};
use super::{Column, Error, Value};

/// Where an answer goes. Whether the guest still waits for it changes nothing.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// A task, and its parameters.
#[derive(Debug)]
pub(super) enum OwnedTask {
    Rows(Vec<Value>),
    Changes(Vec<Value>),
    Many(Vec<Vec<Value>>),
}

/// What a guest asks of its open transaction.
pub(super) enum Command {
    Run { sql: String, task: OwnedTask, running: Running, reply: Reply<Output> },
    OpenCursor { number: u64, sql: String, params: Vec<Value>, running: Running, reply: Reply<Vec<Column>> },
    Fetch { cursor: u64, limit: u32, running: Running, reply: Reply<Vec<Vec<Value>>> },
    CloseCursor { cursor: u64, reply: Reply<()> },
    Savepoint { reply: Reply<u32> },
    RollbackTo { savepoint: u32, reply: Reply<()> },
    Release { savepoint: u32, reply: Reply<()> },
    Commit { reply: Reply<()> },
    Rollback { reply: Reply<()> },
}

impl OwnedTask {
    pub(super) fn borrowed(&self, bounds: Bounds) -> Task<'_> {
        match self {
            Self::Rows(params) => Task::Rows(params, bounds),
            Self::Changes(params) => Task::Changes(params),
            Self::Many(params) => Task::Many(params),
        }
    }
}

/// Serves a transaction until it ends: by the guest's word, because nobody can ask any more,
/// or because the execution ends.
pub(super) async fn serve(mut transaction: Transaction, mut commands: mpsc::Receiver<Command>) {
    let caller = Arc::clone(transaction.caller());
    loop {
        let command = tokio::select! {
            biased;
            () = caller.closing.cancelled() => None,
            command = commands.recv() => command,
        };
        match command {
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
            Some(command) => carry_out(&mut transaction, command).await,
            None => break,
        }
    }
    if let Err(error) = transaction.rollback().await {
        tracing::warn!(%caller, error = error.message, "a transaction was left open, and its rollback is not confirmed");
    }
}

async fn carry_out(transaction: &mut Transaction, command: Command) {
    match command {
        Command::Run { sql, task, running, reply } => {
            let result = transaction.run(&sql, task.borrowed(transaction.bounds())).await;
            drop(running);
            answer(reply, result);
        }
        Command::OpenCursor { number, sql, params, running, reply } => {
            let opened = transaction.open_cursor(number, &sql, &params).await;
            drop(running);
            answer(reply, opened);
        }
        Command::Fetch { cursor, limit, running, reply } => {
            let rows = transaction.fetch(cursor, limit).await;
            drop(running);
            answer(reply, rows);
            transaction.read_ahead(cursor).await;
        }
        Command::CloseCursor { cursor, reply } => {
            transaction.close_cursor(cursor).await;
            answer(reply, Ok(()));
        }
        Command::Savepoint { reply } => answer(reply, transaction.savepoint().await),
        Command::RollbackTo { savepoint, reply } => answer(reply, transaction.rollback_to(savepoint).await),
        Command::Release { savepoint, reply } => answer(reply, transaction.release(savepoint).await),
        Command::Commit { .. } | Command::Rollback { .. } => {
            unreachable!("they end the transaction, and are matched before")
        }
    }
}

fn answer<T>(reply: Reply<T>, result: Result<T, Failure>) {
    let _gone = reply.send(result.map_err(|failure| failure.error));
}
