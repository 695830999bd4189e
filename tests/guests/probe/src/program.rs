//! Small programs against the database.

mod step;

use std::mem;
use std::thread;
use std::time::Duration;

use innkeeper_sdk::db::Isolation;
use innkeeper_sdk::{Context, Failure, handler};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use self::step::Open;
pub(crate) use self::step::describe;
use crate::basics::{fill, spin_for_ever};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Program {
    steps: Vec<Step>,
    #[serde(default)]
    then: Then,
    /// For `then`: what to panic or fail with.
    #[serde(default)]
    message: String,
    /// For `then = "sleep"`.
    #[serde(default)]
    ms: u64,
    /// For `then = "allocate"`.
    #[serde(default)]
    mib: usize,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    op: Op,
    /// The transaction, by a number of the test's choice.
    #[serde(default)]
    tx: u32,
    #[serde(default)]
    sql: String,
    /// As in the module `values`.
    #[serde(default)]
    params: Vec<Json>,
    /// For `execute-many` and `tx-execute-many`: the parameters of each run.
    #[serde(default)]
    lists: Vec<Vec<Json>>,
    /// The cursor, by a number of the test's choice.
    #[serde(default)]
    cursor: u32,
    /// For `fetch`.
    #[serde(default)]
    limit: u32,
    /// For `rollback-to` and `release`: the number that `savepoint` has returned.
    #[serde(default)]
    savepoint: u32,
    /// An error of this step fails the handler.
    #[serde(default)]
    must: bool,
    /// For `begin`.
    database: Option<String>,
    /// For `begin`.
    #[serde(default)]
    read_only: bool,
    /// For `begin`.
    isolation: Option<IsolationLevel>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Op {
    /// In a transaction of its own.
    Query,
    /// In a transaction of its own.
    Execute,
    /// In a transaction of its own.
    ExecuteMany,
    Begin,
    TxQuery,
    TxExecute,
    TxExecuteMany,
    OpenCursor,
    Fetch,
    /// Of a cursor.
    Columns,
    /// Drops the handle.
    DropCursor,
    /// Loses the handle without dropping it.
    ForgetCursor,
    Savepoint,
    RollbackTo,
    Release,
    /// The handle is kept: a later step of this transaction sees what the host says to that.
    Commit,
    /// As `commit`.
    Rollback,
    /// Drops the handle.
    Drop,
    /// Loses the handle without dropping it.
    Forget,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum IsolationLevel {
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

impl From<IsolationLevel> for Isolation {
    fn from(level: IsolationLevel) -> Self {
        match level {
            IsolationLevel::ReadCommitted => Self::ReadCommitted,
            IsolationLevel::RepeatableRead => Self::RepeatableRead,
            IsolationLevel::Serializable => Self::Serializable,
        }
    }
}

/// What to do when all the steps are done, with what is still open.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Then {
    /// Returns; open transactions are dropped, and then open cursors.
    #[default]
    Return,
    /// Returns, and loses the handles of open transactions and cursors without dropping them.
    Leak,
    /// Fails retryably; open transactions are dropped.
    Fail,
    /// Fails permanently; open transactions are dropped.
    FailPermanently,
    Panic,
    Spin,
    Sleep,
    Allocate,
}

/// Runs `{steps: [{op, tx, sql, params, lists, cursor, limit, savepoint, must, database, read_only,
/// isolation}], then}` and returns a list with one result for each step.
///
/// A result is `{"rows": [[…]], "columns": [{name, type}]}`, of `fetch` without and of `columns`
/// without rows, `{"changed": n}`, `{"savepoint": n}`, `{"ok": true}` or
/// `{"error": {kind, message, code, detail, hint, constraint, position}}`. `then` is what to do
/// after the last step: `return`, `leak`, `fail`, `fail-permanently` and `panic` (both with
/// `message`), `spin`, `sleep` (`ms`), or `allocate` (`mib`).
#[handler]
pub(crate) fn sql(_ctx: &Context, program: Program) -> Result<Vec<Json>, Failure> {
    let mut open = Open::default();
    let mut results = Vec::new();
    for (number, step) in program.steps.into_iter().enumerate() {
        let must = step.must;
        let result = open.run(step)?;
        if must && let Err(error) = result {
            let failure = Failure::from(error);
            let message = format!("step {number}: {failure}");
            return Err(match failure {
                Failure::Permanent(_) => Failure::Permanent(message),
                _ => Failure::Retryable(message),
            });
        }
        results.push(result.unwrap_or_else(|error| json!({ "error": describe(&error) })));
    }
    match program.then {
        Then::Return => {}
        Then::Leak => mem::forget(open),
        Then::Fail => return Err(Failure::retryable(program.message)),
        Then::FailPermanently => return Err(Failure::permanent(program.message)),
        Then::Panic => panic!("{}", program.message),
        Then::Spin => spin_for_ever(),
        Then::Sleep => thread::sleep(Duration::from_millis(program.ms)),
        Then::Allocate => drop(fill(program.mib)),
    }
    Ok(results)
}
