//! Handlers that are still at work when their time is over.

use std::hint::black_box;
use std::thread;
use std::time::Duration;

use innkeeper_sdk::{Context, Failure, db, handler, params};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Overrun {
    /// A change that a transaction has made, and is open with, when the time is over.
    change: Option<String>,
    then: Then,
    /// The statement of `then`.
    #[serde(default)]
    sql: String,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Then {
    /// Runs a statement that does not end.
    Statement,
    /// Runs a short statement again and again, each in a transaction of its own.
    Statements,
    /// Computes without a call of the host.
    Spin,
    /// Waits in a call of the host.
    Sleep,
}

/// Does not come to an end by itself.
#[handler]
pub(crate) fn overrun(_ctx: &Context, args: Overrun) -> Result<(), Failure> {
    let transaction = match &args.change {
        Some(change) => {
            let transaction = db::begin()?;
            transaction.execute(change, params![])?;
            Some(transaction)
        }
        None => None,
    };
    match args.then {
        Then::Statement => match &transaction {
            Some(transaction) => drop(transaction.query(&args.sql, params![])?),
            None => drop(db::query(&args.sql, params![])?),
        },
        Then::Statements => loop {
            db::query(&args.sql, params![])?;
        },
        Then::Spin => {
            let mut turns = 0_u64;
            loop {
                turns = black_box(turns.wrapping_add(1));
            }
        }
        Then::Sleep => thread::sleep(Duration::from_secs(600)),
    }
    Err(Failure::permanent("it was to be stopped by its time-out, and came to an end by itself"))
}
