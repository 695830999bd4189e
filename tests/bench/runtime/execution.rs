//! A whole execution without the store: instantiate, call, drop.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use innkeeper::execution::Outcome;
use serde_json::json;

use super::bare::Bare;
use super::ours::{Execution, Ours};
use crate::Selection;
use crate::figure::{Figure, Goal, Report};
use crate::rounds::{Round, alternate};

const NAME: &str = "execution_rust";

/// Executions of a side in one round.
const CALLS: u32 = 2_000;

pub async fn measure(selection: &Selection, report: &mut Report) {
    if selection.wants(NAME) {
        report.add(NAME, compare(selection).await);
    }
}

async fn compare(selection: &Selection) -> Result<Figure> {
    let (ours, bare) = (Ours::load(1).await?, Bare::load()?);
    let args = json!({ "customer": 1 });
    let execution = Execution::new("noop", args.clone(), Duration::from_secs(60));
    let comparison = alternate(selection.rounds(31), async || {
        let begun = Instant::now();
        for _ in 0..CALLS {
            let outcome = ours.call(&execution).await;
            ensure!(matches!(outcome, Outcome::Succeeded(_)), "it did not succeed: {outcome:?}");
        }
        let of_ours = begun.elapsed();
        let begun = Instant::now();
        for _ in 0..CALLS {
            bare.call("noop", args.to_string()).await?;
        }
        let each = |took: Duration| took.as_secs_f64() * 1e6 / f64::from(CALLS);
        Ok(Round { ours: each(of_ours), theirs: each(begun.elapsed()) })
    });
    let comparison = comparison.await?;
    Ok(Figure {
        name: NAME.to_owned(),
        value: comparison.value,
        unit: "us",
        against: Some("wasmtime"),
        ratio: Some(comparison.ratio),
        goal: Some(Goal::AtMost(1.3)),
        between: Some(comparison.between),
    })
}
