//! Small programs against the database.

use std::collections::BTreeMap;
use std::mem;
use std::thread;
use std::time::Duration;

use innkeeper_sdk::__private::bindings::innkeeper::plugin::db as wit;
use innkeeper_sdk::db::{self, Error, ErrorKind, Isolation, Value};
use innkeeper_sdk::{Context, Failure, handler, params};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::basics::{fill, spin_for_ever};
use crate::values;

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
    Begin,
    TxQuery,
    TxExecute,
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
enum IsolationLevel {
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

/// What to do when all the steps are done, with the transactions that are still open.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Then {
    /// Returns; open transactions are dropped.
    #[default]
    Return,
    /// Returns, and loses the handles of open transactions without dropping them.
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

type Transactions = BTreeMap<u32, wit::Transaction>;

/// Runs `{steps: [{op, tx, sql, params, must, database, read_only, isolation}], then}` and
/// returns a list with one result for each step.
///
/// A result is `{"rows": [[…]], "columns": [{name, type}]}`, `{"changed": n}`, `{"ok": true}` or
/// `{"error": {kind, message, code, detail, hint, constraint, position}}`. `then` is what to do
/// after the last step: `return`, `leak`, `fail`, `fail-permanently` and `panic` (both with
/// `message`), `spin`, `sleep` (`ms`), or `allocate` (`mib`).
#[handler]
pub(crate) fn sql(_ctx: &Context, program: Program) -> Result<Vec<Json>, Failure> {
    let mut transactions = Transactions::new();
    let mut results = Vec::new();
    for (number, step) in program.steps.into_iter().enumerate() {
        let must = step.must;
        let result = run(step, &mut transactions)?;
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
        Then::Leak => mem::forget(transactions),
        Then::Fail => return Err(Failure::retryable(program.message)),
        Then::FailPermanently => return Err(Failure::permanent(program.message)),
        Then::Panic => panic!("{}", program.message),
        Then::Spin => spin_for_ever(),
        Then::Sleep => thread::sleep(Duration::from_millis(program.ms)),
        Then::Allocate => drop(fill(program.mib)),
    }
    Ok(results)
}

/// The outer error is a mistake of the test, the inner one the database's answer.
fn run(step: Step, transactions: &mut Transactions) -> Result<Result<Json, Error>, Failure> {
    let params: Vec<Value> = step
        .params
        .into_iter()
        .map(values::from_json)
        .collect::<Result<_, _>>()
        .map_err(Failure::permanent)?;
    if matches!(step.op, Op::Begin) {
        let options = wit::BeginOptions {
            database: step.database,
            isolation: step.isolation.map(isolation),
            read_only: step.read_only,
        };
        return Ok(match wit::begin(&options) {
            Ok(transaction) => {
                transactions.insert(step.tx, transaction);
                Ok(json!({ "ok": true }))
            }
            Err(error) => Err(error.into()),
        });
    }
    if matches!(step.op, Op::Query | Op::Execute) {
        return Ok(match step.op {
            Op::Query => wit::query(&step.sql, &params).map(rows).map_err(Error::from),
            _ => wit::execute(&step.sql, &params).map(changed).map_err(Error::from),
        });
    }
    let missing = || Failure::permanent(format!("transaction {} is not open", step.tx));
    if matches!(step.op, Op::Drop | Op::Forget) {
        let transaction = transactions.remove(&step.tx).ok_or_else(missing)?;
        match step.op {
            Op::Drop => drop(transaction),
            _ => mem::forget(transaction),
        }
        return Ok(Ok(json!({ "ok": true })));
    }
    let transaction = transactions.get(&step.tx).ok_or_else(missing)?;
    let result = match step.op {
        Op::TxQuery => transaction.query(&step.sql, &params).map(rows),
        Op::TxExecute => transaction.execute(&step.sql, &params).map(changed),
        Op::Commit => transaction.commit().map(|()| json!({ "ok": true })),
        _ => transaction.rollback().map(|()| json!({ "ok": true })),
    };
    Ok(result.map_err(Error::from))
}

fn isolation(level: IsolationLevel) -> Isolation {
    match level {
        IsolationLevel::ReadCommitted => Isolation::ReadCommitted,
        IsolationLevel::RepeatableRead => Isolation::RepeatableRead,
        IsolationLevel::Serializable => Isolation::Serializable,
    }
}

fn changed(rows: u64) -> Json {
    json!({ "changed": rows })
}

fn rows(set: wit::RowSet) -> Json {
    let columns: Vec<Json> = set
        .columns
        .into_iter()
        .map(|column| json!({ "name": column.name, "type": column.type_name }))
        .collect();
    let rows: Vec<Vec<Json>> =
        set.rows.into_iter().map(|row| row.into_iter().map(values::to_json).collect()).collect();
    json!({ "columns": columns, "rows": rows })
}

fn describe(error: &Error) -> Json {
    json!({
        "kind": error.kind().as_str(),
        "message": error.message(),
        "code": error.code(),
        "detail": error.detail(),
        "hint": error.hint(),
        "constraint": error.constraint(),
        "position": error.position(),
    })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hold {
    /// The `id` in table `gate`.
    gate: String,
    #[serde(default = "default_poll_ms")]
    poll_ms: u64,
}

fn default_poll_ms() -> u64 {
    20
}

/// Takes `{gate, poll_ms}`: says that it is inside its call, stays there until it is let go, and
/// returns how often it looked.
///
/// It needs the tables `inside (execution text)` and `gate (id text primary key, released
/// boolean)`. It inserts its execution's id into `inside`, and waits until the row of `gate` with
/// its id is there and `released`. It has no transaction open while it waits. A busy pool only
/// makes it look again later.
#[handler]
pub(crate) fn hold(ctx: &Context, args: Hold) -> Result<u64, Failure> {
    let pause = Duration::from_millis(args.poll_ms);
    while let Err(error) = db::execute("insert into inside (execution) values ($1)", params![ctx.id()]) {
        wait_if_busy(error, pause)?;
    }
    let mut looked = 0;
    loop {
        looked += 1;
        match db::query("select released from gate where id = $1", params![&args.gate]) {
            Ok(rows) => {
                if let Some(row) = rows.first()
                    && row.get(0)?
                {
                    return Ok(looked);
                }
                thread::sleep(pause);
            }
            Err(error) => wait_if_busy(error, pause)?,
        }
    }
}

fn wait_if_busy(error: Error, pause: Duration) -> Result<(), Failure> {
    if !matches!(error.kind(), ErrorKind::Busy | ErrorKind::Conflict) {
        return Err(error.into());
    }
    thread::sleep(pause);
    Ok(())
}
