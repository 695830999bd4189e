//! Saying what is forbidden, and looking at what is left of it.

use innkeeper_sdk::{Context, Failure, handler, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{describe, kind, options, rows, wit};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Raid {
    /// SQL.
    attacks: Vec<String>,
    /// Queries for everything that an attack could have left in a session.
    look: Vec<String>,
}

/// What became of one attack.
#[derive(Serialize)]
pub(crate) struct Attacked {
    /// Answers to `execute`, `query`, and both inside of a transaction: `ok`, or a kind.
    answers: [&'static str; 4],
    /// The answer to the commit of the transaction with the third one.
    commit: &'static str,
    /// What `look` sees now, where that is not what it saw before all attacks.
    left: Option<Vec<String>>,
}

/// Takes `{attacks, look}`, and tries each attack on its own and within transactions: one that
/// marks `(attack, 1)` and `(attack, 2)` in `marks` around it and commits, and one that marks
/// `(attack, 3)` and rolls back. Returns a list with what became of each.
#[handler]
pub(crate) fn raid(_ctx: &Context, args: Raid) -> Result<Vec<Attacked>, Failure> {
    let before = look(&args.look);
    let mut attacked = Vec::new();
    for (number, sql) in args.attacks.iter().enumerate() {
        let own = [kind(&wit::execute(sql, &[])), kind(&wit::query(sql, &[]))];
        let failed = |error| Failure::permanent(format!("attack {number}: {}", describe(error)));
        let mark = "insert into marks (attack, part) values ($1, $2)";
        let number = i64::try_from(number).unwrap_or(i64::MAX);

        let first = wit::begin(&options(None, false)).map_err(failed)?;
        first.execute(mark, &params![number, 1]).map_err(failed)?;
        let executed = kind(&first.execute(sql, &[]));
        let _may_be_refused = first.execute(mark, &params![number, 2]);
        let commit = kind(&first.commit());

        let second = wit::begin(&options(None, false)).map_err(failed)?;
        second.execute(mark, &params![number, 3]).map_err(failed)?;
        let queried = kind(&second.query(sql, &[]));
        let _may_be_over = second.rollback();

        let after = look(&args.look);
        let left = (after != before).then_some(after);
        attacked.push(Attacked { answers: [own[0], own[1], executed, queried], commit, left });
    }
    Ok(attacked)
}

fn look(queries: &[String]) -> Vec<String> {
    let seen = |sql: &String| wit::query(sql, &[]).map(|set| rows(&set).to_string()).unwrap_or_else(describe);
    queries.iter().map(seen).collect()
}
