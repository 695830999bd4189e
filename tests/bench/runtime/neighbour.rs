//! What a plugin that behaves feels of one that does not.
//!
//! Every so often an execution of a handler that computes for a few milliseconds, each in a task of its
//! own on the threads of handlers, first alone, then beside executions of another kind that spin,
//! take all the memory they can get, and flood the log; they are stopped by their time-out now and then,
//! or fail, and start again at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use innkeeper::execution::Outcome;
use serde_json::json;

use super::ours::{Execution, Ours};
use crate::Selection;
use crate::figure::{Figure, Goal, Report};
use crate::rounds::{quantile, sorted};

const NAME: &str = "neighbour_p99";
const NOOP: &str = "neighbour_noop_p99";

/// At once, of each kind.
const HOSTILE: [(&str, usize); 3] = [("spin", 8), ("allocate", 4), ("log", 4)];

/// How long one that is hostile may run.
const HOSTILE_TIMEOUT: Duration = Duration::from_millis(300);

/// From the end of one execution that behaves to the start of the next.
const PAUSE: Duration = Duration::from_millis(15);

/// How long the handler that behaves should compute by itself.
const WORK: Duration = Duration::from_millis(5);

pub async fn measure(selection: &Selection, report: &mut Report) {
    for name in [NAME, NOOP] {
        if selection.wants(name) {
            report.add(name, compare(name, selection).await);
        }
    }
}

async fn compare(name: &str, selection: &Selection) -> Result<Figure> {
    let ours = Ours::load(64).await?;
    let execution = match name {
        NOOP => Execution::new("noop", json!({ "customer": 1 }), Duration::from_secs(60)),
        _ => calibrated(&ours).await,
    };
    // The 99th percentile of that many is one that was measured.
    let executions = if selection.quick { 100 } else { 1_000 };
    p99(&ours, &execution, 10).await?;
    let alone = p99(&ours, &execution, executions).await?;
    let over = Arc::new(AtomicBool::new(false));
    let mut hostile = Vec::new();
    for (what, count) in HOSTILE {
        for _ in 0..count {
            let mut flood = Execution::new("flood", json!({ "what": what }), HOSTILE_TIMEOUT);
            flood.of_other = true;
            hostile.push(tokio::spawn(again_and_again(ours.clone(), flood, Arc::clone(&over))));
        }
    }
    // All of them have started by the time that this is through.
    p99(&ours, &execution, 50).await?;
    let beside = p99(&ours, &execution, executions).await;
    over.store(true, Ordering::Relaxed);
    for task in hostile {
        task.await??;
    }
    let beside = beside?;
    Ok(Figure {
        against: Some("alone"),
        ratio: Some(beside / alone),
        goal: (name == NAME).then_some(Goal::AtMost(2.0)),
        ..Figure::alone(name, beside, "ms")
    })
}

/// A handler with as many steps as take the time on this machine.
async fn calibrated(ours: &Ours) -> Execution {
    const STEPS: u32 = 1_000_000;
    let work = |steps: u64| Execution::new("work", json!({ "steps": steps }), Duration::from_secs(60));
    let execution = work(u64::from(STEPS));
    let mut shortest = f64::INFINITY;
    for _ in 0..20 {
        let begun = Instant::now();
        ours.call(&execution).await;
        shortest = shortest.min(begun.elapsed().as_secs_f64());
    }
    let of_one = shortest / f64::from(STEPS);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "millions of steps")]
    work((WORK.as_secs_f64() / of_one) as u64)
}

async fn again_and_again(ours: Ours, flood: Execution, over: Arc<AtomicBool>) -> Result<()> {
    while !over.load(Ordering::Relaxed) {
        let outcome = ours.spawn(flood.clone()).await?;
        ensure!(matches!(outcome, Outcome::Failed(_)), "a flood came to an end by itself: {outcome:?}");
    }
    Ok(())
}

/// Milliseconds from the moment that a task is made to its end.
async fn p99(ours: &Ours, execution: &Execution, executions: usize) -> Result<f64> {
    let mut times = Vec::with_capacity(executions);
    for _ in 0..executions {
        tokio::time::sleep(PAUSE).await;
        let begun = Instant::now();
        let outcome = ours.spawn(execution.clone()).await?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        ensure!(matches!(outcome, Outcome::Succeeded(_)), "it did not succeed: {outcome:?}");
    }
    Ok(quantile(&sorted(times.into_iter()), 0.99))
}
