//! A program that a test can hold at any of its steps.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use innkeeper_sdk::{Context, Failure, handler};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::wit::{self, Transaction, Value};
use crate::{describe, rows};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    /// The database with the table `gate (id text primary key)`.
    gates: Option<String>,
    steps: Vec<Step>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Step {
    Begin {
        tx: u32,
        database: Option<String>,
        #[serde(default)]
        read_only: bool,
        #[serde(default)]
        repeatable_read: bool,
    },
    /// Without a number, in a transaction of its own.
    Query {
        tx: Option<u32>,
        sql: String,
    },
    /// As `query`.
    Execute {
        tx: Option<u32>,
        sql: String,
    },
    Commit {
        tx: u32,
    },
    Rollback {
        tx: u32,
    },
    /// Reports this number as its progress.
    Reach {
        step: u64,
    },
    /// Waits until `gate` has a row with this id.
    Wait {
        gate: String,
    },
    /// Returns an error.
    Fail {
        message: String,
    },
    Panic {
        message: String,
    },
    /// Never ends.
    Spin,
}

/// Takes `{gates, steps}`, where a step is one of `{begin: {tx, database, read_only,
/// repeatable_read}}`, `{query: {tx, sql}}`, `{execute: {tx, sql}}`, `{commit: {tx}}`,
/// `{rollback: {tx}}`, `{reach: {step}}`, `{wait: {gate}}`, `{fail: {message}}`,
/// `{panic: {message}}` and `"spin"`. Returns what the steps that ask the database were answered:
/// rows, numbers, `"ok"`, or `{"error": kind}`.
#[handler]
pub(crate) fn script(ctx: &Context, args: Script) -> Result<Vec<Json>, Failure> {
    let mut open = BTreeMap::new();
    let mut answers = Vec::new();
    for step in args.steps {
        match step {
            Step::Reach { step } => ctx.progress(step, None, None::<&str>),
            Step::Wait { gate } => wait(args.gates.clone(), &gate)?,
            Step::Fail { message } => return Err(Failure::retryable(message)),
            Step::Panic { message } => panic!("{message}"),
            Step::Spin => loop {
                std::hint::black_box(0);
            },
            asks => {
                let answer = ask(asks, &mut open);
                answers.push(answer.unwrap_or_else(|error| json!({ "error": error.kind.as_str() })));
            }
        }
    }
    Ok(answers)
}

/// A step that asks the database. A transaction that is not open is a mistake of the test's.
fn ask(step: Step, open: &mut BTreeMap<u32, Transaction>) -> Result<Json, wit::Error> {
    match step {
        Step::Begin { tx, database, read_only, repeatable_read } => {
            let isolation = repeatable_read.then_some(wit::Isolation::RepeatableRead);
            open.insert(tx, wit::begin(&wit::BeginOptions { database, isolation, read_only })?);
            Ok(json!("ok"))
        }
        Step::Query { tx, sql } => {
            let set = match tx {
                Some(tx) => open[&tx].query(&sql, &[]),
                None => wit::query(&sql, &[]),
            };
            Ok(rows(&set?))
        }
        Step::Execute { tx, sql } => {
            let changed = match tx {
                Some(tx) => open[&tx].execute(&sql, &[]),
                None => wit::execute(&sql, &[]),
            };
            Ok(json!(changed?))
        }
        Step::Commit { tx } => open[&tx].commit().map(|()| json!("ok")),
        Step::Rollback { tx } => open[&tx].rollback().map(|()| json!("ok")),
        _ => unreachable!("the others ask nothing"),
    }
}

fn wait(database: Option<String>, gate: &str) -> Result<(), Failure> {
    let options = wit::BeginOptions { database, isolation: None, read_only: true };
    loop {
        let look = wit::begin(&options).and_then(|transaction| {
            let id = Value::Text(gate.to_owned());
            transaction.query("select id from gate where id = $1", &[id])
        });
        match look {
            Ok(set) if !set.rows.is_empty() => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind == wit::ErrorKind::Busy => {}
            Err(error) => return Err(Failure::permanent(format!("at the gate: {}", describe(error)))),
        }
        thread::sleep(Duration::from_millis(10));
    }
}
