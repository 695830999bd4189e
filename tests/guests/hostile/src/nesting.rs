//! Wanting a second connection while holding one.

use std::thread;
use std::time::Duration;

use innkeeper_sdk::{Context, Failure, handler, params};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::wit::{self, ErrorKind, Transaction};
use crate::{describe, options};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nest {
    /// What it writes.
    number: i64,
    /// The transaction that stays open around the other one only reads. For SQLite, which has
    /// one writer at a time.
    #[serde(default)]
    outer_reads: bool,
}

/// Takes `{number, outer_reads}`: begins a transaction, and a second one inside of it; both write
/// `number` into `t (number, part)` and commit. Where a connection or a lock is busy, it rolls
/// back all that it has and tries again, until its time is over. Returns how often it had to.
#[handler]
pub(crate) fn nest(_ctx: &Context, args: Nest) -> Result<u64, Failure> {
    let mut busy = 0;
    loop {
        match both(&args) {
            Ok(()) => return Ok(busy),
            Err(error) if matches!(error.kind, ErrorKind::Busy | ErrorKind::Conflict) => {
                busy += 1;
                // Out of the line, longer each time, and each one differently: who asks again at
                // once only stands in the way of those who hold one and wait for the second.
                let spread = (args.number.unsigned_abs() * 7 + busy * 13) % 17;
                thread::sleep(Duration::from_millis((20 << busy.min(4)) + 3 * spread));
            }
            Err(error) => return Err(Failure::permanent(describe(error))),
        }
    }
}

/// An error drops, and so rolls back, whatever is open.
fn both(args: &Nest) -> Result<(), wit::Error> {
    let outer = wit::begin(&options(None, args.outer_reads))?;
    if args.outer_reads {
        outer.query("select count(*) from t where number = $1", &params![args.number])?;
        write(&wit::begin(&options(None, false))?, args.number, "inner")?;
        outer.rollback()
    } else {
        outer.execute(INSERT, &params![args.number, "outer"])?;
        let inner = wit::begin(&options(None, false))?;
        inner.execute(INSERT, &params![args.number, "inner"])?;
        // The outer one first: whoever is busy from here on has lost nothing.
        outer.commit()?;
        inner.commit()
    }
}

const INSERT: &str = "insert into t (number, part) values ($1, $2)";

fn write(transaction: &Transaction, number: i64, part: &str) -> Result<(), wit::Error> {
    transaction.execute(INSERT, &params![number, part])?;
    transaction.commit()
}
