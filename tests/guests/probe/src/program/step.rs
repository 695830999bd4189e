//! One step of a program.

use std::collections::BTreeMap;
use std::mem;

use innkeeper_sdk::__private::bindings::innkeeper::plugin::db as wit;
use innkeeper_sdk::Failure;
use innkeeper_sdk::db::{Error, Value};
use serde_json::{Value as Json, json};

use super::{Op, Step};
use crate::values;

/// What the steps have opened. The bindings are used without the SDK around them, so that a
/// handle can be used wrongly.
#[derive(Default)]
pub(super) struct Open {
    transactions: BTreeMap<u32, wit::Transaction>,
    cursors: BTreeMap<u32, wit::Cursor>,
}

/// What the database answers.
type Answer = Result<Json, wit::Error>;

impl Open {
    /// The outer error is a mistake of the test, the inner one the database's answer.
    pub(super) fn run(&mut self, step: Step) -> Result<Result<Json, Error>, Failure> {
        let answer = match step.op {
            Op::Query => wit::query(&step.sql, &params(step.params)?).map(rows),
            Op::Execute => wit::execute(&step.sql, &params(step.params)?).map(changed),
            Op::ExecuteMany => wit::execute_many(&step.sql, &lists(step.lists)?).map(changed),
            Op::Begin => self.begin(step),
            Op::Fetch | Op::Columns | Op::DropCursor | Op::ForgetCursor => self.use_cursor(&step)?,
            _ => self.use_transaction(step)?,
        };
        Ok(answer.map_err(Error::from))
    }

    fn begin(&mut self, step: Step) -> Answer {
        let options = wit::BeginOptions {
            database: step.database,
            isolation: step.isolation.map(Into::into),
            read_only: step.read_only,
        };
        self.transactions.insert(step.tx, wit::begin(&options)?);
        Ok(ok())
    }

    fn use_cursor(&mut self, step: &Step) -> Result<Answer, Failure> {
        let missing = || Failure::permanent(format!("cursor {} is not open", step.cursor));
        if matches!(step.op, Op::DropCursor | Op::ForgetCursor) {
            let cursor = self.cursors.remove(&step.cursor).ok_or_else(missing)?;
            match step.op {
                Op::DropCursor => drop(cursor),
                _ => mem::forget(cursor),
            }
            return Ok(Ok(ok()));
        }
        let cursor = self.cursors.get(&step.cursor).ok_or_else(missing)?;
        Ok(match step.op {
            Op::Fetch => cursor.fetch(step.limit).map(|rows| json!({ "rows": values_of(rows) })),
            _ => Ok(json!({ "columns": columns(cursor.columns()) })),
        })
    }

    fn use_transaction(&mut self, step: Step) -> Result<Answer, Failure> {
        let missing = || Failure::permanent(format!("transaction {} is not open", step.tx));
        if matches!(step.op, Op::Drop | Op::Forget) {
            let transaction = self.transactions.remove(&step.tx).ok_or_else(missing)?;
            match step.op {
                Op::Drop => drop(transaction),
                _ => mem::forget(transaction),
            }
            return Ok(Ok(ok()));
        }
        let transaction = self.transactions.get(&step.tx).ok_or_else(missing)?;
        Ok(match step.op {
            Op::TxQuery => transaction.query(&step.sql, &params(step.params)?).map(rows),
            Op::TxExecute => transaction.execute(&step.sql, &params(step.params)?).map(changed),
            Op::TxExecuteMany => transaction.execute_many(&step.sql, &lists(step.lists)?).map(changed),
            Op::OpenCursor => transaction.open_cursor(&step.sql, &params(step.params)?).map(|cursor| {
                self.cursors.insert(step.cursor, cursor);
                ok()
            }),
            Op::Savepoint => transaction.savepoint().map(|number| json!({ "savepoint": number })),
            Op::RollbackTo => transaction.rollback_to(step.savepoint).map(|()| ok()),
            Op::Release => transaction.release(step.savepoint).map(|()| ok()),
            Op::Commit => transaction.commit().map(|()| ok()),
            _ => transaction.rollback().map(|()| ok()),
        })
    }
}

fn params(given: Vec<Json>) -> Result<Vec<Value>, Failure> {
    given.into_iter().map(values::from_json).collect::<Result<_, _>>().map_err(Failure::permanent)
}

fn lists(given: Vec<Vec<Json>>) -> Result<Vec<Vec<Value>>, Failure> {
    given.into_iter().map(params).collect()
}

fn ok() -> Json {
    json!({ "ok": true })
}

fn changed(rows: u64) -> Json {
    json!({ "changed": rows })
}

fn rows(set: wit::RowSet) -> Json {
    json!({ "columns": columns(set.columns), "rows": values_of(set.rows) })
}

fn columns(columns: Vec<wit::Column>) -> Vec<Json> {
    columns.into_iter().map(|column| json!({ "name": column.name, "type": column.type_name })).collect()
}

fn values_of(rows: Vec<Vec<Value>>) -> Vec<Vec<Json>> {
    rows.into_iter().map(|row| row.into_iter().map(values::to_json).collect()).collect()
}

/// An error as a result has it.
pub(crate) fn describe(error: &Error) -> Json {
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
