//! A handler that leaves a trace of every attempt in its own database.

use innkeeper_sdk::{Context, Failure, db, handler, params};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ledger {
    /// Transactions, each with one row.
    steps: u32,
}

/// Takes `{steps}`: writes its execution and attempt in so many transactions, tells its progress between
/// two of them, when nothing is open, and returns how many there were.
///
/// It needs the table `ledger (execution text, attempt bigint, step bigint)`. It waits for nobody: a
/// test that wants it to stand still somewhere holds up what it sends.
#[handler]
pub(crate) fn ledger(ctx: &Context, args: Ledger) -> Result<u32, Failure> {
    for step in 1..=args.steps {
        if step > 1 {
            ctx.progress(u64::from(step - 1), u64::from(args.steps), "between two transactions");
        }
        let tx = db::begin()?;
        tx.execute(
            "insert into ledger (execution, attempt, step) values ($1, $2, $3)",
            params![ctx.id(), i64::from(ctx.attempt()), i64::from(step)],
        )?;
        tx.commit()?;
    }
    Ok(args.steps)
}
